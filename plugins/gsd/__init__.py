"""GSD: a diffusion transformer over sets of Gaussian ellipsoids, led by views (Mu et al. 2024)."""
