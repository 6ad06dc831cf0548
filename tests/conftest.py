"""Fixtures that several tests share."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
EMOJI_POOL = REPOSITORY / "examples" / "emoji"
WORDNET_FOLDER = Path("/usr/share/wordnet")

Command = Callable[..., subprocess.CompletedProcess[str]]


def command_line(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "metacurate", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Plain output, and the source tree if the package is not installed."""
    return {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def metacurate() -> Command:
    """Runs the command line, in this process: ``metacurate("curate", pool, "--t", 5)``."""
    from metacurate.cli import main

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        args = [str(argument) for argument in arguments]
        out, error = io.StringIO(), io.StringIO()
        code: object = 0
        with redirect_stdout(out), redirect_stderr(error):
            try:
                main(args)
            except SystemExit as exit_:
                code = exit_.code or 0
        assert isinstance(code, int)
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
