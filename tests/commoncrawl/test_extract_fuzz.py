"""Hostile and damaged archives: no crash, no hang, every loss counted.

10,000 seeded mutations; ``METACURATE_FUZZ=100000`` tries more.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest

from metacurate.commoncrawl.extract import Counts, ExtractConfig
from web_pages import members, read_rows, record, response

MUTATIONS = int(os.environ.get("METACURATE_FUZZ", "10000"))
MAX_SECONDS_PER_CASE = 5.0

GOOD_URL = "http://good.example/"
HTML = """<!DOCTYPE html><html><head><base href="/b/"><meta charset="utf-8"></head><body>
<figure><img src="1.png" alt="one &amp; only" title='a "title"'><figcaption>cap</figcaption>
</figure><picture><source srcset="a.webp 1x, b.webp 2x"><img data-src=2.png alt=deux></picture>
<table><tr><td><img srcset="x.jpg 300w, y.jpg 900w" src="z.jpg" alt="été"></table></body></html>"""


def wat_block(number: int) -> bytes:
    links = [
        {"path": "A@/href", "url": "/x", "text": "an anchor {}"},
        {"path": "IMG@/src", "url": f"{number}.png", "alt": f'image {number} \\ " é'},
        {"path": "IMG@/src", "url": "http://b.example/i.jpg", "title": "title\n"},
    ]
    head = {"Title": "t", **({"Base": "http://c.example/d/"} if number % 3 == 0 else {})}
    html = {"HTML-Metadata": {"Head": head, "Links": links}}
    value = {
        "Container": {"Filename": "x.warc.gz", "Compressed": True, "Offset": str(number)},
        "Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": html}},
    }
    return json.dumps(value, ensure_ascii=bool(number % 2), separators=(",", ":")).encode()


def good(kind: str) -> bytes:
    block = response(HTML) if kind == "response" else wat_block(1)
    return record(kind, block, GOOD_URL)


def rows_of(data: bytes, form: str) -> tuple[list[Any], Counts]:
    """The rows of a file; fails if it takes too long or if the counts do not add up."""
    counts = Counts()
    start = time.process_time()
    rows = list(read_rows(BytesIO(data), f"x.{form}.gz", form, ExtractConfig(), counts))
    assert time.process_time() - start < MAX_SECONDS_PER_CASE
    assert counts.images == len(rows) + sum(counts.dropped_images.values())
    assert counts.pages >= sum(counts.dropped_pages.values())
    return rows, counts


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One of: bits flipped, bytes set, cut out, doubled, moved, inserted; or the end cut off."""
    changed = bytearray(data)
    kind = rng.randrange(7)
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    if kind == 0:
        for _ in range(rng.choice((1, 1, 2, 8))):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        for _ in range(rng.choice((1, 4, 64))):
            changed[rng.randrange(len(data))] = rng.choice(b'\x00\xff\r\n"<>{}[]\\:,& ')
    elif kind == 2:
        del changed[a : min(b, a + rng.choice((1, 10, 5000)))]
    elif kind == 3:
        changed[b:b] = data[a:b]
    elif kind == 4:
        changed = changed[b:] + changed[:b]
    elif kind == 5:
        changed[a:a] = rng.randbytes(rng.choice((1, 20, 3000)))
    else:
        del changed[a:]
    return bytes(changed)


