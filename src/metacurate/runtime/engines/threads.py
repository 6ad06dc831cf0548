"""The default engine of compiled stages on few cores: threads of this process.

Worker processes take a second of the processor to start, and each has libraries and tables of its
own. Shard functions that are nearly always in compiled code, which leaves Python's lock, do as well
in threads; among many of them, what only one at a time can do would make the others wait.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Lock, get_ident

from metacurate.beside import is_own_process
from metacurate.runtime.cores import Cores
from metacurate.runtime.engine import Result, Task, as_they_finish
from metacurate.runtime.engines.local import keep_freed_memory

MOST_THREADS = 4


class _TaskEnded(BaseException):
    """Raised within the tasks that are under way when the run ends early."""


class ThreadEngine:
    """Runs tasks in ``workers`` threads."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._busy: set[int] = set()
        self._lock = Lock()

    def __enter__(self) -> ThreadEngine:
        if is_own_process():
            keep_freed_memory()
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def map_shards(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """See ``metacurate.runtime.engine.Engine``; there is nobody who could try again."""
        cores = Cores(self.workers)
        # One more than compute at a time: it begins while another waits for the disk.
        threads = self.workers + 1
        with ThreadPoolExecutor(threads) as pool:
            under_way: dict[Future[Result], int] = {}

            def submit(position: int) -> Future[Result]:
                # Each task is in the same run as its caller.
                return pool.submit(self._run, cores, copy_context().run, function, tasks[position])

            try:
                yield from as_they_finish(submit, range(len(tasks)), 2 * threads, under_way)
            except BaseException:
                for future in under_way:
                    future.cancel()
                self._end_tasks()
                raise

    def _run(
        self,
        cores: Cores,
        call: Callable[..., Result],
        function: Callable[[Task], Result],
        task: Task,
    ) -> Result:
        with self._lock:
            self._busy.add(get_ident())
        try:
            return call(cores.run, function, task)
        finally:
            with self._lock:
                self._busy.discard(get_ident())

    def _end_tasks(self) -> None:
        """End what is under way at its next step, as Ctrl-C ends what the main thread does."""
        with self._lock:
            for thread in self._busy:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(_TaskEnded)
                )
