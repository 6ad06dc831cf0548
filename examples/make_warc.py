"""Pack installed HTML documentation into a WARC, and write the WAT that describes it.

    apt-get install gimp-help-en debian-handbook
    python examples/make_warc.py --out crawl

writes ``crawl/docs.warc.gz`` (warcio, one gzip member a record) and ``crawl/docs.warc.wat.gz`` with
CommonCrawl's WAT layout: a warcinfo record, then one ``metadata`` record of JSON for each record of
the WARC. The WAT's links come from Python's own ``html.parser``, which shares no code with
``metacurate pool extract``: this makes the pair a test of the extraction as well as an example.

Differences from CommonCrawl's own writer: only A, IMG, IFRAME, LINK, SCRIPT, META and BASE are
described, and there is no ``Text`` field.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

SNAPSHOT = "CC-MAIN-2023-14"
DATE = "2023-03-20T00:00:00Z"
ANCHOR_TEXT_LIMIT = 128

# Debian package: the folder with its pages.
PACKAGES = {
    "gimp-help-en": Path("/usr/share/gimp/2.0/help/en"),
    "debian-handbook": Path("/usr/share/doc/debian-handbook/html"),
    "libgtk-3-doc": Path("/usr/share/gtk-doc/html/gtk3"),  # long pages with many links
}
DEFAULT_PACKAGES = ("gimp-help-en", "debian-handbook")


def pages(packages: Sequence[str], limit: int | None = None) -> Iterator[tuple[str, bytes]]:
    """Yield (page URL, HTML bytes) of the installed packages, sorted by path.

    ``limit`` takes that many pages of each package, evenly spread. Raises FileNotFoundError naming
    the package that is not installed.
    """
    for package in packages:
        folder = PACKAGES[package]
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: install the Debian package {package}")
        paths = sorted(folder.rglob("*.html"))
        step = 1 if limit is None else max(1, len(paths) // limit)
        for path in paths[::step][:limit]:
            name = path.relative_to(folder).as_posix()
            yield f"https://docs.example.org/{package}/{name}", path.read_bytes()


def write_warc(file: BinaryIO, name: str, documents: Sequence[tuple[str, bytes]]) -> None:
    """Write a WARC of one warcinfo record, and a request and a response for each document."""
    writer = WARCWriter(file, gzip=True)
    information = {"isPartOf": SNAPSHOT, "operator": "metacurate", "format": "WARC File Format 1.0"}
    record = writer.create_warcinfo_record(name, information)
    record.rec_headers.replace_header("WARC-Date", DATE)
    record.rec_headers.replace_header("WARC-Record-ID", _record_id("warcinfo"))
    writer.write_record(record)
    for url, html in documents:
        host = [("Host", "docs.example.org")]
        get = StatusAndHeaders("GET / HTTP/1.1", host, is_http_request=True)
        answer = StatusAndHeaders(
            "200 OK",
            [("Content-Type", "text/html"), ("Content-Length", str(len(html)))],
            protocol="HTTP/1.1",
        )
        for kind, body, http in (("request", b"", get), ("response", html, answer)):
            headers = {"WARC-Date": DATE, "WARC-Record-ID": _record_id(kind + url)}
            if kind == "response":
                headers["WARC-Identified-Payload-Type"] = "text/html"
            writer.write_record(
                writer.create_warc_record(
                    url, kind, BytesIO(body), http_headers=http, warc_headers_dict=headers
                )
            )


def _record_id(key: str) -> str:
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, key)}>"


class _Links(HTMLParser):
    """Collects what a WAT says of a page's links and head."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.links: list[dict[str, str]] = []
        self.head: dict[str, Any] = {}
        self._anchor: dict[str, str] | None = None
        self._text: list[str] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: dict[str, str] = {}
        for name, value in attrs:
            given.setdefault(name, value or "")
        if tag == "a":
            self._close_anchor()
            if "href" in given:
                self._anchor = _link("A@/href", given, "href", "target", "title", "rel", "hreflang")
        elif tag == "img" and "src" in given:
            self.links.append(_link("IMG@/src", given, "src", "alt", "title"))
        elif tag == "iframe" and "src" in given:
            self.links.append(_link("IFRAME@/src", given, "src"))
        elif tag == "link" and "href" in given:
            self._append("Link", _link("LINK@/href", given, "href", "rel", "type"))
        elif tag == "script" and "src" in given:
            self._append("Scripts", _link("SCRIPT@/src", given, "src", "type"))
        elif tag == "meta":
            names = ("name", "rel", "content", "http-equiv", "property")
            self._append("Metas", {n: given[n] for n in names if n in given})
        elif tag == "base" and "href" in given:
            self.head.setdefault("Base", given["href"])
        elif tag == "title":
            self._in_title = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._close_anchor()
        elif tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.head.setdefault("Title", " ".join(data.split())[:ANCHOR_TEXT_LIMIT])
        elif self._anchor is not None:
            self._text.append(data)

    def close(self) -> None:
        super().close()
        self._close_anchor()

    def _append(self, key: str, value: dict[str, str]) -> None:
        self.head.setdefault(key, []).append(value)

    def _close_anchor(self) -> None:
        if self._anchor is not None:
            text = " ".join("".join(self._text).split())[:ANCHOR_TEXT_LIMIT]
            self.links.append({**self._anchor, "text": text} if text else self._anchor)
        self._anchor, self._text = None, []


