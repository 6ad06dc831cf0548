"""Every command in 128 MiB more than it starts with, on inputs of 192 MiB (docs/scale.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from killed_runs import Warm
from memory_limits import LIMIT, Commands, warm

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists() or not hasattr(os, "fork"), reason="needs Linux"
)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Commands, Warm]]:
    folder = tmp_path_factory.mktemp("memory")
    with warm(folder) as (run, server):
        yield Commands(folder / "large", server, 1), run


def test_each_command_keeps_within_the_limit(large: tuple[Commands, Warm]) -> None:
    """In one test, since some read what earlier ones made."""
    commands, run = large
    for name, words in commands.words.items():
        answer = run(words, memory=LIMIT)
        assert answer["code"] == 0, (name, answer)


def test_what_holds_its_input_does_not(large: tuple[Commands, Warm]) -> None:
    commands, run = large
    words = [word.replace("brightness", "hoard") for word in commands.words["filter"][:-1]]
    words[words.index("--keep") + 1] = "brightness>0.5"
    assert run([*words, str(commands.folder / "out" / "kept")])["code"] == 0
    limited = run([*words, str(commands.folder / "out" / "hoarded")], memory=LIMIT)
    assert limited["code"] != 0
    assert "memory" in limited["stderr"].lower()
