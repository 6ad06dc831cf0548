"""Many files made into few in tasks, so that no process alone reads them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from metacurate.runtime.run import Run
from metacurate.runtime.storage import Folder


@dataclass(frozen=True)
class MergeTask:
    """Files of a folder to make one of."""

    folder: Folder
    parts: tuple[str, ...]
    merged: str


def merge_many(
    run: Run,
    names: list[str],
    merge: Callable[[MergeTask], None],
    place: Callable[[int, int], str],
    *,
    most: int,
    at_a_time: int,
) -> list[str]:
    """The names of at most ``most`` files of a run that hold what the given ones hold, in order.

    ``merge`` makes one of ``at_a_time``; ``place`` names its file by its level (from 1) and its
    number.
    """
    level = 0
    while len(names) > most:
        level += 1
        tasks = [
            MergeTask(run.folder, tuple(names[first : first + at_a_time]), place(level, position))
            for position, first in enumerate(range(0, len(names), at_a_time))
        ]
        for _ in run.engine.map_shards(merge, tasks):
            pass
        names = [task.merged for task in tasks]
    return names
