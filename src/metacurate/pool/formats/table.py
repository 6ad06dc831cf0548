"""The table of formats: those of this package and those that other packages add.

A package adds a format by an entry point of the group ``metacurate.formats`` that names an object
with the members of ``protocol.Format``.
"""

from __future__ import annotations

import os.path
from functools import cache
from importlib.metadata import entry_points

from metacurate.errors import UserError, first_line
from metacurate.pool.formats.delimited import CSV, TSV
from metacurate.pool.formats.jsonlines import JsonLines
from metacurate.pool.formats.parquet import Parquet
from metacurate.pool.formats.protocol import Format

GROUP = "metacurate.formats"
BUILT_IN: dict[str, Format] = {
    "parquet": Parquet(),
    "csv": CSV,
    "tsv": TSV,
    "jsonl": JsonLines(),
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}


@cache
def formats() -> dict[str, Format]:
    """All formats by name; UserError if an added one cannot be used."""
    found = dict(BUILT_IN)
    for point in entry_points(group=GROUP):
        try:
            found.setdefault(point.name, point.load())
        except Exception as error:
            raise UserError(
                f"the format {point.name!r} of {point.value} cannot be loaded "
                f"({first_line(error)}); mend or remove that package"
            ) from None
    return found


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


def known_suffixes() -> str:
    """The formats and their suffixes, for messages."""
    kinds = [f"{form.title} ({', '.join(form.suffixes)})" for form in formats().values()]
    return (
        f"{', '.join(kinds[:-1])} or {kinds[-1]}; text formats also as {' or '.join(COMPRESSIONS)}"
    )