def _link(path: str, given: dict[str, str], url: str, *others: str) -> dict[str, str]:
    return {"path": path, "url": given[url], **{n: given[n] for n in others if n in given}}


def write_wat(file: BinaryIO, warc: Path) -> None:
    """Write the WAT of a WARC, one gzip member a record."""
    fields = f"Software-Info: metacurate make_warc\r\nExtracted-Date: {DATE}\r\n\r\n".encode()
    _write_record(file, "warcinfo", None, "application/warc-fields", fields, warc.name)
    with warc.open("rb") as stream:
        records = ArchiveIterator(stream)
        for record in records:
            body = record.content_stream().read()
            headers = dict(record.rec_headers.headers)
            envelope = {
                "Format": "WARC",
                "WARC-Header-Length": str(len(record.rec_headers.to_ascii_bytes())),
                "Actual-Content-Length": headers["Content-Length"],
                "WARC-Header-Metadata": headers,
                "Payload-Metadata": _payload(record, body),
            }
            offset, length = records.get_record_offset(), records.get_record_length()
            container = {
                "Filename": warc.name,
                "Compressed": True,
                "Offset": str(offset),
                "Gzip-Metadata": {"Header-Length": "10", "Footer-Length": "8"}
                | {"Deflate-Length": str(length)},
            }
            value = json.dumps(
                {"Container": container, "Envelope": envelope},
                ensure_ascii=False,
                separators=(",", ":"),
            ).encode()
            url = headers.get("WARC-Target-URI")
            key = f"{warc.name}:{offset}"
            _write_record(file, "metadata", url, "application/json", value, key)


def _payload(record: Any, body: bytes) -> dict[str, Any]:
    kind = record.rec_type
    content_type = record.rec_headers.get_header("Content-Type")
    if kind == "warcinfo":
        lines = [line.split(": ", 1) for line in body.decode().split("\r\n") if ": " in line]
        return {"Actual-Content-Type": content_type, "WARC-Info-Metadata": dict(lines)}
    http = record.http_headers
    headers = dict(http.headers)
    if kind == "request":
        method, path, version = (http.protocol + " " + http.statusline).split(" ", 2)
        message = {"Method": method, "Path": path, "Version": version}
        return {
            "Actual-Content-Type": content_type,
            "HTTP-Request-Metadata": {"Request-Message": message, "Headers": headers},
        }
    links = _Links()
    links.feed(body.decode("utf-8", "replace"))
    links.close()
    status, reason = http.statusline.split(" ", 1)
    return {
        "Actual-Content-Type": content_type,
        "HTTP-Response-Metadata": {
            "Response-Message": {"Version": http.protocol, "Status": status, "Reason": reason},
            "Headers-Length": str(len(http.to_ascii_bytes())),
            "Headers": headers,
            "Entity-Length": str(len(body)),
            "Entity-Digest": "sha1:" + base64.b32encode(hashlib.sha1(body).digest()).decode(),
            "Entity-Trailing-Slop-Length": "0",
            "HTML-Metadata": {"Head": links.head, "Links": links.links},
        },
    }


def _write_record(
    file: BinaryIO, kind: str, url: str | None, content_type: str, body: bytes, key: str
) -> None:
    lines = ["WARC/1.0", f"WARC-Type: {kind}"]
    lines += [f"WARC-Target-URI: {url}"] if url else []
    lines += [f"WARC-Date: {DATE}", f"WARC-Record-ID: {_record_id('wat' + key)}"]
    lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}", "", ""]
    record = "\r\n".join(lines).encode() + body + b"\r\n\r\n"
    file.write(gzip.compress(record, mtime=0))


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the two files")
    parser.add_argument(
        "--package",
        action="append",
        choices=[*PACKAGES],
        help="may be repeated; default: the first two",
    )
    parser.add_argument("--limit", type=int, help="pages of each package; default: all")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    warc = options.out / "docs.warc.gz"
    documents = list(pages(options.package or DEFAULT_PACKAGES, options.limit))
    with warc.open("wb") as file:
        write_warc(file, warc.name, documents)
    with (options.out / "docs.warc.wat.gz").open("wb") as file:
        write_wat(file, warc)
    print(f"{len(documents)} pages in {warc} and its WAT")


if __name__ == "__main__":
    main()
