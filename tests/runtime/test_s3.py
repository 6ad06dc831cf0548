"""Input and output on an S3 server (moto's, on this machine): the same bytes as on a disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import Command, command_line, digests, environment
from curation_pools import OPTIONS, entries_file, fails, pool  # noqa: F401  (fixtures)
from metacurate.errors import Stopped, UserError
from metacurate.pool.open import open_pool
from metacurate.pool.read import read_unit
from metacurate.pool.schema import PoolConfig
from metacurate.runtime import remote_lock
from metacurate.runtime.run import hold, is_held
from metacurate.runtime.storage import Folder

s3fs = pytest.importorskip("s3fs", reason="needs the extra metacurate[s3]")
moto_server = pytest.importorskip("moto.server", reason="needs moto's server: moto[server]")

BUCKET = "metacurate-test"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server, and the environment that leads every S3 client to it."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield address
    server.stop()


@pytest.fixture
def bucket(endpoint: str) -> Iterator[Any]:
    """An empty bucket, through a client of its own that keeps no listings."""
    client = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    client.mkdir(BUCKET)
    yield client
    client.rm(BUCKET, recursive=True)


def contents(client: Any, folder: str) -> dict[str, bytes]:
    """All objects below a folder, by relative name."""
    start = len(f"{BUCKET}/{folder}/")
    return {name[start:]: client.cat(name) for name in client.find(f"{BUCKET}/{folder}")}


def hashed(objects: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.blake2b(data).hexdigest() for name, data in objects.items()}


def without_local_files(found: dict[str, str]) -> dict[str, str]:
    """The lock, and the matcher's tables to be mapped into memory, are for disks only."""
    return {n: h for n, h in found.items() if n != ".lock" and not n.startswith("state/matcher/")}


