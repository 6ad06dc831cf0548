"""What compiled loops gain: whole commands with a loop, and with a library's way in its place.

    python benchmarks/make_wat.py --out made.warc.wat.gz --pages 100000
    python benchmarks/kernels.py wat text url --wat made.warc.wat.gz
    python benchmarks/kernels.py uid --rows 8000000
    python benchmarks/kernels.py hamming --images 1000000

Both ways run in turn, each in a process of its own with one worker, ``--rounds`` times; times are
core seconds (user and system), the gain is the median of the rounds' ratios. Both must write the
same bytes. A loop is worth its lines if the command takes 1.25 times as long without it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data import write_pool
from record import table

IMAGES_PER_SHARD = 10_000
# Of 1,997 pictures of Debian's gimp-help-en and other documentation, two have a given quarter of
# their difference hashes in common in one of 2,200 cases: as if one in 47 were blank there.
BLANK_SHARE = 1 / 47
NEARLY_EQUAL_SHARE = 0.05


def plain_uid() -> None:
    """hashlib on each value; RE2 finds those that need nothing else."""
    from metacurate.pool import uid
    from metacurate.pool.schema import UID_TYPE

    blank_or_hex = r"^(?:[\t-\r ]*|[0-9a-f]{32})$"

    def uids(values: pa.LargeBinaryArray, valid: np.ndarray) -> pa.FixedSizeBinaryArray:
        is_odd = pc.fill_null(pc.match_substring_regex(values, blank_or_hex), True).to_pylist()
        rows = pc.fill_null(values.cast(pa.large_binary()), b"").to_numpy(zero_copy_only=False)
        found = [
            (uid.key_uid(row) if odd else hashlib.blake2b(row, digest_size=16).digest())
            if is_valid
            else None
            for row, odd, is_valid in zip(rows, is_odd, valid.tolist(), strict=True)
        ]
        return pa.array(found, UID_TYPE)

    uid._uids = uids


def plain_wat() -> None:
    """fastwarc, each record parsed by orjson, the rows made page by page."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    from metacurate.commoncrawl import extract, wat
    from metacurate.commoncrawl.page_rows import SourcePage, page_rows, row_tables
    from metacurate.commoncrawl.reasons import DroppedPage, DroppedRecord
    from metacurate.kernels.wat import MARK

    def pages(file: Any, counts: Any) -> Iterator[SourcePage]:
        snapshot = None
        for record in ArchiveIterator(file, WarcRecordType.metadata, parse_http=False):
            counts.records += 1
            block = record.reader.read()
            if not wat.describes_html(block):
                counts.dropped_records[DroppedRecord.NO_HTML_METADATA] += 1
                snapshot = wat.snapshot(block) or snapshot
                continue
            counts.pages += 1
            page = wat._parse_whole(block) if MARK in block else None
            if page is None or not page.images:
                counts.dropped_pages[DroppedPage.NO_IMAGE] += 1
                continue
            url = record.headers.get("WARC-Target-URI") or ""
            place = (page.warc_file, page.record_offset)
            yield SourcePage(page.images, page.base_href, url, snapshot, *place)

    def read_tables(file: Any, source: str, form: str, config: Any, counts: Any) -> Any:
        del source, form
        found = pages(file, counts)
        return row_tables(row for page in found for row in page_rows(page, config.rules, counts))

    extract.read_tables = read_tables


