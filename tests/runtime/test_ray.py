"""The Ray engine: the same bytes as the local one, deaths survived, errors in one line."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster_chain import write_tars
from conftest import Command, digests
from curation_pools import OPTIONS, entries_file, fails, pool  # noqa: F401  (fixtures)
from hostile_server import HostileServer
from metacurate.curation.match import MatchTask, match_shard
from metacurate.errors import UserError
from metacurate.images.download import ClusterTask, download_shard
from metacurate.runtime.engine import MAX_DEATHS_PER_TASK
from metacurate.runtime.engines.make import make_engine
from metacurate.runtime.manifest import Statistics
from metacurate.runtime.run import HOLDER, open_run
from metacurate.runtime.storage import Folder

ray = pytest.importorskip("ray", reason="needs the extra metacurate[ray]")


@pytest.fixture(scope="module", autouse=True)
def _workers_find_the_tests() -> Iterator[None]:
    """Ray's workers are new processes; they import the functions of this module by name."""
    with pytest.MonkeyPatch.context() as patch:
        places = [*Path(__file__).parents[:2], Path(__file__).parents[2] / "src"]
        old = os.environ.get("PYTHONPATH", "")
        patch.setenv("PYTHONPATH", os.pathsep.join([*map(str, places), old]))
        yield


@pytest.fixture(scope="module")
def cluster(_workers_find_the_tests: None) -> Iterator[None]:
    """A Ray of two cores on this machine, told of two GPUs, for all tests of this module."""
    from metacurate.runtime.engines.ray import RayEngine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "init", partial(ray.init, num_gpus=2))
        engine = RayEngine(workers=2)
    with engine:
        yield


@pytest.mark.usefixtures("cluster")
def test_same_bytes_as_local(
    metacurate: Command,
    pool: Path,
    entries_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Relative paths too: they mean the same in Ray's workers as in this process."""
    monkeypatch.chdir(tmp_path)
    common = (pool.name, "-m", entries_file, "--target-size", 800, *OPTIONS, "--no-report")
    local = metacurate("curate", *common, "--workers", 1, "--out", "local")
    assert local.returncode == 0, local.stderr
    found = metacurate("curate", *common, "--engine", "ray", "--out", "by-ray")
    assert found.returncode == 0, found.stderr
    assert digests(tmp_path / "by-ray") == digests(tmp_path / "local")
    steps = [
        ("match", pool.name, "--metadata", entries_file, *OPTIONS, "--out", "steps"),
        ("count", "steps"),
        ("balance", "steps", "--target-size", 800),
    ]
    for step in steps:
        run = metacurate(*step, "--engine", "ray", "--workers", 1)
        assert run.returncode == 0, run.stderr
    assert digests(tmp_path / "steps") == digests(tmp_path / "local")


# A download: its tasks agree while they run -----------------------------------------------------


@pytest.fixture
def web_pool(tmp_path: Path) -> Iterator[tuple[HostileServer, Path]]:
    """A server that counts, and a list of 32 rows with all kinds of answers."""
    with HostileServer() as server:
        paths = [f"photo/{n}.jpg" for n in range(28)]
        paths[3::4] = [
            "status/404",
            "robots?tag=noai",
            "text.jpg",
            "endless",
            "page",
            "alpha.png",
            "loop",
        ]
        urls = [*map(server.url, paths), "http://10.0.0.1/private.jpg", "nonsense", *[None] * 2]
        table = pa.table({"url": urls, "text": [f"text {n}" for n in range(len(urls))]})
        pq.write_table(table, tmp_path / "web.parquet", row_group_size=7)
        yield server, tmp_path / "web.parquet"


DOWNLOAD = ("--samples-per-shard", 8, "--image-size", 32, "--per-host", 2, "--retries", 0,
            "--max-bytes", 100_000, "--allow-network", "127.0.0.1/32")  # fmt: skip


def download_shard_and_die(task: ClusterTask) -> Statistics:
    """Download; the first worker at shard 2 dies when its tar is half written."""
    marker = f"{task.folder.url}/../marker"
    if task.shard.number != 2 or Path(f"{marker}.0").exists():
        return download_shard(task)

    def dying_create(folder: Folder, name: str):  # type: ignore[no-untyped-def]
        with create(folder, name) as file:
            file.write(b"half a file")
            file.flush()
            die(marker, 1)
        raise AssertionError("only the first worker dies")

    create = Folder.create
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "create", dying_create)
        return download_shard(task)


