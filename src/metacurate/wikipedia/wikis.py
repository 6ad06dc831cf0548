"""What the code of a Wikipedia says: its language, its script, its names elsewhere."""

from __future__ import annotations

import re

from metacurate.errors import ArgumentError

ENGLISH = "en"

_CODE = re.compile(r"simple|[a-z]{2,3}(?:[_-][a-z]{1,12}){0,3}")
# Written without spaces between words. Min Nan (zh_min_nan) is Chinese too, but its Wikipedia is
# in Latin letters, with spaces.
_WITHOUT_SPACES = frozenset(("bo", "dz", "ja", "ryu", "km", "lo", "my", "th", "zh", "gan", "wuu"))
_WITH_SPACES = frozenset(("zh_min_nan",))
# Wikis whose wikitext names several forms of a word for variants of the language: -{a:x;b:y}-.
_WITH_VARIANTS = frozenset(
    (
        "ban",
        "crh",
        "gan",
        "iu",
        "kk",
        "ku",
        "mni",
        "sh",
        "shi",
        "sr",
        "tg",
        "tly",
        "uz",
        "wuu",
        "zh",
    )
)
WORDNET_CODES = {
    "als": "sq", "arb": "ar", "bul": "bg", "cat": "ca", "cmn": "zh", "dan": "da", "ell": "el",
    "eus": "eu", "fin": "fi", "fra": "fr", "glg": "gl", "heb": "he", "hrv": "hr", "ind": "id",
    "isl": "is", "ita": "it", "jpn": "ja", "lit": "lt", "nld": "nl", "nno": "nn", "nob": "no",
    "pol": "pl", "por": "pt", "ron": "ro", "slk": "sk", "slv": "sl", "spa": "es", "swe": "sv",
    "tha": "th", "zsm": "ms",
}  # fmt: skip
"""Open Multilingual WordNet's codes and those of Wikipedias; its ``als`` is Tosk Albanian."""


def check_wiki(code: str, name: str = "wiki") -> str:
    """A Wikipedia's code, parts joined by ``_`` (``zh_yue``); ArgumentError if it is none."""
    if _CODE.fullmatch(code) is None:
        raise ArgumentError(
            f"{{{name}}} must be the code of a Wikipedia (en, zh, zh_yue), not {{value}}",
            value=repr(code),
        )
    return code.replace("-", "_")


def group_of(wiki: str) -> str:
    """The language that Wikipedias are joined to: the code up to the first ``_``."""
    return wiki.partition("_")[0]


def has_spaces(wiki: str) -> bool:
    """Whether the language puts spaces between words."""
    return wiki in _WITH_SPACES or group_of(wiki) not in _WITHOUT_SPACES


def has_syllable_marks(wiki: str) -> bool:
    """Whether the language is written in Tibetan letters, with a mark after each syllable."""
    return group_of(wiki) in ("bo", "dz")


def has_variants(wiki: str) -> bool:
    """Whether wikitext may hold forms for several variants of the language."""
    return group_of(wiki) in _WITH_VARIANTS


def domain_code(wiki: str) -> str:
    """The code in page view files and addresses: ``zh-yue``."""
    return wiki.replace("_", "-")


def wiki_of_wordnet(code: str) -> str:
    """The group of Wikipedias of a WordNet's language: three letters of OMW, or a language tag."""
    primary = code.replace("_", "-").partition("-")[0].lower()
    return {**WORDNET_CODES, "nb": "no"}.get(primary, primary)
