"""Assets from a finished scene: textured meshes (GLB, OBJ, PLY), a turntable, contact sheets, pictures."""
