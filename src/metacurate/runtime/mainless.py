"""Starting processes that do not import the caller's main module.

What workers run is importable by name: the main module is of no use to them, and running it again
(a script without a main guard, standard input, a notebook's kernel) would start the run within the
run, or fail.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
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
