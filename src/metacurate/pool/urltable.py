"""The list of URLs to download: Parquet files, read in slices, with the columns that matter found.

Works on the curated output (``url``, ``texts``, ``text_kept``, ``matched``...) and on any Parquet
with a column of URLs, such as LAION's and DataComp's.
"""

from __future__ import annotations

import datetime
import decimal
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.errors import UserError
from metacurate.storage import Folder

URL_COLUMNS = ("url", "URL", "image_url", "IMAGE_URL")
TEXT_COLUMNS = ("texts", "caption", "text", "TEXT", "alt", "alt_text")
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
    """Where things are in the input; None: found by the columns' usual names.

    ``sha256``: a column of expected hashes (hex) of the original bytes; other images are refused.
    """

    url: str | None = None
    text: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class _File:
    folder: Folder
    name: str
    size: int
    row_groups: tuple[int, ...]

    @property
    def rows(self) -> int:
        return sum(self.row_groups)


@dataclass
class UrlTable:
    """All rows (or an even sample) of some Parquet files under consecutive numbers."""

    files: tuple[_File, ...]
    schema: pa.Schema
    url_column: str
    text_column: str | None
    hash_column: str | None
    rows: int
    offset: float
    _cache: dict[tuple[int, int], pa.Table] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def find(cls, source: str, columns: ColumnNames, sample: int = 0, offset: float = 0.5) -> Self:
        """The files of a folder (or its ``curated/``) or one file; UserError if they do not fit."""
        files, schema = _open(source)
        url = columns.url or next((n for n in URL_COLUMNS if n in schema.names), None)
        text = columns.text or next((n for n in TEXT_COLUMNS if n in schema.names), None)
        if url is None:
            raise UserError(
                f"{source} has no column {' or '.join(URL_COLUMNS)} (it has "
                f"{', '.join(schema.names)}); name the one with URLs with --url-col"
            )
        for option, name in (("url", url), ("text", text), ("sha256", columns.sha256)):
            if name is not None and name not in schema.names:
                raise UserError(
                    f"{source} has no column {name!r} (it has {', '.join(schema.names)}); "
                    f"check --{option}-col"
                )
            kind = None if name is None else schema.field(name).type
            if kind is not None and not (_is_text(kind) or (name == text and _is_texts(kind))):
                raise UserError(f"column {name!r} of {source} is {kind}, not text")
        rows = sum(file.rows for file in files)
        if not 0 <= sample <= rows:
            raise UserError(f"--sample must be between 0 and the {rows} rows of {source}")
        return cls(files, schema, url, text, columns.sha256, sample or rows, offset)

    def fingerprint(self) -> dict[str, Any]:
        """The input's names, sizes and rows, as plain values for a manifest."""
        return {f.name: {"bytes": f.size, "rows": f.rows} for f in self.files}

    @property
    def has_captions(self) -> bool:
        """Whether there is a text column."""
        return self.text_column is not None

    def read(self, first: int, count: int) -> pa.Table:
        """Rows ``[first, first + count)`` of the (sampled) table."""
        total = sum(file.rows for file in self.files)
        numbers = np.arange(first, first + count, dtype=np.float64)
        if self.rows == total:
            indices = numbers.astype(np.int64)
        else:
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
                entry = self.files[file]
                try:
                    with entry.folder.open(entry.name) as opened:
                        found = pq.ParquetFile(opened).read_row_group(group)
                except (pa.ArrowInvalid, OSError) as error:
                    raise UserError(
                        f"{entry.folder.address(entry.name)} is damaged in row group {group} "
                        f"({error}); make it anew or leave it out"
                    ) from None
                while len(self._cache) >= CACHED_ROW_GROUPS:
                    self._cache.pop(next(iter(self._cache)))
                self._cache[(file, group)] = found
            return found

    def urls(self, rows: pa.Table) -> list[str | None]:
        """The rows' URLs."""
        return [_text(value) for value in rows[self.url_column].to_pylist()]

    def captions(self, rows: pa.Table) -> list[str | None]:
        """The text to train with, by row: the first one kept in curation, else the first."""
        if self.text_column is None:
            return [None] * rows.num_rows
        kept: Sequence[Any] = [None] * rows.num_rows
        if "text_kept" in rows.column_names:
            kept = rows["text_kept"].to_pylist()
        texts = rows[self.text_column].to_pylist()
        return [caption_of(value, flags) for value, flags in zip(texts, kept, strict=True)]

    def expected_hashes(self, rows: pa.Table) -> list[str | None]:
        """The rows' expected SHA-256, lower-case hex; None where nothing is expected."""
        if self.hash_column is None:
            return [None] * rows.num_rows
        values = (_text(v) for v in rows[self.hash_column].to_pylist())
        return [v.strip().lower() if v else None for v in values]

    def carried(self, rows: pa.Table) -> pa.Table:
        """The input's other columns; those named like a result get ``input_`` before the name."""
        taken = {self.url_column}
        if self.text_column is not None and not _is_texts(self.schema.field(self.text_column).type):
            taken.add(self.text_column)
        names = [name for name in rows.column_names if name not in taken]
        renamed = [f"input_{name}" if name in RESULT_NAMES else name for name in names]
        return rows.select(names).rename_columns(renamed).replace_schema_metadata(None)


