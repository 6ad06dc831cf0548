"""One row an image."""
