"""The download stage and its commands, against a real and hostile server on loopback."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import webdataset
from conftest import Command, command_line
from hostile_server import HostileServer, encoded, photo
from metacurate.errors import UserError
from metacurate.images.decoders import Decoders, Job, process_job
from metacurate.images.download import DownloadConfig, download
from metacurate.images.fetch import FetchConfig
from metacurate.images.process import ImageConfig, ProcessedImage, Rejected
from metacurate.images.survival import survival_rate, wilson
from metacurate.images.urltable import ColumnNames, UrlReader, UrlTable, caption_of
from metacurate.pool.find import find
from metacurate.pool.schema import TEXTS_TYPE

CONFIG = DownloadConfig(
    images=ImageConfig(size=64, max_aspect=10, min_size=4),
    fetch=FetchConfig(
        per_host=32, timeout=5.0, retries=1, backoff=0.05, allow_networks=("127.0.0.1/32",)
    ),
    samples_per_shard=10,
)

EXPECTED = {
    "photo/1.jpg": "success",
    "photo/2.jpg": "success",
    "animated.gif": "success",
    "cmyk.jpg": "success",
    "exif.jpg": "success",
    "alpha.png": "success",
    "palette.png": "success",
    "grey16.png": "success",
    "photo.webp": "success",
    "gzip": "success",
    "truncated.jpg": "truncated",
    "huge.png": "too_many_pixels",
    "text.jpg": "not_an_image",
    "tiny.png": "image_too_small",
    "long.png": "aspect_ratio_too_large",
    "endless": "too_many_bytes",
    "drip": "timeout",
    "loop/a": "too_many_redirects",
    "status/404": "http_404",
    "status/500": "http_500",
    "page": "wrong_content_type",
    "bomb": "too_many_bytes",
    "cut": "connection_lost",
    "busy/0": "success",
    "flaky/1": "success",
}


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


def write_curated(path: Path, urls: list[str | None], rows_per_group: int = 7) -> pa.Table:
    """A table as curation leaves it, with awkward columns besides."""
    n = len(urls)
    texts = [
        [
            {"source": "alt", "text": f"not kept {i}", "lang": "en"},
            {"source": "title", "text": f"kept {i} – ü", "lang": None},
        ]
        for i in range(n)
    ]
    table = pa.table(
        {
            "url": pa.array(urls, pa.string()),
            "texts": pa.array(texts, TEXTS_TYPE),
            "uid": pa.array([i.to_bytes(16) for i in range(n)], pa.binary(16)),
            "matched": pa.array([[[1], [2, 500_000 + i]] for i in range(n)]).cast(
                pa.list_(pa.list_(pa.uint32()))
            ),
            "text_kept": [[False, True]] * n,
            "keep_prob": [float("nan") if i == 0 else 1 / (i + 1) for i in range(n)],
            "width": pa.array(range(n), pa.int64()),
            "when": pa.array([0] * n, pa.timestamp("ms")),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_per_group)
    return table


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def rows_of(folder: Path) -> list[dict[str, object]]:
    """All rows of the shards' Parquet files."""
    return [row for p in sorted(folder.glob("*.parquet")) for row in pq.read_table(p).to_pylist()]


