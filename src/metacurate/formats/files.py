"""A pool's files: opening them, reading them as a stream, naming them by their content."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import xxhash

from metacurate.errors import UserError
from metacurate.runtime.storage import (
    at_store,
    errors_named,
    is_local,
    local_path,
    storage_failure,
)

WHOLE_FINGERPRINT_BYTES = 64 << 20
SAMPLES, SAMPLE_BYTES = 16, 64 << 10

# Small pieces: what a decompressor had ready is lost with the piece in which the damage shows.
COMPRESSED_PIECE_BYTES = 4 << 10
PLAIN_PIECE_BYTES = 1 << 20
# Object stores answer slowly but then send fast. Samples are far apart: nothing to read ahead for.
READ_AHEAD_BYTES = 8 << 20
SAMPLE_AHEAD_BYTES = 16 << 10
MAX_HELD_LINE_BYTES = 32 << 20
HEAD_BYTES = 1 << 20  # of a text file, to find its columns
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class UnusableFile(Exception):
    """A file that cannot be read as a pool; the message is the reason.

    ``advice``: what to do, the end of an ``ArgumentError``'s template.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.advice = advice


class Source:
    """An open file, for Arrow (``arrow``), that tells damaged content from failing storage.

    ``ahead_bytes``: how much more than asked for is read from a remote file, for the next reads.
    """

    def __init__(self, address: str, ahead_bytes: int) -> None:
        self.address = address
        self.streams: list[Any] = []  # one that is collected would close the file below it
        self._failure: BaseException | None = None
        self._remote: Any = None
        if is_local(address):
            self.arrow: pa.NativeFile = pa.OSFile(str(local_path(address)), "rb")
        else:
            with at_store(address) as (filesystem, path):
                self._remote = filesystem.open(path, "rb", block_size=ahead_bytes)
            self.arrow = pa.PythonFile(self, mode="r")

    def raise_unless_damage(self, error: BaseException) -> None:
        """Raise what made reading fail if it was the storage; return if it was the content.

        Arrow reports unreadable content as its own exceptions or as an OSError without a number.
        """
        if self._failure is not None:
            raise self._failure
        if not isinstance(error, pa.ArrowException | UnicodeDecodeError) and (
            not isinstance(error, OSError) or error.errno is not None
        ):
            raise error

    @property
    def is_local(self) -> bool:
        """Whether the file lies on this machine."""
        return self._remote is None

    def read_at(self, position: int, size: int) -> bytes:
        """Some bytes from a position, fewer at the end; of a remote file only these are asked for.

        Where Arrow reads next does not change. UserError if the server gives other bytes.
        """
        if self._remote is None:
            return self.arrow.read_at(size, position)
        end = min(position + size, self._remote.size)
        with errors_named(self.address):
            data: bytes = self._remote.fs.cat_file(self._remote.path, start=position, end=end)
        if len(data) != end - position:
            raise self._no_ranges(f" (of {end - position:,} bytes it gave {len(data):,})")
        return data

    def _no_ranges(self, how: str = "") -> UserError:
        return UserError(
            f"{self.address} cannot be read: its server serves no ranges of bytes{how}; copy the "
            "file here, or use another server"
        )

    # What Arrow calls on a remote file. An exception that passes through Arrow is noted.

    def read(self, size: int = -1) -> bytes:
        """Read from the remote file."""
        try:
            with errors_named(self.address):
                return self._remote.read(size)
        except BaseException as error:
            # So fsspec's client of web servers tells that all came where a part was asked for.
            is_whole = isinstance(error, ValueError) and storage_failure(error) is not None
            self._failure = self._no_ranges() if is_whole else error
            raise

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        """Seek in the remote file."""
        return self._remote.seek(position, whence)

    def tell(self) -> int:
        """The position in the remote file."""
        return self._remote.tell()

    def size(self) -> int:
        """The file's size in bytes."""
        return self.arrow.size() if self._remote is None else self._remote.size

    @property
    def closed(self) -> bool:
        """Whether the remote file is closed."""
        return self._remote.closed

    def close(self) -> None:
        """Close the file."""
        if self._remote is None:
            self.arrow.close()
        else:
            self._remote.close()


@contextmanager
def open_source(address: str, ahead_bytes: int = READ_AHEAD_BYTES) -> Iterator[Source]:
    """Open a file for reading."""
    source = Source(address, ahead_bytes)
    try:
        yield source
    finally:
        source.close()


def fingerprint(source: Source) -> str:
    """XXH3 (128 bits, hex) of a file's size and content.

    Of files over 64 MiB the content is sampled: the first and last 64 KiB and 16 blocks of 64 KiB
    at even distances between them.
    """
    file, size = source.arrow, source.size()
    digest = xxhash.xxh3_128(size.to_bytes(8, "little"))
    file.seek(0)
    if size <= WHOLE_FINGERPRINT_BYTES:
        while piece := file.read(PLAIN_PIECE_BYTES):
            digest.update(piece)
    else:
        last = size - SAMPLE_BYTES
        for sample in range(SAMPLES + 2):
            file.seek(last * sample // (SAMPLES + 1))
            digest.update(file.read(SAMPLE_BYTES))
    file.seek(0)
    return digest.hexdigest()


class TextStream(io.RawIOBase):
    """The decompressed bytes of a text file, up to its end or to where it is damaged.

    ``damage`` then says what is wrong, and the piece of a line before the damage is dropped.
    ``read(n)`` returns n bytes except at the end. A byte order mark is left out.
    """

    def __init__(self, source: Source, compression: str | None) -> None:
        super().__init__()
        self._source = source
        self._input: Any = source.arrow
        self._piece = PLAIN_PIECE_BYTES
        if compression is not None:
            self._input = pa.CompressedInputStream(source.arrow, compression)
            source.streams.append(self._input)
            self._piece = COMPRESSED_PIECE_BYTES
        self._ready = bytearray()
        self._lines_end = 0  # whole lines end here in _ready
        self._ended = False
        self.damage: str | None = None
        self._ready += self._first_bytes()

    def _first_bytes(self) -> bytes:
        try:
            first = self._input.read(len(BYTE_ORDER_MARK))
        except Exception as error:
            self._source.raise_unless_damage(error)
            self.damage = one_line(error)
            self._ended = True
            return b""
        return first.removeprefix(BYTE_ORDER_MARK)

    def sample(self) -> bytes:
        """Up to a MiB from the start; UnusableFile if nothing can be read."""
        sample = self.read(HEAD_BYTES)
        if not sample and self.damage:
            raise UnusableFile(f"is damaged ({self.damage})")
        return sample

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, fewer only at the end; all that is left if negative."""
        while not self._ended and (size < 0 or self._lines_end < size):
            self._fill()
        count = self._lines_end if size < 0 else min(size, self._lines_end)
        result = bytes(self._ready[:count])
        del self._ready[:count]
        self._lines_end -= count
        return result

    def _fill(self) -> None:
        try:
            piece = self._input.read(self._piece)
        except Exception as error:
            self._source.raise_unless_damage(error)
            self.damage = one_line(error)
            self._ended = True
            return
        if not piece:
            self._ended = True
            self._lines_end = len(self._ready)
            return
        start = len(self._ready)
        self._ready += piece
        newline = piece.rfind(b"\n")
        if newline >= 0:
            self._lines_end = start + newline + 1
        elif len(self._ready) - self._lines_end > MAX_HELD_LINE_BYTES:
            self._lines_end = len(self._ready)


def one_line(error: BaseException) -> str:
    """An error's message, short and on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
