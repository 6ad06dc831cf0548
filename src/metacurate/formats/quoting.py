"""Rows of delimited text one by one, for lines whose quotation marks are not what they should be.

A value is quoted if it begins with a mark and the mark that ends it (doubled ones do not) stands
before a delimiter or a line's end. Any other mark is a character like others.
"""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import numpy.typing as npt

URL_STARTS = (b"http://", b"https://")
_QUOTE, _NEWLINE, _RETURN = b'"\n\r'


def line_starts(block: bytes) -> npt.NDArray[np.int64]:
    """Where each line begins and, last, where the block ends; int64[lines + 1]."""
    starts = np.flatnonzero(np.frombuffer(block, np.uint8) == _NEWLINE) + 1
    whole = len(starts) and starts[-1] == len(block)
    return np.concatenate([[0], starts] if whole else [[0], starts, [len(block)]])


def well_quoted(block: bytes, delimiter: bytes) -> bool:
    """Whether the block's marks are as they should be if it has no line ends in values."""
    data = np.frombuffer(block, np.uint8)
    marks = np.flatnonzero(data == _QUOTE)
    before = data[marks - 1]
    after = data[np.minimum(marks + 1, len(data) - 1)]
    if len(marks) and marks[0] == 0:
        before[0] = _NEWLINE
    if len(marks) and marks[-1] == len(data) - 1:
        after[-1] = _NEWLINE
    opening = (before == delimiter[0]) | (before == _NEWLINE)
    closing = (after == delimiter[0]) | (after == _NEWLINE) | (after == _RETURN)
    inner = ~(opening | closing)
    if inner.any():
        doubled = marks[inner]
        if len(doubled) % 2 or (doubled[1::2] - doubled[::2] != 1).any():
            return False
        opening, closing = opening[~inner], closing[~inner]
    return len(opening) % 2 == 0 and bool(opening[::2].all() and closing[1::2].all())


def plain_lines(
    block: bytes, starts: npt.NDArray[np.int64], delimiter: bytes
) -> npt.NDArray[np.bool_]:
    """The lines whose marks are as they should be, as far as each mark's neighbours tell.

    bool[lines]. As many quoted values begin as end, and other marks stand side by side.
    """
    data = np.frombuffer(block, np.uint8)
    marks = np.flatnonzero(data == _QUOTE)
    around = np.concatenate([[_NEWLINE], data, [_NEWLINE]])
    before, after = around[marks], around[marks + 2]
    opening = (before == delimiter[0]) | (before == _NEWLINE)
    closing = (after == delimiter[0]) | (after == _NEWLINE) | (after == _RETURN)
    lines = len(starts) - 1
    line = np.searchsorted(starts, marks, side="right") - 1
    opened = np.bincount(line[opening], minlength=lines)
    closed = np.bincount(line[closing], minlength=lines)
    inner = ~(opening | closing)
    beside = np.diff(marks) == 1
    beside &= inner[1:] & inner[:-1]
    alone = inner.copy()
    alone[1:] &= ~beside
    alone[:-1] &= ~beside
    wrong = np.bincount(line[alone], minlength=lines)
    return (opened == closed) & (wrong == 0) & (np.bincount(line, minlength=lines) % 2 == 0)


def empty_lines(block: bytes, starts: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """The lines without a character; bool[lines]."""
    sizes = np.diff(starts)
    data = np.frombuffer(block, np.uint8)
    first = data[starts[:-1]] if len(data) else data
    return (first == _NEWLINE) | ((first == _RETURN) & (sizes <= 2))


class Scanner:
    """Takes rows of ``columns`` values from a block; ``last``: nothing comes after it.

    ``url``: the place of the URL. A line that is a row by itself, its URL within what would be a
    quoted value, shows that the value's first mark is lone.
    """

    def __init__(
        self, block: bytes, delimiter: bytes, columns: int, url: int | None, *, last: bool
    ) -> None:
        self._block, self._delimiter, self._last = block, delimiter, last
        self._columns, self._url = columns, url
        stop = re.escape(delimiter)
        self._value = re.compile(rb"(?:(?!\r?\n|\r\Z)[^" + stop + rb"\n])*")
        self._mark = re.compile(rb'"(?:(")|(?=(' + stop + rb"|\r?\n|\r?\Z))|)")
        self._end = re.compile(rb"\r?\n|\r?\Z")

    def row(self, at: int) -> tuple[list[bytes], int] | None:
        """The values of the row that begins there, and where the next one does.

        None if the row may go on after the block.
        """
        values: list[bytes] = []
        start = at
        while True:
            quoted = self._quoted(start, at, len(values))
            if quoted is None:
                return None
            if quoted:
                value, at = quoted
            else:
                found = self._value.match(self._block, at)
                assert found is not None
                value, at = found.group(), found.end()
            values.append(value)
            if self._block[at : at + 1] != self._delimiter:
                end = self._end.match(self._block, at)
                assert end is not None
                return values, end.end()
            at += 1

    def _quoted(
        self, row: int, start: int, place: int
    ) -> tuple[bytes, int] | Literal[False] | None:
        """The quoted value there and its end; False if it is none; None if it may go on.

        It is the value number ``place`` of the row that begins at ``row``.
        """
        if self._block[start : start + 1] != b'"':
            return False
        at = start + 1
        while found := self._mark.search(self._block, at):
            at = found.end()
            if found.group(1) is None:
                if found.group(2) is None or self._holds_rows(row, start, at, place):
                    return False
                return self._block[start + 1 : at - 1].replace(b'""', b'"'), at
        return False if self._last else None

    def _holds_rows(self, row: int, start: int, end: int, place: int) -> bool:
        if self._url is None or self._block.find(b"\n", start, end) < 0:
            return False
        final = self._block.rfind(b"\n", start, end) + 1
        stop = self._block.find(b"\n", end)
        # Of a row with values over several lines, the line that ends one and begins the next may
        # look like a row: its URL is not within the value that begins there.
        begin = self._block.rfind(b"\n", row, start) + 1 or row
        first, *lines = self._block[begin:final].split(b"\n")[:-1]
        whole = self._block[final : stop if stop >= 0 else len(self._block)]
        return (
            any(map(self._is_row, lines))
            or (self._url > place and self._is_row(first))
            or (self._block.count(self._delimiter, final, end) > self._url and self._is_row(whole))
        )

    def _is_row(self, line: bytes) -> bool:
        assert self._url is not None
        if line.count(self._delimiter) != self._columns - 1:
            return False
        return line.split(self._delimiter)[self._url].lstrip(b'" ').lower().startswith(URL_STARTS)


def quoted(values: list[bytes], delimiter: bytes) -> bytes:
    """A row in which every value is quoted as it should be."""
    return delimiter.join(b'"' + v.replace(b'"', b'""') + b'"' for v in values) + b"\n"
