"""What WARC records hold of the web: the images of those that are HTML pages."""

from __future__ import annotations

import re
import zlib
from io import BytesIO
from typing import NamedTuple

from metacurate.commoncrawl.reasons import DroppedPage
from metacurate.needs import needs
from metacurate.pages.encoding import decode, decode_as
from metacurate.pages.html import Image, has_images, read_page

with needs("crawl"):
    from fastwarc.stream_io import BrotliReader, ZstdReader

SNIFFED_BYTES = 4096
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
# These say nothing: such content is sniffed (MIME Sniffing standard).
UNKNOWN_TYPES = frozenset({"*/*", "unknown/unknown", "application/unknown"})
MAX_CONTENT_ENCODINGS = 4
LEAST_PIECE, INFLATE_PIECE = 1 << 10, 64 << 10
GZIP, ZLIB, RAW = 31, 15, -15  # as zlib's ``wbits`` names what deflate is wrapped in
GZIP_MAGIC = b"\x1f\x8b\x08"

# How HTML without a stated type begins: the MIME Sniffing standard's tags, and a few that begin
# pages too, after white space, comments and XML declarations.
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<!--.{0,2048}?-->|<\?xml.{0,256}?\?>)*+"
    rb"(?:<(?:!doctype\s+html|html|head|body|title|meta|link|script|style|iframe|font|table|div|p|a"
    rb"|b|h1|img|br|center|form|figure|article|main)[\s/>]|<!--)",
    re.IGNORECASE | re.DOTALL,
)
_BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
_STATUS = re.compile(rb"\s*HTTP/[0-9](?:\.[0-9])?[ \t]+[0-9]{3}\b")
_LINE_END = re.compile(rb"\r?\n")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
# A header's value at its commas, but for those in quotes.
_PART = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
_TYPE = re.compile(r"\s*([!#$%&'*+.^_`|~\w-]+/[!#$%&'*+.^_`|~\w-]+)(?=[\s;]|$)", re.ASCII)
_PARAMETER = re.compile(r';\s*([^=;]*)(?:=\s*("(?:[^"\\]|\\.)*"?|[^;]*))?')


class Response(NamedTuple):
    """A WARC record's content.

    ``content_type``: of a record that holds the page itself; None if it holds an HTTP response.
    ``identified_type``: its ``WARC-Identified-Payload-Type``. ``max_bytes``: a size limit.
    """

    block: bytes
    content_type: str | None
    identified_type: str | None
    max_bytes: int


class Page(NamedTuple):
    """The images of one page (as ``html.read_page`` gives them), its encoding and ``<html lang>``.

    ``damaged``: bytes were lost, or stand for no character (U+FFFD).
    """

    images: list[Image]
    base_href: str | None
    encoding: str
    damaged: bool
    language: str | None


class _Content(NamedTuple):
    kind: str | None
    charset: str | None
    body: bytes
    is_cut: bool = False


def read_response(response: Response) -> Page | str:
    """The images of a record's page, or the reason why there are none.

    Chunks and content encodings (gzip, deflate, brotli, zstd) are undone, up to ``max_bytes`` of
    body, whether the header tells of them or not. What is HTML: the HTTP header says, else the
    crawler's finding, else the first bytes.
    """
    content = _content(response)
    if isinstance(content, str):
        return content
    if len(content.body) > response.max_bytes:
        return DroppedPage.OVERSIZED
    kind = content.kind
    if kind is None and response.identified_type is not None:
        kind, _ = _media_type(response.identified_type)
    if kind is None:
        is_html = _HTML_START.match(content.body, 0, SNIFFED_BYTES) is not None
    else:
        is_html = kind in HTML_TYPES
    if not is_html:
        return DroppedPage.NOT_HTML
    decoded = decode(content.body, content.charset)
    if not has_images(decoded.text):
        return DroppedPage.NO_IMAGE
    parsed = read_page(decoded.text, with_encoding=not decoded.certain)
    declared = parsed.meta_encoding
    if declared is not None and declared != decoded.encoding:
        # Declared further down than encodings are looked for: as browsers, start again.
        decoded = decode_as(content.body, declared)
        parsed = read_page(decoded.text)
    damaged = decoded.damaged or content.is_cut
    return Page(parsed.images, parsed.base_href, decoded.encoding, damaged, parsed.language)


def _content(response: Response) -> _Content | str:
    """Type, charset and (at most ``max_bytes`` + 1 of) the body; or what is wrong."""
    limit = response.max_bytes + 1
    if response.content_type is not None:
        kind, charset = _media_type(response.content_type)
        return _decoded(_Content(kind, charset, response.block), [], limit)
    head_end = _HEAD_END.search(response.block)
    if head_end is None or not _STATUS.match(response.block):
        return DroppedPage.BAD_RESPONSE
    fields = _fields(response.block[: head_end.start()])
    kind, charset = _media_type(", ".join(fields.get("content-type", ())))
    content = _Content(kind, charset, response.block[head_end.end() :])
    if "chunked" in ", ".join(fields.get("transfer-encoding", ())).lower():
        content = _joined_chunks(content)
    names = ", ".join(fields.get("content-encoding", ())).lower()
    return _decoded(content, [name.strip() for name in names.split(",")], limit)


