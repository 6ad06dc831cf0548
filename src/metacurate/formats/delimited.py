"""CSV and TSV: rows of values between delimiters, with or without a header.

Blocks of whole rows are parsed by Arrow. Lines whose quotation marks are odd are taken apart one by
one before (``quoting``), and so are all lines of a block if Arrow finds another number of rows.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv

from metacurate.formats import reasons
from metacurate.formats.files import BYTE_ORDER_MARK, Source, TextStream
from metacurate.formats.protocol import Look, Request, Rows, UnusableFile
from metacurate.formats.quoting import (
    Scanner,
    empty_lines,
    line_starts,
    plain_lines,
    quoted,
    well_quoted,
)

SAMPLE_ROWS = 100
BLOCK_BYTES = 8 << 20
MAX_ROW_BYTES = 32 << 20
DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class _Dialect:
    """How a file is written; ``quoting``: whether quotation marks mean anything; ``backslash``:
    whether marks in values have one before them instead of being doubled; ``returns``: lines end
    in carriage returns alone."""

    names: tuple[str, ...]
    delimiter: str
    has_header: bool
    quoting: bool
    backslash: bool
    returns: bool


class Delimited:
    """CSV or TSV files: one piece each."""

    shy: tuple[str, ...] = ()
    compressible = True

    def __init__(self, title: str, suffix: str, delimiter: str) -> None:
        self.title = title
        self.suffixes: tuple[str, ...] = (suffix,)
        self._delimiter = delimiter

    def look(self, source: Source, compression: str | None) -> Look:
        """The columns' names, from the header or made up; their values are bytes."""
        sample = TextStream(source, compression).sample()
        returns = b"\n" not in sample and b"\r" in sample
        if returns:
            sample = sample.replace(b"\r", b"\n")
        delimiter = self._found_delimiter(sample)
        names, has_header = _names(sample, delimiter)
        stop = re.escape(delimiter.encode())
        inside = re.findall(rb'\\"(?![\r\n"' + stop + rb"])", sample)
        doubled = re.findall(rb"[^\n" + stop + rb']""[^\r\n' + stop + rb"]", sample)
        dialect = _Dialect(
            tuple(names),
            delimiter,
            has_header,
            # Tab-separated files without a header have captions with lone quotation marks.
            quoting=has_header or delimiter != "\t",
            backslash=len(inside) > len(doubled),
            returns=returns,
        )
        return Look(
            pa.schema([(name, pa.binary()) for name in names]),
            carried=pa.schema([(name, pa.string()) for name in names]),
            settings=vars(dialect),
        )

    def _found_delimiter(self, sample: bytes) -> str:
        """The one that the file's name tells; if the first row lacks it, the one it has most."""
        rows = {d: next(iter(_sample_rows(sample, d, quoted=True)), []) for d in DELIMITERS}
        if len(rows[self._delimiter]) > 1:
            return self._delimiter
        best = max(DELIMITERS, key=lambda d: len(rows[d]))
        return best if len(rows[best]) > 1 else self._delimiter

    def read(
        self, source: Source, compression: str | None, request: Request, skipped: Counter[str]
    ) -> Rows:
        """The rows that have as many values as the header."""
        stream = TextStream(source, compression)
        reader = _Reader(_Dialect(**request.settings), request, skipped)
        first_row = 0
        for rows in reader.read(stream):
            yield first_row, rows
            first_row += rows.num_rows
        if stream.damage is not None:
            skipped[reasons.TRUNCATED_FILE] += 1


CSV = Delimited("CSV", ".csv", ",")
TSV = Delimited("TSV", ".tsv", "\t")


