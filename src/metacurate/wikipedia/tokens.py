"""The words of a text by the rule of Meta CLIP 2 (arXiv 2507.22062), for any language.

A text is split at white space. In languages with spaces every character that is wide
(``texts.scripts``) or a mark of punctuation is then a token of its own; in languages without, each
piece goes to a word segmenter. A token of punctuation alone is no word and parts its neighbours;
white space and line ends do not, dropped pieces of markup do.

The zero-width space counts as white space: that is what it marks in Thai, Lao, Khmer and Burmese.
So does the mark between Tibetan syllables, which also joins the two of a bigram: without it no text
has them side by side.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from metacurate.texts.scripts import PUNCTUATION, WIDE_RANGES
from metacurate.wikipedia.reasons import NoEntry
from metacurate.wikipedia.segmenters import NONE, load_segmenter
from metacurate.wikipedia.wikis import has_spaces, has_syllable_marks
from metacurate.wikipedia.wikitext import GAP

MAX_ENTRY = 256
"""Longer entries are dropped, those of WordNets aside; a longer token is no word."""

_SPACE = "\\s\u200b"
_SINGLE = "".join(map(re.escape, sorted(PUNCTUATION))) + "".join(
    f"\\U{low:08x}-\\U{high:08x}" for low, high in WIDE_RANGES
)
_TOKEN = re.compile(f"{GAP}|[{_SINGLE}]|[^{_SPACE}{_SINGLE}{GAP}]+")
_PIECE = re.compile(f"{GAP}|[^{_SPACE}{GAP}]+")
_TSHEG = "\u0f0b\u0f0c"
_SYLLABLE = re.compile(f"{GAP}|[^{_SPACE}{_TSHEG}{GAP}]+")


@dataclass(frozen=True)
class TokenRule:
    """How the texts of a Wikipedia are split; ``segmenter``: a name, or ``none``."""

    wiki: str
    segmenter: str

    @property
    def joiner(self) -> str:
        """What stands between the two words of a bigram."""
        if has_spaces(self.wiki):
            return " "
        return _TSHEG[0] if has_syllable_marks(self.wiki) else ""

    def splitter(self) -> Callable[[str], list[str]]:
        """The function that gives a text's tokens in order: words, and others (``is_word``)."""
        if self.segmenter == NONE:
            return _TOKEN.findall
        segmenter = load_segmenter(self.segmenter, self.wiki)
        pieces = _SYLLABLE if has_syllable_marks(self.wiki) else _PIECE

        def split(text: str) -> list[str]:
            tokens: list[str] = []
            for piece in pieces.findall(text):
                tokens += [piece] if piece == GAP else segmenter.segment(piece)
            return [token for token in map(str.strip, tokens) if token]

        return split


def is_word(token: str) -> bool:
    """Whether a token counts: not if it is of punctuation alone, or of what no reader sees.

    Punctuation is here what Unicode calls so too, in whatever script: the Tibetan marks between
    syllables, dashes.
    """
    return token != GAP and not all(
        c in PUNCTUATION or unicodedata.category(c)[0] in "PC" for c in token
    )


def reason_to_drop(entry: str, longest: int | None = MAX_ENTRY) -> NoEntry | None:
    """Why an entry, stripped at its ends, is none; None if it is one."""
    if not entry:
        return NoEntry.EMPTY
    if PUNCTUATION.issuperset(entry):
        return NoEntry.PUNCTUATION
    return NoEntry.TOO_LONG if longest is not None and len(entry) > longest else None
