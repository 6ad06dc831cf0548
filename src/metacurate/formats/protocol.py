"""What a table format is: one object that looks at a file of its kind and reads it in batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from metacurate.formats.files import Source, UnusableFile

__all__ = ["Format", "Look", "Request", "Rows", "UnusableFile"]

Rows = Iterator[tuple[int, pa.RecordBatch]]
"""Batches of rows, each with the number in its unit of its first row."""


@dataclass(frozen=True)
class Look:
    """What a look at a file shows.

    ``schema``: all columns, as ``read`` gives them. ``carried``: the same columns in the types in
    which they are carried on, where those differ. ``pieces``: how many rows each of the pieces has
    that can be read alone; None: the file is one piece of unknown length. ``settings``: what else
    ``read`` must know; plain values.
    """

    schema: pa.Schema
    carried: pa.Schema | None = None
    pieces: tuple[int, ...] | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What to read from a file.

    ``schema`` and ``settings`` are those of its ``Look``. ``columns``: those to give. ``needed``:
    those of them without which a row is of no use. ``strict``: those in which only strings are of
    use, where a format knows other values. ``url``: the URL's. ``pieces``: from the first up to the
    second piece.
    """

    schema: pa.Schema
    settings: dict[str, Any]
    columns: tuple[str, ...]
    needed: tuple[str, ...]
    strict: tuple[str, ...]
    url: str | None
    pieces: tuple[int, int] | None
    batch_rows: int


class Format(Protocol):
    """A table format. Its functions get an open file and, if that is compressed, the codec.

    ``title`` is its name for people; ``suffixes`` are the ends of its file names, in lower case;
    of those in ``shy`` a folder's files are read only if it holds no others; ``compressible`` says
    whether ``.gz`` and the like may follow.
    """

    title: str
    suffixes: tuple[str, ...]
    shy: tuple[str, ...]
    compressible: bool

    def look(self, source: Source, compression: str | None) -> Look:
        """Look at a file's head; UnusableFile if it holds no table of this format."""

    def read(
        self, source: Source, compression: str | None, request: Request, skipped: Counter[str]
    ) -> Rows:
        """The rows that can be read, with at least ``request.columns``.

        Row numbers and rows are the same whichever columns are asked for. What is lost is counted
        in ``skipped`` (``formats.reasons``). Batches of about ``request.batch_rows`` rows, and of
        so many bytes as memory allows.
        """
