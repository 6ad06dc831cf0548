"""External sort of a pool by uid: sorted runs on disk, uid ranges to merge them by.

A shard of the input becomes one Arrow file of *runs*: tables sorted by uid in which each uid occurs
once, cut into small record batches, and beside it an index with the uid range of each batch. The
indices also tell how uids are distributed, by which the ranges of the output shards are cut, so
shards come out even. Nothing larger than a run, or than an output shard before
merging, is ever in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from metacurate.arrays import uid_halves
from metacurate.deduplication.merging import Merged, merge_rows
from metacurate.runtime.arrowfiles import open_ipc
from metacurate.runtime.storage import Folder

RUN_ROWS = 500_000
RUN_BYTES = 192 << 20
# Runs of no more rows than these in all are not compressed: it takes a tenth of the whole time.
PLAIN_ROWS = 10_000_000
MIN_BATCH_ROWS, MAX_BATCH_ROWS = 250, 2_000
# A shard's rows are merged each time this many bytes wait: many repeats of one uid stay bounded.
MERGE_BYTES = 256 << 20
# Of the uids at which ranges may be cut.
POINTS_PER_SHARD = 64

INDEX_DTYPE = np.dtype(
    [
        ("first_high", "<u8"),
        ("first_low", "<u8"),
        ("last_high", "<u8"),
        ("last_low", "<u8"),
        ("rows", "<u4"),
        ("bytes", "<u8"),
    ]
)
Uid = tuple[int, int]
LOWEST: Uid = (0, 0)


@dataclass(frozen=True)
class UidRange:
    """The uids from ``first`` up to but not including ``end`` (None: to the last)."""

    first: Uid
    end: Uid | None


@dataclass
class MergeCounts:
    """What merging took away."""

    duplicate_pairs: int = 0
    duplicate_texts: int = 0
    texts_over_limit: int = 0

    def add(self, merged: Merged) -> pa.Table:
        """Count one merge and pass its table on."""
        self.duplicate_pairs += merged.duplicate_pairs
        self.duplicate_texts += merged.duplicate_texts
        self.texts_over_limit += merged.texts_over_limit
        return merged.table


def rows_per_batch(rows: int, shard_rows: int) -> int:
    """How finely to cut runs: about one record batch for each output shard of a pool so large.

    A shard reads whole batches, of which it needs a part at either end of its range.
    """
    return min(MAX_BATCH_ROWS, max(MIN_BATCH_ROWS, RUN_ROWS * shard_rows // max(rows, 1)))


def compression_of(rows: int | None) -> str | None:
    """How to compress the runs of a pool with so many rows (None: unknown), as Arrow names it."""
    return "lz4" if rows is None or rows > PLAIN_ROWS else None


def write_runs(
    folder: Folder,
    name: str,
    tables: Iterable[pa.Table],
    schema: pa.Schema,
    batch_rows: int,
    max_texts: int,
    counts: MergeCounts,
    compression: str | None,
) -> None:
    """Write one input shard's tables, all of one schema, as ``NAME.arrow`` and ``NAME.index``."""
    index: list[tuple[int, ...]] = []
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (
        folder.create(f"{name}.arrow") as file,
        pa.ipc.new_file(file, schema, options=options) as writer,
    ):
        for waiting in _gather(tables):
            run = counts.add(merge_rows(pa.concat_tables(waiting), max_texts))
            for batch in run.to_batches(max_chunksize=batch_rows):
                high, low = uid_halves(batch.column("uid"))
                first_last = (high[0], low[0], high[-1], low[-1])
                index.append((*first_last, batch.num_rows, batch.nbytes))
                writer.write_batch(batch)
    with folder.create(f"{name}.index") as file:
        file.write(np.array(index, dtype=INDEX_DTYPE).tobytes())


def _gather(tables: Iterable[pa.Table]) -> Iterator[list[pa.Table]]:
    """Lists of consecutive tables, each about one run."""
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        if waiting and (rows + table.num_rows > RUN_ROWS or size + table.nbytes > RUN_BYTES):
            yield waiting
            waiting, rows, size = [], 0, 0
        waiting.append(table)
        rows += table.num_rows
        size += table.nbytes
    if waiting:
        yield waiting


def read_index(folder: Folder, name: str) -> np.ndarray:
    """The index of an input shard's runs (``INDEX_DTYPE``, one element a record batch)."""
    with folder.open(f"{name}.index") as file:
        return np.frombuffer(file.read(), INDEX_DTYPE)


