"""Pictures that a prior makes of the scene as it is, for the scene to follow."""
