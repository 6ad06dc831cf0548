"""Opening a run, and what it notices: overlaps, foreign files, lost and damaged outputs."""

from __future__ import annotations

import errno
import fcntl
import gzip
import io
import json
import os
import resource
import shutil
import tarfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import metacurate as mc
from metacurate.deduplication.dedup import DedupConfig, dedup
from metacurate.errors import UserError
from metacurate.images.duplicates import mark_duplicates
from metacurate.pipeline import curate
from metacurate.pool.memory import Given
from metacurate.pool.schema import PoolConfig
from metacurate.runtime import manifest
from metacurate.runtime.engines.local import LocalEngine
from metacurate.runtime.engines.threads import MOST_THREADS, ThreadEngine
from metacurate.runtime.manifest import Stage, Statistics
from metacurate.runtime.run import hold, is_held, open_run, refuse_overlap
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder, create_file
from metacurate.webdataset.ingest import ingest
from metacurate.webdataset.reshard import reshard

Command = Callable[..., Any]
ONE = LocalEngine(1)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Three files of ten pairs."""
    folder = tmp_path / "pool"
    folder.mkdir()
    for part in range(3):
        rows = [
            {"url": f"https://x.example/{part}-{n}.jpg", "text": f"a cat {n}"} for n in range(10)
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"part-{part}.parquet")
    (tmp_path / "entries.json").write_text('["cat", "dog"]')
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.name.startswith(".lock")
    }


# Workers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "compiled", "engine", "workers"),
    [
        (None, True, LocalEngine, 1),
        (None, False, LocalEngine, 2),
        (1, True, LocalEngine, 1),
        (2, True, ThreadEngine, 2),
        (MOST_THREADS, False, LocalEngine, MOST_THREADS),
        (MOST_THREADS, True, ThreadEngine, MOST_THREADS),
        (MOST_THREADS + 1, True, LocalEngine, MOST_THREADS + 1),
    ],
)
def test_compiled_stages_start_no_processes_for_little_and_for_few(
    pool: Path,
    tmp_path: Path,
    given: int | None,
    compiled: bool,
    engine: type[LocalEngine | ThreadEngine],
    workers: int,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr("metacurate.runtime.engines.local.available_cores", lambda: 2)
    with open_run(tmp_path / "out", inputs=[pool], workers=given, compiled=compiled) as run:
        assert type(run.engine) is engine
        assert run.engine.workers == workers


TABLE = pa.table({"url": [f"https://x.example/{n}" for n in range(99)], "text": ["a cat"] * 99})
TABLES: dict[str, tuple[Callable[[], Any], bool]] = {
    "table": (lambda: TABLE, True),
    "tables": (lambda: [TABLE, TABLE], True),
    "pandas": (TABLE.to_pandas, True),
    "polars": (lambda: pytest.importorskip("polars").from_arrow(TABLE), True),
    "large": (lambda: pa.table({"url": ["https://x.example/1"], "text": ["a" * (9 << 20)]}), False),
    "large pandas": (lambda: pa.table({"text": ["a" * (9 << 20)]}).to_pandas(), False),
    "large after small": (lambda: [TABLE, pa.table({"text": ["a" * (9 << 20)]})], False),
    "run through once": (lambda: iter([TABLE]), False),
    "reader": (lambda: pa.RecordBatchReader.from_stream(TABLE), False),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_small_table_in_memory_starts_no_processes(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would have to be run through to know how large it is stays as it is."""
    monkeypatch.setattr("metacurate.runtime.engines.local.available_cores", lambda: 2)
    make, alone = TABLES[kind]
    given = Given.of(make())
    with open_run(tmp_path / "out", compiled=True, held=given.held) as run:
        assert isinstance(run.engine, LocalEngine | ThreadEngine)
        assert (run.engine.workers == 1) == alone


def test_functions_say_how_large_their_table_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int | None] = []

    def engine(*_: Any, workers: int | None, **__: Any) -> LocalEngine:
        made.append(workers)
        return LocalEngine(1)

    monkeypatch.setattr("metacurate.runtime.run.make_engine", engine)
    mc.curate(TABLE, ["cat"], t=5, report=False)
    mc.dedup(TABLE, tmp_path / "dedup")
    mc.match(TABLE, ["cat"], tmp_path / "match")
    assert made == [1, 1, 1]


