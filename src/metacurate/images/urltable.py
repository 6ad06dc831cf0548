"""The list of URLs to download: Parquet files, read in slices, with the columns that matter found.

Works on curated output (``url``, ``texts``, ``text_kept``, ``matched``...) and on any Parquet with
a column of URLs, such as LAION's and DataComp's.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.errors import ArgumentError, UserError
from metacurate.pool.columns import TEXT_NAMES, TEXTS_NAME, URL_NAMES
from metacurate.pool.files import fingerprint, one_line, open_source
from metacurate.pool.find import find
from metacurate.pool.types import is_list, is_text, is_texts
from metacurate.runtime.storage import Folder

RESULT_NAMES = frozenset(
    [
        *("key", "url", "caption", "status", "error_message", "width", "height"),
        *("original_width", "original_height", "sha256", "dhash"),
    ]
)
CURATED_FOLDER = "curated"
CACHED_ROW_GROUPS = 2


@dataclass(frozen=True)
class ColumnNames:
    """Where things are in the input; without a name, columns are found by their usual names.

    ``texts``: one column, or those that curation used, in the same order; ``sha256``: expected
    hashes (hex) of the original bytes: other images are refused.
    """

    url: str | None = None
    texts: tuple[str, ...] = ()
    sha256: str | None = None


@dataclass(frozen=True)
class _File:
    address: str
    fingerprint: str
    row_groups: tuple[int, ...]

    @property
    def rows(self) -> int:
        return sum(self.row_groups)


@dataclass
class UrlTable:
    """All rows (or an even sample) of some Parquet files under consecutive numbers."""

    files: tuple[_File, ...]
    columns: ColumnNames
    rows: int
    offset: float
    _cache: dict[tuple[int, int], pa.Table] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def find(cls, source: str, columns: ColumnNames, sample: int = 0, offset: float = 0.5) -> Self:
        """The files of a folder (of its ``curated/``, if it has one), a glob, or one file.

        UserError if there are none, they do not agree, or lack the columns.
        """
        files, schema = _open(source)
        columns = _resolve(source, schema, columns)
        rows = sum(file.rows for file in files)
        if not 0 <= sample <= rows:
            raise ArgumentError(
                "{sample} must be between 0 and the {rows} rows of {source}",
                rows=rows,
                source=source,
            )
        return cls(files, columns, sample or rows, offset)

    def fingerprint(self) -> dict[str, Any]:
        """What the input is, as plain values for a manifest."""
        return {
            "files": [f.fingerprint for f in self.files],
            "rows": sum(f.rows for f in self.files),
            "url": self.columns.url,
            "texts": list(self.columns.texts),
            "sha256": self.columns.sha256,
        }

    @property
    def has_captions(self) -> bool:
        """Whether there is a text column."""
        return bool(self.columns.texts)

    def read(self, first: int, count: int) -> pa.Table:
        """Rows ``[first, first + count)`` of the (sampled) table."""
        total = sum(file.rows for file in self.files)
        numbers = np.arange(first, first + count)
        indices = numbers
        if self.rows != total:
            indices = ((numbers + self.offset) * (total / self.rows)).astype(np.int64)
        parts = []
        start = 0
        for f, file in enumerate(self.files):
            for g, group_rows in enumerate(file.row_groups):
                low, high = np.searchsorted(indices, (start, start + group_rows))
                if high > low:
                    parts.append(self._row_group(f, g).take(indices[low:high] - start))
                start += group_rows
        return pa.concat_tables(parts).combine_chunks()

    def _row_group(self, file: int, group: int) -> pa.Table:
        # Shards are smaller than row groups as a rule: neighbours share the decoded one.
        with self._lock:
            found = self._cache.get((file, group))
            if found is None:
                address = self.files[file].address
                with open_source(address) as source:
                    try:
                        found = pq.ParquetFile(source.arrow).read_row_group(group)
                        found.validate(full=True)  # text is UTF-8
                    except Exception as error:
                        source.raise_unless_damage(error)
                        raise UserError(
                            f"{address} is damaged in row group {group} ({one_line(error)}); "
                            "make it anew or leave it out"
                        ) from None
                while len(self._cache) >= CACHED_ROW_GROUPS:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[(file, group)] = found
            return found

    def urls(self, rows: pa.Table) -> list[str | None]:
        """The rows' URLs."""
        return [_text(value) for value in rows[self.columns.url].to_pylist()]

    def captions(self, rows: pa.Table) -> list[str | None]:
        """The text to train with, by row: the first one kept in curation, else the first."""
        kept: Sequence[Any] = [None] * rows.num_rows
        if "text_kept" in rows.column_names:
            kept = rows["text_kept"].to_pylist()
        columns = [rows[name].to_pylist() for name in self.columns.texts]
        return [
            caption_of([text for value in values for text in _texts(value)], flags)
            for *values, flags in zip(*columns, kept, strict=True)
        ]

    def expected_hashes(self, rows: pa.Table) -> list[str | None]:
        """The rows' expected SHA-256, lower-case hex; None where nothing is expected."""
        if self.columns.sha256 is None:
            return [None] * rows.num_rows
        values = (_text(value) for value in rows[self.columns.sha256].to_pylist())
        return [value.strip().lower() if value else None for value in values]

    def carried(self, rows: pa.Table) -> pa.Table:
        """The input's other columns; those named like a result get ``input_`` before the name."""
        plain = [n for n in self.columns.texts if not is_list(rows.schema.field(n).type)]
        taken = {self.columns.url, *(plain if len(self.columns.texts) == 1 else ())}
        names = [name for name in rows.column_names if name not in taken]
        renamed = [f"input_{name}" if name in RESULT_NAMES else name for name in names]
        return rows.select(names).rename_columns(renamed).replace_schema_metadata(None)


