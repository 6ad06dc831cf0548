"""pool extract: WARC, WAT and an independent parser agree; the rules; losses; resume."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from metacurate.cli import app
from metacurate.commoncrawl.extract import (
    SCHEMA,
    Counts,
    ExtractConfig,
    extract_pool,
    find_sources,
    read_tables,
    source_format,
    tables,
)
from metacurate.errors import UserError
from metacurate.pool.uid import url_uid
from metacurate.runtime.engines.local import LocalEngine
from metacurate.texts.rules import TextRules
from web_pages import (
    documentation_pages,
    members,
    read_rows,
    record,
    response,
    stall_or_crash,
    write_crawl,
)

Pair = tuple[str, str, str, str]


def rows_of(
    data: bytes, source: str = "docs.warc.gz", config: ExtractConfig | None = None
) -> tuple[list[dict[str, Any]], Counts]:
    """The rows of one file's bytes."""
    counts = Counts()
    form = "wat" if ".wat" in source else "warc"
    rows = read_rows(BytesIO(data), source, form, config or ExtractConfig(), counts)
    return [row._asdict() for row in rows], counts


def page_rows(html: str | bytes, url: str = "http://a.example/p/", **http: str) -> list[Any]:
    """(url, texts) of the rows of one page in a WARC."""
    rows, _ = rows_of(members(record("response", response(html, **http), url)))
    return [(row["url"], row["texts"]) for row in rows]


def wat_record(
    links: list[dict[str, Any]], head: dict[str, Any] | None = None, *, ascii_only: bool = False
) -> bytes:
    value = {
        "Container": {"Filename": "x.warc.gz", "Compressed": True, "Offset": "77"},
        "Envelope": {
            "Payload-Metadata": {
                "HTTP-Response-Metadata": {"HTML-Metadata": {"Head": head or {}, "Links": links}}
            }
        },
    }
    block = json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))
    return record("metadata", block.encode())


def wat_rows(*records: bytes) -> tuple[list[Any], Counts]:
    rows, counts = rows_of(members(*records), "x.warc.wat.gz")
    return [(row["url"], row["texts"]) for row in rows], counts


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """WARC and WAT of 120 real pages."""
    folder = tmp_path_factory.mktemp("crawl")
    write_crawl(folder, documentation_pages(60))
    return folder


def test_warc_and_wat_agree_on_real_pages(crawl: Path, tmp_path: Path) -> None:
    for name in ("docs.warc.gz", "docs.warc.wat.gz"):
        extract_pool(
            [str(crawl / name)], str(tmp_path / name), ExtractConfig(), engine=LocalEngine(1)
        )
    warc, wat = (
        pq.read_table(tmp_path / name / "pool") for name in ("docs.warc.gz", "docs.warc.wat.gz")
    )
    assert warc.schema.equals(SCHEMA)
    assert warc.num_rows > 300
    assert warc.equals(wat)  # snapshot, WARC file and record offset included
    assert set(warc["snapshot"].to_pylist()) == {"CC-MAIN-2023-14"}
    assert warc["uid"].to_pylist() == [url_uid(url) for url in warc["url"].to_pylist()]


@pytest.mark.filterwarnings("ignore:It looks like")
def test_an_independent_parser_agrees_on_real_pages(crawl: Path) -> None:
    bs4 = pytest.importorskip("bs4")
    pytest.importorskip("html5lib")
    expected: set[Pair] = set()
    for url, html in documentation_pages(60):
        for image in bs4.BeautifulSoup(html.decode(), "html5lib").find_all("img"):
            for source in ("alt", "title"):
                text = " ".join(image.get(source, "").split())
                if text and image.get("src"):
                    assert re.fullmatch(r"[\w-][\w./-]*", image["src"])  # needs but joining
                    expected.add((url, f"{url.rpartition('/')[0]}/{image['src']}", source, text))
    rows, _ = rows_of((crawl / "docs.warc.gz").read_bytes())
    found = {(r["page_url"], r["url"], s, t) for r in rows for s, t in r["texts"]}
    assert len(found) > 300
    assert found == expected