# Overlap ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelling",
    ["{pool}", "{pool}/", "{pool}/.", "{pool}/sub", "{pool}/sub/../", "{parent}/x/../pool",
     "{link}", "{link}/sub", "file://{pool}", "local://{pool}", "{relative}", "./{relative}"],
)  # fmt: skip
@pytest.mark.parametrize("given", ["{pool}", "{pool}/*.parquet", "{link}", "file://{pool}/"])
def test_an_output_in_an_input_is_refused(
    spelling: str, given: str, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = pool.parent / "link"
    link.symlink_to(pool)
    monkeypatch.chdir(pool.parent)
    names = {"pool": pool, "parent": pool.parent, "link": link, "relative": "pool"}
    before = files(pool)
    with (
        pytest.raises(UserError, match="overlaps the input"),
        open_run(spelling.format(**names), inputs=[given.format(**names)], engine=ONE),
    ):
        pass
    assert files(pool) == before


@pytest.mark.parametrize(
    ("out", "given"),
    [
        ("s3://b/pool", "s3://b/pool"),
        ("s3://b/pool/", "s3a://b/pool"),
        ("s3://b/pool/out", "s3://b//pool/*.parquet"),
        ("s3://b/x/../pool/out", "s3://b/pool/"),
        ("memory://pool/out", "memory://pool"),
        ("s3://b/out", "s3://b/out/pool/a.parquet"),
    ],
)
def test_addresses_overlap_in_every_spelling(out: str, given: str) -> None:
    with pytest.raises(UserError, match="overlaps the input"):
        refuse_overlap(out, given)


@pytest.mark.parametrize(
    ("out", "given"),
    [("s3://b/out", "s3://b/pool"), ("s3://b/pool2", "s3://b/pool"), ("/a/pool2", "/a/pool"),
     ("s3://b/pool", "gs://b/pool"), ("out", "pool/*.parquet"), ("out", "out2")],
)  # fmt: skip
def test_other_folders_do_not_overlap(out: str, given: str) -> None:
    refuse_overlap(out, given)


def test_commands_refuse_their_input_as_output(
    metacurate: Command, pool: Path, tmp_path: Path
) -> None:
    before = files(pool)
    for arguments in (
        ("pool", "dedup", pool, "--out", pool),
        ("pool", "dedup", pool, "--out", pool, "--overwrite"),
        ("curate", pool, "--t", 1, "--out", f"{pool}/sub"),
        ("pool", "filter", pool, "--scorer", "unsafe", "--out", f"{pool}/.", "--overwrite"),
    ):
        run = metacurate(*arguments)
        assert run.returncode == 2, run.stderr
        assert "overlaps the input" in run.stderr
    assert files(pool) == before


# What is not ours ---------------------------------------------------------------------------------


def test_files_of_others_are_never_touched(metacurate: Command, pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ours = {".tmp-mywork": b"x", "sub/.tmp-mywork": b"x", "state/tmp/notes": b"x",
            "sub/.tmp-a.0123456789abcdef0123456789abcdef": b"x"}  # fmt: skip
    for name, content in ours.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    (out / ".tmp-folder").mkdir()
    metadata = tmp_path / "entries.json"
    assert metacurate("curate", "/no/such/pool", "--t", 10, "--out", out).returncode == 2
    assert metacurate("curate", pool, "-m", metadata, "--t", 10, "--out", out).returncode == 0
    assert metacurate("curate", pool, "-m", metadata, "--t", 10, "--out", out).returncode == 0
    assert {name: (out / name).read_bytes() for name in ours} == ours
    assert (out / ".tmp-folder").is_dir()


def test_outputs_of_another_program_are_refused(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "pool").mkdir(parents=True)
    (tmp_path / "out" / "pool" / "mine.parquet").write_bytes(b"mine")
    with pytest.raises(UserError, match="was not made by this command"):
        dedup([str(pool)], str(tmp_path / "out"), DedupConfig(), PoolConfig(), overwrite=True)
    assert (tmp_path / "out" / "pool" / "mine.parquet").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ("curate", "nosuch", "--t", "1", "--out", "made/out"),
        ("curate", "pool", "-m", "nosuch.json", "--t", "1", "--out", "made/out"),
        ("curate", "pool", "--text-col", "nosuch", "--t", "1", "--out", "made/out"),
        ("pool", "dedup", "nosuch", "--out", "made/out"),
        ("pool", "extract", "nosuch.wat.gz", "--out", "made/out"),
        ("pool", "ingest", "nosuch", "--out", "made/out"),
        ("count", "made"),
        ("balance", "made", "--t", "1"),
    ],
)
@pytest.mark.usefixtures("pool")
def test_a_command_that_cannot_start_leaves_nothing(
    arguments: tuple[str, ...],
    metacurate: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = metacurate(*arguments)
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "made").exists()
    if arguments[0] in ("count", "balance"):
        assert "there is no folder made" in run.stderr


