"""Runs a function on untrusted items in a child process: an item can cost no more than itself.

Native parsers and decoders may crash or take forever on hostile content, which no exception handler
catches. The child gets items in batches and answers one by one; the kernel ends it if it uses more
processor time for an item, or gives it no more memory, than it may have. The item that it had not
answered then is lost, and a new child goes on after it.

Why no library: of the maintained ones, pebble says which item killed its process, but carries 2,600
items of 20 kB a second on a machine where this carries 82,000 (30,000 one at a time), and pages are
parsed faster than that; loky and concurrent.futures lose all items under way with a dead process.
None limits the processor time of an item. The child is a fresh interpreter that never imports the
caller's main module, and a daemonic process (a loader's worker) may have one too.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CPU_SECONDS_PER_ITEM = 30.0
MAX_MEMORY_BYTES = 8 << 30
# The last words of a child that crashed are of no use to anybody: its standard error is closed.
BOOT = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from metacurate.runtime.isolate import serve
serve(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
"""


class Lost(Enum):
    """Why an item has no result."""

    TOOK_TOO_LONG = "took_too_long"
    CRASHED = "crashed"


class Isolated(Generic[Item, Result]):
    """A module-level function that runs in a child process; a context manager.

    ``cpu_seconds``: processor time (user and system) an item may take; ``memory_bytes``: address
    space of the child. For one thread at a time. The function's own exceptions are programming
    errors: they end the child, and the item is lost.
    """

    def __init__(
        self,
        function: Callable[[Item], Result],
        *,
        cpu_seconds: float = CPU_SECONDS_PER_ITEM,
        memory_bytes: int = MAX_MEMORY_BYTES,
    ) -> None:
        self._function = function
        self._cpu_seconds = cpu_seconds
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Any = None

    def map(self, items: Sequence[Item]) -> list[Result | Lost]:
        """The result of each item, in order; ``Lost`` for one that crashed or stalled."""
        results: list[Result | Lost] = []
        while len(results) < len(items):
            self._start()
            try:
                self._pipe.send(items[len(results) :])
                while len(results) < len(items):
                    results.append(self._pipe.recv())
            except (EOFError, BrokenPipeError, ConnectionResetError):
                results.append(self._end())
            except BaseException:
                # Answers that nobody waited for must not be taken for those of later items.
                self.close()
                raise
        return results

    def _start(self) -> None:
        if self._process is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, json.dumps([p or os.getcwd() for p in sys.path]),
                 str(theirs.fileno()), repr(self._cpu_seconds), str(self._memory_bytes)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                # The terminal's Ctrl-C is for the parent; the child ends with its pipe.
                start_new_session=True,
            )  # fmt: skip
        self._pipe = Connection(ours.detach())
        try:
            self._pipe.send(self._function)
            self._pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.close()
            raise RuntimeError("a process for untrusted content did not start") from None

    def _end(self) -> Lost:
        """Why the child ended."""
        assert self._process is not None
        self._pipe.close()
        status = self._process.wait()
        self._process = None
        return Lost.TOOK_TOO_LONG if status == -signal.SIGPROF else Lost.CRASHED

    def kill(self) -> None:
        """End the child from another thread: the item under way, if there is one, is lost."""
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def serve(descriptor: int, cpu_seconds: float, memory_bytes: int) -> None:
    """The child: apply the function that comes first to the items that follow, until the end."""
    pipe: Any = Connection(descriptor)
    # The kernel's own action on this signal ends the process, inside native code too.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        function = pipe.recv()
        pipe.send(None)
        while True:
            for item in pipe.recv():
                signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
                result = function(item)
                signal.setitimer(signal.ITIMER_PROF, 0)
                pipe.send(result)
    except (EOFError, OSError):
        # The parent has ended. No tidying up, which would wait for a library's threads.
        os._exit(0)
