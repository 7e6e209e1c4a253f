"""Triangle meshes: the mesh renderer, and the geometry of a mesh whose texture is learned."""