# Damage -------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def curated(pool: Path, out: Path, **options: Any) -> dict[str, Any]:
    return curate(
        str(pool), str(pool.parent / "entries.json"), str(out), t=10, engine=ONE,
        pool_config=PoolConfig(rows_per_unit=10), **options,
    )  # fmt: skip


OUTPUTS = (
    "curated/part-000001.parquet", "index/part-000002.arrow", "counts.npy", "kept_counts.npy",
    "datacard.json", "threshold.json", "metadata.parquet", "report.html", "report/ranks.svg",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool and its finished curation, to copy."""
    root = tmp_path_factory.mktemp("finished")
    (root / "pool").mkdir()
    for part in range(3):
        rows = [
            {"url": f"https://x.example/{part}-{n}.jpg", "text": f"a cat {n}"} for n in range(10)
        ]
        pq.write_table(pa.Table.from_pylist(rows), root / "pool" / f"part-{part}.parquet")
    (root / "entries.json").write_text('["cat", "dog"]')
    curated(root / "pool", root / "out")
    return root


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("harm", [Path.unlink, truncate], ids=["deleted", "truncated"])
def test_lost_outputs_are_made_again(
    name: str, harm: Callable[[Path], None], finished: Path
) -> None:
    out = finished / "out"
    before = files(out)
    harm(out / name)
    curated(finished / "pool", out)
    assert files(out) == before


@pytest.mark.parametrize("name", OUTPUTS)
def test_changed_outputs_are_found_and_made_again(
    name: str, metacurate: Command, finished: Path
) -> None:
    out = finished / "out"
    before = files(out)
    flip(out / name)
    run = metacurate("status", out, "--verify", "--json")
    assert run.returncode == 1
    assert json.loads(run.stdout)["damaged"] == {name: "has other bytes than were written"}
    curated(finished / "pool", out)
    assert files(out) == before
    assert metacurate("status", out, "--verify").returncode == 0


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("later", ["card", "report"])
def test_damage_that_a_later_stage_meets_is_one_line(
    harm: Callable[[Path], None], later: str, metacurate: Command, finished: Path, tmp_path: Path
) -> None:
    """The curated shards are damaged between two stages that ran to their end."""
    out = tmp_path / "out"
    shutil.copytree(finished / "out", out)
    path = out / "curated/part-000001.parquet"
    if harm is flip:  # the footer's length: what is read first
        path.write_bytes(path.read_bytes()[:-8] + b"\xff\xff\xff\x7fPAR1")
    else:
        harm(path)
    found = json.loads((out / "manifest.json").read_text())
    for name in ("card", "report"):
        del found["stages"][name]
        shutil.rmtree(out / "state" / name)
    for name in ("kept_counts.npy", "datacard.json", "report.html"):
        if later == "card" or name == "report.html":
            (out / name).unlink()
    for name in ("report", "state/kept_counts"):
        shutil.rmtree(out / name)
    (out / "manifest/balance.json").write_text(json.dumps({"shards": [], "files": {}}))
    (out / "manifest.json").write_text(json.dumps(found))
    command = ("report", out) if later == "report" else ("balance", out, "--t", 10)
    run = metacurate(*command)
    assert run.returncode == 2, run.stderr
    assert "part-000001.parquet" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("harm", [Path.unlink, truncate], ids=["deleted", "truncated"])
@pytest.mark.parametrize("most", [None, 2])
def test_a_run_whose_scratch_is_gone_starts_again_for_a_lost_output(
    harm: Callable[[Path], None], most: int | None, pool: Path, tmp_path: Path
) -> None:
    def run() -> Statistics:
        config = DedupConfig(shard_rows=10, max_images_per_text=most)
        return dedup([str(pool)], str(tmp_path / "out"), config, PoolConfig(), engine=ONE)

    totals, before = run(), files(tmp_path / "out")
    assert run() == totals
    harm(next((tmp_path / "out" / "pool").glob("*.parquet")))
    assert run() == totals
    assert files(tmp_path / "out") == before


# Stages -------------------------------------------------------------------------------------------

STAGE = Stage("double", ("doubled",))


def double(task: tuple[str, int]) -> Statistics:
    folder, number = task
    with Folder(folder).create(f"doubled/{number}.txt") as file:
        file.write(str(2 * number).encode())
    return {"numbers": 1}


def doubled(out: Path, stage: Stage = STAGE, **options: Any) -> Statistics:
    tasks = [(str(out), n) for n in range(3)]
    with open_run(out, engine=ONE, **options) as run:
        return run_stage(run, stage, {"factor": 2}, tasks, double, unit="numbers", alone=True)


def test_a_stage_of_another_format_is_refused_and_a_newer_package_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubled(tmp_path)
    monkeypatch.setattr(manifest, "__version__", "99.0")
    assert doubled(tmp_path) == {"numbers": 3}
    with pytest.raises(UserError, match="format was 1, is now 2"):
        doubled(tmp_path, Stage("double", ("doubled",), format=2))


def copied(tars: str, out: str, **options: Any) -> Statistics:
    return reshard([str(Path(tars).parent / "pool" / "pool")], tars, out, **options)


def marked(tars: str, out: str, **options: Any) -> Statistics:
    shutil.copytree(tars, out, dirs_exist_ok=True)
    return mark_duplicates(out, **options)


def merged(tars: str, out: str, most: int = 0, **options: Any) -> Statistics:
    config = DedupConfig(max_images_per_text=most)
    return dedup([str(Path(tars).parent / "pool")], out, config, PoolConfig(), **options)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (ingest, "pool/part-000000.parquet"),
        (copied, "00000.tar"),
        (marked, "duplicates/00000.parquet"),
        (merged, "pool/part-000000.parquet"),
        (partial(merged, most=5), "pool/part-000000.parquet"),
    ],
)
def test_overwrite_makes_a_finished_run_anew(
    function: Callable[..., Statistics], name: str, tmp_path: Path
) -> None:
    """Also with the same settings: what the user adds is recorded by its name only."""
    tars, out = tmp_path / "tars", tmp_path / "out"
    tars.mkdir()
    with tarfile.open(tars / "00000.tar", "w") as tar:
        for member, content in {"a.jpg": b"no image", "a.txt": b"a cat"}.items():
            facts = tarfile.TarInfo(member)
            facts.size = len(content)
            tar.addfile(facts, io.BytesIO(content))
    row = {"key": "a", "status": "success", "sha256": "0" * 64}
    pq.write_table(pa.Table.from_pylist([row]), tars / "00000.parquet")
    ingest(str(tars), str(tmp_path / "pool"), engine=ONE)
    totals = function(str(tars), str(out), engine=ONE)
    before = (out / name).read_bytes()
    flip(out / name)
    assert function(str(tars), str(out), engine=ONE) == totals
    assert (out / name).read_bytes() != before
    assert function(str(tars), str(out), engine=ONE, overwrite=True) == totals
    assert (out / name).read_bytes() == before


OWN_STAGES = {
    "match": (
        ("POOL", "-m", "ENTRIES", "--rows-per-unit", 10, "--out"),
        "index/part-000002.arrow", {"count", "balance", "card", "report"},
    ),
    "count": ((), "counts.npy", {"balance", "card", "report"}),
    "balance": (("--t", 10), "curated/part-000001.parquet", {"report"}),
}  # fmt: skip


@pytest.mark.parametrize("command", OWN_STAGES)
def test_overwrite_does_a_stage_of_its_own_again(
    command: str, finished: Path, tmp_path: Path, metacurate: Command
) -> None:
    """And those that build on it are to be done again; other settings redo what depends on them."""
    options, name, later = OWN_STAGES[command]
    out = tmp_path / "out"
    shutil.copytree(finished / "out", out)
    places = {"POOL": finished / "pool", "ENTRIES": finished / "entries.json"}
    words = (command, *(places.get(str(word), word) for word in options), out, "--workers", 1)
    before = (out / name).read_bytes()
    (out / name).write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    for more, is_same in ((), False), (("--overwrite",), True):
        run = metacurate(*words, *more)
        assert run.returncode == 0, run.stderr
        assert ((out / name).read_bytes() == before) == is_same
    assert not later & manifest.status(Folder(str(out)), held=False).keys()
    index = (out / "index/part-000000.arrow").stat().st_mtime_ns
    assert metacurate("count", out, "--workers", 1).returncode == 0
    for t in (7, 10):
        run = metacurate("balance", out, "--t", t, "--overwrite", "--workers", 1)
        assert run.returncode == 0, run.stderr
    assert (out / "index/part-000000.arrow").stat().st_mtime_ns == index
    kept = {n: b for n, b in files(finished / "out").items() if n.startswith(("curated", "counts"))}
    assert {n: b for n, b in files(out).items() if n in kept} == kept


def test_overwrite_curates_a_finished_run_again(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "pool", tmp_path / "pool")
    shutil.copy(finished / "entries.json", tmp_path)
    pool, out = tmp_path / "pool", tmp_path / "out"
    curated(pool, out)
    before = files(out)
    for name in ("index/part-000002.arrow", "report.html"):
        flip(out / name)
    harmed = files(out)
    curated(pool, out)
    assert files(out) == harmed
    curated(pool, out, overwrite=True)
    assert files(out) == before


def test_overwrite_lets_a_stopped_run_resume(tmp_path: Path) -> None:
    """Else a run that is killed again and again would never end."""
    doubled(tmp_path)
    state = json.loads((tmp_path / "manifest.json").read_text())
    state["stages"]["double"]["state"] = "running"
    (tmp_path / "manifest.json").write_text(json.dumps(state))
    (tmp_path / "doubled/1.txt").write_bytes(b"9")
    assert doubled(tmp_path, overwrite=True) == {"numbers": 3}
    assert (tmp_path / "doubled/1.txt").read_bytes() == b"9"
    assert doubled(tmp_path, overwrite=True) == {"numbers": 3}
    assert (tmp_path / "doubled/1.txt").read_bytes() == b"2"


def test_status_tells_stopped_from_running(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    with open_run(tmp_path, engine=ONE) as run:
        manifest.begin(run.folder, STAGE, {}, overwrite=False)
        assert is_held(folder)
        assert manifest.status(folder, held=is_held(folder))["double"].state == "running"
    assert not is_held(folder)
    assert manifest.status(folder, held=is_held(folder))["double"].state == "stopped"


def test_who_looks_at_a_lock_needs_not_own_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another user's run, or one on a read-only file system; two may look at the same time."""
    folder = Folder(str(tmp_path))
    with open_run(tmp_path, engine=ONE) as run:
        manifest.begin(run.folder, STAGE, {}, overwrite=False)
    flags: list[int] = []
    real = os.open

    def opened(path: Any, how: int, *rest: Any, **named: Any) -> int:
        flags.append(how)
        return real(path, how, *rest, **named)

    monkeypatch.setattr(os, "open", opened)
    with (tmp_path / ".lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not is_held(folder)
    assert not any(how & (os.O_WRONLY | os.O_RDWR) for how in flags)


def test_a_run_that_may_only_be_read_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    doubled(tmp_path)
    (tmp_path / "doubled/1.txt").write_bytes(b"9")
    before = files(tmp_path)
    with monkeypatch.context() as patched:  # root may write anywhere
        patched.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
        assert mc.status(tmp_path, verify=True)["damaged"].keys() == {"doubled/1.txt"}
        with hold(Folder(str(tmp_path))), pytest.raises(UserError, match=r"in use by process \d+"):
            mc.status(tmp_path, verify=True)
    assert files(tmp_path) == before
    assert mc.status(tmp_path)["stages"]["double"]["state"] == "done"


def test_a_look_at_a_lock_does_not_stop_a_run_that_starts(tmp_path: Path) -> None:
    doubled(tmp_path)
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        end = threading.Timer(0.1, fcntl.flock, (other, fcntl.LOCK_UN))
        end.start()
        with hold(Folder(str(tmp_path))):
            pass
        end.join()


@pytest.mark.parametrize(
    ("held", "ages", "start", "state", "rate", "left", "age"),
    [
        (True, (), None, "running", None, None, 500),
        (True, (7,), None, "running", None, None, 7),
        (True, (7, 37, 67), None, "running", 2, 60 * 97 / 2, 7),
        (True, tuple(range(5, 100, 1)), None, "running", 60, 5, 5),
        # An hour's pause before the newest 32 does not count.
        (True, (*range(3, 36), *range(3636, 3640)), None, "running", 60, 63, 3),
        (False, (70, 100), None, "stopped", 2, None, 70),
        # A run that was stopped: what it did before the present one began is of another rate.
        (True, (10, 20, 3600, 3601, 3602), 30, "running", 6, 950, 10),
        (True, (10, 3600, 3601), 30, "running", None, None, 10),
        (False, (10, 20, 3600, 3601), 30, "stopped", 6, None, 10),
        (True, (-50, -20), None, "running", 2, 60 * 98 / 2, 0),  # a store whose clock is ahead
    ],
)
def test_status_tells_rate_and_age(
    held: bool, ages: tuple[int, ...], start: int | None, state: str, rate: float | None,
    left: float | None, age: float, tmp_path: Path,
) -> None:  # fmt: skip
    """Rate by the newest shards, age by the newest of all."""
    folder, now = Folder(str(tmp_path)), time.time()
    manifest.begin(folder, STAGE, {}, overwrite=False)
    manifest.plan(folder, STAGE, 100)
    os.utime(tmp_path / "manifest.json", (now - 500, now - 500))
    if start is not None:
        manifest.started(folder, STAGE)
        os.utime(tmp_path / "state/started/double.json", (now - start, now - start))
    for position, seconds in enumerate(ages):
        folder.write_json(STAGE.shard_state(position), {"statistics": {}, "files": {}})
        os.utime(tmp_path / STAGE.shard_state(position), (now - seconds, now - seconds))
    found = manifest.status(folder, held=held)["double"]
    assert (found.state, found.shards, found.shards_done) == (state, 100, len(ages))
    assert found.shards_per_minute == pytest.approx(rate)
    assert found.seconds_left == pytest.approx(left)
    assert found.age_seconds == pytest.approx(age, abs=2)


def test_status_tells_the_age_of_what_is_done(tmp_path: Path) -> None:
    doubled(tmp_path)
    then = time.time() - 1000
    os.utime(tmp_path / "manifest/double.json", (then, then))
    found = manifest.status(Folder(str(tmp_path)), held=False)["double"]
    assert (found.state, found.shards_done, found.shards_per_minute) == ("done", 3, None)
    assert found.age_seconds == pytest.approx(1000, abs=2)


def test_a_home_is_expanded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert doubled(Path("~/out")) == {"numbers": 3}
    assert (tmp_path / "out" / "doubled" / "1.txt").read_text() == "2"
    assert not (tmp_path / "~").exists()


def test_a_first_manifest_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-manifest.json.0123456789abcdef0123456789abcdef").write_bytes(b"half")
    (tmp_path / "note").write_bytes(b"mine")
    with hold(Folder(str(tmp_path))):
        assert "note" in os.listdir(tmp_path)
    assert os.listdir(tmp_path) == ["note"]


def test_what_a_run_writes_beside_its_folder_is_unfinished_within_it(tmp_path: Path) -> None:
    """So that the next run finds what a killed one leaves."""
    doubled(tmp_path / "out.work")
    with open_run(tmp_path / "out.work"), create_file(tmp_path / "out.json") as file:
        file.write(b"half")
        assert os.listdir(tmp_path) == ["out.work"]
        assert len(os.listdir(tmp_path / "out.work" / "state" / "tmp")) == 1
    assert sorted(os.listdir(tmp_path)) == ["out.json", "out.work"]
    assert os.listdir(tmp_path / "out.work" / "state" / "tmp") == []


def test_temporary_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    doubled(tmp_path)
    scratch = tmp_path / "state" / "tmp"
    left = scratch / ".tmp-1.txt.0123456789abcdef0123456789abcdef"
    left.write_bytes(b"half")
    (scratch / "note").write_bytes(b"mine")
    with hold(Folder(str(tmp_path))):
        assert sorted(os.listdir(scratch)) == ["note"]


def save_with_torch(file: Any) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")
    torch.save({"weights": torch.zeros(100_000)}, file)


def save_with_parquet(file: Any) -> None:
    pq.write_table(pa.table({"a": np.random.default_rng(0).random(50_000)}), file)


def save_with_gzip(file: Any) -> None:
    with gzip.open(file, "wb") as packed:
        packed.write(np.random.default_rng(0).bytes(400_000))


@pytest.mark.parametrize("save", [save_with_torch, save_with_parquet, save_with_gzip])
@pytest.mark.parametrize("where", ["local", "store"])
def test_what_cannot_be_written_is_told_by_the_system(
    save: Callable[[Any], None], where: str, tmp_path: Path
) -> None:
    """A limit stands for a full disk: libraries that write have errors of their own for it."""
    folder = Folder(str(tmp_path) if where == "local" else f"memory://{save.__name__}")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as full, folder.create("file") as file:
            save(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full.value.errno == errno.EFBIG
    assert folder.list() == []
    with folder.create("file") as file:
        save(file)
    assert folder.list() == ["file"]
