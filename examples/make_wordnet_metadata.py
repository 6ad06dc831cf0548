"""Derive the package's built-in WordNet metadata from WordNet 3.0's own database files.

    python examples/make_wordnet_metadata.py [FOLDER [TARGET]]

FOLDER is /usr/share/wordnet if not given (from Debian's package wordnet-base), TARGET the package's
own data file. The same files give the same bytes with the same release of liblzma; the text inside
is the same with any.
"""

from __future__ import annotations

import sys
from pathlib import Path

from metacurate.metadata.wordnet import pack, read_entries

FOLDER = Path("/usr/share/wordnet")
TARGET = Path(__file__).parents[1] / "src/metacurate/data/wordnet.txt.xz"


def main(folder: Path = FOLDER, target: Path = TARGET) -> None:
    """Write the data file."""
    entries = read_entries(folder)
    target.write_bytes(pack(entries))
    print(f"{target}: {len(entries):,} entries, {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
