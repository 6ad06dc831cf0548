"""The count stage: how often each entry matches, as sums of partial counts, or as given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from metacurate.curation.balancing import Counts, add_counts
from metacurate.curation.layout import (
    COUNT,
    COUNTS_FILE,
    index_file_name,
    load_counts,
    matched_run,
    run_blocks,
)
from metacurate.curation.match_index import read_index
from metacurate.errors import ArgumentError
from metacurate.metadata.store import Block
from metacurate.runtime.made import load_array, open_made, save_array
from metacurate.runtime.manifest import Statistics, shard_name
from metacurate.runtime.merge import MergeTask, merge_many
from metacurate.runtime.run import Run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder, read_ahead

# Partial counts are sums over this many shards. A small run has at least so many partials, so that
# there is something to count for each core.
SHARDS_PER_PARTIAL = 64
LEAST_PARTIALS = 8
# More partials than these are added up by tasks of so many first.
MOST_PARTIALS = 256
PARTIALS_PER_SUM = 64
# A partial has the entries that occur, by id: most of many languages' do not.
PARTIAL = np.dtype([("entry", "<u4"), ("count", "<u8")])


@dataclass(frozen=True)
class CountTask:
    """A range of index shards (or curated shards) whose entries are to be counted."""

    folder: Folder
    position: int
    shards: range
    blocks: tuple[Block, ...]

    @property
    def entries(self) -> int:
        """The number of entries."""
        return self.blocks[-1].stop


def count(run: Run, given: Counts | None = None) -> Counts:
    """Count the entries over the index; writes ``counts.npy``. Returns uint64[entries].

    ``given`` uint64[entries]: the counts of another pool (the one that this is a part of), to be
    balanced by instead; nothing is counted then.
    """
    shards, entries = matched_run(run.folder)
    config, tasks = {}, count_tasks(run.folder, shards)
    if given is not None:
        given = _fitting(given, entries)
        digest = hashlib.blake2b(given.tobytes(), digest_size=16).hexdigest()
        config, tasks = {"given": digest}, []

    def totals(_: list[Statistics]) -> Statistics:
        counts = sum_partials(run, tasks, "counts") if given is None else given
        save_array(run.folder, COUNTS_FILE, counts)
        return {
            "entries": entries,
            "entries_matched": int(np.count_nonzero(counts)),
            "match_counts": int(counts.sum()),
        }

    run_stage(
        run, COUNT, config, tasks, count_index_shards,
        unit="matches", counted="match_counts", totals=totals,
    )  # fmt: skip
    return load_counts(run.folder)


def _fitting(given: Counts, entries: int) -> Counts:
    if given.shape != (entries,):
        raise ArgumentError(
            "{counts} must be of the metadata's {entries:,} entries, not of {number:,}",
            entries=entries,
            number=given.size,
        )
    return np.ascontiguousarray(given, "<u8")


def count_tasks(folder: Folder, shards: int) -> list[CountTask]:
    """Groups of shards, each to be counted into one partial."""
    blocks = run_blocks(folder)
    group = max(1, min(SHARDS_PER_PARTIAL, shards // LEAST_PARTIALS))
    return [
        CountTask(folder, i, range(first, min(first + group, shards)), blocks)
        for i, first in enumerate(range(0, shards, group))
    ]


def save_partial(folder: Folder, name: str, counts: Counts) -> None:
    """Write what some shards add to the counts, uint64[entries]."""
    there = np.flatnonzero(counts)
    array = np.empty(there.size, PARTIAL)
    array["entry"], array["count"] = there, counts[there]
    save_array(folder, name, array)


def sum_partials(run: Run, tasks: Sequence[CountTask], name: str) -> Counts:
    """The sum of what the tasks left in ``state/name``, uint64[entries].

    Many are added up in tasks first, until few enough are left for this process.
    """
    entries = tasks[0].entries
    names = [partial_file(name, task.position) for task in tasks]
    names = merge_many(
        run, names, partial(_write_sum, entries),
        lambda level, position: partial_file(f"{name}/sums-{level}", position),
        most=MOST_PARTIALS, at_a_time=PARTIALS_PER_SUM,
    )  # fmt: skip
    return add_up(run.folder, names, entries)


def _write_sum(entries: int, task: MergeTask) -> None:
    save_partial(task.folder, task.merged, add_up(task.folder, task.parts, entries))


def add_up(folder: Folder, names: Sequence[str], entries: int) -> Counts:
    """The sum of partials by their names, uint64[entries]."""
    total = np.zeros(entries, np.uint64)
    for array in read_ahead(folder, lambda name: load_array(folder, name), names):
        total[array["entry"]] += array["count"]
    return total


def partial_file(name: str, position: int) -> str:
    return f"state/{name}/{shard_name(position)}.npy"


def count_index_shards(task: CountTask) -> Statistics:
    """Count the entries of some index shards into one partial."""
    counts = np.zeros(task.entries, np.uint64)
    for position in task.shards:
        with open_made(task.folder, index_file_name(position)) as file:
            for batch in read_index(file, only_matches=True):
                add_counts(counts, batch.entry_ids)
    save_partial(task.folder, partial_file("counts", task.position), counts)
    return {"match_counts": int(counts.sum())}
