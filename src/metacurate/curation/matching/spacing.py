"""Normalisation of texts for matching ("spacing"), the single place that defines it.

After spacing, an entry matches a text iff the entry between two spaces is a sub-string of the
spaced text (MetaCLIP, arXiv 2309.16671, section 3.2). Nothing else happens to a text: no
lower-casing, no collapsing of runs of spaces, no Unicode normalisation.
"""

from __future__ import annotations

ISOLATED_PUNCTUATION = ",.;:?!`"
"""Each occurrence of these gets a space on either side."""

BREAKS = "\t\n\r"
"""Each of these becomes a space."""

_SPACING = str.maketrans(
    {**{c: f" {c} " for c in ISOLATED_PUNCTUATION}, **dict.fromkeys(BREAKS, " ")}
)


def spaced(text: str) -> str:
    """The text between two spaces, punctuation isolated, tabs and line breaks made spaces.

    The order of the steps does not matter: none of them makes a character that another one changes.
    Source: MetaCLIP (arXiv 2309.16671), section 3.2; worked examples in docs/semantics.md.
    """
    return f" {text} ".translate(_SPACING)
