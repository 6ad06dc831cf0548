"""Trials of a cluster that take too long for the tests: run by hand, one line each.

    python tests/cluster_trial.py [memory] [head] [many]

memory: a worker takes so much memory that Ray's monitor kills it; its task is tried again.
head: the whole cluster ends in mid-stage; another one is started and the command given again.
many: as many tiny tasks as 200 nodes of 16 cores have under way and waiting, on this machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster_chain import (
    BUCKET,
    node_options,
    objects,
    paths_of_workers,
    s3_server,
    write_inputs,
)

EATEN_BYTES = 5 << 30
MARGIN_BYTES = 3 << 30  # for the cluster itself, and for what else runs here
EAT_SECONDS = 60
TASKS = 200 * 16 * 2
FILES = 40
END_SECONDS = 240


@dataclass(frozen=True)
class Hungry:
    """A task that takes much memory, unless it was tried before."""

    marker: str
    eats: bool
    value: int


def eat(task: Hungry) -> int:
    """Take memory until the monitor ends this worker; the second time give the value."""
    if task.eats and not Path(task.marker).exists():
        Path(task.marker).write_text(f"{os.getpid()}")
        taken = bytearray(EATEN_BYTES)
        taken[::4096] = b"x" * len(taken[::4096])
        time.sleep(EAT_SECONDS)
        raise AssertionError("the monitor let it live")
    return task.value


def nothing(number: int) -> int:
    """A task of no work."""
    return number


def start(**options: Any) -> Any:
    """A cluster of three nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=node_options(**options))
    for _ in range(2):
        cluster.add_node(**node_options())
    return cluster


def memory(scratch: Path) -> str:
    """A worker that takes too much memory."""
    import ray

    from metacurate.runtime.engines.make import make_engine

    used = psutil.virtual_memory()
    share = (used.total - used.available + MARGIN_BYTES) / used.total
    settings = {"memory_usage_threshold": share, "memory_monitor_refresh_ms": 100}
    cluster = start(_system_config=settings)
    ray.init(cluster.address, log_to_driver=False)
    try:
        with make_engine("ray") as engine:
            tasks = [Hungry(str(scratch / f"{n}"), n == 2, 10 * n) for n in range(6)]
            found = dict(engine.map_shards(eat, tasks))
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert found == {n: 10 * n for n in range(6)}, found
    assert not psutil.pid_exists(int((scratch / "2").read_text()))
    return "the worker over its memory was killed, its task was tried again, all results are there"


def head(scratch: Path) -> str:
    """The cluster ends in mid-stage, the command is given again on another one."""
    import s3fs

    write_inputs(scratch / "in", FILES)
    with s3_server():
        client = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        client.put(f"{scratch}/in/", f"{BUCKET}/in", recursive=True)
        command = [sys.executable, "-m", "metacurate", "pool", "extract", f"s3://{BUCKET}/in/crawl"]
        whole = [*command, "--out", f"s3://{BUCKET}/whole", "--workers", "1"]
        subprocess.run(whole, check=True, capture_output=True)
        said = []
        for attempt in range(2):
            cluster = start()
            on_ray = ["--engine", "ray", "--address", cluster.address]
            run = subprocess.Popen(
                [*command, "--out", f"s3://{BUCKET}/out", *on_ray],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            states = f"{BUCKET}/out/state/extract/*"
            while not attempt and run.poll() is None and len(client.glob(states)) < 3:
                time.sleep(0.05)
            if not attempt:
                assert run.poll() is None, "it ended too early"
                cluster.shutdown()
            began = time.monotonic()
            _, errors = run.communicate(timeout=END_SECONDS)
            last = (errors.strip().splitlines() or [""])[-1][:300]
            said.append(
                f"exit code {run.returncode} after {time.monotonic() - began:.0f} s: {last}"
            )
            if attempt:
                cluster.shutdown()
                assert run.returncode == 0, errors
        assert objects(client, "out") == objects(client, "whole")
    return f"the same bytes; the first command ended with {said[0]!r}"


def many(scratch: Path) -> str:
    """Tasks of no work: what the driver takes for each."""
    import ray

    from metacurate.runtime.engines.make import make_engine

    del scratch
    cluster = start()
    ray.init(cluster.address, log_to_driver=False)
    try:
        with make_engine("ray") as engine:
            dict(engine.map_shards(nothing, range(20)))
            began, processor = time.perf_counter(), time.process_time()
            found = dict(engine.map_shards(nothing, range(TASKS)))
            wall, processor = time.perf_counter() - began, time.process_time() - processor
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert found == {n: n for n in range(TASKS)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{TASKS:,} tasks in {wall:.1f} s, {1e3 * wall / TASKS:.2f} ms each, of which the driver's "
        f"processor {1e3 * processor / TASKS:.2f} ms; peak {peak:,.0f} MiB"
    )


TRIALS = {"memory": memory, "head": head, "many": many}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trials", nargs="*", choices=[*TRIALS, []], default=[*TRIALS])
    from metacurate.runtime.engines.ray import QUIET

    os.environ.update(QUIET)
    os.environ["PYTHONPATH"] = paths_of_workers()
    for name in parser.parse_args().trials:
        with tempfile.TemporaryDirectory(prefix="metacurate-trial-") as scratch:
            print(f"{name}: {TRIALS[name](Path(scratch))}", flush=True)


if __name__ == "__main__":
    main()
