"""Metadata: the ordered entries to match texts with, loaded, checked and saved.

An entry's position is its id (uint32). Files are a JSON array of strings (the public format) or
Parquet with the column ``entry`` and, as far as known, ``source``, ``score`` and ``lang``.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from metacurate.errors import UserError
from metacurate.metadata import wordnet
from metacurate.storage import Folder

BUILT_IN = "wordnet"
MAX_ENTRIES = 2**32 - 1  # ids are uint32
MAX_FILE_BYTES = 4 * 2**30  # beyond, a file is hardly metadata; 2 million entries take 40 MB
ENTRY = "entry"
OPTIONAL_COLUMNS = {"source": pa.string(), "score": pa.float64(), "lang": pa.string()}
ROWS_PER_GROUP = 262_144
_SHOWN = 5
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, eq=False)
class Metadata:
    """Checked entries: unique, not empty, valid UTF-8. Build it with :func:`make_metadata`.

    ``entries`` is an Arrow large_string array of n values without nulls; ``source`` (string),
    ``score`` (float64) and ``lang`` (string) are arrays of n values, null where unknown, or None.
    """

    entries: pa.LargeStringArray
    source: pa.StringArray | None = None
    score: pa.DoubleArray | None = None
    lang: pa.StringArray | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def fingerprint(self) -> str:
        """Hex BLAKE2b (128 bits) of the number of entries, their lengths and their UTF-8 bytes.

        Numbers are little-endian uint64. It depends on nothing else: not on the file's format, nor
        on the other columns.
        """
        offsets, data = _buffers(self.entries)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(len(self.entries).to_bytes(8, "little"))
        digest.update(np.diff(offsets).astype("<u8"))
        digest.update(data)
        return digest.hexdigest()


def _buffers(array: pa.LargeStringArray) -> tuple[np.ndarray, memoryview]:
    """An array's offsets (int64[n + 1], as they are) and the bytes between the first and last."""
    _, offset_buffer, data = array.buffers()
    offsets = np.zeros(1, np.int64)
    if len(array):
        offsets = np.frombuffer(offset_buffer, np.int64, len(array) + 1, array.offset * 8)
    view = memoryview(data) if data is not None else memoryview(b"")
    return offsets, view[offsets[0] : offsets[-1]]


def make_metadata(
    entries: Sequence[str] | pa.Array | pa.ChunkedArray,
    *,
    source: Any = None,
    score: Any = None,
    lang: Any = None,
    origin: str = "metadata",
) -> Metadata:
    """Check entries and make them metadata.

    ``source``, ``score`` and ``lang`` are sequences or Arrow arrays as long as ``entries``.
    ``origin`` names the entries in messages. Raises UserError naming the first few entries that
    are repeated, empty, no strings or no valid Unicode, with their positions (from 0).
    """
    problems: dict[str, list[str]] = {}
    if isinstance(entries, pa.Array | pa.ChunkedArray):
        array = _from_arrow(entries, origin, problems)
    else:
        array = _from_sequence(entries, problems)
    if len(array) > MAX_ENTRIES:
        raise UserError(f"{origin} has {len(array):,} entries; at most {MAX_ENTRIES:,} can be used")
    _find_empty(array, problems)
    _find_repeated(array, problems)
    if problems:
        found = "; ".join(_describe(kind, places) for kind, places in problems.items())
        raise UserError(f"{origin} is not usable: {found} (positions count from 0); mend it")
    if len(array) == 0:
        raise UserError(f"{origin} has no entries")
    columns = {
        name: _optional(name, values, len(array), origin)
        for name, values in {"source": source, "score": score, "lang": lang}.items()
    }
    return Metadata(array, **columns)


def _describe(kind: str, places: list[str]) -> str:
    more = f", and {len(places) - _SHOWN:,} more" if len(places) > _SHOWN else ""
    return f"{len(places):,} {kind}: {', '.join(places[:_SHOWN])}{more}"


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}...")


def _from_sequence(values: Sequence[Any], problems: dict[str, list[str]]) -> pa.LargeStringArray:
    """Strings to Arrow; what is no string or has lone surrogates is noted and becomes null."""
    try:
        if all(kind is str for kind in set(map(type, values))):
            return pa.array(values, pa.large_string())
    except UnicodeEncodeError:
        pass
    clean: list[str | None] = [None] * len(values)
    for position, value in enumerate(values):
        if not isinstance(value, str):
            kind = "null" if value is None else type(value).__name__
            problems.setdefault("entries that are no strings", []).append(f"{position} ({kind})")
            continue
        try:
            value.encode()
        except UnicodeEncodeError:
            problems.setdefault("entries with lone surrogates", []).append(
                f"{position} ({_short(value)})"
            )
            continue
        clean[position] = value
    return pa.array(clean, pa.large_string())


def _from_arrow(
    values: pa.Array | pa.ChunkedArray, origin: str, problems: dict[str, list[str]]
) -> pa.LargeStringArray:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # of no chunks, or too large for one
        values = pa.concat_arrays([c.cast(pa.large_string()) for c in values.chunks] or [pa.array(
            [], pa.large_string())])
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not (
        pa.types.is_string(values.type)
        or pa.types.is_large_string(values.type)
        or pa.types.is_string_view(values.type)
    ):
        raise UserError(f"{origin}: the entries must be strings, but are {values.type}")
    array = values.cast(pa.large_string())
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        clean: list[str | None] = []
        for position, raw in enumerate(array.cast(pa.large_binary()).to_pylist()):
            try:
                clean.append(None if raw is None else raw.decode())
            except UnicodeDecodeError:
                clean.append(None)
                problems.setdefault("entries that are not valid UTF-8", []).append(
                    f"{position} ({raw[:_SHOWN_CHARACTERS]!r})"
                )
        bad = {int(place.split(" ", 1)[0]) for place in problems["entries that are not valid UTF-8"]}
        nulls = [p for p, text in enumerate(clean) if text is None and p not in bad]
        array = pa.array(clean, pa.large_string())
    else:
        nulls = _positions(array.is_null()).tolist() if array.null_count else []
    if nulls:
        problems["entries that are no strings"] = [f"{position} (null)" for position in nulls]
    return array
