"""Folders of WebDataset tar shards in img2dataset's layout, written byte for byte reproducibly.

A shard ``NNNNN`` is ``NNNNN.tar`` (``KEY.jpg``, ``KEY.txt``, ``KEY.json`` of each image),
``NNNNN.parquet`` (a row for each URL, failures included) and ``NNNNN_stats.json``.
"""

from __future__ import annotations

import io
import math
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from metacurate.runtime.storage import Folder
from metacurate.webdataset import headers
from metacurate.webdataset.facts import read_record
from metacurate.webdataset.files import find_tars, open_tar, stem_of
from metacurate.webdataset.reasons import SkippedMember

SHARD_DIGITS = 5
SHARD_FILE = re.compile(r"(\d{5,})(\.tar|\.parquet|_stats\.json)")
MAX_MEMBER_BYTES = 2**28

SUCCESS = "success"
FAILED_TO_DOWNLOAD = "failed_to_download"
FAILED_TO_RESIZE = "failed_to_resize"
FILTERED = "filtered"


def shard_stem(number: int) -> str:
    """The name of a shard without extension."""
    return f"{number:0{SHARD_DIGITS}d}"


def sample_key(shard: int, row: int, samples_per_shard: int) -> str:
    """The key of a row: the shard's number, then the row's in as many digits as a shard needs."""
    digits = math.ceil(math.log10(samples_per_shard)) if samples_per_shard > 1 else 0
    return shard_stem(shard) + (f"{row:0{digits}d}" if digits else "")


def list_shards(folder: Folder) -> dict[str, str]:
    """The stems of a folder's tars in order, with the tars' names; UserError if it has none."""
    return {stem_of(name): name for name in find_tars(folder.url).names}


def statistics_name(stem: str) -> str:
    """The name of a shard's statistics."""
    return f"{stem}_stats.json"


@dataclass(frozen=True)
class Sample:
    """One sample of a tar: its key, and its files' bytes by extension, in their order."""

    key: str
    files: dict[str, bytes]

    @property
    def image(self) -> bytes | None:
        """The bytes of the image, if there is one."""
        return next(
            (data for ext, data in self.files.items() if ext in headers.IMAGE_EXTENSIONS), None
        )

    def record(self, problems: Counter[str]) -> dict[str, Any]:
        """The object in the sample's JSON; empty if there is none."""
        return read_record(self.files.get("json"), problems)


class TarWriter:
    """Writes samples whose bytes depend on their content only: no times, owners or modes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)

    def write(self, sample: Sample) -> None:
        """Add a sample's files."""
        for extension, data in sample.files.items():
            info = tarfile.TarInfo(f"{sample.key}.{extension}")
            info.size = len(data)
            self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()


def read_samples(file: IO[bytes], skipped: Counter[str]) -> Iterator[Sample]:
    """The samples of a tar in order, one in memory at a time; closes the file.

    ``skipped`` counts odd members, and damage: what comes before it is kept.
    """
    with open_tar(file) as tar:
        for found in headers.read_samples(tar, skipped):
            files = {}
            for member in found.members:
                if member.size > MAX_MEMBER_BYTES:
                    skipped[SkippedMember.TOO_LARGE] += 1
                    continue
                tar.seek(member.data_offset)
                files[member.extension] = tar.read(member.size)
            yield Sample(found.key, files)
