"""Records of web archives (WARC, WAT), read so that damage costs the damaged records alone.

The standard layout has one gzip member a record; of zstd and lz4, one frame, which is called a
member here too. Members are inflated one by one, so that the size of a record is bounded before it
is in memory, and reading goes on at the next member after a damaged one: those of gzip that end
with their size at once (libdeflate), all others piece by piece. In plain files and streams of many
records, reading goes on at the next header after a broken record. All that is lost is counted by
reason.

Headers are read as they were meant: names in any case, lines that end in LF alone, any number of
empty lines before and after a record.
"""

from __future__ import annotations

import re
import struct
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import IO, Any, NamedTuple

import numpy as np

from metacurate.commoncrawl.reasons import DroppedRecord
from metacurate.kernels.bytes import BLOCK
from metacurate.kernels.wat import SPAN
from metacurate.needs import needs

with needs("crawl"):
    import deflate
    import lz4.frame
    from isal import igzip_lib

    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd

# A gzip member: its offset in the file, and what it holds, inflated.
Member = tuple[int, bytes | bytearray]

GZIP_MAGIC = b"\x1f\x8b\x08"
ZSTD_DICTIONARY_MAGIC = b"\x5d\x2a\x4d\x18"
LINE_END = b"\r\n"
RECORD_START = b"WARC/"
RECORD_ENDS = (b"\r\n\r\n", b"\n\n")
NEXT_RECORD = b"\nWARC/"
MAX_HEADER_BYTES = 64 << 10
MAX_LENGTH_DIGITS = 18

# The unused input at the end of a member is copied: small pieces keep that cheap. A member is
# inflated in one piece if it is in this reach and what looks like the next one comes after it.
PIECE_BYTES = 4 << 10
MEMBER_REACH = 64 << 10
LEAST_MEMBER_BYTES = 18
READ_BYTES = 1 << 20
PLAIN_BYTES = 256 << 10
INFLATE_BYTES = 32 << 10
SNIFFED_BYTES = 8 << 10
# How much is inflated before records are looked at: stays in a core's cache.
BATCH_BYTES = 256 << 10
# What is inflated and thrown away to find the end of an oversized member; beyond that (a gzip
# bomb), the next member is searched for in the compressed bytes.
MAX_DISCARDED_BYTES = 1 << 30

# The size of what is in a gzip member (modulo 2**32) ends it.
_SIZE = struct.Struct("<I")
_ERROR_CODE = re.compile(rb"<Code>(\w{1,64})</Code>", re.ASCII)
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_EMPTY_LINES = re.compile(rb"[\r\n]*")

# A header as CommonCrawl writes it: what ``_read_header`` would find, at a fraction of the price.
# A line is matched up to its ``\n``, which is faster than up to either half of the line end.
_USUAL_LINES = rb"(?:(?:WARC-[A-Z](?!arget-URI: )|Content-Type: )[^\n]*+\n)*+"
_USUAL_HEADER = re.compile(
    rb"WARC/1\.[01]\r\nWARC-Type: ([a-z]++)\r\n"
    + _USUAL_LINES
    + rb"(?:WARC-Target-URI: ([^\x00-\x20]++)\r\n)?+"
    + _USUAL_LINES
    + rb"Content-Length: ([0-9]{1,18})\r\n\r\n"
)


class _Compression(NamedTuple):
    """How members begin, what inflates one (the interface of ``bz2.BZ2Decompressor``), and what it
    raises.
    """

    magic: bytes
    inflater: Callable[[], Any]
    error: type[Exception]


_GZIP = _Compression(
    GZIP_MAGIC,
    lambda: igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_GZIP),
    igzip_lib.error,  # type: ignore[arg-type]
)
_COMPRESSIONS = (
    _GZIP,
    _Compression(b"\x28\xb5\x2f\xfd", zstd.ZstdDecompressor, zstd.ZstdError),
    _Compression(b"\x04\x22\x4d\x18", lz4.frame.LZ4FrameDecompressor, RuntimeError),
)


def _compression_of(start: bytes) -> _Compression | None:
    return next((known for known in _COMPRESSIONS if start.startswith(known.magic)), None)


