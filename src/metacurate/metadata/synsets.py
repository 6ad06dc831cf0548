"""Synset names of other WordNets: NLTK's, or any in the ``wn`` package (Open Multilingual).

The rule is that of ``metacurate.metadata.wordnet``: a synset's first word, lower-cased, up to
the first ``.``, underscores as spaces, no repeats.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from metacurate.errors import UserError
from metacurate.metadata.store import BUILT_IN
from metacurate.metadata.wordnet import read_entries, shipped_entries
from metacurate.needs import needs_package


def read_synsets_of(source: str) -> list[str]:
    """Synset names of ``wordnet`` (built in), ``nltk``, ``wn:LEXICON`` or a folder of files."""
    if source == BUILT_IN:
        return shipped_entries()
    if source == "nltk":
        return _unique(_nltk_names())
    if source.startswith("wn:"):
        return _unique(_wn_names(source.removeprefix("wn:")))
    return read_entries(Path(source))


def _unique(names: Iterable[str]) -> list[str]:
    heads = (name.lower().partition(".")[0].replace("_", " ").strip() for name in names)
    return list(dict.fromkeys(head for head in heads if head))


def _nltk_names() -> list[str]:
    with needs_package("nltk", "{wordnet} nltk"):
        from nltk.corpus import wordnet
    try:
        return [synset.name() for synset in wordnet.all_synsets()]
    except (LookupError, OSError):
        raise UserError(
            "NLTK has no WordNet yet: python -m nltk.downloader wordnet omw-1.4"
        ) from None


def _wn_names(lexicon: str) -> list[str]:
    with needs_package("wn", "{wordnet} wn:LEXICON"):
        import wn
    try:
        synsets = wn.Wordnet(lexicon).synsets()
    except wn.Error as error:
        raise UserError(
            f"the package wn has no lexicon {lexicon} ({error}): python -m wn download {lexicon}"
        ) from None
    return [lemmas[0] for lemmas in (synset.lemmas() for synset in synsets) if lemmas]
