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
from metacurate.texts.scripts import KANA_RANGES, WIDE_MARKS, WIDE_RANGES, in_ranges

V1, WORLDWIDE, WORLDWIDE_KANA = "v1", "worldwide", "worldwide+kana"
RULES = (V1, WORLDWIDE, WORLDWIDE_KANA)

ISOLATED_PUNCTUATION = ",.;:?!`"
"""Each occurrence of these gets a space on either side."""

BREAKS = "\t\n\r"
"""Each of these becomes a space."""

_SPACING = str.maketrans(
    {**{c: f" {c} " for c in ISOLATED_PUNCTUATION}, **dict.fromkeys(BREAKS, " ")}
)


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
    ranges = WIDE_RANGES + KANA_RANGES if rule == WORLDWIDE_KANA else WIDE_RANGES
    return character in WIDE_MARKS or in_ranges(character, ranges)
