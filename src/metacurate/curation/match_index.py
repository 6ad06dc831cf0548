"""Index shards: which entries each matched pair of a unit matches, as Arrow files.

Columns: ``row`` uint32 (the pair's row number in its unit), ``uid`` fixed_size_binary(16), and
``matched`` list<list<uint32>> (a list for each of the pair's texts, in their order, of sorted entry
ids). Pairs without a match are left out. Record batches are small: a shard is read as a stream.
They are not compressed: hashes and ids shrink by a sixth, which costs more time than it saves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metacurate.arrays import list_offsets
from metacurate.pool.schema import UID_TYPE, PoolBatch
from metacurate.runtime.arrowfiles import open_ipc

MATCHED_TYPE = pa.list_(pa.list_(pa.uint32()))
SCHEMA = pa.schema(
    [
        pa.field("row", pa.uint32(), nullable=False),
        pa.field("uid", UID_TYPE, nullable=False),
        pa.field("matched", MATCHED_TYPE, nullable=False),
    ]
)


@dataclass(frozen=True)
class IndexBatch:
    """Some matched pairs of an index shard, with views for ``balancing.balance``."""

    batch: pa.RecordBatch

    @property
    def uids(self) -> npt.NDArray[np.uint64]:
        """The uids as two little-endian numbers, uint64[pairs, 2]."""
        uids = self.batch.column("uid")
        words = np.frombuffer(uids.buffers()[1] or b"", "<u8").reshape(-1, 2)
        return words[uids.offset :][: len(uids)]

    @property
    def pair_offsets(self) -> npt.NDArray[np.int64]:
        """Where each pair's texts lie, int64[pairs + 1] into ``text_offsets``."""
        return np.asarray(self.batch.column("matched").offsets, np.int64)

    @property
    def text_offsets(self) -> npt.NDArray[np.int64]:
        """Where each text's entry ids lie, int64[texts + 1] into ``entry_ids``."""
        return np.asarray(self.batch.column("matched").values.offsets, np.int64)

    @property
    def entry_ids(self) -> npt.NDArray[np.uint32]:
        """The entry ids of all texts, uint32[matches]; of each text sorted and unique."""
        return np.asarray(self.batch.column("matched").values.values)


def select_matched(
    pool: PoolBatch, offsets: npt.NDArray[np.int64], entry_ids: npt.NDArray[np.uint32]
) -> pa.RecordBatch:
    """The index rows of a pool batch's pairs that have a uid and a match.

    ``offsets`` int64[texts+1] and ``entry_ids`` are the matches of the batch's texts.
    """
    matches = np.diff(offsets[pool.text_offsets])
    keep = matches > 0
    if pool.uids.null_count:
        keep &= np.asarray(pool.uids.is_valid())
    text_counts = np.diff(pool.text_offsets)
    text_keep = np.repeat(keep, text_counts)
    id_counts = np.diff(offsets)
    # A pair that is left out has no ids, but for one without a uid.
    ids = entry_ids[np.repeat(text_keep, id_counts)] if pool.uids.null_count else entry_ids
    texts = pa.ListArray.from_arrays(list_offsets(id_counts[text_keep]), pa.array(ids))
    rows = np.flatnonzero(keep)
    return pa.record_batch(
        [
            pa.array((rows + pool.first_row).astype(np.uint32)),
            pool.uids.take(pa.array(rows)),
            pa.ListArray.from_arrays(list_offsets(text_counts[keep]), texts),
        ],
        schema=SCHEMA,
    )


def write_index(file: IO[bytes], batches: Iterator[pa.RecordBatch]) -> None:
    """Write index rows (batches in the module's schema, in row order) as one shard."""
    with pa.ipc.new_file(file, SCHEMA) as writer:
        for batch in batches:
            if batch.num_rows:
                writer.write_batch(batch)


def read_index(file: IO[bytes], *, only_matches: bool = False) -> Iterator[IndexBatch]:
    """Read a shard batch by batch, in row order; ArrowInvalid if the file is damaged.

    ``only_matches``: without rows and uids, which are half of it.
    """
    columns = [SCHEMA.get_field_index("matched")] if only_matches else None
    reader = open_ipc(file, columns)
    for position in range(reader.num_record_batches):
        yield IndexBatch(reader.get_batch(position))
