"""MVDream: four views of one object denoised together, with public weights."""
