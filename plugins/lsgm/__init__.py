"""LSGM: a score model in the latents of a hierarchical autoencoder, trained together (Vahdat et al. 2021)."""
