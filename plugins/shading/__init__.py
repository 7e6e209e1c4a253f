"""Materials that turn features into colour."""
