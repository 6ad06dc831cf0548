"""The table of formats: those of this package and those that other packages add.

A package adds a format by an entry point of the group ``metacurate.formats`` that names an object
with the members of ``protocol.Format``.
"""

from __future__ import annotations

import os.path
from functools import cache

from metacurate.formats.arrow import Arrow
from metacurate.formats.delimited import CSV, TSV
from metacurate.formats.jsontext import Json
from metacurate.formats.parquet import Parquet
from metacurate.formats.protocol import Format
from metacurate.plugins import load_all

BUILT_IN: dict[str, Format] = {
    "parquet": Parquet(),
    "csv": CSV,
    "tsv": TSV,
    "json": Json(),
    "arrow": Arrow(),
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


@cache
def formats() -> dict[str, Format]:
    """All formats by name; UserError if an added one cannot be used."""
    return BUILT_IN | {n: form for n, form in load_all("format").items() if n not in BUILT_IN}


def format_of(address: str) -> tuple[str, str | None] | None:
    """The format and compression that a file's name tells, or None if it is no pool file."""
    stem, suffix = os.path.splitext(address.lower())
    compression = COMPRESSIONS.get(suffix)
    if compression is not None:
        suffix = os.path.splitext(stem)[1]
    for name, form in formats().items():
        if suffix in form.suffixes and (compression is None or form.compressible):
            return name, compression
    return None


def is_shy(address: str) -> bool:
    """Whether a folder's file of this name is left alone if there are others."""
    known = format_of(address)
    if known is None:
        return False
    stem = address.lower()
    for suffix in COMPRESSIONS if known[1] else ():
        stem = stem.removesuffix(suffix)
    return stem.endswith(formats()[known[0]].shy)


def known_suffixes() -> str:
    """The formats and their suffixes, for messages."""
    kinds = [f"{form.title} ({', '.join(form.suffixes)})" for form in formats().values()]
    return (
        f"{', '.join(kinds[:-1])} or {kinds[-1]}; text formats also as {' or '.join(COMPRESSIONS)}"
    )
