"""The download stage: a curated list of URLs becomes WebDataset tar shards.

One process fetches, with one event loop for the whole run, so that the limits per host hold for the
run; images are decoded in worker processes. Two shards are under way at a time: the next one starts
while the slowest URLs of the last one are waited for. A shard's images wait in a temporary file
until all have come and are then written in the order of the input.
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import IO, Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.counts import counted
from metacurate.errors import ArgumentError, UserError
from metacurate.images.addresses import parse_networks
from metacurate.images.decoders import Decoders
from metacurate.images.duplicates import DUPLICATES
from metacurate.images.fetch import Failure, FetchConfig, Fetcher, affordable_concurrency
from metacurate.images.process import RESIZE_MODES, ImageConfig, ProcessedImage, Rejected
from metacurate.images.reasons import FailedDownload
from metacurate.images.urltable import ColumnNames, Rows, UrlTable
from metacurate.pool.convert import json_row
from metacurate.runtime.engine import Result, Task
from metacurate.runtime.manifest import Stage, Statistics, add_statistics
from metacurate.runtime.run import open_run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder
from metacurate.webdataset.shards import (
    FAILED_TO_DOWNLOAD,
    FAILED_TO_RESIZE,
    SHARD_FILE,
    SUCCESS,
    Sample,
    TarWriter,
    sample_key,
    shard_stem,
    statistics_name,
)

DOWNLOAD = Stage("download", (), downstream=(DUPLICATES,), files=SHARD_FILE.pattern)
SHARDS_AT_ONCE = 2

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
class DownloadConfig:
    """Options of a download.

    ``columns``: where URL, text and expected hash are; ``samples_per_shard``: URLs a shard;
    ``sample``: download that many rows only, spread evenly over the input (0: all);
    ``sample_offset``: in [0, 1), which ones; ``workers``: decoding processes.
    """

    columns: ColumnNames = field(default_factory=ColumnNames)
    images: ImageConfig = field(default_factory=ImageConfig)
    fetch: FetchConfig = field(default_factory=FetchConfig)
    samples_per_shard: int = 10_000
    sample: int = 0
    sample_offset: float = 0.5
    workers: int = 1

    def recorded(self) -> dict[str, Any]:
        """What decides the output if all servers answer; the rest may change on resuming."""
        return {
            "images": asdict(self.images),
            "samples_per_shard": self.samples_per_shard,
            "sample": self.sample,
            "sample_offset": self.sample_offset if self.sample else None,
            "max_bytes": self.fetch.max_bytes,
            "max_redirects": self.fetch.max_redirects,
            "robots_directives": list(self.fetch.robots_directives),
            "allow_networks": list(self.fetch.allow_networks),
        }


@dataclass(frozen=True)
class _ShardTask:
    """Rows ``[first, first + rows)`` of the list of URLs become shard ``number``."""

    number: int
    first: int
    rows: int


@dataclass(frozen=True)
class _Stored:
    """A finished image in the shard's temporary file."""

    image: ProcessedImage
    offset: int
    size: int


class DownloadTotals(TypedDict):
    """``count`` rows: ``successes`` and failures; ``status_dict``: by reason (``reasons``), with
    those that succeeded; the names are img2dataset's. ``skipped``: rows and values of the input
    that could not be read, by reason (``formats.reasons``).
    """

    count: int
    successes: int
    failed_to_download: int
    failed_to_resize: int
    status_dict: dict[str, int]
    skipped: dict[str, int]


