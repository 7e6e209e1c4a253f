"""Networks and solvers over sets of points: neighbourhoods, point-voxel convolutions, surfaces, distances of sets."""