def test_the_whole_web_of_horrors(server: HostileServer, tmp_path: Path) -> None:
    urls: list[str | None] = [server.url(path) for path in EXPECTED]
    inward = f"http://127.0.0.2:{server.port}/photo/1.jpg"
    urls += [None, "", inward, "file:///etc/passwd"]
    expected = [*EXPECTED.values(), "no_url", "no_url", "blocked_address", "bad_url"]
    table = write_curated(tmp_path / "run" / "curated" / "part-000000.parquet", urls)
    fetch = replace(CONFIG.fetch, max_bytes=1_000_000)
    totals = download(
        str(tmp_path / "run"), str(tmp_path / "tars"), replace(CONFIG, fetch=fetch)
    )  # fmt: skip
    rows = rows_of(tmp_path / "tars")
    found = [row["error_message"] or row["status"] for row in rows]
    assert dict(zip(urls, found, strict=True)) == dict(zip(urls, expected, strict=True))
    assert [row["key"] for row in rows] == [f"{i // 10:05d}{i % 10}" for i in range(len(urls))]
    successes = expected.count("success")
    assert totals["count"] == len(urls) == len(rows)
    assert totals["successes"] == successes
    assert totals["failed_to_resize"] == 5
    assert totals["failed_to_download"] == len(urls) - successes - 5
    assert sum(totals["status_dict"].values()) == len(urls)

    samples = list(
        webdataset.WebDataset(
            [str(p) for p in sorted((tmp_path / "tars").glob("*.tar"))], shardshuffle=False
        )
    )
    assert len(samples) == successes
    by_key = {row["key"]: (i, row) for i, row in enumerate(rows)}
    for sample in samples:
        position, row = by_key[sample["__key__"]]
        meta = json.loads(sample["json"])
        image = Image.open(io.BytesIO(sample["jpg"]))
        assert image.size == (meta["width"], meta["height"]) == (row["width"], row["height"])
        assert sample["txt"].decode() == f"kept {position} – ü" == meta["caption"]
        assert meta["uid"] == position.to_bytes(16).hex()
        assert meta["matched"] == [[1], [2, 500_000 + position]]
        assert meta["keep_prob"] == (None if position == 0 else 1 / (position + 1))
        assert meta["input_width"] == position
        assert meta["url"] == urls[position]
        assert len(meta["sha256"]) == 64
        assert meta["dhash"] == row["dhash"]
    first = pq.read_table(tmp_path / "tars" / "00000.parquet")
    for name in ("texts", "uid", "matched", "text_kept"):
        assert first[name].type == table[name].type
        assert first[name].to_pylist() == table[name].to_pylist()[:10]
    statistics = json.loads((tmp_path / "tars" / "00000_stats.json").read_text())
    assert statistics["successes"] == sum(r["status"] == "success" for r in rows[:10])

    measured = survival_rate(str(tmp_path / "tars"))
    assert measured.rate == successes / len(urls)
    assert measured.low < measured.rate < measured.high


def test_bytes_do_not_depend_on_workers_concurrency_or_timing(
    server: HostileServer, tmp_path: Path
) -> None:
    paths = [f"photo/{n}.jpg" for n in range(30)] + ["status/404", "text.jpg", "animated.gif"]
    write_curated(tmp_path / "in.parquet", [server.url(p) for p in paths])
    runs = []
    for workers, concurrency, per_host, delay in [(1, 1, 1, 0), (2, 32, 32, 0.02)]:
        server.delay = delay
        fetch = replace(CONFIG.fetch, concurrency=concurrency, per_host=per_host)
        out = tmp_path / f"out{workers}"
        download(
            str(tmp_path / "in.parquet"), str(out), replace(CONFIG, fetch=fetch), workers=workers
        )  # fmt: skip
        runs.append(contents(out))
    assert runs[0] == runs[1]
    with tarfile.open(tmp_path / "out1" / "00000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (
                0, 0, 0, "", "",
            )  # fmt: skip


def command(server: HostileServer, source: Path, out: Path) -> list[str]:
    """A download as the user starts it."""
    return command_line(*download_of(server, source, out))


def download_of(server: HostileServer, source: Path, out: Path) -> list[str]:
    return [
        *("pool", "download", str(source), "--out", str(out)),
        *("--samples-per-shard", "8", "--workers", "2", "--per-host", "4", "--json"),
        *("--image-size", "64", "--allow-network", "127.0.0.1/32"),
    ]


