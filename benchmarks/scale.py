"""All of CommonCrawl on paper: rates measured here, multiplied; skew and stragglers simulated.

Measures core-seconds and bytes a pair of every stage on this machine (one process), works out
shards, memory, core-hours and storage for the pool of the paper, and simulates the schedule with
shards of unequal size, slow machines, stragglers and deaths.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import ROWS_PER_FILE, entries, texts
from measure import run_metacurate
from metacurate.curation.balance import balance
from metacurate.curation.count import (
    MOST_PARTIALS,
    PARTIAL,
    PARTIALS_PER_SUM,
    SHARDS_PER_PARTIAL,
    add_up,
    count,
    save_partial,
)
from metacurate.curation.datacard import write_datacard
from metacurate.curation.match import match
from metacurate.curation.settings import Balance
from metacurate.metadata.store import load_metadata
from metacurate.pool.open import open_pool
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.engine import MAX_DEATHS_PER_TASK
from metacurate.runtime.engines.local import LocalEngine
from metacurate.runtime.run import Run
from metacurate.runtime.storage import Folder
from record import record, table

# "Demystifying CLIP Data": 10.7 billion English pairs of 90 snapshots match; about half of the
# pool's pairs have no match; t = 170,000 keeps 2.5 billion.
MATCHED_PAIRS = 10_700_000_000
PAIRS = 2 * MATCHED_PAIRS
KEPT_PAIRS = 2_500_000_000
ENTRIES = 500_000
ROWS_PER_SHARD = 500_000

# An object store, as assumed (not measured): to answer a request, and to stream to one process.
REQUEST_SECONDS = 0.05
STREAM_BYTES_PER_SECOND = 100e6
REQUESTS_PER_TASK = 10


@dataclass(frozen=True)
class Measured:
    """Core-seconds and bytes on this machine."""

    seconds: dict[str, float]  # a pair of the pool, by stage
    size_pass: float  # core-seconds a pair: one pass of --target-size
    passes: int
    bytes: dict[str, float]  # a pair of the pool (curated: a kept pair)
    add_partial: float  # seconds
    peak_mib: float


def write_pool(folder: Path, rows: int) -> None:
    """A pool that compresses as real ones do: URLs with random parts, every text another order."""
    folder.mkdir()
    captions, rng = pa.array(texts()), np.random.default_rng(0)
    for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        size = min(ROWS_PER_FILE, rows - first)
        names = [rng.bytes(16).hex() for _ in range(size)]
        hosts = rng.zipf(1.5, size) % 100_000
        urls = [
            f"https://img{h}.example.org/media/{n}.jpg" for h, n in zip(hosts, names, strict=True)
        ]
        chosen = captions.take(pa.array(rng.integers(0, len(captions), size)))
        table = pa.table({"url": urls, "caption": chosen})
        path = folder / f"{number:05d}.parquet"
        pq.write_table(table, path, row_group_size=100_000, compression="zstd")


def measure(rows: int, folder: Path) -> Measured:
    """Curate ``rows`` pairs in one process, stage by stage."""
    (folder / "metadata.json").write_text(json.dumps(entries(ENTRIES)))
    write_pool(folder / "pool", rows)
    write_pool(folder / "warm", 2000)
    metadata, config = load_metadata(str(folder / "metadata.json")), PoolConfig()
    t = max(1.0, 200 * rows / 10_000_000)

    def stages(pool_name: str, out: str) -> dict[str, float]:
        run = Run(Folder(str(folder / out)), LocalEngine(1))
        pool = open_pool([str(folder / pool_name)], config)
        steps: dict[str, Callable[[], Any]] = {
            "match": lambda: match(run, pool, config, metadata),
            "count": lambda: count(run),
            "balance": lambda: balance(run, Balance(t=t), pool),
            "data card": lambda: write_datacard(run),
        }
        found = {}
        for name, step in steps.items():
            start = time.process_time()
            step()
            found[name] = (time.process_time() - start) / rows
        return found

    stages("warm", "compiled")
    seconds = stages("pool", "out")
    out = folder / "out"
    manifest = json.loads((out / "manifest.json").read_text())
    kept = manifest["stages"]["balance"]["totals"]["pairs_kept"]
    matched = manifest["stages"]["match"]["totals"]["pairs_matched"]

    class Passes:
        """A one-process engine that measures its passes over the index."""

        seconds, number = 0.0, 0

        def map_shards(self, function: Any, tasks: Any) -> Any:
            Passes.number += function.__name__ == "expected_shard_size"
            for position, task in enumerate(tasks):
                start = time.process_time()
                result = function(task)
                if function.__name__ == "expected_shard_size":
                    Passes.seconds += time.process_time() - start
                yield position, result

    solving = Run(Folder(str(out)), Passes(), overwrite=True)
    balance(solving, Balance(target_size=max(1, matched // 10)))
    save_partial(Folder(str(out)), "full.npy", np.ones(ENTRIES, np.uint64))
    start = time.perf_counter()
    add_up(Folder(str(out)), ["full.npy"] * 20, ENTRIES)
    add_partial = (time.perf_counter() - start) / 20
    peak = run_metacurate(
        "curate", folder / "pool", "--metadata", folder / "metadata.json", "--t", t,
        "--workers", 1, "--out", folder / "measured",
    ).peak_mib  # fmt: skip

    def size(place: Path) -> int:
        return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())

    return Measured(
        seconds=seconds,
        size_pass=Passes.seconds / Passes.number / rows,
        passes=Passes.number,
        bytes={
            "pool": size(folder / "pool") / rows,
            "index": size(out / "index") / rows,
            "curated": size(folder / "measured" / "curated") / kept,
        },
        add_partial=add_partial,
        peak_mib=peak,
    )


def bytes_moved(measured: Measured) -> dict[str, float]:
    """Bytes a pair that each stage reads and writes."""
    pool, index = measured.bytes["pool"], measured.bytes["index"]
    curated = measured.bytes["curated"] * KEPT_PAIRS / PAIRS
    return {
        "match": pool + index,
        "count": index,
        "balance": pool + index + curated,
        "data card": curated,
    }


# The simulation ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """How unequal shards and machines are."""

    size_sigma: float = 0.35  # of the logarithm of a shard's size
    speed_sigma: float = 0.10  # of the logarithm of a core's speed
    straggler_share: float = 0.005  # of the tasks: a bad disk, a busy neighbour
    straggler_factor: float = 5.0
    hours_between_deaths: float = 20.0  # core-hours: preempted machines, memory, hardware


@dataclass(frozen=True)
class Outcome:
    """How a simulated stage went."""

    hours: float
    ideal_hours: float
    idle: float  # share of the core-hours in which cores had nothing to do
    deaths: int
    stopped: bool  # a task died too often


def simulate(
    tasks: int, seconds: float, cores: int, world: World, rng: np.random.Generator
) -> Outcome:
    """Hand tasks to cores in order, as the engine does; a task whose core dies starts again.

    ``seconds`` is the mean duration of a task. A dead core is back at once (another takes over).
    """
    sigma = world.size_sigma
    work = seconds * rng.lognormal(-(sigma**2) / 2, sigma, tasks)
    work[rng.random(tasks) < world.straggler_share] *= world.straggler_factor
    speed = rng.lognormal(0.0, world.speed_sigma, cores)
    free = [(0.0, core) for core in range(min(cores, tasks))]
    heapq.heapify(free)
    waiting = list(range(tasks - 1, -1, -1))
    deaths: Counter[int] = Counter()
    busy = end = 0.0
    # A dead task waits until its death shows: until then it is only known as under way.
    again: list[tuple[float, int]] = []
    while waiting or again:
        now, core = heapq.heappop(free)
        if again and (again[0][0] <= now or not waiting):
            died, task = heapq.heappop(again)
            now = max(now, died)
        else:
            task = waiting.pop()
        duration = work[task] / speed[core]
        life = rng.exponential(world.hours_between_deaths * 3600)
        if life < duration:
            deaths[task] += 1
            heapq.heappush(again, (now + life, task))
            duration = life
            if deaths[task] >= MAX_DEATHS_PER_TASK:
                return Outcome(math.inf, 0, 0, deaths.total(), True)
        busy += duration
        end = max(end, now + duration)
        heapq.heappush(free, (now + duration, core))
    ideal = work.sum() / cores
    return Outcome(end / 3600, ideal / 3600, 1 - busy / (end * cores), deaths.total(), False)


def simulated_row(
    stage: str, tasks: int, seconds: float, cores: int, runs: int, seed: int
) -> list[str]:
    """The median and the worst of some simulated runs, as a row."""
    found = [
        simulate(tasks, seconds, cores, World(), np.random.default_rng([seed, cores, run]))
        for run in range(runs)
    ]
    hours = sorted(outcome.hours for outcome in found)
    middle = sorted(found, key=lambda outcome: outcome.hours)[runs // 2]
    return [
        stage,
        f"{cores:,}",
        f"{tasks:,}",
        shown_time(seconds),
        shown_time(3600 * middle.ideal_hours),
        shown_time(3600 * hours[runs // 2]),
        shown_time(3600 * hours[-1]),
        f"{middle.idle:.0%}",
        f"{np.mean([outcome.deaths for outcome in found]):,.1f}",
        f"{sum(outcome.stopped for outcome in found)} of {runs}",
    ]


def left_for_one(partials: int) -> int:
    """How many arrays one process adds up."""
    while partials > MOST_PARTIALS:
        partials = math.ceil(partials / PARTIALS_PER_SUM)
    return partials


def shown_time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def shown_bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000, help="pairs to measure with")
    parser.add_argument("--runs", type=int, default=20, help="simulated runs of each schedule")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="metacurate-benchmark-") as scratch:
        measured = measure(arguments.rows, Path(scratch))
    shards = math.ceil(PAIRS / ROWS_PER_SHARD)
    counts_bytes = PARTIAL.itemsize * ENTRIES

    moved = bytes_moved(measured)
    # With the time to move bytes and to wait for answers: what a task takes, a pair.
    whole = {
        name: s + moved[name] / STREAM_BYTES_PER_SECOND
        + REQUESTS_PER_TASK * REQUEST_SECONDS / ROWS_PER_SHARD
        for name, s in measured.seconds.items()
    }  # fmt: skip
    cores_rows = [
        [
            name,
            f"{1e6 * s:.2f}",
            f"{1 / s:,.0f}",
            f"{s * PAIRS / 3600:,.1f}",
            shown_bytes(moved[name] * PAIRS),
            f"{whole[name] * PAIRS / 3600:,.1f}",
        ]
        for name, s in [*measured.seconds.items()]
    ]
    total, total_moved = sum(measured.seconds.values()), sum(moved.values())
    cores_rows.append(
        [
            "all",
            f"{1e6 * total:.2f}",
            f"{1 / total:,.0f}",
            f"{total * PAIRS / 3600:,.1f}",
            shown_bytes(total_moved * PAIRS),
            f"{sum(whole.values()) * PAIRS / 3600:,.1f}",
        ]
    )
    storage_rows = [
        [what, f"{measured.bytes[name]:.1f}", shown_bytes(measured.bytes[name] * pairs)]
        for what, name, pairs in (
            ("pool (URL and caption)", "pool", PAIRS),
            ("index", "index", PAIRS),
            ("curated, of the kept pairs", "curated", KEPT_PAIRS),
        )
    ]
    reduce_rows = []
    for group in (1, 8, SHARDS_PER_PARTIAL, 512):
        partials = math.ceil(shards / group)
        read = REQUEST_SECONDS + counts_bytes / STREAM_BYTES_PER_SECOND + measured.add_partial
        count_task = group * ROWS_PER_SHARD * whole["count"]
        reduce_rows.append(
            [
                f"{group}" + (" (as it is)" if group == SHARDS_PER_PARTIAL else ""),
                f"{partials:,}",
                shown_bytes(partials * counts_bytes),
                f"{left_for_one(partials):,}",
                shown_time(left_for_one(partials) * read),
                shown_time(count_task),
            ]
        )
    schedule_rows = []
    for cores in (64, 1000, 5000):
        for stage, tasks, rows in (
            ("match", shards, ROWS_PER_SHARD),
            ("count", math.ceil(shards / SHARDS_PER_PARTIAL), ROWS_PER_SHARD * SHARDS_PER_PARTIAL),
            ("balance", shards, ROWS_PER_SHARD),
        ):
            seconds = rows * whole[stage]
            schedule_rows.append(
                simulated_row(stage, tasks, seconds, cores, arguments.runs, arguments.seed)
            )
    world = World()
    store = (
        f"{REQUEST_SECONDS * 1000:.0f} ms a request, {REQUESTS_PER_TASK} requests a shard and "
        f"{shown_bytes(STREAM_BYTES_PER_SECOND)}/s to each process"
    )
    parts = [
        f"{PAIRS:,} pairs in {shards:,} shards of {ROWS_PER_SHARD:,}, {ENTRIES:,} entries; "
        f"measured on {arguments.rows:,} pairs with one text of 47 characters. Peak memory of a "
        f"worker: {measured.peak_mib:,.0f} MiB. Of the object store {store} are assumed.",
        table(CORE_HEADER, cores_rows),
        table(["what", "bytes a pair", "storage"], storage_rows),
        f"**The reduce.** Partial counts of up to {shown_bytes(counts_bytes)}, of the entries that "
        f"occur. If there are more than {MOST_PARTIALS}, tasks add up {PARTIALS_PER_SUM} at a "
        "time, until one process adds up the rest.",
        table(REDUCE_HEADER, reduce_rows),
        f"`--target-size` instead of `--t` or `--p` takes {measured.passes} passes over the index: "
        f"{measured.passes * measured.size_pass * PAIRS / 3600:,.0f} core-hours.",
        f"**Skew and stragglers**, simulated {arguments.runs} times with seed {arguments.seed}. "
        f"Sizes of shards: lognormal, sigma {world.size_sigma}; speeds of cores: lognormal, sigma "
        f"{world.speed_sigma}; {world.straggler_share:.1%} of the tasks take "
        f"{world.straggler_factor:g} times as long; a worker dies every "
        f"{world.hours_between_deaths:g} core-hours and its task starts again.",
        table(SCHEDULE_HEADER, schedule_rows),
    ]
    record("scale", "\n\n".join(parts), page="scale.md")


CORE_HEADER = [
    "stage",
    "core-microseconds a pair",
    "pairs a core-second",
    "core-hours of computing",
    "bytes moved",
    "core-hours with the store",
]
REDUCE_HEADER = [
    "shards a partial",
    "partials",
    "bytes, at most",
    "left for one process",
    "added up by it in",
    "a count task takes",
]
SCHEDULE_HEADER = [
    "stage",
    "cores",
    "tasks",
    "a task",
    "ideal",
    "median",
    "worst",
    "idle",
    "deaths",
    "stopped",
]


if __name__ == "__main__":
    main()
