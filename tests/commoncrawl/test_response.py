"""HTTP responses and other records as crawlers have stored them."""

from __future__ import annotations

import gzip
import os
import time
import zlib

import brotli
import pyarrow as pa
import pytest

from metacurate.commoncrawl.response import Page, Response, _media_type, read_response
from web_pages import members, record, response, rows_of_warc

HTML = "<html><p>Grün <img src=1.png alt=one>{}<img src=2.png alt='zwei Häuser'>"
BOTH = ["one", "zwei Häuser"]


def read(block: bytes, max_bytes: int = 1 << 20, **fields: str) -> tuple[list[str], dict[str, int]]:
    """The texts of one response record's page, and the dropped pages."""
    rows, counts = rows_of_warc(members(record("response", block, **fields)))
    return [text for row in rows for _, text in row["texts"]], dict(counts.dropped_pages)


@pytest.mark.parametrize(
    ("head", "between"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=latin1\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\nContent-Type: text/html; charset=latin1\n\n", "\r\n\r\n"),
        ("HTTP/1.0 200\nServer: x\r\nContent-Type: text/html; charset=latin1\n\r\n", "\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\ncontent-TYPE:text/html;charset=latin1\r\n\n", "\r\n\r\n"),
        ("HTTP/2 200\r\nContent-Type:\r\n text/html;\r\n\tcharset=latin1\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nno colon\r\nContent-Type : text/html;charset=latin1\r\n\r\n", ""),
    ],
)
def test_line_ends_of_headers(head: str, between: str) -> None:
    assert read((head + HTML.format(between)).encode("latin-1")) == (BOTH, {})


@pytest.mark.parametrize(
    ("content_type", "identified", "is_html"),
    [
        ("text/html", "", True),
        ("text/html", "application/pdf", True),
        ("TEXT/HTML; charset=utf-8", None, True),
        ("text/html charset=utf-8", None, True),
        ("text/html,charset=utf-8", None, True),
        ("text/html, text/html; charset=utf-8", None, True),
        ("text/plain, text/html", None, True),
        ("text/html, */*", None, True),
        ("application/xhtml+xml; profile=a,b", None, True),
        ("*/*", None, True),
        ("unknown/unknown", None, True),
        ("application/unknown", "text/html", True),
        ("", "", True),
        ("html", None, True),
        ("", "text/html; charset=utf-8", True),
        ("text/plain", "text/html", False),
        ("text/html, text/plain", None, False),
        ("image/png", "", False),
        ("", "application/pdf", False),
    ],
)
def test_what_is_html(content_type: str, identified: str | None, is_html: bool) -> None:
    fields = {} if identified is None else {"WARC_Identified_Payload_Type": identified}
    found = read(response(HTML.format(""), content_type), **fields)
    assert found == ((BOTH, {}) if is_html else ([], {"not HTML": 1}))


@pytest.mark.parametrize(
    ("start", "is_html"),
    [
        (" \r\n<!DOCTYPE html>", True), ("<!-- x --><p>", True), ("<iframe>", True),
        ("\ufeff<html>", True), ("<?xml version='1.0'?>\n<html>", True), ("plain text", False),
        ("{}", False), ("<svg>", False), ("<?php", False),
    ],
)  # fmt: skip
def test_content_without_a_type_is_sniffed(start: str, is_html: bool) -> None:
    block = f"HTTP/1.1 200 OK\r\n\r\n{start}{HTML}".encode()
    assert (read(block)[1] == {}) == is_html


@pytest.mark.parametrize(
    ("value", "kind", "charset"),
    [
        ("text/html;charset=utf-8;charset=x", "text/html", "utf-8"),
        ('text/html; charset="utf-8"', "text/html", "utf-8"),
        ("text/html; charset='utf-8'", "text/html", "utf-8"),
        ('text/html; a=";charset=x"; charset=utf-8', "text/html", "utf-8"),
        ("text/html; charset=", "text/html", None),
        ("text/html; charset=x, text/html", "text/html", "x"),
        ("text/html; charset=x, text/plain", "text/plain", None),
        ("text/html; charset=x, */*; charset=y", "text/html", "x"),
        ("/html", None, None),
        ("", None, None),
    ],
)
def test_media_types(value: str, kind: str | None, charset: str | None) -> None:
    assert _media_type(value) == (kind, charset)


PAGE = HTML.format("x" * 5000).encode()


def chunked(body: bytes, extension: bytes = b"", end: bytes = b"\r\n") -> bytes:
    parts = [body[:3000], body[3000:]]
    written = b"".join(b"%x%s%s%s%s" % (len(p), extension, end, p, end) for p in parts)
    return written + b"0" + end + end


