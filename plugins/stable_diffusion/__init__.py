"""Stable Diffusion 1.x and 2.x, and every model in their folder format."""
