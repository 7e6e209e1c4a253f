"""RenderDiffusion."""
