"""Every stage of one snapshot of CommonCrawl on paper: core-hours, bytes, requests, dollars.

    python benchmarks/stages.py

Each command runs in one process on few items and on many; the difference of their processor time is
what an item takes. Requests are counted on an S3 server on this machine, with few files and with
more: the difference is what a task makes. Both are multiplied by the volumes of a snapshot, which
are assumed (options), as are the prices. The curation stages one by one are in benchmarks/scale.py.
Downloads are measured from a server on this machine: the network is the user's.
"""

from __future__ import annotations

import argparse
import io
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dedup import generate
from download import serve, write_urls
from measure import run_metacurate
from metacurate.deduplication.dedup import MOST_PARTS
from record import record, table
from scale import (
    REQUEST_SECONDS,
    SCHEDULE_HEADER,
    STREAM_BYTES_PER_SECOND,
    World,
    shown_bytes,
    simulated_row,
)

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from cluster_chain import BUCKET, chain, s3_server, write_inputs
from hostile_server import HostileServer

SNAPSHOTS = 90
# Requests that cost as much as a PUT; those to delete cost nothing, all others as much as a GET.
PUTS = frozenset({"CreateMultipartUpload", "CompleteMultipartUpload", "CopyObject", "ListObjectsV2",
                  "PutObject", "UploadPart"})  # fmt: skip
FREE = frozenset({"DeleteObject", "DeleteObjects", "AbortMultipartUpload"})
# What s3fs asks for at a time when it reads, and sends when it writes a large file.
READ_BYTES, PART_BYTES = 5 << 20, 50 << 20
CORES = (64, 1000)
FEW_FILES, MORE_FILES = 2, 6


@dataclass(frozen=True)
class Volumes:
    """A snapshot: what each stage has to do."""

    wat_files: int
    pages: int
    extracted: int
    unique: int
    curated: int
    kept: int
    images: int
    rows_per_unit: int
    samples_per_shard: int


@dataclass(frozen=True)
class Stage:
    """A stage: its command, what it is measured on, and how much of that a snapshot has.

    ``words``: of the folder with the inputs (``few`` or ``many``) and of the output. ``chain``: the
    name under which its requests are counted. ``tasks``: of a snapshot.
    """

    name: str
    unit: str
    words: Callable[[Path, Path], list[object]]
    reads: str
    chain: str
    items: int
    tasks: int


@dataclass(frozen=True)
class Cost:
    """An item's processor time and bytes; peak memory."""

    seconds: float
    read: float
    written: float
    mib: float


def brightness(images: Any, _: Any) -> dict[str, list[float]]:
    """The scorer: hardly any work."""
    return {"brightness": [float(image[0, 0, 0]) for image in images]}


def stages(volumes: Volumes) -> list[Stage]:
    """All stages in their order."""
    units, shards = volumes.rows_per_unit, volumes.samples_per_shard
    network = ("--allow-network", "127.0.0.1/32", "--image-size", 256, "--samples-per-shard", 500,
               "--per-host", 64)  # fmt: skip
    scorer = ("--scorer", "stages:brightness", "--keep", "brightness>=0")

    def per(rows: int, size: int) -> int:
        return math.ceil(rows / size)

    def ingested(inputs: Path) -> Path:
        return inputs.with_name(f"{inputs.name}-ingest")

    v = volumes
    return [
        Stage("extract (WAT)", "page", lambda i, o: ["pool", "extract", i / "wat", "--out", o],
              "wat", "extract", v.pages, v.wat_files),
        Stage("language", "row", lambda i, o: ["pool", "language", i / "texts", "--out", o],
              "texts", "language", v.extracted, per(v.extracted, units)),
        Stage("dedup", "row", lambda i, o: ["pool", "dedup", i / "pool", "--out", o],
              "pool", "dedup", v.extracted, per(v.extracted, units) + per(v.unique, units)),
        Stage("curate", "row", lambda i, o: ["curate", i / "pool", "-m", "wordnet", "--t", 200,
                                            "--no-report", "--out", o],
              "pool", "curated", v.curated, 2 * per(v.curated, units)),
        Stage("uids", "row", lambda i, o: ["pool", "uids", i / "pool", "--out", f"{o}.npy"],
              "pool", "uids.npy", v.kept, per(v.kept, units)),
        Stage("download", "URL", lambda i, o: ["pool", "download", i / "urls.parquet", *network,
                                              "--out", o],
              "urls.parquet", "download", v.kept, per(v.kept, shards)),
        Stage("duplicates", "image", lambda i, o: ["pool", "duplicates", i / "hashes"],
              "hashes", "marked", v.images, 1),
        Stage("filter", "image", lambda i, o: ["pool", "filter", i / "tars", *scorer, "--out", o],
              "tars", "filter", v.images, per(v.images, shards)),
        Stage("ingest", "image", lambda i, o: ["pool", "ingest", i / "tars", "--out", o],
              "tars", "ingest", v.images, per(v.images, shards)),
        Stage("reshard", "image", lambda i, o: ["pool", "reshard", ingested(i) / "pool", "--tars",
                                               i / "tars", "--out", o],
              "tars", "reshard", v.images, per(v.images, shards)),
    ]  # fmt: skip


