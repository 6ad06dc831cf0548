"""Rows of the same image become one, without files; ``kernels.merging`` chooses the texts.

Tables are in the pool's layout: ``uid`` (fixed 16 bytes), ``texts`` (a list of structs with a
``text`` field) and any other columns. The uid is read as two big-endian uint64 halves, so that the
order of the halves is the order of the bytes.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.arrays import list_offsets, offsets_of, uid_halves, uid_order
from metacurate.formats.types import is_string
from metacurate.kernels.merging import KEYS, choose_texts

_HASH_KEYS = np.frombuffer(bytearray(os.urandom(8 * KEYS)), np.uint64)


class Merged(NamedTuple):
    """A table with distinct uids in rising order, and what happened to the rest."""

    table: pa.Table
    duplicate_pairs: int
    duplicate_texts: int
    texts_over_limit: int


def merge_rows(table: pa.Table, max_texts: int) -> Merged:
    """Merge the rows of one uid: the first row's columns, and the distinct texts of all of them.

    Texts are compared by their bytes and kept in the order in which they first appear, at most
    ``max_texts`` an image (0: all), each with the source and language it was first seen with.
    Applied to parts of a pool and then to the parts' results in order, it gives what it gives on
    the whole.
    """
    batch = as_one_batch(table)
    if batch.num_rows == 0:
        return Merged(table, 0, 0, 0)
    halves = uid_halves(batch.column("uid"))
    order = uid_order(halves)
    high, low = (half[order] for half in halves)
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    starts = np.flatnonzero(is_first)
    lists = batch.column("texts")
    chosen, counts, duplicates, over = _choose(lists, order, starts, max_texts)
    texts = pa.ListArray.from_arrays(
        list_offsets(counts), _take_structs(lists.values, pa.array(chosen)), type=lists.type
    )
    rows = pa.array(order[starts])
    columns = [
        texts if name == "texts" else _take(column, rows)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    merged = pa.Table.from_arrays(columns, schema=batch.schema)
    return Merged(merged, batch.num_rows - len(starts), duplicates, over)


def as_one_batch(table: pa.Table) -> pa.RecordBatch:
    """The table as one record batch (ArrowInvalid if a string column outgrows 2 GiB)."""
    batches = table.combine_chunks().to_batches()
    if not batches:
        return pa.RecordBatch.from_pylist([], schema=table.schema)
    if len(batches) > 1:
        raise pa.ArrowInvalid(f"{table.nbytes} bytes do not fit one record batch")
    return batches[0]


def select_texts(table: pa.Table, keep: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """Keep the texts of the mask (one bool a text, over the whole table's texts in order).

    Returns the table with the same rows and shorter lists, and the remaining texts a row (int64).
    """
    batch = as_one_batch(table)
    lists = batch.column("texts")
    offsets = lists.offsets.to_numpy()
    if keep.all():
        return table, np.diff(offsets)
    before = offsets_of(keep)
    counts = np.diff(before[offsets - offsets[0]])
    kept = lists.values.take(pa.array(np.flatnonzero(keep) + offsets[0]))
    texts = pa.ListArray.from_arrays(list_offsets(counts), kept, type=lists.type)
    position = batch.schema.get_field_index("texts")
    columns: list[Any] = list(batch.columns)
    columns[position] = texts
    return pa.Table.from_arrays(columns, schema=batch.schema), counts


def rank_in_group(group: np.ndarray) -> np.ndarray:
    """For sorted group numbers, the position (int64) of each element within its group."""
    if not len(group):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    lengths = np.diff(np.append(starts, len(group)))
    return np.arange(len(group)) - np.repeat(starts, lengths)


def _choose(
    lists: pa.ListArray, order: np.ndarray, starts: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """The distinct texts of each image (positions, int64), how many it has, and what is left out:
    texts that had come before, and those over ``most``.

    The rows of image i are ``order[starts[i]:starts[i + 1]]``.
    """
    # struct_field, not .field(): it respects the struct array's own offset.
    text = pc.struct_field(lists.values, "text")
    _, offsets, data = text.buffers()
    text_offsets = np.frombuffer(offsets, np.int32, len(text) + 1, 4 * text.offset)
    content = np.frombuffer(data if data is not None else b"", np.uint8)
    chosen, counts = np.empty(len(text), np.int64), np.empty(len(starts), np.int64)
    bounds = np.append(starts, len(order))
    kept, duplicates, over = choose_texts(
        content, text_offsets, lists.offsets.to_numpy(), order, bounds, most, _HASH_KEYS,
        chosen, counts,
    )  # fmt: skip
    return chosen[:kept], counts, duplicates, over


def _take_structs(values: pa.StructArray, positions: pa.Array) -> pa.StructArray:
    """``values.take(positions)`` of structs that are not null themselves."""
    children = [_take(pc.struct_field(values, n), positions) for n in range(len(values.type))]
    return pa.StructArray.from_arrays(children, fields=list(values.type))


def _take(column: pa.Array, positions: pa.Array) -> pa.Array:
    """``column.take(positions)`` of no more positions than values; of one value without a look."""
    if len(column) and is_string(column.type):
        if column.null_count == len(column):
            return pa.nulls(len(positions), column.type)
        if not column.null_count and pc.all(pc.equal(column, column[0])).as_py():
            return column.slice(0, len(positions))
    return column.take(positions)
