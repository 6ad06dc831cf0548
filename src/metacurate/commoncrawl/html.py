"""The images of an HTML page: where they are and what the page says of them.

Parsed with resiliparse (the Lexbor HTML5 parser), which stays linear on deeply nested pages.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import TEXT, HTMLTree

Image = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]
"""Addresses in order of preference, as written, and (source, text) pairs, as written."""

# Attributes of lazy loading scripts that hold the real address, the most specific first; ``src`` is
# then a placeholder or missing.
LAZY_ATTRIBUTES = (
    "data-src",
    "data-original",
    "data-lazy-src",
    "data-lazy",
    "data-original-src",
    "data-img-src",
    "data-image",
    "data-url",
)
SRCSET_ATTRIBUTES = ("data-srcset", "data-lazy-srcset", "srcset")
# Of a srcset, the widest candidate up to this width (or the densest up to this density) is taken:
# enough for training at 224 to 336 pixels with room to crop.
MAX_SRCSET_WIDTH = 1024.0
MAX_SRCSET_DENSITY = 2.0
# How far above an image its <figure> or <picture> is looked for. Bounds the work on nested pages.
MAX_LEVELS_UP = 8
MAX_CAPTION_NODES = 128

_IMG = re.compile(r"<img[\s/>]", re.IGNORECASE)
# How far into a page its encoding is looked for (browsers look at 1,024 bytes or somewhat more).
META_BYTES = 4096
_META_CHARSET = re.compile(rb"<meta[^>]+?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]+)", re.IGNORECASE)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CANDIDATE = re.compile(r"[\s,]*(\S+)(?:\s+([^,]*))?")
_DESCRIPTOR = re.compile(r"([0-9]+(?:\.[0-9]+)?)([wx])")


def decode(data: bytes, charset: str | None) -> str:
    """An HTML page's bytes as text, by the first encoding that is known and fits.

    Tried in this order: the byte order mark, the HTTP header's ``charset``, the page's ``<meta>``,
    UTF-8, the encoding detected from the bytes. A declared encoding with undecodable bytes is not
    believed; if nothing fits, undecodable bytes of the detected one become U+FFFD.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    name: str | None = None
    for declared in _encodings(data, charset):
        name = map_encoding_to_html5(declared, fallback_utf8=False) if declared else None
        if name is None:
            continue
        try:
            return data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    return bytes_to_str(data, name or "utf-8", errors="replace")


def _encodings(data: bytes, charset: str | None) -> Iterator[str | None]:
    yield charset
    declared = _META_CHARSET.search(data, 0, META_BYTES)
    yield declared.group(1).decode() if declared else None
    yield "utf-8"
    yield detect_encoding(data)


def has_images(html: str) -> bool:
    """Whether a page may have images (a quick look that saves parsing)."""
    return _IMG.search(html) is not None


def read_page(html: str) -> tuple[list[Image], str | None]:
    """The images of a page, in document order, and its ``<base href>``.

    An image's addresses, by preference: lazy-loading attributes (``LAZY_ATTRIBUTES``), ``src``, the
    best candidate of its ``srcset`` and of the ``<source>`` elements of its ``<picture>``. Its
    texts: ``alt``, ``title``, and ``figcaption`` (the caption of the nearest ``<figure>`` around
    it, if that is so of no other image).
    """
    tree = HTMLTree.parse(html)
    document = tree.document
    if document is None:
        return [], None
    base = None
    for element in document.get_elements_by_tag_name("base").values():
        base = element.getattr("href")
        if base is not None:
            break
    images = document.get_elements_by_tag_name("img").values()
    captions = _captions(document, images)
    return [(tuple(_addresses(i)), tuple(_texts(i, captions))) for i in images], base


def _captions(document: Any, images: list[Any]) -> dict[Any, str]:
    """The caption of each figure that has one, if it is the nearest figure of one image only.

    Goes up from captions and images, never down from figures: linear on nested ones.
    """
    captions: dict[Any, str] = {}
    for element in document.get_elements_by_tag_name("figcaption").values():
        figure = _around(element, "figure")
        if figure is not None and figure not in captions:
            captions[figure] = _text(element)
    if not captions:
        return captions
    with_image = Counter(_around(image, "figure") for image in images)
    return {figure: text for figure, text in captions.items() if with_image[figure] == 1}


def _text(element: Any) -> str:
    """The text in an element, of its first ``MAX_CAPTION_NODES`` nodes."""
    pieces: list[str] = []
    stack = [element.first_child]
    for _ in range(MAX_CAPTION_NODES):
        while stack and stack[-1] is None:
            stack.pop()
        if not stack:
            break
        node = stack[-1]
        stack[-1] = node.next_sibling
        if node.type == TEXT:
            pieces.append(node.value)
        else:
            stack.append(node.first_child)
    return "".join(pieces)


def _around(element: Any, tag: str) -> Any:
    """The nearest element of a name around an element, None if there is none near."""
    for _ in range(MAX_LEVELS_UP):
        element = element.parent
        if element is None or element.tag == tag:
            return element
    return None


def _addresses(image: Any) -> Iterator[str]:
    names = set(image.attrs)
    for name in LAZY_ATTRIBUTES:
        if name in names:
            yield image.getattr(name)
    if "src" in names:
        yield image.getattr("src")
    for name in SRCSET_ATTRIBUTES:
        if name in names:
            best = best_candidate(image.getattr(name))
            if best is not None:
                yield best
    parent = image.parent
    if parent is not None and parent.tag == "picture":
        source = parent.first_element_child
        for _ in range(MAX_LEVELS_UP):
            if source is None:
                break
            if source.tag == "source":
                best = best_candidate(source.getattr("srcset") or "")
                if best is not None:
                    yield best
            source = source.next_element_sibling


def _texts(image: Any, captions: dict[Any, str]) -> Iterator[tuple[str, str]]:
    for name in ("alt", "title"):
        text = image.getattr(name)
        if text:
            yield name, text
    if captions:
        caption = captions.get(_around(image, "figure"))
        if caption:
            yield "figcaption", caption


def best_candidate(srcset: str) -> str | None:
    """The address that a ``srcset`` attribute offers and that suits best, None if it has none.

    With widths: the widest up to ``MAX_SRCSET_WIDTH``, else the narrowest. With densities (1x if
    not stated): the densest up to ``MAX_SRCSET_DENSITY``, else the least dense. Of equals, the
    first.
    """
    best: tuple[bool, float, str] | None = None
    at = 0
    while found := _CANDIDATE.match(srcset, at):
        at = found.end()
        url, descriptors = found.group(1), found.group(2) or ""
        if url.endswith(","):  # a comma right after the address ends the candidate
            at = found.end(1)
            url, descriptors = url.rstrip(","), ""
        size, limit = 1.0, MAX_SRCSET_DENSITY
        for value, unit in _DESCRIPTOR.findall(descriptors):
            size, limit = float(value), MAX_SRCSET_WIDTH if unit == "w" else MAX_SRCSET_DENSITY
        fits = size <= limit
        rank = (fits, size if fits else -size, url)
        if url and (best is None or rank[:2] > best[:2]):
            best = rank
    return best[2] if best is not None else None
