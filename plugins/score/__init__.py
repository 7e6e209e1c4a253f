"""How a prior's prediction becomes a gradient."""
