"""Inputs on web servers and on Hugging Face's hub, from a server on this machine; what is missing.

The hub's answers are those that its client asks for: about a repository, lists of its files, and
byte ranges of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from fsspec.registry import _registry

import metacurate as mc
from conftest import Command
from curation_pools import fails
from metacurate.errors import UserError
from metacurate.needs import how_to_install
from metacurate.pool.open import open_pool
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.inputs import open_input

ROOT: web.AppKey[Path] = web.AppKey("root", Path)
COMMIT = "0" * 40


async def without_size(request: web.Request) -> web.StreamResponse:
    """A page made while it is sent."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"url,text\n")
    await response.write_eof()
    return response


async def whole(request: web.Request) -> web.Response:
    """A file from a server that knows no ranges."""
    return web.Response(body=(request.app[ROOT] / request.match_info["name"]).read_bytes())


async def refused(_: web.Request) -> web.Response:
    return web.Response(status=403)


async def about(_: web.Request) -> web.Response:
    return web.json_response({"id": "org/set", "sha": COMMIT, "siblings": []})


def entry(root: Path, path: Path) -> dict[str, object]:
    if path.is_dir():
        return {"type": "directory", "oid": COMMIT, "size": 0, "path": str(path.relative_to(root))}
    data = path.read_bytes()
    name = str(path.relative_to(root))
    return {"type": "file", "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": name}


async def tree(request: web.Request) -> web.Response:
    root = request.app[ROOT]
    place = root / request.match_info.get("path", "")
    if not place.is_dir():
        return web.json_response({}, status=404, headers={"X-Error-Code": "EntryNotFound"})
    deep = request.query.get("recursive", "").lower() in ("1", "true")
    found = place.rglob("*") if deep else place.iterdir()
    return web.json_response([entry(root, path) for path in sorted(found)])


async def content(request: web.Request) -> web.StreamResponse:
    path = request.app[ROOT] / request.match_info["path"]
    if not path.is_file():
        return web.Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
    return web.FileResponse(path, headers={"X-Repo-Commit": COMMIT})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of a pool, in folders, and metadata."""
    root = tmp_path_factory.mktemp("store")
    for number in range(2):
        (root / "pool" / str(number)).mkdir(parents=True)
        urls = [f"http://a.example/{number}/{row}" for row in range(5)]
        pairs = pa.table({"url": urls, "text": ["a cat", "a dog", "a", "", "cats"]})
        pq.write_table(pairs, root / "pool" / str(number) / "x.parquet")
    # Its end is beyond what is read ahead.
    (root / "long.csv").write_text("url,text\n" + "http://a.example/x,a cat\n" * 800_000)
    (root / "metadata.json").write_text(json.dumps(["a", "cat"]))
    return root


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[str]:
    """The address of a web server, which is that of a hub too."""
    app = web.Application()
    app[ROOT] = store
    app.router.add_static("/files", store, show_index=True)
    app.router.add_get("/whole/{name:.*}", whole)
    app.router.add_get("/made/{name:.*}", without_size)
    app.router.add_get("/refused/{name:.*}", refused)
    app.router.add_get("/api/datasets/org/set", about)
    app.router.add_get("/api/datasets/org/set/tree/main", tree)
    app.router.add_get("/api/datasets/org/set/tree/main/{path:.*}", tree)
    app.router.add_get("/datasets/org/set/resolve/main/{path:.*}", content)
    loop, ready = asyncio.new_event_loop(), threading.Event()
    runner = web.AppRunner(app)
    ports: list[int] = []

    def serve() -> None:
        async def start() -> None:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            ports.append(runner.addresses[0][1])
            ready.set()

        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    ready.wait()
    yield f"http://127.0.0.1:{ports[0]}"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture
def hub(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The hub's client asks the server."""
    hugging = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    files = f"{server}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "1")
    hugging.HfFileSystem.clear_instance_cache()
    yield
    hugging.HfFileSystem.clear_instance_cache()


WEB = ["{server}/files/pool/{n}/x.parquet", "{server}/files/pool/{n}/*.parquet",
       "{server}/files/pool/{n}/"]  # fmt: skip
