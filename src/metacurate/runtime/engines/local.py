"""The default engine: worker processes on this machine."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pyarrow as pa

from metacurate.beside import KEEP_ARROW_MEMORY
from metacurate.runtime.children import end_with_parent, without_main
from metacurate.runtime.engine import (
    MAX_DEATHS_PER_TASK,
    Result,
    Task,
    as_they_finish,
    died_too_often,
)

# Workers are forked from a server process that has done nothing but import a module: they start in
# milliseconds and share its memory. It starts no Python thread; those of libraries (OpenBLAS,
# jemalloc) mind forks. A worker forked from this process would inherit locks held by Arrow's and
# Numba's threads. On macOS system libraries do not survive a fork.
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"


# Of glibc's malloc.h; arrays over the first size (the largest that it takes) go back at once.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_ARRAY_BYTES, KEPT_BYTES = 32 << 20, 64 << 20
OWN = "metacurate.runtime.engines.own"


def _forget_server() -> None:
    """In a forked child: the server that this process inherited is its parent's, not its own."""
    server: Any = multiprocessing.forkserver._forkserver
    if (alive := server._forkserver_alive_fd) is not None:
        os.close(alive)  # else the server would live as long as this process
        server.__init__()


if START_METHOD == "forkserver":
    os.register_at_fork(after_in_child=_forget_server)


@contextlib.contextmanager
def _set_if_unset(variable: tuple[str, str]) -> Iterator[None]:
    """For the block, have an environment variable that the user has not set."""
    name, value = variable
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalEngine:
    """Runs tasks in ``workers`` processes (by default one for each core).

    With one worker, or one task, the work is done in this process. Otherwise the processes start
    with the first call that needs them and serve all later ones until the engine is closed (use it
    in a ``with`` block).
    """

    def __init__(self, workers: int | None = None, preload: str | None = None) -> None:
        # A worker of somebody's own process pool may have no children: it does the work itself.
        alone = multiprocessing.current_process().daemon
        self.workers = 1 if alone else workers or available_cores()
        self._preload = preload
        self._pool: ProcessPoolExecutor | None = None
        self._context = _Context()

    def __enter__(self) -> LocalEngine:
        if self.workers > 1 and START_METHOD == "forkserver":
            # Already now: the server's imports overlap with what comes before the first tasks.
            self._context.set_forkserver_preload([OWN, *([self._preload] if self._preload else [])])
            with _set_if_unset(KEEP_ARROW_MEMORY):
                multiprocessing.forkserver.ensure_running()
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
        """See ``metacurate.runtime.engine.Engine``."""
        if self.workers == 1 or len(tasks) <= 1:
            for position, task in enumerate(tasks):
                yield position, function(task)
            return
        deaths = dict.fromkeys(range(len(tasks)), 0)
        remaining = set(deaths)
        while remaining:
            under_way: dict[Future[Result], int] = {}
            # Only a few tasks wait in the pool's queue: after a death only these are suspects.
            results = as_they_finish(
                lambda position: self._submit(function, tasks[position]),
                sorted(remaining), 2 * self.workers, under_way,
            )  # fmt: skip
            try:
                for position, result in results:
                    remaining.discard(position)
                    yield position, result
            except BrokenProcessPool:
                # One death ends the whole pool of processes: what was under way is tried again.
                self.close()
                for position in under_way.values():
                    deaths[position] += 1
                    if deaths[position] >= MAX_DEATHS_PER_TASK:
                        raise died_too_often(position) from None
            except BaseException:
                self.close()
                raise

    def _submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self.workers,
                self._context,
                initializer=_start_worker,
                initargs=(max(1, available_cores() // self.workers), dict(os.environ)),
            )
        return self._pool.submit(function, task)


_Base: Any = type(multiprocessing.get_context(START_METHOD))


class _Process(_Base.Process):  # type: ignore[misc]
    """A worker that does not import the caller's main module."""

    @staticmethod
    def _Popen(process: Any) -> Any:
        with without_main():
            return _Base.Process._Popen(process)


class _Context(_Base):  # type: ignore[misc]
    """Starts ``_Process``."""

    Process = _Process


def _start_worker(arrow_threads: int, environment: dict[str, str]) -> None:
    os.environ.clear()  # it is as old as the server
    os.environ.update(environment)
    # Ctrl-C reaches the workers too: a KeyboardInterrupt there would print a traceback.
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, _: os._exit(128 + number))
    pa.set_cpu_count(arrow_threads)
    keep_freed_memory()
    end_with_parent()


def keep_freed_memory() -> None:
    """Have glibc keep the memory of large arrays for the next ones instead of returning it.

    NumPy frees several such arrays for each batch; each time the kernel takes the pages away and
    clears others: a tenth of the processor's time.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_ARRAY_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
