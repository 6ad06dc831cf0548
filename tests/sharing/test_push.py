"""Runs are uploaded by the hub's own client, to a server of this machine with its protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import metacurate as mc
from conftest import Command
from curation_pools import fails

TOKEN = "hf_a-token"
COMMIT = "0" * 40
SECRETS = ("private-folder", "zzsecret")


class Hub(ThreadingHTTPServer):
    """Data sets by name, each ``{file: content}``; files over 4 kB come by LFS."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hub)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.sets: dict[str, dict[str, bytes]] = {}
        self.private: list[str] = []
        self.large: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refuse = 0


class _Hub(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def _answer(self, value: Any = None, status: int = 200, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _any(self) -> None:
        hub = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        hub.asked.append(f"{self.command} {path}")
        if path.startswith("/lfs/"):
            if self.command == "PUT":
                hub.large[path.removeprefix("/lfs/")] = body
            return self._answer({})
        if hub.refuse or self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer({"error": "no"}, hub.refuse or 401)
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        given = json.loads(body) if body and "commit" not in path else {}
        if path == "/api/repos/create":
            name = f"{given['organization']}/{given['name']}" if given.get("organization") else ""
            name = name or f"me/{given['name']}"
            assert given["type"] == "dataset"
            url = {"url": f"{hub.address}/datasets/{name}"}
            if name in hub.sets:
                return self._answer({**url, "error": "there"}, 409)
            hub.sets[name] = {".gitattributes": b"*"}
            hub.private += [name] * bool(
                given.get("private") or given.get("visibility") == "private"
            )
            return self._answer(url)
        return self._of_set(path, given, body)

    def _of_set(self, path: str, given: dict[str, Any], body: bytes) -> None:
        hub = self.server
        name = "/".join(path.removeprefix("/api").removeprefix("/datasets").split("/")[1:3])
        name = name.removesuffix(".git")
        files = hub.sets[name]
        if path.endswith("/preupload/main"):
            modes = [
                {"path": file["path"], "shouldIgnore": False, "oid": None,
                 "uploadMode": "lfs" if file["size"] > 4096 else "regular"}
                for file in given["files"]
            ]  # fmt: skip
            return self._answer({"files": modes})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**item, "authenticated": True,
                 "actions": {"upload": {"href": f"{hub.address}/lfs/{item['oid']}", "header": {}}}}
                for item in given["objects"]
            ]  # fmt: skip
            return self._answer({"transfer": "basic", "objects": objects})
        if path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                match line["key"]:
                    case "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    case "lfsFile":
                        files[value["path"]] = hub.large[value["oid"]]
                        assert hashlib.sha256(files[value["path"]]).hexdigest() == value["oid"]
                    case "deletedFile":
                        del files[value["path"]]
            return self._answer(
                {"commitUrl": f"{hub.address}/datasets/{name}/commit/{COMMIT}",
                 "commitOid": COMMIT, "success": True}
            )  # fmt: skip
        if "/resolve/" in path:
            content = files[path.partition("/resolve/main/")[2]]
            digest = hashlib.sha1(content).hexdigest()
            return self._answer(content, X_Repo_Commit=COMMIT, ETag=f'"{digest}"')
        siblings = [{"rfilename": file} for file in files]
        if "/tree/" in path:
            return self._answer([
                {"type": "file", "path": file, "size": len(content), "oid": COMMIT}
                for file, content in files.items()
            ])  # fmt: skip
        return self._answer({"id": name, "sha": COMMIT, "siblings": siblings})

    do_GET = do_POST = do_PUT = do_HEAD = _any


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    served = Hub()
    threading.Thread(target=served.serve_forever, daemon=True).start()
    files = f"{served.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two shards with its plots and its distribution, beside its pool."""
    folder = tmp_path_factory.mktemp("made")
    pool = folder / "private-folder"
    pool.mkdir()
    for part in range(2):
        rows = range(300 * part, 300 * part + 300)
        texts = [f"a cat {n * 7919 % 1000}" if n % 9 else f"zzsecret {n}" for n in rows]
        pairs = {"url": [f"https://a.example/{n}.jpg" for n in rows], "text": texts}
        pq.write_table(pa.table(pairs), pool / f"{part}.parquet")
    mc.curate(pool, ["cat", "a"], folder / "run", t=400, workers=1)
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def shared(run: Path) -> dict[str, bytes]:
    """What is there for others, by the pages' list."""
    names = [*run.glob("curated/*.parquet"), *run.glob("report/*.png"),
             *(run / n for n in ("README.md", "croissant.json", "metadata.parquet"))]  # fmt: skip
    return {str(path.relative_to(run)): path.read_bytes() for path in names}