@pytest.mark.usefixtures("cluster")
def test_a_download_is_polite_over_all_tasks_and_has_the_same_bytes(
    metacurate: Command,
    web_pool: tuple[HostileServer, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though a worker dies; and what one engine has begun, the other one ends."""
    server, source = web_pool
    common = ("pool", "download", source, *DOWNLOAD, "--out")
    local = metacurate(*common, tmp_path / "local", "--workers", 1)
    assert local.returncode == 0, local.stderr
    server.delay, server.most_at_once = 0.1, 0
    monkeypatch.setattr("metacurate.images.download.download_shard", download_shard_and_die)
    found = metacurate(*common, tmp_path / "ray", "--engine", "ray", "--workers", 2, "--json")
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "marker.0").exists()
    assert server.most_at_once == 2, "of two shards together"
    reasons = json.loads(found.stdout)["status_dict"]
    assert reasons["blocked_address"] == reasons["robots_header"] == 1
    assert reasons["too_many_bytes"] == reasons["http_404"] == 1
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")
    (tmp_path / "ray" / "00001.tar").unlink()
    server.requests.clear()
    assert metacurate(*common, tmp_path / "ray", "--workers", 1).returncode == 0
    assert 0 < server.requests.total() <= 8 + 5, "one shard, and redirects"
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


# GPUs -------------------------------------------------------------------------------------------


def given_gpu(images: Sequence[Any], _: Sequence[Any]) -> dict[str, list[int]]:
    """A scorer: the number of the task's GPU."""
    return {"gpu": [int(os.environ.get("CUDA_VISIBLE_DEVICES") or -1)] * len(images)}


@pytest.mark.usefixtures("cluster")
def test_tasks_of_a_filter_have_a_gpu_of_their_own(metacurate: Command, tmp_path: Path) -> None:
    (tmp_path / "tars").mkdir()
    for number in range(3):
        write_tars(tmp_path / "tars", number)
    common = ("pool", "filter", tmp_path / "tars", "--scorer", "test_ray:given_gpu", "--out")
    for gpus, expected in ((0, {-1}), (1, {0, 1})):
        out = tmp_path / f"{gpus}"
        run = metacurate(*common, out, "--engine", "ray", "--gpus-per-task", gpus)
        assert run.returncode == 0, run.stderr
        found = pa.concat_tables(pq.read_table(path) for path in out.glob("*.parquet"))
        assert found.num_rows == 18
        assert set(found["gpu"].to_pylist()) <= expected
    too_many = (*common, tmp_path / "no", "--engine", "ray", "--gpus-per-task")
    fails(metacurate(*too_many, 3), "--gpus-per-task is 3", "more than 2 GPUs")
    fails(metacurate(*too_many, 1.5), "--gpus-per-task must be a share below 1 or a whole number")
    fails(metacurate(*common, tmp_path / "no", "--gpus-per-task", 1), "needs --engine ray")


# Workers that die -------------------------------------------------------------------------------


def die(marker: str, times: int) -> None:
    """Kill this worker process for good, unless it was done ``times`` times."""
    for count in range(times):
        try:
            os.close(os.open(f"{marker}.{count}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)


def match_shard_and_die(task: MatchTask) -> Statistics:
    """Match; the first worker at shard 3 dies when its file is half written."""
    create = Folder.create

    def dying_create(folder: Folder, name: str):  # type: ignore[no-untyped-def]
        context = create(folder, name)
        if task.position == 3:
            with context as file:
                file.write(b"half a file")
                file.flush()
                die(f"{task.folder.url}/../marker", 1)
            raise AssertionError("only the first worker dies")
        return context

    if not Path(f"{task.folder.url}/../marker.0").exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Folder, "create", dying_create)
            return match_shard(task)
    return match_shard(task)


@pytest.mark.usefixtures("cluster")
def test_worker_killed_in_mid_task(
    metacurate: Command,
    pool: Path,
    entries_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    common = ("curate", pool, "--metadata", entries_file, "--t", 40, *OPTIONS, "--out")
    assert metacurate(*common, tmp_path / "undisturbed").returncode == 0
    monkeypatch.setattr("metacurate.curation.match.match_shard", match_shard_and_die)
    run = metacurate(*common, tmp_path / "killed", "--engine", "ray")
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "marker.0").exists()
    assert digests(tmp_path / "killed") == digests(tmp_path / "undisturbed")


@pytest.mark.usefixtures("cluster")
def test_same_bytes_by_language(metacurate: Command, tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    for language, entries in {"en": ["dog", "a"], "zh": ["狗", "猫"]}.items():
        (tmp_path / "meta" / f"{language}.json").write_text(json.dumps(entries))
    texts, langs = ["a dog", "红狗和猫", "猫", "dog"] * 200, ["en", "zh-Hans", "cmn", "eng"] * 200
    table = {"url": [f"http://a.example/{i}" for i in range(800)], "text": texts, "lang": langs}
    pq.write_table(pa.table(table), tmp_path / "pool.parquet", row_group_size=100)
    common = ("curate", tmp_path / "pool.parquet", "-m", tmp_path / "meta", "--t", 100,
              "--rows-per-unit", 100, "--no-report", "--workers", 1)  # fmt: skip
    for engine in ("local", "ray"):
        run = metacurate(*common, "--engine", engine, "--out", tmp_path / engine)
        assert run.returncode == 0, run.stderr
    assert digests(tmp_path / "ray") == digests(tmp_path / "local")


@dataclass(frozen=True)
class Mortal:
    """A task that kills its worker a number of times."""

    marker: str
    deaths: int
    value: int


def survive(task: Mortal) -> int:
    die(task.marker, task.deaths)
    return task.value


@pytest.mark.usefixtures("cluster")
def test_deaths_are_counted_by_task(tmp_path: Path) -> None:
    tasks = [
        Mortal(str(tmp_path / str(i)), MAX_DEATHS_PER_TASK - 1 if i in (1, 4) else 0, 10 * i)
        for i in range(6)
    ]
    with make_engine("ray") as engine:
        assert dict(engine.map_shards(survive, tasks)) == {i: 10 * i for i in range(6)}
        deadly = [*tasks, Mortal(str(tmp_path / "deadly"), 99, 0)]
        with pytest.raises(UserError, match="died 3 times while shard 6 was under way"):
            list(engine.map_shards(survive, deadly))


# Errors -----------------------------------------------------------------------------------------


def complain(task: MatchTask) -> Statistics:
    raise UserError(f"shard {task.position} is no good")


def fill_the_disk(task: MatchTask) -> Statistics:
    raise OSError(errno.ENOSPC, "No space left on device", f"/out/{task.position}")


@pytest.mark.usefixtures("cluster")
def test_errors_of_tasks_are_one_line(
    metacurate: Command,
    pool: Path,
    entries_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    match = ("match", pool, "-m", entries_file, *OPTIONS, "--engine", "ray", "--out", out)
    for function, said in (
        (complain, ("is no good",)),
        (fill_the_disk, ("disk is full", "(/out/", "run the same command again")),
    ):
        monkeypatch.setattr("metacurate.curation.match.match_shard", function)
        run = metacurate(*match)
        fails(run, *said)
        assert len(run.stderr.splitlines()) == 1


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("kind", ["LocalRayletDiedError", "RaySystemError", "RpcError"])
def test_a_cluster_that_is_gone_is_one_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        error = getattr(ray.exceptions, kind)
        raise error("nobody answers") if kind != "LocalRayletDiedError" else error

    with make_engine("ray") as engine:
        monkeypatch.setattr(ray, "wait", gone)
        with pytest.raises(UserError, match=rf"cluster failed \({kind}: .*it resumes"):
            list(engine.map_shards(abs, [1, 2]))


def measure_load(task: tuple[str, int]) -> int:
    """How many tasks were handed over when this one ran."""
    folder, position = task
    (Path(folder) / f"{position}").touch()
    return len(list(Path(folder).iterdir()))


class Counted:
    """A sequence of tasks that notes how far it was read."""

    def __init__(self, folder: str, length: int) -> None:
        self.folder, self.length, self.furthest = folder, length, 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> tuple[str, int]:
        self.furthest = max(self.furthest, position)
        return self.folder, position


@pytest.mark.usefixtures("cluster")
def test_tasks_are_handed_over_a_few_at_a_time(tmp_path: Path) -> None:
    tasks = Counted(str(tmp_path), 40)
    with make_engine("ray", workers=3) as engine:
        for finished, _ in enumerate(engine.map_shards(measure_load, tasks), 1):  # type: ignore[arg-type]
            assert tasks.furthest < finished + 3
    assert tasks.furthest == 39


@pytest.mark.usefixtures("cluster")
def test_workers_must_see_the_run(tmp_path: Path) -> None:
    """A machine that has a folder of the same name, but not the same folder, is of no use."""
    with open_run(tmp_path / "shared", engine="ray") as run:
        assert dict(run.engine.map_shards(abs, [-1])) == {0: 1}
    with open_run(tmp_path / "out", engine="ray") as run:
        (tmp_path / "out" / HOLDER).write_text("process 1 on another machine")
        with pytest.raises(UserError, match=r"does not see .*out: the output must be on storage"):
            dict(run.engine.map_shards(abs, [-1]))


def test_wrong_engine_options_are_one_line(
    metacurate: Command,
    pool: Path,
    entries_file: Path,
    tmp_path: Path,
) -> None:
    common = ("curate", pool, "-m", entries_file, "--t", 1, *OPTIONS, "--out", tmp_path / "out")
    fails(metacurate(*common, "--engine", "spark"), "no engine 'spark'", "local, ray")
    fails(metacurate(*common, "--address", "auto"), "--engine ray")


def test_no_cluster_at_the_address(
    metacurate: Command,
    pool: Path,
    entries_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # not the other tests' Ray
    common = ("curate", pool, "-m", entries_file, "--t", 1, *OPTIONS, "--out", tmp_path / "out")
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9"):
        run = metacurate(*common, "--engine", "ray", "--address", address)
        fails(run, f"no Ray cluster answers at {address}", "--address")


def test_without_ray(
    metacurate: Command,
    pool: Path,
    entries_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    common = ("curate", pool, "-m", entries_file, "--t", 1, *OPTIONS, "--out", tmp_path / "out")
    fails(metacurate(*common, "--engine", "ray"), "--engine ray", "pip install '.[ray]'")