def test_what_a_page_says_of_an_image() -> None:
    html = """
    <img src=1.png alt="a  red\n\tcar" title="&eacute;t&eacute;">
    <img src=2.png alt="">
    <img src=3.png>
    <figure><a href=x><img src=4.png alt=four></a><figcaption>The <b>fourth</b>
    one</figcaption></figure>
    <figure><img src=5.png><img src=6.png alt=six><figcaption>two of them</figcaption></figure>
    <noscript><img src=7.png alt=seven></noscript>
    <!-- <img src=8.png alt=eight> -->
    """
    assert page_rows(html) == [
        ("http://a.example/p/1.png", [("alt", "a red car"), ("title", "été")]),
        ("http://a.example/p/4.png", [("alt", "four"), ("figcaption", "The fourth one")]),
        ("http://a.example/p/6.png", [("alt", "six")]),
        ("http://a.example/p/7.png", [("alt", "seven")]),
    ]


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<img src=s.png alt=t>", "s.png"),
        ("<img src=data:image/gif;base64,AAAA data-src=lazy.png alt=t>", "lazy.png"),
        ("<img src=blank.gif data-original=lazy.png alt=t>", "lazy.png"),
        ("<img data-lazy-src='' src=s.png alt=t>", "s.png"),
        ("<img data-src='data:x' src=s.png srcset='big.png 900w' alt=t>", "s.png"),
        ("<img srcset='a.png 1x, b.png 2x, c.png 3x' alt=t>", "b.png"),
        ("<img srcset='a.png 320w, b.png 1024w, c.png 1025w' alt=t>", "b.png"),
        ("<img srcset='a.png 3000w,b.png 2000w' alt=t>", "b.png"),
        ("<img data-srcset='only.png' src='data:,' alt=t>", "only.png"),
        (
            "<picture><source srcset=webp.webp><source srcset=b.png><img alt=t></picture>",
            "webp.webp",
        ),
    ],
)
def test_which_address_is_taken(tag: str, expected: str) -> None:
    assert page_rows(tag) == [(f"http://a.example/p/{expected}", [("alt", "t")])]


@pytest.mark.parametrize(
    ("base", "src", "expected"),
    [
        ("", "x.png", "http://a.example/p/x.png"),
        ("<base href='http://b.example/q/'>", "x.png", "http://b.example/q/x.png"),
        ("<base href='../r/'><base href='/second/'>", "x.png", "http://a.example/r/x.png"),
        ("<base href='javascript:1'>", "x.png", "http://a.example/p/x.png"),
        ("", "//C.example:80/%7e/ü b.png?q=1#part", "http://c.example/%7e/%C3%BC%20b.png?q=1"),
        ("", "/a/../b/./c.png", "http://a.example/b/c.png"),
        ("", " \n x.png ", "http://a.example/p/x.png"),
    ],
)
def test_addresses_are_absolute_and_normal(base: str, src: str, expected: str) -> None:
    assert page_rows(f'{base}<img src="{src}" alt=t>') == [(expected, [("alt", "t")])]


@pytest.mark.parametrize(
    ("encoding", "http", "meta"),
    [
        ("utf-8", "text/html", ""),
        ("utf-8", "text/html; charset=utf-8", ""),
        ("iso-8859-1", "text/html; charset=ISO-8859-1", ""),
        ("iso-8859-1", "text/html", "<meta charset=latin1>"),
        (
            "koi8-r",
            "text/html",
            "<meta http-equiv=content-type content='text/html;charset=koi8-r'>",
        ),
        ("utf-16", "text/html", ""),
        ("shift_jis", "text/html; charset=no-such-thing", "<meta charset=shift_jis>"),
        ("windows-1251", "text/html", ""),  # detected
    ],
)
def test_encodings(encoding: str, http: str, meta: str) -> None:
    text = {
        "koi8-r": "красная машина",
        "shift_jis": "赤い車",
        "windows-1251": "красная машина стоит на улице большого города",
    }.get(encoding, "voilà l'été déjà passé")
    html = f'<html><head>{meta}</head><body>{text * 3}<img src=x.png alt="{text}"></body>'
    found = page_rows(html.encode(encoding), content_type=http)
    assert found == [("http://a.example/p/x.png", [("alt", text)])]


