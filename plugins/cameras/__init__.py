"""Where a lift is looked at from."""
