"""Which files of a folder are tars, and how one is opened: one way for all commands."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from isal import isal_zlib

from metacurate.errors import UserError
from metacurate.runtime.find import files_below
from metacurate.webdataset.headers import is_safe_name
from metacurate.webdataset.reasons import Unread

SUFFIX = re.compile(r"\.(tar|tar\.gz|tgz)$", re.IGNORECASE)
OTHER_SUFFIX = re.compile(r"\.(tar\.\w{1,4}|tbz2?|txz|tzst)$", re.IGNORECASE)
# Its stubs do not say that it is a class.
INFLATE_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment]
GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31
COPY_BYTES = 1 << 20
# Images hardly shrink, and a tar of nothing but headers shrinks to a fiftieth: what grows more is
# no honest tar, and is cut off here.
MAX_INFLATION = 64
MIN_INFLATED_BYTES = 64 << 20


@dataclass(frozen=True)
class TarFiles:
    """``sizes``: the tars below a folder, sorted, with their bytes; ``unread``: files that are not
    read, by reason.

    Names are relative to the folder, with ``/`` between parts.
    """

    sizes: dict[str, int]
    unread: Counter[str]

    @property
    def names(self) -> list[str]:
        """The tars' names."""
        return list(self.sizes)


def find_tars(url: str) -> TarFiles:
    """The ``.tar``, ``.tar.gz`` and ``.tgz`` files of a folder and those below it.

    Hidden files and folders are left out. UserError if there is none, or if two differ in their
    suffix only.
    """
    sizes: dict[str, int] = {}
    unread: Counter[str] = Counter()
    for name, file in files_below(url).items():
        if SUFFIX.search(name):
            if not is_safe_name(name):
                unread[Unread.UNSAFE_NAME] += 1
            elif file.fault:
                unread[Unread.NOT_A_FILE] += 1
            else:
                sizes[name] = file.size
        elif OTHER_SUFFIX.search(name):
            unread[Unread.OTHER_COMPRESSION] += 1
    if not sizes:
        others = " (in other compression than gzip they are not read)" if unread else ""
        raise UserError(f"{url} holds no .tar file{others}; give the folder of WebDataset shards")
    stems = Counter(stem_of(name) for name in sizes)
    twice = next((stem for stem, count in stems.items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{url} holds two tars of one name, {twice}; remove one of them")
    return TarFiles(sizes, unread)


def stem_of(name: str) -> str:
    """A tar's name without its suffix."""
    return SUFFIX.sub("", name)


@contextmanager
def open_tar(opened: IO[bytes]) -> Iterator[IO[bytes]]:
    """A tar to read, seekable; closed at the end. One in gzip (whatever its name) is inflated.

    It is inflated into a file without a name on local disk, up to 64 times its size. If its end is
    missing or damaged, the tar ends there.
    """
    with opened:
        packed = opened.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        if not packed:
            yield opened
            return
        with tempfile.TemporaryFile(prefix="metacurate-") as spool:
            _inflate(opened, spool, max(MIN_INFLATED_BYTES, MAX_INFLATION * size))
            yield spool


def _inflate(source: IO[bytes], target: IO[bytes], limit: int) -> None:
    """Inflate the gzip members of a file, up to ``limit`` bytes and to where one is damaged."""
    member = isal_zlib.decompressobj(GZIP_WINDOW)
    data = b""
    while limit > 0 and (data or (data := source.read(COPY_BYTES))):
        try:
            piece = member.decompress(data, min(COPY_BYTES, limit))
        except INFLATE_ERROR:
            return
        target.write(piece)
        limit -= len(piece)
        data = member.unconsumed_tail
        if member.eof:
            data = member.unused_data.lstrip(b"\0") or source.read(COPY_BYTES).lstrip(b"\0")
            if data and not data.startswith(GZIP_MAGIC):
                # What follows is no gzip: the reader of the tar says so.
                target.write(data[:limit])
                return
            member = isal_zlib.decompressobj(GZIP_WINDOW)