def test_what_is_not_html_and_encoded_bodies() -> None:
    html = b"<html><img src=x.png alt=text></html>"
    packed = gzip.compress(html)
    data = members(
        record("response", response(html, "application/pdf")),
        record("response", response(html, "application/xhtml+xml; charset=utf-8")),
        record("response", response(packed, Content_Encoding="gzip")),
        record("response", response(html, Content_Encoding="gzip")),  # already decoded
        record("response", b"HTTP/1.1 200 OK\r\n\r\n" + html),  # no type: by the content
        record("response", b"not http at all"),
        record("response", response("<p>no picture</p>")),
    )
    rows, counts = rows_of(data)
    assert [row["url"] for row in rows] == ["http://a.example/p/x.png"] * 4
    assert counts.dropped_pages == {
        "not HTML": 1,
        "broken HTTP response": 1,
        "page without image": 1,
    }


def test_every_dropped_image_and_text_is_counted() -> None:
    html = """<img src=a.png><img src=b.png alt=" "><img src=data:x alt=t><img alt=t>
    <img src=ftp://x/y alt=t><img src="http://[" alt=t><img src=c.png alt=ok title=toolongtext>
    <img src=c.png alt=ok><img src=d.png alt="IMG_1.jpg"><img src=e.png alt="www.e.example/x">
    <img src=f.png alt="-- 12 --">"""
    config = ExtractConfig(
        rules=TextRules(max_length=10, min_letters=0.5, drop_file_names=True, drop_urls=True)
    )
    rows, counts = rows_of(members(record("response", response(html))), config=config)
    assert [(r["url"], r["texts"]) for r in rows] == [("http://a.example/p/c.png", [("alt", "ok")])]
    assert counts.images == 11
    assert counts.dropped_images == {
        "no text": 5,
        "data: URL": 1,
        "no image URL": 1,
        "not http(s)": 1,
        "bad URL": 1,
        "repeated on the page": 1,
    }
    assert counts.dropped_texts == {
        "empty text": 1,
        "text too long": 2,
        "text is a file name": 1,
        "text with few letters": 1,
    }


def test_wat_links_in_every_shape() -> None:
    usual = {"path": "IMG@/src", "url": "1.png", "alt": "one", "title": "eins"}
    found, counts = wat_rows(
        wat_record(
            [
                {"path": "A@/href", "url": "x", "text": '{"path":"IMG@/src","url":"no"}'},
                usual,
                {"path": "IMG@/src", "url": "2.png"},
                {"path": "IMG@/longdesc", "url": "no.png", "alt": "no"},
                {"path": "IMG@/src", "url": 'q"\\}{.png', "alt": 'say "hi" \\ {}'},
            ]
        ),
        wat_record([{"title": "t", "alt": "a", "url": "3.png", "path": "IMG@/src"}]),
        wat_record([{"path": "IMG@/src", "url": "4.png", "alt": "cut \ud83d"}], ascii_only=True),
        wat_record([usual], {"Base": "http://b.example/"}),
        wat_record([{"path": "IMG@/src", "url": ["5.png"], "alt": {"x": 1}}]),
        wat_record([{"path": "IMG@/src", "url": "6.png", "extra": [1], "alt": "six"}]),
    )
    assert found == [
        ("http://a.example/p/1.png", [("alt", "one"), ("title", "eins")]),
        ("http://a.example/p/q%22/%7D%7B.png", [("alt", 'say "hi" \\ {}')]),
        ("http://a.example/p/3.png", [("alt", "a"), ("title", "t")]),
        ("http://a.example/p/4.png", [("alt", "cut \ufffd")]),
        ("http://b.example/1.png", [("alt", "one"), ("title", "eins")]),
        ("http://a.example/p/6.png", [("alt", "six")]),
    ]
    assert counts.dropped_images == {"no text": 2}


def test_wat_fast_path_equals_a_full_parse(crawl: Path) -> None:
    from metacurate.commoncrawl import wat
    from metacurate.commoncrawl.warc import read_records

    pages = 0
    with (crawl / "docs.warc.wat.gz").open("rb") as file:
        for found in read_records(file, frozenset({b"metadata"}), 1 << 25, Counter()):
            if wat.read_page(found.block).images:
                pages += 1
                assert wat.read_page(found.block) == wat._parse_whole(found.block)
    assert pages == 120


