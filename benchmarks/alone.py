"""What one process does alone in a run of many shards: time, bytes and peak memory.

Each step is measured in a process of its own, with files, looks, statistics and partial counts made
up for as many shards as asked for.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.commoncrawl.extract import find_sources
from metacurate.curation.count import CountTask, partial_file, save_partial, sum_partials
from metacurate.metadata.store import Block
from metacurate.pool import open as opening
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.engines.local import LocalEngine
from metacurate.runtime.manifest import (
    Stage,
    add_statistics,
    begin,
    finish,
    finished,
    plan,
    read_manifest,
    shard_name,
)
from metacurate.runtime.run import Run, open_run
from metacurate.runtime.stage import _shards_done
from metacurate.runtime.storage import Folder, Written
from record import record, table

MATCH = Stage("match", ("index",))
ENTRIES = 500_000
LINKS = 10_000  # of one file under other names; file systems bound them
STATISTICS = {
    "rows": 500_000,
    "pairs": 499_000,
    "texts": 998_000,
    "texts_matched": 500_123,
    "pairs_matched": 300_456,
    "match_counts": 1_812_345,
    "skipped": {"no_text": 900, "no_url": 12, "text_not_utf8": 3, "text_too_long": 1},
}


def addresses(shards: int) -> Iterator[str]:
    """As CommonCrawl's are."""
    for shard in range(shards):
        yield f"s3://commoncrawl/crawl-data/CC-MAIN-2023-14/segments/1/wat/CC-{shard:07d}.wat.gz"


def make_files(folder: Path, shards: int, suffix: str, content: Callable[[Path], object]) -> None:
    """That many files in a folder, most of them links."""
    folder.mkdir()
    for shard in range(shards):
        path = folder / f"{shard:07d}{suffix}"
        if shard % LINKS == 0:
            content(path)
            first = path
        else:
            os.link(first, path)