@lru_cache
def _field_names(name: str) -> tuple[bytes, re.Pattern[bytes]]:
    """A field's name as usually written, and a pattern for it in any case."""
    pattern = rb"^" + re.escape(name.encode()) + rb":[ \t]*([^\r\n]*)"
    return b"\r\n%s: " % name.encode(), re.compile(pattern, re.IGNORECASE | re.MULTILINE)


def _field(header: bytes, name: str) -> bytes | None:
    usual, pattern = _field_names(name)
    at = header.find(usual)
    if at >= 0:
        at += len(usual)
        value = header[at : header.find(b"\r", at)]
        if b"\n" not in value:
            return value.strip()
    found = pattern.search(header)
    return found.group(1).strip() if found else None


class Record(NamedTuple):
    """One record: its place in the file, WARC-Type, and its bytes within ``data``, not copied."""

    offset: int
    """Where the record (or the gzip member that holds it) starts in the file, in bytes."""
    kind: bytes
    data: bytes
    first: int
    """Where the record begins in ``data``."""
    start: int
    end: int
    """``data[start:end]`` is the content block."""

    @property
    def header(self) -> bytes:
        """The header lines, each with its line end."""
        return self.data[self.first : self.start - len(LINE_END)]

    @property
    def block(self) -> bytes:
        """The content block."""
        return self.data[self.start : self.end]

    def field(self, name: str) -> str | None:
        """The value of a named header field, None if there is none."""
        value = _field(self.header, name)
        return value.decode("utf-8", "replace") if value is not None else None


class RecordBatch(NamedTuple):
    """Consecutive records of one type, side by side in ``data``."""

    data: bytes
    """Ends in ``BLOCK`` more bytes."""
    spans: np.ndarray
    """int64[n, 4]: where each record's content block and its ``WARC-Target-URI`` are (stripped;
    empty if there is none)."""


def file_start(file: IO[bytes]) -> bytes | None:
    """How a file begins (compressed: what its first member holds); None if it cannot be read."""
    start = file.read(SNIFFED_BYTES)
    file.seek(0)
    compression = _compression_of(start)
    if compression is not None:
        inflater = compression.inflater()
        try:
            start = inflater.decompress(start, SNIFFED_BYTES)
        except compression.error:
            return None
        if not start and not inflater.eof:
            return None
    return start


def other_content(start: bytes) -> str | None:
    """What a file is that cannot be a web archive, told by its start; None if it may be one."""
    if start.startswith(ZSTD_DICTIONARY_MAGIC):
        return "zstd with a dictionary, compress it without one"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not text:
        return "empty file"
    if text.startswith((b"<?xml", b"<error")):
        code = _ERROR_CODE.search(start)
        return f"XML error answer, {code[1].decode()}" if code is not None else "XML document"
    if text.startswith((b"<!doctype html", b"<html")):
        return "HTML page"
    if text.startswith(b"filedesc:"):
        return "ARC file, convert it to WARC"
    return None


def read_records(
    file: IO[bytes], kinds: frozenset[bytes], max_bytes: int, losses: Counter[str]
) -> Iterator[Record]:
    """Yield the records of the given (lower-case) WARC types that have at most ``max_bytes``.

    Adds to ``losses`` how often what is lost, by reason. What is lost before its type is known
    counts whatever its type. Memory: a few times ``max_bytes``.
    """
    window = _Window(file)
    if not _has_members_of_records(window):
        yield from _read_other(window, kinds, max_bytes, losses)
        return
    splitter = _Splitter(kinds, max_bytes, losses)
    for members in _member_groups(window, max_bytes + MAX_HEADER_BYTES, losses):
        for offset, member in members:
            yield from splitter.feed_member(offset, member)
    yield from splitter.finish()


def read_batches(
    file: IO[bytes], kind: bytes, max_bytes: int, losses: Counter[str]
) -> Iterator[RecordBatch]:
    """Yield the records that ``read_records`` yields for one type, many at a time."""
    window = _Window(file)
    kinds = frozenset({kind})
    batch = _Batch()
    if not _has_members_of_records(window):
        for record in _read_other(window, kinds, max_bytes, losses):
            batch.add(record)
            if batch.size >= BATCH_BYTES:
                yield batch.take()
    else:
        splitter = _Splitter(kinds, max_bytes, losses)
        for members in _member_groups(window, max_bytes + MAX_HEADER_BYTES, losses):
            batch.add_members(members, kind, max_bytes, splitter)
            if batch.size >= BATCH_BYTES:
                yield batch.take()
        for record in splitter.finish():
            batch.add(record)
    if batch.size:
        yield batch.take()