def test_broken_wat_records_are_counted() -> None:
    good = wat_record([{"path": "IMG@/src", "url": "1.png", "alt": "one"}])
    cut = b'{"HTML-Metadata":{"Links":[{"path":"IMG@/src","alt":"x'
    deep = b'{"HTML-Metadata":' + b'{"path":"IMG@/src","x":' * 200_000
    found, counts = wat_rows(record("metadata", cut), record("metadata", deep), good)
    assert found == [("http://a.example/p/1.png", [("alt", "one")])]
    assert counts.dropped_pages == {"invalid JSON": 2}
    _, counts = wat_rows(record("metadata", b"{}"), record("metadata", b"[]"))
    assert counts.dropped_records == {"no HTML metadata": 2}


def test_a_page_without_http_address_is_dropped() -> None:
    html = response("<img src=x.png alt=t>")
    rows, counts = rows_of(members(record("response", html, "dns:a.example")))
    assert not rows
    assert counts.dropped_pages == {"bad page URL": 1}


def test_a_page_that_stalls_or_kills_the_parser_costs_itself_alone() -> None:
    from metacurate.runtime.isolate import Isolated, Lost

    with Isolated(stall_or_crash, cpu_seconds=1.5) as isolated:
        items = ["a", "stall", "b", "crash", "c", "memory", "d"]
        assert isolated.map(items) == [
            *("a", Lost.TOOK_TOO_LONG, "b", Lost.CRASHED, "c", Lost.CRASHED, "d")
        ]


def test_a_really_hostile_page_is_lost_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    from metacurate.runtime import isolate

    # Checking a tag's attributes for repeats takes the parser quadratic time.
    hostile = "<img " + " ".join(f"a{i}=1" for i in range(60_000)) + " src=x.png alt=x>"
    monkeypatch.setitem(isolate.Isolated.__init__.__kwdefaults__, "cpu_seconds", 1.0)
    data = members(
        record("response", response("<img src=1.png alt=one>")),
        record("response", response(hostile)),
        record("response", response("<div>" * 300_000 + "<img src=2.png alt=two>")),
    )
    rows, counts = rows_of(data)
    assert [row["url"] for row in rows] == [f"http://a.example/p/{n}.png" for n in (1, 2)]
    assert counts.dropped_pages == {"page that crashed or stalled the parser": 1}


def test_languages_are_kept_and_chosen(tmp_path: Path) -> None:
    html = """<img src=1.png alt="a red car stands on the street"
    title="ein rotes Auto auf der Straße">
    <img src=2.png alt="une voiture rouge dans la rue"><img src=3.png alt="ab">"""
    source = tmp_path / "x.warc.gz"
    source.write_bytes(members(record("response", response(html))))
    extract_pool([str(source)], str(tmp_path / "all"), ExtractConfig(), engine=LocalEngine(1))
    table = pq.read_table(tmp_path / "all" / "pool").to_pylist()
    assert [[t["lang"] for t in row["texts"]] for row in table] == [["en", "de"], ["fr"], ["und"]]
    totals = extract_pool(
        [str(source)], str(tmp_path / "en"), ExtractConfig(languages=("en",)), engine=LocalEngine(1)
    )
    table = pq.read_table(tmp_path / "en" / "pool").to_pylist()
    assert [[t["text"] for t in row["texts"]] for row in table] == [
        ["a red car stands on the street"]
    ]
    assert totals["dropped_texts"] == {"text in another language": 3}
    assert totals["dropped_images"] == {"text in another language": 2}
    assert (totals["pairs"], totals["texts"]) == (1, 1)


def test_snapshot_by_option_content_and_name(tmp_path: Path) -> None:
    page = record("response", response("<img src=1.png alt=one>"))
    name = "CC-MAIN-20230320-00001.warc.gz"
    information = record("warcinfo", b"isPartOf: CC-MAIN-2023-14\r\n")
    told = members(information, page)
    assert rows_of(told)[0][0]["snapshot"] == "CC-MAIN-2023-14"
    given = ExtractConfig(snapshot="mine")
    assert rows_of(told, config=given)[0][0]["snapshot"] == "mine"
    source = f"s3://commoncrawl/crawl-data/CC-MAIN-2017-04/segments/1/warc/{name}"
    row = rows_of(members(page), source)[0][0]
    assert (row["snapshot"], row["warc_file"]) == ("CC-MAIN-2017-04", name)


