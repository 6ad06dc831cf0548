"""WAT pages taken many at a time give the rows and counts of pages taken one by one.

And each compiled way gives what the plain Python for the same gives.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from io import BytesIO
from typing import Any

import ada_url
import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metacurate.commoncrawl import wat, wat_tables
from metacurate.commoncrawl.extract import ExtractConfig
from metacurate.commoncrawl.page_rows import USUAL, Counts, Reading, row_table
from metacurate.commoncrawl.warc import RecordBatch, read_batches
from metacurate.commoncrawl.wat_tables import WatPage
from metacurate.kernels import bytes as byte_kernel
from metacurate.kernels import text as text_kernel
from metacurate.kernels import url as url_kernel
from metacurate.pages import urls
from metacurate.texts.rules import TextRules, clean, is_invisible
from web_pages import members, read_rows, record

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
        "&amp;",
        "&#38;",
        "&copy=1",
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
        "&amp;",
        "&#39;",
        "&#x26",
        "&copy=",
        "&",
        "\u2060",
        "\ue000",
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


def page(url: str, links: list[dict[str, Any]], head: dict[str, Any], escaped: bool) -> bytes:
    """The JSON of a page, as WAT writes it."""
    html = {"HTML-Metadata": {"Head": head, "Links": links}}
    value = {
        "Container": {"Filename": "x.warc.gz", "Compressed": True, "Offset": str(len(links))},
        "Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": html}},
    }
    text = json.dumps(value, ensure_ascii=escaped, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


SPANISH = {"name": "HTML@/lang", "content": "es-MX"}
HEADS: list[dict[str, Any]] = [
    {}, {"Title": "Base"}, {"Base": "http://b.example/c/"}, {"Metas": [SPANISH]},
    {"Metas": [{"name": "HTML@/xml:lang", "content": "de"}], "Base": "/"},
]  # fmt: skip


@st.composite
def wat_page(draw: st.DrawFn) -> WatPage:
    """A page, sometimes with bytes that are not JSON or not UTF-8."""
    url = draw(st.sampled_from(PAGE_URLS))
    links = draw(st.lists(st.one_of(USUAL_LINKS, USUAL_LINKS, OTHER_LINKS), max_size=5))
    if links and draw(st.booleans()):
        links.append(links[0])
    head = draw(st.sampled_from(HEADS))
    block = page(url, links, head, draw(st.booleans()))
    damage = draw(
        st.sampled_from(
            [(b"", b"")] * 6
            + [(b"red", b"\xff"), (b"car", b"\\q")]
            + [(b"}", b""), (b'"Offset":', b'"Off":'), (b"IMG", b"IMG@")]
        )
    )
    return WatPage(block.replace(*damage) if damage[0] else block, url, "s")


READINGS = st.builds(Reading, st.booleans(), st.booleans(), st.booleans())


def one_by_one(pages: list[WatPage], rules: TextRules) -> tuple[pa.Table, Counts]:
    counts = Counts()
    rows = [row for p in pages for row in wat_tables._rows(p, rules, counts)]
    return row_table(rows), counts


def tables_of(
    data: bytes, rules: TextRules, counts: Counts, reading: Reading = USUAL
) -> list[pa.Table]:
    batches = read_batches(BytesIO(data), b"metadata", 1 << 25, counts.dropped_records)
    return list(wat_tables.wat_tables(batches, "s", None, rules, counts, reading=reading))


def together(
    pages: list[WatPage], rules: TextRules, compressed: bool = True, reading: Reading = USUAL
) -> tuple[pa.Table, Counts]:
    records = [record("metadata", page.block, page.url) for page in pages]
    counts = Counts()
    tables = tables_of(
        members(*records) if compressed else b"".join(records), rules, counts, reading
    )
    assert counts.records == counts.pages == len(pages)
    counts.records = counts.pages = 0
    return pa.concat_tables([row_table([]), *tables]).combine_chunks(), counts


@given(st.lists(wat_page(), max_size=6), st.sampled_from(RULES), st.booleans(), READINGS)
@settings(max_examples=1500)
def test_pages_together_equal_pages_one_by_one(
    pages: list[WatPage], rules: TextRules, compressed: bool, reading: Reading
) -> None:
    pages = [one._replace(reading=reading) for one in pages]
    expected, expected_counts = one_by_one(pages, rules)
    found, counts = together(pages, rules, compressed, reading)
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
    pages = [WatPage(block, PAGE_URLS[0], "s") for block in blocks]
    expected, expected_counts = one_by_one(pages, TextRules())
    found, counts = together(pages, TextRules())
    assert found.equals(expected)
    assert counts.statistics() == expected_counts.statistics()


def test_usual_values_need_no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiled code is for: it takes usual values over, in any language."""
    links = [
        {"path": "IMG@/src", "url": "a.png", "alt": "a red car", "title": "赤い車"},
        {"path": "IMG@/src", "url": "/b.png", "alt": "une voiture rouge, l\u2019été"},
        {"path": "IMG@/src", "url": "https://c.example/d/e%20f.png?x=1:2", "alt": "🚗"},
        {"path": "IMG@/src", "url": "//c.example/a b.png", "alt": ' a  "red"\n\tcar\xa0'},
        {"path": "IMG@/src", "url": "../../ü/c.png#x'", "alt": "c \\ and /"},
        {"path": "IMG@/src", "url": "./d.png", "alt": "d"},
        {"path": "IMG@/src", "url": "data:image/gif;base64,R0lGODlhAQABAIAA", "alt": "dot"},
        {"path": "IMG@/src", "url": " #", "alt": "nothing"},
        {"path": "IMG@/src", "url": "no-text.png", "alt": ""},
    ]
    # The address that is not ASCII would be escaped on a page where all such characters are.
    escaped = [link for link in links if link["url"].isascii()]
    blocks = [page(PAGE_URLS[0], links, {}, False), page(PAGE_URLS[0], escaped, {}, True)]
    pages = [WatPage(block, PAGE_URLS[0], "s") for block in blocks]
    expected, _ = one_by_one(pages, TextRules())
    for name in ("clean", "drop_reason", "_rows", "Base"):
        monkeypatch.delattr(wat_tables, name)
    found, counts = together(pages, TextRules())
    assert found.equals(expected)
    assert found.num_rows == 11
    assert counts.dropped_images == {"no text": 2, "data: URL": 2, "no image URL": 2}


