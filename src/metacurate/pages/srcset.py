"""The ``srcset`` attribute, read as the HTML standard reads it (section 4.8.4.3.10)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import inf
from typing import NamedTuple

# Of a srcset, the widest candidate up to this width (or the densest up to this density) is taken:
# enough for training at 224 to 336 pixels with room to crop.
MAX_SRCSET_WIDTH = 1024.0
MAX_SRCSET_DENSITY = 2.0

_BEFORE_URL = re.compile(r"[\t\n\f\r ,]*")
_URL = re.compile(r"[^\t\n\f\r ]+")
# Descriptors go on to a comma that is not in parentheses; an open one takes all that follows.
_DESCRIPTORS = re.compile(r"(?:[^,(]|\([^)]*(?:\)|$))*+")
_TOKEN = re.compile(r"(?:[^\t\n\f\r (]|\([^)]*(?:\)|$))+")
_WHOLE = re.compile(r"[0-9]+")
_FLOAT = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class Candidate(NamedTuple):
    """An address that is offered, by its width in pixels or its density (1.0 if not stated)."""

    url: str
    width: int | None
    density: float | None


def candidates(srcset: str) -> Iterator[Candidate]:
    """Yield what a ``srcset`` offers; what has wrong descriptors is left out."""
    at = 0
    while True:
        before = _BEFORE_URL.match(srcset, at)
        found = _URL.match(srcset, before.end() if before else at)
        if found is None:
            return
        url, descriptors, at = found.group(), "", found.end()
        if url.endswith(","):
            url = url.rstrip(",")
        else:
            rest = _DESCRIPTORS.match(srcset, at)
            if rest is not None:
                descriptors, at = rest.group(), rest.end() + 1
        sizes = _sizes(_TOKEN.findall(descriptors))
        if sizes is not None:
            yield Candidate(url, *sizes)


def _sizes(descriptors: list[str]) -> tuple[int | None, float | None] | None:
    """Width and density that descriptors state; None if they are wrong."""
    width = height = density = None
    for descriptor in descriptors:
        number, unit = descriptor[:-1], descriptor[-1]
        if unit == "w" and _WHOLE.fullmatch(number):
            if width is not None or density is not None or len(number) > 18 or not int(number):
                return None
            width = int(number)
        elif unit == "x" and _FLOAT.fullmatch(number):
            value = float(number)
            if (
                width is not None
                or height is not None
                or density is not None
                or not 0 <= value < inf
            ):
                return None
            density = value
        elif unit == "h" and _WHOLE.fullmatch(number):
            if height is not None or density is not None or len(number) > 18 or not int(number):
                return None
            height = int(number)
        else:
            return None
    if height is not None and width is None:
        return None
    return width, 1.0 if width is None and density is None else density


def best_candidate(srcset: str) -> str | None:
    """The address that a ``srcset`` offers and that suits best, None if it has none.

    With widths: the widest up to ``MAX_SRCSET_WIDTH``, else the narrowest. With densities: the
    densest up to ``MAX_SRCSET_DENSITY``, else the least dense. Of equals, the first.
    """
    best: tuple[bool, float] | None = None
    url = None
    for candidate in candidates(srcset):
        if candidate.width is not None:
            size, limit = float(candidate.width), MAX_SRCSET_WIDTH
        else:
            size, limit = candidate.density or 0.0, MAX_SRCSET_DENSITY
        rank = (size <= limit, size if size <= limit else -size)
        if best is None or rank > best:
            best, url = rank, candidate.url
    return url
