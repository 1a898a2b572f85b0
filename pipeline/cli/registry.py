"""What is asked of the registry: which version serves, since when, made from what."""