def test_kill_and_resume_gives_the_same_bytes(
    server: HostileServer, tmp_path: Path, metacurate: Command
) -> None:
    paths = [f"photo/{n}.jpg" for n in range(60)] + ["status/404", "text.jpg"]
    write_curated(tmp_path / "in.parquet", [server.url(p) for p in paths])
    whole = metacurate(*download_of(server, tmp_path / "in.parquet", tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    server.delay = 0.15
    out = tmp_path / "killed"
    killed = command(server, tmp_path / "in.parquet", out)
    process = subprocess.Popen(killed, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(out.glob("state/download/*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = len(list(out.glob("state/download/*.json")))
    assert 0 < done < 8, "killed in the middle"
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "decoding processes end with their parent"
    server.delay = 0
    before = server.requests.total()
    subprocess.run(killed, check=True, capture_output=True, timeout=120)
    assert server.requests.total() - before <= 62 - 8 * done, "finished shards are not asked again"
    assert contents(out) == contents(tmp_path / "whole")
    # The same command once more has nothing to do and says the same.
    before = server.requests.total()
    again = metacurate(*download_of(server, tmp_path / "in.parquet", out))
    assert json.loads(again.stdout)["successes"] == 60
    assert server.requests.total() == before


def test_a_command_that_is_stopped_leaves_nothing_behind(
    server: HostileServer, tmp_path: Path
) -> None:
    write_curated(tmp_path / "in.parquet", [server.url("drip") for _ in range(30)])
    stopped = command(server, tmp_path / "in.parquet", tmp_path / "out")
    process = subprocess.Popen(stopped, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not server.requests["drip"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert b"Traceback" not in errors
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


def test_a_shard_that_begins_when_all_are_stopped_asks_nobody(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one is still reading its rows when the first one fails."""
    write_curated(tmp_path / "in.parquet", [server.url("drip") for _ in range(20)])
    read = UrlReader.read
    reads = threading.Event()

    def slow(reader: UrlReader, first: int, count: int) -> Any:
        if first == 0:
            reads.wait()
            raise RuntimeError("the first one")
        reads.set()
        time.sleep(1)
        return read(reader, first, count)

    monkeypatch.setattr(UrlReader, "read", slow)
    before = server.requests["drip"]
    with pytest.raises(RuntimeError, match="the first one"):
        download(str(tmp_path / "in.parquet"), str(tmp_path / "out"), CONFIG)
    assert server.requests["drip"] == before


def test_few_open_files_mean_fewer_requests(server: HostileServer, tmp_path: Path) -> None:
    server.delay = 0.05
    write_curated(tmp_path / "in.parquet", [server.url(f"photo/{n}.jpg") for n in range(150)])
    wanted = [*command(server, tmp_path / "in.parquet", tmp_path / "out"), "--concurrency", "100"]
    wanted[wanted.index("--per-host") + 1] = "100"
    wanted[wanted.index("--samples-per-shard") + 1] = "150"
    limited = ["bash", "-c", 'ulimit -n 64; exec "$@"', "bash", *wanted]
    ended = subprocess.run(limited, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["successes"] == 150
    assert "raise the limit of open files" in ended.stderr
    assert 1 < server.most_at_once < 64


def test_a_limit_that_may_be_raised_is(server: HostileServer, tmp_path: Path) -> None:
    write_curated(tmp_path / "in.parquet", [server.url("photo/1.jpg")])
    wanted = [*command(server, tmp_path / "in.parquet", tmp_path / "out"), "--concurrency", "100"]
    limited = ["bash", "-c", 'ulimit -S -n 64; exec "$@"', "bash", *wanted]
    ended = subprocess.run(limited, capture_output=True, text=True, check=True, timeout=120)
    assert "open files" not in ended.stderr


@pytest.mark.parametrize(
    ("paths", "options", "code"),
    [
        (["status/404", "status/410"], [], 3),
        (["status/404", "status/410"], ["--min-success", "0"], 0),
        (["status/404", "photo/1.jpg"], [], 0),
        (["status/404", "photo/1.jpg"], ["--min-success", "0.5"], 0),
        (["status/404", "photo/1.jpg"], ["--min-success", "0.51"], 3),
    ],
)
def test_too_few_images_have_an_exit_code(
    server: HostileServer,
    tmp_path: Path,
    paths: list[str],
    options: list[str],
    code: int,
    metacurate: Command,
) -> None:
    write_curated(tmp_path / "in.parquet", [server.url(path) for path in paths])
    ended = metacurate(*download_of(server, tmp_path / "in.parquet", tmp_path / "out"), *options)
    assert ended.returncode == code, ended.stderr
    assert ("warning" in ended.stderr) == (code == 3)
    assert json.loads(ended.stdout)["count"] == len(paths)
    if code:
        assert "http_404, 1 times" in ended.stderr


def test_other_settings_are_refused_and_overwritten_on_demand(
    server: HostileServer, tmp_path: Path
) -> None:
    source, out = str(tmp_path / "in.parquet"), str(tmp_path / "out")
    write_curated(Path(source), [server.url(f"photo/{n}.jpg") for n in range(25)])
    download(source, out, CONFIG)
    larger = replace(CONFIG, samples_per_shard=20)
    with pytest.raises(UserError, match="samples_per_shard was 10, is now 20"):
        download(source, out, larger)
    download(source, out, larger, overwrite=True)
    assert [p.name for p in sorted(Path(out).glob("*.tar"))] == ["00000.tar", "00001.tar"]
    # Limits of politeness do not decide what comes out: they may change on resuming.
    polite = replace(larger, fetch=replace(CONFIG.fetch, per_host=1))
    assert download(source, out, polite)["successes"] == 25


def test_tars_of_others_are_never_touched(server: HostileServer, tmp_path: Path) -> None:
    write_curated(tmp_path / "in.parquet", [server.url("photo/1.jpg")])
    precious = tmp_path / "out" / "00007.tar"
    precious.parent.mkdir()
    precious.write_bytes(b"precious")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="another output folder"):
            download(
                str(tmp_path / "in.parquet"), str(tmp_path / "out"), CONFIG, overwrite=overwrite
            )
    assert precious.read_bytes() == b"precious"


def test_expected_hashes_are_checked(server: HostileServer, tmp_path: Path) -> None:
    import hashlib

    right = hashlib.sha256(encoded(photo(1))).hexdigest()
    url = server.url("photo/1.jpg")
    table = pa.table(
        {"URL": [url] * 3, "TEXT": ["a", None, "c"], "sha256": [right.upper(), "0" * 64, None]}
    )
    pq.write_table(table, tmp_path / "laion.parquet")
    config = replace(CONFIG, columns=ColumnNames(sha256="sha256"))
    download(str(tmp_path / "laion.parquet"), str(tmp_path / "out"), config)
    rows = rows_of(tmp_path / "out")
    assert [row["error_message"] for row in rows] == [None, "hash_mismatch", None]
    assert [row["caption"] for row in rows] == ["a", None, "c"]
    assert [row["input_sha256"] for row in rows] == table["sha256"].to_pylist()


def test_a_table_in_memory_gives_the_tars_of_its_file(
    server: HostileServer, tmp_path: Path
) -> None:
    urls: list[str | None] = [server.url(path) for path in ("photo/1.jpg", "status/404")]
    table = write_curated(tmp_path / "in.parquet", urls)
    expected = download(str(tmp_path / "in.parquet"), str(tmp_path / "file"), CONFIG)
    made = []
    for given in (table, iter(table.to_batches(max_chunksize=1))):  # the second time it resumes
        assert download(given, str(tmp_path / "table"), CONFIG) == expected
        made.append((tmp_path / "table" / "manifest.json").read_bytes())
    assert made[0] == made[1]
    files = {name: contents(tmp_path / name) for name in ("file", "table")}
    for name in ("00000.tar", "00000.parquet"):
        assert files["file"][name] == files["table"][name]
    # Only the tars and their tables lie there: the folder is a pool of the downloaded pairs.
    assert [path.name for path in sorted((tmp_path / "table").glob("*.parquet"))] == [
        "00000.parquet"
    ]
    found = find([str(tmp_path / "table")]).files
    assert [file.address for file in found] == [str(tmp_path / "table/00000.parquet")]
    with pytest.raises(UserError, match="has the results of another pool"):
        download(table.slice(1), str(tmp_path / "table"), CONFIG)


@pytest.mark.parametrize(
    ("columns", "named", "expected"),
    [
        ({"texts": [[["alt", "a", "en"], ["title", "b", None]]]}, (), [["a", "en"], ["b", None]]),
        ({"x": ["a"], "y": ["b"], "lang": ["en"]}, ("x", "y"), [["a", "en"], ["b", "en"]]),
        ({"x": ["a"], "y": ["b"], "lang": [["en", "de"]]}, ("x", "y"), [["a", "en"], ["b", "de"]]),
        ({"x": ["a"], "y": ["b"], "lang": [5]}, ("x", "y"), [["a", None], ["b", None]]),
    ],
    ids=["triples", "a column", "lists", "numbers"],
)
def test_gathered_texts_keep_their_languages(
    columns: dict[str, list[Any]], named: tuple[str, ...], expected: list[Any], tmp_path: Path
) -> None:
    pq.write_table(pa.table({"url": ["http://a.example/1"], **columns}), tmp_path / "in.parquet")
    table = UrlTable.find([str(tmp_path / "in.parquet")], ColumnNames(texts=named))
    (row,) = UrlReader(table).read(0, 1).carried.to_pylist()
    assert [[text["text"], text["lang"]] for text in row["texts"]] == expected


def test_a_bare_list_of_urls_is_enough(server: HostileServer, tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": [server.url("photo/1.jpg")]}), tmp_path / "in.parquet")
    totals = download(str(tmp_path / "in.parquet"), str(tmp_path / "out"), CONFIG)
    assert totals["successes"] == 1
    samples = list(webdataset.WebDataset(str(tmp_path / "out/00000.tar"), shardshuffle=False))
    assert [set(s) - {"__key__", "__url__", "__local_path__"} for s in samples] == [{"jpg", "json"}]


@pytest.mark.parametrize("suffix", [".tsv", ".csv.gz", ".jsonl", ".parquet"])
def test_pools_of_any_format(server: HostileServer, tmp_path: Path, suffix: str) -> None:
    """Columns are found as for curation; slices, samples and a second pass see the same rows."""
    rows = [(server.url(f"photo/{n}.jpg"), f"text {n}") for n in range(50)]
    path = tmp_path / f"in{suffix}"
    if suffix == ".parquet":
        table = pa.table({"image_url": [u for u, _ in rows], "alt": [t for _, t in rows]})
        pq.write_table(table, path, row_group_size=7)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"url": u, "caption": t}) + "\n" for u, t in rows))
    elif suffix == ".tsv":  # CC3M: no header, the caption first
        path.write_text("".join(f"{t}\t{u}\n" for u, t in rows))
    else:
        text = "".join(f"{u},{t}\n" for u, t in [("url", "caption"), *rows])
        path.write_bytes(gzip.compress(text.encode()))
    table = UrlTable.find([str(path)], ColumnNames())
    assert table.rows == 50
    for first, count in ((0, 50), (45, 5), (0, 3), (2, 1), (20, 25)):
        some = UrlReader(table.part(first, count)).read(first, count)
        assert some.urls == [u for u, _ in rows[first : first + count]]
        assert some.captions == [t for _, t in rows[first : first + count]]
    sample = UrlTable.find([str(path)], ColumnNames(), sample=5)
    assert UrlReader(sample).read(0, 5).captions == [f"text {n}" for n in (5, 15, 25, 35, 45)]
    totals = download(str(path), str(tmp_path / "out"), replace(CONFIG, sample=3))
    assert totals["successes"] == 3


def test_a_sample_is_even_and_in_order(server: HostileServer, tmp_path: Path) -> None:
    for part in range(3):
        urls = [server.url(f"photo/{n}.jpg") for n in range(part * 100, part * 100 + 100)]
        write_curated(tmp_path / "in" / f"{part}.parquet", urls, 30)
    config = replace(CONFIG, sample=12, sample_offset=0.5)
    totals = download(str(tmp_path / "in"), str(tmp_path / "out"), config)
    assert totals["count"] == 12
    numbers = [int(str(r["url"]).rpartition("/")[2][:-4]) for r in rows_of(tmp_path / "out")]
    assert numbers == [int((i + 0.5) * 25) for i in range(12)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ImageConfig(resize="stretch")}, "unknown resize mode"),
        ({"images": ImageConfig(size=0)}, "image_size"),
        ({"images": ImageConfig(quality=101)}, "quality"),
        ({"images": ImageConfig(min_size=-1)}, "min_size must be at least 0, not -1"),
        ({"images": ImageConfig(max_aspect=float("nan"))}, "max_aspect must be a number"),
        ({"images": ImageConfig(max_pixels=10**20)}, "max_pixels must be .* at most 64 bits"),
        ({"fetch": FetchConfig(retries=-1)}, "retries must be at least 0"),
        ({"fetch": FetchConfig(timeout=float("nan"))}, "timeout must be a number, not nan"),
        ({"fetch": FetchConfig(host_delay=-1.0)}, "host_delay must be a number from 0 on"),
        ({"fetch": FetchConfig(host_delay=float("inf"))}, "host_delay must be .* not inf"),
        ({"fetch": FetchConfig(backoff=-0.5)}, "backoff"),
        ({"fetch": FetchConfig(max_wait=-1.0)}, "max_wait"),
        ({"fetch": FetchConfig(max_redirects=-1)}, "max_redirects"),
        ({"fetch": FetchConfig(user_agent="a\nb")}, r"user_agent must be one line of text, not 'a"),
        ({"samples_per_shard": 0}, "samples_per_shard"),
        ({"sample": 1000}, "sample"),
        ({"sample_offset": 1.0}, "sample_offset"),
        ({"columns": ColumnNames(url="link")}, "no column 'link'"),
        ({"columns": ColumnNames(texts=("keep_prob",))}, "not text"),
        ({"fetch": FetchConfig(allow_networks=("here",))}, "network"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_curated(tmp_path / "in.parquet", ["http://127.0.0.1/x.jpg"] * 3)
    with pytest.raises(UserError, match=message):
        download(str(tmp_path / "in.parquet"), str(tmp_path / "out"), replace(CONFIG, **change))
    assert not (tmp_path / "out").exists()


class Plain:
    """An engine whose tasks cannot agree on anything."""

    def map_shards(self, function: Any, tasks: Any) -> Any:
        return ((n, function(task)) for n, task in enumerate(tasks))


def test_an_engine_that_cannot_keep_hosts_turns_is_refused(tmp_path: Path) -> None:
    write_curated(tmp_path / "in.parquet", ["http://127.0.0.1/x.jpg"] * 3)
    with pytest.raises(UserError, match="engine local or ray"):
        download(str(tmp_path / "in.parquet"), str(tmp_path / "out"), CONFIG, engine=Plain())
    assert not (tmp_path / "out").exists()


def test_unusable_inputs_are_named(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(UserError, match=r"broken\.parquet is no readable Parquet file"):
        download(str(tmp_path / "broken.parquet"), out, CONFIG)
    with pytest.raises(UserError, match="nowhere"):
        download(str(tmp_path / "nowhere"), out, CONFIG)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no URL column"):
        download(str(tmp_path / "a.parquet"), out, CONFIG)
    write_curated(tmp_path / "damaged.parquet", ["http://127.0.0.1:9/x.jpg"] * 300, 300)
    data = bytearray((tmp_path / "damaged.parquet").read_bytes())
    data[4:200] = bytes(196)
    (tmp_path / "damaged.parquet").write_bytes(data)
    with pytest.raises(UserError, match=r"is damaged: row \d+"):
        download(str(tmp_path / "damaged.parquet"), out, CONFIG)


def test_the_text_is_the_first_one_kept() -> None:
    assert caption_of(["a", "b", "c"], [False, True, True]) == "b"
    assert caption_of(["a", "b"], [False, False]) == "a"
    assert caption_of([None, "", "c"], None) == "c"
    assert caption_of(["a", None], [False, True]) == "a"
    assert caption_of([], []) is None


def test_wilsons_interval() -> None:
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20.
    for successes, count, low, high in [
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
    ]:  # fmt: skip
        found = wilson(successes, count)
        assert found.low == pytest.approx(low, abs=5e-5)
        assert found.high == pytest.approx(high, abs=5e-5)


def deadly(job: Job) -> ProcessedImage | Rejected:
    """Stands for a decoder with a hole: one image kills the process that decodes it."""
    if job[0] == b"deadly":
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGSEGV)
    return process_job(job)


def test_an_image_that_kills_its_decoder_harms_no_other() -> None:
    bodies = [encoded(photo(n)) for n in range(12)]
    bodies[3:3] = [b"deadly"]
    bodies.append(b"deadly")

    async def run() -> list[ProcessedImage | Rejected]:
        with Decoders(2, deadly) as pool:
            return await asyncio.gather(*(pool.process(b, ImageConfig()) for b in bodies))

    found = asyncio.run(run())
    for body, result in zip(bodies, found, strict=True):
        if body == b"deadly":
            assert result == Rejected("decoder_died")
        else:
            assert isinstance(result, ProcessedImage)


def test_text_of_any_kind_reaches_the_tar(server: HostileServer, tmp_path: Path) -> None:
    """Captions with quotes, line ends, NUL and long ones; a file with several text columns."""
    texts = ['a "b"\n\\', "\0", "x" * 100_000, "日本語 🦝"]
    table = pa.table({"url": [server.url("photo/1.jpg")] * 4, "alt": texts, "title": ["t"] * 4})
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(UserError, match="text_cols"):
        download(str(tmp_path / "in.parquet"), str(tmp_path / "out"), CONFIG)
    config = replace(CONFIG, columns=ColumnNames(texts=("alt", "title")))
    download(str(tmp_path / "in.parquet"), str(tmp_path / "out"), config)
    tar = str(tmp_path / "out" / "00000.tar")
    samples = list(webdataset.WebDataset(tar, shardshuffle=False))
    assert [s["txt"].decode() for s in samples] == texts
    assert [json.loads(s["json"])["title"] for s in samples] == ["t"] * 4
    assert np.asarray(Image.open(io.BytesIO(samples[0]["jpg"]))).shape == (64, 96, 3)


def write_mixed(folder: Path) -> None:
    """Files that name their columns differently; ``b`` has two texts and a row that is none."""
    folder.mkdir()
    table = {
        "url": [f"http://127.0.0.9/a{n}.jpg" for n in range(4)],
        "caption": pa.array([b"a0", b"\xff", b"a2", None], pa.binary()),
        "note": pa.array([b"x", b"\xfe", None, b"\xfd"], pa.binary()).view(pa.string()),
    }
    pq.write_table(pa.table(table), folder / "a.parquet", row_group_size=2)
    rows = [{"image_link": f"http://127.0.0.9/b{n}.jpg", "texts": ["", f"b{n}"]} for n in range(3)]
    lines = [json.dumps(row) for row in rows]
    (folder / "b.jsonl").write_text("\n".join([lines[0], "{broken", *lines[1:], "[1]"]) + "\n")
    (folder / "c.csv").write_text("src,caption\nhttp://127.0.0.9/c0.jpg,c0\n")


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_each_file_has_its_own_columns_and_losses_are_told_once(tmp_path: Path, size: int) -> None:
    write_mixed(tmp_path / "in")
    table = UrlTable.find([str(tmp_path / "in")], ColumnNames())
    reader = UrlReader(table)
    parts = [reader.read(first, min(size, 8 - first)) for first in range(0, 8, size)]
    names = ["a0", "a1", "a2", "a3", "b0", "b1", "b2", "c0"]
    urls = [url for part in parts for url in part.urls]
    assert urls == [f"http://127.0.0.9/{name}.jpg" for name in names]
    captions = [text for part in parts for text in part.captions]
    assert captions == ["a0", None, "a2", None, "b0", "b1", "b2", "c0"]
    lost = sum((part.lost for part in parts), Counter())
    assert lost == {"undecodable_text": 1, "undecodable_value": 2}
    assert table.skipped == {"malformed_row": 2}
    # What is nowhere but in these columns is carried.
    carried = pa.concat_tables([part.carried for part in parts])
    assert set(carried.column_names) == {"note", "texts"}
    assert carried["note"].to_pylist() == ["x", None, None, None, *[None] * 4]


def test_what_could_not_be_read_is_in_the_summary_and_the_manifest(tmp_path: Path) -> None:
    write_mixed(tmp_path / "in")
    out = tmp_path / "out"
    config = replace(CONFIG, samples_per_shard=3)
    totals = download(str(tmp_path / "in"), str(out), config)
    assert totals["status_dict"] == {"blocked_address": 8}
    expected = {"malformed_row": 2, "undecodable_text": 1, "undecodable_value": 2}
    assert totals["skipped"] == expected
    stage = json.loads((out / "manifest.json").read_text())["stages"]["download"]
    assert stage["totals"]["skipped"] == expected
    (out / "00001.tar").unlink()
    assert download(str(tmp_path / "in"), str(out), config) == totals
