"""Which entries a text mentions."""
