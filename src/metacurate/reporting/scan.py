"""The report's pass over a run's shards: sample pairs, texts by source and language, matches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.curation.balance import run_keep_probabilities
from metacurate.curation.layout import index_file_name
from metacurate.curation.match_index import read_index
from metacurate.curation.subset import (
    CuratedBatch,
    PairSampler,
    Sample,
    merge_samples,
    read_curated,
)
from metacurate.curation.thresholds import Thresholds
from metacurate.pool.open import Unit
from metacurate.pool.schema import PoolConfig
from metacurate.reporting.rejected import REASONS, DrawnUnit, RejectedPairs, merge_rejected
from metacurate.runtime.made import open_made
from metacurate.runtime.manifest import Statistics
from metacurate.runtime.storage import Folder

MAX_TASKS = 512
MAX_MATCHES = 30
"""Texts with this many matches or more are counted together."""

# Bounds on what a hostile pool can make the tables hold, per task.
MAX_VALUES = 1000
MAX_VALUE_CHARACTERS = 64
OTHER = "(other)"
UNKNOWN = "(none)"


@dataclass(frozen=True)
class Draws:
    """How a run drew, and the entries to count the lost pairs of; ``counts`` names the counts."""

    thresholds: Thresholds
    choose_text: str
    seed: int
    counts: str
    costly: tuple[int, ...]


@dataclass(frozen=True)
class ScanTask:
    """Some shards to look at: tables of texts, samples of the chosen entries' pairs, what is lost.

    ``units``: by position the units of the pool to take samples of rejected pairs from.
    """

    folder: Folder
    shards: range
    pool_config: PoolConfig
    entries: int
    chosen: tuple[int, ...]
    samples: int
    draws: Draws
    units: dict[int, Unit]


@dataclass(frozen=True)
class Scan:
    """What the pass found.

    ``matches_before`` and ``matches_after`` int64[MAX_MATCHES + 1]: texts by their number of
    matches, before and after balancing (at 0: none; the last: that many or more). ``sources`` and
    ``langs``: value to (texts of kept pairs, kept texts). ``samples``: entry id to sample pairs.
    ``dropped``: matched pairs that balancing drops; ``lost`` and ``alone`` int64[costly] as of
    ``RejectedPairs``; ``rejected``: samples of pairs that are not kept, by reason.
    """

    matches_before: npt.NDArray[np.int64]
    matches_after: npt.NDArray[np.int64]
    sources: dict[str, tuple[int, int]]
    langs: dict[str, tuple[int, int]]
    samples: dict[int, list[Sample]]
    dropped: int
    lost: npt.NDArray[np.int64]
    alone: npt.NDArray[np.int64]
    rejected: dict[str, list[Sample]]


def scan_tasks(
    folder: Folder,
    pool_config: PoolConfig,
    shards: int,
    entries: int,
    chosen: Sequence[int],
    samples: int,
    draws: Draws,
    units: dict[int, Unit],
) -> list[ScanTask]:
    """Tasks that look at all index and curated shards of a run."""
    size = max(1, math.ceil(shards / MAX_TASKS))
    return [
        ScanTask(
            folder, positions, pool_config, entries, tuple(chosen), samples, draws,
            {position: units[position] for position in positions if position in units},
        )
        for first in range(0, shards, size)
        for positions in [range(first, min(first + size, shards))]
    ]  # fmt: skip


def add_up(parts: Sequence[Statistics], chosen: Sequence[int], samples: int) -> Scan:
    """What all tasks found."""
    return Scan(
        matches_before=_sum_histograms(part["matches_before"] for part in parts),
        matches_after=_sum_histograms(part["matches_after"] for part in parts),
        sources=_sum_tables([part["sources"] for part in parts]),
        langs=_sum_tables([part["langs"] for part in parts]),
        samples={
            entry: merge_samples([part["samples"][str(entry)] for part in parts], samples)
            for entry in chosen
        },
        dropped=sum(part["dropped"] for part in parts),
        lost=np.sum([part["lost"] for part in parts], axis=0, dtype=np.int64),
        alone=np.sum([part["alone"] for part in parts], axis=0, dtype=np.int64),
        rejected={
            reason: merge_rejected([part["rejected"][reason] for part in parts], samples)
            for reason in REASONS
        },
    )


def _sum_histograms(histograms: Any) -> npt.NDArray[np.int64]:
    total = np.zeros(MAX_MATCHES + 1, np.int64)
    for histogram in histograms:
        total += np.asarray(histogram)
    return total


def _sum_tables(tables: Sequence[dict[str, list[int]]]) -> dict[str, tuple[int, int]]:
    total: dict[str, tuple[int, int]] = {}
    for table in tables:
        for value, (texts, kept) in table.items():
            before = total.get(value, (0, 0))
            total[value] = (before[0] + texts, before[1] + kept)
    return dict(sorted(total.items(), key=lambda item: (-item[1][0], item[0])))


def scan_shards(task: ScanTask) -> Statistics:
    """Look at some shards."""
    before, after = np.zeros((2, MAX_MATCHES + 1), np.int64)
    sources, langs = _TextTable(), _TextTable()
    sampler = PairSampler(task.chosen, task.entries, task.samples)
    draws = task.draws
    keep_probs = run_keep_probabilities(task.folder, draws.counts, draws.thresholds)
    rejected = RejectedPairs(draws.costly, task.entries, task.samples)
    pairs = 0
    for position in task.shards:
        unit = task.units.get(position) if task.samples else None
        drawn = DrawnUnit(task.samples if unit is not None else 0)
        with open_made(task.folder, index_file_name(position)) as file:
            for index in read_index(file):
                before += _histogram(np.diff(index.text_offsets))
                rejected.add_index(index, keep_probs, draws.seed, draws.choose_text, drawn)
        if unit is not None:
            rejected.add_texts(unit, drawn)
        for batch in read_curated(task.folder, position, task.pool_config):
            pairs += len(batch.uids)
            after += _histogram(np.diff(batch.match_offsets)[batch.text_kept])
            sources.add(batch.sources, batch)
            langs.add(batch.langs, batch)
            sampler.add(batch)
    return {
        "pairs": pairs,
        "matches_before": before.tolist(),
        "matches_after": after.tolist(),
        "sources": sources.values,
        "langs": langs.values,
        "samples": {str(entry): found for entry, found in sampler.samples().items()},
        **rejected.statistics(),
    }


def _histogram(matches: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.bincount(np.minimum(matches, MAX_MATCHES), minlength=MAX_MATCHES + 1)


class _TextTable:
    """Texts of kept pairs and kept texts by a value of theirs."""

    def __init__(self) -> None:
        self.values: dict[str, list[int]] = {}

    def add(self, values: pa.Array | None, batch: CuratedBatch) -> None:
        if values is None:
            return
        short = pc.utf8_slice_codeunits(values, 0, MAX_VALUE_CHARACTERS).fill_null(UNKNOWN)
        present = batch.texts.is_valid()
        kept = pc.and_(present, pa.array(batch.text_kept))
        for place, mask in enumerate((present, kept)):
            counted = Counter(
                {v["values"]: v["counts"] for v in pc.value_counts(short.filter(mask)).to_pylist()}
            )
            for value, number in sorted(counted.items()):
                known = value in self.values or len(self.values) < MAX_VALUES
                self.values.setdefault(value if known else OTHER, [0, 0])[place] += number
