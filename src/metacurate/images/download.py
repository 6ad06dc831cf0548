"""The download stage: a curated list of URLs becomes WebDataset tar shards.

On one machine one process fetches, with one event loop for the whole run, so that the limits per
host hold for the run; images are decoded in worker processes. On a cluster each task fetches a
shard, and hosts' turns come from keepers that all tasks share (``keeper``). Two shards are
under way at a time, on a cluster for each core: the next one starts while the slowest URLs of the
last one are waited for.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from typing import IO, Any, Self, TypedDict, Unpack

from metacurate.arguments import number, shown, whole
from metacurate.counts import counted
from metacurate.errors import ArgumentError, UserError
from metacurate.images.addresses import parse_networks
from metacurate.images.decoders import Decoders
from metacurate.images.duplicates import DUPLICATES
from metacurate.images.fetch import FetchConfig, Fetcher, affordable_concurrency
from metacurate.images.keeper import Keeper, KeptTurns, Limits
from metacurate.images.process import RESIZE_MODES, ImageConfig
from metacurate.images.shard import Outcome, Shard, fetch_rows, make_shard
from metacurate.images.urltable import ColumnNames, UrlReader, UrlTable
from metacurate.pool.memory import AnyPool, Given
from metacurate.runtime.engine import (
    Engine,
    Result,
    Shared,
    SharingEngine,
    Task,
    as_they_finish,
)
from metacurate.runtime.engines.local import LocalEngine, available_cores
from metacurate.runtime.manifest import Stage, Statistics, add_statistics
from metacurate.runtime.run import RunOptions, open_run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder
from metacurate.webdataset.shards import FAILED_TO_DOWNLOAD, FAILED_TO_RESIZE, SHARD_FILE

DOWNLOAD = Stage("download", (), downstream=(DUPLICATES,), files=SHARD_FILE.pattern)
SHARDS_AT_ONCE = 2
# Of a cluster's tasks; measured in docs/scale.md.
TASKS_PER_KEEPER = 128


@dataclass(frozen=True)
class DownloadConfig:
    """Options of a download.

    ``columns``: where URL, text and expected hash are; ``samples_per_shard``: URLs a shard;
    ``sample``: download that many rows only, spread evenly over the input (0: all);
    ``sample_offset``: in [0, 1), which ones.
    """

    columns: ColumnNames = field(default_factory=ColumnNames)
    images: ImageConfig = field(default_factory=ImageConfig)
    fetch: FetchConfig = field(default_factory=FetchConfig)
    samples_per_shard: int = 10_000
    sample: int = 0
    sample_offset: float = 0.5

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
class ClusterTask:
    """A shard as a worker of a cluster makes it: with its part of the table, and the keepers."""

    shard: _ShardTask
    table: UrlTable
    folder: Folder
    config: DownloadConfig
    keepers: tuple[Shared, ...]


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
    source: AnyPool, out: str, config: DownloadConfig, **options: Unpack[RunOptions]
) -> DownloadTotals:
    """Download the images of a curated set (or any pool with URLs) into tar shards.

    ``workers`` are decoding processes on one machine, and shards under way on a cluster, where
    ``fetch.concurrency`` is that of each shard. Raises UserError for options and files that do not
    fit.
    """
    _check(config)
    given = Given.of(source, "source")

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

    workers = options.get("workers")
    if options.get("engine", "local") == "local":
        # Its processes would be of no use here: what decodes images are others.
        options = {**options, "workers": 1}
    with open_run(out, inputs=given.paths, **options) as run, ExitStack() as stack:
        files = given.files(run)
        table = UrlTable.find(files, config.columns, config.sample, config.sample_offset)
        size = config.samples_per_shard
        shards = [
            _ShardTask(n, first, min(size, table.rows - first))
            for n, first in enumerate(range(0, table.rows, size))
        ]
        recorded = {"input": table.fingerprint(), **config.recorded()}
        tasks: Sequence[Any]
        function: Callable[[Any], Statistics]
        if isinstance(run.engine, SharingEngine):
            keepers = stack.enter_context(
                run.engine.share(partial(Keeper, _limits(config.fetch)), TASKS_PER_KEEPER)
            )
            engine: Engine = run.engine.overlapping(SHARDS_AT_ONCE)
            tasks = [
                ClusterTask(s, table.part(s.first, s.rows), run.folder, config, keepers)
                for s in shards
            ]
            function = download_shard
        elif isinstance(run.engine, LocalEngine):
            decoders = Decoders(workers or available_cores())
            engine = stack.enter_context(_Downloader(table, run.folder, config, decoders))
            tasks, function = shards, engine.shard
        else:
            raise ArgumentError(
                "a download needs {engine} local or ray: an engine whose tasks can share who asks "
                "which host (runtime.engine.SharingEngine)"
            )
        return run_stage(
            replace(run, engine=engine), DOWNLOAD, recorded, tasks, function,
            unit="URLs", counted="count", totals=totals, alone=True, metrics=_metrics,
        )  # fmt: skip


def _metrics(done: Statistics, rate: float) -> dict[str, float]:
    """Numbers under the names that img2dataset logs them by."""
    count = done.get("count", 0)
    shares = {
        "success": "successes",
        "failed_to_download": FAILED_TO_DOWNLOAD,
        "failed_to_resize": FAILED_TO_RESIZE,
    }
    return {
        "total/img_per_sec": rate,
        "total/count": count,
        **{f"total/{name}": done.get(of, 0) / max(count, 1) for name, of in shares.items()},
    }


def download_shard(task: ClusterTask) -> Statistics:
    """Download one shard in a worker of a cluster."""
    config, shard = task.config, task.shard
    rows = UrlReader(task.table).read(shard.first, shard.rows)
    fetch_config = _affordable(config.fetch)
    turns = KeptTurns(task.keepers, _limits(fetch_config), fetch_config.concurrency)

    async def fetch(decoders: Decoders, spool: IO[bytes]) -> list[Outcome]:
        async with Fetcher(fetch_config, turns) as fetcher:
            return await fetch_rows(rows, fetcher, decoders, config.images, spool)

    return make_shard(
        Shard(shard.number, task.folder, config.samples_per_shard, task.table.has_captions),
        rows,
        lambda spool: asyncio.run(fetch(_decoders(), spool)),
    )


@cache
def _decoders() -> Decoders:
    """This worker's decoding process, for all of its tasks; it ends with the worker."""
    return Decoders(1)