def plain_text() -> None:
    """orjson and ``texts.rules.clean`` on each text."""
    from metacurate.commoncrawl import wat, wat_tables
    from metacurate.kernels import wat as kernel
    from metacurate.pages.entities import unescape
    from metacurate.texts.rules import clean

    def text(written: bytes, entities: bool) -> str:
        value = wat.json_text(written)
        return clean(unescape(value) if entities else value)

    def read_texts(
        raw: np.ndarray, links: np.ndarray, column: int, broken: np.ndarray, entities: bool
    ) -> Any:
        data = raw.tobytes()
        texts: list[str | None] = []
        spans = links[:, column : column + 2].tolist()
        for page, (start, end) in zip(links[:, kernel.PAGE].tolist(), spans, strict=True):
            try:
                texts.append(text(data[start:end], entities) if start < end else None)
            except wat.InvalidJson:
                broken[page] = True
                texts.append("")
        characters = np.array([len(found or "") for found in texts], np.int32)
        return wat_tables._Texts(pa.array(texts, pa.string()), characters)

    def copied(raw: np.ndarray, spans: np.ndarray) -> pa.StringArray:
        data = raw.tobytes()
        return pa.array([data[start:end] for start, end in spans.tolist()], pa.string())

    wat_tables._read_texts, wat_tables._copied = read_texts, copied


def plain_url() -> None:
    """ada-url behind a regular expression on each address (``commoncrawl.urls.Base``)."""
    from metacurate.commoncrawl import wat, wat_tables
    from metacurate.kernels import wat as kernel
    from metacurate.pages.entities import unescape
    from metacurate.pages.urls import Base

    def bases(page_urls: pa.StringArray) -> tuple[Any, np.ndarray]:
        found: list[Base | None] = []
        for url in page_urls.to_pylist():
            try:
                found.append(Base(url))
            except ValueError:
                found.append(None)
        return found, np.array([base is None for base in found])

    def decoded(
        raw: np.ndarray, links: np.ndarray, broken: np.ndarray, entities: bool
    ) -> dict[int, str]:
        data = raw.tobytes()
        addresses: dict[int, str] = {}
        spans = links[:, kernel.PAGE : kernel.ADDRESS_END + 1].tolist()
        for link, (page, start, end) in enumerate(spans):
            try:
                written = wat.json_text(data[start:end])
            except wat.InvalidJson:
                broken[page] = True
                written = ""
            addresses[link] = unescape(written) if entities else written
        return addresses

    def resolve(
        raw: np.ndarray, links: np.ndarray, which: np.ndarray, escaped: dict[int, str],
        bases: Any, counts: Any,
    ) -> pa.StringArray:  # fmt: skip
        del raw
        urls = []
        for link, page in zip(which.tolist(), links[which, kernel.PAGE].tolist(), strict=True):
            url, problem = bases[page].resolve(escaped[link])
            if url is None:
                counts.dropped_images[problem] += 1
            urls.append(url)
        return pa.array(urls, pa.string())

    wat_tables._bases, wat_tables._escaped_addresses = bases, decoded
    wat_tables._resolve = resolve


def plain_hamming() -> None:
    """numpy's ``bitwise_count``: all hashes with the first of their groups, the second, ..."""
    from metacurate.images import duplicates

    def first_within(hashes: np.ndarray, starts: np.ndarray, distance: int) -> np.ndarray:
        found = np.full(len(hashes), -1, np.int64)
        rows = np.arange(len(hashes))
        others = np.repeat(starts[:-1], np.diff(starts))
        while len(rows):
            earlier = others < rows
            rows, others = rows[earlier], others[earlier]
            near = np.bitwise_count(hashes[rows] ^ hashes[others]) <= distance
            found[rows[near]] = others[near]
            rows, others = rows[~near], others[~near] + 1
        return found

    duplicates.first_within = first_within  # type: ignore[attr-defined]


PLAIN: dict[str, Callable[[], None]] = {
    "uid": plain_uid,
    "wat": plain_wat,
    "text": plain_text,
    "url": plain_url,
    "hamming": plain_hamming,
}


