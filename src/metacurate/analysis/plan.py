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
from dataclasses import asdict, dataclass, replace
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
    run_blocks,
)
from metacurate.curation.match_index import read_index
from metacurate.curation.settings import ANY, REFERENCE, Balance, check_p, check_t, json_number
from metacurate.curation.thresholds import Thresholds, given_thresholds, solve_thresholds
from metacurate.errors import ArgumentError
from metacurate.metadata.store import Block
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
    sizes; if there are none, a sweep by default. The rest is as of ``Balance``."""

    t: tuple[float, ...] = ()
    p: tuple[float, ...] = ()
    target_size: tuple[int, ...] = ()
    p_rule: str | None = None
    reference: str = REFERENCE
    t_of: tuple[tuple[str, float], ...] = ()
    choose_text: str = ANY

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

    def settings(self, **aim: float) -> Balance:
        """The settings of one of the thresholds."""
        return Balance(
            p_rule=self.p_rule, reference=self.reference, t_of=self.t_of,
            choose_text=self.choose_text, **aim,  # type: ignore[arg-type]
        )  # fmt: skip

    def swept(self, counts: Counts) -> Sweep:
        """Itself, or the sweep by default over some counts."""
        if not self.empty:
            return self
        top = int(counts.max(initial=1))
        decades = [float(10**k) for k in range(len(str(top)))]
        return replace(self, t=(*decades, math.inf), p=(PAPER_TAIL_PROPORTION,))


@dataclass(frozen=True)
class LanguagePlan:
    """A language's own threshold and tail proportion, its head and tail entries and its draws."""

    language: str
    t: float
    p: float
    head_entries: int
    tail_entries: int
    draws: float


@dataclass(frozen=True)
class Plan:
    """What a threshold would keep.

    ``asked``: what it was solved for. ``p``: the tail proportion. ``draws``: the expected number
    of successful draws, ``sum(min(count, t))``. ``pairs`` and ``texts``: (least, most) expected to
    be kept, equal where they are exact. With several languages ``t`` and ``p`` are those of the
    reference language, and ``languages`` has each one's own.
    """

    t: float
    asked: str
    p: float
    head_entries: int
    tail_entries: int
    draws: float
    pairs: tuple[float, float]
    texts: tuple[float, float]
    languages: tuple[LanguagePlan, ...] = ()


def plan_run(run: Run, sweep: Sweep) -> list[Plan]:
    """Plans with exact expected sizes, from a counted run's index."""
    shards, _ = matched_run(run.folder)
    finished_section(run.folder, COUNT)
    counts, blocks = load_counts(run.folder), run_blocks(run.folder)
    engine = light_engine(run)
    sweep = sweep.swept(counts)

    def sizes(thresholds: Sequence[Thresholds]) -> list[tuple[float, float]]:
        return _expected_sizes(
            run.folder, engine, shards, tuple(thresholds), sweep.choose_text,
            show=run.show_progress,
        )  # fmt: skip

    def size(thresholds: Thresholds) -> float:
        return sizes([thresholds])[0][0]

    asked = _thresholds(counts, blocks, sweep)
    for target in sweep.target_size:
        settings = sweep.settings(target_size=target)
        asked.append((solve_thresholds(settings, counts, blocks, size), f"{target:,} pairs"))
    plans = []
    for (t, reason), (pairs, texts) in zip(asked, sizes([t for t, _ in asked]), strict=True):
        plans.append(_plan(counts, t, reason, (pairs, pairs), (texts, texts)))
    return _sorted(plans)


def plan_counts(
    counts: Counts, sweep: Sweep, blocks: tuple[Block, ...] | None = None
) -> list[Plan]:
    """Plans with bounds on the expected sizes, from entry counts alone.

    A target size gives the least t that could reach it: for one list, not for the ``blocks`` of
    several languages.
    """
    sweep = sweep.swept(counts)
    blocks = blocks or (Block(None, 0, counts.size),)
    asked = _thresholds(counts, blocks, sweep)
    for target in sweep.target_size:
        if blocks[0].language is not None:
            raise ArgumentError(
                "{target_size} needs a run's index where there are several languages"
            )
        t = _least_threshold(counts, target)
        asked.append((Thresholds(blocks, (t,)), f"{target:,} pairs (t at least)"))
    plans = []
    for thresholds, reason in asked:
        expected = np.minimum(counts.astype(np.float64), thresholds.by_entry)
        most = math.fsum(expected)
        # A pair may hold an entry's matches in many texts: there is no such bound below for pairs.
        texts = (float(expected.max(initial=0.0)), most)
        plans.append(_plan(counts, thresholds, reason, (0.0, most), texts))
    return _sorted(plans)


