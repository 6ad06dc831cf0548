"""Who computes among the tasks of an engine's threads: one waits for the disk, another begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Condition

from metacurate.runtime.engine import Result, Task

_CORES: ContextVar[Cores | None] = ContextVar("_CORES", default=None)


class Cores:
    """So many tasks compute at a time."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._changed = Condition()

    def run(self, function: Callable[[Task], Result], task: Task) -> Result:
        """What a function gives for a task, once a core is free."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0)
            self._free -= 1
        _CORES.set(self)
        try:
            return function(task)
        finally:
            self._add(1)

    def _add(self, cores: int) -> None:
        with self._changed:
            self._free += cores
            self._changed.notify()


@contextmanager
def waiting() -> Iterator[None]:
    """The block waits for something and computes nothing: another task has the core meanwhile.

    What follows goes on at once, be there one too many for a moment.
    """
    cores = _CORES.get()
    if cores is None:
        yield
        return
    cores._add(1)
    try:
        yield
    finally:
        cores._add(-1)
