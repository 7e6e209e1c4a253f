"""What is behind the object."""
