"""Rows of the same image become one: pure Arrow and numpy, no file is touched here.

Tables are in the pool's layout: ``uid`` (fixed 16 bytes), ``texts`` (a list of structs with a
``text`` field) and any other columns. The uid is read as two big-endian uint64 halves, so that the
order of the halves is the order of the bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.arrays import list_offsets, offsets_of, ranges_to_indices, uid_halves, uid_order


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
    high, low = uid_halves(batch.column("uid"))
    order = uid_order((high, low))
    high, low = high[order], low[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    group = np.cumsum(is_first) - 1
    groups = int(group[-1]) + 1

    lists = batch.column("texts")
    offsets = lists.offsets.to_numpy()
    lengths = np.diff(offsets)[order]
    positions = ranges_to_indices(offsets[:-1][order], lengths)
    text_group = np.repeat(group, lengths)
    keep = _first_of_each(lists.values, positions, text_group)
    duplicates = int(np.count_nonzero(~keep))
    positions, text_group = positions[keep], text_group[keep]
    over = 0
    if max_texts:
        within = rank_in_group(text_group) < max_texts
        over = int(np.count_nonzero(~within))
        positions, text_group = positions[within], text_group[within]
    texts = pa.ListArray.from_arrays(
        list_offsets(np.bincount(text_group, minlength=groups)),
        _take_structs(lists.values, pa.array(positions)),
        type=lists.type,
    )
    rows = pa.array(order[is_first])
    columns = [
        texts if name == "texts" else column.take(rows)
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    ]
    merged = pa.Table.from_arrays(columns, schema=batch.schema)
    return Merged(merged, batch.num_rows - groups, duplicates, over)


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


def _take_structs(values: pa.StructArray, positions: pa.Array) -> pa.StructArray:
    """``values.take(positions)`` of structs that are not null themselves; few have a language."""
    children = []
    for place, field in enumerate(values.type):
        child = pc.struct_field(values, place)
        empty = child.null_count == len(child)
        children.append(pa.nulls(len(positions), field.type) if empty else child.take(positions))
    return pa.StructArray.from_arrays(children, fields=list(values.type))


def _first_of_each(values: pa.StructArray, positions: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Mask over ``positions``: whether its text is the first with these bytes in its group."""
    keep = np.ones(len(positions), dtype=bool)
    if not len(group):
        return keep
    several = np.flatnonzero(np.bincount(group)[group] > 1)
    # struct_field, not .field(): it respects the struct array's own offset.
    text = pc.struct_field(values, "text")
    # Texts of different lengths are different: most of a group's need no closer look.
    sizes = np.asarray(pc.binary_length(text))[positions[several]]
    several = several[_occur_again(_pairs(group[several], sizes))]
    codes = np.asarray(text.take(pa.array(positions[several])).dictionary_encode().indices)
    keys = _pairs(group[several], codes)
    _, first = np.unique(keys, return_index=True)
    keep[several] = False
    keep[several[first]] = True
    return keep


def _pairs(group: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Groups with a number each (both below 2**32) as one number, uint64."""
    return group.astype(np.uint64) << np.uint64(32) | numbers.astype(np.uint64)


def _occur_again(keys: np.ndarray) -> np.ndarray:
    """Which of the keys are not the only ones of their value (bool[n])."""
    order = np.argsort(keys)
    ordered = keys[order]
    equal = ordered[1:] == ordered[:-1]
    found = np.zeros(len(keys), dtype=bool)
    found[order[1:]] = equal
    found[order[:-1]] |= equal
    return found
