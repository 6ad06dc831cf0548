"""WAT pages taken many at a time give the rows and counts of pages taken one by one."""

from __future__ import annotations

import json
from collections import Counter
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metacurate.pool import urls, wat_kernel, wat_tables
from metacurate.pool.extract import ExtractConfig, read_rows, wat_pages
from metacurate.pool.filters import TextRules
from metacurate.pool.page_rows import Counts, row_table
from metacurate.pool.warc import Record
from metacurate.pool.wat_tables import WatPage
from web_pages import members, record

PAGE_URLS = (
    "http://a.example/p/q",
    "https://b.example.org/x/y/?a/b",
    "HTTP://Ü.example/é/",
    "http://a.example",
    "https://xn--mgb.example/%2e/z",
    "http://a.example/" + "long/" * 900,
    "dns:a.example",
    "",
)
ADDRESS_PARTS = st.sampled_from(
    [
        "http://",
        "https://",
        "c.example/",
        "/",
        "//",
        "a.png",
        ".",
        "..",
        "%2e",
        "%20",
        "%",
        "?x=1",
        "#f",
        ":80",
        "xn--",
        "é",
        " ",
        "\t",
        "\\",
        '"',
        "data:",
        "C.EXAMPLE/",
        "_",
        "-",
        "0",
        "1.2/",
        "x" * 4000,
    ]
)
TEXT_PARTS = st.sampled_from(
    [
        "a",
        "red",
        "car",
        " ",
        "  ",
        "\t",
        "\n",
        "\x00",
        "\x7f",
        "\x85",
        "\xa0",
        "é",
        "ł",
        "\u1680",
        "\u1681",
        "\u2000",
        "\u200a",
        "\u200b",
        "\u2019",
        "\u2028",
        "\u2029",
        "\u202f",
        "\u205f",
        "\u3000",
        "赤",
        "🚗",
        "\ud83d",
        "\\",
        '"',
        "/",
        "x.jpg",
        "www.x.example",
        "12",
    ]
)
ADDRESSES = st.lists(ADDRESS_PARTS, max_size=4).map("".join)
TEXTS = st.lists(TEXT_PARTS, max_size=4).map("".join)
USUAL_LINKS = st.fixed_dictionaries(
    {"path": st.just("IMG@/src"), "url": ADDRESSES}, optional={"alt": TEXTS, "title": TEXTS}
)
OTHER_LINKS = st.sampled_from(
    [
        {"path": "A@/href", "url": "x", "text": '{"path":"IMG@/src","url":"no"}'},
        {"path": "IMG@/src", "url": ["x"], "alt": {"a": 1}},
        {"alt": "b", "url": "y.png", "path": "IMG@/src"},
        {"path": "IMG@/src", "url": "z.png", "extra": 1, "alt": "c"},
    ]
)
RULES = (
    TextRules(),
    TextRules(min_length=3, max_length=5),
    TextRules(min_letters=0.5, drop_file_names=True, drop_urls=True),
)