def _limits(config: FetchConfig) -> Limits:
    return Limits(config.per_host, config.host_delay, config.timeout, config.max_wait)


def _check(config: DownloadConfig) -> None:
    images, fetch = config.images, config.fetch
    if images.resize not in RESIZE_MODES:
        raise UserError(f"unknown resize mode {images.resize!r}; use {', '.join(RESIZE_MODES)}")
    for name, value, least in (
        ("image_size", images.size, 1),
        ("max_pixels", images.max_pixels, 1),
        ("samples_per_shard", config.samples_per_shard, 1),
        ("concurrency", fetch.concurrency, 1),
        ("per_host", fetch.per_host, 1),
        ("max_bytes", fetch.max_bytes, 1),
        ("min_size", images.min_size, 0),
        ("retries", fetch.retries, 0),
        ("max_redirects", fetch.max_redirects, 0),
        ("sample", config.sample, 0),
    ):
        whole(name, value, least)
    whole("quality", images.quality, 1, 101)
    for name, seconds in (("timeout", fetch.timeout), ("connect_timeout", fetch.connect_timeout)):
        if number(name, seconds) <= 0:
            raise ArgumentError(f"{{{name}}} must be above 0, not {{value}}", value=seconds)
    for name, amount in (
        ("max_aspect", images.max_aspect),
        ("host_delay", fetch.host_delay),
        ("backoff", fetch.backoff),
        ("max_wait", fetch.max_wait),
    ):
        if not 0 <= number(name, amount) < math.inf:
            raise ArgumentError(
                f"{{{name}}} must be a number from 0 on, not {{value}}", value=amount
            )
    if not 0 <= number("sample_offset", config.sample_offset) < 1:
        raise ArgumentError(
            "{sample_offset} must be in [0, 1), not {value}", value=config.sample_offset
        )
    if not fetch.user_agent.isprintable() or not fetch.user_agent.strip():
        raise ArgumentError(
            "{user_agent} must be one line of text, not {value}", value=shown(fetch.user_agent)
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

    def __init__(
        self, table: UrlTable, folder: Folder, config: DownloadConfig, decoders: Decoders
    ) -> None:
        self._reader, self._has_captions = UrlReader(table), table.has_captions
        self._folder, self._config, self._decoders = folder, config, decoders
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._is_ending = False  # of the loop's thread alone

    def __enter__(self) -> Self:
        self._thread.start()
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
        """See ``metacurate.runtime.engine.Engine``; shards overlap in time, two at most."""
        with ThreadPoolExecutor(SHARDS_AT_ONCE, "shard") as threads:
            try:
                yield from as_they_finish(
                    lambda position: threads.submit(function, tasks[position]),
                    range(len(tasks)), SHARDS_AT_ONCE, {},
                )  # fmt: skip
            except BaseException:
                # The shards' threads wait for the loop: end what they wait for, then them.
                self._loop.call_soon_threadsafe(self._cancel_all)
                raise

    def _cancel_all(self) -> None:
        self._is_ending = True
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    def shard(self, task: _ShardTask) -> Statistics:
        """Download one shard and write its three files."""
        rows = self._reader.read(task.first, task.rows)

        async def fetched(spool: IO[bytes]) -> list[Outcome]:
            if self._is_ending:  # this shard's thread was still reading when all were cancelled
                raise asyncio.CancelledError
            images = self._config.images
            return await fetch_rows(rows, self._fetcher, self._decoders, images, spool)

        def fetch(spool: IO[bytes]) -> list[Outcome]:
            return asyncio.run_coroutine_threadsafe(fetched(spool), self._loop).result()

        size = self._config.samples_per_shard
        return make_shard(Shard(task.number, self._folder, size, self._has_captions), rows, fetch)