def zstd(body: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(body, asbytes=True))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(PAGE)), ("x-gzip", gzip.compress(PAGE)),
        ("GZIP", gzip.compress(PAGE)), ("gzip, gzip", gzip.compress(PAGE)),
        ("gzip, gzip", gzip.compress(gzip.compress(PAGE))), ("gzip", PAGE), ("deflate", PAGE),
        ("gzip", gzip.compress(PAGE) + b"\0rubbish"),
        ("gzip", gzip.compress(PAGE[:900]) + gzip.compress(PAGE[900:])),
        ("gzip", gzip.compress(gzip.compress(PAGE))),
        ("deflate", zlib.compress(PAGE)), ("deflate", zlib.compress(PAGE)[2:-4]),
        ("br", brotli.compress(PAGE)), ("br", PAGE), ("zstd", zstd(PAGE)), ("zstd", PAGE),
        ("identity", PAGE), ("utf-8", PAGE), ("", gzip.compress(PAGE)),
        ("deflate, gzip", gzip.compress(zlib.compress(PAGE))),
    ],
)  # fmt: skip
def test_content_encodings(encoding: str, body: bytes) -> None:
    assert read(response(body, Content_Encoding=encoding)) == (BOTH, {})


@pytest.mark.parametrize(
    "body",
    [chunked(PAGE), chunked(PAGE, b";name=value"), chunked(PAGE, b" "), chunked(PAGE, b"", b"\n"),
     PAGE, b"\n" + PAGE],
)  # fmt: skip
def test_chunks(body: bytes) -> None:
    assert read(response(body, Transfer_Encoding="chunked")) == (BOTH, {})


def test_a_cut_body_is_read_to_its_end() -> None:
    rest = PAGE[:60] + os.urandom(9000).hex().encode() + PAGE[60:]
    for encoding, body in (
        ("gzip", gzip.compress(rest)[:4000]),
        ("gzip", gzip.compress(rest)[:-6] + b"\0" * 6),
        ("deflate", zlib.compress(rest)[:4000]),
        ("chunked", chunked(rest)[:4000]),
    ):
        field = "Transfer_Encoding" if encoding == "chunked" else "Content_Encoding"
        rows, counts = rows_of_warc(
            members(record("response", response(body, **{field: encoding})))
        )
        assert rows[0]["texts"] == [("alt", "one")]
        assert (counts.damaged_pages, counts.dropped_pages) == (1, {})


@pytest.mark.parametrize(
    "fields",
    [{"WARC_Truncated": "length"}, {"WARC_Segment_Number": "1", "WARC_Segment_Origin_ID": "<u:1>"}],
)
def test_a_page_whose_record_says_that_it_is_cut(fields: dict[str, str]) -> None:
    rows, counts = rows_of_warc(members(record("response", response(PAGE), **fields)))
    assert (bool(rows), counts.damaged_pages) == (True, 1)


def test_what_cannot_be_decoded_says_so() -> None:
    for encoding, body in (
        ("gzip", gzip.compress(PAGE)[:12]),
        ("", gzip.compress(PAGE)[:12]),
        ("br", brotli.compress(os.urandom(500) + PAGE)[:400]),
        ("zstd", zstd(os.urandom(500) + PAGE)[:400]),
    ):
        block = response(body, Content_Encoding=encoding)
        assert read(block) == ([], {"broken content encoding": 1})
    for block in (b"HTTP/1.1 200 OK", b"<p>no HTTP</p>\r\n\r\n", b"", b"\r\n\r\n"):
        assert read(block) == ([], {"broken HTTP response": 1})


def test_decoding_is_bounded() -> None:
    limit = 1 << 20
    bomb = b"<p>" * (8 << 20)
    start = time.process_time()
    for encoding, body in (
        ("gzip", gzip.compress(bomb)),
        ("gzip, gzip", gzip.compress(gzip.compress(bomb))),
        ("deflate", zlib.compress(bomb)),
        ("br", brotli.compress(bomb, quality=1)),
    ):
        block = response(body, Content_Encoding=encoding)
        assert read_response(Response(block, None, None, limit)) == "oversized page"
    many = gzip.compress(b"", 1) * 50_000 + gzip.compress(PAGE)
    assert isinstance(
        read_response(Response(response(many, Content_Encoding="gzip"), None, None, limit)), Page
    )
    assert time.process_time() - start < 10


def test_records_that_hold_a_page_themselves() -> None:
    page = HTML.format("").encode()
    data = members(
        record("resource", page, Content_Type="text/html; charset=utf-8"),
        record("conversion", page, "http://b.example/", Content_Type="text/html"),
        record("resource", page, "http://c.example/"),
        record("conversion", page, Content_Type="text/plain"),
        record("resource", b"\x89PNG", Content_Type="image/png"),
        record("revisit", b"HTTP/1.1 200 OK\r\n\r\n"),
    )
    rows, counts = rows_of_warc(data)
    assert [row["url"] for row in rows] == [
        f"{host}{n}.png"
        for host in ("http://a.example/p/", "http://b.example/", "http://c.example/")
        for n in (1, 2)
    ]
    assert counts.pages == 5
    assert counts.dropped_pages == {"not HTML": 2}
    assert counts.dropped_records == {"revisit (the page is in another record)": 1}
