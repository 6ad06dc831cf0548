"""Characters of scripts that are written without spaces, and marks of punctuation.

The lists are Meta CLIP 2's (arXiv 2507.22062): matching looks at them where an entry begins and
ends, the building of metadata where a text is split into words.
"""

from __future__ import annotations

import string

WIDE_RANGES = (
    (0x0021, 0x002F), (0x003A, 0x0040), (0x005B, 0x0060), (0x007B, 0x007E),  # ASCII punctuation
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF),  # Thai to Khmer
    (0x2E80, 0x2EFF), (0x2F00, 0x2FDF), (0x2FF0, 0x2FFF),  # radicals, descriptions of characters
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2EBEF),
)  # fmt: skip
"""What Meta CLIP 2 takes for characters of scripts without spaces, with ``WIDE_MARKS``."""

WIDE_MARKS = "，。、；：？！“”‘’（）【】《》〈〉「」『』～—"

KANA_RANGES = (
    (0x3001, 0x303F), (0x3040, 0x309F), (0x30A0, 0x30FF), (0x31F0, 0x31FF),
    (0xFF01, 0xFF0F), (0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF9F),
    (0x1AFF0, 0x1B16F),
)  # fmt: skip
"""Kana of both widths, and the marks of Chinese and Japanese text: wide by ``worldwide+kana``."""

PUNCTUATION = frozenset(string.punctuation + WIDE_MARKS + "¿")
"""What an entry must not consist of alone."""


def in_ranges(character: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    """Whether a character's code is within one of the ranges, ends included."""
    return any(low <= ord(character) <= high for low, high in ranges)
