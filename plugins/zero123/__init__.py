"""Public Zero-1-to-3 weights: diffusers folders and the original single-file checkpoints."""