class _Reader:
    def __init__(self, dialect: _Dialect, request: Request, skipped: Counter[str]) -> None:
        self._dialect, self._request, self._skipped = dialect, request, skipped
        self._delimiter = dialect.delimiter.encode()
        self._names = list(dialect.names)
        self._url = self._names.index(request.url) if request.url is not None else None

    def read(self, stream: TextStream) -> Iterator[pa.RecordBatch]:
        """The rows of a file, a block at a time."""
        pending, header = b"", self._dialect.has_header
        last = False
        while not last:
            piece = stream.read(BLOCK_BYTES)
            last = not piece
            if self._dialect.returns:
                piece = piece.replace(b"\r", b"\n")
            pending += piece
            if len(pending) > MAX_ROW_BYTES and b"\n" not in pending:
                self._skipped[reasons.UNREADABLE_REST] += 1
                return
            end = len(pending) if last else pending.rfind(b"\n") + 1
            block, pending = pending[:end], pending[end:]
            if not block:
                continue
            if header:
                found = self._scanner(block, last).row(0)
                while found is not None and found[0] == [b""] and found[1] < len(block):
                    found = self._scanner(block, last).row(found[1])
                if found is None:
                    pending = block + pending
                    continue
                block, header = block[found[1] :], False
            if self._dialect.backslash:
                block = re.sub(rb'\\(["\\])', lambda m: m[1] * (1 + (m[1] == b'"')), block)
            rows, rest = self._rows(block, last)
            pending = rest + pending
            if rows is not None and rows.num_rows:
                yield rows

    def _scanner(self, block: bytes, last: bool) -> Scanner:
        # A row that is too long begins with a mark that quotes nothing.
        last |= len(block) > MAX_ROW_BYTES
        return Scanner(block, self._delimiter, len(self._names), self._url, last=last)

    def _rows(self, block: bytes, last: bool) -> tuple[pa.RecordBatch | None, bytes]:
        """The rows of a block of whole lines, and what of it belongs to a row that goes on."""
        marks = self._dialect.quoting and b'"' in block
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        if not marks or well_quoted(block, self._delimiter):
            rows, wrong = self._parse(block)
            if wrong + _count(rows) == lines:
                return self._counted(rows, wrong), b""
        text, count, rest = self._repaired(block, last) if marks else (block, 0, b"")
        if marks:
            rows, wrong = self._parse(text)
        else:
            starts = line_starts(block)
            count = lines - int(np.count_nonzero(empty_lines(block, starts)))
        if wrong + _count(rows) != count:
            rows, wrong, rest = self._scanned(block, last)
        return self._counted(rows, wrong), rest

    def _counted(self, rows: pa.RecordBatch | None, wrong: int) -> pa.RecordBatch | None:
        if wrong:
            self._skipped[reasons.MALFORMED_ROW] += wrong
        return rows

    def _repaired(self, block: bytes, last: bool) -> tuple[bytes, int, bytes]:
        """The block with all quotation marks as they should be, its rows, and what goes on."""
        starts = line_starts(block)
        plain = plain_lines(block, starts, self._delimiter)
        counted = plain & ~empty_lines(block, starts)
        odd = np.flatnonzero(~plain)
        if not len(odd):
            return block, int(np.count_nonzero(counted)), b""
        scanner = self._scanner(block, last)
        parts, rows, at = [], 0, 0
        for line in odd.tolist():
            start = int(starts[line])
            if start < at:  # within a row that began before
                continue
            parts.append(block[at:start])
            rows += int(np.count_nonzero(counted[np.searchsorted(starts, at) : line]))
            found = scanner.row(start)
            if found is None:
                return b"".join(parts), rows, block[start:]
            values, at = found
            parts.append(quoted(values, self._delimiter))
            rows += 1
        parts.append(block[at:])
        rows += int(np.count_nonzero(counted[np.searchsorted(starts, at) :]))
        return b"".join(parts), rows, b""

    def _parse(self, text: bytes) -> tuple[pa.RecordBatch | None, int]:
        """Arrow's rows of a block and how many it left out."""
        wrong = 0
        if not text:
            return None, 0
        if text.startswith(BYTE_ORDER_MARK):  # of a value: Arrow takes one away
            text = BYTE_ORDER_MARK + text

        def skip(row: pa.csv.InvalidRow) -> str:
            nonlocal wrong
            wrong += 1
            return "skip"

        try:
            table = pa.csv.read_csv(
                pa.BufferReader(text),
                pa.csv.ReadOptions(
                    use_threads=False, block_size=len(text) + 1, column_names=self._names
                ),
                pa.csv.ParseOptions(
                    delimiter=self._dialect.delimiter,
                    quote_char='"' if self._dialect.quoting else False,
                    newlines_in_values=self._dialect.quoting,
                    invalid_row_handler=skip,
                ),
                pa.csv.ConvertOptions(
                    column_types=self._request.schema,
                    include_columns=self._request.columns,
                    check_utf8=False,
                ),
            )
        except pa.ArrowInvalid:  # no row
            return None, wrong
        return table.combine_chunks().to_batches()[0] if table.num_rows else None, wrong

    def _scanned(self, block: bytes, last: bool) -> tuple[pa.RecordBatch | None, int, bytes]:
        """The rows of a block without Arrow, how many are malformed, and what goes on."""
        scanner = self._scanner(block, last)
        rows: list[list[bytes]] = []
        wrong = at = 0
        rest = b""
        while at < len(block):
            if self._dialect.quoting:
                found = scanner.row(at)
                if found is None:
                    rest = block[at:]
                    break
                values, at = found
            else:
                end = block.find(b"\n", at) + 1 or len(block)
                line, at = block[at:end], end
                values = line.rstrip(b"\n").removesuffix(b"\r").split(self._delimiter)
            if len(values) == len(self._names):
                rows.append(values)
            elif values != [b""]:
                wrong += 1
        if not rows:
            return None, wrong, rest
        columns = {name: [row[place] for row in rows] for place, name in enumerate(self._names)}
        arrays = [pa.array(columns[name], pa.binary()) for name in self._request.columns]
        return pa.record_batch(arrays, list(self._request.columns)), wrong, rest