def page(url: str, links: list[dict[str, Any]], head: dict[str, str], escaped: bool) -> bytes:
    """The JSON of a page, as WAT writes it."""
    html = {"HTML-Metadata": {"Head": head, "Links": links}}
    value = {
        "Container": {"Filename": "x.warc.gz", "Compressed": True, "Offset": str(len(links))},
        "Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": html}},
    }
    text = json.dumps(value, ensure_ascii=escaped, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


@st.composite
def wat_page(draw: st.DrawFn) -> WatPage:
    """A page, sometimes with bytes that are not JSON or not UTF-8."""
    url = draw(st.sampled_from(PAGE_URLS))
    links = draw(st.lists(st.one_of(USUAL_LINKS, USUAL_LINKS, OTHER_LINKS), max_size=5))
    if links and draw(st.booleans()):
        links.append(links[0])
    head = draw(st.sampled_from([{}, {}, {"Title": "Base"}, {"Base": "http://b.example/c/"}]))
    block = page(url, links, head, draw(st.booleans()))
    damage = draw(
        st.sampled_from(
            [(b"", b"")] * 6
            + [(b"red", b"\xff"), (b"car", b"\\q")]
            + [(b"}", b""), (b'"Offset":', b'"Off":'), (b"IMG", b"IMG@")]
        )
    )
    block = block.replace(*damage) if damage[0] else block
    header = b"WARC/1.0\r\n\r\n"
    data = header + block + b"\r\n\r\n"
    return WatPage(Record(0, b"metadata", data, 0, len(header), len(header) + len(block)), url, "s")


def one_by_one(pages: list[WatPage], rules: TextRules) -> tuple[pa.Table, Counts]:
    counts = Counts()
    rows = [row for p in pages for row in wat_tables._rows(p, rules, counts)]
    return row_table(rows), counts


def together(pages: list[WatPage], rules: TextRules) -> tuple[pa.Table, Counts]:
    counts = Counts()
    tables = list(wat_tables.wat_tables(pages, rules, counts))
    return pa.concat_tables([row_table([]), *tables]).combine_chunks(), counts


@given(st.lists(wat_page(), max_size=6), st.sampled_from(RULES))
@settings(max_examples=1500, deadline=None)
def test_pages_together_equal_pages_one_by_one(pages: list[WatPage], rules: TextRules) -> None:
    expected, expected_counts = one_by_one(pages, rules)
    found, counts = together(pages, rules)
    assert found.to_pylist() == expected.to_pylist()
    assert counts.statistics() == expected_counts.statistics()
    found.validate(full=True)


def test_every_character_is_cleaned_as_it_should() -> None:
    """All up to U+30FF, which have all white space and controls; within a text, first and last."""
    characters = [chr(c) for c in range(0x3100)]
    links = [
        {"path": "IMG@/src", "url": f"{ord(c)}.png", "alt": f"a{c}b", "title": t}
        for c in characters
        for t in (f"{c}a", f"a{c}")
    ]
    blocks = [page(PAGE_URLS[0], links[n : n + 500], {}, False) for n in range(0, len(links), 500)]
    pages = [WatPage(Record(0, b"metadata", b, 0, 0, len(b)), PAGE_URLS[0], None) for b in blocks]
    expected, expected_counts = one_by_one(pages, TextRules())
    found, counts = together(pages, TextRules())
    assert found.equals(expected)
    assert counts.statistics() == expected_counts.statistics()


def test_plain_values_need_no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiled code is for: it takes plain values over, in any language."""
    links = [
        {"path": "IMG@/src", "url": "a.png", "alt": "a red car", "title": "赤い車"},
        {"path": "IMG@/src", "url": "/b.png", "alt": "une voiture rouge, l\u2019été"},
        {"path": "IMG@/src", "url": "https://c.example/d/e.png?x=1", "alt": "🚗"},
        {"path": "IMG@/src", "url": "no-text.png", "alt": ""},
    ]
    block = page(PAGE_URLS[0], links, {}, False)
    pages = [WatPage(Record(0, b"metadata", block, 0, 0, len(block)), PAGE_URLS[0], None)]
    expected, _ = one_by_one(pages, TextRules())
    for name in ("clean", "drop_reason", "_rows", "Base"):
        monkeypatch.delattr(wat_tables, name)
    found, counts = together(pages, TextRules())
    assert found.equals(expected)
    assert found.num_rows == 3
    assert counts.dropped_images == {"no text": 1}


def test_a_long_page_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    links = [{"path": "IMG@/src", "url": f"{n}.png", "alt": "é" * 20} for n in range(40)]
    blocks = [page(PAGE_URLS[0], links[:n], {}, False) for n in (1, 40, 2, 3, 40)]
    pages = [
        WatPage(Record(0, b"metadata", b, 0, 0, len(b)), PAGE_URLS[0], str(n))
        for n, b in enumerate(blocks)
    ]
    expected, _ = one_by_one(pages, TextRules())
    monkeypatch.setattr(wat_tables, "BATCH_BYTES", len(blocks[3]) + 1)
    sizes = [t.num_rows for t in wat_tables.wat_tables(pages, TextRules(), Counts())]
    assert sizes == [1, 40, 2, 3, 40]
    assert together(pages, TextRules())[0].equals(expected)


@given(st.lists(st.one_of(ADDRESS_PARTS, st.sampled_from([*"a.-/:@_9Z"])), max_size=8))
@example(["http://", "a..b/"])
@example(["https://", "a.b", "/", "c//d", "?e"])
@settings(max_examples=1500, deadline=None)
def test_plain_addresses_are_those_of_the_pattern(parts: list[str]) -> None:
    address = "".join(parts)
    plain = np.empty(1, bool)
    array = pa.array([address])
    wat_kernel.are_plain_absolute(*wat_tables._bytes_and_offsets(array), plain)
    assert plain[0] == urls._is_plain_absolute(address)


def test_joined_addresses_are_bounded() -> None:
    base = urls.Base("http://a.example/" + "x" * 100 + "/")
    assert base.resolve("y" * 4000) == (None, "oversized URL")


def test_a_broken_snapshot_name_is_passed_over() -> None:
    broken = b'{"WARC-Info-Metadata":{"isPartOf":"\\q"}}'
    good = page(PAGE_URLS[0], [{"path": "IMG@/src", "url": "a.png", "alt": "a"}], {}, False)
    data = members(record("metadata", broken), record("metadata", good))
    rows = list(read_rows(BytesIO(data), "x.wat.gz", "wat", ExtractConfig(), Counts()))
    assert [row.snapshot for row in rows] == [None]


def test_html_is_looked_for_in_the_block_alone() -> None:
    data = members(record("metadata", b"{}", 'http://a.example/"HTML-Metadata""IMG@/src"'))
    counts = Counts()
    assert not list(wat_pages(BytesIO(data), "x.wat.gz", ExtractConfig(), counts))
    assert counts.dropped_records == Counter({"no HTML metadata": 1})
