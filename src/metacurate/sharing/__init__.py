"""Publishing a run: its dataset card, its Croissant description, its distribution alone."""
