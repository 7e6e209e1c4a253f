"""What generators share: from a fitted run to samples, what samples look like, and meshes as scenes."""