def make_inputs(folder: Path, port: int, share: float) -> dict[str, int]:
    """The inputs of all stages, of a size; how many items each has."""
    wat_pages, wat_files = 500, max(1, round(24 * share))
    folder.mkdir()
    (folder / "wat").mkdir()
    first = folder / "wat" / "0.warc.wat.gz"
    maker = Path(__file__).parent / "make_wat.py"
    command = [sys.executable, maker, "--out", first, "--pages", wat_pages]
    subprocess.run([*map(str, command)], check=True)
    for number in range(1, wat_files):
        shutil.copyfile(first, folder / "wat" / f"{number}.warc.wat.gz")
    items = {"pool": round(800_000 * share), "texts": round(80_000 * share),
             "urls.parquet": round(1600 * share), "wat": wat_pages * wat_files}  # fmt: skip
    generate(folder / "pool", items["pool"], 0.44, 2_500_000)
    generate(folder / "texts", items["texts"], 0.44, 2_500_000)
    urls = [f"http://127.0.0.1:{port}/photo{n % 32}.jpg?{n}" for n in range(items["urls.parquet"])]
    write_urls(folder / "urls.parquet", urls)
    items["hashes"] = round(400_000 * share)
    write_hashes(folder / "hashes", items["hashes"])
    return {**items, "tars": items["urls.parquet"]}


