"""The engine of compiled stages on few cores, and what its threads share."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from metacurate.runtime.cores import waiting
from metacurate.runtime.engines.threads import ThreadEngine
from metacurate.runtime.kept import kept
from metacurate.runtime.storage import Folder, recorded

SECONDS = 60.0  # far more than a test takes


def square(task: int) -> int:
    return task * task


def write(folder: Folder) -> list[str]:
    with recorded() as written:
        for name in "ab":
            time.sleep(0.01)
            with folder.create(name) as file:
                file.write(b"x")
    return sorted(written)


def wait_or_fail(started: threading.Semaphore | None) -> None:
    if started is None:
        raise ValueError("this task")
    started.release()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(0.01)


def meet(task: tuple[threading.Barrier, float, bool]) -> bool:
    """Whether as many tasks came to the same point before time was over."""
    place, seconds, does_wait = task
    with waiting() if does_wait else nullcontext():
        try:
            place.wait(seconds)
        except threading.BrokenBarrierError:
            return False
    return True


def test_a_task_begins_while_another_waits_for_the_disk() -> None:
    tasks = [(threading.Barrier(2), SECONDS, True)] * 2
    with ThreadEngine(1) as engine:
        assert dict(engine.map_shards(meet, tasks)) == {0: True, 1: True}


def test_as_many_tasks_compute_at_a_time_as_there_are_workers() -> None:
    with ThreadEngine(2) as engine:
        two = [(threading.Barrier(2), SECONDS, False)] * 2
        assert dict(engine.map_shards(meet, two)) == {0: True, 1: True}
        three = [(threading.Barrier(3), 0.5, False)] * 3
        assert not any(found for _, found in engine.map_shards(meet, three))


def test_writing_a_file_is_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met, fsync = threading.Barrier(2), os.fsync

    def sync(descriptor: int) -> None:
        met.wait(SECONDS)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    with ThreadEngine(1) as engine:
        folders = [Folder(str(tmp_path / str(n))) for n in range(2)]
        assert len(list(engine.map_shards(write, folders))) == 2


def test_results_come_with_their_positions() -> None:
    with ThreadEngine(3) as engine:
        assert dict(engine.map_shards(square, range(50))) == {n: n * n for n in range(50)}
        assert dict(engine.map_shards(square, [])) == {}


def test_each_task_records_its_own_files(tmp_path: Path) -> None:
    folders = [Folder(str(tmp_path / str(n))) for n in range(4)]
    with ThreadEngine(2) as engine:
        for position, written in engine.map_shards(write, folders):
            assert written == [folders[position].address(name) for name in "ab"]


@pytest.mark.parametrize("how", ["a task fails", "the caller stops"])
def test_what_is_under_way_ends_with_the_run(how: str) -> None:
    started = threading.Semaphore(0)
    tasks = [started, None] if how == "a task fails" else [started, started]
    before, threads = time.monotonic(), threading.active_count()
    with ThreadEngine(2) as engine:
        results = engine.map_shards(wait_or_fail, tasks)
        if how == "a task fails":
            with pytest.raises(ValueError, match="this task"):
                next(results)
        else:
            handler = signal.signal(signal.SIGINT, signal.default_int_handler)
            stop_when(lambda: started.acquire() and started.acquire())
            with pytest.raises(KeyboardInterrupt):
                next(results)
            signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - before < SECONDS / 2
    assert threading.active_count() <= threads + 1  # nothing goes on


def stop_when(ready: Callable[[], bool]) -> None:
    """Interrupt the main thread, as Ctrl-C does, once that is true."""

    def wait() -> None:
        ready()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait).start()


def test_a_kept_value_is_made_once() -> None:
    made: list[int] = []

    @kept(2)
    def value(number: int) -> int:
        time.sleep(0.05)
        made.append(number)
        return -number

    with ThreadEngine(4) as engine:
        found = dict(engine.map_shards(value, [1, 2] * 10))
    assert [found[n] for n in range(20)] == [-1, -2] * 10
    assert sorted(made) == [1, 2]
