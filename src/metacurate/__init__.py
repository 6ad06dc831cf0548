"""metacurate: open, fast, reproducible metadata-curated language-image data."""

__version__ = "0.1.0"
