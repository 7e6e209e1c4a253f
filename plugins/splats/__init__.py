"""Gaussian splats: geometry, renderer and files."""
