"""Reading a run's curated shards: texts with what curation added, and samples of kept pairs.

A sample of an entry's pairs is the kept pairs with the smallest hashes of (uid, entry), each text
once: the same whatever the order of the shards, in one pass and bounded memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from metacurate.arrays import offsets_of
from metacurate.curation.layout import MATCH, curated_file_name, finished_section
from metacurate.formats.types import is_list
from metacurate.pool.columns import resolve
from metacurate.pool.open import Unit
from metacurate.pool.read import read_unit
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.arrowfiles import open_parquet
from metacurate.runtime.made import damaged, open_made
from metacurate.runtime.storage import Folder

BATCH_ROWS = 8192
MAX_SAMPLE_TEXT = 400  # characters
MAX_SAMPLE_URL = 2000
# How many times the sample's size is looked at in a batch to find texts that differ.
SURPLUS = 16


@dataclass(frozen=True)
class CuratedBatch:
    """Some kept pairs.

    ``uids`` fixed_size_binary(16)[n]; ``urls`` string[n] or None; ``keep_prob`` float64[n];
    ``texts`` large_string, text ``j`` of pair ``i`` at ``text_offsets[i] + j``; ``text_kept``
    bool[texts]; ``match_offsets`` int64[texts + 1] into ``entry_ids``; ``sources`` and ``langs``
    string[texts] or None where the pool has none.
    """

    uids: pa.FixedSizeBinaryArray
    urls: pa.Array | None
    keep_prob: npt.NDArray[np.float64]
    texts: pa.LargeStringArray
    text_offsets: npt.NDArray[np.int64]
    text_kept: npt.NDArray[np.bool_]
    match_offsets: npt.NDArray[np.int64]
    entry_ids: npt.NDArray[np.uint32]
    sources: pa.Array | None
    langs: pa.Array | None


def run_pool_config(folder: Folder) -> PoolConfig:
    """How the run's pool is read."""
    return PoolConfig.from_json(finished_section(folder, MATCH)["config"]["pool_config"])


def read_curated(folder: Folder, position: int, config: PoolConfig) -> Iterator[CuratedBatch]:
    """Read a curated shard batch by batch."""
    name = curated_file_name(position)
    address = folder.address(name)
    with open_made(folder, name) as file:
        parquet = open_parquet(file)
        schema, groups = parquet.schema_arrow, parquet.num_row_groups
    columns = resolve(address, schema, config)
    unit = Unit(address, "parquet", (0, groups), columns)
    skipped: Counter[str] = Counter()
    for batch in read_unit(unit, all_columns=True, skipped=skipped, batch_rows=BATCH_ROWS):
        rows = batch.columns
        assert rows is not None
        matched = rows.column("matched").flatten()
        yield CuratedBatch(
            uids=rows.column("uid"),
            urls=rows.column(columns.url) if columns.url is not None else None,
            keep_prob=np.asarray(rows.column("keep_prob")),
            texts=batch.texts,
            text_offsets=batch.text_offsets,
            text_kept=rows.column("text_kept").flatten().to_numpy(zero_copy_only=False),
            match_offsets=offsets_of(pc.list_value_length(matched)),
            entry_ids=np.asarray(matched.flatten()),
            sources=_text_field(rows, columns.texts, "source"),
            langs=_text_field(rows, columns.texts, "lang"),
        )
    if reasons := [reason for reason in skipped if reason.startswith("unreadable")]:
        raise damaged(folder, name, ", ".join(reasons).replace("_", " "))


def _text_field(rows: pa.RecordBatch, texts: Sequence[str], name: str) -> pa.Array | None:
    """A further field of a canonical pool's texts."""
    if len(texts) != 1:
        return None
    kind = rows.schema.field(texts[0]).type
    if not (is_list(kind) and pat.is_struct(kind.value_type)):
        return None
    place = kind.value_type.get_field_index(name)
    if place < 0 or not pat.is_string(kind.value_type.field(place).type):
        return None
    return pc.struct_field(rows.column(texts[0]).flatten(), place)


Sample = dict[str, Any]
Samples = dict[int, list[Sample]]


