"""Child processes: they do not import the caller's main module, and end when their parent does.

What workers run is importable by name: the main module is of no use to them, and running it again
(a script without a main guard, standard input, a notebook's kernel) would start the run within the
run, or fail.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock, Thread
from types import ModuleType

# Two threads that start processes at once must not take each other's stand-in for the real one.
_LOCK = RLock()


@contextmanager
def without_main() -> Iterator[None]:
    """Processes that this thread starts in the block get an empty main module."""
    with _LOCK:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def end_with_parent() -> None:
    """End this worker as soon as the process that started it is gone, by whatever way.

    The run's folder is then free for the next run; nobody else may still write to it, or go on
    with work that nobody takes.
    """
    Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
