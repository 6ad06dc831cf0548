"""Keeps out of this program's own processes what other packages import only if it is installed.

Arrow asks for pandas when it makes its first array, Numba for SciPy when it is imported: half a
second of every process, for nothing that is used here. A process that is somebody else's (a
notebook) is left as it is.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_is_own = False
# Of Arrow's allocator (mimalloc), when Arrow is imported: it keeps what is freed, as
# ``engines.local.keep_freed_memory`` has glibc do.
KEEP_ARROW_MEMORY = ("MIMALLOC_PURGE_DELAY", "-1")
# New objects until Python looks for circles among them: its 700 mean some hundred looks while
# modules are imported, a tenth of that time.
OBJECTS_PER_LOOK = 50_000


def own_process() -> None:
    """Say that this process does nothing but run this program."""
    global _is_own  # noqa: PLW0603  (of the process)
    _is_own = True
    os.environ.setdefault(*KEEP_ARROW_MEMORY)
    gc.set_threshold(OBJECTS_PER_LOOK)
    # Python looks for circles among all modules when it ends: a quarter of a second. What they hold
    # goes with the process anyway.
    atexit.register(gc.freeze)


def is_own_process() -> bool:
    """Whether this process does nothing but run this program."""
    return _is_own


def import_without() -> None:
    """In a process of its own: have Arrow and Numba look for pandas and SciPy, and find none.

    Both can be imported afterwards, by what users add: Arrow then knows of pandas at once. Numba
    goes on without SciPy's BLAS where it has loops of its own.
    """
    if not _is_own:
        return
    with _hidden("scipy.linalg"):
        import numba.np.arraymath  # noqa: F401
    import pyarrow as pa

    if "pandas" not in sys.modules:
        with _hidden("pandas"):
            pa.array([])  # asks
        sys.meta_path.insert(0, _TellArrow())


class _Missing(MetaPathFinder):
    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name == self._name:
            raise ModuleNotFoundError(f"{name} is not looked for", name=name)
        return None


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    finder = _Missing(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _TellArrow(MetaPathFinder):
    """Has Arrow look for pandas again once somebody has imported it."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> Any:
        if name != "pandas":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                import pyarrow as pa

                run(module)
                pa.table({}).to_pandas()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