class PairSampler:
    """Samples, for each of some chosen entries, up to ``size`` kept pairs that it keeps or shares.

    Only texts that are kept are looked at. A sample is a dict of plain values: ``order`` (the hash
    that samples are sorted by), ``uid`` (hex), ``url``, ``text`` (cut), ``length`` (of the
    whole text), ``position`` (of the text in its pair), ``source``, ``lang`` and ``keep_prob``.
    """

    def __init__(self, chosen: Sequence[int], entries: int, size: int) -> None:
        self._chosen = list(chosen)
        self._size = size
        self._slots = np.full(entries, -1, np.int64)
        self._slots[self._chosen] = np.arange(len(self._chosen))
        self._limits = np.full(len(self._chosen), np.iinfo(np.uint64).max, np.uint64)
        self._found: list[list[Sample]] = [[] for _ in self._chosen]

    def add(self, batch: CuratedBatch) -> None:
        """Look at some more pairs."""
        slots = self._slots[batch.entry_ids]
        lengths = np.diff(batch.match_offsets)
        hits = np.flatnonzero((slots >= 0) & np.repeat(batch.text_kept, lengths))
        if not hits.size or not self._size:
            return
        texts = np.searchsorted(batch.match_offsets, hits, side="right") - 1
        pairs = np.searchsorted(batch.text_offsets, texts, side="right") - 1
        slots, entry_ids = slots[hits], batch.entry_ids[hits].astype(np.uint64)
        words = uid_words(batch.uids)[pairs]
        orders = pair_orders(words, entry_ids)
        near = np.flatnonzero(orders < self._limits[slots])
        near = near[np.lexsort((orders[near], slots[near]))]
        # A pair may hit several times (by several texts, or repeated in the pool): its first hit.
        fresh = np.ones(near.size, np.bool_)
        fresh[1:] = (np.diff(slots[near]) != 0) | (np.diff(orders[near]) != 0)
        near = near[fresh]
        sorted_slots = slots[near]
        ranks = np.arange(near.size) - np.searchsorted(sorted_slots, sorted_slots)
        batch_found: dict[int, list[Sample]] = {}
        for hit in near[ranks < SURPLUS * self._size].tolist():
            found = batch_found.setdefault(int(slots[hit]), [])
            if len(found) < self._size:
                sample = _sample(batch, int(orders[hit]), int(pairs[hit]), int(texts[hit]))
                if all(sample["text"] != other["text"] for other in found):
                    found.append(sample)
        for slot, found in batch_found.items():
            merged = merge_samples([self._found[slot], found], self._size)
            self._found[slot] = merged
            if len(merged) == self._size:
                self._limits[slot] = merged[-1]["order"]

    def samples(self) -> Samples:
        """``{entry id: samples}``."""
        return dict(zip(self._chosen, self._found, strict=True))


def merge_samples(parts: Sequence[Sequence[Sample]], size: int) -> list[Sample]:
    """One sample of several parts' samples; each pair and each text once."""
    everything = sorted(
        (sample for part in parts for sample in part),
        key=lambda s: (s["order"], s["position"], s["text"]),
    )
    texts: dict[str, Sample] = {}
    orders: set[int] = set()
    for sample in everything:
        if sample["text"] not in texts and sample["order"] not in orders:
            texts[sample["text"]] = sample
            orders.add(sample["order"])
    return list(texts.values())[:size]


def _sample(batch: CuratedBatch, order: int, pair: int, text: int) -> Sample:
    def value(array: pa.Array | None, place: int, limit: int) -> str | None:
        found = None if array is None else array[place].as_py()
        return None if found is None else str(found)[:limit]

    caption = batch.texts[text].as_py() or ""
    return {
        "order": order,
        "uid": batch.uids[pair].as_py().hex(),
        "url": value(batch.urls, pair, MAX_SAMPLE_URL),
        "text": caption[:MAX_SAMPLE_TEXT],
        "length": len(caption),
        "position": text - int(batch.text_offsets[pair]),
        "source": value(batch.sources, text, 64),
        "lang": value(batch.langs, text, 64),
        "keep_prob": float(batch.keep_prob[pair]),
    }


def uid_words(uids: pa.FixedSizeBinaryArray) -> npt.NDArray[np.uint64]:
    """Two little-endian numbers a uid, uint64[n, 2]."""
    words = np.frombuffer(uids.buffers()[1] or b"", "<u8").reshape(-1, 2)
    return words[uids.offset :][: len(uids)]


def pair_orders(
    words: npt.NDArray[np.uint64], keys: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64]:
    """What samples are sorted by, uint64[n]: hashes of uids (uint64[n, 2]) and keys (uint64[n])."""
    return _mix(words[:, 0] ^ _mix(words[:, 1] + _mix(keys)))


def smallest_hashes(ids: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """A sample of ids: the ``size`` with the smallest hashes, sorted by id."""
    order = np.argsort(_mix(ids.astype(np.uint64)), kind="stable")
    return np.sort(ids[order[:size]])


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014): a bijection that scatters."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