def test_a_long_page_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    links = [{"path": "IMG@/src", "url": f"{n}.png", "alt": "é" * 20} for n in range(40)]
    blocks = [page(PAGE_URLS[0], links[:n], {}, False) for n in (1, 40, 2, 3, 40)]
    pages = [WatPage(block, PAGE_URLS[0], "s") for block in blocks]
    expected, _ = one_by_one(pages, TextRules())
    monkeypatch.setattr(wat_tables, "BATCH_BYTES", len(blocks[3]) + 1)
    data = members(*(record("metadata", block, PAGE_URLS[0]) for block in blocks))
    assert [t.num_rows for t in tables_of(data, TextRules(), Counts())] == [1, 40, 5, 40]
    assert together(pages, TextRules())[0].equals(expected)


@pytest.mark.parametrize("length", [4079, 4080, 60_000, 5_000_000])
def test_pages_with_long_urls(length: int) -> None:
    block = page("", [{"path": "IMG@/src", "url": "/a.png", "alt": "a"}], {}, False)
    url = "http://a.example/" + "x" * length
    pages = [WatPage(block, PAGE_URLS[0], "s"), WatPage(block, url, "s")] * 2
    data = b"".join(one.block + one.url.encode() for one in pages) + bytes(byte_kernel.BLOCK)
    ends = np.cumsum([0, *(len(part) for one in pages for part in (one.block, one.url))])
    batch = RecordBatch(data, np.stack([ends[:-1], ends[1:]], axis=1).reshape(-1, 4))
    counts = Counts()
    found = pa.concat_tables(wat_tables.wat_tables([batch], "s", None, TextRules(), counts))
    assert found.to_pylist() == one_by_one(pages, TextRules())[0].to_pylist()
    is_long = len(url) > 4096
    assert found.num_rows == (2 if is_long else 4)
    assert counts.dropped_pages == ({"oversized page URL": 2} if is_long else {})


