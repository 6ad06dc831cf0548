"""CSV and TSV: rows of values between delimiters, with or without a header."""

from __future__ import annotations

import csv
import io
from collections import Counter

import pyarrow as pa
import pyarrow.csv

from metacurate.pool import reasons
from metacurate.pool.files import Source, TextStream
from metacurate.pool.formats.protocol import Look, Request, Rows, UnusableFile

SAMPLE_ROWS = 100
BLOCK_BYTES = 32 << 20  # also the bound on a row


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
        names, has_header = self._names(sample)
        return Look(
            pa.schema([(name, pa.binary()) for name in names]),
            carried=pa.schema([(name, pa.string()) for name in names]),
            settings={"has_header": has_header},
        )

    def _names(self, sample: bytes) -> tuple[list[str], bool]:
        """The column names of a file, and whether they are in its first row.

        A file whose first row has a URL in it has no header (CC3M: caption, URL; CC12M: URL,
        caption). Its columns are called ``url``, and ``caption`` if there is but one other, else
        ``f0``, ``f1``, and so on.
        """
        tabs = self._delimiter == "\t"
        rows = self._sample_rows(sample, quoted=not tabs)
        if tabs and rows and not any(map(_is_url, rows[0])):
            rows = self._sample_rows(sample, quoted=True)
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

    def _sample_rows(self, sample: bytes, *, quoted: bool) -> list[list[str]]:
        lines = io.StringIO(sample.decode("utf-8", "replace"), newline="")
        reader = (
            csv.reader(lines, delimiter=self._delimiter)
            if quoted
            else csv.reader(lines, delimiter=self._delimiter, quoting=csv.QUOTE_NONE)
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

    def read(
        self, source: Source, compression: str | None, request: Request, skipped: Counter[str]
    ) -> Rows:
        """The rows that have as many values as the header."""

        def skip(row: pa.csv.InvalidRow) -> str:
            skipped[reasons.MALFORMED_ROW] += 1
            return "skip"

        stream = TextStream(source, compression)
        has_header = request.settings["has_header"]
        first_row = 0
        try:
            with pa.csv.open_csv(
                pa.PythonFile(stream, mode="r"),
                pa.csv.ReadOptions(
                    use_threads=False,
                    block_size=BLOCK_BYTES,
                    column_names=None if has_header else request.schema.names,
                ),
                pa.csv.ParseOptions(
                    delimiter=self._delimiter,
                    # Tab-separated files without a header have captions with lone quotation marks.
                    quote_char='"' if has_header or self._delimiter != "\t" else False,
                    newlines_in_values=True,
                    invalid_row_handler=skip,
                ),
                pa.csv.ConvertOptions(
                    column_types=request.schema,
                    include_columns=request.columns,
                    check_utf8=False,
                ),
            ) as reader:
                for rows in reader:
                    yield first_row, rows
                    first_row += rows.num_rows
        except pa.ArrowInvalid as error:
            # A row larger than a block, most often through a quotation mark that is never closed.
            source.raise_unless_damage(error)
            skipped[reasons.UNREADABLE_REST] += 1
        if stream.damage is not None:
            skipped[reasons.TRUNCATED_FILE] += 1


def _is_url(value: str) -> bool:
    return value.strip().lower().startswith(("http://", "https://"))


CSV = Delimited("CSV", ".csv", ",")
TSV = Delimited("TSV", ".tsv", "\t")