def test_a_run_is_sent_whole_and_nothing_else_of_it(
    hub: Hub, run: Path, metacurate: Command
) -> None:
    (run / "curated" / "notes.txt").write_text("mine")
    done = metacurate("card", run, "--repo", "me/pairs", "--license", "mit", "--push", "--dry-run",
                      "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (hub.asked, hub.sets) == ([], {})
    listed = json.loads(done.stdout)["push"]
    assert listed["url"] is None
    done = metacurate("card", run, "--push", "--private", "--json")  # the rest was said
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["push"]
    assert found["url"] == f"{hub.address}/datasets/me/pairs/commit/{COMMIT}"
    assert (list(hub.sets), hub.private) == (["me/pairs"], ["me/pairs"])
    sent = dict(hub.sets["me/pairs"])
    del sent[".gitattributes"]
    assert {name: len(content) for name, content in sent.items()} == found["files"]
    assert found["files"] == listed["files"]
    card = json.loads(sent.pop("datacard.json"))
    assert sent == shared(run)
    assert len([name for name in sent if name.startswith("curated/")]) == 2
    assert any(name.endswith(".png") for name in sent)
    assert b'license: "mit"' in sent["README.md"]
    assert b'load_dataset("me/pairs"' in sent["README.md"]
    # The data card that is sent names none of the pool's files.
    own = json.loads((run / "datacard.json").read_text())
    assert card["entry_counts"] == own["entry_counts"]
    assert sorted(card["pool"]["fingerprints"].values()) == sorted(
        own["pool"]["fingerprints"].values()
    )
    for name in ("README.md", "croissant.json"):
        assert not any(secret.encode() in sent[name] for secret in SECRETS), name
    assert not any(secret in json.dumps(card) for secret in SECRETS)


def test_a_later_run_leaves_no_shard_of_the_earlier_one(
    hub: Hub, run: Path, made: Path, tmp_path: Path
) -> None:
    mc.push(run, "me/pairs")
    others = {"curated/part-000001.parquet.md": b"mine", "notes/a.txt": b"mine"}
    hub.sets["me/pairs"] |= others
    mc.curate(made / "private-folder" / "0.parquet", ["cat"], tmp_path / "next", t=9,
              report=False, workers=1)  # fmt: skip
    found = mc.push(tmp_path / "next", "me/pairs")
    there = hub.sets["me/pairs"]
    assert "curated/part-000001.parquet" in found["removed"]
    assert all(name in there for name in others)
    assert {name for name in there if name.startswith("curated/part") and name not in others} == {
        "curated/part-000000.parquet"
    }
    assert not any(name.endswith(".png") for name in there)
    assert there["README.md"] == (tmp_path / "next" / "README.md").read_bytes()


def test_the_distribution_alone(hub: Hub, run: Path, metacurate: Command) -> None:
    done = metacurate("card", run, "--distribution-only", "--repo", "me/counts", "--push")
    assert done.returncode == 0, done.stderr
    sent = dict(hub.sets["me/counts"])
    assert {name.partition("/")[0] for name in sent} == {
        ".gitattributes", "README.md", "croissant.json", "datacard.json", "distribution.parquet",
        "report",
    }  # fmt: skip
    for name, content in sent.items():
        assert not any(secret.encode() in content for secret in SECRETS), name
        assert name == ".gitattributes" or content == (run / "distribution" / name).read_bytes()


def test_a_distribution_removes_no_pairs_unasked(hub: Hub, run: Path, metacurate: Command) -> None:
    """Not by a name that the card of the pairs was given, nor by one given now."""
    assert metacurate("card", run, "--repo", "me/pairs", "--push").returncode == 0
    before = dict(hub.sets["me/pairs"])
    alone = ("card", run, "--distribution-only", "--push")
    fails(metacurate(*alone), "--repo is needed")
    given = (*alone, "--repo", "me/pairs")
    fails(metacurate(*given), "me/pairs holds pairs", "another --repo, or --overwrite")
    assert hub.sets["me/pairs"] == before
    # Only files of that name are pairs, and a distribution may be renewed.
    hub.sets["me/counts"] = {"curated/notes.md": b"mine"}
    for _ in range(2):
        assert metacurate(*alone, "--repo", "me/counts").returncode == 0
    done = metacurate(*given, "--overwrite", "--json")
    assert done.returncode == 0, done.stderr
    pairs = sorted(name for name in before if name.startswith("curated/"))
    assert json.loads(done.stdout)["push"]["removed"] == pairs
    assert "distribution.parquet" in hub.sets["me/pairs"]


def test_cards_of_ones_own(hub: Hub, run: Path, metacurate: Command) -> None:
    """One changed by hand is sent as it is; another's on the hub stays unless that is said."""
    readme = run / "README.md"
    readme.write_bytes(readme.read_bytes().replace(b"# Curated", b"# My curated"))
    assert metacurate("card", run, "--repo", "me/mine", "--push").returncode == 0
    assert b"# My curated" in hub.sets["me/mine"]["README.md"]
    fails(metacurate("card", run, "--license", "mit", "--push"), "changed since", "--overwrite")
    hub.sets["me/other"] = {"README.md": b"# My own work\n"}
    fails(metacurate("card", run, "--repo", "me/other", "--push"),
          "has a README.md that is not of this program", "--repo", "--overwrite")  # fmt: skip
    assert hub.sets["me/other"] == {"README.md": b"# My own work\n"}
    # What is said of the other's card costs nobody the own one.
    assert metacurate("card", run, "--repo", "me/other", "--push", "--overwrite").returncode == 0
    assert b"# My curated" in readme.read_bytes()
    assert b"# My curated" in hub.sets["me/other"]["README.md"]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no token", "401"), ("forbidden", "403"), ("broken", "500"), ("no server", "did not take"),
        ("offline", "did not take"),
        ("no repo", "--repo is needed"), ("bad repo", "--repo takes"), ("lost", "is missing"),
        ("cut", "not as it was made"), ("no card", "write it with 'metacurate card'"),
        ("not pushed", "--dry-run needs --push"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_one_line(
    case: str, message: str, hub: Hub, run: Path, metacurate: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shard = run / "curated" / "part-000001.parquet"
    options = ["--repo", "me/pairs", "--push"]
    match case:
        case "no token":
            monkeypatch.setenv("HF_TOKEN", "hf_other")
        case "forbidden" | "broken":
            hub.refuse = int(message)
        case "no server":
            monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        case "offline":
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        case "no repo":
            options = ["--push", "--dry-run"]
        case "bad repo":
            options[1] = "../x"
        case "lost":
            shard.unlink()
        case "cut":
            shard.write_bytes(shard.read_bytes()[:-1])
        case "no card":
            with pytest.raises(mc.UserError, match=message):
                mc.push(run, "me/pairs", distribution_only=True)
            return
        case "not pushed":
            options = ["--dry-run"]
    fails(metacurate("card", run, *options), message)
    assert "curated/part-000000.parquet" not in hub.sets.get("me/pairs", {})
    if case in ("no token", "forbidden"):
        fails(metacurate("card", run, *options), "hf auth login", "HF_TOKEN")
