"""The decorator of every compiled function: Numba's, with a cache on disk that is never stale.

Numba keys a function by the text of its own file, so it does not notice that something changed that
the function calls in another file. Here compiled code is kept in a folder whose name says what it
was made from: the content of all files of ``kernels``, compiler, its settings and processor. Other
content is another folder; those used least recently are removed. Where no folder can be made
(read-only installation, no home) each process compiles what it needs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba.core import caching
from numba.core.registry import cpu_target

from metacurate.beside import import_without
from metacurate.errors import UserError

KEPT_FOLDERS = 8
# Numba's settings (NUMBA_BOUNDSCHECK, ...) that make other code of the same source.
SETTINGS = ("BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "OPT", "SLP_VECTORIZE")
_PREFIX = "kernels-"
_SOURCES = Path(__file__).parent


class CannotCompile(UserError, ImportError):
    """The kernels cannot be imported (of the preloaded modules, forkserver ignores those)."""


if numba.config.DISABLE_JIT:
    raise CannotCompile(
        "NUMBA_DISABLE_JIT is set, but metacurate's kernels are written for Numba's compiler; "
        "unset it"
    )

import_without()


def _origin() -> str:
    """What compiled code comes from, as 32 hex digits: sources, compiler, settings, processor."""
    processor = cpu_target.target_context.codegen().magic_tuple()
    settings = [getattr(numba.config, name) for name in SETTINGS]
    compiler = (numba.__version__, llvmlite.__version__, np.__version__, settings, processor)
    digest = hashlib.sha256(repr(compiler).encode())
    for path in sorted(_SOURCES.glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def _parents() -> list[str]:
    """Where a folder may be: as Numba's setting says, beside the sources, in the user's cache."""
    shared = [
        numba.config.CACHE_DIR,
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
    ]
    first, last = (os.path.join(place, "metacurate") for place in shared)
    places = [first, str(_SOURCES / "__pycache__"), last]
    return [place for place in places if os.path.isabs(place)]


def _make(folder: str) -> bool:
    """Make a folder, or mark it as used; whether it can be written to."""
    try:
        is_new = not os.path.isdir(folder)
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        os.utime(folder)
    except OSError:
        return False
    if is_new:
        _remove_oldest(Path(folder).parent)
    return True


def _remove_oldest(parent: Path) -> None:
    """Keep ``KEPT_FOLDERS``. A process that uses one of the others compiles again."""
    with contextlib.suppress(OSError):
        folders = sorted(parent.glob(f"{_PREFIX}*"), key=lambda folder: folder.stat().st_mtime)
        for folder in folders[:-KEPT_FOLDERS]:
            shutil.rmtree(folder, ignore_errors=True)


def _find_folder() -> str | None:
    """The folder of compiled code: the first that can be written to, else the first to read."""
    folders = [os.path.join(parent, _PREFIX + _origin()) for parent in _parents()]
    usable = (folder for test in (_make, os.path.isdir) for folder in folders if test(folder))
    return next(usable, None)


FOLDER = _find_folder()
"""Where compiled code is kept; None if there is no place for it."""


def _file_name(function: Callable[..., Any]) -> str:
    module = function.__module__.rpartition(".")[2]
    return f"{module}.{function.__qualname__}.{sys.implementation.cache_tag}"


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    def __init__(self, function: Callable[..., Any]) -> None:
        self._py_file = function.__code__.co_filename

    def get_cache_path(self) -> str | None:
        return FOLDER

    def get_source_stamp(self) -> str:
        return ""  # the folder's name says it

    def get_disambiguator(self) -> str:
        return ""  # no two functions of a file have one name


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    def __init__(self, function: Callable[..., Any]) -> None:
        self._lineno = function.__code__.co_firstlineno
        self._locator = _Locator(function)
        self._filename_base = _file_name(function)


class _Files(caching.IndexDataCacheFile):  # type: ignore[misc]
    """Names a file by the signature: Numba's numbers may be the same of two processes at once."""

    def save(self, key: Any, data: Any) -> None:
        name = f"{self._index_name}.{hashlib.sha256(repr(key).encode()).hexdigest()[:32]}.nbc"
        self._save_data(name, data)
        self._save_index({**self._load_index(), key: name})


class _FunctionCache(caching.FunctionCache):  # type: ignore[misc]
    """A cache that is never a reason to fail: damaged files and full disks cost time alone."""

    _impl_class = _Implementation

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _Files(FOLDER, _file_name(function), "")

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged file: unpickling it raises almost anything
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


def njit(signature: str | None = None, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` without the GIL and with this cache; with a signature, compiled at once."""

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, **options)(function)
        if FOLDER is not None:
            dispatcher._cache = _FunctionCache(function)
        if signature is not None:
            dispatcher.compile(signature)
            dispatcher.disable_compile()
        return dispatcher

    return decorate


def is_stored(function: Any) -> bool:
    """Whether an earlier process has compiled a function and its code can be read."""
    name = f"{_file_name(function.py_func)}.nbi"
    return FOLDER is not None and os.access(os.path.join(FOLDER, name), os.R_OK)
