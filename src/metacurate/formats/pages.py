"""How large the pages of a Parquet column become when they are decoded, from their headers alone.

A few bytes can stand for gigabytes: one long value in a dictionary and a run of indices to it. The
headers (Thrift's compact protocol) are small, and read by position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.kernels.bytes import longest_string

HEADER_BYTES = 256  # most are smaller
MAX_HEADER_BYTES = 1 << 20
_DICTIONARY_PAGE = 2
_MAX_NESTING = 8
MAX_DICTIONARY_VALUES = 1 << 20
CODECS = {"LZ4": "lz4_raw", "SNAPPY": "snappy", "GZIP": "gzip", "ZSTD": "zstd",
          "BROTLI": "brotli"}  # fmt: skip
# Thrift's compact types.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 12
_INTEGERS = (4, 5, 6)

ReadAt = Callable[[int, int], bytes]
"""``(position, size)`` to the bytes there, fewer at the file's end."""


@dataclass(frozen=True)
class Page:
    """A page: whether it is the dictionary, its decompressed bytes, its values (nulls too).

    ``position`` and ``stored``: where in the file its bytes lie.
    """

    is_dictionary: bool
    size: int
    values: int
    position: int
    stored: int


class BrokenHeader(Exception):
    """Bytes that are no page header."""


def pages(read_at: ReadAt, chunk: pq.ColumnChunkMetaData) -> Iterator[Page]:
    """The pages of a column chunk; BrokenHeader where they cannot be followed."""
    position = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < position:
        position = chunk.dictionary_page_offset
    end = position + chunk.total_compressed_size
    values = 0
    while position < end and values < chunk.num_values:
        header, length = _header(read_at, position)
        size, compressed = header.get(2), header.get(3)
        if not (isinstance(size, int) and isinstance(compressed, int)) or min(size, compressed) < 0:
            raise BrokenHeader
        kinds = (header.get(number) for number in (5, 7, 8))
        count = next((kind[1] for kind in kinds if isinstance(kind, dict) and 1 in kind), 0)
        if not isinstance(count, int) or count < 0:
            raise BrokenHeader
        is_dictionary = header.get(1) == _DICTIONARY_PAGE
        yield Page(is_dictionary, size, count, position + length, compressed)
        values += 0 if is_dictionary else count
        position += length + compressed


def longest_value(read_at: ReadAt, chunk: pq.ColumnChunkMetaData, page: Page) -> int:
    """The most bytes that a value in the dictionary page of a column of strings can have."""
    if page.values > MAX_DICTIONARY_VALUES:
        return page.size
    data = read_at(page.position, page.stored)
    if chunk.compression != "UNCOMPRESSED":
        try:
            data = pa.decompress(data, page.size, CODECS.get(chunk.compression, chunk.compression))
        except (pa.ArrowException, ValueError, OSError):
            return page.size
    longest = longest_string(np.frombuffer(data, np.uint8))
    return page.size if longest < 0 else longest


def _header(read_at: ReadAt, position: int) -> tuple[dict[int, Any], int]:
    size = HEADER_BYTES
    while True:
        reader = _Compact(read_at(position, size))
        try:
            return reader.struct(0), reader.at
        except IndexError:  # it goes on behind these bytes
            if len(reader.data) < size or size >= MAX_HEADER_BYTES:
                raise BrokenHeader from None
            size *= 16


class _Compact:
    """A reader of Thrift structs: ``{field number: value}``; lists and strings are left out."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise BrokenHeader

    def integer(self) -> int:
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.data):
            raise IndexError

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > _MAX_NESTING:
            raise BrokenHeader
        fields: dict[int, Any] = {}
        number = 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            fields[number] = self.value(head & 15, depth)
        return fields

    def value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in _INTEGERS:
            return self.integer()
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_BYTE, _DOUBLE):
            self.skip(1 if kind == _BYTE else 8)
        elif kind == _BINARY:
            self.skip(self.varint())
        elif kind in (_LIST, _SET):
            head = self.byte()
            size = head >> 4 if head >> 4 < 15 else self.varint()
            if size > len(self.data):
                raise BrokenHeader
            for _ in range(size):
                # In a list, a boolean has a byte of its own.
                self.value(_BYTE if head & 15 in (_TRUE, _FALSE) else head & 15, depth + 1)
        else:
            raise BrokenHeader
        return None
