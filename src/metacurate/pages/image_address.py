"""Which of an image element's attributes say where the image is.

Pages that load images lazily have a placeholder, or nothing, in ``src``, and the address in an
attribute that their script knows. The usual names come first; then one rule for all others: the
attribute's value must be an image's address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from metacurate.pages.srcset import best_candidate

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
# These hold nothing else, whatever it ends in.
_LAZY_ADDRESSES = frozenset({"data-src", "data-original", "data-lazy-src", "data-original-src"})
_LAZY_NAMES = frozenset(LAZY_ATTRIBUTES)
MAX_URL_CHARS = 4096
SPACE = " \t\n\r\f\v"
"""What is no part of an address at its ends."""

# How an address of an image ends, before its query; or somewhere in the query (image services).
_IMAGE_NAME = re.compile(
    r"\.(?:jpe?g|jfif|pjpeg|png|apng|gif|webp|avif|svgz?|bmp|tiff?|heic|jxl)(?=[?#&/;,:@!%]|$)",
    re.IGNORECASE,
)
# Places to fill in of templates, JSON, code: what no address has.
_TEMPLATE = re.compile(r"[{}<>\"`\x00-\x1f]|%7[bB]|^\[|\$\(")
_TEMPLATE_SRC = re.compile(r"\{\{|\{%|\$\{|<%|\[\[|%7[bB]%7[bB]")
# What addresses in attributes that nobody knows are not to have either.
_ODD = re.compile(r"[\s'\\^|\[\]]|#$")
_ABSOLUTE = re.compile(r"(?:https?:)?//[^/?#]*\.[^/?#.]+[/?]|\.{0,2}/[^/]", re.IGNORECASE)
_NAMES_IMAGE = re.compile(r"src|img|image|lazy|original|photo|pic", re.IGNORECASE)
# Other attributes that may hold an image's address or name, but not the address of this image.
_NAMES_OTHER = re.compile(
    r"^(?:on.*|alt|title|class|id|style|sizes|usemap|longdesc|name|itemprop|role|width|height"
    r"|loading|decoding|crossorigin|srcset|src|href|aria-.*)$"
    r"|placeholder|fallback|error|default|blank|loader|spinner|blur|lqip|hover|avatar|icon|logo"
    r"|(?:^|[-_:])(?:alt|title|caption|name|label|desc|description|text|id|key|link|href|page"
    r"|pin-url|share|thumb|tiny|small|low)$",
    re.IGNORECASE,
)
# A file's name in an address, and what placeholders' names begin with (or have after a mark). Two
# patterns, as one of both would read a long name again from each of its marks on.
_FILE_NAME = re.compile(
    r"(?<![\w\-])([\w\-]*+)\.(?:gif|png|svg|jpe?g|webp)(?:[?#]|$)", re.IGNORECASE
)
_PLACEHOLDER = re.compile(
    r"(?:^|[/_.\-])(?:blank|place-?holder|spacer|loading|loader|lazy(?:-?load)?|pixel|transparent|trans"
    r"|dummy|empty|preload(?:er)?|spinner|1x1|clear|gr[ae]y|ajax-loader|no-?image|image-?placeholder)",
    re.IGNORECASE,
)


def addresses(attributes: Mapping[str, str], sources: Iterator[str]) -> Iterator[str]:
    """The addresses that an element's attributes have, by preference; some are placeholders.

    ``sources``: the ``srcset`` of the ``<source>`` elements beside it.
    """
    # Most images have none of them.
    for name in () if _LAZY_NAMES.isdisjoint(attributes) else LAZY_ATTRIBUTES:
        value = attributes.get(name, "").strip()
        if value and is_address(value, name):
            yield value
    sets = [name for name in attributes if "srcset" in name and name != "srcset"]
    for name in sets:
        if (best := best_candidate(attributes[name])) is not None and _may_be_address(best):
            yield best
    src = attributes.get("src", "").strip()
    if _TEMPLATE_SRC.search(src):
        src = ""
    is_placeholder = _is_placeholder(src)
    if not is_placeholder:
        yield src
    for name in attributes if is_placeholder else ():
        if name in LAZY_ATTRIBUTES or name in sets or _NAMES_OTHER.search(name):
            continue
        value = attributes[name].strip()
        if is_address(value, name) and not _is_placeholder(value):
            yield value
    for srcset in (attributes.get("srcset", ""), *sources):
        if srcset and (best := best_candidate(srcset)) is not None:
            yield best
    if is_placeholder and src:
        yield src


def is_address(value: str, name: str) -> bool:
    """Whether an attribute's value is an image's address, as far as can be told.

    It ends as image files do; or it has a folder or a query and the attribute is of lazy loading
    scripts alone; or it has a host or begins with a folder and the attribute's name speaks of
    images.
    """
    if not _may_be_address(value):
        return False
    if name in _LAZY_ADDRESSES and ("/" in value or "?" in value):
        return True
    if name not in LAZY_ATTRIBUTES and _ODD.search(value):
        return False
    if _IMAGE_NAME.search(value):
        return True
    return _NAMES_IMAGE.search(name) is not None and _ABSOLUTE.match(value) is not None


def _may_be_address(value: str) -> bool:
    return (
        0 < len(value) <= MAX_URL_CHARS
        and value[:5].lower() != "data:"
        and _TEMPLATE.search(value) is None
    )


def _is_placeholder(src: str) -> bool:
    return (
        not src
        or src.startswith("#")
        or src[:5].lower() == "data:"
        or src[:11].lower() == "about:blank"
        or any(
            _PLACEHOLDER.search(src, max(0, name.start() - 1), name.end(1))
            for name in _FILE_NAME.finditer(src)
        )
    )
