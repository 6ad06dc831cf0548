"""WebDataset tar shards, read without trust: nothing is unpacked, and no name becomes a path.

Only headers are read here (image data is skipped by seeking). What a hostile tar may hold (names
with ``..``, links, devices, endless headers, sizes that lead backwards, a cut-off end) is counted
by reason and skipped, or ends the tar if nothing after it can be trusted. A sample is a run of
members with one key; a later run of the same key is skipped and counted (``repeated_key``). A tar
that follows on another one's end mark (``cat a.tar b.tar``) is read as its continuation.
"""

from __future__ import annotations

import io
import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Container, Generator, Iterator
from dataclasses import dataclass
from typing import IO

from metacurate.pool.uid import key_uid
from metacurate.webdataset.reasons import SkippedMember

# Extended headers (long names, PAX records) are read whole by tarfile: no honest one is larger.
MAX_HEADER_BYTES = 64 << 10
MAX_NAME_CHARACTERS = 1024
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)
ZEROS_AT_ONCE = 1 << 20

IMAGE_EXTENSIONS = {
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "gif": "GIF",
    "bmp": "BMP",
    "avif": "AVIF",
}
"""The extensions of images, for all commands, with Pillow's names of their formats."""

# Of these a terminal obeys: control characters, overrides of the writing direction, line ends.
# (Joiners, marks and unusual spaces are parts of names in many languages.)
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})
_OVERRIDES = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_DRIVE = re.compile(r"[A-Za-z]:")


# tarfile lets these through for headers that make no sense, besides its own errors.
_HEADER_ERRORS = (
    tarfile.TarError,
    ValueError,
    OverflowError,
    RecursionError,
    LookupError,
    EOFError,
)


@dataclass(frozen=True)
class Member:
    """A regular file: bytes [offset, offset + length) of the tar are its headers, data, padding."""

    extension: str
    offset: int
    length: int
    data_offset: int
    size: int


@dataclass(frozen=True)
class Sample:
    """Consecutive members of one key (the name up to the first dot after the last slash)."""

    key: str
    members: tuple[Member, ...]

    def find(self, extensions: Container[str]) -> Member | None:
        """The first member with one of the extensions."""
        return next((m for m in self.members if m.extension in extensions), None)


class _BoundedReads(io.BufferedIOBase):
    """A file whose single reads are bounded: a header's stated size is not to be trusted."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError("header too large")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def is_safe_name(name: str) -> bool:
    """Whether a name stays inside the folder that a tar is unpacked into, and only names.

    Undecodable bytes (surrogates) and what controls a terminal make it unsafe.
    """
    return (
        0 < len(name) <= MAX_NAME_CHARACTERS
        and not name.startswith(("/", "\\"))
        and not _DRIVE.match(name)
        and ".." not in name.replace("\\", "/").split("/")
        and not any(unicodedata.category(c) in _CONTROLS or c in _OVERRIDES for c in name)
    )


def split_name(name: str) -> tuple[str, str] | None:
    """A member's key and lower-case extension; None if it has no key or no extension."""
    folder, slash, base = name.rpartition("/")
    stem, dot, extension = base.partition(".")
    return (f"{folder}{slash}{stem}", extension.lower()) if stem and dot else None


def read_samples(file: IO[bytes], skipped: Counter[str]) -> Iterator[Sample]:
    """The samples of a tar (a seekable file), in order; ``skipped`` counts the rest by reason."""
    seen: set[int] = set()

    def is_new(key: str) -> bool:
        number = key_number(key)
        if number in seen:
            skipped[SkippedMember.REPEATED_KEY] += 1
            return False
        seen.add(number)
        return True

    key, members = "", list[Member]()
    for name, member in _regular_files(file, skipped):
        if name != key and members:
            if is_new(key):
                yield Sample(key, tuple(members))
            members = []
        key = name
        if any(m.extension == member.extension for m in members):
            skipped[SkippedMember.REPEATED_EXTENSION] += 1
        else:
            members.append(member)
    if members and is_new(key):
        yield Sample(key, tuple(members))


def _regular_files(file: IO[bytes], skipped: Counter[str]) -> Iterator[tuple[str, Member]]:
    end = file.seek(0, io.SEEK_END)
    start: int | None = 0
    while start is not None:
        file.seek(start)
        try:
            if start:
                tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
                file.seek(start)
            tar = tarfile.TarFile(fileobj=_BoundedReads(file))
        except _HEADER_ERRORS:
            # An empty tar is two zero blocks, and opens; this is no tar at all.
            skipped[SkippedMember.BYTES_AFTER_END if start else SkippedMember.UNREADABLE] += 1
            return
        whole = yield from _files_of(file, tar, start, end, skipped)
        start = _next_tar(file, tar.offset) if whole else None


def _next_tar(file: IO[bytes], place: int) -> int | None:
    """Where something other than zeros follows the end mark at ``place``; None if nothing does."""
    file.seek(place)
    while piece := file.read(ZEROS_AT_ONCE):
        if rest := piece.lstrip(b"\0"):
            first = file.tell() - len(rest)
            return first // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
    return None


def _files_of(
    file: IO[bytes], tar: tarfile.TarFile, start: int, end: int, skipped: Counter[str]
) -> Generator[tuple[str, Member], None, bool]:
    """The regular files of one tar; returns whether it was read up to its end mark."""
    reached = start
    while True:
        try:
            info = tar.next()
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all otherwise
        except _HEADER_ERRORS:
            skipped[SkippedMember.DAMAGED] += 1
            return False
        if info is None:
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE):
                return True
            # No end mark where the members end: cut off, or a header that is not one.
            skipped[SkippedMember.DAMAGED] += 1
            return False
        if info.size < 0 or info.offset < reached or tar.offset <= info.offset:
            skipped[SkippedMember.DAMAGED] += 1
            return False
        if tar.offset > end:  # of a sparse file the size is more than what is stored
            skipped[SkippedMember.TRUNCATED] += 1
            return False
        reached = tar.offset
        member = _member(info)
        if isinstance(member, Member):
            key, _ = split_name(info.name) or ("", "")
            yield key, member
        elif member is not None:
            skipped[member] += 1


def _member(info: tarfile.TarInfo) -> Member | SkippedMember | None:
    """The member, or why it is none (no reason for directories)."""
    if info.isdir():
        return None
    if not info.isreg() or info.issparse():
        return SkippedMember.NOT_A_REGULAR_FILE
    if not is_safe_name(info.name):
        return SkippedMember.UNSAFE_NAME
    names = split_name(info.name)
    if names is None:
        return SkippedMember.NO_KEY
    length = info.offset_data - info.offset + padded(info.size)
    return Member(names[1], info.offset, length, info.offset_data, info.size)


def padded(size: int) -> int:
    """A size rounded up to tar's blocks."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def key_number(key: str) -> int:
    """64 bits that stand for a key: the first half of its uid, big-endian."""
    return int.from_bytes((key_uid(key) or bytes(16))[:8], "big")


def read_member(file: IO[bytes], offset: int, length: int) -> tuple[str, Member] | None:
    """The key and the member if exactly these bytes of a tar are a regular one with a safe name."""
    try:
        file.seek(offset)
        tar = tarfile.TarFile(fileobj=_BoundedReads(file))
        info = tar.next()
    except (*_HEADER_ERRORS, OSError):
        return None
    if info is None:
        return None
    member = _member(info)
    names = split_name(info.name)
    if not isinstance(member, Member) or names is None:
        return None
    return (names[0], member) if (member.offset, member.length) == (offset, length) else None