def _open(source: str) -> tuple[tuple[_File, ...], pa.Schema]:
    curated = Folder(source).list(CURATED_FOLDER)
    given = Folder(source).address(CURATED_FOLDER) if curated else source
    addresses = [a for a in find([given]).files if a.lower().endswith((".parquet", ".pq"))]
    if not addresses:
        raise UserError(f"{source} holds no Parquet files; give a curated folder or Parquet files")
    files: list[_File] = []
    schema = pa.schema([])
    for address in addresses:
        with open_source(address) as opened:
            mark = fingerprint(opened)
            try:
                parquet = pq.ParquetFile(opened.arrow)
                meta = parquet.metadata
                groups = tuple(meta.row_group(g).num_rows for g in range(meta.num_row_groups))
                own = parquet.schema_arrow.remove_metadata()
            except Exception as error:
                opened.raise_unless_damage(error)
                raise UserError(
                    f"{address} is not a readable Parquet file ({one_line(error)})"
                ) from None
        if files and not own.equals(schema):
            raise UserError(f"{address} has other columns than {addresses[0]}: download it alone")
        schema = own
        files.append(_File(address, mark, groups))
    return tuple(files), schema


def _resolve(source: str, schema: pa.Schema, columns: ColumnNames) -> ColumnNames:
    names = schema.names
    has = f"it has {', '.join(names[:20])}"
    url = columns.url or _by_name(source, names, URL_NAMES, "--url-col")
    if url is None:
        raise UserError(f"{source} has no URL column known by name ({has}); name it with --url-col")
    texts = columns.texts
    if not texts and TEXTS_NAME in names:
        texts = (TEXTS_NAME,)
    elif not texts:
        text = _by_name(source, names, TEXT_NAMES, "--text-col")
        texts = () if text is None else (text,)
    wanted = [("--url-col", url, is_text), *(("--text-col", text, is_texts) for text in texts)]
    if columns.sha256 is not None:
        wanted.append(("--sha256-col", columns.sha256, is_text))
    for option, name, fits in wanted:
        if name not in names:
            raise UserError(f"{source} has no column {name!r} ({has}); check {option}")
        if not fits(schema.field(name).type):
            raise UserError(f"column {name!r} of {source} is {schema.field(name).type}, not text")
    return ColumnNames(url, texts, columns.sha256)


def _by_name(source: str, names: list[str], known: tuple[str, ...], option: str) -> str | None:
    found = [name for name in names if name.lower() in known]
    if len(found) > 1:
        raise UserError(f"{source}: {' or '.join(found)}? Choose with {option}")
    return found[0] if found else None


def _texts(value: Any) -> list[str | None]:
    values = value if isinstance(value, list) else [value]
    return [_text(item.get("text") if isinstance(item, dict) else item) for item in values]


def caption_of(texts: Sequence[str | None], kept: Sequence[bool] | None) -> str | None:
    """The first text that curation kept (all count as kept if it is not known), else the first."""
    flags = kept if kept is not None and len(kept) == len(texts) else [True] * len(texts)
    chosen = next((t for t, keep in zip(texts, flags, strict=True) if keep and t), None)
    return chosen or next((t for t in texts if t), None)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None
