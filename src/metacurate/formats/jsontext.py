"""JSON: objects on lines or in an array; lines are parsed by Arrow, or one by one by Python.

Besides, the files of MetaCLIP's later scripts: one object ``{uuid: texts}`` (``_named_row``).
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.types as pat

from metacurate.formats import reasons
from metacurate.formats.files import HEAD_BYTES, Source, TextStream
from metacurate.formats.protocol import Look, Request, Rows, UnusableFile
from metacurate.formats.types import MAX_DEPTH

BLOCK_BYTES = 8 << 20
MAX_LINE_BYTES = 64 << 20
MAX_COLUMNS = 1000
MAX_FIELDS = 100  # of an object within a row; with more it is text
MAX_DIGITS = 1000
EXACT = 2**53  # integers up to here are doubles

_BETWEEN = re.compile(r"[\s,]*")
_COLON = re.compile(r"\s*:\s*")
# The start of an object whose names are digests in hex (the official uuids have 24 digits).
_NAMED = re.compile(rb'\s*\{\s*"[0-9a-f]{16,64}"\s*:\s*[\["]')
_DIGEST = re.compile(r"[0-9a-f]{16,64}")
_STRINGS = [(name, pa.string()) for name in ("source", "text", "lang")]
NAMED_SCHEMA = pa.schema([("uuid", pa.string()), ("texts", pa.list_(pa.struct(_STRINGS)))])


class Json:
    """JSON lines, one array of objects, or one object of names and texts: one piece a file."""

    title = "JSON"
    suffixes: tuple[str, ...] = (".jsonl", ".ndjson", ".json")
    # Beside other tables, a file of this name is most often about them.
    shy: tuple[str, ...] = (".json",)
    compressible = True

    def look(self, source: Source, compression: str | None) -> Look:
        """The columns of the objects in the file's first MiB."""
        stream = TextStream(source, compression)
        sample = stream.sample()
        array = sample.lstrip()[:1] == b"["
        named = _is_named(sample)
        unseen: Counter[str] = Counter()
        if named:
            schema = NAMED_SCHEMA
        else:
            rows = next(_elements([sample], unseen), []) if array else objects(sample, unseen)
            schema = infer_schema(rows)
        if not schema.names:
            where = "array's" if array else "lines of its"
            raise UnusableFile(f"has no JSON object in the {where} first MiB")
        return Look(schema, settings={"array": array, "named": named})

    def read(
        self, source: Source, compression: str | None, request: Request, skipped: Counter[str]
    ) -> Rows:
        """The rows, always with all columns: which there are must not depend on the columns."""
        stream = TextStream(source, compression)
        parse = _parse_blocks
        if request.settings["array"]:
            parse = _parse_array
        elif request.settings["named"]:
            parse = _parse_named
        first_row = 0
        for rows in parse(stream, request, skipped):
            yield first_row, rows
            first_row += rows.num_rows
        if stream.damage is not None:
            skipped[reasons.TRUNCATED_FILE] += 1


def _parse_blocks(
    stream: TextStream, request: Request, skipped: Counter[str]
) -> Iterator[pa.RecordBatch]:
    for block in blocks(stream, skipped):
        yield parse(block, request.schema, skipped, request.strict)


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


def parse(
    block: bytes, schema: pa.Schema, skipped: Counter[str], strict: Sequence[str] = ()
) -> pa.RecordBatch:
    """The rows of a block of lines, in the given schema; other fields are left out.

    Lines that hold no JSON object are counted as ``malformed_row``, values that have no place in
    their column's type as ``unconvertible_value`` (they become null). In a column of text, other
    values are JSON text, unless it is one of ``strict``.
    """
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    table = None
    # Arrow takes a line "null" for a row, and crashes if there are no others.
    if block.startswith(b"{") and block.count(b"\n{") + 1 == lines:
        with suppress(pa.ArrowException):
            table = pa.json.read_json(
                pa.BufferReader(block),
                pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
                pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
            )
    # Arrow takes several objects on one line, or one over several lines: the slow way decides.
    if table is None or table.num_rows != lines:
        return to_batch(objects(block, skipped), schema, skipped, strict)
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
            row = json.loads(line.decode("utf-8", "surrogateescape"), parse_int=_integer)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            skipped[reasons.MALFORMED_ROW] += 1
    return rows


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def _parse_array(
    stream: TextStream, request: Request, skipped: Counter[str]
) -> Iterator[pa.RecordBatch]:
    pieces = iter(lambda: stream.read(HEAD_BYTES), b"")
    for rows in _elements(pieces, skipped):
        yield to_batch(rows, request.schema, skipped, request.strict)


