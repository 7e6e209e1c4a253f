"""Viewset Diffusion."""