def test_same_bytes_as_on_a_disk(
    metacurate: Command,
    pool: Path,
    entries_file: Path,
    tmp_path: Path,
    bucket: Any,
) -> None:
    common = ("--target-size", 800, *OPTIONS, "--no-report", "--workers", 1)
    local = tmp_path / "out"
    run = metacurate("curate", pool, "-m", entries_file, *common, "--out", local)
    assert run.returncode == 0, run.stderr
    # From disk to S3: all bytes are the same.
    run = metacurate("curate", pool, "-m", entries_file, *common, "--out", f"s3://{BUCKET}/a")
    assert run.returncode == 0, run.stderr
    expected = without_local_files(digests(local))
    assert hashed(contents(bucket, "a")) == expected
    # From S3 to S3: but for the pool's addresses.
    for path in pool.iterdir():
        bucket.put(str(path), f"{BUCKET}/pool/{path.name}")
    bucket.put(str(entries_file), f"{BUCKET}/metadata.json")
    run = metacurate(
        "curate", f"s3://{BUCKET}/pool", "-m", f"s3://{BUCKET}/metadata.json",
        *common[:-1], 2, "--out", f"s3://{BUCKET}/b", "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = contents(bucket, "b")
    for name in ("manifest.json", "datacard.json"):
        found[name] = found[name].replace(f"s3://{BUCKET}/pool".encode(), str(pool).encode())
    # There is the checksum of the data card, which names the pool's files too.
    details = [
        json.loads(found.pop("manifest/card.json")),
        json.loads((local / "manifest/card.json").read_text()),
    ]
    for one in details:
        del one["files"]["datacard.json"]
    assert details[0] == details[1]
    del expected["manifest/card.json"]
    assert hashed(found) == expected
    assert json.loads(run.stdout)["pool"]["pairs"] == 3000
    status = metacurate("status", f"s3://{BUCKET}/b", "--json")
    assert {s["state"] for s in json.loads(status.stdout)["stages"].values()} == {"done"}


def test_stages_and_overwrite_in_one_process(
    metacurate: Command,
    pool: Path,
    entries_file: Path,
    tmp_path: Path,
    bucket: Any,
) -> None:
    """No listing from a cache hides what was written or removed since."""
    out, local = f"s3://{BUCKET}/out", tmp_path / "out"
    for place in (out, local):
        for command in (
            ("match", pool, "-m", entries_file, *OPTIONS, "--out", place),
            ("count", place),
            ("balance", place, "--t", 5),
            ("balance", place, "--t", 40, "--overwrite"),
        ):
            run = metacurate(*command, "--workers", 1)
            assert run.returncode == 0, run.stderr
    assert hashed(contents(bucket, "out")) == without_local_files(digests(local))


def test_killed_run_resumes(
    metacurate: Command,
    pool: Path,
    entries_file: Path,
    tmp_path: Path,
    bucket: Any,
) -> None:
    arguments = (
        "curate", pool, "-m", entries_file, "--t", 40, "--text-col", "alt",
        "--rows-per-unit", 1, "--workers", 2, "--out",
    )  # fmt: skip
    assert metacurate(*arguments, tmp_path / "undisturbed").returncode == 0
    process = subprocess.Popen(
        command_line(*arguments, f"s3://{BUCKET}/out"),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and len(bucket.glob(f"{BUCKET}/out/state/balance/*")) < 2:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not bucket.exists(f"{BUCKET}/out/datacard.json")
    run = metacurate(*arguments, f"s3://{BUCKET}/out")
    assert run.returncode == 0, run.stderr
    expected = without_local_files(digests(tmp_path / "undisturbed"))
    assert hashed(contents(bucket, "out")) == expected


def test_folder(bucket: Any) -> None:
    folder = Folder(f"s3://{BUCKET}/run")
    assert folder.list() == folder.list("state") == []
    assert folder.read_json("a.json") is None
    assert not folder.exists("a.json")
    folder.remove("a.json")
    folder.write_json("a.json", 1)
    assert folder.list() == ["a.json"]
    # Another process writes and removes.
    for name in ("b.json", "state/count/1", "state/counts/1", "state/count.txt"):
        bucket.pipe(f"{BUCKET}/run/{name}", b"[22, 333]")
    assert folder.list() == ["a.json", "b.json"]
    assert folder.list("state/count") == ["state/count/1"]
    assert folder.read_json("b.json") == [22, 333]
    bucket.pipe(f"{BUCKET}/run/b.json", b"[4444, 55555, 666666]")
    assert folder.read_json("b.json") == [4444, 55555, 666666]
    folder.remove("state/count")
    assert folder.list("state/count") == []
    assert folder.list("state/counts") == ["state/counts/1"]
    assert folder.list("state") == ["state/count.txt"]
    bucket.rm(f"{BUCKET}/run/b.json")
    assert not folder.exists("b.json")
    # Nothing appears if writing fails, and what was there stays.
    with pytest.raises(BufferError), folder.create("a.json") as file:  # noqa: PT012
        file.write(b"half of it")
        raise BufferError
    assert folder.read_json("a.json") == 1
    folder.remove("a.json")
    assert not folder.exists("a.json")


def test_large_files_are_looked_at_but_not_read(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = pa.array([random.Random(i).randbytes(1 << 20) for i in range(70)], pa.binary())
    urls = [f"http://a/{i}" for i in range(70)]
    table = pa.table({"url": urls, "text": ["a cat"] * 70, "image": noise})
    pq.write_table(table, tmp_path / "large.parquet", compression="none")
    bucket.put(str(tmp_path / "large.parquet"), f"{BUCKET}/large.parquet")
    fetched = []
    fetch = s3fs.core.S3File._fetch_range

    def noted_fetch(file: Any, start: int, end: int) -> bytes:
        fetched.append(end - start)
        return fetch(file, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", noted_fetch)
    found = open_pool([f"s3://{BUCKET}/large.parquet"], PoolConfig())
    local = open_pool([str(tmp_path / "large.parquet")], PoolConfig())
    assert list(found.fingerprints.values()) == list(local.fingerprints.values())
    assert sum(fetched) < 3 << 20
    assert len(fetched) < 30
    fetched.clear()
    batches = list(read_unit(found.units[0], all_columns=False, skipped=Counter()))
    assert sum(batch.rows for batch in batches) == 70
    assert sum(fetched) < 30 << 20
    assert len(fetched) < 10


def test_storage_errors_are_one_line(
    metacurate: Command,
    pool: Path,
    entries_file: Path,
    tmp_path: Path,
    bucket: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def curate(*arguments: object) -> subprocess.CompletedProcess[str]:
        return metacurate(
            "curate", *arguments, "-m", entries_file, "--t", 1, *OPTIONS, "--workers", 1
        )

    missing = "s3://no-such-bucket-here"
    fails(curate(pool, "--out", f"{missing}/out"), f"{missing}/out: ", "bucket does not exist")
    fails(curate(f"{missing}/in", "--out", tmp_path / "out"), f"{missing}/in", "does not exist")
    fails(
        curate(f"s3://{BUCKET}/nothing", "--out", tmp_path / "out"),
        f"there is no file or folder s3://{BUCKET}/nothing",
    )
    fails(curate("nonsense://a/b", "--out", tmp_path / "out"), "nonsense://a/b", "nonsense")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    fails(curate(pool, "--out", f"s3://{BUCKET}/out"), "endpoint", "127.0.0.1:9")
    place = f"s3://{BUCKET}/place"
    for command in ("ingest", "extract"):
        fails(metacurate("pool", command, place, "--out", tmp_path / "out"), f"failed: {place}: ")
    fails(metacurate("status", place), f"failed: {place}: ")
    run = metacurate("curate", pool, "-m", place, "--t", 1, "--out", tmp_path / "out", *OPTIONS)
    fails(run, f"failed: {place}: ")
    s3fs.S3FileSystem.clear_instance_cache()


# The lock.


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick beats, so that a dead owner is known after some seconds."""
    for name, seconds in (("BEAT", 0.2), ("WATCH", 2.5), ("SETTLE", 0.5)):
        monkeypatch.setattr(remote_lock, f"{name}_SECONDS", seconds)


def lock_of(bucket: Any) -> dict[str, Any]:
    return json.loads(bucket.cat_file(f"{BUCKET}/run/.lock"))


@pytest.mark.usefixtures("quick")
def test_a_folder_is_one_runs(bucket: Any) -> None:
    folder = Folder(f"s3://{BUCKET}/run")
    with hold(folder):
        first = lock_of(bucket)
        assert first["process"] == os.getpid()
        assert is_held(folder)
        with (
            pytest.raises(UserError, match=rf"is in use by process {os.getpid()} on"),
            hold(folder),
        ):
            pass
        time.sleep(1.0)  # longer than anyone watches
        assert lock_of(bucket)["beat"] > first["beat"]
        assert lock_of(bucket)["token"] == first["token"]
    assert not bucket.exists(f"{BUCKET}/run/.lock")
    assert not is_held(folder)


@pytest.mark.usefixtures("quick")
def test_a_dead_owners_lock_is_taken_over(bucket: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "metacurate")
    dead = {"host": "another", "process": 7, "token": "dead", "beat": 3}
    bucket.pipe_file(f"{BUCKET}/run/.lock", json.dumps(dead).encode())
    folder = Folder(f"s3://{BUCKET}/run")
    with hold(folder):
        assert lock_of(bucket)["token"] != "dead"
    assert "process 7 on another shows no sign of life" in caplog.text


@pytest.mark.usefixtures("quick")
def test_of_two_that_take_over_one_wins(bucket: Any) -> None:
    bucket.pipe_file(f"{BUCKET}/run/.lock", b"no JSON at all")
    folder, held, refused = Folder(f"s3://{BUCKET}/run"), [], []
    start = threading.Barrier(3)

    def take(number: int) -> None:
        start.wait()
        try:
            with hold(folder):
                held.append(number)
                time.sleep(5)
        except UserError:
            refused.append(number)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    assert len(refused) == 2


@pytest.mark.usefixtures("quick")
def test_who_loses_its_lock_stops(bucket: Any) -> None:
    folder = Folder(f"s3://{BUCKET}/run")
    other = {"host": "another", "process": 9, "token": "other", "beat": 0}

    def run() -> None:
        with hold(folder):
            bucket.pipe_file(f"{BUCKET}/run/.lock", json.dumps(other).encode())
            time.sleep(5)

    with pytest.raises(Stopped, match="was taken over by process 9 on another"):
        run()
    assert lock_of(bucket) == other


KILLED = """
import os, signal, sys
from functools import partialmethod
import s3fs
from metacurate.runtime.run import hold
from metacurate.runtime.storage import Folder

real = s3fs.S3FileSystem._put_file
s3fs.S3FileSystem._put_file = partialmethod(real, chunksize=5 << 20, max_concurrency=1)
parts = []
call = s3fs.S3FileSystem._call_s3

async def dying(self, method, *arguments, **options):
    if method == "upload_part":
        parts.append(method)
        if len(parts) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
    return await call(self, method, *arguments, **options)

s3fs.S3FileSystem._call_s3 = dying
folder = Folder(sys.argv[1])
with hold(folder), folder.create("curated/x.parquet") as file:
    file.write(bytes(12 << 20))
"""


def test_what_a_killed_run_had_half_uploaded_is_given_up(bucket: Any) -> None:
    out = f"s3://{BUCKET}/run"
    killed = subprocess.run([sys.executable, "-c", KILLED, out], env=environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    [half] = bucket.call_s3("list_multipart_uploads", Bucket=BUCKET)["Uploads"]
    assert half["Key"] == "run/curated/x.parquet"
    with hold(Folder(out)):
        assert "Uploads" not in bucket.call_s3("list_multipart_uploads", Bucket=BUCKET)
    assert not bucket.exists(f"{BUCKET}/run/curated/x.parquet")


def test_half_made_uploads_are_given_up(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are not in the first list, which a store ends where it likes."""
    call = s3fs.S3FileSystem.call_s3

    def short(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        if method == "list_multipart_uploads":
            options["MaxUploads"] = 2
        return call(self, method, *arguments, **options)

    for key in (*(f"run/curated/{n}.parquet" for n in range(5)), "elsewhere/y"):
        bucket.call_s3("create_multipart_upload", Bucket=BUCKET, Key=key)
    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", short)
    with hold(Folder(f"s3://{BUCKET}/run")):
        left = bucket.call_s3("list_multipart_uploads", Bucket=BUCKET)["Uploads"]
    assert [upload["Key"] for upload in left] == ["elsewhere/y"]


def test_a_second_command_is_refused(
    metacurate: Command, pool: Path, entries_file: Path, bucket: Any
) -> None:
    out = f"s3://{BUCKET}/run"
    with hold(Folder(out)):
        run = metacurate("curate", pool, "-m", entries_file, "--t", 5, *OPTIONS, "--out", out)
    fails(run, "is in use by process", "--out")