@pytest.mark.parametrize("usual", [True, False])
def test_what_stands_in_each_row_is_bounded(usual: bool) -> None:
    other = {"Base": "/"} if not usual else {}
    metas = [{"name": "HTML@/lang", "content": "de" * 40}]
    links = [{"path": "IMG@/src", "url": "/a.png", "alt": "a"}]
    block = orjson.dumps({
        "Container": {"Filename": "f" * 2000, "Compressed": True, "Offset": "5"},
        "Envelope": {"Payload-Metadata": {"HTTP-Response-Metadata": {"HTML-Metadata": {
            "Head": {"Metas": metas, **other}, "Links": links}}}},
    })  # fmt: skip
    start = orjson.dumps(
        {"Envelope": {"Payload-Metadata": {"WARC-Info-Metadata": {"isPartOf": "s" * 2000}}}}
    )
    data = members(record("metadata", start), record("metadata", block, PAGE_URLS[0]))
    reading = Reading(with_languages=True)
    batches = read_batches(BytesIO(data), b"metadata", 1 << 20, Counter())
    tables = wat_tables.wat_tables(batches, None, None, TextRules(), Counts(), reading=reading)
    (row,) = pa.concat_tables(tables).to_pylist()
    assert (row["url"], row["record_offset"]) == ("http://a.example/a.png", 5)
    assert [row[n] for n in ("snapshot", "warc_file", "page_language")] == [None, None, None]


@given(st.lists(wat_page(), max_size=6))
@settings(max_examples=200)
def test_how_many_pages_wait_changes_no_row(pages: list[WatPage]) -> None:
    expected, expected_counts = one_by_one(pages, TextRules())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wat_tables, "BATCH_PAGES", 1)
        patch.setattr(wat_tables, "BATCH_LINKS", 2)  # pages with more go alone
        patch.setattr(wat_tables, "BATCH_ROWS", 1)
        found, counts = together(pages, TextRules())
    assert found.to_pylist() == expected.to_pylist()
    assert counts.statistics() == expected_counts.statistics()


def test_the_snapshot_changes_where_the_file_says_so() -> None:
    def told(name: str) -> bytes:
        return record("metadata", b'{"WARC-Info-Metadata":{"isPartOf":"%s"}}' % name.encode())

    def good(name: str) -> bytes:
        links = [{"path": "IMG@/src", "url": f"{name}.png", "alt": name}]
        return record("metadata", page(PAGE_URLS[0], links, {}, False), PAGE_URLS[0])

    data = members(good("a"), told("one"), good("b"), good("c"), told("two"), good("d"))
    for config, expected in (
        (ExtractConfig(), ["CC-MAIN-2020-01", "one", "one", "two"]),
        (ExtractConfig(snapshot="mine"), ["mine"] * 4),
    ):
        counts = Counts()
        rows = list(read_rows(BytesIO(data), "CC-MAIN-2020-01.wat.gz", "wat", config, counts))
        assert [row.snapshot for row in rows] == expected
        assert counts.dropped_records == {"no HTML metadata": 2}


HOSTILE_BYTES = st.lists(
    st.one_of(
        TEXT_PARTS.map(lambda part: part.encode("utf-8", "surrogatepass")),
        TEXT_PARTS.map(lambda part: json.dumps(part)[1:-1].encode()),
        st.sampled_from(
            [
                *(b"\\" + bytes([b]) for b in b'"\\/bfnrtux0\n'),
                *(b"\\u" + digits for digits in (b"0041", b"00E9", b"0000", b"20aC", b"d83D")),
                *(b"\\u" + digits for digits in (b"DE97", b"dfff", b"D800", b"00g0", b"+1")),
                *(b"\xc3", b"\xa9", b"\xc2\x85", b"\xc1\x80", b"\xe0\x80\x80", b"\xed\xa0\x80"),
                *(b"\xf0\x8f\xbf\xbf", b"\xf0\x9f\x9a\x97", b"\xf4\x90\x80\x80", b"\xf0\x9f"),
            ]
        ),
        st.binary(max_size=2),
    ),
    max_size=8,
).map(b"".join)


def inner_bytes(raw: bytes) -> bytes:
    """What of some bytes can be the inner bytes of a JSON string: up to the first bare quote."""
    found = re.match(rb'(?:[^"\\]++|\\.)*+', raw, re.DOTALL)
    assert found is not None
    return found.group(0)


@given(st.lists(HOSTILE_BYTES.map(inner_bytes), min_size=1, max_size=5))
@settings(max_examples=3000)
def test_texts_are_cleaned_as_python_cleans_them(raws: list[bytes]) -> None:
    ends = np.cumsum([0, *(len(raw) for raw in raws)], dtype=np.int64)
    spans = np.stack([ends[:-1], ends[1:]], axis=1)
    characters = np.empty(len(raws), np.int32)
    offsets = np.empty(len(raws) + 1, np.int32)
    out = np.empty(ends[-1], np.uint8)
    joined = np.frombuffer(b"".join(raws), np.uint8)
    text_kernel.clean_texts(joined, spans, characters, offsets, out)
    for i, raw in enumerate(raws):
        found = out[offsets[i] : offsets[i + 1]].tobytes()
        try:
            expected = clean(wat.json_text(raw))
        except wat.InvalidJson:
            expected = None
        if characters[i] < 0:
            assert not found
            assert expected is None or "\ufffd" in wat.json_text(raw)  # invalid: not UTF-8
        else:
            assert found.decode() == expected
            assert characters[i] == len(found.decode())


