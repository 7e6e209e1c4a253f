"""Pictures compared by what networks see in them."""
