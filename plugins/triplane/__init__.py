"""Fields on three planes."""
