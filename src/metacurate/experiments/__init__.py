"""The same model and budget on data chosen in different ways."""