class _Batch:
    """Records that wait to become a ``RecordBatch``."""

    def __init__(self) -> None:
        self._pieces: list[bytes | bytearray] = []
        self._spans: list[tuple[int, int, int, int]] = []
        self.size = 0

    def add(self, record: Record) -> None:
        """Add a record."""
        block = record.block
        uri = _field(record.header, "WARC-Target-URI") or b""
        end = self.size + len(block)
        self._pieces += block, uri
        self._spans.append((self.size, end, end, end + len(uri)))
        self.size = end + len(uri)

    def add_members(
        self,
        members: list[Member],
        kind: bytes,
        max_bytes: int,
        splitter: _Splitter,
    ) -> None:
        """Add the records of gzip members.

        A member that is a record as CommonCrawl writes it is taken as it is, all others go through
        ``splitter``.
        """
        match, waits = _USUAL_HEADER.match, splitter.waits
        for offset, member in members:
            if not waits and (usual := match(member, 0, MAX_HEADER_BYTES)) is not None:
                its_kind, uri, digits = usual.groups()
                start = usual.end()
                end = start + int(digits)
                if member[end:] == RECORD_ENDS[0]:
                    if its_kind != kind:
                        continue
                    if uri is not None and end - start <= max_bytes:
                        size = self.size
                        at = size + usual.start(2)
                        self._pieces.append(member)
                        self._spans.append((size + start, size + end, at, at + len(uri)))
                        self.size = size + len(member)
                        continue
            for record in splitter.feed_member(offset, member):
                self.add(record)
            waits = splitter.waits

    def take(self) -> RecordBatch:
        """What waits; then nothing waits."""
        spans = np.array(self._spans, np.int64).reshape(-1, SPAN)
        batch = RecordBatch(b"".join([*self._pieces, bytes(BLOCK)]), spans)
        self.__init__()  # type: ignore[misc]
        return batch


class _Window:
    """A view that moves forward over a file and holds its bytes from ``position`` on."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._data = b""
        self._start = 0
        self._starts: list[int] | None = None  # where ``GZIP_MAGIC`` is in the data
        self.position = 0
        self.compression = _compression_of(self.peek(0, SNIFFED_BYTES))

    def peek(self, distance: int, size: int) -> bytes:
        """1 to ``size`` bytes, ``distance`` after the position; none only at the file's end."""
        at = self.position + distance - self._start
        while at >= len(self._data):
            if not self._fill():
                return b""
            at = self.position + distance - self._start
        return self._data[at : at + size]

    def piece(self, magic: bytes) -> bytes:
        """What is probably the member at the position, or its beginning; at least a byte."""
        at = self.position - self._start
        if at >= len(self._data):
            self.peek(0, 1)
            at = self.position - self._start
        end = self._data.find(magic, at + 1, at + MEMBER_REACH)
        return self._data[at : end if end >= 0 else at + PIECE_BYTES]

    def whole_members(self, max_bytes: int) -> list[Member]:
        """(offset, inflated bytes) of gzip members from the position on; the position moves on.

        Those that end where the next one begins and are not too large, up to the first that needs a
        closer look, and until they have ``BATCH_BYTES``.
        """
        if self.compression is not _GZIP:
            return []
        data, start = self._data, self._start
        if self._starts is None:
            self._starts = _places_of_members(data)
        starts = self._starts
        first = bisect_left(starts, self.position - start)
        members: list[Member] = []
        if first == len(starts) or starts[first] != self.position - start:
            return members
        size = 0
        at = starts[first]
        for number in range(first + 1, len(starts)):
            end = starts[number]
            if end - at < LEAST_MEMBER_BYTES:
                break
            (promised,) = _SIZE.unpack_from(data, end - _SIZE.size)
            if not 0 < promised <= max_bytes:
                break
            # libdeflate does not tell of bytes after a member. Those that end in its size would go
            # unnoticed; if there are any, the size is there twice.
            if data.find(data[end - _SIZE.size : end], at, end - 1) >= 0:
                break
            try:
                member = deflate.gzip_decompress(data[at:end], promised)
            except deflate.DeflateError:
                break
            if len(member) < promised:
                break
            members.append((start + at, member))
            at = end
            size += promised
            if size >= BATCH_BYTES:
                break
        self.position = start + at
        return members

    def starts_with(self, prefix: bytes) -> bool:
        """Whether these bytes are at the position."""
        self.peek(len(prefix) - 1, 1)
        return self._data.startswith(prefix, self.position - self._start)

    def skip_to(self, sought: bytes) -> bool:
        """Move forward to the next place of ``sought``; to the file's end if there is none."""
        while True:
            at = self._data.find(sought, self.position - self._start)
            if at >= 0:
                self.position = self._start + at
                return True
            end = self._start + len(self._data)
            self.position = max(self.position, end - len(sought) + 1)
            if not self._fill():
                self.position = end
                return False

    def _fill(self) -> bool:
        piece = self._file.read(READ_BYTES)
        kept = self._data[max(0, self.position - self._start) :]
        self._start += len(self._data) - len(kept)
        self._data = kept + piece
        self._starts = None
        return bool(piece)


