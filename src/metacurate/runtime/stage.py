"""Stages: pure functions over shards, with a manifest to resume from and to refuse mix-ups by.

A run's folder holds ``manifest.json`` with one section per stage: its configuration (options, input
fingerprints, versions, seed), its state, its per-shard statistics and their totals. While a stage
runs, each finished shard leaves ``state/STAGE/part-NNNNNN.json`` (its statistics), written after
the shard's own files: its presence is what "done" means, so a killed run loses only shards under
way. Nothing in these files depends on time, workers or restarts.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic

from metacurate.errors import UserError
from metacurate.runtime.engine import Engine, Task
from metacurate.runtime.manifest import Stage, Statistics
from metacurate.runtime.progress import meter
from metacurate.runtime.storage import LOCK, TEMPORARY_PREFIX, Folder, is_local, local_path

STATE_READERS = 32


@dataclass(frozen=True)
class _RecordedShard(Generic[Task]):
    """A task with the place where its statistics go."""

    function: Callable[[Task], Statistics]
    task: Task
    folder: Folder
    state: str


def _run_recorded(shard: _RecordedShard[Task]) -> Statistics:
    statistics = shard.function(shard.task)
    shard.folder.write_json(shard.state, statistics)
    return statistics


def run_shards(
    folder: Folder,
    stage: Stage,
    function: Callable[[Task], Statistics],
    tasks: Sequence[Task],
    engine: Engine,
    *,
    unit: str,
    parts: str = "shards",
    show_progress: bool = True,
) -> list[Statistics]:
    """Run a stage's shard function over those tasks that are not done; statistics in task order.

    ``function`` writes the shard's files through ``Folder.create`` and returns plain JSON
    statistics; the value under the key ``unit`` (for example ``"texts"``) drives the progress rate,
    and ``parts`` is what progress calls the tasks.
    """
    states = [stage.shard_state(position) for position in range(len(tasks))]
    there = set(folder.list(f"state/{stage.name}"))
    # Many at a time: object stores take long to answer, and a large run has 100,000 shards.
    with ThreadPoolExecutor(1 if is_local(folder.url) else STATE_READERS) as readers:
        known = [p for p, s in enumerate(states) if s in there]
        read = readers.map(folder.read_json, (states[p] for p in known))
        done = dict(zip(known, read, strict=True))
    missing = [p for p in range(len(tasks)) if p not in done]
    calls = [_RecordedShard(function, tasks[p], folder, states[p]) for p in missing]
    with meter(stage.name, len(tasks), unit, parts=parts, show=show_progress) as progress:
        progress.advance(items=0, shards=len(done))
        for position, statistics in engine.map_shards(_run_recorded, calls):
            done[missing[position]] = statistics
            progress.advance(items=int(statistics.get(unit, 0)))
    return [done[position] for position in range(len(tasks))]


@contextmanager
def exclusive(folder: Folder) -> Iterator[None]:
    """Hold a run's folder for this process; UserError naming the holder if another one has it.

    Unfinished files that a killed run left behind are removed.

    The lock is the kernel's (it ends with the process, kill -9 included). Object stores have no
    locks: there the caller sees to it.
    """
    if not is_local(folder.url):
        yield
        return
    import fcntl

    path = local_path(folder.url)
    path.mkdir(parents=True, exist_ok=True)
    with (path / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise UserError(
                f"{folder.url} is in use by {holder}; wait for it to end or use another --out"
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        for leftover in path.rglob(f"{TEMPORARY_PREFIX}*"):
            leftover.unlink(missing_ok=True)  # of a run that was killed while it wrote
        try:
            yield
        finally:
            lock.truncate(0)
