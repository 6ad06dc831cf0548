"""Scratch folders: gone at the end; those of killed processes, when another needs its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from metacurate.runtime import scratch
from metacurate.runtime.scratch import YOUNG_SECONDS, scratch_folder

HOLDER = """
import time
from metacurate.runtime.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "file").write_bytes(bytes(1000))
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the system has temporary files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    scratch._remove_left.cache_clear()
    return tmp_path


def holder() -> tuple[subprocess.Popen[str], Path]:
    """A process with a scratch folder, and the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def grow_old(place: Path) -> None:
    for path in place.iterdir():
        os.utime(path, (0, time.time() - 2 * YOUNG_SECONDS))


def test_a_folder_is_empty_and_goes(place: Path) -> None:
    with scratch_folder() as one, scratch_folder() as two:
        assert one != two
        assert not [*one.iterdir(), *two.iterdir()]
    with contextlib.suppress(KeyError), scratch_folder() as third:
        (third / "inner").mkdir()
        raise KeyError
    assert not list(place.iterdir())


def test_what_killed_processes_left_goes_and_what_others_have_stays(place: Path) -> None:
    (place / "metacurate-of-the-user").mkdir()
    killed, left = holder()
    living, held = holder()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    try:
        with scratch_folder():
            assert (left / "file").exists(), "so young that it may be about to be locked"
        grow_old(place)
        scratch._remove_left.cache_clear()
        with scratch_folder():
            assert not left.exists()
            assert (held / "file").exists()
    finally:
        living.kill()
        living.wait()
    grow_old(place)
    scratch._remove_left.cache_clear()
    with scratch_folder():
        pass
    assert [path.name for path in place.iterdir()] == ["metacurate-of-the-user"]


def test_an_unlocked_folder_is_of_use_where_there_are_no_locks(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(scratch.FileLock, "acquire", refuse)
    with scratch_folder() as folder:
        (folder / "file").touch()
    assert not list(place.iterdir())