def _parse_named(
    stream: TextStream, request: Request, skipped: Counter[str]
) -> Iterator[pa.RecordBatch]:
    pieces = iter(lambda: stream.read(HEAD_BYTES), b"")
    for rows in _members(pieces, skipped):
        yield to_batch(rows, request.schema, skipped, request.strict)


def _is_named(sample: bytes) -> bool:
    """Whether a file that begins so is one object of names and texts, and not rows of columns.

    Names are digests of one length, all of them: a row with such a column has others beside it, or
    is followed by more rows.
    """
    if not _NAMED.match(sample):
        return False
    text = sample.decode("utf-8", "surrogateescape")
    at, lengths = text.index("{") + 1, set[int]()
    try:
        while True:
            at = _between(text, at)
            if text[at : at + 1] == "}":
                return not text[at + 1 :].strip()
            name, end = _DECODER.raw_decode(text, at)
            if not (isinstance(name, str) and _DIGEST.fullmatch(name)):
                return False
            lengths.add(len(name))
            if len(lengths) > 1:
                return False
            colon = _COLON.match(text, end)
            if colon is None:
                return True  # cut off
            _, at = _DECODER.raw_decode(text, colon.end())
    except (ValueError, RecursionError):
        return True  # cut off, or damaged: what reads it counts that


Found = tuple[dict[str, Any] | None, int]
"""A row, None if what is there is none, and where it ends."""
_DECODER = json.JSONDecoder(parse_int=_integer)


def _between(text: str, at: int) -> int:
    """Where what follows spaces and commas begins."""
    between = _BETWEEN.match(text, at)
    return between.end() if between else at


def _elements(
    pieces: Sequence[bytes] | Iterator[bytes], skipped: Counter[str]
) -> Iterator[list[dict[str, Any]]]:
    """The objects of an array that comes in pieces, some at a time."""

    def take(text: str, at: int) -> Found | None:
        value, end = _DECODER.raw_decode(text, at)
        if isinstance(value, dict):
            return value, end
        return None if end == len(text) else (None, end)  # a number may go on

    return _streamed(pieces, "[]", take, skipped)


def _members(
    pieces: Sequence[bytes] | Iterator[bytes], skipped: Counter[str]
) -> Iterator[list[dict[str, Any]]]:
    """The members of an object that comes in pieces, as rows, some at a time."""

    def take(text: str, at: int) -> Found | None:
        name, end = _DECODER.raw_decode(text, at)
        colon = _COLON.match(text, end)
        if colon is None:
            return None
        value, end = _DECODER.raw_decode(text, colon.end())
        if end == len(text) and not isinstance(value, list | str):
            return None
        return _named_row(name, value), end

    return _streamed(pieces, "{}", take, skipped)


def _streamed(
    pieces: Sequence[bytes] | Iterator[bytes],
    brackets: str,
    take: Callable[[str, int], Found | None],
    skipped: Counter[str],
) -> Iterator[list[dict[str, Any]]]:
    """What stands between two brackets, one by one; ``take`` gives None for what may go on.

    Behind the closing one there may be more such (``cat a.json b.json``). What follows what is no
    JSON, or larger than a line may be, cannot be found again.
    """
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    text, begun, ended = "", False, False
    for piece in pieces:
        text += decode(piece)
        rows: list[dict[str, Any]] = []
        at = 0
        while True:
            at = _between(text, at)
            if not begun and text[at : at + 1] == brackets[0]:
                begun, at = True, at + 1
                continue
            if begun and text[at : at + 1] == brackets[1]:
                begun, ended, at = False, True, at + 1
                continue
            try:
                found = take(text, at)
            except (ValueError, RecursionError):
                break
            if found is None:
                break
            row, at = found
            if row is None:
                skipped[reasons.MALFORMED_ROW] += 1
            else:
                rows.append(row)
        if rows:
            yield rows
        text = text[at:]
        if len(text) > MAX_LINE_BYTES:
            break
    if text or begun or not ended:
        skipped[reasons.UNREADABLE_REST] += 1


