"""The benchmarks' data: real entries and real texts, from Debian packages.

``wordnet-base`` has WordNet 3.0 (names and glosses), ``wamerican-insane`` Debian's largest English
word list.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.metadata.wordnet import read_glosses, shipped_entries

WORDNET = Path("/usr/share/wordnet")
WORDS = Path("/usr/share/dict/american-english-insane")
ROWS_PER_FILE = 500_000


def entries(number: int) -> list[str]:
    """WordNet's names, then Debian's words; beyond these, phrases of the glosses."""
    words = (word.strip() for word in WORDS.open(encoding="utf-8"))
    sources = itertools.chain(shipped_entries(), words, *map(phrases, range(2, 6)))
    unique: dict[str, None] = {}
    for entry in sources:
        if entry:
            unique[entry] = None
        if len(unique) == number:
            return list(unique)
    raise SystemExit(f"there are only {len(unique)} entries, not {number}")


def phrases(words: int) -> Iterator[str]:
    """All runs of so many words in the glosses."""
    for text in texts():
        tokens = text.split(" ")
        for start in range(len(tokens) - words + 1):
            yield " ".join(tokens[start : start + words])


def texts() -> list[str]:
    """WordNet's definitions and example sentences: 184,186 texts of 47 characters on average."""
    return read_glosses(WORDNET)


def write_pool(folder: Path, rows: int) -> None:
    """A pool of ``rows`` pairs: the real texts over and over, each time with another URL."""
    folder.mkdir(parents=True)
    captions = pa.array(texts())
    for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        ids = np.arange(first, min(first + ROWS_PER_FILE, rows))
        urls = [f"https://images.example.org/{i % 9973:05d}/{i:010d}.jpg" for i in ids.tolist()]
        table = pa.table(
            {"url": urls, "caption": captions.take(pa.array(ids % len(captions)))},
            schema=pa.schema([("url", pa.string()), ("caption", pa.string())]),
        )
        path = folder / f"{number:05d}.parquet"
        pq.write_table(table, path, row_group_size=100_000, compression="zstd")