def _places_of_members(data: bytes) -> list[int]:
    """Where ``GZIP_MAGIC`` is."""
    found = np.flatnonzero(np.frombuffer(data[: 1 - len(GZIP_MAGIC)], np.uint8) == GZIP_MAGIC[0])
    for place, byte in enumerate(GZIP_MAGIC[1:], 1):
        found = found[np.frombuffer(data, np.uint8)[found + place] == byte]
    return found.tolist()


def _has_members_of_records(window: _Window) -> bool:
    """Whether each compressed member holds one record, as far as the first one tells."""
    compression = window.compression
    if compression is None:
        return False
    try:
        head = compression.inflater().decompress(window.peek(0, READ_BYTES), READ_BYTES)
    except compression.error:
        return True
    header = _read_header(head, 0)
    if header is None:
        return True
    end = header.start + header.length
    if end >= len(head):
        return True
    # If the length is wrong: a member of one record has no second header.
    return not _starts_record(head, end) and head.find(NEXT_RECORD, header.start) < 0


def _member_groups(window: _Window, max_bytes: int, losses: Counter[str]) -> Iterator[list[Member]]:
    """Yield (offset, inflated bytes) of each sound member of at most ``max_bytes``, in lists.

    A list has ``BATCH_BYTES`` or less, but for its last member.
    """
    assert window.compression is not None
    while window.peek(0, 1):
        while members := window.whole_members(max_bytes):
            yield members
        if not window.peek(0, 1):
            break
        offset = window.position
        member = _inflate(window, max_bytes)
        if isinstance(member, bytes):
            yield [(offset, member)]
            continue
        losses[member] += 1
        if member == DroppedRecord.DAMAGED_MEMBER:
            window.position = max(window.position, offset + 1)
            window.skip_to(window.compression.magic)


def _inflate(window: _Window, max_bytes: int) -> bytes | str:
    """Inflate the member at the window's position, and move past it.

    Returns the reason if it cannot be read. Of a damaged member the position stays (so that a
    member that starts within is found); an oversized one is skipped.
    """
    compression = window.compression
    assert compression is not None
    magic = compression.magic
    piece = window.piece(magic)
    if not piece.startswith(magic) and not window.starts_with(magic):
        return DroppedRecord.DAMAGED_MEMBER
    inflater = compression.inflater()
    pieces: list[bytes] = []
    size = 0
    distance = len(piece)
    # A whole gzip member ends with its size: then one call does, without a buffer that grows.
    promised = int.from_bytes(piece[-4:], "little")
    room = promised + 1 if compression is _GZIP and promised <= max_bytes else INFLATE_BYTES
    while True:
        try:
            inflated = inflater.decompress(piece, room)
        except compression.error:
            return (
                DroppedRecord.DAMAGED_MEMBER
                if size <= max_bytes
                else _skip_oversized(window, magic)
            )
        size += len(inflated)
        if size <= max_bytes:
            pieces.append(inflated)
        else:
            pieces.clear()
            window.position += distance
            distance = 0
            if size > max_bytes + MAX_DISCARDED_BYTES:
                return _skip_oversized(window, magic)
        if inflater.eof:
            break
        room = INFLATE_BYTES
        piece = b""
        if inflater.needs_input:
            piece = window.peek(distance, PIECE_BYTES)
            distance += len(piece)
            if not piece:
                window.position += distance
                return DroppedRecord.TRUNCATED_MEMBER
    window.position += distance - len(inflater.unused_data or b"")
    if size > max_bytes:
        return DroppedRecord.OVERSIZED
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _skip_oversized(window: _Window, magic: bytes) -> str:
    window.skip_to(magic)
    return DroppedRecord.OVERSIZED


