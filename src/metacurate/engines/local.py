"""The default engine: worker processes on this machine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

import pyarrow as pa

from metacurate.engines import Result, Task
from metacurate.errors import UserError

# A worker that dies (out of memory, kill -9) takes the whole pool of processes with it; the tasks
# then under way are tried again in a new pool. A task that was under way at this many deaths stops
# the run.
MAX_DEATHS_PER_TASK = 3


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """Runs tasks in ``workers`` processes; with one worker, or one task, in this process.

    The processes start with the first call that needs them and serve all later ones until the
    engine is closed (use it in a ``with`` block).
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the worker processes; tasks not yet started are dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def map_shards(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """See :class:`metacurate.engines.Engine`."""
        if self.workers == 1 or len(tasks) <= 1:
            for position, task in enumerate(tasks):
                yield position, function(task)
            return
        deaths = dict.fromkeys(range(len(tasks)), 0)
        remaining = set(deaths)
        while remaining:
            under_way: dict[Future[Result], int] = {}
            waiting = iter(sorted(remaining))
            try:
                while True:
                    # Only a few tasks wait in the pool's queue: bounded memory, and after a
                    # death only these few count as suspects.
                    while len(under_way) < 2 * self.workers:
                        upcoming = next(waiting, None)
                        if upcoming is None:
                            break
                        under_way[self._submit(function, tasks[upcoming])] = upcoming
                    if not under_way:
                        break
                    finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in finished:
                        result = future.result()
                        position = under_way.pop(future)
                        remaining.discard(position)
                        yield position, result
            except BrokenProcessPool:
                self.close()
                for position in under_way.values():
                    deaths[position] += 1
                    if deaths[position] >= MAX_DEATHS_PER_TASK:
                        raise UserError(
                            f"a worker process died {MAX_DEATHS_PER_TASK} times while shard "
                            f"{position} was under way (out of memory?); run the same command "
                            "again with fewer --workers or more memory: it resumes"
                        ) from None
            except BaseException:
                self.close()
                raise

    def _submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        if self._pool is None:
            # "spawn": a forked child would inherit locks held by Arrow's and Numba's threads.
            self._pool = ProcessPoolExecutor(
                self.workers,
                multiprocessing.get_context("spawn"),
                initializer=pa.set_cpu_count,
                initargs=(max(1, available_cores() // self.workers),),
            )
        return self._pool.submit(function, task)
