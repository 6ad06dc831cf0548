"""The language of short texts, by the page that they are on.

One to three words are often in no language in particular ("Red barn" is good Norwegian). The other
texts of their page are of the same language more often than not. English is the exception: pages in
any language have English texts, so a text that is found to be English stays so.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from metacurate.texts.language import MAX_CHARS, UNDETERMINED, Identifier, letters

FEW_WORDS = 3
FEW_BYTES = 48
KEPT = "en"
_ONE_SCRIPT = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "BOPOMOFO": "CJK", "IDEOGRAPHIC": "CJK"}
MAX_SCRIPT_CHARS = 200


def with_pages(
    texts: Sequence[str],
    languages: Sequence[str],
    pages: np.ndarray,
    stated: Sequence[str | None],
    identifier: Identifier,
) -> list[str]:
    """The languages of texts, with those of short texts by their pages.

    ``languages``: of each text by itself. ``pages`` (int64[n], rising from 0): each text's page.
    ``stated``: what each page says its language is (``<html lang>``), if it does; used where
    the page has too little text to go by. ``identifier``: for the texts of a page together.

    Texts of at most ``FEW_WORDS`` words (and ``FEW_BYTES``) that are not English, and those of no
    certain language, become of their page's language, if they are in the script of most of its
    texts.
    """
    found = list(languages)
    of_page: dict[int, list[int]] = {}
    doubtful: dict[int, list[int]] = {}
    for number, page in enumerate(pages.tolist()):
        of_page.setdefault(page, []).append(number)
        if _is_doubtful(texts[number], languages[number]):
            doubtful.setdefault(page, []).append(number)
    together = {
        page: " ".join(dict.fromkeys(texts[n] for n in of_page[page]))[:MAX_CHARS]
        for page in doubtful
    }
    known = {
        page: language
        for page, text in together.items()
        if _is_short(text) and (language := _primary(stated[page])) is not None
    }
    asked = [page for page, text in together.items() if not _is_short(text)]
    languages_found, _ = identifier.identify([together[page] for page in asked])
    known |= dict(zip(asked, languages_found, strict=True))
    for page, language in known.items():
        if language == UNDETERMINED:
            continue
        script = _script(together[page])
        for number in doubtful[page]:
            if _script(texts[number]) == script:
                found[number] = language
    return found


def _is_doubtful(text: str, language: str) -> bool:
    return language != KEPT and (language == UNDETERMINED or _is_short(text)) and letters(text) > 2


def _is_short(text: str) -> bool:
    # Bytes, not characters: those of scripts without spaces say more and have three.
    return len(text.split(None, FEW_WORDS)) <= FEW_WORDS and len(text.encode()) <= FEW_BYTES


def _primary(tag: str | None) -> str | None:
    """The language of a tag such as ``en-GB``; None if there is none."""
    primary = (tag or "").strip().replace("_", "-").partition("-")[0].lower()
    return primary if primary.isascii() and primary.isalpha() and len(primary) in (2, 3) else None


def _script(text: str) -> str:
    """The script of most letters, as their names begin."""
    counts = Counter(
        unicodedata.name(c, "").partition(" ")[0] for c in text[:MAX_SCRIPT_CHARS] if c.isalpha()
    )
    merged: Counter[str] = Counter()
    for name, count in counts.items():
        merged[_ONE_SCRIPT.get(name, name)] += count
    return max(sorted(merged), key=lambda name: merged[name], default="")
