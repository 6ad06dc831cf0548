"""Arrow's own files (Feather, and what Hugging Face's ``datasets`` keeps on disk) and streams."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.types as pat

from metacurate.errors import ArgumentError
from metacurate.formats import reasons
from metacurate.formats.files import Source, one_line
from metacurate.formats.protocol import Look, Request, Rows, UnusableFile
from metacurate.formats.types import has_arrays, is_string

FILE_MAGIC = b"ARROW1"


class Arrow:
    """Arrow files and streams: one piece each, read a record batch at a time."""

    title = "Arrow"
    suffixes: tuple[str, ...] = (".arrow", ".feather")
    shy: tuple[str, ...] = ()
    compressible = False

    def look(self, source: Source, compression: str | None) -> Look:
        """The columns."""
        del compression
        try:
            schema = _open(source).schema
            columns = zip(schema.names, schema.types, strict=True)
            lost = tuple(name for name, kind in columns if not has_arrays(kind))
            return Look(schema, settings={"lost": lost})
        except Exception as error:
            source.raise_unless_damage(error)
            raise UnusableFile(f"is no readable Arrow file ({one_line(error)})") from None

    def read(
        self, source: Source, compression: str | None, request: Request, skipped: Counter[str]
    ) -> Rows:
        """The rows, up to where the file is damaged."""
        del compression
        try:
            reader = _open(source)
        except Exception as error:
            source.raise_unless_damage(error)
            raise ArgumentError(
                "{file} has changed since the run began: use {overwrite}", file=source.address
            ) from None
        of_file = isinstance(reader, pa.RecordBatchFileReader)
        first_row = number = 0
        while not of_file or number < reader.num_record_batches:
            try:
                rows = reader.get_batch(number) if of_file else reader.read_next_batch()
            except StopIteration:
                return
            except Exception as error:
                source.raise_unless_damage(error)
                skipped[reasons.TRUNCATED_FILE] += 1
                return
            number += 1
            columns = {}
            for name in request.columns:
                if name in request.settings["lost"]:
                    skipped[reasons.UNREADABLE_VALUE] += rows.num_rows
                    continue
                column = rows.column(name)
                if _is_valid(column):
                    columns[name] = column
                elif name in request.needed:
                    skipped[reasons.UNREADABLE_ROW_GROUP] += rows.num_rows
                    break
                else:
                    skipped[reasons.UNREADABLE_VALUE] += rows.num_rows
            else:
                yield first_row, pa.record_batch(columns)
            first_row += rows.num_rows


def _open(source: Source) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
    source.arrow.seek(0)
    magic = source.arrow.read(len(FILE_MAGIC))
    source.arrow.seek(0)
    return (pa.ipc.open_file if magic == FILE_MAGIC else pa.ipc.open_stream)(source.arrow)


def _is_valid(column: pa.Array) -> bool:
    """Whether a column's buffers belong together; that texts are UTF-8 is looked at later."""
    if is_string(column.type) and not pat.is_string_view(column.type):
        large = pat.is_large_string(column.type)
        column = column.view(pa.large_binary() if large else pa.binary())
    try:
        column.validate(full=True)
    except pa.ArrowException:
        return False
    return True