def test_workers_and_restarts_change_no_byte(crawl: Path, tmp_path: Path) -> None:
    def content(out: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted(out.rglob("*.*")) if p.is_file()}

    one, two = tmp_path / "one", tmp_path / "two"
    extract_pool([str(crawl)], str(one), ExtractConfig(), engine=LocalEngine(1))
    extract_pool([str(crawl)], str(two), ExtractConfig(), engine=LocalEngine(2))
    assert content(one) == content(two)
    # As after a kill: the second file is not done.
    manifest = json.loads((two / "manifest.json").read_text())
    manifest["stages"]["extract"] = {
        "config": manifest["stages"]["extract"]["config"],
        "state": "running",
        "planned": 2,
    }
    (two / "manifest.json").write_text(json.dumps(manifest))
    (two / "state/extract/part-000001.json").unlink()
    (two / "pool/part-000001.parquet").unlink()
    extract_pool([str(crawl)], str(two), ExtractConfig(), engine=LocalEngine(2))
    assert content(one) == content(two)


def test_a_killed_run_resumes(crawl: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "metacurate", "pool", "extract", str(crawl), "--out"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen([*command, str(killed)], stderr=subprocess.DEVNULL)
    while process.poll() is None and not (killed / "state").exists():
        pass
    process.kill()
    process.wait()
    subprocess.run([*command, str(killed)], check=True, capture_output=True)
    subprocess.run([*command, str(whole)], check=True, capture_output=True)
    for name in ("manifest.json", "pool/part-000000.parquet", "pool/part-000001.parquet"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_command_line(crawl: Path, tmp_path: Path) -> None:
    out = tmp_path / "pool"
    command = ["pool", "extract", str(crawl / "*.wat.gz"), "--lang", "en", "--out", str(out)]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    totals = json.loads(result.stdout)
    table = pq.read_table(out / "pool")
    assert totals["pairs"] == table.num_rows > 50
    assert {t["lang"] for row in table["texts"].to_pylist() for t in row} == {"en"}
    again = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(again.stdout) == totals
    other = CliRunner().invoke(app, [*command, "--min-length", "5"])
    assert isinstance(other.exception, UserError)
    assert "min_length" in str(other.exception)


def test_sources(tmp_path: Path) -> None:
    for name in ("b.warc.gz", "sub/a.wat.gz", "c.WARC", "d.txt", "e.warc.wat.gz"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    found = find_sources([str(tmp_path)])
    assert [(Path(f.address).name, source_format(f.address)) for f in found] == [
        ("b.warc.gz", "warc"),
        ("c.WARC", "warc"),
        ("e.warc.wat.gz", "wat"),
        ("a.wat.gz", "wat"),
    ]
    listed = tmp_path / "list"
    listed.write_text(f"{tmp_path}/b.warc.gz\n\n{tmp_path}/sub/a.wat.gz\n{tmp_path}/b.warc.gz\n")
    assert len(find_sources([f"@{listed}"])) == 2
    for bad in ("nothing.warc.gz", "d.txt", "*.csv"):
        with pytest.raises(UserError, match=r"nothing|d\.txt|csv"):
            find_sources([str(tmp_path / bad)])
    with pytest.raises(UserError, match="list"):
        find_sources(["@" + str(tmp_path / "no-list")])


def test_files_that_are_no_archives_are_named(tmp_path: Path) -> None:
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    xml = b'<?xml version="1.0"?>\n<Error><Code>SlowDown</Code></Error>'
    arc = b"filedesc://x.arc 0.0.0.0 2008 text/plain 76\n1 1 Archive\n"
    contents = {
        "a.warc.gz": (b"", "empty file"),
        "b.warc.gz": (gzip.compress(b""), "empty file"),
        "c.warc.wat.gz": (xml, "XML error answer, SlowDown"),
        "d.warc.gz": (gzip.compress(xml), "XML error answer, SlowDown"),
        "e.warc.gz": (b"<!DOCTYPE html><p>403", "HTML page"),
        "f.warc.gz": (gzip.compress(arc), "ARC file, convert it to WARC"),
        "g.wat": (b"version https://git-lfs", "no sound record of a page in it"),
        "h.warc.gz": (b"\x1f\x8b\x08" + b"x" * 99, "no sound record of a page in it"),
    }
    for name, (content, _) in contents.items():
        (crawl / name).write_bytes(content)
    command = ["pool", "extract", str(crawl), "--out", str(tmp_path / "out"), "--json"]
    only_bad = CliRunner().invoke(app, command)
    assert isinstance(only_bad.exception, UserError)
    assert "a.warc.gz (empty file), and 7 more" in str(only_bad.exception)
    (crawl / "z.warc.gz").write_bytes(
        members(record("response", response("<img src=1.png alt=one>")))
    )
    result = CliRunner().invoke(app, [*command, "--overwrite"])
    assert result.exit_code == 0, result.output
    bad = json.loads(result.stdout)["bad_files"]
    assert bad == {f"{crawl}/{name} ({what})": 1 for name, (_, what) in contents.items()}
    for name in bad:
        assert f"skipped: {name}" in result.stderr


def test_short_texts_go_by_their_page(tmp_path: Path) -> None:
    german = ["ein kleiner Hund läuft über die Straße", "Rotes Haus", "Foto"]
    english = ["a small dog runs across the street in the rain", "Red barn", "Barn"]

    def page(texts: list[str], attributes: str = "") -> bytes:
        images = "".join(f"<img src={n}.png alt='{text}'>" for n, text in enumerate(texts))
        return response(f"<html {attributes}><meta charset=utf-8>{images}")

    source = tmp_path / "x.warc.gz"
    pages = [page(german), page(english), page(["Red barn"], "lang=en-GB"), page(["Rotes Haus"])]
    source.write_bytes(
        members(*(record("response", p, f"http://{n}.example/") for n, p in enumerate(pages)))
    )
    config = ExtractConfig(languages=("en",), page_language="py3langid")
    extract_pool([str(source)], str(tmp_path / "out"), config, engine=LocalEngine(1))
    table = pq.read_table(tmp_path / "out/pool")
    assert table.schema.equals(SCHEMA)
    assert [t["text"] for row in table["texts"].to_pylist() for t in row] == [*english, "Red barn"]
    config = ExtractConfig(identifier="none", page_language="eldc")
    with pytest.raises(UserError, match="page_language"):
        extract_pool([str(source)], str(tmp_path / "no"), config, engine=LocalEngine(1))


def test_without_html_lang_pages_tell_their_language(crawl: Path, tmp_path: Path) -> None:
    config = ExtractConfig(page_language="eldc")
    totals = extract_pool(
        [str(crawl / "docs.warc.wat.gz")], str(tmp_path / "out"), config, engine=LocalEngine(1)
    )
    alone = extract_pool(
        [str(crawl / "docs.warc.wat.gz")],
        str(tmp_path / "alone"),
        ExtractConfig(),
        engine=LocalEngine(1),
    )
    # Documentation in English: more of its short texts are found to be.
    assert totals["languages"]["en"] > alone["languages"]["en"]
    assert totals["texts"] == alone["texts"]


def test_what_a_page_says_once_is_bounded_in_its_rows() -> None:
    head = f'<html lang="{"q" * 100}"><base href="/{"x" * 5000}/">'
    page = f"{head}<img src=/a.jpg alt=a><img src=b alt=b>"
    start = record("warcinfo", b"isPartOf: " + b"s" * 2000)
    long = record("response", response("<img src=a alt=a>"), "http://a.example/" + "q" * 5000)
    rows, counts = rows_of(members(start, long, record("response", response(page))))
    assert [(r["url"], r["snapshot"], r["page_language"]) for r in rows] == [
        ("http://a.example/a.jpg", None, None)
    ]
    assert counts.dropped_pages == {"oversized page URL": 1}
    assert counts.dropped_images == {"oversized URL": 1}


def test_long_texts_make_small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    page = "".join(f"<img src={n}.jpg alt={'a' * n}>" for n in range(1, 60))
    data = members(record("response", response(page)), record("response", response(page)))
    expected, _ = rows_of(data)
    monkeypatch.setattr("metacurate.commoncrawl.page_rows.CHARS_PER_GROUP", 700)
    monkeypatch.setattr("metacurate.commoncrawl.extract.BYTES_PER_GROUP", 4000)
    counts = Counts()
    found = read_tables(BytesIO(data), "docs.warc.gz", "warc", ExtractConfig(), counts)
    groups = list(tables(found, ExtractConfig(identifier="none"), counts))
    assert [row["url"] for group in groups for row in group.to_pylist()] == [
        row["url"] for row in expected
    ]
    assert counts.pairs == len(expected) == 118
    assert len(groups) > 3
    assert max(group.nbytes for group in groups) < 12_000
