"""How fast archives become pairs, on one core, beside other ways of reading them.

    apt-get install gimp-help-en debian-handbook
    python examples/make_warc.py --out crawl
    python benchmarks/extract.py --wat crawl/docs.warc.wat.gz --warc crawl/docs.warc.gz

WAT, three ways beside ``metacurate``: cc2dataset's (fastwarc, each record parsed with simdjson,
links filtered in Python, an MD5 each; it drops relative addresses, here they are kept), the same
with the standard library's json, and plain warcio with json; and how long inflating alone takes.
WARC: warcio with BeautifulSoup (html.parser). All ways run in turn, ``--rounds`` times; the least
core time of each counts (parser processes included). MB are those of inflated records.
``metacurate`` also resolves and normalises addresses, cleans texts, drops repeats, makes uids and
Arrow tables; language identification is measured apart.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Way = Callable[[Path], int]


def metacurate_way(identifier: str) -> Way:
    """``pool extract`` without writing the Parquet file; the number of pairs."""
    # Not at the top: the parser's process imports this module too, and needs nothing of this.
    from metacurate.commoncrawl.extract import ExtractConfig, read_tables, tables
    from metacurate.commoncrawl.page_rows import Counts

    def run(path: Path) -> int:
        config = ExtractConfig(identifier=identifier)
        counts = Counts()
        form = "wat" if ".wat" in path.name else "warc"
        with path.open("rb") as file:
            found = read_tables(file, path.name, form, config, counts)
            return sum(table.num_rows for table in tables(found, config, counts))

    return run


def image_links(record: Any) -> Iterator[dict[str, str]]:
    """The image links of a parsed WAT record that have an address and an alt text."""
    html = record["Envelope"]["Payload-Metadata"]
    for key in ("HTTP-Response-Metadata", "HTML-Metadata", "Links"):
        if key not in html:
            return
        html = html[key]
    for link in html:
        if (
            link.get("path", "") == "IMG@/src"
            and len(link.get("url", "")) > 0
            and len(link.get("alt", "")) > 0
        ):
            pair = {"url": link["url"], "alt": link["alt"]}
            pair["uid"] = hashlib.md5((pair["alt"] + pair["url"]).encode()).hexdigest()
            yield pair


def fastwarc_way(load: Callable[[Any], Any]) -> Way:
    """cc2dataset's way: every metadata record parsed as a whole."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    def run(path: Path) -> int:
        pairs: list[dict[str, str]] = []
        with path.open("rb") as file:
            wanted = WarcRecordType.metadata
            for record in ArchiveIterator(file, record_types=wanted, parse_http=False):
                pairs.extend(image_links(load(record.reader)))
        return len(pairs)

    return run


def warcio_wat(path: Path) -> int:
    """warcio and json."""
    from warcio.archiveiterator import ArchiveIterator

    pairs: list[dict[str, str]] = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "metadata":
                pairs.extend(image_links(json.loads(record.content_stream().read())))
    return len(pairs)


def inflating_alone(path: Path) -> int:
    """ISA-L's inflating and nothing else: what every way needs at least."""
    from isal import igzip

    with igzip.open(path) as file:
        while file.read(1 << 20):
            pass
    return 0


def warcio_beautifulsoup(path: Path) -> int:
    """warcio and BeautifulSoup."""
    from bs4 import BeautifulSoup
    from warcio.archiveiterator import ArchiveIterator

    pairs: list[tuple[object, object]] = []
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type != "response":
                continue
            page = BeautifulSoup(record.content_stream().read(), "html.parser")
            pairs += [
                (image["src"], image["alt"])
                for image in page.find_all("img")
                if image.get("src") and image.get("alt")
            ]
    return len(pairs)


def compare(title: str, path: Path, ways: dict[str, Way], rounds: int) -> None:
    """Print a table of the ways' best times."""
    records, size = inflated_size(path)
    best = dict.fromkeys(ways, float("inf"))
    pairs = {}
    for _ in range(rounds):
        for name, way in ways.items():
            start = core_seconds()
            pairs[name] = way(path)
            best[name] = min(best[name], core_seconds() - start)
    ours = best[next(iter(ways))]
    print(f"\n{title}: {records:,} records with pages, {size / 1e6:.1f} MB inflated")
    print("| way | MB/s | pages/s | pairs | times the first's time |\n|---|---|---|---|---|")
    for name, seconds in best.items():
        print(
            f"| {name} | {size / 1e6 / seconds:.1f} | {records / seconds:,.0f} | {pairs[name]:,} | "
            f"{seconds / ours:.2f} |"
        )


def core_seconds() -> float:
    """Time that this process and its ended children have spent on cores."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def inflated_size(path: Path) -> tuple[int, int]:
    """(records that describe or hold a page, bytes of all records inflated)."""
    import gzip

    kind = b'"HTML-Metadata"' if ".wat" in path.name else b"WARC-Type: response"
    records = size = 0
    with gzip.open(path) as file:
        for line in file:
            size += len(line)
            records += kind in line
    return records, size


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--wat", type=Path)
    parser.add_argument("--warc", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ours = {
        "metacurate": metacurate_way("none"),
        "metacurate with eldc": metacurate_way("eldc"),
    }
    if options.wat:
        import simdjson

        others: dict[str, Way] = {
            "fastwarc and simdjson (cc2dataset)": fastwarc_way(simdjson.load),
            "fastwarc and json": fastwarc_way(json.load),
            "warcio and json": warcio_wat,
            "inflating alone": inflating_alone,
        }
        compare("WAT", options.wat, {**ours, **others}, options.rounds)
    if options.warc:
        ways = {**ours, "warcio and BeautifulSoup": warcio_beautifulsoup}
        compare("WARC", options.warc, ways, min(options.rounds, 2))


if __name__ == "__main__":
    main()
