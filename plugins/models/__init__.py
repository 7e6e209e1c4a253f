"""Public models by short names: where each is to be had, under which licence, and which prior loads it."""
