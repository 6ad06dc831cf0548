"""Parquet: row groups, read in batches; what is damaged costs as little as the format allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pat

from metacurate.errors import ArgumentError
from metacurate.formats import reasons
from metacurate.formats.files import Source, one_line
from metacurate.formats.pages import BrokenHeader, longest_value, pages
from metacurate.formats.protocol import Look, Request, Rows, UnusableFile

BATCH_BYTES = 256 << 20  # about how large a batch may be: rows with long texts come in fewer
BUFFER_BYTES = 8 << 20
SALVAGED_ROWS = 1024
MAX_PAGE_BYTES = 256 << 20
MAX_PAGE_VALUES_BYTES = 1 << 30  # of a page's values of a fixed width
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8,
          "BYTE_ARRAY": 4}  # fmt: skip


class Parquet:
    """Parquet files; a row group is a piece."""

    title = "Parquet"
    suffixes: tuple[str, ...] = (".parquet", ".pq")
    shy: tuple[str, ...] = ()
    compressible = False

    def look(self, source: Source, compression: str | None) -> Look:
        """The columns, and the rows of each row group."""
        del compression
        try:
            file = _open(source)
            metadata = file.metadata
            groups = tuple(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))
            return Look(_schema(file, source), pieces=groups)
        except Exception as error:
            source.raise_unless_damage(error)
            raise UnusableFile(f"is no readable Parquet file ({one_line(error)})") from None

    def read(
        self, source: Source, compression: str | None, request: Request, skipped: Counter[str]
    ) -> Rows:
        """The rows of some row groups."""
        del compression
        assert request.pieces is not None
        try:
            file = _open(source, buffer_size=BUFFER_BYTES, page_checksum_verification=True)
        except Exception as error:
            source.raise_unless_damage(error)
            raise ArgumentError(
                "{file} has changed since the run began: use {overwrite}", file=source.address
            ) from None
        empty = [f.name for f in request.schema if pat.is_null(f.type)]
        first_row = 0
        for group in range(*request.pieces):
            size = file.metadata.row_group(group).num_rows
            for at, rows in _row_group(file, source, group, request, skipped):
                yield first_row + at, _without(rows, empty)
            first_row += size


def _open(source: Source, **options: Any) -> pq.ParquetFile:
    tail = source.read_at(max(source.size() - 8, 0), 8)
    size = int.from_bytes(tail[:4], "little")
    # A whole row group in memory is slower. Arrow's threads must not read Python files besides: see
    # ``runtime.arrowfiles``.
    options["pre_buffer"] = False
    try:
        file = pq.ParquetFile(source.arrow, **options)
    except pa.ArrowNotImplementedError:
        # A note in the footer names an Arrow type that this Arrow lacks (Polars' Int128). Without
        # the note the columns have the types that Parquet gives them.
        footer = source.read_at(source.size() - 8 - size, size)
        footer = footer.replace(b"ARROW:schema", b"ARROW_schema")
        metadata = pq.read_metadata(pa.BufferReader(tail[4:] + footer + tail))
        return pq.ParquetFile(source.arrow, metadata=metadata, **options)
    # To ask Arrow about an encrypted column ends the process.
    if file.metadata.serialized_size != size:
        raise pa.ArrowInvalid("its footer is signed: columns are encrypted")
    return file


def _without(rows: pa.RecordBatch, names: Sequence[str]) -> pa.RecordBatch:
    """The rows with null in these columns."""
    for name in names:
        if name in rows.schema.names:
            place = rows.schema.get_field_index(name)
            rows = rows.set_column(place, name, pa.nulls(rows.num_rows))
    return rows


def _schema(file: pq.ParquetFile, source: Source) -> pa.Schema:
    """The file's columns; floats that are nothing but NaN (pandas' null) have the type null."""
    metadata, schema = file.metadata, file.schema_arrow
    floats = {f.name for f in schema if pat.is_floating(f.type)}
    valued = set()
    for leaf in range(metadata.num_columns):
        column = file.schema.column(leaf)
        if column.path not in floats:  # also shows which names are no UTF-8
            continue
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            chunk = group.column(leaf)
            # To ask Arrow about the limits of a chunk of another type ends the process.
            is_told = chunk.physical_type == column.physical_type and chunk.is_stats_set
            known = chunk.statistics if is_told else None
            if known is None or known.has_min_max:
                floats.discard(column.path)
                break
            if known.null_count != chunk.num_values:
                valued.add(column.path)
    # No limits say NaN, or that the writer gave none: Polars if told so, orders unknown to Arrow.
    floats = {name for name in floats if name not in valued or _holds_no_number(file, source, name)}
    fields = [f.with_type(pa.null()) if f.name in floats else f for f in schema]
    return pa.schema(fields, schema.metadata)


def _holds_no_number(file: pq.ParquetFile, source: Source, name: str) -> bool:
    """Whether a column of floats, looked through up to its first number, has none."""
    for group in range(file.metadata.num_row_groups):
        most, too_large = _measure(file, source, group, (name,), SALVAGED_ROWS)
        if too_large:
            return False
        try:
            for rows in file.iter_batches(most, [group], [name], use_threads=False):
                if pc.any(pc.invert(pc.is_nan(rows.column(0)))).as_py():
                    return False
        except Exception as error:
            source.raise_unless_damage(error)
            return False
    return True


def _row_group(
    file: pq.ParquetFile, source: Source, group: int, request: Request, skipped: Counter[str]
) -> Rows:
    size = file.metadata.row_group(group).num_rows
    most, too_large = _measure(file, source, group, request.columns, request.batch_rows)
    if too_large & set(request.needed):
        skipped[reasons.OVERSIZED_ROW] += size
        return
    if too_large:
        skipped[reasons.UNREADABLE_VALUE] += size * len(too_large)
    names = [name for name in request.columns if name not in too_large]
    done = 0
    try:
        for rows in file.iter_batches(most, [group], names, use_threads=False):
            yield done, rows
            done += rows.num_rows
    except Exception as error:
        source.raise_unless_damage(error)
    # Some damage shows only in that there are fewer rows than there should be.
    if done < size:
        most = min(most, SALVAGED_ROWS)
        for at, rows in _salvage(file, source, group, names, request.needed, most, skipped):
            given = max(done - at, 0)  # of these rows, before the damage showed
            if given < rows.num_rows:
                yield at + given, rows.slice(given)


def _salvage(
    file: pq.ParquetFile,
    source: Source,
    group: int,
    names: Sequence[str],
    needed: Sequence[str],
    batch_rows: int,
    skipped: Counter[str],
) -> Rows:
    """The rows of a damaged row group up to the damage in the columns that matching needs.

    Any other column that is damaged is null from there on.
    """
    size = file.metadata.row_group(group).num_rows

    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            yield from file.iter_batches(batch_rows, [group], list(columns), use_threads=False)
        except Exception as error:
            source.raise_unless_damage(error)

    others = {name: batches([name]) for name in names if name not in needed}
    done = 0
    for rows in batches(needed):
        whole = rows
        for name, column in list(others.items()):
            part = next(column, None)
            if part is None or part.num_rows != rows.num_rows:
                del others[name]
                skipped[reasons.UNREADABLE_VALUE] += size - done
            else:
                whole = whole.append_column(name, part.column(0))
        yield done, whole
        done += rows.num_rows
    if done < size:
        skipped[reasons.UNREADABLE_ROW_GROUP] += size - done


def _measure(
    file: pq.ParquetFile, source: Source, group: int, columns: Sequence[str], batch_rows: int
) -> tuple[int, set[str]]:
    """How many rows of a row group fit a batch, and the columns of which not even a page fits.

    A row that repeats a column's values is taken to have as many as others.
    """
    metadata = file.metadata.row_group(group)
    rows = max(metadata.num_rows, 1)
    most = max(1, min(batch_rows, BATCH_BYTES * rows // max(metadata.total_byte_size, 1)))
    too_large: set[str] = set()
    for leaf in range(metadata.num_columns):
        chunk, column = metadata.column(leaf), file.schema.column(leaf)
        name = column.path if column.path in columns else column.path.partition(".")[0]
        if name not in columns:
            continue
        width = WIDTHS.get(chunk.physical_type, column.length)
        # Away from this machine each look costs a request: the file is believed if it says little.
        every = source.is_local or chunk.total_uncompressed_size > MAX_PAGE_BYTES
        dictionary, values = None, 0
        try:
            for page in pages(source.read_at, chunk):
                if page.size > MAX_PAGE_BYTES or page.values * width > MAX_PAGE_VALUES_BYTES:
                    too_large.add(name)
                if page.is_dictionary:
                    dictionary = page
                elif not every:
                    break
                else:
                    values += page.values
        except BrokenHeader:
            continue  # reading it will show the damage
        values = max(values, chunk.num_values) if column.max_repetition_level else rows
        if dictionary and chunk.physical_type == "BYTE_ARRAY" and name not in too_large:
            width = dictionary.size
            if width * values * most > BATCH_BYTES * rows:
                width = longest_value(source.read_at, chunk, dictionary)
        most = min(most, BATCH_BYTES * rows // max(values * width, 1))
    return max(most, 1), too_large
