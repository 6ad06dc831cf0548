"""Tables on terminals of any width."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from metacurate.cli.tables import Grid

NUMBERS = ["20,000", "5.40%", "86,554", "10,080,052", "1,234,567,890", "12,345 and 678,901,234"]
UID = "00f1c2d3e4a5968778695a4b3c2d1e0f"


def printed(grid: Grid, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(grid)
    return file.getvalue().splitlines()


def whole(text: str, lines: list[str]) -> bool:
    """Whether a text stands in a line, not as a part of a longer word."""
    return any(re.search(rf"(?<!\S){re.escape(text)}(?!\S)", line) for line in lines)


@pytest.mark.parametrize("width", [52, 60, 72, 79, 80, 81, 90, 100, 120, 200])
@pytest.mark.parametrize("columns", range(1, 7))
def test_numbers_are_never_broken(width: int, columns: int) -> None:
    grid = Grid("Plan", "=uid", *[f">some words {n}" for n in range(columns)], "entry")
    grid.add_row(UID, *NUMBERS[-columns:], "a long entry of many words that may be folded")
    grid.add_row(UID, *reversed(NUMBERS[-columns:]), "dog")
    lines = printed(grid, width)
    assert max(map(len, lines)) <= width
    for text in (UID, *NUMBERS[-columns:]):
        assert whole(text, lines), "\n".join(lines)
    assert "…" not in "".join(lines)


def test_side_by_side_where_there_is_room() -> None:
    grid = Grid("", ">t", ">draws", "part")
    grid.add_row("10", "10,080,052", "head")
    shown = {width: [line.split() for line in printed(grid, width)] for width in (20, 19)}
    assert shown[20] == [["t", "draws", "part"], ["10", "10,080,052", "head"]]
    assert shown[19] == [["t", "10"], ["draws", "10,080,052"], ["part", "head"]]


def test_no_rows() -> None:
    assert [line.split() for line in printed(Grid("", "a", ">b"), 40)] == [["a", "b"]]
