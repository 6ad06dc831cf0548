"""All commands on a Ray cluster of three nodes over an object store: the same bytes as local.

A node is killed in mid-stage and another joins. What takes longer is in ``tests/cluster_trial.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster_chain import (
    BUCKET,
    chain,
    node_options,
    objects,
    paths_of_workers,
    s3_server,
    write_inputs,
    write_urls,
)
from conftest import Command
from hostile_server import HostileServer
from metacurate.commoncrawl.extract import ExtractTask, extract_shard
from metacurate.runtime.manifest import Statistics

ray = pytest.importorskip("ray", reason="needs the extra metacurate[ray]")
s3fs = pytest.importorskip("s3fs", reason="needs the extra metacurate[s3]")
pytest.importorskip("moto.server", reason="needs moto's server: moto[server]")

START = f"s3://{BUCKET}/in"


@dataclass
class Nodes:
    """The cluster's nodes, and a client of the bucket."""

    cluster: Any
    workers: list[Any]
    client: Any


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Three nodes, each with processes of its own, and a bucket with the inputs."""
    from ray.cluster_utils import Cluster

    from metacurate.runtime.engines.ray import QUIET

    inputs = tmp_path_factory.mktemp("inputs")
    write_inputs(inputs)
    with s3_server(), HostileServer() as web, pytest.MonkeyPatch.context() as patch:
        write_urls(inputs, web)
        patch.setenv("PYTHONPATH", paths_of_workers())
        for name, value in QUIET.items():
            patch.setenv(name, value)
        client = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        client.put(f"{inputs}/", f"{BUCKET}/in", recursive=True)
        for engine in ("local", "ray"):
            client.put(f"{inputs}/tars/", f"{BUCKET}/{engine}/marked", recursive=True)
        cluster = Cluster(initialize_head=True, head_node_args=node_options())
        workers = [cluster.add_node(**node_options()) for _ in range(2)]
        ray.init(cluster.address, log_to_driver=False, logging_level="CRITICAL")
        yield Nodes(cluster, workers, client)
        ray.shutdown()
        cluster.shutdown()


LOCAL = chain(START, f"s3://{BUCKET}/local", f"s3://{BUCKET}/local")
ON_RAY = chain(START, f"s3://{BUCKET}/local", f"s3://{BUCKET}/ray")


@pytest.mark.parametrize("name", LOCAL)
def test_the_same_bytes_as_local(name: str, nodes: Nodes, metacurate: Command) -> None:
    """Each command reads what the local chain made, and writes the same objects."""
    for command, engine in ((LOCAL, ("--workers", 1)), (ON_RAY, ("--engine", "ray"))):
        run = metacurate(*command[name], *engine)
        assert run.returncode == 0, run.stderr
    folder = name.partition(",")[0]
    local, on_ray = (
        {n: h for n, h in objects(nodes.client, engine).items() if n.startswith(folder)}
        for engine in ("local", "ray")
    )
    assert len(local) > 0
    assert on_ray == local


def extract_slowly(task: ExtractTask) -> Statistics:
    """Extract, once the cluster is changed; leave a note of the node."""
    folder = task.config.snapshot or ""
    (Path(folder) / f"{ray.get_runtime_context().get_node_id()}.{time.monotonic_ns()}").touch()
    until = time.monotonic() + 60
    while not (Path(folder) / "changed").exists() and time.monotonic() < until:
        time.sleep(0.05)
    return extract_shard(task)


def test_a_node_is_killed_and_one_joins_in_mid_stage(
    nodes: Nodes, metacurate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notes' folder goes to the workers as the name of the crawl, which is in the rows too."""
    command = ("pool", "extract", f"{START}/crawl", "--snapshot", tmp_path, "--out")
    assert metacurate(*command, f"s3://{BUCKET}/whole", "--workers", 1).returncode == 0
    monkeypatch.setattr("metacurate.commoncrawl.extract.extract_shard", extract_slowly)
    victim = nodes.workers.pop()

    def notes() -> list[str]:
        """The nodes of the tasks that began."""
        return [path.name.partition(".")[0] for path in tmp_path.iterdir()]

    with ThreadPoolExecutor(1) as thread:
        disturbed = f"s3://{BUCKET}/disturbed"
        running = thread.submit(metacurate, *command, disturbed, "--engine", "ray")
        while victim.node_id not in notes() and not running.done():
            time.sleep(0.05)
        nodes.cluster.remove_node(victim, allow_graceful=False)
        joined = nodes.cluster.add_node(**node_options())
        nodes.workers.append(joined)
        while joined.node_id not in notes() and not running.done():
            time.sleep(0.05)
        (tmp_path / "changed").touch()
        run = running.result()
    assert run.returncode == 0, run.stderr
    assert {victim.node_id, joined.node_id} <= set(notes())
    assert objects(nodes.client, "disturbed") == objects(nodes.client, "whole")
