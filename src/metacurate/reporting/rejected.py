"""What a run did not keep: pairs by reason, with samples, and the entries that cost most.

The draws are repeated from the index. Texts are read from the pool, where it still is as it was
matched: from all of it, or, if it is large, from units chosen by hash.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.curation import balancing
from metacurate.curation.balancing import Counts, Probabilities
from metacurate.curation.match_index import IndexBatch
from metacurate.curation.subset import (
    MAX_SAMPLE_TEXT,
    MAX_SAMPLE_URL,
    SURPLUS,
    Sample,
    pair_orders,
    smallest_hashes,
    uid_words,
)
from metacurate.errors import UserError
from metacurate.formats.reasons import NO_TEXT
from metacurate.pool.open import Unit, open_pool
from metacurate.pool.read import read_unit
from metacurate.pool.schema import PoolBatch, PoolConfig
from metacurate.runtime.engine import Engine

DROPPED, NO_MATCH = "dropped", "no_match"
REASONS = (DROPPED, NO_MATCH, NO_TEXT)
"""Matched but dropped by balancing; with texts of which none matches; without a text."""

MAX_POOL_PAIRS = 2_000_000
"""About so many pairs of the pool are read for samples; of a larger pool some units."""
COSTLY = 400
"""Of the entries that lose most matches so many are looked at for the pairs that they lose."""
MAX_SAMPLE_ENTRIES = 6


@dataclass(frozen=True)
class RejectedFrom:
    """The units of the pool to take samples from, by position, of how many; or why of none."""

    units: dict[int, Unit]
    of: int
    why_not: str | None = None


def sampled_units(
    match: dict[str, Any], config: PoolConfig, engine: Engine, most: int | None = None
) -> RejectedFrom:
    """Where to take samples of rejected pairs from.

    ``match`` is the match stage's section of the manifest; ``most`` pairs, MAX_POOL_PAIRS if not
    given; ``engine`` looks at the pool's files if they are many. There are none if the pool is gone
    or is another by now.
    """
    most = MAX_POOL_PAIRS if most is None else most
    try:
        pool = open_pool(list(match["config"]["pool"]), config, engine=engine)
    except UserError:
        return RejectedFrom({}, 0, "the pool cannot be read any more")
    if pool.fingerprints != match["config"]["pool"]:
        return RejectedFrom({}, 0, "the pool has changed since it was matched")
    number = len(pool.units)
    share = most / max(int(match["totals"]["pairs"]), 1)
    chosen = np.arange(number)
    if share < 1:
        chosen = smallest_hashes(chosen, max(1, math.floor(number * share)))
    return RejectedFrom({i: pool.units[i] for i in chosen.tolist()}, number)


def costly_entries(counts: Counts, kept: Counts) -> npt.NDArray[np.int64]:
    """The entries that lose most matches, int64[at most COSTLY], the largest loss first."""
    lost = counts.astype(np.int64) - kept.astype(np.int64)
    order = np.argsort(-lost, kind="stable")[:COSTLY]
    return order[lost[order] > 0]


@dataclass(frozen=True)
class _Dropped:
    """A dropped pair: its first text with a match, that text's entries, and its probability."""

    position: int
    entries: list[int]
    keep_prob: float


class DrawnUnit:
    """The matched pairs of a unit with their draws; ``size`` samples are to be taken of it, or 0.

    For samples it holds five bytes a matched pair, and the entries of some dropped ones.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._rows: list[npt.NDArray[np.uint32]] = []
        self._dropped: list[npt.NDArray[np.bool_]] = []
        self.candidates: dict[int, _Dropped] = {}

    def add(self, index: IndexBatch, dropped: npt.NDArray[np.bool_], probs: Probabilities) -> None:
        """Note some more pairs of the unit, in row order."""
        if not self.size:
            return
        rows = np.asarray(index.batch.column("row"))
        self._rows.append(rows)
        self._dropped.append(dropped)
        places = np.flatnonzero(dropped)
        best = np.argsort(uid_orders(index.uids[places]), kind="stable")
        for place in places[best][: SURPLUS * self.size].tolist():
            first, stop = index.pair_offsets[place : place + 2].tolist()
            bounds = index.text_offsets[first : stop + 1]
            text = int(np.flatnonzero(np.diff(bounds))[0])
            ids = index.entry_ids[bounds[text] : bounds[text + 1]]
            self.candidates[int(rows[place])] = _Dropped(
                text, ids[:MAX_SAMPLE_ENTRIES].tolist(), float(probs[place])
            )

    def fates(
        self, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which of the unit's rows match, and which of them are dropped: bool[rows] each."""
        known = np.concatenate([np.empty(0, np.uint32), *self._rows]).astype(np.int64)
        if not known.size:
            return np.zeros((2, rows.size), np.bool_)[0], np.zeros(rows.size, np.bool_)
        places = np.minimum(np.searchsorted(known, rows), known.size - 1)
        matched = known[places] == rows
        return matched, matched & np.concatenate(self._dropped)[places]


