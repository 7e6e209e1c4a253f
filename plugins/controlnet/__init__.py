"""Stable Diffusion with a ControlNet."""
