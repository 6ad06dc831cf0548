"""Runs a function on untrusted items in a child process: an item can cost no more than itself.

Native parsers may crash or take forever on hostile content, which no exception handler catches.
The child gets items in batches and answers one by one; it has a limit of CPU time for each item and
one of memory, set with the kernel, which ends the child beyond them. The item that it had not
answered then is lost, and a new child goes on after it.
"""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CPU_SECONDS_PER_ITEM = 30.0
MAX_MEMORY_BYTES = 8 << 30


class Isolated(Generic[Item, Result]):
    """A module-level function that runs in a child process; a context manager.

    The function's own exceptions are programming errors: they end the child, and the item is lost.
    """

    def __init__(
        self, function: Callable[[Item], Result], *, cpu_seconds: float = CPU_SECONDS_PER_ITEM
    ) -> None:
        self._function = function
        self._cpu_seconds = cpu_seconds
        self._process: BaseProcess | None = None
        self._pipe: Any = None

    def map(self, items: Sequence[Item]) -> list[Result | None]:
        """The result of each item, in order; None for one that crashed or stalled."""
        results: list[Result | None] = []
        while len(results) < len(items):
            self._start()
            try:
                self._pipe.send(items[len(results) :])
                while len(results) < len(items):
                    results.append(self._pipe.recv())
            except (EOFError, BrokenPipeError, ConnectionResetError):
                self.close()
                results.append(None)
        return results

    def _start(self) -> None:
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._function, self._cpu_seconds), daemon=True
        )
        process.start()
        self._process = process
        theirs.close()
        try:
            self._pipe.recv()
        except EOFError:
            self.close()
            raise RuntimeError("the parser's process did not start") from None

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process = None

    def __enter__(self) -> Isolated[Item, Result]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _serve(pipe: Connection, function: Callable[[Any], Any], cpu_seconds: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The kernel's own action on this signal ends the process, inside native code too.
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    pipe.send(None)
    while True:
        try:
            items = pipe.recv()
        except (EOFError, OSError):
            return
        for item in items:
            signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds)
            result = function(item)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            pipe.send(result)
