"""LION: latent point diffusion (Zeng et al. 2022)."""