def _thresholds(
    counts: Counts, blocks: Sequence[Block], sweep: Sweep
) -> list[tuple[Thresholds, str]]:
    """The thresholds that the counts alone give, with what was asked for."""
    asked = [(given_thresholds(sweep.settings(t=t), counts, blocks), "") for t in sweep.t]
    for p in sweep.p:
        asked.append((given_thresholds(sweep.settings(p=p), counts, blocks), f"p = {p:g}"))
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
    thresholds: Thresholds,
    asked: str,
    pairs: tuple[float, float],
    texts: tuple[float, float],
) -> Plan:
    parts = [
        _language_plan(block, counts[block.first : block.stop], t)
        for block, t in zip(thresholds.blocks, thresholds.t, strict=True)
    ]
    reference = parts[thresholds.reference]
    return Plan(
        t=reference.t,
        asked=asked,
        p=reference.p,
        head_entries=sum(part.head_entries for part in parts),
        tail_entries=sum(part.tail_entries for part in parts),
        draws=math.fsum(part.draws for part in parts),
        pairs=pairs,
        texts=texts,
        languages=tuple(parts) if thresholds.blocks[0].language is not None else (),
    )


def _language_plan(block: Block, counts: Counts, t: float) -> LanguagePlan:
    return LanguagePlan(
        language=block.language or "",
        t=t,
        p=balancing.tail_proportion(counts, t),
        head_entries=int(np.count_nonzero(counts >= t)),
        tail_entries=int(np.count_nonzero((counts > 0) & (counts < t))),
        draws=math.fsum(np.minimum(counts.astype(np.float64), t)),
    )


def _sorted(plans: list[Plan]) -> list[Plan]:
    return sorted(plans, key=lambda plan: (plan.t, plan.asked))


@dataclass(frozen=True)
class _SizeTask:
    """An index shard whose expected sizes at some thresholds are asked for."""

    folder: Folder
    position: int
    thresholds: tuple[Thresholds, ...]
    choose_text: str
    counts_digest: str  # so that a worker does not take another run's probabilities


def _expected_sizes(
    folder: Folder,
    engine: Engine,
    shards: int,
    thresholds: tuple[Thresholds, ...],
    choose_text: str,
    *,
    show: bool,
) -> list[tuple[float, float]]:
    """The expected numbers of kept pairs and texts for each threshold, in one pass."""
    digest = hashlib.blake2b(load_counts(folder).tobytes(), digest_size=16).hexdigest()
    tasks = [
        _SizeTask(folder, position, thresholds, choose_text, digest) for position in range(shards)
    ]
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
    folder: Folder, thresholds: tuple[Thresholds, ...], counts_digest: str
) -> list[Probabilities]:
    del counts_digest  # of the key
    counts = load_counts(folder)
    return [balancing.keep_probabilities(counts, t.by_entry) for t in thresholds]


def _shard_sizes(task: _SizeTask) -> tuple[int, list[tuple[float, float]]]:
    keep_probs = _probabilities(task.folder, task.thresholds, task.counts_digest)
    parts: list[list[tuple[float, float]]] = [[] for _ in keep_probs]
    rows = 0
    with open_made(task.folder, index_file_name(task.position)) as file:
        for batch in read_index(file):
            rows += batch.batch.num_rows
            offsets = batch.pair_offsets, batch.text_offsets
            for part, probs in zip(parts, keep_probs, strict=True):
                sizes = balancing.expected_sizes(*offsets, batch.entry_ids, probs, task.choose_text)
                part.append(sizes)
    return rows, [(math.fsum(p for p, _ in part), math.fsum(t for _, t in part)) for part in parts]


def as_json(plans: Sequence[Plan]) -> list[dict[str, object]]:
    """Plans as plain JSON values; an infinite threshold is the string "inf".

    ``languages``, by name, are there with metadata of several.
    """
    found = []
    for plan in plans:
        values = asdict(plan) | {"t": json_number(plan.t)}
        del values["languages"]
        if plan.languages:
            values["languages"] = {
                own.language: {
                    k: v for k, v in (asdict(own) | {"t": json_number(own.t)}).items()
                    if k != "language"
                }
                for own in plan.languages
            }  # fmt: skip
        found.append(values)
    return found
