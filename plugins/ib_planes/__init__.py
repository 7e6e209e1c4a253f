"""Denoising diffusion via image-based rendering (Anciukevičius et al. 2024): a plane of features at each camera."""
