"""Fixtures that several tests share."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import TextIO

import pytest
from hypothesis import HealthCheck, settings

from chromium import Browser, browser, find_chromium

REPOSITORY = Path(__file__).parents[1]
EMOJI_POOL = REPOSITORY / "examples" / "emoji"
WORDNET_FOLDER = Path("/usr/share/wordnet")

# The files that take longest: they come first, so that none is left to run alone at the end.
LONGEST = (
    "test_docs.py", "training/test_training.py", "runtime/test_reliability.py",
    "runtime/test_ray.py", "test_chain.py", "runtime/test_s3.py", "deduplication/test_dedup.py",
    "images/test_download.py",
)  # fmt: skip

# How long an example takes is a matter of what else the machine does.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

# A shell's background job ignores Ctrl-C, and with it would all commands that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Command = Callable[..., subprocess.CompletedProcess[str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = {REPOSITORY / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(LONGEST)))


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[bytes] | None = None
) -> None:
    """Wait until it is true, a minute at most; a process that is given must run until then."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process is None or process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "metacurate", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Plain output, and the source tree if the package is not installed."""
    return {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}


@pytest.fixture(scope="session", autouse=True)
def _workers_are_forked_ready() -> Iterator[None]:
    """The server that runs fork workers from has imported what they need, whoever starts it first.

    There is one for each process of pytest, and what its first user had it import stays.
    """
    from metacurate.runtime.engines.local import LocalEngine

    with LocalEngine(2, "metacurate.pipeline"):
        yield


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A running Chromium."""
    executable = find_chromium()
    if executable is None:
        pytest.skip("needs Chromium (Debian: chromium)")
    with browser(executable) as running:
        yield running


@pytest.fixture
def offline_datasets(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Hugging Face's ``datasets``, which asks nobody."""
    module = pytest.importorskip("datasets", reason="needs the package datasets")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return module


def run_here(arguments: list[str], out: TextIO, error: TextIO) -> int:
    """Run the command line in this process; its exit code."""
    from metacurate.cli import main

    with redirect_stdout(out), redirect_stderr(error):
        try:
            main(arguments)
        except SystemExit as exit_:
            code: object = exit_.code or 0
            assert isinstance(code, int)
            return code
    return 0


@pytest.fixture(scope="session")
def metacurate() -> Command:
    """Runs the command line, in this process: ``metacurate("curate", pool, "--t", 5)``."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        args = [str(argument) for argument in arguments]
        out, error = io.StringIO(), io.StringIO()
        code = run_here(args, out, error)
        return subprocess.CompletedProcess(args, code, out.getvalue(), error.getvalue())

    return run


@pytest.fixture(scope="session")
def real_sentences() -> list[str]:
    """100,000 real sentences and phrases: WordNet's glosses and examples."""
    from metacurate.metadata.wordnet import read_glosses

    if not WORDNET_FOLDER.is_dir():
        pytest.skip("needs WordNet's glosses: the Debian package wordnet-base is not installed")
    return read_glosses(WORDNET_FOLDER)[:100_000]


def digests(folder: Path) -> dict[str, str]:
    """A hash of every file of a run's folder, by relative name."""
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