HUB = ["hf://datasets/org/set/pool/{n}/x.parquet", "hf://datasets/org/set/pool/{n}/*.parquet",
       "hf://datasets/org/set/pool/{n}"]  # fmt: skip


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("form", [*WEB, *HUB])
def test_a_file_a_pattern_and_a_folder(form: str, server: str, store: Path) -> None:
    given = [form.format(server=server, n=n) for n in range(2)]
    found = open_pool(given, PoolConfig())
    local = open_pool([str(store / "pool")], PoolConfig())
    assert list(found.fingerprints.values()) == list(local.fingerprints.values())
    assert [unit.rows for unit in found.units] == [5, 5]


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("start", ["{server}/files", "hf://datasets/org/set"])
def test_a_pool_is_curated_from_there(
    start: str, server: str, store: Path, metacurate: Command, tmp_path: Path
) -> None:
    kept = []
    for place in (start.format(server=server), str(store)):
        pool = [f"{place}/pool/{n}/x.parquet" for n in range(2)]
        out = tmp_path / f"out-{len(kept)}"
        run = metacurate("curate", *pool, "-m", f"{place}/metadata.json", "--t", 3,
                         "--workers", 1, "--no-report", "--out", out)  # fmt: skip
        assert run.returncode == 0, run.stderr
        kept.append([path.read_bytes() for path in sorted((out / "curated").iterdir())])
    assert kept[0] == kept[1]


REFUSED = {
    "{server}/files/none.parquet": ["there is no file or folder {server}/files/none.parquet"],
    "{server}/refused/x.parquet": ["{server}/refused/x.parquet cannot be read", "403"],
    "{server}/made/x.csv": ["{server}/made/x.csv has no size that its storage tells"],
    "{server}/files/none/": ["there is no file or folder {server}/files/none/"],
    "{server}/whole/pool/0/x.parquet": ["{server}/whole/pool/0/x.parquet cannot be read", "ranges"],
    "{server}/whole/long.csv": ["{server}/whole/long.csv cannot be read", "no ranges of bytes"],
    "{server}/files/pool": ["{server}/files/pool is no pool file", "folder ends in '/'"],
    "http://127.0.0.1:9/x.parquet": ["http://127.0.0.1:9/x.parquet cannot be read", "127.0.0.1:9"],
    "hf://datasets/org/set/none": ["there is no file or folder hf://datasets/org/set/none"],
    "hf://datasets/org/none/x.parquet": ["object store failed", "404"],
    "hf://one": ["object store failed", "'one'"],
    "ftp://127.0.0.1:9/x.parquet": ["no server answers", "check the address"],
}


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("given", REFUSED)
def test_what_cannot_be_read_is_one_line(
    given: str, server: str, metacurate: Command, tmp_path: Path
) -> None:
    run = metacurate("pool", "uids", given.format(server=server), "-o", tmp_path / "x.npy")
    fails(run, *(part.format(server=server) for part in REFUSED[given]))
    assert len(run.stderr.splitlines()) == 1


def test_a_server_without_ranges_serves_small_files(server: str, store: Path) -> None:
    """What is asked for by ranges cannot be read from it; what is read from its start can."""
    with open_input(f"{server}/whole/metadata.json") as file:
        assert file.read() == (store / "metadata.json").read_bytes()


@pytest.mark.parametrize("out", ["{server}/files/out", "hf://datasets/org/set/out"])
def test_outputs_that_cannot_be_are_refused(
    out: str, server: str, store: Path, metacurate: Command
) -> None:
    run = metacurate("curate", store / "pool", "-m", store / "metadata.json", "--t", 1,
                     "--out", out.format(server=server))  # fmt: skip
    fails(run, "--out", "cannot be written to")


PACKAGES = {
    "s3://a/b": ("s3", "s3fs", how_to_install("s3")),
    "gs://a/b": ("gs", "gcsfs", "pip install gcsfs"),
    "hf://datasets/a/b/c": ("hf", "huggingface_hub", how_to_install("hf")),
    "abfs://a/b": ("abfs", "adlfs", "pip install adlfs"),
    "zip://x.parquet::gs://a/b.zip": ("gs", "gcsfs", "pip install gcsfs"),
}


@pytest.mark.parametrize("address", PACKAGES)
def test_a_missing_package_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol, package, advice = PACKAGES[address]
    monkeypatch.delitem(_registry, protocol, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as refusal:
        open_pool([address], PoolConfig())
    assert str(refusal.value).startswith(address.split("/x", maxsplit=1)[0][:3])
    assert str(refusal.value).endswith(advice)


@pytest.mark.parametrize("protocol", ["file", "local"])
def test_folders_of_this_machine_by_their_addresses(protocol: str, tmp_path: Path) -> None:
    table = pa.table({"url": ["https://x.example/1"], "text": ["a cat"]})
    address = f"{protocol}://{tmp_path}/a b%20c"
    assert mc.curate(table, metadata=["cat"], t=1, out=address).to_arrow().num_rows == 1
    assert mc.status(address, verify=True)["damaged"] == {}
    assert (tmp_path / "a b%20c" / "manifest.json").exists()