class _Header(NamedTuple):
    start: int
    """Where the content block begins."""
    kind: bytes
    length: int


class _Splitter:
    """Cuts bytes that come piece by piece into the wanted records.

    A record whose length does not lead to the next one (or the end) is broken; the next is looked
    for from the broken one's block on.
    """

    def __init__(self, kinds: frozenset[bytes], max_bytes: int, losses: Counter[str]) -> None:
        self._kinds, self._max_bytes, self._losses = kinds, max_bytes, losses
        self._pieces: list[bytes] = []
        self._size = 0  # of the pieces
        self._needed = 0  # what they must have before it is worth looking at them
        # Where pieces begin among the bytes and in the file, and whether they are of a plain one.
        self._places: list[tuple[int, int, bool]] = []
        self._is_lost = False
        self.left = 0
        """How much of an oversized record is still to come, in bytes."""

    @property
    def waits(self) -> bool:
        """Whether what came ends within a record, or within what is skipped."""
        return self._size > 0 or self.left > 0 or self._is_lost

    def feed_member(self, offset: int, inflated: bytes | bytearray) -> list[Record]:
        """The records that a gzip member (at ``offset``) completes: one, by the standard."""
        member = bytes(inflated)
        records = []
        if self.waits and _starts_record(member, 0):
            records = self.finish()
        self._add(offset, member, False)
        if self._size < self._needed:
            return records
        return records + self._read(may_end=True, is_all=False)

    def feed(self, offset: int, piece: bytes, *, is_plain: bool) -> list[Record]:
        """The records that more bytes complete.

        ``offset``: where in the file the bytes are, or the member that holds them.
        """
        self._add(offset, piece, is_plain)
        return self._read(may_end=False, is_all=False) if self._size >= self._needed else []

    def finish(self) -> list[Record]:
        """The records that are complete if nothing more comes; then nothing waits."""
        records = self._read(may_end=True, is_all=True)
        self._pieces, self._places, self._size, self._needed = [], [], 0, 0
        self.left, self._is_lost = 0, False
        return records

    def _add(self, offset: int, piece: bytes, is_plain: bool) -> None:
        if self.left:
            skipped = min(self.left, len(piece))
            self.left -= skipped
            piece = piece[skipped:]
            offset += skipped if is_plain else 0
        if piece:
            self._places.append((self._size, offset, is_plain))
            self._pieces.append(piece)
            self._size += len(piece)

    def _read(self, *, may_end: bool, is_all: bool) -> list[Record]:
        """The records of what is there.

        ``may_end``: a record may end with the bytes; ``is_all``: no more bytes will come.
        """
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        records: list[Record] = []
        at = needed = 0
        while True:
            if self._is_lost:
                found = data.find(NEXT_RECORD, at)
                if found < 0:
                    at = max(at, len(data) - len(NEXT_RECORD) + 1)
                    break
                at, self._is_lost = found + 1, False
            at = _after_empty_lines(data, at)
            if at == len(data):
                break
            header = _read_header(data, at)
            if header is None:
                if not is_all and _may_become_header(data, at):
                    break
                at = self._lose(at)
                continue
            if header.length > self._max_bytes:
                if header.kind in self._kinds:
                    self._losses[DroppedRecord.OVERSIZED] += 1
                end = header.start + header.length
                at = min(end, len(data))
                self.left = end - at
                continue
            end = header.start + header.length
            if end > len(data):
                if not is_all:
                    needed = end - at
                    break
                at = self._lose(header.start)
                continue
            following = _after_empty_lines(data, end)
            ends_here = may_end and following == len(data)
            if not ends_here and not _starts_record(data, following):
                if not is_all and RECORD_START.startswith(data[following:]):
                    break
                if not data.startswith(RECORD_ENDS, end):
                    at = self._lose(header.start)
                    continue
                # The record is whole, and what comes after it is no other one.
            if header.kind in self._kinds:
                offset = self._offset(at)
                records.append(Record(offset, header.kind, data, at, header.start, end))
            at = end
        self._drop(data, at, needed)
        return records

    def _lose(self, start: int) -> int:
        """Count a broken record; where the next one is to be looked for."""
        self._losses[DroppedRecord.BROKEN] += 1
        self._is_lost = True
        return start

    def _offset(self, at: int) -> int:
        place, offset, is_plain = next(p for p in reversed(self._places) if p[0] <= at)
        return offset + (at - place if is_plain else 0)

    def _drop(self, data: bytes, size: int, needed: int) -> None:
        rest = data[size:]
        places = [(self._offset(size), size)] if rest else []
        kept = [place for place in self._places if place[0] > size] if rest else []
        is_plain = bool(self._places) and self._places[-1][2]
        self._places = [(place - size, offset, is_plain) for offset, place in places]
        self._places += [(place - size, offset, is_plain) for place, offset, _ in kept]
        self._pieces, self._size, self._needed = [rest] if rest else [], len(rest), needed


