"""Reading large compressed files in bounded blocks: gzip, bzip2 (many streams, in parts) and plain.

Wikipedia's *multistream* dumps are a row of independent bzip2 streams of 100 pages each. A part of
such a file is read by starting at the first stream that begins in it, so parts need no index.
Damage costs the stream it is in; the next one is found by its magic number.
"""

from __future__ import annotations

import bz2
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from metacurate.runtime.inputs import open_input
from metacurate.wikipedia.reasons import Loss

BLOCK_BYTES = 1 << 20
# "BZh", the block size, then the 48-bit mark of a first block or of an empty stream's end.
_BZ2_STREAM = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
_BZ2_MAGIC_BYTES = 10


@dataclass(frozen=True)
class Part:
    """The bytes ``start`` to ``end`` (exclusive) of a file, as stored."""

    address: str
    start: int
    end: int


@dataclass(frozen=True)
class Block:
    """Decompressed bytes. ``owned``: they begin in the part itself, not after it. ``gap``: what
    went before them is lost."""

    data: bytes
    owned: bool = True
    gap: bool = False


def split(address: str, part_bytes: int) -> list[Part]:
    """A file's parts of about ``part_bytes`` each; gzip cannot be split and is one part."""
    with open_input(address) as file:
        size = file.seek(0, 2)
    if address.endswith(".gz"):
        return [Part(address, 0, size)]
    return [Part(address, s, min(s + part_bytes, size)) for s in range(0, max(size, 1), part_bytes)]


def read_blocks(part: Part, losses: Counter[str]) -> Iterator[Block]:
    """Decompressed blocks of at most ``BLOCK_BYTES``, those beyond the part included (not owned).

    Damage is counted in ``losses`` (``damaged_streams``, ``truncated_streams``), never raised.
    """
    with open_input(part.address) as file:
        if part.address.endswith(".bz2"):
            yield from _bz2_blocks(file, part, losses)
        elif part.address.endswith(".gz"):
            yield from _gzip_blocks(file, losses)
        else:
            yield from _plain_blocks(file, part)


def read_lines(part: Part, losses: Counter[str], max_bytes: int) -> Iterator[bytes]:
    """The lines of a whole file without their ends; longer ones are ``long_lines`` in ``losses``.

    A line cut off by damage is lost (it is part of the damage counted).
    """
    rest, skipping = b"", False
    for block in read_blocks(part, losses):
        if block.gap:
            rest, skipping = b"", True
        lines = (rest + block.data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if skipping:
                skipping = False
            elif len(line) > max_bytes:
                losses[Loss.LONG_LINES] += 1
            else:
                yield line
        if len(rest) > max_bytes:
            if not skipping:
                losses[Loss.LONG_LINES] += 1
            rest, skipping = b"", True
    if rest and not skipping and not losses[Loss.TRUNCATED_STREAMS]:
        yield rest


def _plain_blocks(file: IO[bytes], part: Part) -> Iterator[Block]:
    position = file.seek(part.start)
    while True:
        owned = position < part.end
        wanted = min(BLOCK_BYTES, part.end - position) if owned else BLOCK_BYTES
        data = file.read(wanted)
        if not data:
            return
        position += len(data)
        yield Block(data, owned)


def _gzip_blocks(file: IO[bytes], losses: Counter[str]) -> Iterator[Block]:
    stored = file.read(BLOCK_BYTES)
    while stored:
        stream = zlib.decompressobj(wbits=31)
        try:
            while not stream.eof:
                if not stored:
                    losses[Loss.TRUNCATED_STREAMS] += 1
                    return
                data = stream.decompress(stored, BLOCK_BYTES)
                stored = stream.unconsumed_tail or (b"" if stream.eof else file.read(BLOCK_BYTES))
                if data:
                    yield Block(data)
        except zlib.error:
            losses[Loss.DAMAGED_STREAMS] += 1
            return
        stored = (stream.unused_data or file.read(BLOCK_BYTES)).lstrip(b"\0")


def _bz2_blocks(file: IO[bytes], part: Part, losses: Counter[str]) -> Iterator[Block]:
    begin = _next_stream(file, part.start, part.end)
    gap = False
    while begin is not None:
        owned = begin < part.end
        stream = bz2.BZ2Decompressor()
        position = file.seek(begin)
        try:
            while not stream.eof:
                stored = b""
                if stream.needs_input:
                    stored = file.read(BLOCK_BYTES)
                    position += len(stored)
                    if not stored:
                        losses[Loss.TRUNCATED_STREAMS] += owned
                        yield Block(b"", owned, gap=True)
                        return
                data = stream.decompress(stored, BLOCK_BYTES)
                if data:
                    yield Block(data, owned, gap)
                    gap = False
        except (OSError, EOFError, ValueError):
            losses[Loss.DAMAGED_STREAMS] += owned
            gap = True
            begin = _next_stream(file, begin + 1, None)
            continue
        after = position - len(stream.unused_data)
        following = _next_stream(file, after, None)
        if following is not None and following != after:
            losses[Loss.DAMAGED_STREAMS] += owned
            gap = True
        begin = following


def _next_stream(file: IO[bytes], start: int, end: int | None) -> int | None:
    """Where the first bzip2 stream at or after ``start`` (and before ``end``) begins."""
    position = file.seek(start)
    window = b""
    while end is None or position < end:
        stored = file.read(BLOCK_BYTES if window else 1 << 12)
        if not stored:
            return None
        window += stored
        found = _BZ2_STREAM.search(window)
        if found:
            begin = position + found.start()
            return begin if end is None or begin < end else None
        position += len(window)
        window = window[-(_BZ2_MAGIC_BYTES - 1) :]
        position -= len(window)
    return None