def _count(rows: pa.RecordBatch | None) -> int:
    return 0 if rows is None else rows.num_rows


def _names(sample: bytes, delimiter: str) -> tuple[list[str], bool]:
    """The column names of a file, and whether they are in its first row.

    A file whose first row has a URL in it has no header (CC3M: caption, URL; CC12M: URL, caption).
    Its columns are called ``url``, and ``caption`` if there is but one other, else ``f0``, ``f1``,
    and so on.
    """
    tabs = delimiter == "\t"
    rows = _sample_rows(sample, delimiter, quoted=not tabs)
    if tabs and rows and not any(map(_is_url, rows[0])):
        rows = _sample_rows(sample, delimiter, quoted=True)
    if not rows:
        raise UnusableFile("has no readable first row")
    first = rows[0]
    if not any(map(_is_url, first)):
        if any("\ufffd" in name for name in first):
            raise UnusableFile("has a header that is not UTF-8")
        return first, True
    # A caption may be a URL too: the column that holds one most often is the URL's.
    hits = [
        sum(_is_url(row[place]) for row in rows if len(row) == len(first))
        for place in range(len(first))
    ]
    url = hits.index(max(hits))
    other = "caption" if len(first) == 2 else None
    return ["url" if p == url else other or f"f{p}" for p in range(len(first))], False


def _sample_rows(sample: bytes, delimiter: str, *, quoted: bool) -> list[list[str]]:
    lines = io.StringIO(sample.decode("utf-8", "replace"), newline="")
    reader = (
        csv.reader(lines, delimiter=delimiter)
        if quoted
        else csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    )
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row:
                rows.append(row)
            if len(rows) == SAMPLE_ROWS:
                break
    except csv.Error:  # a field over the module's bound: the rows before it will do
        pass
    return rows


def _is_url(value: str) -> bool:
    return value.strip().lower().startswith(("http://", "https://"))