def _open(source: str) -> tuple[tuple[_File, ...], pa.Schema]:
    if source.endswith(".parquet"):
        parent, _, name = source.rpartition("/")
        folder, names = Folder(parent or "."), [name]
        if not folder.exists(name):
            raise UserError(f"there is no file {source}")
    else:
        folder = Folder(source)
        names = _parquet_names(folder, "") or _parquet_names(folder, CURATED_FOLDER)
        if not names:
            raise UserError(f"{source} holds no .parquet files (nor does {CURATED_FOLDER}/ in it)")
    files: list[_File] = []
    schema: pa.Schema | None = None
    for name in names:
        address = folder.address(name)
        try:
            with folder.open(name) as opened:
                size = opened.seek(0, 2)
                parquet = pq.ParquetFile(opened)
                meta = parquet.metadata
                groups = tuple(meta.row_group(g).num_rows for g in range(meta.num_row_groups))
                own = parquet.schema_arrow.remove_metadata()
        except pa.ArrowInvalid as error:
            raise UserError(f"{address} is not a readable Parquet file ({error})") from None
        if schema is not None and not own.equals(schema):
            raise UserError(f"{address} has other columns than {names[0]}; download it on its own")
        schema = own
        files.append(_File(folder, name, size, groups))
    assert schema is not None
    return tuple(files), schema


def _parquet_names(folder: Folder, name: str) -> list[str]:
    return [n for n in folder.list(name) if n.endswith(".parquet")]


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or (pa.types.is_dictionary(kind) and _is_text(kind.value_type))
    )


def _is_texts(kind: pa.DataType) -> bool:
    """Whether this is a list of texts, or of structs with a field ``text``."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    value = kind.value_type
    if pa.types.is_struct(value):
        return value.get_field_index("text") >= 0 and _is_text(value.field("text").type)
    return _is_text(value)


def caption_of(value: Any, kept: Sequence[bool] | None) -> str | None:
    """The text of a text column's value, or the first kept text of a ``texts`` value."""
    if value is None or isinstance(value, str):
        return value
    texts = [text.get("text") if isinstance(text, dict) else text for text in value]
    flags = kept if kept is not None and len(kept) == len(texts) else [True] * len(texts)
    chosen = next((t for t, keep in zip(texts, flags, strict=True) if keep and t), None)
    return chosen or next((t for t in texts if t), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def json_row(value: Any) -> Any:
    """A row as JSON values: bytes as hex, NaN and infinities as null, dates in ISO 8601."""
    if isinstance(value, dict):
        return {str(key): json_row(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_row(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | datetime.timedelta):
        return str(value)
    return value
