"""Pools in memory: tables, data frames, data sets and batches, written as a Parquet file to read.

Every stage reads files, from several processes and more than once: a table is written for them
once, piece by piece. What is read from the file is what the table holds.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.arguments import shown
from metacurate.arrays import ArrowArray, ArrowStream
from metacurate.counts import in_words
from metacurate.errors import ArgumentError
from metacurate.formats.types import carried_type
from metacurate.pool.convert import converted
from metacurate.runtime.progress import note
from metacurate.runtime.run import Run
from metacurate.runtime.scratch import scratch_folder
from metacurate.runtime.storage import as_addresses, checksum

GROUP_ROWS = 65_536
GROUP_BYTES = 256 << 20
COUNTED_ROWS = 100_000
"""Rows of a data frame of which pandas may look at each text to say its size."""
PIECE_ROWS = 1024
"""Row groups end at whole pieces, so that they do not depend on how the rows arrive."""


InMemory: TypeAlias = ArrowStream | ArrowArray | Iterable[ArrowStream | ArrowArray]
AnyPool: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | InMemory
"""A pool as functions take it: paths, or a table in memory (see ``batches_of``)."""

GIVEN = ".given"
"""Where a pool in memory is written, in the folder of the run that reads it.

It is hidden: who takes that folder for a pool must not read what it was made of too.
"""
POOL_FILE = f"{GIVEN}/pool.parquet"


@dataclass(frozen=True)
class Given:
    """A pool as the caller gave it: ``paths``, or the ``batches`` of one in memory.

    ``held``: the bytes of one in memory; None if that is not known before it is run through.
    """

    paths: tuple[str, ...]
    batches: Iterator[pa.RecordBatch] | None
    held: int | None = 0

    @classmethod
    def of(cls, pool: AnyPool, name: str = "pool") -> Self:
        """ArgumentError if it is neither; ``name``: what the argument is called."""
        batches = batches_of(pool)
        if batches is None:
            return cls(tuple(as_addresses(pool, name)), None)
        return cls((), batches, held_bytes(pool))

    def files(self, run: Run) -> list[str]:
        """The paths to read in a run; a pool in memory is written there first.

        UserError if the folder has a run of another pool in memory. Nothing of the pool stays where
        no stage begins: it may be one that cannot be used, and the next one is another.
        """
        if self.batches is None:
            return list(self.paths)
        address = run.folder.address(POOL_FILE)
        with scratch_folder() as scratch:
            file = scratch / "pool.parquet"
            if lost := write_batches(self.batches, file):
                note(f"values of the pool that have no place in Parquet: {in_words(lost)}")
            if run.folder.is_file(POOL_FILE):
                with file.open("rb") as new, run.folder.open(POOL_FILE) as old:
                    if checksum(new) == checksum(old):
                        return [address]
                if not run.overwrite:
                    raise ArgumentError(
                        "{out} {folder} has the results of another pool: choose another folder, or "
                        "{overwrite}",
                        folder=run.folder.url,
                    )
            else:
                run.provisional.append(GIVEN)
            with file.open("rb") as source, run.folder.create(POOL_FILE) as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
        return [address]


def held_bytes(pool: Any) -> int | None:
    """The bytes of a table in memory, or of a list of them; None if that would have to be found.

    As Arrow (``nbytes``), Polars (``estimated_size``) and pandas (``memory_usage``) say it.
    """
    if isinstance(pool, list | tuple):
        sizes = [held_bytes(item) for item in pool]
        return None if None in sizes else sum(size for size in sizes if size is not None)
    if isinstance(size := getattr(pool, "nbytes", None), int):
        return size
    if callable(estimated := getattr(pool, "estimated_size", None)):
        return int(estimated())
    if callable(usage := getattr(pool, "memory_usage", None)) and len(pool) <= COUNTED_ROWS:
        return int(usage(deep=True).sum())
    return None


def batches_of(pool: Any) -> Iterator[pa.RecordBatch] | None:
    """The batches of a pool in memory; None for paths.

    ``pool`` may be a table of any library that exports Arrow (``pa.Table``, ``RecordBatchReader``,
    pandas, Polars, DuckDB), a data set of Hugging Face's ``datasets``, or any iterable of tables or
    batches, which is run through once. ArgumentError for a mapping of columns.
    """
    if isinstance(pool, str | bytes | os.PathLike):
        return None
    if isinstance(pool, ArrowStream | ArrowArray):
        return _batches(pool)
    if callable(formatted := getattr(pool, "with_format", None)) and hasattr(pool, "iter"):
        return _each(formatted("arrow").iter(batch_size=PIECE_ROWS))
    if isinstance(pool, Mapping):
        raise ArgumentError(
            "{pool} must be paths or a table, not {value}; make a table of a mapping with "
            "pyarrow.table",
            value=shown(pool),
        )
    if not isinstance(pool, Iterable):
        return None
    if isinstance(pool, Iterator):
        return _each(pool)
    first = next(iter(pool), None)
    return _each(pool) if isinstance(first, ArrowStream | ArrowArray) else None


def _each(items: Iterable[Any]) -> Iterator[pa.RecordBatch]:
    for number, item in enumerate(items):
        if not isinstance(item, ArrowStream | ArrowArray):
            raise ArgumentError(
                "item {number} of {pool} must be a table or a batch of Arrow, not {value}",
                number=number,
                value=shown(item),
            )
        yield from _batches(item)


def _batches(table: ArrowStream | ArrowArray) -> Iterator[pa.RecordBatch]:
    try:
        if isinstance(table, ArrowStream):
            reader = pa.RecordBatchReader.from_stream(table)
            yield _empty(reader.schema)  # without a row it still has columns
            yield from reader
        else:
            yield pa.record_batch(table)
    except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError) as error:
        raise ArgumentError("{pool} is no table: {said}", said=_line(error)) from None


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in schema], schema=schema)


def write_batches(batches: Iterator[pa.RecordBatch], path: Path) -> Counter[str]:
    """Write batches into one Parquet file; memory: a row group.

    The same rows give the same file, however they are cut into batches. Columns of types that
    Parquet lacks are written in those in which pools carry them on. Returns how many values were
    lost by that, by reason. ArgumentError if there is no batch, or one has other columns than the
    first.
    """
    first = next(batches, None)
    if first is None:
        raise ArgumentError("{pool} is empty: it gives no batch")
    lost: Counter[str] = Counter()
    # Metadata of a library's own (pandas' index) and of curated shards stay with the columns.
    schema = pa.schema(
        [f.with_type(carried_type(f.type)).remove_metadata() for f in first.schema],
        first.schema.metadata,
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _groups(_pieces(first, batches, schema, lost)):
            writer.write_table(rows, row_group_size=max(rows.num_rows, 1))
    return lost


def _plain(rows: pa.RecordBatch, schema: pa.Schema, lost: Counter[str]) -> pa.Table:
    """The rows in types that Parquet has."""
    columns = [
        column if column.type.equals(field.type) else converted(column, field.type, lost)
        for column, field in zip(rows.columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _pieces(
    first: pa.RecordBatch, others: Iterator[pa.RecordBatch], schema: pa.Schema, lost: Counter[str]
) -> Iterator[pa.Table]:
    """All rows, ``PIECE_ROWS`` at a time."""
    given = first.schema
    waiting = [_plain(first, schema, lost)]
    rows = first.num_rows
    number = 0
    while True:
        if rows >= PIECE_ROWS:
            table = pa.concat_tables(waiting)
            whole = rows - rows % PIECE_ROWS
            for start in range(0, whole, PIECE_ROWS):
                yield table.slice(start, PIECE_ROWS)
            waiting, rows = [table.slice(whole)], rows - whole
        batch = next(others, None)
        if batch is None:
            break
        number += 1
        if not batch.schema.equals(given):
            raise ArgumentError(
                "batch {number} of {pool} has other columns than the first: {found}",
                number=number,
                found=_line(batch.schema.to_string(show_schema_metadata=False)),
            )
        waiting.append(_plain(batch, schema, lost))
        rows += batch.num_rows
    if rows:
        yield pa.concat_tables(waiting)


def _groups(pieces: Iterator[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    rows = size = 0
    for piece in pieces:
        held.append(piece)
        rows, size = rows + piece.num_rows, size + piece.nbytes
        if rows >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.concat_tables(held).combine_chunks()
            held, rows, size = [], 0, 0
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _line(said: object) -> str:
    return " ".join(str(said).split())[:300]