def _named_row(name: Any, value: Any) -> dict[str, Any] | None:
    """A member as a row with ``uuid`` and ``texts``, structs of source, text and language.

    The scripts write ``[[source, text, lang], ...]`` before matching, ``[[text, lang, ids], ...]``
    after it, and ``[text, lang, ids]`` for the one text that is curated; those of version 1.2
    ``[[text, probability], ...]`` for a loader that draws, and a synthetic text alone.
    """
    if not (isinstance(name, str) and isinstance(value, list | str)):
        return None
    if isinstance(value, str):
        value = [[None, value]]
    given = [value] if value and isinstance(value[0], str) else value
    texts = []
    for item in given:
        match item:
            case [text, lang, [*_]]:
                texts.append({"source": None, "text": text, "lang": lang})
            case [str() as text, int() | float()]:
                texts.append({"source": None, "text": text, "lang": None})
            case [source, text, *rest]:
                texts.append({"source": source, "text": text, "lang": rest[0] if rest else None})
            case _:
                texts.append({"source": None, "text": None, "lang": None})
    return {"uuid": name, "texts": texts}


# From objects to columns.


def to_batch(
    rows: Sequence[dict[str, Any]],
    schema: pa.Schema,
    skipped: Counter[str],
    strict: Sequence[str] = (),
) -> pa.RecordBatch:
    """The objects' values in the given schema; one that has no place there is null and counted."""
    arrays = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        values = [_fit(row.get(name), kind, skipped, name in strict) for row in rows]
        if pat.is_string(kind):
            # As bytes, unchecked: the reader of texts finds and counts what is not UTF-8.
            encoded = [None if v is None else _encoded(v) for v in values]
            arrays.append(pa.array(encoded, pa.binary()).view(pa.string()))
        else:
            arrays.append(pa.array([_without_surrogates(v, skipped) for v in values], kind))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


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


def _fit(value: Any, kind: pa.DataType, skipped: Counter[str], strict: bool) -> Any:
    """The value as one of the type, odd ones in it made null; null if it is none."""
    if value is None:
        return None
    if pat.is_string(kind):
        if isinstance(value, str):
            return value
        if not strict:
            return json.dumps(value, ensure_ascii=False)
    elif pat.is_list(kind):
        if isinstance(value, list):
            return [_fit(item, kind.value_type, skipped, strict) for item in value]
    elif pat.is_struct(kind):
        if isinstance(value, dict):
            return {f.name: _fit(value.get(f.name), f.type, skipped, strict) for f in kind.fields}
    elif pat.is_boolean(kind):
        if isinstance(value, bool):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = _number(value, kind)
        if number is not None:
            return number
    skipped[reasons.UNCONVERTIBLE_VALUE] += 1
    return None


def _number(value: float, kind: pa.DataType) -> float | None:
    if pat.is_floating(kind):
        try:
            return float(value)
        except OverflowError:
            return math.copysign(math.inf, value)
    if isinstance(value, float):
        if not (value.is_integer() and abs(value) <= EXACT):
            return None
        value = int(value)
    least, most = (0, 2**64 - 1) if pat.is_unsigned_integer(kind) else (-(2**63), 2**63 - 1)
    return value if least <= value <= most else None


def infer_schema(rows: Sequence[dict[str, Any]]) -> pa.Schema:
    """The columns of some objects, in order of appearance; empty if there are none.

    A column has the type that holds all its values; where there is none, or no value, it is text.
    """
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            if name in columns:
                columns[name].append(value)
            elif len(columns) < MAX_COLUMNS and name.isprintable():
                columns[name] = [value]
    return pa.schema([(name, _inferred(values, 1)) for name, values in columns.items()])


def _inferred(values: Sequence[Any], depth: int) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.bool_()
    if kinds and kinds <= {int, float}:
        whole = [value for value in values if isinstance(value, int)]
        least, most = min(whole, default=0), max(whole, default=0)
        if float in kinds:
            return pa.float64() if least >= -EXACT and most <= EXACT else pa.string()
        if least >= -(2**63) and most < 2**63:
            return pa.int64()
        return pa.uint64() if least >= 0 and most < 2**64 else pa.string()
    if kinds == {list} and depth < MAX_DEPTH:
        items = [item for value in values if value is not None for item in value]
        return pa.list_(_inferred(items, depth + 1))
    if kinds == {dict} and depth < MAX_DEPTH:
        fields: dict[str, list[Any]] = {}
        for value in values:
            for name, item in (value or {}).items():
                fields.setdefault(name, []).append(item)
        if 0 < len(fields) <= MAX_FIELDS and all(name.isprintable() for name in fields):
            return pa.struct([(n, _inferred(items, depth + 1)) for n, items in fields.items()])
    return pa.string()
