"""JSON lines: blocks of whole lines, parsed by Arrow, or line by line where Arrow gives up."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.types as pat

from metacurate.pool import reasons
from metacurate.pool.files import Source, TextStream
from metacurate.pool.formats.protocol import Look, Request, Rows, UnusableFile

BLOCK_BYTES = 8 << 20
MAX_LINE_BYTES = 64 << 20

_CONVERSION_ERRORS = (pa.ArrowException, TypeError, ValueError, OverflowError)


class JsonLines:
    """JSON lines: one piece a file."""

    title = "JSON lines"
    suffixes: tuple[str, ...] = (".jsonl", ".ndjson")
    shy: tuple[str, ...] = ()
    compressible = True

    def look(self, source: Source, compression: str | None) -> Look:
        """The columns of the file's first MiB."""
        schema = infer_schema(TextStream(source, compression).sample())
        if not schema.names:
            raise UnusableFile("has no JSON object in the lines of its first MiB")
        return Look(schema)

    def read(
        self, source: Source, compression: str | None, request: Request, skipped: Counter[str]
    ) -> Rows:
        """The rows, always with all columns: which there are must not depend on the columns."""
        stream = TextStream(source, compression)
        first_row = 0
        for block in blocks(stream, skipped):
            rows = parse(block, request.schema, skipped)
            yield first_row, rows
            first_row += rows.num_rows
        if stream.damage is not None:
            skipped[reasons.TRUNCATED_FILE] += 1


def blocks(stream: TextStream, skipped: Counter[str]) -> Iterator[bytes]:
    """Whole lines, about ``BLOCK_BYTES`` at a time; longer lines than the bound are counted."""
    pending = b""
    too_long = False
    while piece := stream.read(BLOCK_BYTES):
        if too_long:
            end = piece.find(b"\n") + 1
            if end == 0:
                continue
            piece, too_long = piece[end:], False
        pending += piece
        end = pending.rfind(b"\n") + 1
        if end:
            yield pending[:end]
            pending = pending[end:]
        elif len(pending) > MAX_LINE_BYTES:
            skipped[reasons.OVERSIZED_ROW] += 1
            pending, too_long = b"", True
    if pending:
        yield pending


def parse(block: bytes, schema: pa.Schema, skipped: Counter[str]) -> pa.RecordBatch:
    """The rows of a block of lines, in the given schema; other fields are left out.

    Lines that hold no JSON object are counted as ``malformed_row``, values of another type than
    the column's as ``unconvertible_value`` (they become null).
    """
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    try:
        table = pa.json.read_json(
            pa.BufferReader(block),
            pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowException:
        table = None
    # Arrow takes several objects on one line, or one over several lines: the slow way decides.
    if table is None or table.num_rows != lines:
        return _parse_lines(block, schema, skipped)
    return table.select(schema.names).combine_chunks().to_batches()[0]


def objects(block: bytes, skipped: Counter[str]) -> list[dict[str, Any]]:
    """The JSON objects of the lines; lines that hold none are counted as ``malformed_row``.

    Bytes that are not UTF-8 become lone surrogates, as does an escaped lone surrogate.
    """
    rows = []
    for line in block.split(b"\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            skipped[reasons.MALFORMED_ROW] += 1
    return rows


def _parse_lines(block: bytes, schema: pa.Schema, skipped: Counter[str]) -> pa.RecordBatch:
    rows = objects(block, skipped)
    arrays = [_column([r.get(field.name) for r in rows], field.type, skipped) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(values: list[Any], kind: pa.DataType, skipped: Counter[str]) -> pa.Array:
    if pat.is_string(kind):
        # As bytes, unchecked: the reader of texts finds and counts what is not UTF-8.
        strings = [_bytes_or_none(value, skipped) for value in values]
        return pa.array(strings, pa.binary()).view(pa.string())
    try:
        return pa.array(values, kind)
    except _CONVERSION_ERRORS:
        return pa.array([_converted(value, kind, skipped) for value in values], kind)


def _bytes_or_none(value: Any, skipped: Counter[str]) -> bytes | None:
    if value is None:
        return None
    if not isinstance(value, str):
        skipped[reasons.UNCONVERTIBLE_VALUE] += 1
        return None
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")


def _converted(value: Any, kind: pa.DataType, skipped: Counter[str]) -> Any:
    """The value if it is of the type (strings in it that are not UTF-8 made null), else None."""
    value = _without_surrogates(value, skipped)
    try:
        pa.array([value], kind)
    except _CONVERSION_ERRORS:
        skipped[reasons.UNCONVERTIBLE_VALUE] += 1
        return None
    return value


def _without_surrogates(value: Any, skipped: Counter[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without_surrogates(item, skipped) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item, skipped) for item in value]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            skipped[reasons.UNDECODABLE_VALUE] += 1
            return None
    return value


def infer_schema(block: bytes) -> pa.Schema:
    """The columns of the objects in a block, in order of appearance; empty if there are none.

    A column whose values are of several types (numbers apart), or all null, is text.
    """
    columns: dict[str, list[Any]] = {}
    for row in objects(block, Counter()):
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return pa.schema([(n, _inferred(v)) for n, v in columns.items() if n.isprintable()])


def _inferred(values: list[Any]) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int, float} and float in kinds:
        return pa.float64()
    if len(kinds) == 1 and kinds != {str}:
        try:
            return _without_nulls(
                pa.array([_without_surrogates(v, Counter()) for v in values]).type
            )
        except _CONVERSION_ERRORS:
            pass
    return pa.string()


def _without_nulls(kind: pa.DataType) -> pa.DataType:
    if pat.is_null(kind):
        return pa.string()
    if pat.is_list(kind):
        return pa.list_(_without_nulls(kind.value_type))
    if pat.is_struct(kind):
        return pa.struct([(field.name, _without_nulls(field.type)) for field in kind])
    return kind
