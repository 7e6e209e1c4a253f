"""Assets from a finished scene: textured meshes (GLB, OBJ, PLY), a turntable, contact sheets and gallery pictures."""
