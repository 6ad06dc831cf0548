"""Runs the command line again and again in copies of one warm process, and kills them.

Started as a program of its own by test_reliability.py (a fresh process may fork: no test has
started threads in it). Reads commands as JSON lines on standard input, answers with one JSON line
each: ``{"arguments": [...], "event": k}`` runs the command in a fork that stops at its k-th
file-system event; ``{"arguments": [...], "seconds": s}`` kills the fork after that time.

An event is a point between two file-system operations of the run: before a temporary file is made,
in the middle of its first bytes, before and after it gets its name, before and after a removal and
each file of the matcher's tables. What happens there is kill -9, or, with ``"read_only": folder``,
the loss of the right to write to a folder (as ``"user"``, if root started this).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from metacurate.cli import main
from metacurate.runtime.storage import Folder


def end() -> None:
    """What a killed machine does."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Fate:
    """How many events there were, and what happens at which."""

    events: int = 0
    wanted: int = 0
    action: Callable[[], None] = end


fate = Fate()


def event() -> None:
    """Note an event, and let happen what is due."""
    fate.events += 1
    if fate.events == fate.wanted:
        fate.action()


def count_events() -> None:
    """Put events around what the run does to its folder."""
    create, remove, replace, save = Folder.create, Folder.remove, Path.replace, np.save

    @contextlib.contextmanager
    def counted_create(folder: Folder, name: str) -> Iterator[IO[bytes]]:
        event()
        with create(folder, name) as file:
            yield _InHalves(file)  # type: ignore[misc]
        event()

    def counted_replace(path: Path, target: Path) -> Path:
        event()
        return replace(path, target)

    def counted_remove(folder: Folder, name: str) -> None:
        event()
        remove(folder, name)
        event()

    def counted_save(*arguments: Any, **options: Any) -> None:
        event()
        save(*arguments, **options)
        event()

    np.save = counted_save
    Folder.create = counted_create  # type: ignore[method-assign]
    Folder.remove = counted_remove  # type: ignore[method-assign]
    Path.replace = counted_replace  # type: ignore[method-assign, assignment]


class _InHalves:
    """A file whose first write has an event in its middle."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._first = file, True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._first:
            self._first = False
            self._file.write(view[: len(view) // 2])
            self._file.flush()
            event()
            view = view[len(view) // 2 :]
        self._file.write(view)
        return len(memoryview(data).cast("B"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def read_only(folder: str) -> None:
    """Take the right to write from a whole folder, as another user."""
    for place, _, _ in os.walk(folder):
        os.chmod(place, 0o555)


def run(command: dict[str, Any]) -> dict[str, Any]:
    """Run a command in a fork; how it ended, what it said, and how many events there were."""
    said, say = os.pipe()
    counted, count = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.dup2(say, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if (user := command.get("user")) is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        fate.wanted = command.get("event", 0)
        if (folder := command.get("read_only")) is not None:
            fate.action = partial(read_only, folder)
        code = call(command["arguments"])
        os.write(count, str(fate.events).encode())
        os._exit(code)
    os.close(say)
    os.close(count)
    if (seconds := command.get("seconds")) is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - start,
        "stderr": open(said, errors="replace").read(),
        "events": int(open(counted).read() or 0),
    }


def call(arguments: list[str]) -> int:
    """Run a command in this process; its exit code."""
    try:
        main(arguments)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    # Once for all forks: loads code and compiled kernels.
    with contextlib.redirect_stdout(sys.stderr):
        warm = call(json.loads(sys.argv[1]))
    print(json.dumps({"code": warm}), flush=True)
    count_events()
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
