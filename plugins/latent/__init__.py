"""Scenes that are made of a prior's latents."""
