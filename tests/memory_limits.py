"""Every command under a limit of memory, on inputs that are several times as large.

By hand: the least limit with which each command ends, for the table in docs/scale.md:

    python tests/memory_limits.py [--scale 4] [COMMAND ...]

tests/runtime/test_worker_memory.py holds each command to ``LIMIT``. A limit is of the private
memory that a process takes in addition to what it has when it starts (``RLIMIT_DATA``): with it the
kernel refuses what a measurement would only note. The work is done in the command's own process.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster_chain import paths_of_workers
from hostile_server import HostileServer
from killed_runs import Warm
from web_pages import record, response

MIB = 1 << 20
LIMIT = 128 * MIB
INPUT_MIB = 192  # at scale 1, as it is in memory
TRIED = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
GROUP_ROWS = 1_000
TEXT_BYTES, CARRIED_BYTES = 2_000, 6_000
SENTENCES = ("a dog on the grass by the sea", "two cats in a red house", "ein Hund im Gras")
SIDE = 1_000


def write_pool(path: Path, scale: float) -> None:
    """Many row groups; two rows of three have the address of another."""
    rows = int(scale * INPUT_MIB * MIB / (TEXT_BYTES + CARRIED_BYTES))
    schema = pa.schema([("url", pa.string()), ("text", pa.string()), ("carried", pa.binary())])
    texts = [(s + ", ") * (TEXT_BYTES // (len(s) + 2)) for s in SENTENCES]
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, rows, GROUP_ROWS):
            numbers = range(first, min(first + GROUP_ROWS, rows))
            columns = {
                "url": [f"http://a.example/{n * 2 // 3}.jpg" for n in numbers],
                "text": [texts[n % 3] for n in numbers],
                "carried": [bytes(CARRIED_BYTES) for _ in numbers],
            }
            writer.write_table(pa.table(columns, schema))


def write_crawl(path: Path, scale: float) -> None:
    """A file of pages of a quarter of a MiB."""
    page = "<p>" + " ".join(SENTENCES) * 3000
    with path.open("wb") as file:
        for number in range(int(scale * INPUT_MIB * MIB / len(page))):
            images = "".join(
                f'<img src="/{number}-{i}.jpg" alt="{SENTENCES[0]}">' for i in range(9)
            )
            block = response(f"<html lang=en>{images}{page}</html>")
            block = record("response", block, f"http://a.example/{number}")
            file.write(gzip.compress(block, 1, mtime=0))


def write_tars(folder: Path, scale: float) -> None:
    """One tar of small files of large pictures, with its table."""
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "white").save(buffer, "JPEG")
    picture = buffer.getvalue() + bytes(MIB)  # as cameras append
    keys = [f"{n:09d}" for n in range(int(scale * INPUT_MIB * MIB / (3 * SIDE**2)))]
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for key in keys:
            about = json.dumps({"url": f"http://a.example/{key}.jpg", "uid": f"{int(key):032x}"})
            for end, data in (("jpg", picture), ("txt", b"a dog"), ("json", about.encode())):
                member = tarfile.TarInfo(f"{key}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    digest = hashlib.sha256(picture).hexdigest()
    columns = {"key": keys, "status": ["success"] * len(keys),
               "error_message": pa.nulls(len(keys), pa.string()),
               "sha256": [digest] * len(keys), "dhash": [digest[:16]] * len(keys)}  # fmt: skip
    pq.write_table(pa.table(columns), folder / "00000.parquet")


def brightness(images: Any, _: Any) -> dict[str, list[float]]:
    """A scorer."""
    return {"brightness": [float(np.mean(image)) / 255 for image in images]}


_HOARD: list[Any] = []


def hoard(images: Any, rows: Any) -> dict[str, list[float]]:
    """A scorer that keeps all images."""
    _HOARD.extend(images)
    return brightness(images, rows)


class Commands:
    """The commands with inputs of a scale, in a folder."""

    def __init__(self, folder: Path, server: HostileServer, scale: float) -> None:
        self.folder = folder
        (folder / "tars").mkdir(parents=True)
        (folder / "out").mkdir()
        pool, tars, out = folder / "pool.parquet", folder / "tars", folder / "out"
        write_pool(pool, scale)
        write_crawl(folder / "crawl.warc.gz", scale)
        write_tars(tars, scale)
        entries = folder / "metadata.json"
        entries.write_text('["dog", "cats", "red house", "grass", "the sea"]')
        images = int(scale * INPUT_MIB * MIB / MIB)
        urls = {"url": [server.url(f"large/{n}.jpg") for n in range(images)]}
        pq.write_table(pa.table(urls), folder / "urls.parquet")
        unit = ("--rows-per-unit", GROUP_ROWS)
        words: dict[str, tuple[object, ...]] = {
            "extract": ("pool", "extract", folder / "crawl.warc.gz"),
            "language": ("pool", "language", pool, *unit),
            "dedup": ("pool", "dedup", pool, *unit, "--shard-rows", GROUP_ROWS),
            "match": ("match", pool, "-m", entries, *unit),
            "count": ("count", out / "match"),
            "balance": ("balance", out / "match", "--t", 100),
            "report": ("report", out / "match"),
            "uids": ("pool", "uids", pool),
            "ingest": ("pool", "ingest", tars),
            "filter": ("pool", "filter", tars, "--scorer", "memory_limits:brightness",
                       "--keep", "brightness>0.5"),
            "duplicates": ("pool", "duplicates", tars),
            "reshard": ("pool", "reshard", out / "ingest" / "pool", "--tars", tars),
            "download": ("pool", "download", folder / "urls.parquet", "--allow-network",
                         "127.0.0.1/32", "--resize", "none", "--concurrency", 8, "--per-host", 8),
        }  # fmt: skip
        adds = ("count", "balance", "report", "duplicates")
        self.words = {
            name: [*map(str, arguments), "--workers", "1"]
            + ([] if name in adds else ["--out", str(out / name) + ".npy" * (name == "uids")])
            for name, arguments in words.items()
        }

    def prepare(self, name: str) -> None:
        """Remove what an earlier run of a command left."""
        for path in (self.folder / "out").glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.rmtree(self.folder / "tars" / "duplicates", ignore_errors=True)


@contextmanager
def warm(folder: Path) -> Iterator[tuple[Warm, HostileServer]]:
    """A process that has run each command on little, and the server of the images."""
    with pytest.MonkeyPatch.context() as patch, HostileServer() as server:
        patch.setenv("PYTHONPATH", paths_of_workers())
        # Arrow's own allocator takes a GiB of addresses at once, of which a limit knows no more.
        patch.setenv("ARROW_DEFAULT_MEMORY_POOL", "system")
        # A thread's stack counts whole (8 MiB), and how many threads there are depends on the load.
        patch.setenv("ARROW_IO_THREADS", "1")
        # What is freed goes back at once, so that no hole in the heap counts.
        patch.setenv("MALLOC_MMAP_THRESHOLD_", str(1 << 17))
        patch.setenv("MALLOC_TRIM_THRESHOLD_", str(1 << 17))
        with Warm(folder) as run:
            for name, words in Commands(folder / "little", server, 1 / 32).words.items():
                answer = run(words, here=True)
                assert answer["code"] == 0, (name, answer)
            yield run, server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="COMMAND")
    parser.add_argument("--scale", type=float, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="metacurate-memory-") as scratch:
        folder = Path(scratch)
        with warm(folder) as (run, server):
            commands = Commands(folder / "large", server, options.scale)
            for name, words in commands.words.items():
                if options.names and name not in options.names:
                    run(words)
                    continue
                for mib in TRIED:
                    commands.prepare(name)
                    answer = run(words, memory=mib * MIB)
                    if answer["code"] == 0:
                        break
                else:
                    print(answer["stderr"][-300:])
                print(f"| {name} | {mib} | {answer['code']} {answer['seconds']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
