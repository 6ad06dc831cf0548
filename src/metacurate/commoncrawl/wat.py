"""The image links of a WAT page, defined here; ``kernels.wat`` is the compiled twin.

They come from the JSON by which CommonCrawl's WAT describes the page's WARC record. It is mostly
other links, so it is not parsed as a whole. A link is found by the bytes ``"IMG@/src"``: quotes in
a JSON string are escaped, so these bytes (with the quotes) can only be a whole string, and only
that link's object is parsed. What does not have the usual form is left to a full parse: the result
is always that of a full parse.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import orjson

from metacurate.kernels.wat import MARK
from metacurate.pages.html import Image

TEXT_ATTRIBUTES = ("alt", "title", "data-image-title")
_IMAGE_PATH = "IMG@/src"
_BEFORE_MARK = b'{"path":'
_STRING = rb'"((?:[^"\\]++|\\.)*+)"'
_USUAL_LINK = re.compile(
    rb'\{"path":"IMG@/src","url":' + _STRING + rb'(?:,"alt":' + _STRING + rb")?"
    rb'(?:,"title":' + _STRING + rb")?\}",
    re.DOTALL,
)
_CONTAINER = b'"Container":{'
_USUAL_PLACE = re.compile(
    rb'"Container":\{"Filename":' + _STRING + rb',"Compressed":true,"Offset":"([0-9]{1,18})"'
)
_OBJECT_PARTS = rb'"Container":\{(?:[^{}]|\{[^{}]*\})*?'
_FILENAME = re.compile(_OBJECT_PARTS + rb'"Filename":' + _STRING)
_OFFSET = re.compile(_OBJECT_PARTS + rb'"Offset":"?([0-9]{1,18})\b')
# What ``<html lang>`` and ``<html xml:lang>`` say is among the pages' ``<meta>`` elements, by these
# names, since December 2024.
_LANGUAGES = ("HTML@/lang", "HTML@/xml:lang")
_SNAPSHOT = re.compile(rb'"isPartOf":' + _STRING)


# Before this month, the tool that makes WATs left the entities of attributes as they were written.
FIRST_DECODED = date(2019, 9, 1)
_EXTRACTED = re.compile(rb"^Extracted-Date:[ \t]*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
_MADE = re.compile(rb"^WARC-Date:[ \t]*([0-9]{4}-[0-9]{2}-[0-9]{2})", re.IGNORECASE | re.MULTILINE)
_CRAWL = re.compile(r"CC-MAIN-([0-9]{4})-([0-9]{2})(?![0-9])")


class InvalidJson(ValueError):
    """A record's content is not the JSON of a WAT record."""


class Page(NamedTuple):
    """What a WAT record says of one page: its images, and where its WARC record is."""

    images: list[Image]
    base_href: str | None
    warc_file: str | None
    record_offset: int | None


def describes_html(block: bytes) -> bool:
    """Whether a record's JSON describes an HTML page."""
    return b'"HTML-Metadata"' in block


def snapshot(block: bytes) -> str | None:
    """The crawl's name (``CC-MAIN-...``), if this is the record that describes the WARC itself."""
    if b'"WARC-Info-Metadata"' not in block:
        return None
    found = _SNAPSHOT.search(block)
    try:
        return json_text(found.group(1)) if found else None
    except InvalidJson:
        return None


def has_entities(start: bytes, address: str) -> bool:
    """Whether the attributes' values in a WAT hold entities, by the file's age.

    ``start``: how the file begins: with the ``warcinfo`` record that says when it was made. If it
    does not, the crawl's name in the file's ``address`` decides.
    """
    try:
        extracted = _EXTRACTED.search(start)
        if extracted is not None:
            made = parsedate_to_datetime(extracted[1].decode("latin-1"))
            return made.replace(tzinfo=made.tzinfo or UTC).date() < FIRST_DECODED
        stated = _MADE.search(start)
        if stated is not None:
            return date.fromisoformat(stated[1].decode()) < FIRST_DECODED
        crawl = _CRAWL.search(address)
        if crawl is not None:
            made = datetime.strptime(f"{crawl[1]} {crawl[2]} 1", "%G %V %u").replace(tzinfo=UTC)
            return made.date() < FIRST_DECODED
    except ValueError:
        pass
    return False


