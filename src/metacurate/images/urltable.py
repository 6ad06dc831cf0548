"""The list of URLs to download: a pool's files of any format, read in slices.

Works on curated output (``url``, ``texts``, ``text_kept``, ``matched``...) and on any table with a
column of URLs, such as LAION's, DataComp's and CC12M's.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metacurate.arrays import offsets_of
from metacurate.errors import ArgumentError, UserError
from metacurate.formats import reasons
from metacurate.formats.types import is_list, is_text, storage
from metacurate.pool.columns import TEXTS_NAME, Needs, ResolvedColumns
from metacurate.pool.open import Unit, open_pool
from metacurate.pool.read import count_rows, read_columns, read_unit
from metacurate.pool.schema import TEXTS_TYPE, PoolConfig
from metacurate.pool.write import canonical_texts

RESULT_NAMES = frozenset(
    [
        *("key", "url", "caption", "status", "error_message", "width", "height"),
        *("original_width", "original_height", "sha256", "dhash"),
    ]
)
CACHED_BATCHES = 2
# Counted with the rows that lose them; what costs rows is counted when the rows are.
VALUE_LOSSES = (reasons.UNDECODABLE_TEXT, *reasons.VALUES)


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
class Rows:
    """Some consecutive rows, as far as the download is concerned; lists have an item a row.

    ``captions``: the text to train with, the first one kept in curation, else the first;
    ``expected_hashes``: SHA-256, lower-case hex, None where nothing is expected; ``carried``: the
    input's other columns; ``lost``: values of the rows that could not be read, by reason.
    """

    urls: list[str | None]
    captions: list[str | None]
    expected_hashes: list[str | None]
    carried: pa.Table
    lost: Counter[str]


@dataclass(frozen=True)
class _Batch:
    """Rows from number ``start`` on, of one unit; ``texts``: theirs, if they are gathered."""

    start: int
    rows: pa.RecordBatch
    columns: ColumnNames
    lost: Counter[str]
    texts: pa.ListArray | None


@dataclass(frozen=True)
class UrlTable:
    """All rows (or an even sample) of a pool's files under consecutive numbers.

    ``first_rows``: the number of the first row of each unit, then the one after the last;
    ``columns``: those of each unit; ``rows``: so many of all ``total`` are taken;
    ``has_captions``: whether there is a text column in any file; ``left_out``: columns that are not
    carried; ``gathers_texts``: whether a column ``texts`` is made of what the rows have elsewhere,
    so that who reads the tars (``webdataset.facts``) finds the texts that curation saw, in its
    order; ``fingerprints``: of the files; ``skipped``: rows that could not be read, by reason, and
    have no number.
    """

    units: tuple[Unit, ...]
    first_rows: npt.NDArray[np.int64]
    columns: tuple[ColumnNames, ...]
    rows: int
    total: int
    offset: float
    has_captions: bool
    left_out: frozenset[str]
    gathers_texts: bool = False
    fingerprints: tuple[str, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)

    @classmethod
    def find(
        cls,
        sources: Sequence[str],
        columns: ColumnNames,
        sample: int = 0,
        offset: float = 0.5,
    ) -> Self:
        """The files of folders (of their ``curated/``, if they have one), globs, or files.

        Each file's columns are found for itself. Files that do not tell how many rows they have are
        read once for it. UserError if there are no files, or one cannot be used or lacks the
        columns.
        """
        config = PoolConfig(columns.url, None, columns.texts)
        extra = () if columns.sha256 is None else (columns.sha256,)
        needs = Needs("unused", "required", "optional", "optional", extra)
        pool = open_pool(sources, replace(config, rows_per_unit=1), needs, reserved=())
        pool.require_all()
        if not pool.units:
            raise UserError(f"{', '.join(sources)} has no rows")
        if columns.sha256 is not None:
            for unit in pool.units:
                if not is_text(unit.columns.file.field(columns.sha256).type):
                    raise ArgumentError(
                        "column {column!r} of {file} is not text; check {sha256_col}",
                        column=columns.sha256,
                        file=unit.url,
                    )
        skipped: Counter[str] = Counter()
        sizes = [count_rows(unit, skipped=skipped) for unit in pool.units]
        for reason in VALUE_LOSSES:
            del skipped[reason]
        first_rows = offsets_of(sizes)
        rows = int(first_rows[-1])
        if not 0 <= sample <= rows:
            raise ArgumentError(
                "{sample} must be between 0 and the {rows} rows of {sources}",
                rows=rows,
                sources=", ".join(sources),
            )
        found = tuple(
            ColumnNames(unit.columns.url, unit.columns.texts, columns.sha256) for unit in pool.units
        )
        return cls(
            units=pool.units,
            first_rows=first_rows,
            columns=found,
            rows=sample or rows,
            total=rows,
            offset=offset,
            has_captions=any(columns.texts for columns in found),
            left_out=_said_elsewhere(pool.units, pool.schema),
            gathers_texts=any(_has_texts_elsewhere(unit.columns) for unit in pool.units),
            fingerprints=tuple(pool.fingerprints.values()),
            skipped=skipped,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What the input is, as plain values for a manifest."""
        return {
            "files": list(self.fingerprints),
            "rows": self.total,
            "columns": [asdict(columns) for columns in dict.fromkeys(self.columns)],
        }

    def indices(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Which rows of all the sampled ones ``[first, first + count)`` are."""
        numbers = np.arange(first, first + count)
        if self.rows == self.total:
            return numbers
        return ((numbers + self.offset) * (self.total / self.rows)).astype(np.int64)

    def part(self, first: int, count: int) -> Self:
        """The table with no more than is needed to read these rows, under the same numbers."""
        ends = self.indices(first, count)[[0, -1]]
        low, high = np.searchsorted(self.first_rows, ends, side="right") - 1
        return replace(
            self,
            units=self.units[low : high + 1],
            first_rows=self.first_rows[low : high + 2].copy(),
            columns=self.columns[low : high + 1],
            fingerprints=(),
            skipped=Counter(),
        )


def _said_elsewhere(units: Sequence[Unit], schema: pa.Schema) -> frozenset[str]:
    """Of all files that have such a column, the URL or the only text: it is in the result."""
    taken: set[str | None] = set()
    others: set[str | None] = set()
    for columns in {id(unit.columns): unit.columns for unit in units}.values():
        plain = columns.texts if len(columns.texts) == 1 else ()
        said = {columns.url, *(n for n in plain if not is_list(schema.field(n).type))}
        taken |= said
        others |= set(columns.file.names) - said
    return frozenset(name for name in taken - others if name is not None)


def _has_texts_elsewhere(columns: ResolvedColumns) -> bool:
    """Whether who reads a sample by the rule of ``webdataset.facts`` would find other texts."""
    if not columns.texts:
        return False
    kind = storage(columns.file.field(columns.texts[0]).type)
    if columns.texts == (TEXTS_NAME,):
        return is_list(kind) and is_list(storage(kind.value_type))  # [source, text, lang]
    alone = len(columns.texts) == 1 and not is_list(kind)
    return not alone or TEXTS_NAME in columns.file.names


class UrlReader:
    """Reads a table in slices, for several threads: neighbours share what is decoded."""

    def __init__(self, table: UrlTable) -> None:
        self._table = table
        self._batches: list[_Batch] = []
        self._reading: tuple[int, Iterator[_Read]] | None = None
        self._lock = threading.Lock()

    def read(self, first: int, count: int) -> Rows:
        """Rows ``[first, first + count)`` of the (sampled) table.

        Quick if first numbers rise from call to call. UserError if the file is damaged there.
        """
        indices = self._table.indices(first, count)
        # The row before, too: what a batch lost is told with the first row that is taken from it.
        before = -1 if first == 0 else int(self._table.indices(first - 1, 1)[0])
        urls: list[str | None] = []
        captions: list[str | None] = []
        hashes: list[str | None] = []
        parts = []
        texts = []
        lost: Counter[str] = Counter()
        done = 0
        with self._lock:
            while done < count:
                batch = self._batch_of(int(indices[done]))
                if before < batch.start:
                    lost.update(batch.lost)
                end = int(np.searchsorted(indices, batch.start + batch.rows.num_rows))
                places = pa.array(indices[done:end] - batch.start)
                rows = batch.rows.take(places)
                if batch.texts is not None:
                    texts.append(batch.texts.take(places))
                urls += map(_text, rows[batch.columns.url].to_pylist())
                captions += _captions(rows, batch.columns)
                hashes += _expected_hashes(rows, batch.columns)
                parts.append(rows)
                before, done = int(indices[end - 1]), end
        carried = self._carried(pa.Table.from_batches(parts), texts)
        return Rows(urls, captions, hashes, carried, lost)

    def _batch_of(self, row: int) -> _Batch:
        """The batch with a row."""
        for batch in self._batches:
            if batch.start <= row < batch.start + batch.rows.num_rows:
                return batch
        table = self._table
        number = int(np.searchsorted(table.first_rows, row, side="right")) - 1
        unit, base = table.units[number], int(table.first_rows[number])
        before = self._batches[-1].start if self._batches else -1
        if self._reading is None or self._reading[0] != number or row < before:
            self._reading = (number, _read(unit, table.gathers_texts))
        for start, rows, texts, lost in self._reading[1]:
            batch = _Batch(base + start, rows, table.columns[number], lost, texts)
            self._batches = [*self._batches[1 - CACHED_BATCHES :], batch]
            if batch.start <= row < batch.start + rows.num_rows:
                return batch
            if batch.start > row:
                break
        self._reading = None
        raise UserError(
            f"{unit.url} is damaged: row {row - base} of {unit.pieces or 'the file'} cannot be "
            "read; make it again or leave it out"
        )

    def _carried(self, rows: pa.Table, texts: Sequence[pa.ListArray]) -> pa.Table:
        """The input's other columns; those named like a result get ``input_`` before the name."""
        gathers = self._table.gathers_texts
        taken = {*RESULT_NAMES, TEXTS_NAME} if gathers else RESULT_NAMES
        names = [name for name in rows.column_names if name not in self._table.left_out]
        renamed = [f"input_{name}" if name in taken else name for name in names]
        carried = rows.select(names).rename_columns(renamed).replace_schema_metadata(None)
        if gathers:
            carried = carried.append_column(TEXTS_NAME, pa.chunked_array(texts, TEXTS_TYPE))
        return carried.combine_chunks()


_Read = tuple[int, pa.RecordBatch, pa.ListArray | None, Counter[str]]


def _read(unit: Unit, gather_texts: bool) -> Iterator[_Read]:
    """A unit's rows in batches, each with the number of its first row and the values it lost."""
    skipped: Counter[str] = Counter()

    def parts() -> Iterator[tuple[int, pa.RecordBatch, pa.ListArray | None]]:
        if unit.columns.texts:
            for batch in read_unit(unit, all_columns=True, skipped=skipped):
                assert batch.columns is not None
                texts = canonical_texts(batch, unit.columns) if gather_texts else None
                yield batch.first_row, batch.columns, texts
        else:
            for start, rows in read_columns(unit, skipped=skipped):
                yield start, rows, pa.nulls(len(rows), TEXTS_TYPE) if gather_texts else None

    for start, rows, texts in parts():
        yield start, rows, texts, Counter({k: n for k in VALUE_LOSSES if (n := skipped[k])})
        skipped.clear()


def _captions(rows: pa.RecordBatch, names: ColumnNames) -> list[str | None]:
    if not names.texts:
        return [None] * rows.num_rows
    kept: Sequence[Any] = [None] * rows.num_rows
    if "text_kept" in rows.schema.names:
        kept = rows["text_kept"].to_pylist()
    columns = [rows[name].to_pylist() for name in names.texts]
    return [
        caption_of([text for value in values for text in _texts(value)], flags)
        for *values, flags in zip(*columns, kept, strict=True)
    ]


def _expected_hashes(rows: pa.RecordBatch, names: ColumnNames) -> list[str | None]:
    if names.sha256 is None:
        return [None] * rows.num_rows
    values = (_text(value) for value in rows[names.sha256].to_pylist())
    return [value.strip().lower() if value else None for value in values]


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
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) else None
