"""What all diffusion code shares: the process, classifier-free guidance, sampling, diffusers folders."""