def _fields(head: bytes) -> dict[str, list[str]]:
    """The values of header lines by name; a line that begins with a space goes on."""
    fields: dict[str, list[str]] = {}
    values: list[str] = []
    for line in _LINE_END.split(head.lstrip())[1:]:
        text = line.decode("latin-1")
        if text[:1] in (" ", "\t"):
            if values:
                values[-1] += " " + text.strip()
            continue
        name, colon, value = text.partition(":")
        values = fields.setdefault(name.strip().lower(), []) if colon else []
        values.append(value.strip())
    return fields


def _media_type(value: str) -> tuple[str | None, str | None]:
    """Type and charset of a Content-Type header (Fetch standard); None if it says nothing."""
    kind = charset = None
    for part in _PART.findall(value):
        found = _TYPE.match(part)
        if found is None or found[1].lower() in UNKNOWN_TYPES:
            continue
        parameters = _PARAMETER.findall(part, found.end())
        stated = next((v for name, v in parameters if name.strip().lower() == "charset"), "")
        if found[1].lower() != kind:
            kind, charset = found[1].lower(), None
        charset = stated.strip("\"' ") or charset  # "'" is no quote by the standards, yet written
    return kind, charset


def _joined_chunks(content: _Content) -> _Content:
    """A chunked body's chunks joined; as it is if it is not chunked (any more)."""
    body = content.body
    pieces: list[bytes] = []
    at = 0
    while (chunk := _CHUNK.match(body, at)) is not None:
        size = int(chunk[1], 16)
        if size == 0:
            return content._replace(body=b"".join(pieces))
        at = chunk.end() + size
        pieces.append(body[chunk.end() : at])
        line_end = _LINE_END.match(body, at)
        at = line_end.end() if line_end is not None else at
    if not pieces:
        return content
    return content._replace(body=b"".join(pieces), is_cut=True)


def _decoded(content: _Content, encodings: list[str], limit: int) -> _Content | str:
    """The body with its content encodings undone, up to ``limit`` bytes; or what is wrong.

    Crawlers that store decoded bodies often keep the headers that say otherwise; some servers
    compress what was compressed, or do not say so. What is no gzip is not taken for gzip.
    """
    for name in reversed(encodings[-MAX_CONTENT_ENCODINGS:]):
        undone: tuple[bytes, bool] | None = None
        if name in ("br", "zstd"):
            undone = _unpack(content.body, name, limit)
            is_gzip = content.body.startswith(GZIP_MAGIC)
            if undone is None and not is_gzip and _BINARY.search(content.body, 0, SNIFFED_BYTES):
                return DroppedPage.BAD_ENCODING
        elif name == "deflate":
            undone = _inflate(content.body, ZLIB, limit) or _inflate(content.body, RAW, limit)
        elif name in ("gzip", "x-gzip") and content.body.startswith(GZIP_MAGIC):
            undone = _inflate(content.body, GZIP, limit)
            if undone is None:
                return DroppedPage.BAD_ENCODING
        if undone is not None:
            content = content._replace(body=undone[0], is_cut=content.is_cut or undone[1])
    if content.body.startswith(GZIP_MAGIC):
        undone = _inflate(content.body, GZIP, limit)
        if undone is None:
            return DroppedPage.BAD_ENCODING
        return content._replace(body=undone[0], is_cut=content.is_cut or undone[1])
    return content


def _inflate(data: bytes, form: int, limit: int) -> tuple[bytes, bool] | None:
    """Up to ``limit`` bytes that are compressed in ``data`` (``form``: zlib's ``wbits``).

    Also whether the end is missing or broken. What comes after the end and is no other gzip member
    is left. None if it is not compressed so.
    """
    pieces: list[bytes] = []
    size = at = 0
    inflater = zlib.decompressobj(form)
    waiting = b""
    room = LEAST_PIECE
    is_cut = False
    while size < limit:
        if not waiting:
            waiting = data[at : at + room]
            at += len(waiting)
            room = min(2 * room, INFLATE_PIECE)
            if not waiting:
                is_cut = True
                break
        try:
            piece = inflater.decompress(waiting, limit - size)
        except zlib.error:
            is_cut = True
            break
        pieces.append(piece)
        size += len(piece)
        waiting = inflater.unconsumed_tail
        if inflater.eof:
            at -= len(inflater.unused_data)
            if form != GZIP or not data.startswith(GZIP_MAGIC, at):
                break
            inflater, waiting, room = zlib.decompressobj(form), b"", LEAST_PIECE
    return (b"".join(pieces), is_cut) if size else None


def _unpack(data: bytes, name: str, limit: int) -> tuple[bytes, bool] | None:
    """Up to ``limit`` bytes of a brotli or zstd stream; None if it is broken."""
    reader = BrotliReader(BytesIO(data)) if name == "br" else ZstdReader(BytesIO(data))
    pieces: list[bytes] = []
    left = limit
    try:
        while left > 0 and (piece := reader.read(left)):
            pieces.append(piece)
            left -= len(piece)
    except (OSError, ValueError):
        return None
    return b"".join(pieces), False