def write_hashes(folder: Path, images: int) -> None:
    """The tables of tars as a download leaves them, whose hashes are all it takes."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, first in enumerate(range(0, images, 10_000)):
        rows = min(10_000, images - first)
        digests = [random.bytes(32).hex() for _ in range(rows)]
        columns = {"key": [f"{number:05d}{n:04d}" for n in range(rows)],
                   "status": ["success"] * rows, "error_message": pa.nulls(rows, pa.string()),
                   "sha256": digests, "dhash": [digest[:16] for digest in digests]}  # fmt: skip
        pq.write_table(pa.table(columns), folder / f"{number:05d}.parquet")
        with tarfile.open(folder / f"{number:05d}.tar", "w"):
            pass  # not read


def size(path: Path) -> int:
    """The bytes of a file or of all files of a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def measure(chosen: list[Stage], scratch: Path) -> dict[str, Cost]:
    """What an item of each stage costs: many of them less few."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Queue(), context.Event()
    server = context.Process(target=serve, args=(ready, stop))
    server.start()
    found: dict[str, list[tuple[int, float, int, int, float]]] = {s.name: [] for s in chosen}
    try:
        port = ready.get(timeout=60)
        for name, share in (("few", 1 / 16), ("many", 1.0)):
            inputs, items = scratch / name, make_inputs(scratch / name, port, share)
            for stage in chosen:
                out = scratch / f"{name}-{stage.chain}"
                run = run_metacurate(*stage.words(inputs, out), "--workers", 1)
                made = Path(f"{out}.npy") if stage.name == "uids" else out
                made = inputs / "hashes" / "duplicates" if stage.name == "duplicates" else made
                if stage.name == "curate":
                    made = out / "curated"
                written = size(made)
                if stage.name == "download":
                    out.rename(inputs / "tars")
                read = size(inputs / stage.reads)
                found[stage.name].append(
                    (items[stage.reads], run.processor_seconds, read, written, run.peak_mib)
                )
    finally:
        stop.set()
        server.join()
    costs = {}
    for name, (few, many) in found.items():
        more = many[0] - few[0]
        an_item = [(many[k] - few[k]) / more for k in (1, 2, 3)]
        costs[name] = Cost(max(an_item[0], 0.0), an_item[1], an_item[2], many[4])
    return costs


@contextmanager
def counted_requests() -> Iterator[Counter[str]]:
    """The requests that clients in this process make, by operation."""
    from aiobotocore.client import AioBaseClient

    counts: Counter[str] = Counter()
    original = AioBaseClient._make_api_call

    async def call(client: Any, operation: str, parameters: Any) -> Any:
        counts[operation] += 1
        return await original(client, operation, parameters)

    AioBaseClient._make_api_call = call
    try:
        yield counts
    finally:
        AioBaseClient._make_api_call = original


def requests(names: list[str], scratch: Path) -> tuple[dict[str, tuple[float, float]], float]:
    """PUTs and GETs that each task of a command makes, by the command's name in the chain.

    And the GETs of dedup for each pair of a part and an output shard.
    """
    import s3fs

    found: dict[str, dict[int, Counter[str]]] = {name: {} for name in names}
    with HostileServer() as server, s3_server():
        client = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        for files in (FEW_FILES, MORE_FILES):
            inputs = scratch / f"inputs-{files}"
            write_inputs(inputs, files)
            urls = [server.url(f"photo/{n}.jpg") for n in range(4 * files)]
            pq.write_table(pa.table({"url": urls, "text": ["a"] * len(urls)}),
                           inputs / "urls.parquet")  # fmt: skip
            start, out = (f"{BUCKET}/{name}-{files}" for name in ("in", "out"))
            client.put(f"{inputs}/", start, recursive=True)
            client.put(f"{inputs}/tars/", f"{out}/marked", recursive=True)
            start, out = f"s3://{start}", f"s3://{out}"
            words = chain(start, out, out)
            words["download"] = ("pool", "download", f"{start}/urls.parquet", "--allow-network",
                                 "127.0.0.1/32", "--samples-per-shard", 4,
                                 "--out", f"{out}/download")  # fmt: skip
            for name in [n for n in words if n in names]:
                with counted_requests() as counts, redirect_stdout(io.StringIO()):
                    run_here([*map(str, words[name]), "--workers", "1"])
                found[name][files] = Counter(counts)
            if files == MORE_FILES:
                cut = [*words["dedup"][:-1], f"{out}/cut", "--shard-rows", 8, "--workers", 1]
                with counted_requests() as counts, redirect_stdout(io.StringIO()):
                    run_here([*map(str, cut)])
                shards = len(client.ls(f"{out}/cut/pool"))
                more = _number(counts, False) - _number(found["dedup"][files], False)
                pair = more / ((shards - 1) * files)
    return {name: _per_task(counts) for name, counts in found.items()}, pair


def run_here(words: list[str]) -> None:
    """Run a command in this process; RuntimeError if it fails."""
    from metacurate.cli import main as command

    said = io.StringIO()
    try:
        with redirect_stderr(said):
            command(words)
    except SystemExit as exit_:
        if exit_.code:
            raise RuntimeError(f"{words}: {said.getvalue()}") from None


def _number(counts: Counter[str], puts: bool) -> int:
    return sum(n for op, n in counts.items() if op not in FREE and (op in PUTS) == puts)


def _per_task(counts: Mapping[int, Counter[str]]) -> tuple[float, float]:
    def of(files: int, puts: bool) -> int:
        return _number(counts[files], puts)

    more = MORE_FILES - FEW_FILES
    puts, gets = ((of(MORE_FILES, p) - of(FEW_FILES, p)) / more for p in (True, False))
    return max(puts, 0.0), max(gets, 0.0)


@dataclass(frozen=True)
class Prices:
    """Dollars, as a store's and a cloud's public lists have them."""

    put: float  # of 1,000
    get: float  # of 1,000
    core_hour: float


@dataclass(frozen=True)
class Bill:
    """What a stage takes for a snapshot; ``hours`` of cores with the time of the store."""

    computing: float
    hours: float
    moved: float
    puts: float
    gets: float

    def dollars(self, prices: Prices) -> tuple[float, float]:
        """Of requests and of cores."""
        asked = (self.puts * prices.put + self.gets * prices.get) / 1000
        return asked, self.hours * prices.core_hour


def bill(
    stage: Stage, cost: Cost, task: tuple[float, float], pair: float, volumes: Volumes
) -> Bill:
    """A stage's cost for a snapshot; ``pair``: the GETs of a part and a shard of dedup."""
    puts, gets = (each * stage.tasks for each in task)
    if stage.name == "dedup":
        # Each output shard reads its range of each partition's runs.
        units = math.ceil(volumes.extracted / volumes.rows_per_unit)
        gets += pair * min(units, MOST_PARTS) * math.ceil(volumes.unique / volumes.rows_per_unit)
    read, written = cost.read * stage.items, cost.written * stage.items
    gets, puts = gets + read / READ_BYTES, puts + written / PART_BYTES
    computing = cost.seconds * stage.items / 3600
    waits = ((read + written) / STREAM_BYTES_PER_SECOND + REQUEST_SECONDS * (puts + gets)) / 3600
    return Bill(computing, computing + waits, read + written, puts, gets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    volumes = {
        "wat-files": 90_000, "pages": 3_000_000_000, "extracted": 850_000_000,
        "unique": 476_000_000, "curated": 238_000_000, "kept": 28_000_000, "images": 21_000_000,
        "rows-per-unit": 500_000, "samples-per-shard": 10_000,
    }  # fmt: skip
    for name, value in volumes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--put-dollars", type=float, default=0.005, help="of 1,000 requests")
    parser.add_argument("--get-dollars", type=float, default=0.0004, help="of 1,000 requests")
    parser.add_argument("--core-hour-dollars", type=float, default=0.04)
    parser.add_argument("--runs", type=int, default=5, help="simulated runs of each schedule")
    parser.add_argument("--seed", type=int, default=0)
    arguments = vars(parser.parse_args())
    chosen = Volumes(
        **{name.replace("-", "_"): arguments[name.replace("-", "_")] for name in volumes}
    )
    prices = Prices(
        arguments["put_dollars"], arguments["get_dollars"], arguments["core_hour_dollars"]
    )
    # Where the commands find the scorer below.
    here = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, here))
    listed = stages(chosen)
    with tempfile.TemporaryDirectory(prefix="metacurate-benchmark-") as scratch:
        asked, pair = requests([stage.chain for stage in listed], Path(scratch))
        costs = measure(listed, Path(scratch))
    rates, money, schedule = [], [], []
    total = [0.0] * 5
    for stage in listed:
        cost = costs[stage.name]
        found = bill(stage, cost, asked[stage.chain], pair, chosen)
        rates.append([
            stage.name,
            f"{1 / cost.seconds:,.0f} {stage.unit}s" if cost.seconds else "too fast to tell",
            f"{stage.items:,}", f"{stage.tasks:,}", f"{found.computing:,.1f}",
            f"{found.hours:,.1f}", shown_bytes(found.moved), f"{cost.mib:,.0f}",
        ])  # fmt: skip
        asks, cores = found.dollars(prices)
        puts, gets = asked[stage.chain]
        row = [found.puts, found.gets, asks, cores, asks + cores]
        total = [a + b for a, b in zip(total, row, strict=True)]
        money.append([stage.name, f"{puts:.1f} / {gets:.1f}", *_shown(row)])
        for cores_number in CORES:
            seconds = 3600 * found.hours / stage.tasks
            schedule.append(
                simulated_row(stage.name, stage.tasks, seconds, cores_number,
                              arguments["runs"], arguments["seed"])
            )  # fmt: skip
    money.append(["a snapshot", "", *_shown(total)])
    money.append([f"{SNAPSHOTS} snapshots", "", *_shown([SNAPSHOTS * value for value in total])])
    world = World()
    assumed = (
        f"Assumed of a snapshot: {chosen.wat_files:,} WAT files of {chosen.pages:,} pages; "
        f"{chosen.extracted:,} pairs extracted, of which {chosen.unique:,} are left by dedup and "
        f"{chosen.curated:,} are in English (a ninetieth of what the paper's largest pool reads); "
        f"{chosen.kept:,} kept, of which {chosen.images:,} still have an image. Units and shards "
        f"of {chosen.rows_per_unit:,} rows, tars of {chosen.samples_per_shard:,}. Of the object "
        f"store {1000 * REQUEST_SECONDS:.0f} ms a request and "
        f"{shown_bytes(STREAM_BYTES_PER_SECOND)}/s to each process, {READ_BYTES >> 20} MiB a GET "
        f"and {PART_BYTES >> 20} MiB a PUT of large files. "
        f"Prices: ${prices.put:g} for 1,000 PUTs, ${prices.get:g} for 1,000 GETs, "
        f"${prices.core_hour:g} a core-hour; storage and traffic are left out."
    )
    parts = [
        assumed,
        table(RATE_HEADER, rates),
        table(MONEY_HEADER, money),
        f"In `dedup`, {pair:.1f} GETs for each part of the pool (at most {MOST_PARTS}) and each "
        "output shard are added.",
        f"**Stragglers** of a snapshot, simulated {arguments['runs']} times with seed "
        f"{arguments['seed']} in a world as above: shards lognormal, sigma {world.size_sigma}; "
        f"{world.straggler_share:.1%} of the tasks take {world.straggler_factor:g} times as long.",
        table(SCHEDULE_HEADER, schedule),
    ]
    record("stages", "\n\n".join(parts), page="scale.md")


def _shown(row: list[float]) -> list[str]:
    puts, gets, *dollars = row
    return [f"{puts:,.0f}", f"{gets:,.0f}", *(f"{value:,.2f}" for value in dollars)]


RATE_HEADER = ["stage", "a core-second", "items", "tasks", "core-hours of computing",
               "core-hours with the store", "bytes moved", "peak MiB"]  # fmt: skip
MONEY_HEADER = ["stage", "PUTs / GETs a task", "PUTs", "GETs", "$ of requests", "$ of cores",
                "$ in all"]  # fmt: skip


if __name__ == "__main__":
    main()
