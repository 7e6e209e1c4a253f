"""Deformable tetrahedra: an exact tetrahedral grid, marching tetrahedra, and the geometry made of both."""
