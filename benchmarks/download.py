"""pool download beside img2dataset: what hostile servers do to each, and images a second.

img2dataset pins packages of its own, so it runs in another environment:

    python -m venv i2d && i2d/bin/pip install img2dataset==1.47.0
    python benchmarks/download.py --img2dataset i2d/bin/img2dataset

For the speed, both download the same photographs (crops of scikit-image's samples, 640 x 480) from
a server on loopback and make 256-pixel JPEG of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import skimage.data
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from hostile_server import HostileServer, encoded

SIZE = "256"
ADDRESS_SPACE = 6 * 2**30
OURS = (sys.executable, "-m", "metacurate", "pool", "download")


def serve(ready: Queue[int], stop: Event) -> None:
    """A server of photographs in a process of its own."""
    names = ("astronaut", "coffee", "cat", "rocket")
    whole = [Image.fromarray(getattr(skimage.data, name)()).resize((1024, 768)) for name in names]
    with HostileServer() as server:
        for number in range(32):
            left, top = 4 * number, 3 * number
            crop = whole[number % len(whole)].crop((left, top, left + 640, top + 480))
            server.specials[f"photo{number}.jpg"] = encoded(crop, quality=90)
        ready.put(server.port)
        stop.wait()


def ours(source: Path, out: Path, *options: str) -> list[str]:
    """The command of metacurate."""
    return [
        *(*OURS, str(source), "--out", str(out), "--image-size", SIZE, "--samples-per-shard"),
        *("1000", "--allow-network", "127.0.0.1/32", "--json", *options),
    ]


def theirs(program: str, source: Path, out: Path, *options: str) -> list[str]:
    """The command of img2dataset, with the same work to do."""
    return [
        *(program, "--url_list", str(source), "--input_format", "parquet", "--url_col", "url"),
        *("--caption_col", "caption", "--output_format", "webdataset", "--output_folder", str(out)),
        *("--image_size", SIZE, "--resize_mode", "keep_ratio", "--resize_only_if_bigger", "True"),
        *("--number_sample_per_shard", "1000", *options),
    ]


def write_urls(path: Path, urls: list[str]) -> Path:
    """A Parquet file of URLs with captions."""
    pq.write_table(pa.table({"url": urls, "caption": ["a photograph"] * len(urls)}), path)
    return path


def digest(folder: Path) -> str:
    """A hash over a folder's tars."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.tar")):
        total.update(path.read_bytes())
    return total.hexdigest()


def rules(program: str, scratch: Path) -> dict[str, dict[str, object]]:
    """What becomes of awkward URLs, with img2dataset and with pool download."""
    found: dict[str, dict[str, object]] = {}
    ours_limits = ("--timeout", "2", "--retries", "2")
    their_limits = ("--timeout", "2", "--retries", "2", "--thread_count", "32")
    with HostileServer() as server, HostileServer("127.0.0.2") as inner:
        picture = scratch / "private.png"
        picture.write_bytes(server.specials["alpha.png"])
        cases = {
            "private address (127.0.0.2)": inner.url("photo/1.jpg"),
            "URL of a local file": picture.resolve().as_uri(),
            "EXIF orientation (shown as 64x96)": server.url("exif.jpg"),
            "429, Retry-After: 1": server.url("busy/1"),
            "a byte each 0.05 s": server.url("drip"),
        }
        for name, url in cases.items():
            row: dict[str, object] = {}
            for who in ("img2dataset", "metacurate"):
                server.requests.clear()
                out = scratch / f"{who}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
                source = write_urls(scratch / "one.parquet", [url])
                command = (
                    theirs(program, source, out, *their_limits)
                    if who == "img2dataset"
                    else ours(source, out, *ours_limits)
                )
                start = time.monotonic()
                try:
                    subprocess.run(command, check=True, capture_output=True, timeout=30)
                except subprocess.TimeoutExpired:
                    row[who] = "no end after 30 s"
                    continue
                result = pq.read_table(out / "00000.parquet").to_pylist()[0]
                what = result["error_message"] or f"{result['width']}x{result['height']}"
                row[who] = f"{result['status']}, {what}, {time.monotonic() - start:.1f} s"
            found[name] = row
        urls = [server.url(f"photo/{n}.jpg") for n in range(200)]
        source = write_urls(scratch / "many.parquet", urls)
        server.delay = 0.02
        for who in ("img2dataset", "metacurate"):
            server.most_at_once = 0
            for run in ("a", "b"):
                out = scratch / f"{who}-{run}"
                subprocess.run(
                    theirs(program, source, out, *their_limits)
                    if who == "img2dataset"
                    else ours(source, out),
                    check=True,
                    capture_output=True,
                )
            same = digest(scratch / f"{who}-a") == digest(scratch / f"{who}-b")
            found.setdefault("two runs give the same tars", {})[who] = same
            found.setdefault("requests to one host at once", {})[who] = server.most_at_once
        server.delay = 0
        source = write_urls(scratch / "endless.parquet", [server.url("endless")])
        for who in ("img2dataset", "metacurate"):
            before = server.sent
            out = scratch / f"{who}-endless"
            ended = subprocess.run(
                theirs(program, source, out, "--timeout", "2", "--thread_count", "1")
                if who == "img2dataset"
                else ours(source, out, *ours_limits),
                capture_output=True,
                timeout=300,
                check=False,
                # The limit stands for the machine's memory, so that the test has an end.
                preexec_fn=lambda: resource.setrlimit(
                    resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE)
                ),
            )
            read = f"{(server.sent - before) / 2**20:,.0f} MiB read, exit code {ended.returncode}"
            found.setdefault("endless body, 6 GiB of address space", {})[who] = read
    return found


def speed(program: str | None, scratch: Path, images: int) -> dict[str, object]:
    """Images a second of both, with as many connections and processes."""
    context = multiprocessing.get_context("spawn")
    ready, stop = context.Queue(), context.Event()
    process = context.Process(target=serve, args=(ready, stop))
    process.start()
    try:
        port = ready.get(timeout=60)
        urls = [f"http://127.0.0.1:{port}/photo{n % 32}.jpg?{n}" for n in range(images)]
        source = write_urls(scratch / "speed.parquet", urls)
        found: dict[str, object] = {"images": images}
        start = time.perf_counter()
        command = ours(source, scratch / "ours", "--workers", "2", "--per-host", "64")
        subprocess.run(command, check=True, capture_output=True)
        found["metacurate images/s"] = round(images / (time.perf_counter() - start), 1)
        if program is not None:
            start = time.perf_counter()
            options = ("--processes_count", "2", "--thread_count", "32")
            command = theirs(program, source, scratch / "theirs", *options)
            subprocess.run(command, check=True, capture_output=True)
            found["img2dataset images/s"] = round(images / (time.perf_counter() - start), 1)
        return found
    finally:
        stop.set()
        process.join()


def main() -> None:
    """Print both parts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--img2dataset", help="the program img2dataset of its environment")
    parser.add_argument("--images", type=int, default=5000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found: dict[str, object] = {}
        if arguments.img2dataset:
            found["rules"] = rules(arguments.img2dataset, Path(scratch))
        found["speed"] = speed(arguments.img2dataset, Path(scratch), arguments.images)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
