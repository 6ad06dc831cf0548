"""Opening a pool: which files, which columns, which units of work."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.errors import UserError
from metacurate.pool import columns, jsonlines
from metacurate.pool.columns import ResolvedColumns, UnusableFile
from metacurate.pool.files import (
    SAMPLE_AHEAD_BYTES,
    Source,
    TextStream,
    find,
    fingerprint,
    format_of,
    one_line,
    open_source,
)
from metacurate.pool.schema import PoolConfig

SAMPLE_BYTES = 1 << 20  # of a text file, to find its columns
SAMPLE_ROWS = 100
OPEN_FILES = 64  # looked at together: object stores answer slowly, but many requests at a time
LISTED_BAD_FILES = 5
FORMAT_NAMES = {"parquet": "Parquet", "csv": "CSV", "tsv": "TSV", "jsonl": "JSON lines"}


@dataclass(frozen=True)
class Unit:
    """A unit of work: a text file, or the row groups from the first up to the second number."""

    url: str
    format: str
    row_groups: tuple[int, int] | None
    columns: ResolvedColumns


@dataclass(frozen=True)
class Pool:
    """A pool's files, looked at but not read.

    ``units`` are in the order of their addresses and row groups. ``fingerprints`` has a hex digest
    of each usable file's content; ``bad_files`` has (address, reason) of the others. ``schema`` is
    that of ``PoolBatch.columns``. ``rows`` is how many rows the Parquet files have; those of text
    files are not known before they are read.
    """

    units: tuple[Unit, ...]
    fingerprints: dict[str, str]
    bad_files: list[tuple[str, str]]
    schema: pa.Schema
    rows: int
    ignored: int

    def describe(self) -> str:
        """What is read from where, in a sentence for people."""
        kinds: dict[tuple[str, str], dict[str, int]] = {}
        for unit in self.units:
            files = kinds.setdefault((unit.format, unit.columns.describe()), {})
            files[unit.url] = files.get(unit.url, 0) + 1
        parts = [
            f"{_counted(len(files), f'{FORMAT_NAMES[form]} file')} "
            f"({_counted(sum(files.values()), 'unit')}): {what}"
            for (form, what), files in kinds.items()
        ]
        if not parts:
            parts.append("no rows")
        if self.bad_files:
            shown = [f"{address} {reason}" for address, reason in self.bad_files[:LISTED_BAD_FILES]]
            more = len(self.bad_files) - len(shown)
            shown += [f"and {more} more"] if more else []
            parts.append(
                f"{_counted(len(self.bad_files), 'file')} cannot be used: {', '.join(shown)}"
            )
        if self.ignored:
            parts.append(f"{_counted(self.ignored, 'file')} of other formats ignored")
        return "; ".join(parts)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class _Looked:
    """What a look at one file found: its columns or the reason why it cannot be used."""

    address: str
    form: str
    columns: ResolvedColumns | None
    reason: str = ""
    row_groups: tuple[int, ...] = ()  # rows of each
    fingerprint: str = ""


def open_pool(inputs: Sequence[str], config: PoolConfig) -> Pool:
    """Find the files that the inputs name and look at each: format, columns, size, fingerprint.

    ``inputs``: files, folders or globs, as paths or fsspec addresses. A file that cannot be used is
    listed in ``Pool.bad_files``. Raises UserError if an input names no file, if no file can be
    used, or if it is not clear which column holds the URL or the text.
    """
    found = find(inputs)
    with ThreadPoolExecutor(OPEN_FILES) as threads:
        looked = list(threads.map(lambda address: _look_at(address, config), found.files))
    usable = [(file, file.columns) for file in looked if file.columns is not None]
    bad = [(file.address, file.reason) for file in looked if file.columns is None]
    if not usable:
        address, reason = bad[0]
        others = f" (nor can the {len(bad) - 1} other files be used)" if len(bad) > 1 else ""
        raise UserError(f"{address} {reason}{others}")
    schema = columns.common_schema([resolved.carried for _, resolved in usable])
    units: list[Unit] = []
    for file, resolved in usable:
        agreed = replace(resolved, carried=schema)
        for row_groups in _ranges(file, config.rows_per_unit):
            units.append(Unit(file.address, file.form, row_groups, agreed))
    return Pool(
        units=tuple(units),
        fingerprints={file.address: file.fingerprint for file, _ in usable},
        bad_files=bad,
        schema=schema,
        rows=sum(sum(file.row_groups) for file, _ in usable),
        ignored=found.ignored,
    )


def _ranges(file: _Looked, rows_per_unit: int) -> list[tuple[int, int] | None]:
    if file.form != "parquet":
        return [None]
    ranges: list[tuple[int, int] | None] = []
    first = rows = 0
    for group, size in enumerate(file.row_groups):
        rows += size
        if rows >= rows_per_unit or (rows and group == len(file.row_groups) - 1):
            ranges.append((first, group + 1))
            first, rows = group + 1, 0
    return ranges


def _look_at(address: str, config: PoolConfig) -> _Looked:
    known = format_of(address)
    if known is None:
        raise UserError(f"{address} is of no known format")
    form, compression = known
    try:
        with open_source(address, SAMPLE_AHEAD_BYTES) as source:
            row_groups: tuple[int, ...] = ()
            if source.size() == 0:
                raise UnusableFile("is empty")
            if form == "parquet":
                schema, row_groups = _parquet_schema(source)
                resolved = columns.resolve(address, schema, config)
            else:
                stream = TextStream(source, compression)
                sample = stream.read(SAMPLE_BYTES).removeprefix(jsonlines.BYTE_ORDER_MARK)
                if not sample and stream.damage:
                    raise UnusableFile(f"is damaged ({stream.damage})")
                if form == "jsonl":
                    schema = jsonlines.infer_schema(sample)
                    if not schema.names:
                        raise UnusableFile("has no JSON object in the lines of its first MiB")
                    resolved = columns.resolve(address, schema, config)
                else:
                    names, has_header = _csv_names(sample, form)
                    schema = pa.schema([(name, pa.binary()) for name in names])
                    resolved = columns.resolve(address, schema, config, has_header=has_header)
                    carried = pa.schema([(name, pa.string()) for name in names])
                    resolved = replace(resolved, carried=carried)
            return _Looked(address, form, resolved, "", row_groups, fingerprint(source))
    except FileNotFoundError:
        raise UserError(f"{address}: no such file") from None
    except UnusableFile as error:
        return _Looked(address, form, None, str(error))


def _parquet_schema(source: Source) -> tuple[pa.Schema, tuple[int, ...]]:
    try:
        file = pq.ParquetFile(source.arrow)
        metadata = file.metadata
        groups = tuple(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))
        return file.schema_arrow, groups
    except Exception as error:
        source.raise_unless_damage(error)
        raise UnusableFile(f"is no readable Parquet file ({one_line(error)})") from None


def _csv_names(sample: bytes, form: str) -> tuple[list[str], bool]:
    """The column names of a CSV/TSV file, and whether they are in its first row.

    A file whose first row has a URL in it has no header (CC3M: caption, URL; CC12M: URL, caption).
    Its columns are called ``url``, and ``caption`` if there is but one other, else ``f0``, ``f1``,
    and so on.
    """
    rows = _sample_rows(sample, form, quoted=form == "csv")
    if form == "tsv" and rows and not any(map(_is_url, rows[0])):
        rows = _sample_rows(sample, form, quoted=True)
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


def _sample_rows(sample: bytes, form: str, *, quoted: bool) -> list[list[str]]:
    lines = io.StringIO(sample.decode("utf-8", "replace"), newline="")
    delimiter = DELIMITERS[form]
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


DELIMITERS = {"csv": ",", "tsv": "\t"}


def _is_url(value: str) -> bool:
    return value.strip().lower().startswith(("http://", "https://"))
