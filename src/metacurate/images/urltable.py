"""The list of URLs to download: a pool's files of any format, read in slices.

Works on curated output (``url``, ``texts``, ``text_kept``, ``matched``...) and on any table with a
column of URLs, such as LAION's, DataComp's and CC12M's.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metacurate.arrays import offsets_of
from metacurate.counts import in_words
from metacurate.errors import ArgumentError, UserError
from metacurate.formats.types import is_list, is_text
from metacurate.pool.columns import Needs
from metacurate.pool.open import Unit, open_pool
from metacurate.pool.read import count_rows, read_columns
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.progress import note

RESULT_NAMES = frozenset(
    [
        *("key", "url", "caption", "status", "error_message", "width", "height"),
        *("original_width", "original_height", "sha256", "dhash"),
    ]
)
CACHED_BATCHES = 2


@dataclass(frozen=True)
class ColumnNames:
    """Where things are in the input; without a name, columns are found by their usual names.

    ``texts``: one column, or those that curation used, in the same order; ``sha256``: expected
    hashes (hex) of the original bytes: other images are refused.
    """

    url: str | None = None
    texts: tuple[str, ...] = ()
    sha256: str | None = None


@dataclass
class UrlTable:
    """All rows (or an even sample) of a pool's files under consecutive numbers.

    ``first_rows``: the number of the first row of each unit, then that of all rows.
    """

    units: tuple[Unit, ...]
    first_rows: npt.NDArray[np.int64]
    fingerprints: tuple[str, ...]
    columns: ColumnNames
    rows: int
    offset: float
    skipped: Counter[str]
    _batches: list[tuple[int, pa.RecordBatch]] = field(default_factory=list)
    _reading: tuple[int, Iterator[tuple[int, pa.RecordBatch]]] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def find(cls, source: str, columns: ColumnNames, sample: int = 0, offset: float = 0.5) -> Self:
        """The files of a folder (of its ``curated/``, if it has one), a glob, or one file.

        Files that do not tell how many rows they have are read once for it. UserError if there are
        no files, or one cannot be used, lacks the columns, or has them under other names.
        """
        config = PoolConfig(columns.url, None, columns.texts)
        extra = () if columns.sha256 is None else (columns.sha256,)
        needs = Needs(name="unused", url="required", texts="optional", others=extra)
        pool = open_pool([source], replace(config, rows_per_unit=1), needs, reserved=())
        pool.require_all()
        if not pool.units:
            raise UserError(f"{source} has no rows")
        first = pool.units[0]
        for unit in pool.units:
            own = unit.columns
            if (own.url, own.texts) != (first.columns.url, first.columns.texts):
                raise UserError(
                    f"{unit.url} has other columns than {first.url} ({own.describe()}; "
                    f"{first.columns.describe()}): download it alone"
                )
            if columns.sha256 is not None and not is_text(own.file.field(columns.sha256).type):
                raise ArgumentError(
                    "column {column!r} of {file} is not text; check {sha256_col}",
                    column=columns.sha256,
                    file=unit.url,
                )
        skipped: Counter[str] = Counter()
        sizes = [count_rows(unit, skipped=skipped) for unit in pool.units]
        if skipped:
            note(f"{source}: {in_words(skipped)}")
        first_rows = offsets_of(sizes)
        rows = int(first_rows[-1])
        if not 0 <= sample <= rows:
            raise ArgumentError(
                "{sample} must be between 0 and the {rows} rows of {source}",
                rows=rows,
                source=source,
            )
        assert first.columns.url is not None
        found = ColumnNames(first.columns.url, first.columns.texts, columns.sha256)
        prints = tuple(pool.fingerprints.values())
        return cls(pool.units, first_rows, prints, found, sample or rows, offset, Counter())

    def fingerprint(self) -> dict[str, Any]:
        """What the input is, as plain values for a manifest."""
        return {
            "files": list(self.fingerprints),
            "rows": int(self.first_rows[-1]),
            "url": self.columns.url,
            "texts": list(self.columns.texts),
            "sha256": self.columns.sha256,
        }

    @property
    def has_captions(self) -> bool:
        """Whether there is a text column."""
        return bool(self.columns.texts)

    def read(self, first: int, count: int) -> pa.Table:
        """Rows ``[first, first + count)`` of the (sampled) table.

        Quick if first numbers rise from call to call. UserError if the file is damaged there.
        """
        total = int(self.first_rows[-1])
        numbers = np.arange(first, first + count)
        indices = numbers
        if self.rows != total:
            indices = ((numbers + self.offset) * (total / self.rows)).astype(np.int64)
        parts = []
        done = 0
        # Shards are smaller than batches as a rule: neighbours share the decoded one.
        with self._lock:
            while done < count:
                start, batch = self._batch_of(int(indices[done]))
                end = int(np.searchsorted(indices, start + batch.num_rows))
                parts.append(batch.take(pa.array(indices[done:end] - start)))
                done = end
        return pa.Table.from_batches(parts).combine_chunks()

    def _batch_of(self, row: int) -> tuple[int, pa.RecordBatch]:
        """The batch with a row, and the number of its first row."""
        for start, batch in self._batches:
            if start <= row < start + batch.num_rows:
                return start, batch
        number = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        unit, base = self.units[number], int(self.first_rows[number])
        before = self._batches[-1][0] if self._batches else -1
        if self._reading is None or self._reading[0] != number or row < before:
            self._reading = (number, read_columns(unit, skipped=self.skipped))
        for start, batch in self._reading[1]:
            self._batches = [*self._batches[1 - CACHED_BATCHES :], (base + start, batch)]
            if base + start <= row < base + start + batch.num_rows:
                return base + start, batch
            if base + start > row:
                break
        self._reading = None
        raise UserError(
            f"{unit.url} is damaged: row {row - base} of {unit.pieces or 'the file'} cannot be "
            "read; make it again or leave it out"
        )

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


def _texts(value: Any) -> list[str | None]:
    values = value if isinstance(value, list) else [value]
    return [_text(_text_of(item)) for item in values]


def _text_of(item: Any) -> Any:
    """What is the text of a text: a struct's ``text``, a list's second value, or itself."""
    if isinstance(item, dict):
        return item.get("text")
    if isinstance(item, list):
        return item[1] if len(item) > 1 else None
    return item


def caption_of(texts: Sequence[str | None], kept: Sequence[bool] | None) -> str | None:
    """The first text that curation kept (all count as kept if it is not known), else the first."""
    flags = kept if kept is not None and len(kept) == len(texts) else [True] * len(texts)
    chosen = next((t for t, keep in zip(texts, flags, strict=True) if keep and t), None)
    return chosen or next((t for t in texts if t), None)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None
