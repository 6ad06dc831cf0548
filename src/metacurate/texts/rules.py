"""What texts are worth keeping, defined here; ``kernels.text`` is the compiled twin of ``clean``.

Rules of white space, length and characters, each drop with its reason. Pure functions on single
texts, used wherever texts enter or leave a pool.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from metacurate.errors import ArgumentError
from metacurate.plugins import load_plugin


class BadText(StrEnum):
    """Why a text is dropped."""

    NO_TEXT = "empty text"
    TOO_SHORT = "text too short"
    TOO_LONG = "text too long"
    FEW_LETTERS = "text with few letters"
    FILE_NAME = "text is a file name"
    URL_TEXT = "text is a URL"


_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
SURROGATES = re.compile(r"[\ud800-\udfff]")
# Characters that show nothing, or nothing that means something: soft hyphens, joiners, zero width
# spaces, marks of direction, fillers, variation selectors, tags, U+FFFC, private use. Ranges, as
# they stand in a class of a pattern of Python's or RE2's.
INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\ue000-\uf8ff"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff\U000f0000-\U0010fffd"
)
_ONLY_INVISIBLE = re.compile(f"[ {INVISIBLE}]*+")
_FILE_NAME = re.compile(
    r"\S+\.(?:jpe?g|jfif|png|gif|webp|avif|svgz?|bmp|ico|tiff?|heic|psd|pdf|mp4|html?|php)",
    re.IGNORECASE,
)
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]*://|www\.)\S+", re.IGNORECASE)


@dataclass(frozen=True)
class TextRules:
    """Which texts to keep; lengths in characters (code points) after ``clean``.

    ``min_letters``: the least share (0 to 1) of the characters other than spaces that must be
    letters or marks (any script). ``drop_file_names``, ``drop_urls``: drop texts that are nothing
    but a file name with a usual ending (``IMG_1234.jpg``), or nothing but a URL. ``own``: names of
    text rules (``metacurate.plugins``), asked last: ``rule(text)`` gives the reason to drop a text
    in a few words, the same for all such texts, or None.
    """

    min_length: int = 1
    max_length: int = 10_000
    min_letters: float = 0.0
    drop_file_names: bool = False
    drop_urls: bool = False
    own: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.min_length > self.max_length:
            raise ArgumentError(
                "{min_length} {low} is over {max_length} {high}",
                low=self.min_length,
                high=self.max_length,
            )
        for name in self.own:
            _own_rule(name)

    @property
    def only_lengths(self) -> bool:
        """Whether nothing but its length decides whether a text is kept."""
        others = self.drop_file_names or self.drop_urls or self.own
        return self.min_letters <= 0 and not others


def clean(text: str) -> str:
    """A text on one line: control characters and runs of white space become one space; stripped.

    White space is Unicode's (no-break spaces too). Lone surrogates, which UTF-8 cannot hold, become
    U+FFFD. Nothing else changes: no case folding, no Unicode normalisation.
    """
    if not text.isprintable():
        text = SURROGATES.sub("\ufffd", _CONTROLS.sub(" ", text))
    return " ".join(text.split())


def drop_reason(text: str, rules: TextRules) -> str | None:
    """Why a cleaned text is dropped; None if it is kept."""
    length = len(text)
    if not length or is_invisible(text):
        return BadText.NO_TEXT
    if length < rules.min_length:
        return BadText.TOO_SHORT
    if length > rules.max_length:
        return BadText.TOO_LONG
    if rules.min_letters > 0 and letter_share(text) < rules.min_letters:
        return BadText.FEW_LETTERS
    if rules.drop_file_names and _FILE_NAME.fullmatch(text):
        return BadText.FILE_NAME
    if rules.drop_urls and _URL.fullmatch(text):
        return BadText.URL_TEXT
    for name in rules.own:
        if (reason := _own_rule(name)(text)) is not None:
            return reason
    return None


@functools.cache
def _own_rule(name: str) -> Callable[[str], str | None]:
    return load_plugin("text rule", name, {})


def is_invisible(text: str) -> bool:
    """Whether nothing of a text can be seen (see ``INVISIBLE``)."""
    return not text.isascii() and _ONLY_INVISIBLE.fullmatch(text) is not None


def letter_share(text: str) -> float:
    """The share of letters and marks in the characters that are no spaces; 0 without any."""
    import unicodedata

    others = text.replace(" ", "")
    if not others:
        return 0.0
    letters = sum(c.isalpha() or unicodedata.category(c)[0] == "M" for c in others)
    return letters / len(others)
