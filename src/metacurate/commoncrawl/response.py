"""HTTP responses as WARC records hold them: the images of those that are HTML pages."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from fastwarc.warc import WarcRecord, WarcRecordType

from metacurate.commoncrawl.html import Image, decode, has_images, read_page

MAX_SNIFFED_BYTES = 4096
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})

# How HTML without a stated type begins, after white space, comments and XML declarations.
_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<!--.{0,2048}?-->|<\?xml.{0,256}?\?>)*+"
    rb"<(?:!doctype\s+html|html|head|body|title|meta|script|table|div|p|a|h1|img|br)[\s/>]",
    re.IGNORECASE | re.DOTALL,
)

NOT_HTML = "not HTML"
BAD_RESPONSE = "broken HTTP response"
OVERSIZED_PAGE = "oversized page"
NO_IMAGE = "page without image"


class Response(NamedTuple):
    """A WARC response record's block, its ``WARC-Identified-Payload-Type``, and a size limit."""

    block: bytes
    identified_type: str | None
    max_bytes: int


class Page(NamedTuple):
    """The images of one page (as ``html.read_page`` gives them)."""

    images: list[Image]
    base_href: str | None


def read_response(response: Response) -> Page | str:
    """The images of a response's page, or the reason why there are none.

    Chunks and content encodings (gzip, deflate, brotli, zstd) are undone, up to ``max_bytes`` of
    body. What is HTML: the HTTP header says, else the crawler's finding, else the first bytes.
    """
    read = _body(response, "all")
    if isinstance(read, str):
        # Crawlers that store decoded bodies often keep the headers that say otherwise.
        read = _body(response, "none")
    if isinstance(read, str):
        return read
    content_type, charset, body = read
    if len(body) > response.max_bytes:
        return OVERSIZED_PAGE
    kind = content_type or response.identified_type
    if kind is None:
        is_html = _HTML_START.match(body, 0, MAX_SNIFFED_BYTES) is not None
    else:
        is_html = kind.partition(";")[0].strip().lower() in HTML_TYPES
    if not is_html:
        return NOT_HTML
    html = decode(body, charset)
    if not has_images(html):
        return NO_IMAGE
    return Page(*read_page(html))


def _body(
    response: Response, decoding: Literal["all", "none"]
) -> tuple[str | None, str | None, bytes] | str:
    """Content type, charset and (at most ``max_bytes`` + 1 of) the body; or what is wrong."""
    try:
        record = WarcRecord()
        record.init_headers(WarcRecordType.response, content_length=len(response.block))
        record.is_http = True
        record.set_bytes_content(response.block)
        record.parse_http(auto_decode=decoding)
        if record.http_headers.status_code is None:
            return BAD_RESPONSE
        pieces: list[bytes] = []
        left = response.max_bytes + 1
        while left > 0 and (piece := record.reader.read(left)):
            pieces.append(piece)
            left -= len(piece)
        charset = (record.http_charset or "").strip("\"' ") or None
        return record.http_content_type, charset, b"".join(pieces)
    except (OSError, ValueError):
        return BAD_RESPONSE
