"""Counting by key over more rows than fit in memory: partitioned runs on disk, summed apart.

A run is an Arrow file with one record batch per partition; a key is in the partition that the hash
of its text names. Writers spill bounded runs; then each partition of all runs is summed by itself,
in parallel and in bounded memory. Nothing here depends on the order in which workers finish.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from metacurate.runtime.arrowfiles import open_ipc, read_parquet
from metacurate.runtime.storage import Folder

PARTITION_BYTES = 128 << 20
MAX_PARTITIONS = 512
# Rows that a sum holds before it sums them up.
_ROWS_TO_COMPACT = 4_000_000


def partitions_for(stored_bytes: int) -> int:
    """How many partitions suit so much compressed input (fixed by the input alone)."""
    return max(1, min(MAX_PARTITIONS, -(-stored_bytes // PARTITION_BYTES)))


def hash_texts(texts: Iterable[str]) -> np.ndarray:
    """uint32 hash (CRC-32 of UTF-8) of each text."""
    return np.fromiter((zlib.crc32(text.encode()) for text in texts), np.uint32)


def hash_column(column: pa.ChunkedArray) -> np.ndarray:
    """uint32 hash of each string of a column, each distinct string hashed once."""
    encoded = _flat(column).dictionary_encode()
    return hash_texts(encoded.dictionary.to_pylist())[encoded.indices.to_numpy()]


def write_run(
    folder: Folder, name: str, table: pa.Table, hashes: np.ndarray, partitions: int
) -> None:
    """Write a table's rows by partition; ``hashes`` is uint32, one a row."""
    partition = hashes % np.uint32(partitions)
    order = np.argsort(partition, kind="stable")
    table = table.take(pa.array(order))
    ends = np.searchsorted(partition[order], np.arange(partitions), side="right")
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with (
        folder.create(name) as file,
        pa.ipc.new_file(file, table.schema, options=options) as writer,
    ):
        start = 0
        for end in ends.tolist():
            writer.write_batch(_one_batch(table.slice(start, end - start)))
            start = end


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    return pa.record_batch([_flat(column) for column in table], schema=table.schema)


def read_runs(folder: Folder, names: Sequence[str], partition: int) -> Iterator[pa.Table]:
    """One partition of each run, in the order of ``names``."""
    for name in names:
        with folder.open(name) as file, open_ipc(file) as reader:
            yield pa.Table.from_batches([reader.get_batch(partition)])


def sum_by(tables: Iterable[pa.Table], keys: Sequence[str], value: str) -> pa.Table:
    """Sum ``value`` (uint64) over equal keys (strings); sorted by the keys in code point order.

    Memory: the distinct keys and ``_ROWS_TO_COMPACT`` rows.
    """
    schema = pa.schema([*((key, pa.string()) for key in keys), (value, pa.uint64())])
    held = [schema.empty_table()]
    rows = limit = 0
    for table in tables:
        held.append(table)
        rows += table.num_rows
        if rows >= limit + _ROWS_TO_COMPACT:
            held = [_sum(held, keys, value)]
            rows = limit = held[0].num_rows
    return _sum(held, keys, value).sort_by([(key, "ascending") for key in keys])


def _sum(tables: list[pa.Table], keys: Sequence[str], value: str) -> pa.Table:
    columns = [*keys, value]
    table = pa.concat_tables(t.select(columns) for t in tables)
    summed = table.group_by(list(keys), use_threads=False).aggregate([(value, "sum")])
    return summed.rename_columns({f"{value}_sum": value}).select(columns)


def look_up(wanted: pa.ChunkedArray, keys: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.Array:
    """For each wanted key the value beside its first occurrence in ``keys``; null if none."""
    return _flat(values).take(_flat(pc.index_in(wanted, value_set=_flat(keys))))


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)


def write_table(folder: Folder, name: str, table: pa.Table) -> None:
    """Write a table as Parquet."""
    with folder.create(name) as file:
        pq.write_table(table, file, compression="zstd")


def read_table(folder: Folder, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read a table that ``write_table`` wrote, or some of its columns."""
    with folder.open(name) as file:
        return read_parquet(file, columns)
