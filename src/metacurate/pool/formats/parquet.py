"""Parquet: row groups, read in batches; what is damaged costs as little as the format allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.errors import UserError
from metacurate.pool import reasons
from metacurate.pool.files import Source, one_line
from metacurate.pool.formats.protocol import Look, Request, Rows, UnusableFile

BATCH_BYTES = 256 << 20  # about how large a batch may be: rows with long texts come in fewer
BUFFER_BYTES = 8 << 20


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
            file = pq.ParquetFile(source.arrow)
            metadata = file.metadata
            groups = tuple(metadata.row_group(g).num_rows for g in range(metadata.num_row_groups))
            return Look(file.schema_arrow.remove_metadata(), pieces=groups)
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
            file = pq.ParquetFile(
                source.arrow, buffer_size=BUFFER_BYTES, page_checksum_verification=True
            )
        except Exception as error:
            source.raise_unless_damage(error)
            raise UserError(
                f"{source.address} has changed since the run began: use --overwrite"
            ) from None
        first_row = 0
        for group in range(*request.pieces):
            size = file.metadata.row_group(group).num_rows
            done = 0
            try:
                for rows in _row_group(file, group, list(request.columns), request.batch_rows):
                    yield first_row + done, rows
                    done += rows.num_rows
            except Exception as error:
                source.raise_unless_damage(error)
            # Some damage shows only in that there are fewer rows than there should be.
            if done < size:
                for at, rows in _salvage(file, source, group, request, skipped):
                    given = max(done - at, 0)  # of these rows, before the damage showed
                    if given < rows.num_rows:
                        yield first_row + at + given, rows.slice(given)
            first_row += size


def _row_group(
    file: pq.ParquetFile, group: int, names: list[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    metadata = file.metadata.row_group(group)
    row_bytes = metadata.total_byte_size // max(metadata.num_rows, 1)
    batch_rows = max(1, min(batch_rows, BATCH_BYTES // max(row_bytes, 1)))
    yield from file.iter_batches(batch_rows, row_groups=[group], columns=names, use_threads=False)


def _salvage(
    file: pq.ParquetFile, source: Source, group: int, request: Request, skipped: Counter[str]
) -> Rows:
    """The rows of a damaged row group up to the damage in the columns that matching needs.

    Any other column that is damaged is null throughout the row group.
    """
    needed = list(request.needed)
    size = file.metadata.row_group(group).num_rows
    others: dict[str, pa.ChunkedArray] = {}
    for name in request.columns:
        if name not in needed:
            try:
                column = file.read_row_group(group, columns=[name], use_threads=False)[name]
            except Exception as error:
                source.raise_unless_damage(error)
                column = None
            if column is not None and len(column) == size:
                others[name] = column
            else:
                skipped[reasons.UNREADABLE_VALUE] += 1
    done = 0
    try:
        for rows in _row_group(file, group, needed, request.batch_rows):
            whole = rows
            for name, column in others.items():
                part = column.slice(done, rows.num_rows).combine_chunks()
                whole = whole.append_column(name, part)
            yield done, whole
            done += rows.num_rows
    except Exception as error:
        source.raise_unless_damage(error)
    if done < size:
        skipped[reasons.UNREADABLE_ROW_GROUP] += size - done
