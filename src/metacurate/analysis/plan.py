"""What balancing would keep for a sweep of thresholds, without touching the pool.

From a run's index the expected sizes are exact. From counts alone they are bounds: of the texts
kept, since counts are per (text, entry). Every kept text is kept by at least one successful draw,
so ``sum(min(count, t))`` bounds their expected number (and that of pairs) from above; and the
entry with the most expected draws keeps that many texts alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from metacurate.arguments import whole
from metacurate.curation import balancing
from metacurate.curation.balancing import Counts, Probabilities
from metacurate.curation.layout import (
    COUNT,
    finished_section,
    index_file_name,
    light_engine,
    load_counts,
    matched_run,
)
from metacurate.curation.match_index import read_index
from metacurate.curation.settings import check_p, check_t
from metacurate.errors import ArgumentError
from metacurate.runtime.engine import Engine
from metacurate.runtime.made import open_made
from metacurate.runtime.progress import meter
from metacurate.runtime.run import Run
from metacurate.runtime.storage import Folder

PAPER_TAIL_PROPORTION = 0.06
"""MetaCLIP's t = 20k leaves this share of all counts in the tail (arXiv 2507.22062)."""


@dataclass(frozen=True)
class Sweep:
    """The thresholds ``t`` to plan for, given or to be solved from tail proportions ``p`` or target
    sizes; if there are none, a sweep by default."""

    t: tuple[float, ...] = ()
    p: tuple[float, ...] = ()
    target_size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for t in self.t:
            check_t(t)
        for p in self.p:
            check_p(p)
        for size in self.target_size:
            whole("target_size", size, 1)

    @property
    def empty(self) -> bool:
        """Whether nothing is asked for."""
        return not (self.t or self.p or self.target_size)


@dataclass(frozen=True)
class Plan:
    """What a threshold would keep.

    ``asked``: what it was solved for. ``p``: the tail proportion. ``draws``: the expected number
    of successful draws, ``sum(min(count, t))``. ``pairs`` and ``texts``: (least, most) expected to
    be kept, equal where they are exact.
    """

    t: float
    asked: str
    p: float
    head_entries: int
    tail_entries: int
    draws: float
    pairs: tuple[float, float]
    texts: tuple[float, float]


def plan_run(run: Run, sweep: Sweep) -> list[Plan]:
    """Plans with exact expected sizes, from a counted run's index."""
    shards, _ = matched_run(run.folder)
    finished_section(run.folder, COUNT)
    counts = load_counts(run.folder)
    engine = light_engine(run)

    def sizes(thresholds: Sequence[float]) -> list[tuple[float, float]]:
        return _expected_sizes(
            run.folder, engine, shards, tuple(thresholds), show=run.show_progress
        )

    asked = _thresholds(counts, sweep)
    for target in sweep.target_size:
        try:
            t = balancing.solve_threshold_for_size(counts, lambda t: sizes([t])[0][0], target)
        except ArgumentError as error:
            raise ArgumentError("{target_size}: {said}", said=str(error)) from None
        asked.append((t, f"{target:,} pairs"))
    plans = []
    for (t, reason), (pairs, texts) in zip(asked, sizes([t for t, _ in asked]), strict=True):
        plans.append(_plan(counts, t, reason, (pairs, pairs), (texts, texts)))
    return _sorted(plans)


def plan_counts(counts: Counts, sweep: Sweep) -> list[Plan]:
    """Plans with bounds on the expected sizes, from entry counts alone.

    A target size gives the least t that could reach it.
    """
    asked = _thresholds(counts, sweep)
    for target in sweep.target_size:
        t = _least_threshold(counts, target)
        asked.append((t, f"{target:,} pairs (t at least)"))
    plans = []
    for t, reason in asked:
        expected = np.minimum(counts.astype(np.float64), t)
        most = math.fsum(expected)
        # A pair may hold an entry's matches in many texts: there is no such bound below for pairs.
        texts = (float(expected.max(initial=0.0)), most)
        plans.append(_plan(counts, t, reason, (0.0, most), texts))
    return _sorted(plans)


