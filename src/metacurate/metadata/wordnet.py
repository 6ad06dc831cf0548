"""WordNet 3.0: synset names as metadata entries, and glosses as real short English texts.

Reads the database files of WordNet's own distribution (``data.noun``, ``data.verb``, ``data.adj``,
``data.adv``; format: the manual page wndb(5WN)). A synset line is::

    offset lex_filenum ss_type w_cnt word lex_id [word lex_id ...] ... | gloss

with ``w_cnt`` in hexadecimal. Everything here is in file order: nouns, verbs, adjectives, adverbs,
each by offset.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from metacurate.errors import UserError

DATA_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
# Adjectives carry their syntactic position: "galore(ip)", "ready_to_hand(p)", "outback(a)".
_POSITION_MARKER = re.compile(r"\((?:a|p|ip)\)$")
_OFFSET = re.compile(r"\d{8}")
# An example sentence is quoted; a quotation inside a definition does not follow a separator.
_FIRST_EXAMPLE = re.compile(r'(?:^|[;:,.)] *)"')
_EXAMPLE = re.compile(r'"([^"]+)(?:"|$)')


@dataclass(frozen=True)
class Synset:
    """One synset: its byte offset in its file, type (n, v, a, s or r), words and gloss."""

    offset: int
    type: str
    words: tuple[str, ...]
    gloss: str


def read_synsets(folder: Path) -> Iterator[Synset]:
    """Yield the synsets of a folder with WordNet's ``data.*`` files.

    Raises UserError if a file is missing or a line is no synset.
    """
    for name in DATA_FILES:
        path = folder / name
        try:
            with path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    if not line.startswith("  "):  # the licence at the top is indented
                        yield _parse(line, path, number)
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"there is no {path}: name the folder of WordNet 3.0's database files "
                "(Debian's package wordnet-base puts them into /usr/share/wordnet)"
            ) from None
        except UnicodeDecodeError:
            raise UserError(f"{path} is no WordNet database file: it is not UTF-8 text") from None


def _parse(line: str, path: Path, number: int) -> Synset:
    head, _, gloss = line.partition(" | ")
    fields = head.split()
    try:
        offset, _, kind, word_count = fields[:4]
        count = int(word_count, 16)
        words = fields[4 : 4 + 2 * count : 2]
        if not (_OFFSET.fullmatch(offset) and kind in "nvasr" and 0 < count == len(words)):
            raise ValueError
    except ValueError:
        raise UserError(f"{path}, line {number}: this is no WordNet synset") from None
    return Synset(
        int(offset), kind, tuple(_POSITION_MARKER.sub("", w) for w in words), gloss.strip()
    )


def read_synset_names(folder: Path, keep_dots: bool = False) -> list[str]:
    """The unique synset names by the metadata rule, in order of first appearance.

    A synset's name is its first word, lower-cased (``st._petersburg`` in ``st._petersburg.n.01``).
    The rule keeps what comes before the first ``.`` and turns underscores into spaces: this name
    becomes ``st``, and the names of calibres (``.22_caliber``) all become the empty string, which
    is counted here as the rule has it, but is no valid metadata entry: see ``read_entries``.
    With ``keep_dots`` names with dots stay whole (``st. petersburg``).

    WordNet 3.0 as packaged by Debian has 117,659 synsets with 86,555 unique names, or 86,571 with
    ``keep_dots``.
    """
    names = (synset.words[0].lower() for synset in read_synsets(folder))
    if not keep_dots:
        names = (name.partition(".")[0] for name in names)
    return list(dict.fromkeys(name.replace("_", " ") for name in names))


def read_entries(folder: Path, keep_dots: bool = False) -> list[str]:
    """``read_synset_names`` without the empty name: valid metadata entries."""
    return [name for name in read_synset_names(folder, keep_dots) if name]


def read_glosses(folder: Path) -> list[str]:
    """Every part of every definition (split at semicolons) and every example sentence.

    Repeats are kept. WordNet 3.0 has 184,186: 135,850 definitions and 48,336 examples.
    """
    texts: list[str] = []
    for synset in read_synsets(folder):
        example = _FIRST_EXAMPLE.search(synset.gloss)
        start = example.start() if example else len(synset.gloss)
        definition = synset.gloss[:start]
        texts += [part for part in (p.strip() for p in definition.split("; ")) if part]
        texts += _EXAMPLE.findall(synset.gloss[start:])
    return texts


def shipped_entries() -> list[str]:
    """The entries of ``read_entries`` for WordNet 3.0, from this package's own data file."""
    packed = files("metacurate").joinpath("data/wordnet.txt.xz").read_bytes()
    return unpack(packed)


def pack(entries: list[str]) -> bytes:
    """Entries as the bytes of the data file: xz of UTF-8 text with one entry a line."""
    text = "".join(f"{entry}\n" for entry in entries).encode()
    return lzma.compress(text, check=lzma.CHECK_CRC64, preset=9 | lzma.PRESET_EXTREME)


def unpack(packed: bytes) -> list[str]:
    """The inverse of ``pack``."""
    return lzma.decompress(packed).decode().split("\n")[:-1]