def test_mutated_gzip_loses_nothing_uncounted() -> None:
    records = [record("metadata", wat_block(n), f"http://{n}.example/") for n in range(6)]
    data = members(*records)
    whole = {(row.page_url, row.url): row for row in rows_of(data, "wat")[0]}
    assert len(whole) == 12
    rng = random.Random(1)
    for _ in range(MUTATIONS // 2):
        rows, counts = rows_of(mutate(data, rng), "wat")
        found = {(row.page_url, row.url): row for row in rows}
        # The checksums of gzip let no changed content through.
        assert all(row == whole.get(key) for key, row in found.items())
        if found != whole and not counts.dropped_records:
            # What is missing was cut out exactly, whole members at a time.
            pages = {page for page, _ in whole} - {page for page, _ in found}
            assert counts.records == 6 - len(pages)


@pytest.mark.parametrize("layout", ["plain", "one gzip stream"])
def test_mutated_files_of_other_layouts(layout: str) -> None:
    data = b"".join(record("metadata", wat_block(n), f"http://{n}.example/") for n in range(6))
    rng = random.Random(2)
    for _ in range(MUTATIONS // 10):
        changed = mutate(data, rng) if layout == "plain" else gzip.compress(mutate(data, rng), 1)
        rows_of(changed, "wat")
        if layout == "one gzip stream":
            rows_of(mutate(gzip.compress(data, 1), rng), "wat")


def mutated_contents(
    kind: str, make: Callable[[int], bytes], count: int, per_file: int, seed: int
) -> None:
    """Files of records with mutated content; the sound records among them must all be found."""
    rng = random.Random(seed)
    form = "wat" if kind == "metadata" else "warc"
    expected = len(rows_of(members(good(kind)), form)[0])
    assert expected
    for start in range(0, count, per_file):
        records = []
        for number in range(start, start + per_file):
            block = mutate(make(number), rng)
            records += [record(kind, block, "http://mutated.example/"), good(kind)]
        rows, counts = rows_of(members(*records), form)
        assert sum(row.page_url == GOOD_URL for row in rows) == expected * per_file
        assert counts.records == 2 * per_file
        assert not counts.dropped_pages["page that crashed or stalled the parser"]


def test_mutated_json() -> None:
    mutated_contents("metadata", wat_block, MUTATIONS * 3 // 10, 10, seed=3)


def test_mutated_responses() -> None:
    packed = response(gzip.compress(HTML.encode()), Content_Encoding="gzip")
    chunked = response(
        f"{len(HTML.encode()):x}\r\n{HTML}\r\n0\r\n\r\n", Transfer_Encoding="chunked"
    )
    utf16 = response(HTML.encode("utf-16"))
    blocks = (response(HTML), packed, chunked, utf16)
    count = MUTATIONS // 5
    mutated_contents("response", lambda n: blocks[n % 4], count, min(count, 400), seed=4)


def test_concatenated_files() -> None:
    first = members(*(record("metadata", wat_block(n)) for n in range(3)))
    second = members(*(record("metadata", wat_block(n)) for n in range(3, 6)))
    rows, counts = rows_of(first + second + first[:-20] + second, "wat")
    assert len(rows) == 6 + 6 + 4 + 6
    assert sum(counts.dropped_records.values()) == 1


def test_bombs_and_deep_nesting() -> None:
    """Each beside a sound record, which must be found."""
    deep = {
        "div": "<div>" * 500_000,
        "lists": "<ul><li>" * 100_000,
        "formatting": "<p><b>" * 100_000,
        "tables": "<table>" * 100_000,
        "images": "<img src=a.png alt=b>" * 100_000,
        "figures": "<figure><img src=a.png alt=b><figcaption>c" * 10_000,
        "sources": "<picture>" + "<source>" * 100_000 + "<img alt=x>",
        "srcset": "<img alt=x srcset='" + "a," * 500_000 + "'>",
        "srcset descriptors": "<img alt=x srcset='a " + "1w " * 500_000 + "'>",
        "comment": "<!--" * 500_000,
        "meta": "<meta " * 500_000 + "<img>",
        "entities": "<img src=a.png alt='" + "&amp;&#x110000;&#0;" * 100_000 + "'>",
    }
    records = []
    for html in deep.values():
        hostile = html + "<img src=last.png alt=last>"
        records += [record("response", response(hostile)), good("response")]
    bomb = gzip.compress(bytes(200 << 20))
    for encoding in ("gzip", "deflate", "br"):
        block = response(bomb, Content_Encoding=encoding)
        records += [record("response", block), good("response")]
    rows, counts = rows_of(members(*records), "warc")
    sound = [row for row in rows if row.page_url == GOOD_URL]
    assert len(sound) == 3 * (len(deep) + 3)
    assert counts.dropped_pages["oversized page"] == 3  # gzip, whatever the header calls it
    assert not counts.dropped_pages["page that crashed or stalled the parser"]

    nested = b'{"HTML-Metadata":' + b"[" * 1_000_000
    links = b'{"HTML-Metadata":[' + b'{"path":"IMG@/src","url":"' + b'\\"' * 1_000_000
    braces = b'{"HTML-Metadata":0,"Container":{' + b"{}" * 1_000_000 + b'"path":"IMG@/src"'
    slow = b'{"HTML-Metadata":0,' + b'"Container":{"Filename":' * 50_000 + wat_block(1)[1:]
    blocks = [nested, links, braces, slow]
    rows, counts = rows_of(
        members(*(r for b in blocks for r in (record("metadata", b), good("metadata")))), "wat"
    )
    assert sum(row.page_url == GOOD_URL for row in rows) == 2 * len(blocks)