def download(
    source: str,
    out: str,
    config: DownloadConfig,
    *,
    overwrite: bool = False,
    show_progress: bool = False,
) -> DownloadTotals:
    """Download the images of a curated set (or any Parquet with URLs) into tar shards.

    Raises UserError for options and files that do not fit.
    """
    _check(config)
    table = UrlTable.find(source, config.columns, config.sample, config.sample_offset)
    size = config.samples_per_shard
    tasks = [
        _ShardTask(n, first, min(size, table.rows - first))
        for n, first in enumerate(range(0, table.rows, size))
    ]
    recorded = {"input": table.fingerprint(), **config.recorded()}

    def totals(shards: list[Statistics]) -> DownloadTotals:
        summed = {"status_dict": {}, "skipped": {}, **add_statistics(shards)}
        return {
            "count": summed.get("count", 0),
            "successes": summed.get("successes", 0),
            "failed_to_download": summed.get(FAILED_TO_DOWNLOAD, 0),
            "failed_to_resize": summed.get(FAILED_TO_RESIZE, 0),
            "status_dict": counted(summed["status_dict"]),
            "skipped": counted(table.skipped + Counter(summed["skipped"])),
        }

    with (
        open_run(
            out, inputs=[source], workers=1, overwrite=overwrite, show_progress=show_progress
        ) as run,
        _Downloader(table, run.folder, config) as downloader,
    ):
        return run_stage(
            replace(run, engine=downloader), DOWNLOAD, recorded, tasks, downloader.shard,
            unit="count", totals=totals, alone=True,
        )  # fmt: skip


def _check(config: DownloadConfig) -> None:
    images, fetch = config.images, config.fetch
    if images.resize not in RESIZE_MODES:
        raise UserError(f"unknown resize mode {images.resize!r}; use {', '.join(RESIZE_MODES)}")
    positive = {
        "image_size": images.size,
        "quality": images.quality,
        "max_pixels": images.max_pixels,
        "samples_per_shard": config.samples_per_shard,
        "workers": config.workers,
        "concurrency": fetch.concurrency,
        "per_host": fetch.per_host,
        "timeout": fetch.timeout,
        "connect_timeout": fetch.connect_timeout,
        "max_bytes": fetch.max_bytes,
    }
    for name, value in positive.items():
        if value <= 0:
            raise ArgumentError(f"{{{name}}} must be above 0, not {{value}}", value=value)
    if images.quality > 100:
        raise ArgumentError("{quality} must be at most 100, not {value}", value=images.quality)
    if not 0 <= config.sample_offset < 1:
        raise ArgumentError(
            "{sample_offset} must be in [0, 1), not {value}", value=config.sample_offset
        )
    parse_networks(fetch.allow_networks)


def _affordable(config: FetchConfig) -> FetchConfig:
    """The configuration with as many requests at a time as the system lets this process make."""
    concurrency = affordable_concurrency(config.concurrency)
    if concurrency < config.concurrency:
        print(
            f"only {concurrency} requests at a time, not {config.concurrency}: "
            "raise the limit of open files (ulimit -n)",
            file=sys.stderr,
        )
    return replace(config, concurrency=concurrency)


