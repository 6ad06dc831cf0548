"""Turns at the cores: while a task of an engine's threads waits for the disk, another may begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Condition

from metacurate.runtime.engine import Result, Task

_TURNS: ContextVar[Turns | None] = ContextVar("_TURNS", default=None)


class Turns:
    """So many tasks compute at a time."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._changed = Condition()

    def run(self, function: Callable[[Task], Result], task: Task) -> Result:
        """What a function gives for a task, when it is its turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._free > 0)
            self._free -= 1
        _TURNS.set(self)
        try:
            return function(task)
        finally:
            self._add(1)

    def _add(self, turns: int) -> None:
        with self._changed:
            self._free += turns
            self._changed.notify()


@contextmanager
def waiting() -> Iterator[None]:
    """The block waits for something and computes nothing: another task has the turn meanwhile.

    It goes on at once, even if there is one more than its turn then: what has been begun ends.
    """
    turns = _TURNS.get()
    if turns is None:
        yield
        return
    turns._add(1)
    try:
        yield
    finally:
        turns._add(-1)
