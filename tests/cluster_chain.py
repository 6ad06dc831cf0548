"""What the tests on a cluster share: its nodes, and a small chain of all commands on a bucket."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hostile_server import HostileServer
from web_pages import record, response

TESTS = Path(__file__).parent
BUCKET = "metacurate-cluster"
STORE_BYTES = 80 << 20  # the least that Ray takes
ALTS = ("A dog on the grass", "Two cats and a dog", "The red house by the sea", "ein Hund im Gras")


def brightness(images: Sequence[Any], _: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """A scorer."""
    return {"brightness": [float(np.mean(image)) / 255 for image in images]}


def write_crawl(path: Path, number: int) -> None:
    """A WARC of a few pages, whose images other files have too."""
    pages = []
    for page in range(6):
        images = "".join(
            f'<img src="/{(7 * number + 3 * page + i) % 20}.jpg" alt="{ALTS[(page + i) % 4]} {i}">'
            for i in range(8)
        )
        block = response(f"<html lang=en><title>Pages</title>{images}</html>")
        pages.append(record("response", block, f"http://a.example/{number}/{page}"))
    path.write_bytes(b"".join(gzip.compress(page, mtime=0) for page in pages))


def write_tars(folder: Path, number: int) -> None:
    """A tar as ``pool download`` writes it, with the table beside it; some pictures are twice."""
    names = ("key", "status", "error_message", "sha256", "dhash")
    rows: dict[str, list[Any]] = {name: [] for name in names}
    with tarfile.open(folder / f"{number:05d}.tar", "w") as tar:
        for row in range(6):
            key = f"{number:05d}{row:04d}"
            noise = np.random.default_rng((number + row) % 7).integers(0, 255, (16, 16, 3))
            buffer = io.BytesIO()
            Image.fromarray(noise.astype(np.uint8)).save(buffer, "PNG")
            picture = buffer.getvalue()
            url = f'{{"url": "http://a.example/{key}.png", "uid": "{number:028x}{row:04x}"}}'
            for end, data in (("png", picture), ("txt", b"a dog"), ("json", url.encode())):
                member = tarfile.TarInfo(f"{key}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            digest = hashlib.sha256(picture).hexdigest()
            values = (key, "success", None, digest, digest[:16])
            for name, value in zip(names, values, strict=True):
                rows[name].append(value)
    rows["error_message"] = pa.array(rows["error_message"], pa.string())
    pq.write_table(pa.table(rows), folder / f"{number:05d}.parquet")


def write_inputs(folder: Path, files: int = 3) -> None:
    """What the chain begins with, but for ``write_urls``: archives, tars, a dump, metadata."""
    for name in ("crawl", "tars", "wiki"):
        (folder / name).mkdir(parents=True)
    for number in range(files):
        write_crawl(folder / "crawl" / f"{number:05d}.warc.gz", number)
        write_tars(folder / "tars", number)
    from wikipedia_dumps import SEGMENTS, maker

    articles = maker.make_articles(SEGMENTS, 40, seed=1)
    dump = maker.multistream(maker.dump_pages(articles, []))
    (folder / "wiki" / "enwiki-20240101-pages-articles-multistream.xml.bz2").write_bytes(dump)
    (folder / "metadata.json").write_text('["dog", "cats", "red house", "grass", "the sea"]')


def write_urls(folder: Path, server: HostileServer) -> None:
    """A list of images to download: those of the chain's inputs that a server has to give."""
    urls = [server.url(f"photo/{n}.jpg") for n in range(7)] + [server.url("status/404")]
    table = pa.table({"url": urls, "text": [f"photo {n}" for n in range(len(urls))]})
    pq.write_table(table, folder / "urls.parquet")


def chain(start: str, made: str, out: str) -> dict[str, tuple[object, ...]]:
    """The commands by the name of what they write.

    ``start``: the address of the inputs; ``made``: that of a chain whose results are read;
    ``out``: where all is written.
    """
    entries = ("--metadata", f"{start}/metadata.json")
    return {
        "extract": ("pool", "extract", f"{start}/crawl", "--out", f"{out}/extract"),
        "language": ("pool", "language", f"{made}/extract/pool", "--out", f"{out}/language"),
        "dedup": ("pool", "dedup", f"{made}/extract/pool", "--dedup-texts", 3,
                  "--out", f"{out}/dedup"),
        "download": ("pool", "download", f"{start}/urls.parquet", "--samples-per-shard", 3,
                     "--image-size", 32, "--retries", 0, "--allow-network", "127.0.0.1/32",
                     "--out", f"{out}/download"),
        "ingest": ("pool", "ingest", f"{start}/tars", "--out", f"{out}/ingest"),
        "filter": ("pool", "filter", f"{start}/tars", "--scorer", "cluster_chain:brightness",
                   "--keep", "brightness>0.5", "--out", f"{out}/filter"),
        "marked": ("pool", "duplicates", f"{out}/marked"),
        "reshard": ("pool", "reshard", f"{made}/ingest/pool", "--tars", f"{start}/tars",
                    "--samples-per-tar", 8, "--out", f"{out}/reshard"),
        "uids.npy": ("pool", "uids", f"{made}/extract/pool", "--out", f"{out}/uids.npy"),
        "build": ("metadata", "build", "--wikipedia", f"{start}/wiki/*.bz2", "--source", "unigrams",
                  "--source", "bigrams", "--min-count", 2, "--out", f"{out}/build.json"),
        "curated": ("curate", f"{made}/extract/pool", *entries, "--t", 3, "--no-report",
                    "--out", f"{out}/curated"),
        "curated, report": ("report", f"{out}/curated"),
    }  # fmt: skip


def objects(client: Any, folder: str) -> dict[str, str]:
    """A hash of each object below a folder of the bucket, by its name there."""
    start = f"{BUCKET}/{folder}/"
    return {
        name.removeprefix(start): hashlib.blake2b(client.cat_file(name)).hexdigest()
        for name in client.find(start)
    }


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """An S3 server on this machine with an empty bucket; the environment that leads to it."""
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request takes its time
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = dict(os.environ)
    os.environ.update(environment)
    s3fs.S3FileSystem.clear_instance_cache()  # clients of a server that is gone
    s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True).mkdir(BUCKET)
    try:
        yield environment
    finally:
        os.environ.clear()
        os.environ.update(before)
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


def node_options(**options: Any) -> dict[str, Any]:
    """A node of one core and little memory for objects."""
    return {
        "num_cpus": 1,
        "object_store_memory": STORE_BYTES,
        "include_dashboard": False,
        **options,
    }


def paths_of_workers() -> str:
    """Where workers find this package and the functions of the tests."""
    own = [str(TESTS.parent / "src"), str(TESTS), str(TESTS / "runtime")]
    return os.pathsep.join([*own, os.environ.get("PYTHONPATH", "")])
