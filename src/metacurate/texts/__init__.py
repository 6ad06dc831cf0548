"""Rules for texts, and their language."""
