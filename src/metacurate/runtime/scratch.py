"""Folders for a while where the system has temporary files; those of killed processes are removed.

A process that is killed leaves its folder: an upload under way, a pool in memory. Beside each
folder lies a file that its process locks; the kernel's lock ends with the process. A process that
makes its first folder removes those that nobody holds any more.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX, LOCK_SUFFIX = "metacurate-", ".lock"
# One that young may be about to be locked.
YOUNG_SECONDS = 60


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new, empty folder of this machine, which is removed at the end of the block."""
    _remove_left(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder, _locked(f"{folder}{LOCK_SUFFIX}"):
        yield Path(folder)


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    lock = FileLock(name, timeout=0, thread_local=False)
    # Where there are no locks a folder that is left stays.
    with contextlib.suppress(OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        Path(name).unlink(missing_ok=True)
        lock.release()


@functools.cache
def _remove_left(place: str) -> None:
    for path in Path(place).glob(f"{PREFIX}*{LOCK_SUFFIX}"):
        # Another user's, or removed by another process in the meantime.
        with contextlib.suppress(OSError, NotImplementedError, Timeout):
            if time.time() - path.stat().st_mtime > YOUNG_SECONDS:
                with FileLock(path, timeout=0, thread_local=False):
                    shutil.rmtree(str(path).removesuffix(LOCK_SUFFIX), ignore_errors=True)
                    path.unlink(missing_ok=True)