@given(st.binary(max_size=100).map(lambda b: b.replace(b"\x00", b'"').replace(b"\x01", b"\\")))
@example(b"x" * 15 + b'\\"' + b"y" * 20 + b'"')
@settings(max_examples=1000)
def test_ends_of_strings_are_those_of_the_pattern(raw: bytes) -> None:
    found = byte_kernel.string_end(np.frombuffer(raw, np.uint8), 0, len(raw))
    inner = inner_bytes(raw)
    # A last backslash escapes what is not there.
    assert found == len(inner) or (raw[len(inner) :] == b"\\" and found == len(raw))


@given(st.lists(st.one_of(ADDRESS_PARTS, st.sampled_from([*"a.-/:@_9Z"])), max_size=8))
@example(["http://", "a..b/"])
@example(["https://", "a.b", "/", "c//d", "?e"])
@settings(max_examples=1500)
def test_plain_addresses_are_normal(parts: list[str]) -> None:
    address = "".join(parts)
    plain = np.empty(1, bool)
    url_kernel.are_plain_absolute(*wat_tables._bytes_and_offsets(pa.array([address])), plain)
    if plain[0]:
        assert ada_url.normalize_url(address) == address
    else:
        assert not urls._is_plain_absolute(address)


ADDRESS_BYTES = st.lists(
    st.one_of(
        ADDRESS_PARTS.map(str.encode),
        st.sampled_from([*"a.-/:@_9Z '|[]^`{}<>&+;,"]).map(str.encode),
        st.sampled_from(["../", "./", "%2E", "DATA:", "Http://", "\x0b", "\x01", "\u3000"]).map(
            str.encode
        ),
        st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\xc3", b"\xa9"]),
    ),
    max_size=8,
).map(b"".join)
BASES = (
    "http://a.example/p/q?x/y",
    "https://User@b.example:8443/",
    "http://a.example/x//y/z/",
    "https://a.example//",
)


@given(ADDRESS_BYTES.map(inner_bytes), st.sampled_from(BASES))
@example(b"../../../x.png", BASES[2])
@example(b"../x.png", BASES[3])
@example(b"a:b/c", BASES[0])
@example(b"/a:b", BASES[0])
@example("//c.example/ü é#'".encode(), BASES[1])
@settings(max_examples=5000)
def test_addresses_are_resolved_as_python_resolves_them(raw: bytes, base: str) -> None:
    kinds = np.empty(1, np.uint8)
    offsets = np.empty(2, np.int32)
    spans, pages = np.array([[0, len(raw)]]), np.array([0])
    written = np.frombuffer(raw, np.uint8)
    bases = wat_tables._bytes_and_offsets(pa.array([urls.Base(base).url]))
    parts = np.empty((1, 3), np.int32)
    url_kernel.split_bases(*bases, parts)
    room = url_kernel.room_for_addresses(spans, pages, parts, urls.MAX_URL_CHARS)
    out = np.empty(room, np.uint8)
    url_kernel.resolve_addresses(
        written, spans, pages, *bases, parts, urls.MAX_URL_CHARS, kinds, offsets, out
    )
    found = out[: offsets[1]].tobytes().decode()
    if kinds[0] == url_kernel.ODD:
        assert not found
        return
    kind = {
        url_kernel.RESOLVED: "",
        url_kernel.EMPTY: urls.BadAddress.NO_URL,
        url_kernel.DATA: urls.BadAddress.DATA_URL,
    }[int(kinds[0])]
    assert urls.Base(base).resolve(wat.json_text(raw)) == (found or None, kind)


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
    assert not list(read_rows(BytesIO(data), "x.wat.gz", "wat", ExtractConfig(), counts))
    assert counts.dropped_records == Counter({"no HTML metadata": 1})


def test_invisible_texts_are_found_as_python_finds_them() -> None:
    characters = [chr(c) for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
    texts = [c for c in characters if not c.isspace()]
    texts += [f"\u200b {c}" for c in texts[:20_000]] + ["", None, "a\u200b"]
    found = wat_tables._invisible(pa.array(texts))
    assert found.tolist() == [bool(text) and is_invisible(text) for text in texts]