class Repeating:
    """An engine that looks at the first group of files and says the same of all others.

    ``seconds``: what the driver does not do.
    """

    seconds = 0.0

    def map_shards(self, function: Any, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        start = time.process_time()
        found = function(tasks[0])
        self.seconds += time.process_time() - start
        for position, task in enumerate(tasks):
            start = time.process_time()
            looked = [
                replace(one, address=address)
                for one, address in zip(found, task.addresses, strict=False)
            ]
            sent = pickle.dumps(looked)
            self.seconds += time.process_time() - start
            yield position, pickle.loads(sent)


def list_sources(folder: Path, shards: int) -> Callable[[], Any]:
    """Finding the archives of a snapshot in a folder."""
    make_files(folder / "crawl", shards, ".wat.gz", lambda path: path.write_bytes(b"x"))

    def step() -> None:
        assert len(find_sources([str(folder / "crawl")])) == shards

    return step


def list_of_sources(folder: Path, shards: int) -> Callable[[], Any]:
    """The same by a list of their names, and holding each against the output."""
    make_files(folder / "crawl", shards, ".wat.gz", lambda path: path.write_bytes(b"x"))
    named = folder / "list"
    named.write_text("\n".join(str(path) for path in sorted((folder / "crawl").iterdir())))

    def step() -> None:
        with open_run(str(folder / "out"), inputs=[f"@{named}"], engine=LocalEngine(1)):
            assert len(find_sources([f"@{named}"])) == shards

    return step


def look_at_pool(folder: Path, shards: int) -> Callable[[], Any]:
    """Opening a pool whose files are looked at in tasks: what remains for the driver."""
    rows = pa.table({"url": ["http://a.example/1"], "caption": ["a cat"], "width": [1]})
    make_files(folder / "pool", shards, ".parquet", lambda path: pq.write_table(rows, path))
    engine = Repeating()

    def step() -> float:
        pool = opening.open_pool([str(folder / "pool")], PoolConfig(), engine=engine)
        assert len(pool.units) == shards
        assert pool.describe()
        return engine.seconds

    return step


def write_manifest(folder: Path, shards: int) -> Callable[[], Any]:
    """Beginning, planning and closing a stage, and reading its totals."""
    run = Folder(str(folder / "out"))
    config = {"pool": dict.fromkeys(addresses(shards), "0123456789abcdef" * 2)}
    statistics = [json.loads(json.dumps(STATISTICS)) for _ in range(shards)]
    files: dict[str, Written] = {
        f"index/{shard_name(shard)}.arrow": {"bytes": 23_456_789, "xxh3": "0123456789abcdef" * 2}
        for shard in range(shards)
    }

    def step() -> None:
        begin(run, MATCH, config, overwrite=False)
        plan(run, MATCH, shards)
        finish(run, MATCH, add_statistics(statistics), statistics, files)

    return step


def ask_manifest(folder: Path, shards: int) -> Callable[[], Any]:
    """Asking a finished stage for its totals, as each later stage does some ten times."""
    write_manifest(folder, shards)()

    def step() -> None:
        assert read_manifest(Folder(str(folder / "out")))["stages"]["match"]["state"] == "done"

    return step


def find_finished(folder: Path, shards: int) -> Callable[[], Any]:
    """Whether a stage is finished and its files are there, once a stage and command."""
    write_manifest(folder, shards)()
    (folder / "out" / "index").mkdir()

    def step() -> None:
        assert finished(Folder(str(folder / "out")), MATCH) is None  # the files are not there

    return step


def read_states(folder: Path, shards: int) -> Callable[[], Any]:
    """Resuming: the state of each finished shard."""
    run = Folder(str(folder / "out"))
    state = folder / "out" / "state" / "match"
    state.mkdir(parents=True)
    (folder / "out" / "index").mkdir()
    for shard in range(shards):
        name = f"index/{shard_name(shard)}.arrow"
        done = {"statistics": STATISTICS, "files": {name: {"bytes": 0, "xxh3": "0" * 32}}}
        (state / f"{shard_name(shard)}.json").write_text(json.dumps(done))
        (folder / "out" / name).touch()
    states = [MATCH.shard_state(shard) for shard in range(shards)]

    def step() -> None:
        assert len(_shards_done(run, MATCH, states)) == shards

    return step


def add_partials(folder: Path, shards: int) -> Callable[[], Any]:
    """Adding up partial counts of 64 shards each; the tasks' part is told apart."""
    run = Folder(str(folder / "out"))
    partials = math.ceil(shards / 64)
    (folder / "out" / "state" / "counts").mkdir(parents=True)
    save_partial(run, partial_file("counts", 0), np.arange(ENTRIES, dtype=np.uint64))
    first = folder / "out" / partial_file("counts", 0)
    blocks = (Block(None, 0, ENTRIES),)
    tasks = [CountTask(run, position, range(0), blocks) for position in range(partials)]
    for position in range(1, partials):
        os.link(first, folder / "out" / partial_file("counts", position))

    class Timed(LocalEngine):
        seconds = 0.0

        def map_shards(self, function: Any, given: Sequence[Any]) -> Iterator[tuple[int, Any]]:
            start = time.process_time()
            done = list(super().map_shards(function, given))
            self.seconds += time.process_time() - start
            return iter(done)

    engine = Timed(1)

    def step() -> float:
        total = sum_partials(Run(run, engine), tasks, "counts")
        assert int(total[-1]) == partials * (ENTRIES - 1)
        return engine.seconds

    return step


STEPS: dict[str, Callable[[Path, int], Callable[[], Any]]] = {
    "finding sources in a folder": list_sources,
    "finding sources by a list": list_of_sources,
    "opening a pool, without the looks": look_at_pool,
    "beginning and closing a stage": write_manifest,
    "asking for a stage's totals": ask_manifest,
    "whether a stage is finished": find_finished,
    "resuming: reading states": read_states,
    "adding up partial counts, without the tasks": add_partials,
}


def measure(name: str, shards: int, folder: Path) -> dict[str, float]:
    """Seconds and peak memory of a step, in this process."""
    step = STEPS[name](folder, shards)
    start = time.process_time()
    in_tasks = step() or 0.0
    seconds = time.process_time() - start - in_tasks
    manifest = folder / "out" / "manifest.json"
    details = folder / "out" / MATCH.details
    return {
        "seconds": seconds,
        "tasks": in_tasks,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "manifest": sum(path.stat().st_size for path in (manifest, details) if path.exists()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--step", choices=STEPS, help="only this one; print it as JSON")
    arguments = parser.parse_args()
    if arguments.step:
        with tempfile.TemporaryDirectory(prefix="metacurate-benchmark-") as scratch:
            found = measure(arguments.step, arguments.shards[0], Path(scratch))
        print(json.dumps(found))
        return
    rows = []
    for name in STEPS:
        row = [name]
        for shards in arguments.shards:
            command = [sys.executable, __file__, "--shards", str(shards), "--step", name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            size = f", {found['manifest'] / 1e6:,.0f} MB" if found["manifest"] else ""
            row.append(f"{found['seconds']:,.1f} s, {found['mib']:,.0f} MiB{size}")
            print(name, shards, found, file=sys.stderr)
        rows.append(row)
    header = ["what", *(f"{shards:,} shards" for shards in arguments.shards)]
    record("alone", table(header, rows), page="scale.md")


if __name__ == "__main__":
    main()
