"""WATs by their age, and the official key."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random
from urllib.parse import urljoin

import pyarrow.parquet as pq
import pytest
from resiliparse.parse.html import HTMLTree

from metacurate.commoncrawl.extract import ExtractConfig, extract_pool
from metacurate.commoncrawl.wat import has_entities, language
from metacurate.pages.entities import unescape
from metacurate.runtime.engines.local import LocalEngine
from web_pages import members, record, response

LINKS = [
    {"path": "IMG@/src", "url": "/i.php?id=867&amp;res=10x16", "alt": "Tom &amp; Jerry&#39;s"},
    {"path": "IMG@/src", "url": "a.jpg?x=1&#38;copy=2&copy=3",
     "title": "&lt;b&gt;&eacute;t&eacute"},
    {"path": "IMG@/src", "url": "b.jpg", "alt": "AT&T", "title": "AT&amp;T"},
    {"path": "IMG@/src", "url": "c d.jpg", "alt": "c", "data-image-title": "&amp;c"},
]  # fmt: skip
NEW = "Software-Info: ia-web-commons\r\nExtracted-Date: Mon, 23 Sep 2019 10:00:00 GMT\r\n"
OLD = NEW.replace("Sep", "Aug")


def write_wat(folder: Path, information: str, name: str = "x.warc.wat.gz", **fields: str) -> Path:
    html = {"HTML-Metadata": {"Head": {}, "Links": LINKS}}
    value = {
        "Container": {"Filename": "x.warc.gz", "Compressed": True, "Offset": "77"},
        "Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": html}},
    }
    block = json.dumps(value, separators=(",", ":")).encode()
    path = folder / name
    path.write_bytes(
        members(record("warcinfo", information.encode(), **fields), record("metadata", block))
    )
    return path


DECODED = [
    ("http://a.example/i.php?id=867&res=10x16", ["Tom & Jerry's"]),
    ("http://a.example/p/a.jpg?x=1&copy=2&copy=3", ["<b>été"]),
    ("http://a.example/p/b.jpg", ["AT&T"]),
    ("http://a.example/p/c%20d.jpg", ["c", "&c"]),
]
AS_WRITTEN = [
    ("http://a.example/i.php?id=867&amp;res=10x16", ["Tom &amp; Jerry&#39;s"]),
    ("http://a.example/p/a.jpg?x=1&", ["&lt;b&gt;&eacute;t&eacute"]),
    ("http://a.example/p/b.jpg", ["AT&T", "AT&amp;T"]),
    ("http://a.example/p/c%20d.jpg", ["c", "&amp;c"]),
]


@pytest.mark.parametrize(
    ("information", "name", "option", "decoded"),
    [
        (OLD, "x.warc.wat.gz", "auto", True),
        (NEW, "x.warc.wat.gz", "auto", False),
        (NEW, "x.warc.wat.gz", "decode", True),
        (OLD, "x.warc.wat.gz", "keep", False),
        ("", "CC-MAIN-2019-30.wat.gz", "auto", True),
        ("", "CC-MAIN-2019-39.wat.gz", "auto", False),
        ("", "x.warc.wat.gz", "auto", False),
    ],
)
def test_entities_of_old_wats(
    information: str, name: str, option: str, decoded: bool, tmp_path: Path
) -> None:
    path = write_wat(tmp_path, information, name)
    config = ExtractConfig(identifier="none", entities=option)
    extract_pool([str(path)], str(tmp_path / "out"), config, engine=LocalEngine(1))
    rows = pq.read_table(tmp_path / "out/pool").to_pylist()
    found = [(row["url"], [text["text"] for text in row["texts"]]) for row in rows]
    assert found == (DECODED if decoded else AS_WRITTEN)


def test_a_wat_without_extraction_date_is_as_old_as_its_first_record() -> None:
    for day, old in (("2019-08-31", True), ("2019-09-01", False)):
        assert has_entities(f"WARC/1.0\r\nWARC-Date: {day}T00:00:00Z\r\n".encode(), "") == old
    assert not has_entities(b"Extracted-Date: rubbish\r\n", "")
    assert not has_entities(b"", "CC-MAIN-2019-99")


def head(*metas: object) -> bytes:
    html = {"HTML-Metadata": {"Head": {"Metas": metas}, "Links": [{"name": "HTML@/lang"}]}}
    value = {"Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": html}}}
    return json.dumps(value).encode()


STATED = {"name": "HTML@/lang", "content": "es-MX"}
XML = {"content": "de", "name": "HTML@/xml:lang"}


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (head(STATED), "es-MX"),
        (head({"name": "author", "content": "HTML@/lang"}, XML, STATED), "es-MX"),
        (head(XML), "de"),
        (head(STATED, {**STATED, "content": "fr"}), "es-MX"),
        (head({"name": "HTML@/lang", "content": 4}, XML), "de"),
        (head({"name": "HTML@/lang"}), None),
        (head({"name": "author", "content": "HTML@/lang"}), None),
        (head("HTML@/lang"), None),
        (head(STATED)[:-1], None),
        (b"{}", None),
    ],
)
def test_html_lang(block: bytes, expected: str | None) -> None:
    assert language(block) == expected


PIECES = [
    *("&", "#", ";", "amp", "lt", "copy", "not", "notit", "eacute", "x26", "38", "0", "X80", "="),
    *("150", "999999999", "xD800", "x110000", "a", "/", " ", "NotEqualTilde", "apos", "1"),
]


def test_references_are_replaced_as_a_parser_replaces_them() -> None:
    rng = Random(0)
    changed = 0
    for _ in range(20_000):
        value = "".join(rng.choice(["&", "&#", *PIECES]) for _ in range(rng.randrange(1, 9)))
        document = HTMLTree.parse(f'<img alt="{value}">').document
        assert document is not None
        image = document.query_selector("img")
        assert image is not None
        assert unescape(value) == image.getattr("alt"), value
        changed += unescape(value) != value
    assert changed > 1000


@pytest.mark.parametrize("decode", ["keep", "decode"])
def test_the_official_key(decode: str, tmp_path: Path) -> None:
    wat = write_wat(tmp_path, NEW)
    html = "".join(f'<img src="{link["url"]}" alt=t>' for link in LINKS)
    warc = tmp_path / "y.warc.gz"
    warc.write_bytes(members(record("response", response("<base href=/b/>" + html))))
    config = ExtractConfig(identifier="none", entities=decode, official_key=True)
    extract_pool([str(wat), str(warc)], str(tmp_path / "out"), config, engine=LocalEngine(1))
    keys = [row["official_key"] for row in pq.read_table(tmp_path / "out/pool").to_pylist()]

    def official(written: str) -> str:
        # metaclip/curation/parse_wat.py: gen_uuid(normalize_url(url, target_uri))
        url = urljoin("http://a.example/p/", written).replace("\t", "").replace(" ", "")
        return hashlib.sha224(url.encode()).hexdigest()[:24]

    parsed = ["/i.php?id=867&res=10x16", "a.jpg?x=1&copy=2&copy=3", "b.jpg", "c d.jpg"]
    assert keys == [official(link["url"]) for link in LINKS] + [official(url) for url in parsed]
