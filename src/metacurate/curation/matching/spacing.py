"""How texts and entries are made ready for matching, the single place that defines it.

An entry matches a text iff the entry, with a space on those of its sides that need one, is a
sub-string of the spaced text. The rule says which sides: by ``v1`` (MetaCLIP, arXiv 2309.16671,
section 3.2) both; by ``worldwide`` (Meta CLIP 2, arXiv 2507.22062) those that do not end in a wide
character. Nothing else happens to a text: no lower-casing, no collapsing of runs of spaces, no
Unicode normalisation.
"""

from __future__ import annotations

from typing import Any

from metacurate.arguments import shown
from metacurate.errors import ArgumentError

V1, WORLDWIDE, WORLDWIDE_KANA = "v1", "worldwide", "worldwide+kana"
RULES = (V1, WORLDWIDE, WORLDWIDE_KANA)

ISOLATED_PUNCTUATION = ",.;:?!`"
"""Each occurrence of these gets a space on either side."""

BREAKS = "\t\n\r"
"""Each of these becomes a space."""

_SPACING = str.maketrans(
    {**{c: f" {c} " for c in ISOLATED_PUNCTUATION}, **dict.fromkeys(BREAKS, " ")}
)

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


def check_rule(rule: Any) -> str:
    """A matching rule; ArgumentError if it is none."""
    if isinstance(rule, str) and rule in RULES:
        return str(rule)
    raise ArgumentError(
        "{rule} must be one of {rules}, not {value}", rules=", ".join(RULES), value=shown(rule)
    )


def spaced(text: str) -> str:
    """The text between two spaces, punctuation isolated, tabs and line breaks made spaces.

    The order of the steps does not matter: none of them makes a character that another one changes.
    Source: MetaCLIP (arXiv 2309.16671), section 3.2; worked examples in docs/semantics.md.
    """
    return f" {text} ".translate(_SPACING)


def spaced_by(rule: str, text: str) -> str:
    """The spaced text that a rule looks for entries in: the worldwide rules strip it first."""
    return spaced(text if rule == V1 else text.strip())


def sided(rule: str, entry: str) -> str:
    """The sub-string of spaced texts that stands for an entry: with a space where it needs one."""
    left = "" if is_wide(entry[0], rule) else " "
    right = "" if is_wide(entry[-1], rule) else " "
    return f"{left}{entry}{right}"


def is_wide(character: str, rule: str = WORLDWIDE) -> bool:
    """Whether an entry that begins or ends with this character needs no space there, by a rule."""
    if rule == V1:
        return False
    code = ord(character)
    ranges = WIDE_RANGES + KANA_RANGES if rule == WORLDWIDE_KANA else WIDE_RANGES
    return character in WIDE_MARKS or any(low <= code <= high for low, high in ranges)
