"""The benchmarks' data: real entries and real texts, from Debian packages.

``wordnet-base`` has WordNet 3.0 (names and glosses), ``wamerican-insane`` Debian's largest English
word list.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from metacurate.metadata.wordnet import read_glosses, shipped_entries

WORDNET = Path("/usr/share/wordnet")
WORDS = Path("/usr/share/dict/american-english-insane")


def entries(number: int) -> list[str]:
    """WordNet's names, then Debian's words; beyond these, two-word phrases from the glosses."""
    phrases = (
        f"{a} {b}" for text in read_glosses(WORDNET) for a, b in itertools.pairwise(text.split(" "))
    )
    words = (word.strip() for word in WORDS.open(encoding="utf-8"))
    sources = itertools.chain(shipped_entries(), words, phrases)
    unique = dict.fromkeys(e for e in sources if e)
    found = list(itertools.islice(unique, number))
    if len(found) < number:
        raise SystemExit(f"only {len(found)} entries of {number}")
    return found


def texts() -> list[str]:
    """WordNet's definitions and example sentences: 184,186 texts of 47 characters on average."""
    return read_glosses(WORDNET)
