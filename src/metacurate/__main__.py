"""``python -m metacurate``."""

from metacurate.cli import main

main()
