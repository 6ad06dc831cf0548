"""The default engine: worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

from metacurate.engines import Result, Task
from metacurate.errors import UserError

# A worker that dies (out of memory, kill -9) takes the whole pool of processes with it; the tasks
# then under way are tried again in a new pool. A task that was under way at this many deaths stops
# the run.
MAX_DEATHS_PER_TASK = 3


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class LocalEngine:
    """Runs tasks in ``workers`` processes; with one worker, or one task, in this process."""

    workers: int

    def map_shards(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """See :class:`metacurate.engines.Engine`."""
        if self.workers == 1 or len(tasks) <= 1:
            for position, task in enumerate(tasks):
                yield position, function(task)
            return
        remaining = dict(enumerate(tasks))
        deaths = dict.fromkeys(remaining, 0)
        while remaining:
            under_way: dict[Future[Result], int] = {}
            waiting = iter(list(remaining))
            # "spawn": a forked child would inherit locks held by Arrow's and Numba's threads.
            with ProcessPoolExecutor(
                min(self.workers, len(remaining)), multiprocessing.get_context("spawn")
            ) as pool:
                try:
                    while True:
                        # Only a few tasks wait in the pool's queue: bounded memory, and after a
                        # death only these few count as suspects.
                        while len(under_way) < 2 * self.workers:
                            upcoming = next(waiting, None)
                            if upcoming is None:
                                break
                            under_way[pool.submit(function, tasks[upcoming])] = upcoming
                        if not under_way:
                            break
                        finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                        for future in finished:
                            result = future.result()
                            position = under_way.pop(future)
                            del remaining[position]
                            yield position, result
                except BrokenProcessPool:
                    for position in under_way.values():
                        deaths[position] += 1
                        if deaths[position] >= MAX_DEATHS_PER_TASK:
                            raise UserError(
                                f"a worker process died {MAX_DEATHS_PER_TASK} times while working "
                                f"on shard {position} (out of memory?); run the same command again "
                                "with fewer --workers or more memory: it resumes"
                            ) from None
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
