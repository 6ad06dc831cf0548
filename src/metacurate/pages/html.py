"""The images of an HTML page: where they are and what the page says of them.

Parsed with resiliparse (the Lexbor HTML5 parser), which stays linear on deeply nested pages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from metacurate.needs import needs
from metacurate.pages.encoding import declared_by_meta
from metacurate.pages.image_address import MAX_URL_CHARS, SPACE, addresses

with needs("crawl"):
    from resiliparse.parse.html import ELEMENT, TEXT, HTMLTree

Image = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]
"""Addresses in order of preference, as written, and (source, text) pairs, as written."""

TEXT_ATTRIBUTES = ("alt", "title", "data-image-title", "aria-label")
# How far above an image its <figure>, <picture> or <noscript> is looked for. Bounds the work on
# nested pages.
MAX_LEVELS_UP = 8
MAX_CAPTION_NODES = 128
MAX_SOURCES = 8
MAX_ATTRIBUTES = 256

_IMAGES = "img,amp-img"
_IMAGES_OR_ROLES = 'img,amp-img,[role="img"]'
_IMG = re.compile(r"<(?:img|image|amp-img)[\s/>]", re.IGNORECASE)
# Elements that few pages have: what is not in the text need not be looked for in the tree.
_RARE = re.compile(r"<(base|figcaption|noscript|picture)(?=[\s/>])", re.IGNORECASE)
_IS_IMG = re.compile(r"\s*=\s*[\"']?img\b", re.IGNORECASE)
# An address in a style, looked for up to the next background, so that each is read once. In quotes
# it may hold parentheses, outside of them only escaped ones.
_STYLE_URL = re.compile(
    r"background(?:-image)?\s*:(?:(?!background(?:-image)?\s*:)[^;])*?url\(\s*"
    r"(?:\"((?:[^\"\\\n]|\\.)+)\"|'((?:[^'\\\n]|\\.)+)'|[\"']?((?:[^\"')\\]|\\.)+))",
    re.IGNORECASE | re.DOTALL,
)
_STYLE_ESCAPE = re.compile(
    r"\\(?:([0-9a-fA-F]{1,6})(?:\r\n|[ \t\r\n\f])?|(\r\n|[\n\r\f])|(.))", re.DOTALL
)
# What is shown within the line: a word may go on before and after it.
_INLINE = frozenset(
    (
        *("a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn"),
        *("em", "font", "i", "ins", "kbd", "label", "mark", "nobr", "q", "rb", "rt", "ruby", "s"),
        *("samp", "small", "span", "strike", "strong", "sub", "sup", "time", "tt", "u", "var"),
        "wbr",
    )
)
_NOT_SHOWN = frozenset(
    ("script", "style", "template", "noscript", "title", "head", "svg", "math", "iframe", "rp")
)


class Parsed(NamedTuple):
    """A page's images in document order, its ``<base href>``, the encoding that it declares, and
    its ``<html lang>``.
    """

    images: list[Image]
    base_href: str | None
    meta_encoding: str | None
    language: str | None


def has_images(html: str) -> bool:
    """Whether a page may have images (a quick look that saves parsing)."""
    return _IMG.search(html) is not None or _has_role(html)


def _has_role(html: str) -> bool:
    # Plain searches are many times faster than a pattern that begins with a letter of any case.
    for name in ("role", "ROLE", "Role"):
        at = html.find(name)
        while at >= 0:
            if html[at - 1 : at].isspace() and _IS_IMG.match(html, at + len(name)):
                return True
            at = html.find(name, at + 1)
    return False


def read_page(html: str, *, with_encoding: bool = False) -> Parsed:
    """The images of a page and what else is needed of it (the encoding only if asked for).

    Images are ``img`` (``image`` is one to the parser), ``amp-img``, and other elements of the role
    ``img`` that have a background image. ``image_address`` tells where an image is. Its texts:
    ``TEXT_ATTRIBUTES``, and ``figcaption`` (the caption of the nearest ``<figure>`` around it, if
    that is so of no other image). The ``<noscript>`` beside an image that a script loads holds the
    same image for those without scripts: both are one.
    """
    document = HTMLTree.parse(html).document
    if document is None:
        return Parsed([], None, None, None)
    rare = {name.lower() for name in _RARE.findall(html)}
    base = _base_href(document) if "base" in rare else None
    elements = document.query_selector_all(_IMAGES_OR_ROLES if _has_role(html) else _IMAGES)
    found = [_Found(element, "picture" in rare) for element in elements.values()]
    if "noscript" in rare:
        found = _with_fallbacks(found)
    captions: dict[Any, str] = {}
    if "figcaption" in rare:
        captions = _captions(document, [image.element for image in found])
    images = [image.read(captions) for image in found if image.is_image]
    root = document.document_element
    language = root.getattr("lang") if root is not None else None
    encoding = _meta_encoding(document) if with_encoding else None
    return Parsed(images, base, encoding, language)


def _base_href(document: Any) -> str | None:
    for element in document.query_selector_all("base").values():
        href = element.getattr("href")
        if href is not None:
            return str(href)
    return None


def _meta_encoding(document: Any) -> str | None:
    for meta in document.query_selector_all("meta").values():
        declared = declared_by_meta(
            meta.getattr("charset"), meta.getattr("http-equiv"), meta.getattr("content")
        )
        if declared is not None:
            return declared
    return None


class _Found:
    """An image element, and the ``<noscript>`` image that stands for it, if there is one.

    ``may_have_sources``: whether it may be in a ``<picture>``.
    """

    def __init__(self, element: Any, may_have_sources: bool) -> None:
        self.element = element
        self._may_have_sources = may_have_sources
        self.tag = element.tag
        names = element.attrs[:MAX_ATTRIBUTES]
        self.attributes = {name: element.getattr(name) or "" for name in names}
        self.fallback: _Found | None = None

    @property
    def is_image(self) -> bool:
        """Whether it is an image's element, or another with a background image."""
        return self.tag in ("img", "amp-img") or any(self._own_addresses())

    def _own_addresses(self) -> Iterator[str]:
        if self.tag in ("img", "amp-img"):
            sources = _sources(self.element) if self._may_have_sources else iter(())
            return addresses(self.attributes, sources)
        found = _STYLE_URL.search(self.attributes.get("style", ""))
        return iter([_style_text(found[1] or found[2] or found[3])] if found is not None else [])

    def texts(self) -> dict[str, str]:
        """The texts of its attributes that are not empty."""
        return {n: text for n in TEXT_ATTRIBUTES if (text := self.attributes.get(n))}

    def read(self, captions: dict[Any, str]) -> Image:
        """Its addresses and texts, with those of its fallback."""
        found = list(self._own_addresses())
        texts = self.texts()
        if self.fallback is not None:
            # The element's last address may be a placeholder's.
            found[-1:] = [*self.fallback._own_addresses(), *found[-1:]]
            texts = {**self.fallback.texts(), **texts}
        pairs = [(name, texts[name]) for name in TEXT_ATTRIBUTES if name in texts]
        caption = captions.get(_around(self.element, "figure")) if captions else None
        if caption:
            pairs.append(("figcaption", caption))
        return tuple(dict.fromkeys(map(_bounded, found))), tuple(pairs)


