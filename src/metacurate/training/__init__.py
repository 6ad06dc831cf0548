"""Training of open_clip models on curated or raw pairs; needs the extra ``train``."""