def _after_empty_lines(data: bytes, at: int) -> int:
    found = _EMPTY_LINES.match(data, at)
    assert found is not None
    return found.end()


def _starts_record(data: bytes, at: int) -> bool:
    return data.startswith(RECORD_START, _after_empty_lines(data, at))


def _may_become_header(data: bytes, at: int) -> bool:
    """Whether more bytes may make a header of what is at a place."""
    if len(data) - at >= MAX_HEADER_BYTES or data.find(NEXT_RECORD, at) >= 0:
        return False
    start = data[at : at + len(RECORD_START)]
    return start == RECORD_START or RECORD_START.startswith(start)


def _read_header(data: bytes, at: int) -> _Header | None:
    """What the header at a place says of its record; None if it is none, or broken."""
    usual = _USUAL_HEADER.match(data, at, at + MAX_HEADER_BYTES)
    if usual is not None:
        kind, _, digits = usual.groups()
        return _Header(usual.end(), kind, int(digits))
    if not data.startswith(RECORD_START, at):
        return None
    limit = data.find(NEXT_RECORD, at, at + MAX_HEADER_BYTES)
    found = _HEADER_END.search(data, at, limit + 1 if limit >= 0 else at + MAX_HEADER_BYTES)
    if found is None:
        return None
    header = data[at : found.end()]
    length = _field(header, "Content-Length")
    name = _field(header, "WARC-Type")
    if length is None or name is None or not _is_length(length):
        return None
    return _Header(found.end(), name.lower(), int(length))


def _is_length(value: bytes) -> bool:
    return value.isdigit() and len(value) <= MAX_LENGTH_DIGITS


def _read_other(
    window: _Window, kinds: frozenset[bytes], max_bytes: int, losses: Counter[str]
) -> Iterator[Record]:
    """Yield the records of a file that is not one compressed member a record."""
    splitter = _Splitter(kinds, max_bytes, losses)
    if window.compression is not None:
        for offset, piece in _inflated(window, window.compression, losses):
            yield from splitter.feed(offset, piece, is_plain=False)
    else:
        while piece := window.peek(0, PLAIN_BYTES):
            offset = window.position
            window.position += len(piece)
            yield from splitter.feed(offset, piece, is_plain=True)
    if splitter.left:
        losses[DroppedRecord.DAMAGED_FILE] += 1
    yield from splitter.finish()


def _inflated(
    window: _Window, compression: _Compression, losses: Counter[str]
) -> Iterator[tuple[int, bytes]]:
    """Yield what members hold, in pieces, each with its member's place in the file."""
    while window.peek(0, 1):
        offset = window.position
        inflater = compression.inflater()
        while not inflater.eof:
            piece = b""
            if inflater.needs_input:
                piece = window.peek(0, PIECE_BYTES)
                window.position += len(piece)
                if not piece:
                    losses[DroppedRecord.TRUNCATED_MEMBER] += 1
                    return
            try:
                inflated = inflater.decompress(piece, INFLATE_BYTES)
            except compression.error:
                losses[DroppedRecord.DAMAGED_MEMBER] += 1
                window.skip_to(compression.magic)
                break
            yield offset, inflated
        else:
            window.position -= len(inflater.unused_data or b"")
