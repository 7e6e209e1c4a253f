"""Fields on a dense grid of voxels."""