def read_page(block: bytes) -> Page:
    """The images of the page that a record's JSON describes. Raises InvalidJson.

    Images have ``src`` and the texts ``alt``, ``title`` and ``data-image-title``; WATs tell nothing
    of lazy loading, ``srcset`` or captions.
    """
    at = block.find(MARK)
    if at < 0:
        return Page([], None, None, None)
    if b'"Base":' in block:
        return _parse_whole(block)
    images: list[Image] = []
    while at >= 0:
        found = _USUAL_LINK.match(block, at - len(_BEFORE_MARK))
        if found is None:
            return _parse_whole(block)
        url, alt, title = found.groups()
        texts = []
        if alt:
            texts.append(("alt", json_text(alt)))
        if title:
            texts.append(("title", json_text(title)))
        images.append(((json_text(url),), tuple(texts)))
        at = block.find(MARK, found.end())
    return Page(images, None, *_place(block))


def language(block: bytes) -> str | None:
    """What ``<html lang>`` (else ``xml:lang``) says, of the page that a record's JSON describes."""
    if not any(b'"%s"' % name.encode() in block for name in _LANGUAGES):
        return None
    try:
        metas = _child(_child(_html(_parse(block)), "Head", dict), "Metas", list)
    except InvalidJson:
        return None
    stated: dict[str, str] = {}
    for meta in metas:
        stated.setdefault(_child(meta, "name", str), _child(meta, "content", str))
    return next((stated[name] for name in _LANGUAGES if stated.get(name)), None)


def _place(block: bytes) -> tuple[str | None, int | None]:
    """The file and offset of the WARC record that the JSON describes."""
    at = block.find(_CONTAINER)
    if at < 0:
        return None, None
    usual = _USUAL_PLACE.match(block, at)
    if usual is not None:
        return json_text(usual.group(1)), int(usual.group(2))
    name, offset = _FILENAME.match(block, at), _OFFSET.match(block, at)
    return json_text(name.group(1)) if name else None, int(offset.group(1)) if offset else None


def json_text(raw: bytes) -> str:
    """The value of a JSON string's inner bytes. Raises InvalidJson."""
    try:
        if b"\\" not in raw:
            return raw.decode()
        return orjson.loads(b'"' + raw + b'"')
    except ValueError:  # orjson knows no lone surrogates, which Java writes
        return _load(b'"' + raw + b'"')


def _load(value: bytes) -> Any:
    try:
        return json.loads(value.decode("utf-8", "replace"), strict=False)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(str(error)) from None


def _parse(block: bytes) -> Any:
    try:
        return orjson.loads(block)
    except ValueError:
        return _load(block)


def _html(record: Any) -> Any:
    html = record
    for key in ("Envelope", "Payload-Metadata", "HTTP-Response-Metadata", "HTML-Metadata"):
        html = _child(html, key, dict)
    return html


def _parse_whole(block: bytes) -> Page:
    record = _parse(block)
    html = _html(record)
    base_href = _child(_child(html, "Head", dict), "Base", str)
    container = _child(record, "Container", dict)
    offset = str(_child(container, "Offset", (str, int)))
    images: list[Image] = []
    for link in _child(html, "Links", list):
        if not isinstance(link, dict) or link.get("path") != _IMAGE_PATH:
            continue
        texts = [(name, _child(link, name, str)) for name in TEXT_ATTRIBUTES]
        images.append(((_child(link, "url", str),), tuple(pair for pair in texts if pair[1])))
    return Page(
        images,
        base_href or None,
        _child(container, "Filename", str) or None,
        int(offset) if offset.isascii() and offset.isdigit() and len(offset) <= 18 else None,
    )


def _child(value: Any, key: str, kind: Any) -> Any:
    """A member of an object, if both have the right type; else an empty one."""
    child = value.get(key) if isinstance(value, dict) else None
    if isinstance(child, kind):
        return child
    return "" if kind is not dict and kind is not list else kind()