def plan_ranges(indices: Iterable[np.ndarray], shard_rows: int, shard_bytes: int) -> list[UidRange]:
    """Cut the uids into ranges of at most about ``shard_rows`` rows and ``shard_bytes`` bytes.

    The rows of a batch count as evenly spread over its uids: batches that are few and wide (those
    of a pool of small units) are cut inside.
    """
    entries = np.concatenate([*indices, np.zeros(0, dtype=INDEX_DTYPE)])
    weights = np.maximum(entries["rows"] / shard_rows, entries["bytes"] / shard_bytes)
    shards = max(1, int(np.ceil(weights.sum() - 1e-6)))  # sums of fractions are a hair off
    if shards == 1:
        return [UidRange(LOWEST, None)]
    lowest = min(zip(entries["first_high"].tolist(), entries["first_low"].tolist(), strict=True))
    first = _distance(entries["first_high"], entries["first_low"], lowest)
    last = _distance(entries["last_high"], entries["last_low"], lowest)
    each = 1 + POINTS_PER_SHARD * shards // len(entries)
    points = (first[:, None] + (last - first)[:, None] * (np.arange(each) / each)).ravel()
    order = np.argsort(points, kind="stable")
    filled = np.cumsum(np.repeat(weights / each, each)[order])
    places = np.searchsorted(filled, filled[-1] / shards * np.arange(1, shards))
    start = (lowest[0] << 64) + lowest[1]
    cuts = {start + int(distance) for distance in points[order[places]].tolist()}
    # Rounded, a distance may lie above all uids.
    bounds = sorted({LOWEST, *(divmod(cut, 1 << 64) for cut in cuts if cut < 1 << 128)})
    return [UidRange(a, b) for a, b in zip(bounds, [*bounds[1:], None], strict=True)]


def _distance(high: np.ndarray, low: np.ndarray, start: Uid) -> np.ndarray:
    """How far uids lie above ``start``, as floats: exact to 53 bits of the distance."""
    above = low - np.uint64(start[1])  # both modulo 2**64
    borrow = (low < np.uint64(start[1])).astype(np.uint64)
    return (high - np.uint64(start[0]) - borrow) * 2.0**64 + above


def read_range(folder: Folder, name: str, uids: UidRange) -> Iterator[pa.Table]:
    """The rows of one input shard's runs with uids in a range, in run order."""
    index = read_index(folder, name)
    wanted = _at_least(index["last_high"], index["last_low"], uids.first)
    if uids.end is not None:
        wanted &= ~_at_least(index["first_high"], index["first_low"], uids.end)
    if not wanted.any():
        return
    with folder.open(f"{name}.arrow") as file:
        yield from _slices(file, np.flatnonzero(wanted).tolist(), uids)


def _slices(file: IO[bytes], batches: Sequence[int], uids: UidRange) -> Iterator[pa.Table]:
    reader = open_ipc(file)
    for position in batches:
        batch = reader.get_batch(position)
        high, low = uid_halves(batch.column("uid"))
        start = int(np.count_nonzero(~_at_least(high, low, uids.first)))
        end = batch.num_rows
        if uids.end is not None:
            end = int(np.count_nonzero(~_at_least(high, low, uids.end)))
        if end - start == batch.num_rows:
            yield pa.Table.from_batches([batch])
        elif end > start:
            # Copied: a slice would hold all of its batch in memory, of each of many runs.
            yield pa.Table.from_batches([batch.take(pa.array(np.arange(start, end)))])


def _at_least(high: np.ndarray, low: np.ndarray, uid: Uid) -> np.ndarray:
    first, second = np.uint64(uid[0]), np.uint64(uid[1])
    return (high > first) | ((high == first) & (low >= second))


def merge_range(
    folder: Folder,
    names: Iterable[str],
    uids: UidRange,
    schema: pa.Schema,
    max_texts: int,
    counts: MergeCounts,
) -> pa.Table:
    """Merge one uid range of all input shards, in their order."""
    waiting, size, limit = [schema.empty_table()], 0, MERGE_BYTES
    for name in names:
        for table in read_range(folder, name, uids):
            waiting.append(table)
            size += table.nbytes
            if size > limit:
                merged = counts.add(merge_rows(pa.concat_tables(waiting), max_texts))
                waiting, size = [merged], merged.nbytes
                limit = size + MERGE_BYTES
    return counts.add(merge_rows(pa.concat_tables(waiting), max_texts))
