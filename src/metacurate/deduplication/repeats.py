"""Texts that many images share: counted over the whole pool, then taken out.

Three steps, each over shards: every pool shard lists its distinct texts (by a 128-bit hash) with
the number of its images that have them; every range of hashes sums those lists and says what a
pool shard may keep; every pool shard drops the rest. A text that a million images share is one
record a shard, so no text is too frequent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.arrays import uid_halves, uid_order
from metacurate.deduplication.merging import rank_in_group, select_texts
from metacurate.pool.uid import key_uids
from metacurate.runtime.slices import read_slices, slice_sizes, write_slices
from metacurate.runtime.storage import Folder, read_ahead

BUCKET_BITS = 10
BUCKETS = 1 << BUCKET_BITS
# Records that one task of the second step holds at a time.
RECORDS_PER_TASK = 4_000_000

# A text's hash; how many images of a shard have it; in the second step's result: may keep it.
COUNT_DTYPE = np.dtype([("high", "<u8"), ("low", "<u8"), ("images", "<u8")])


def text_hashes(table: pa.Table) -> np.ndarray:
    """The hash of each text of a table in order (``COUNT_DTYPE``, one image each)."""
    texts = pc.struct_field(pc.list_flatten(table.column("texts")), "text")
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    # With a prefix no text is blank or 32 hex digits, which key_uids treats apart.
    large = pa.large_string()
    parts = (pa.scalar("text:", large), texts.cast(large), pa.scalar("", large))
    texts = pc.binary_join_element_wise(*parts)
    records = np.ones(len(texts), dtype=COUNT_DTYPE)
    records["high"], records["low"] = uid_halves(key_uids(texts))
    return records


def count_texts(folder: Folder, name: str, table: pa.Table) -> int:
    """First step: write a pool shard's distinct texts and their images; how many there are."""
    records = text_hashes(table)
    records, group = _sorted_groups(records)
    starts = np.flatnonzero(rank_in_group(group) == 0)
    images = np.diff(np.append(starts, len(records)))
    distinct = records[starts]
    distinct["images"] = images
    buckets = (distinct["high"] >> np.uint64(64 - BUCKET_BITS)).astype(np.int64)
    write_slices(folder, name, distinct, buckets, BUCKETS)
    return len(distinct)


def plan_buckets(folder: Folder, names: Sequence[str]) -> list[tuple[int, int]]:
    """Ranges of buckets (first, end), each about ``RECORDS_PER_TASK`` records over all shards."""
    read = read_ahead(folder, lambda name: slice_sizes(folder, name, BUCKETS), names)
    sizes = sum(read, np.zeros(BUCKETS, np.int64))
    task = np.cumsum(sizes) // RECORDS_PER_TASK
    starts = np.flatnonzero(np.concatenate([[True], task[1:] != task[:-1]])).tolist()
    return list(zip(starts, [*starts[1:], BUCKETS], strict=True))


def limit_texts(
    folder: Folder,
    names: Sequence[str],
    out: str,
    buckets: tuple[int, int],
    most: int,
    keep_first: bool,
) -> int:
    """Second step: what each pool shard may keep of the texts that over ``most`` images share.

    ``keep_first``: the first ``most`` images (by uid) keep such a text; otherwise none does.
    Returns the number of such texts.
    """
    parts = [read_slices(folder, name, COUNT_DTYPE, *buckets, BUCKETS) for name in names]
    shard = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    records = np.concatenate([np.zeros(0, COUNT_DTYPE), *parts])
    # Stable: the records of one text stay in the order of the shards, which is that of the uids.
    order = uid_order((records["high"], records["low"]))
    records, shard = records[order], shard[order]
    starts = np.flatnonzero(_changes(records))
    totals = np.add.reduceat(records["images"], starts) if len(starts) else records["images"]
    lengths = np.diff(np.append(starts, len(records)))
    over = np.repeat(totals > most, lengths)
    summed = np.cumsum(records["images"])
    before = summed - records["images"]
    before -= np.repeat(before[starts], lengths)
    allowed = np.zeros(len(records), np.uint64)
    if keep_first:
        allowed = np.minimum(np.maximum(most - before.astype(np.int64), 0), records["images"])
    changed = over & (allowed < records["images"])
    records["images"] = allowed
    records, shard = records[changed], shard[changed]
    by_shard = np.argsort(shard, kind="stable")
    write_slices(folder, out, records[by_shard], shard[by_shard], len(parts))
    return int(np.count_nonzero(totals > most))


def drop_texts(
    folder: Folder, limits: Sequence[str], table: pa.Table, shard: int, shards: int
) -> tuple[pa.Table, int, int]:
    """Third step: a pool shard without the texts that it may not keep, nor rows left without text.

    Returns the table and how many texts and rows were dropped.
    """
    parts = [read_slices(folder, name, COUNT_DTYPE, shard, shard + 1, shards) for name in limits]
    limited = np.concatenate([np.zeros(0, COUNT_DTYPE), *parts])  # sorted, as the buckets are
    hashes = text_hashes(table)
    keep = np.ones(len(hashes), dtype=bool)
    if len(limited) and len(hashes):
        found, place = _look_up(hashes, limited)
        which = np.flatnonzero(found)
        by_text = which[np.argsort(place[which], kind="stable")]  # in uid order for each text
        rank = rank_in_group(place[by_text])
        keep[by_text] = rank < limited["images"][place[by_text]].astype(np.int64)
    kept, counts = select_texts(table, keep)
    full = kept.filter(pa.array(counts > 0))
    return full, int(np.count_nonzero(~keep)), table.num_rows - full.num_rows


def _look_up(hashes: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each hash is in a sorted table, and where."""
    keys = table[["high", "low"]]
    place = np.searchsorted(keys["high"], hashes["high"])
    place = np.minimum(place, len(table) - 1)
    # Hashes that share the first half (in practice none do) are told apart one by one.
    while True:
        behind = (keys["high"][place] == hashes["high"]) & (keys["low"][place] < hashes["low"])
        behind &= place < len(table) - 1
        if not behind.any():
            break
        place[behind] += 1
    found = (keys["high"][place] == hashes["high"]) & (keys["low"][place] == hashes["low"])
    return found, place


def _sorted_groups(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ordered = records[uid_order((records["high"], records["low"]))]
    return ordered, np.cumsum(_changes(ordered))


def _changes(records: np.ndarray) -> np.ndarray:
    """Where a sorted array of hashes begins a new one."""
    new = np.ones(len(records), dtype=bool)
    same = records["high"][1:] == records["high"][:-1]
    new[1:] = ~(same & (records["low"][1:] == records["low"][:-1]))
    return new
