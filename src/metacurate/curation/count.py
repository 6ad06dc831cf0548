"""The count stage: how often each entry matches, as sums of partial counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metacurate.curation.balancing import Counts, add_counts
from metacurate.curation.layout import COUNT, COUNTS_FILE, index_file_name, load_counts, matched_run
from metacurate.curation.match_index import read_index
from metacurate.runtime.arrays import load_array, save_array
from metacurate.runtime.manifest import Stage, Statistics, begin, finish, shard_name
from metacurate.runtime.run import Run
from metacurate.runtime.stage import run_shards
from metacurate.runtime.storage import Folder

# Partial counts are sums over this many shards: few enough to add up in one place, even for the
# hundred thousand shards of all of CommonCrawl. A small run has at least so many partials, so that
# there is something to count for each core.
SHARDS_PER_PARTIAL = 64
LEAST_PARTIALS = 8


@dataclass(frozen=True)
class CountTask:
    """A range of index shards (or curated shards) whose entries are to be counted."""

    folder: Folder
    position: int
    shards: range
    entries: int


def count(run: Run) -> Counts:
    """Count the entries over the index; writes ``counts.npy``. Returns uint64[entries]."""
    shards, entries = matched_run(run.folder)
    totals = begin(run.folder, COUNT, {}, shards=partials(shards), overwrite=run.overwrite)
    if totals is None:
        counts = sum_partials(run, COUNT, count_index_shards, "counts", shards, entries)
        save_array(run.folder, COUNTS_FILE, counts)
        finish(
            run.folder,
            COUNT,
            {
                "entries": entries,
                "entries_matched": int(np.count_nonzero(counts)),
                "match_counts": int(counts.sum()),
            },
        )
    return load_counts(run.folder)


def partials(shards: int) -> int:
    """How many partial counts there are for so many shards."""
    return math.ceil(shards / _shards_per_partial(shards))


def _shards_per_partial(shards: int) -> int:
    return max(1, min(SHARDS_PER_PARTIAL, shards // LEAST_PARTIALS))


def sum_partials(
    run: Run,
    stage: Stage,
    function: Callable[[CountTask], Statistics],
    name: str,
    shards: int,
    entries: int,
) -> Counts:
    """Run a counting function over groups of shards and add up what it leaves in ``state/name``."""
    group = _shards_per_partial(shards)
    tasks = [
        CountTask(run.folder, i, range(first, min(first + group, shards)), entries)
        for i, first in enumerate(range(0, shards, group))
    ]
    run_shards(
        run.folder, stage, function, tasks, run.engine,
        unit="match_counts", show_progress=run.show_progress,
    )  # fmt: skip
    total = np.zeros(entries, np.uint64)
    for task in tasks:
        total += load_array(run.folder, partial_file(name, task.position))
    return total


def partial_file(name: str, position: int) -> str:
    return f"state/{name}/{shard_name(position)}.npy"


def count_index_shards(task: CountTask) -> Statistics:
    """Count the entries of some index shards into one partial."""
    counts = np.zeros(task.entries, np.uint64)
    for position in task.shards:
        with task.folder.open(index_file_name(position)) as file:
            for batch in read_index(file):
                add_counts(counts, batch.entry_ids)
    save_array(task.folder, partial_file("counts", task.position), counts)
    return {"match_counts": int(counts.sum())}
