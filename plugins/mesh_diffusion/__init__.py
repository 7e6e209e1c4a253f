"""MeshDiffusion (Liu et al. 2023): diffusion on deformable tetrahedral grids."""