class _Downloader:
    """The run's event loop in a thread of its own, and the engine that puts shards on it."""

    def __init__(self, table: UrlTable, folder: Folder, config: DownloadConfig) -> None:
        self._table, self._folder, self._config = table, folder, config
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> _Downloader:
        self._thread.start()
        self._decoders = Decoders(self._config.workers)
        self._fetcher = Fetcher(_affordable(self._config.fetch))
        asyncio.run_coroutine_threadsafe(self._fetcher.__aenter__(), self._loop).result()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._decoders.__exit__(kind, error, trace)

    async def _close(self) -> None:
        ours = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not ours]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fetcher.__aexit__()

    def map_shards(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """See :class:`metacurate.runtime.engine.Engine`; shards overlap in time, two at most."""
        with ThreadPoolExecutor(SHARDS_AT_ONCE, "shard") as threads:
            waiting = iter(range(len(tasks)))
            under_way: dict[Future[Result], int] = {}
            try:
                while True:
                    while len(under_way) < SHARDS_AT_ONCE:
                        position = next(waiting, None)
                        if position is None:
                            break
                        under_way[threads.submit(function, tasks[position])] = position
                    if not under_way:
                        return
                    finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in finished:
                        position = under_way.pop(future)
                        yield position, future.result()
            except BaseException:
                # The shards' threads wait for the loop: end what they wait for, then them.
                self._loop.call_soon_threadsafe(self._cancel_all)
                raise

    def _cancel_all(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    def shard(self, task: _ShardTask) -> Statistics:
        """Download one shard and write its three files."""
        rows = self._table.read(task.first, task.rows)
        # On local disk, without a name: it vanishes with the process.
        with tempfile.TemporaryFile(prefix="metacurate-") as spool:
            outcomes = asyncio.run_coroutine_threadsafe(
                self._fetch_all(rows.urls, rows.expected_hashes, spool), self._loop
            ).result()
            return self._write(task, rows, outcomes, spool)

    async def _fetch_all(
        self, urls: list[str | None], expected: list[str | None], spool: IO[bytes]
    ) -> list[_Stored | Failure | Rejected]:
        store = functools.partial(_store, spool, [0])

        async def one(url: str | None, digest: str | None) -> _Stored | Failure | Rejected:
            if not url:
                return Failure(FailedDownload.NO_URL)
            outcome = await self._fetcher.fetch(
                url, lambda body: self._decoders.process(body, self._config.images)
            )
            if isinstance(outcome, Failure):
                return outcome
            image = outcome.value
            if isinstance(image, Rejected):
                return image
            if digest is not None and digest != image.sha256:
                return Failure(FailedDownload.HASH_MISMATCH)
            return store(image)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(u, d)) for u, d in zip(urls, expected, strict=True)]
        return [task.result() for task in tasks]

    def _write(
        self,
        task: _ShardTask,
        rows: Rows,
        outcomes: list[_Stored | Failure | Rejected],
        spool: IO[bytes],
    ) -> Statistics:
        stem = shard_stem(task.number)
        size = self._config.samples_per_shard
        results: dict[str, list[Any]] = {name: [] for name in RESULT_FIELDS}
        reasons: Counter[str] = Counter()
        statuses: Counter[str] = Counter()
        carried = rows.carried
        plain = carried.to_pylist() if carried.num_columns else [{}] * task.rows
        with self._folder.create(f"{stem}.tar") as file, _closing(TarWriter(file)) as tar:
            for row, (input_row, url, texts, outcome) in enumerate(
                zip(
                    plain,
                    rows.urls,
                    rows.captions,
                    outcomes,
                    strict=True,
                )
            ):
                key = sample_key(task.number, row, size)
                result = _result(key, url, texts, outcome)
                for name, values in results.items():
                    values.append(result[name])
                statuses[result["status"]] += 1
                reasons[result["error_message"] or SUCCESS] += 1
                if isinstance(outcome, _Stored):
                    spool.seek(outcome.offset)
                    files = {"jpg": spool.read(outcome.size)}
                    if self._table.has_captions:
                        files["txt"] = (texts or "").encode()
                    record = json_row({**input_row, **result})
                    files["json"] = json.dumps(record, ensure_ascii=False).encode()
                    tar.write(Sample(key, files))
        columns = [pa.array(results[name], kind) for name, kind in RESULT_FIELDS.items()]
        table = pa.table([*columns, *carried.columns], [*RESULT_FIELDS, *carried.column_names])
        with self._folder.create(f"{stem}.parquet") as file:
            pq.write_table(table, file, compression="zstd")
        statistics = {
            "count": task.rows,
            "successes": statuses[SUCCESS],
            FAILED_TO_DOWNLOAD: statuses[FAILED_TO_DOWNLOAD],
            FAILED_TO_RESIZE: statuses[FAILED_TO_RESIZE],
            "status_dict": counted(reasons),
            "skipped": counted(rows.lost),
        }
        self._folder.write_json(statistics_name(stem), statistics)
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


def _result(
    key: str, url: str | None, caption: str | None, outcome: _Stored | Failure | Rejected
) -> dict[str, Any]:
    result: dict[str, Any] = dict.fromkeys(RESULT_FIELDS)
    result |= {"key": key, "url": url, "caption": caption}
    if isinstance(outcome, Failure):
        return result | {"status": FAILED_TO_DOWNLOAD, "error_message": outcome.reason}
    if isinstance(outcome, Rejected):
        return result | {"status": FAILED_TO_RESIZE, "error_message": outcome.reason}
    image = vars(outcome.image)
    return result | {"status": SUCCESS} | {n: v for n, v in image.items() if n in RESULT_FIELDS}
