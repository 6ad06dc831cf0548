"""One shard of a download: its rows are fetched and become the shard's three files.

The images wait in a temporary file until all have come and are then written in the order of the
input, so that the order in which they come makes no difference.
"""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.counts import counted
from metacurate.images.decoders import Decoders
from metacurate.images.fetch import Failure, Fetcher
from metacurate.images.process import ImageConfig, ProcessedImage, Rejected
from metacurate.images.reasons import FailedDownload
from metacurate.images.urltable import Rows
from metacurate.pool.convert import json_row
from metacurate.runtime.manifest import Statistics
from metacurate.runtime.storage import Folder
from metacurate.webdataset.shards import (
    FAILED_TO_DOWNLOAD,
    FAILED_TO_RESIZE,
    SUCCESS,
    Sample,
    TarWriter,
    sample_key,
    shard_stem,
    statistics_name,
)

RESULT_FIELDS = {
    "key": pa.string(),
    "url": pa.string(),
    "caption": pa.string(),
    "status": pa.string(),
    "error_message": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "original_width": pa.int32(),
    "original_height": pa.int32(),
    "sha256": pa.string(),
    "dhash": pa.string(),
}
"""The columns of a shard's Parquet file besides those of the input."""


@dataclass(frozen=True)
class Shard:
    """A shard as it is written: its number, where to, URLs a shard, whether it has captions."""

    number: int
    folder: Folder
    size: int
    has_captions: bool


@dataclass(frozen=True)
class _Stored:
    """A finished image in the shard's temporary file."""

    image: ProcessedImage
    offset: int
    size: int


Outcome = _Stored | Failure | Rejected


def make_shard(shard: Shard, rows: Rows, fetch: Callable[[IO[bytes]], list[Outcome]]) -> Statistics:
    """Fetch the rows into a temporary file and write the shard's files; returns its statistics."""
    # On local disk, without a name: it vanishes with the process.
    with tempfile.TemporaryFile(prefix="metacurate-") as spool:
        return _write(shard, rows, fetch(spool), spool)


async def fetch_rows(
    rows: Rows, fetcher: Fetcher, decoders: Decoders, config: ImageConfig, spool: IO[bytes]
) -> list[Outcome]:
    """What became of each row; images are in the temporary file."""
    store = functools.partial(_store, spool, [0])

    async def one(url: str | None, digest: str | None) -> Outcome:
        if not url:
            return Failure(FailedDownload.NO_URL)
        outcome = await fetcher.fetch(url, lambda body: decoders.process(body, config))
        if isinstance(outcome, Failure):
            return outcome
        image = outcome.value
        if isinstance(image, Rejected):
            return image
        if digest is not None and digest != image.sha256:
            return Failure(FailedDownload.HASH_MISMATCH)
        return store(image)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(one(u, d))
                for u, d in zip(rows.urls, rows.expected_hashes, strict=True)
            ]
    except BaseExceptionGroup as errors:
        # One error stops all; the others are as good as the first.
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def _write(shard: Shard, rows: Rows, outcomes: list[Outcome], spool: IO[bytes]) -> Statistics:
    stem = shard_stem(shard.number)
    results: dict[str, list[Any]] = {name: [] for name in RESULT_FIELDS}
    reasons: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    carried = rows.carried
    count = len(rows.urls)
    plain = carried.to_pylist() if carried.num_columns else [{}] * count
    with shard.folder.create(f"{stem}.tar") as file, _closing(TarWriter(file)) as tar:
        for row, (input_row, url, texts, outcome) in enumerate(
            zip(plain, rows.urls, rows.captions, outcomes, strict=True)
        ):
            key = sample_key(shard.number, row, shard.size)
            result = _result(key, url, texts, outcome)
            for name, values in results.items():
                values.append(result[name])
            statuses[result["status"]] += 1
            reasons[result["error_message"] or SUCCESS] += 1
            if isinstance(outcome, _Stored):
                spool.seek(outcome.offset)
                files = {"jpg": spool.read(outcome.size)}
                if shard.has_captions:
                    files["txt"] = (texts or "").encode()
                record = json_row({**input_row, **result})
                files["json"] = json.dumps(record, ensure_ascii=False).encode()
                tar.write(Sample(key, files))
    columns = [pa.array(results[name], kind) for name, kind in RESULT_FIELDS.items()]
    table = pa.table([*columns, *carried.columns], [*RESULT_FIELDS, *carried.column_names])
    with shard.folder.create(f"{stem}.parquet") as file:
        pq.write_table(table, file, compression="zstd")
    statistics = {
        "count": count,
        "successes": statuses[SUCCESS],
        FAILED_TO_DOWNLOAD: statuses[FAILED_TO_DOWNLOAD],
        FAILED_TO_RESIZE: statuses[FAILED_TO_RESIZE],
        "status_dict": counted(reasons),
        "skipped": counted(rows.lost),
    }
    shard.folder.write_json(statistics_name(stem), statistics)
    return statistics


@contextmanager
def _closing(tar: TarWriter) -> Iterator[TarWriter]:
    yield tar
    tar.close()


def _store(spool: IO[bytes], end: list[int], image: ProcessedImage) -> _Stored:
    offset = end[0]
    end[0] += spool.write(image.jpeg)
    # The bytes are in the file now; what is kept in memory is without them.
    return _Stored(ProcessedImage(**{**vars(image), "jpeg": b""}), offset, len(image.jpeg))


def _result(key: str, url: str | None, caption: str | None, outcome: Outcome) -> dict[str, Any]:
    result: dict[str, Any] = dict.fromkeys(RESULT_FIELDS)
    result |= {"key": key, "url": url, "caption": caption}
    if isinstance(outcome, Failure):
        return result | {"status": FAILED_TO_DOWNLOAD, "error_message": outcome.reason}
    if isinstance(outcome, Rejected):
        return result | {"status": FAILED_TO_RESIZE, "error_message": outcome.reason}
    image = vars(outcome.image)
    return result | {"status": SUCCESS} | {n: v for n, v in image.items() if n in RESULT_FIELDS}