def _bounded(address: str) -> str:
    """An address as it is, of one that is too long so much that it stays too long.

    All images of a ``<picture>`` have those of its sources.
    """
    if len(address) <= 2 * MAX_URL_CHARS:
        return address
    return address.strip(SPACE)[: MAX_URL_CHARS + 1]


def _style_text(written: str) -> str:
    """What a string or an address of a style says: its escapes replaced as CSS has it."""

    def character(escape: re.Match[str]) -> str:
        if escape[1] is None:
            return escape[3] or ""  # a line's end that is escaped is none
        code = int(escape[1], 16)
        return chr(code) if 0 < code < 0xD800 or 0xDFFF < code <= 0x10FFFF else "\ufffd"

    return _STYLE_ESCAPE.sub(character, written).strip()


def _with_fallbacks(found: list[_Found]) -> list[_Found]:
    """The images without those that stand, in a ``<noscript>``, for the one before or after."""
    scriptless = [_around(image.element, "noscript") is not None for image in found]
    kept: list[_Found] = []
    for number, image in enumerate(found):
        if not scriptless[number]:
            kept.append(image)
            continue
        for neighbour in (number - 1, number + 1):
            if 0 <= neighbour < len(found) and not scriptless[neighbour]:
                other = found[neighbour]
                if other.fallback is None and _is_fallback(image, other):
                    other.fallback = image
                    break
        else:
            kept.append(image)
    return kept


def _is_fallback(image: _Found, other: _Found) -> bool:
    """Whether an image in a ``<noscript>`` is the one that the other shows by a script."""
    if _around(image.element, "figure") != _around(other.element, "figure"):
        return False
    if set(image._own_addresses()) & set(other._own_addresses()):
        return True
    texts, others = image.texts(), other.texts()
    if texts and others:
        return texts.get("alt") == others.get("alt")
    noscript = _around(image.element, "noscript")
    return other.element in (noscript.previous_element_sibling, noscript.next_element_sibling)


def _captions(document: Any, images: list[Any]) -> dict[Any, str]:
    """The caption of each figure that has one, if it is the nearest figure of one image only.

    Goes up from captions and images, never down from figures: linear on nested ones.
    """
    captions: dict[Any, str] = {}
    for element in document.query_selector_all("figcaption").values():
        figure = _around(element, "figure")
        if figure is not None and figure not in captions:
            captions[figure] = _text(element)
    if not captions:
        return captions
    with_image = Counter(_around(image, "figure") for image in images)
    return {figure: text for figure, text in captions.items() if with_image[figure] == 1}


def _text(element: Any) -> str:
    """The text that an element shows, of its first ``MAX_CAPTION_NODES`` nodes.

    Words of two lines (``<br>``, blocks) stay apart.
    """
    pieces: list[str] = []
    stack = [(element.first_child, False)]
    for _ in range(MAX_CAPTION_NODES):
        while stack and stack[-1][0] is None:
            if stack.pop()[1]:
                pieces.append(" ")
        if not stack:
            break
        node, is_block = stack[-1]
        stack[-1] = (node.next_sibling, is_block)
        if node.type == TEXT:
            pieces.append(node.value)
        elif node.type == ELEMENT and node.tag not in _NOT_SHOWN:
            starts_line = node.tag not in _INLINE
            if starts_line:
                pieces.append(" ")
            stack.append((node.first_child, starts_line))
    return "".join(pieces)


def _around(element: Any, tag: str) -> Any:
    """The nearest element of a name around an element, None if there is none near."""
    for _ in range(MAX_LEVELS_UP):
        element = element.parent
        if element is None or element.tag == tag:
            return element
    return None


def _sources(image: Any) -> Iterator[str]:
    """The ``srcset`` of the ``<source>`` elements of the ``<picture>`` that an image is in."""
    parent = image.parent
    if parent is None or parent.tag != "picture":
        return
    source = parent.first_element_child
    for _ in range(MAX_SOURCES):
        if source is None:
            return
        if source.tag == "source":
            for name in source.attrs:
                if "srcset" in name:
                    yield source.getattr(name) or ""
        source = source.next_element_sibling
