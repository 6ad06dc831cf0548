"""Runs the command line again and again in copies of one warm process, and kills them.

Started as a program of its own (a fresh process may fork: no test has started threads in it), with
a folder. Reads commands as JSON lines on standard input, answers with one JSON line each:
``{"arguments": [...], "event": k}`` runs the command in a fork that stops at its k-th file-system
event; ``{"arguments": [...], "seconds": s}`` kills the fork after that time; ``"memory": b`` lets
it have no more than so many bytes of private memory in addition to what it starts with.
``"here": true`` runs a command in the process itself, once for all forks: that loads code and
compiled kernels. ``Warm`` is the other end.

An event is a point between two file-system operations below the folder: before a file is opened to
write, in the middle of its first bytes, before it gets its name, before a file or folder is made or
removed; on an object store before and after an upload and a removal. What happens there is kill -9,
or, with ``"read_only": folder``, the loss of the right to write to a folder (as ``"user"``, if root
started this).

On Ray tasks have events of their own. ``{"workers": {"notes": folder}}`` has them counted by task;
with ``{"task": name, "event": k, "driver": true}`` added, the worker kills the command and itself
there, without ``"driver"`` itself alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import IO, Any, Self

import numpy as np

from metacurate.cli import main
from metacurate.runtime.storage import Folder

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate")


def end() -> None:
    """What a killed machine does."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Fate:
    """How many events there were below which folder, and what happens at which."""

    place: str = ""
    events: int = 0
    wanted: int = 0
    action: Callable[[], None] = end
    lock: Lock = field(default_factory=Lock)


fate = Fate()


def event() -> None:
    """Note an event, and let happen what is due."""
    with fate.lock:
        fate.events += 1
        due = fate.events == fate.wanted
    if due:
        fate.action()


def count_events(place: str) -> None:
    """Put events around what this process does below a folder; once, for good."""
    if fate.place:
        return
    fate.place = place
    sys.addaudithook(_note)
    create, remove, save = Folder.create, Folder.remove, np.save

    @contextlib.contextmanager
    def counted_create(folder: Folder, name: str) -> Iterator[IO[bytes]]:
        event()
        with create(folder, name) as file:
            yield _InHalves(file)  # type: ignore[misc]
        event()

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


def _note(name: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: Python calls it before each operation."""
    if name == "open":
        path, mode, flags = arguments
        changes = any(c in mode for c in "wax+") if mode else flags & WRITES
    elif name in CHANGES:
        path, changes = arguments[0], True
    else:
        return
    if changes and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(fate.place):
        event()


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


def limit_memory(more: int) -> None:
    """Have the kernel refuse this process, and each that it starts, more private memory."""
    status = Path("/proc/self/status").read_text()
    has = int(status.partition("VmData:")[2].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (has + more, has + more))


# Tasks on Ray -----------------------------------------------------------------------------------


def watch_tasks(place: str, wanted: dict[str, Any]) -> None:
    """Have this process's tasks on Ray count their events, or end at one (``run_task``)."""
    from metacurate.runtime.engines import ray as engine

    original, driver = engine.run_call, os.getpid()

    def run_call(call: Any) -> Any:
        # Goes to the workers by value: they know the rest by this module's name.
        from killed_runs import run_task

        return run_task(partial(original, call), call, place, driver, wanted)

    engine.run_call = run_call  # type: ignore[assignment]


def run_task(
    run: Callable[[], Any], call: Any, place: str, driver: int, wanted: dict[str, Any]
) -> Any:
    """Run a task in a worker; it ends there once, or its events are noted."""
    count_events(place)
    what = getattr(call.task, "state", None) or repr(call.task)
    digest = hashlib.blake2b(what.encode(), digest_size=8).hexdigest()
    name, notes = f"{call.function.__name__}-{digest}", Path(wanted["notes"])

    def finish() -> None:
        with contextlib.suppress(FileExistsError):
            (notes / "ended").touch(exist_ok=False)
            if wanted.get("driver"):
                os.kill(driver, signal.SIGKILL)
            end()

    fate.events, fate.action = 0, finish
    fate.wanted = wanted.get("event", 0) if wanted.get("task") == name else 0
    try:
        return run()
    finally:
        (notes / f"{name}.{fate.events}").touch()


def events_of_tasks(notes: Path) -> dict[str, int]:
    """How many events each task noted."""
    found = (path.name.rpartition(".") for path in sorted(notes.iterdir()))
    return {name: int(events) for name, dot, events in found if dot}


# The warm process -------------------------------------------------------------------------------


def run(command: dict[str, Any], place: str) -> dict[str, Any]:
    """Run a command in a fork; how it ended, what it said, and how many events there were."""
    if command.get("here"):
        fate.events = fate.wanted = 0
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            code = call(command["arguments"])
        return {"code": code, "events": fate.events}
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
        fate.events, fate.wanted = 0, command.get("event", 0)
        if (folder := command.get("read_only")) is not None:
            fate.action = partial(read_only, folder)
        if (memory := command.get("memory")) is not None:
            limit_memory(memory)
        if (workers := command.get("workers")) is not None:
            watch_tasks(place, workers)
        code = call(command["arguments"])
        os.write(count, str(fate.events).encode())
        os._exit(code)
    os.close(say)
    os.close(count)
    if (seconds := command.get("seconds")) is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    # What a killed command has started may hold the other ends for a while.
    os.set_blocking(said, False)
    with open(said, "rb", buffering=0) as errors, open(counted) as events:
        return {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": time.monotonic() - start,
            "stderr": (errors.read(1 << 20) or b"").decode(errors="replace"),
            "events": int(events.read() or 0),
        }


def call(arguments: list[str]) -> int:
    """Run a command in this process; its exit code."""
    try:
        main(arguments)
    except SystemExit as exit_:
        return int(exit_.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def serve() -> None:
    """Answer commands until standard input ends."""
    place = sys.argv[1]
    count_events(place)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line), place)), flush=True)


class Warm:
    """A warm process: calls are commands for it (``run``), answers are how they ended."""

    def __init__(self, place: Path) -> None:
        self._started = [sys.executable, __file__, str(place)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._started,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"},
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def __call__(self, arguments: Sequence[str], **how: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        command = {"arguments": list(arguments), **how}
        print(json.dumps(command), file=self._process.stdin, flush=True)
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


if __name__ == "__main__":
    # Under its own name, by which workers of a cluster find it.
    import killed_runs

    killed_runs.serve()
