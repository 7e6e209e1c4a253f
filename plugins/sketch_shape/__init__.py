"""A field that a sketch mesh guides (Metzer et al. 2023, "Latent-NeRF for Shape-Guided Generation", section 3.2)."""