def write_hashes(folder: Path, images: int) -> None:
    """Shards of images that have nothing but their hashes."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    quarters = rng.integers(0, 2**16, (images, 4), dtype=np.uint16)
    quarters[rng.random(quarters.shape) < BLANK_SHARE] = 0
    hashes = quarters.view(np.uint64).ravel()
    copies = np.flatnonzero(rng.random(images) < NEARLY_EQUAL_SHARE)
    bits = rng.integers(0, 64, len(copies), dtype=np.uint64)
    hashes[copies] = hashes[rng.integers(0, images, len(copies))] ^ (np.uint64(1) << bits)
    for number, first in enumerate(range(0, images, IMAGES_PER_SHARD)):
        some = [f"{value:016x}" for value in hashes[first : first + IMAGES_PER_SHARD].tolist()]
        columns = {
            "key": [f"{number:05d}{row:04d}" for row in range(len(some))],
            "status": ["success"] * len(some),
            "sha256": [rng.bytes(32).hex() for _ in some],
            "dhash": some,
        }
        (folder / f"{number:05d}.tar").touch()
        pq.write_table(pa.table(columns), folder / f"{number:05d}.parquet")


def commands(loop: str, scratch: Path, options: argparse.Namespace) -> list[str]:
    """The command that uses a loop, with ``OUT`` for its output; makes its input if need be."""
    if loop == "hamming":
        if not (scratch / "OUT.hashes").exists():
            write_hashes(scratch / "OUT.hashes", options.images)
        return ["pool", "duplicates", "OUT"]
    if loop == "uid":
        if not (scratch / "pool").exists():
            write_pool(scratch / "pool", options.rows)
        command = f"curate {scratch}/pool --metadata wordnet --t 20 --no-report"
    else:
        command = f"pool extract {' '.join(map(str, options.wat))} --identifier none"
    return [*command.split(), "--workers", "1", "--out", "OUT"]


def core_seconds(way: str, command: list[str], scratch: Path) -> tuple[float, str]:
    """Run a command with a loop's plain way ("": with all loops); what it took and wrote."""
    out = scratch / "OUT"
    shutil.rmtree(out, ignore_errors=True)
    if (scratch / "OUT.hashes").exists():
        shutil.copytree(scratch / "OUT.hashes", out)
    arguments = [str(out) if word == "OUT" else word for word in command]
    process = subprocess.Popen(
        [sys.executable, __file__, "--child", way, *arguments], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    written = hashlib.sha256()
    for path in sorted(out.rglob("*.parquet")):
        written.update(path.read_bytes())
    return usage.ru_utime + usage.ru_stime, written.hexdigest()


def child(way: str, command: list[str]) -> None:
    """Run a command in this process, which has a plain way in a loop's place."""
    from metacurate.cli import main as run

    if way:
        PLAIN[way]()
    run(command)


def main() -> None:
    """Measure the chosen loops and print a table."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("loops", nargs="+", choices=PLAIN)
    parser.add_argument("--wat", type=Path, nargs="+", default=[], help="for wat, text and url")
    parser.add_argument("--rows", type=int, default=8_000_000, help="of the pool for uid")
    parser.add_argument("--images", type=int, default=1_000_000, help="for hamming")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    lines = []
    for loop in options.loops:
        with tempfile.TemporaryDirectory(prefix="kernels-") as folder:
            scratch = Path(folder)
            command = commands(loop, scratch, options)
            core_seconds("", command, scratch)  # compiles what is not yet compiled
            times: dict[str, list[float]] = {"": [], loop: []}
            written = {}
            for number in range(options.rounds):
                for way in sorted(times, reverse=number % 2 == 1):
                    seconds, written[way] = core_seconds(way, command, scratch)
                    times[way].append(seconds)
            if written[""] != written[loop]:
                raise SystemExit(f"{loop}: both ways do not write the same bytes")
        with_loop, without = times[""], times[loop]
        gains = [plain / ours for plain, ours in zip(without, with_loop, strict=True)]
        medians = [f"{statistics.median(values):.2f}" for values in (with_loop, without, gains)]
        name = " ".join(word for word in command[:2] if word.isalpha())
        lines.append([loop, name, *medians])
    print(table(["loop", "command", "with it, s", "without, s", "gain"], lines))


if __name__ == "__main__":
    main()