def uid_orders(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """What samples of pairs are sorted by, uint64[n], from their uids (uint64[n, 2])."""
    return pair_orders(words, np.zeros(len(words), np.uint64))


class RejectedPairs:
    """Counts the pairs that balancing drops, and takes samples of what is not kept.

    ``entries``: how many there are; ``costly``: those to count the lost pairs of. ``lost`` and
    ``alone`` int64[costly]: dropped pairs that match an entry, and those that match no other.
    """

    def __init__(self, costly: Sequence[int], entries: int, samples: int) -> None:
        self._slots = np.full(entries, -1, np.int64)
        self._slots[list(costly)] = np.arange(len(costly))
        self.pairs = 0
        self.lost, self.alone = np.zeros((2, len(costly)), np.int64)
        self._size = samples
        self._samples: dict[str, list[Sample]] = {reason: [] for reason in REASONS}

    def statistics(self) -> dict[str, Any]:
        """What was found, as plain JSON values."""
        return {
            "dropped": self.pairs,
            "lost": self.lost.tolist(),
            "alone": self.alone.tolist(),
            "rejected": self._samples,
        }

    def add_index(
        self, index: IndexBatch, keep_probs: Probabilities, seed: int, choose_text: str,
        unit: DrawnUnit,
    ) -> None:  # fmt: skip
        """Repeat the draws of some matched pairs of a unit."""
        result = balancing.balance(
            index.uids, index.pair_offsets, index.text_offsets, index.entry_ids, keep_probs,
            seed=seed, choose_text=choose_text,
        )  # fmt: skip
        dropped = ~result.pairs
        self.pairs += int(np.count_nonzero(dropped))
        unit.add(index, dropped, result.keep_prob)
        sizes = np.diff(index.text_offsets[index.pair_offsets])
        ids = index.entry_ids[np.repeat(dropped, sizes)].astype(np.int64)
        pairs = np.repeat(np.arange(np.count_nonzero(dropped)), sizes[dropped])
        # Each entry once a pair: several texts of a pair may match it.
        several = (np.diff(index.pair_offsets)[dropped] > 1)[pairs]
        once = np.unique(pairs[several] * self._slots.size + ids[several])
        others, their_ids = np.divmod(once, self._slots.size)
        pairs = np.concatenate([pairs[~several], others])
        ids = np.concatenate([ids[~several], their_ids])
        slots = self._slots[ids]
        alone = np.bincount(pairs)[pairs] == 1
        costly = slots >= 0
        self.lost += np.bincount(slots[costly], minlength=self.lost.size)
        self.alone += np.bincount(slots[costly & alone], minlength=self.alone.size)

    def add_texts(self, unit: Unit, drawn: DrawnUnit) -> None:
        """Take samples of a unit's pairs; the draws of all its matched pairs are known by now."""
        skipped: Counter[str] = Counter()  # the match stage has told of them
        for batch in read_unit(unit, all_columns=True, skipped=skipped):
            matched, dropped = drawn.fates(batch.first_row + np.arange(batch.rows))
            valid = np.concatenate([[0], np.cumsum(np.asarray(batch.texts.is_valid()))])
            texts = np.diff(valid[batch.text_offsets])
            named = np.asarray(batch.uids.is_valid())
            masks = {
                DROPPED: dropped,
                NO_MATCH: named & ~matched & (texts > 0),
                NO_TEXT: named & (texts == 0),
            }
            orders = uid_orders(uid_words(batch.uids))
            for reason, mask in masks.items():
                found = self._sampled(batch, unit.columns.url, np.flatnonzero(mask), orders, drawn)
                self._samples[reason] = merge_rejected([self._samples[reason], found], self._size)
            if batch.first_row + batch.rows >= MAX_POOL_PAIRS:
                break

    def _sampled(
        self,
        batch: PoolBatch,
        url: str | None,
        places: npt.NDArray[np.int64],
        orders: npt.NDArray[np.uint64],
        drawn: DrawnUnit,
    ) -> list[Sample]:
        best = places[np.argsort(orders[places], kind="stable")][: SURPLUS * self._size]
        found = []
        for place in best.tolist():
            dropped = drawn.candidates.get(batch.first_row + place)
            start, stop = batch.text_offsets[place : place + 2].tolist()
            texts = (batch.texts[i].as_py() for i in range(start, stop))
            if dropped is None:
                text = next((text for text in texts if text is not None), "")
            else:
                text = batch.texts[start + dropped.position].as_py() or ""
            address = None
            if url is not None and batch.columns is not None:
                address = batch.columns.column(url)[place].as_py()
            found.append({
                "order": int(orders[place]),
                "uid": batch.uids[place].as_py().hex(),
                "url": None if address is None else str(address)[:MAX_SAMPLE_URL],
                "text": text[:MAX_SAMPLE_TEXT],
                "length": len(text),
                "texts": stop - start,
                "entries": [] if dropped is None else dropped.entries,
                "keep_prob": 0.0 if dropped is None else dropped.keep_prob,
            })  # fmt: skip
        return merge_rejected([found], self._size)


def merge_rejected(parts: Sequence[Sequence[Sample]], size: int) -> list[Sample]:
    """One sample of several parts' samples; each pair and each text once."""
    everything = (sample for part in parts for sample in part)
    chosen: dict[str, Sample] = {}
    uids: set[str] = set()
    for sample in sorted(everything, key=lambda s: (s["order"], s["text"])):
        if sample["uid"] not in uids:
            uids.add(sample["uid"])
            chosen.setdefault(sample["text"] or sample["uid"], sample)
    return list(chosen.values())[:size]
