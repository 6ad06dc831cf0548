"""WebDataset tars in and out."""