def _thresholds(counts: Counts, sweep: Sweep) -> list[tuple[float, str]]:
    """The thresholds that the counts alone give, with what was asked for."""
    if sweep.empty:
        top = int(counts.max(initial=1))
        decades = [float(10**k) for k in range(len(str(top)))]
        sweep = Sweep((*decades, math.inf), (PAPER_TAIL_PROPORTION,))
    asked = [(t, "") for t in sweep.t]
    asked += [(balancing.solve_threshold(counts, p), f"p = {p:g}") for p in sweep.p]
    return asked


def _least_threshold(counts: Counts, target: float) -> float:
    """The t at which the sum of min(count, t) is the target."""
    total = int(counts.sum())
    if target > total:
        raise ArgumentError(
            "{target_size}: there are only {total:,} matches, so no {target:,} pairs",
            total=total,
            target=target,
        )
    return balancing.threshold_with_sum(counts, target)


def _plan(
    counts: Counts,
    t: float,
    asked: str,
    pairs: tuple[float, float],
    texts: tuple[float, float],
) -> Plan:
    return Plan(
        t=t,
        asked=asked,
        p=balancing.tail_proportion(counts, t),
        head_entries=int(np.count_nonzero(counts >= t)),
        tail_entries=int(np.count_nonzero((counts > 0) & (counts < t))),
        draws=math.fsum(np.minimum(counts.astype(np.float64), t)),
        pairs=pairs,
        texts=texts,
    )


def _sorted(plans: list[Plan]) -> list[Plan]:
    return sorted(plans, key=lambda plan: (plan.t, plan.asked))


@dataclass(frozen=True)
class _SizeTask:
    """An index shard whose expected sizes at some thresholds are asked for."""

    folder: Folder
    position: int
    thresholds: tuple[float, ...]
    counts_digest: str  # so that a worker does not take another run's probabilities


def _expected_sizes(
    folder: Folder, engine: Engine, shards: int, thresholds: tuple[float, ...], *, show: bool
) -> list[tuple[float, float]]:
    """The expected numbers of kept pairs and texts for each threshold, in one pass."""
    digest = hashlib.blake2b(load_counts(folder).tobytes(), digest_size=16).hexdigest()
    tasks = [_SizeTask(folder, position, thresholds, digest) for position in range(shards)]
    found: dict[int, list[tuple[float, float]]] = {}
    with meter("plan", shards, "pairs", show=show) as progress:
        for position, (rows, sizes) in engine.map_shards(_shard_sizes, tasks):
            found[position] = sizes
            progress.advance(rows)
    return [
        (
            math.fsum(sizes[k][0] for sizes in found.values()),
            math.fsum(sizes[k][1] for sizes in found.values()),
        )
        for k in range(len(thresholds))
    ]


@lru_cache(maxsize=2)
def _probabilities(
    folder: Folder, thresholds: tuple[float, ...], counts_digest: str
) -> list[Probabilities]:
    del counts_digest  # of the key
    counts = load_counts(folder)
    return [balancing.keep_probabilities(counts, t) for t in thresholds]


def _shard_sizes(task: _SizeTask) -> tuple[int, list[tuple[float, float]]]:
    keep_probs = _probabilities(task.folder, task.thresholds, task.counts_digest)
    parts: list[list[tuple[float, float]]] = [[] for _ in keep_probs]
    rows = 0
    with open_made(task.folder, index_file_name(task.position)) as file:
        for batch in read_index(file):
            rows += batch.batch.num_rows
            texts, ids = batch.text_offsets, batch.entry_ids
            pairs = texts[batch.pair_offsets]
            for part, probs in zip(parts, keep_probs, strict=True):
                part.append(
                    (
                        float(balancing.pair_keep_probabilities(pairs, ids, probs).sum()),
                        float(balancing.pair_keep_probabilities(texts, ids, probs).sum()),
                    )
                )
    return rows, [(math.fsum(p for p, _ in part), math.fsum(t for _, t in part)) for part in parts]


def as_json(plans: Sequence[Plan]) -> list[dict[str, object]]:
    """Plans as plain JSON values; an infinite threshold is the string "inf"."""
    return [asdict(plan) | {"t": "inf" if math.isinf(plan.t) else plan.t} for plan in plans]
