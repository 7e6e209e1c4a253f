"""InstructPix2Pix."""
