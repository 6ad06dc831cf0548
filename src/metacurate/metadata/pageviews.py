"""Wikimedia's page view dumps, hourly and daily: views of one wiki's titles.

Hourly (``pageviews-YYYYMMDD-HHMMSS.gz``): ``domain_code page_title count_views response_bytes``,
with domain code ``en`` for the desktop and ``en.m`` for the mobile site of English Wikipedia.
Daily (``pageviews-YYYYMMDD-user.bz2``): ``wiki_code page_title page_id access daily_total
hourly_counts``, with wiki code ``en.wikipedia`` for every access method.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

from metacurate.metadata.reasons import OTHER_WIKIS, Loss

MAX_LINE_BYTES = 8192
# MediaWiki's limit, and the characters that no title holds.
MAX_TITLE_BYTES = 255
_ILLEGAL = re.compile(r"[#<>\[\]{|}\x00-\x1f\x7f\ufffd]")
# MediaWiki leaves these out of titles.
_MARKS_OF_DIRECTION = re.compile(r"[\u200e\u200f\u202a-\u202e]")
# Capitals of MediaWiki's LanguageTr, LanguageAz and LanguageKaa that are not Unicode's.
_CAPITALS = {"tr": {"i": "İ"}, "az": {"i": "İ"}, "kaa": {"ı": "Í"}}
_NAMESPACES = (
    "book|category|draft|file|help|image|mediawiki|media|module|mos|portal|project|special|talk|"
    "template|timedtext|topic|user|wikipedia|wp"
)
_NOT_ARTICLE = re.compile(rf"(?:{_NAMESPACES})(?: talk)?:", re.IGNORECASE)


def title_of(text: str, wiki: str = "en") -> str:
    """A title in the dump's form: underscores as single spaces, trimmed, first letter capital.

    The capital is the one that MediaWiki makes: in the case of titles (``ǆ`` becomes ``ǅ``) and of
    the wiki's language; a letter without such a capital that is a single letter (``ß``) stays, as
    do Georgian ones (whose capitals are for headlines only), numerals and circled letters.
    """
    title = " ".join(text.replace("_", " ").split())
    if not title.isascii():
        title = _MARKS_OF_DIRECTION.sub("", title).strip()
    first = title[:1]
    capital = _CAPITALS.get(wiki, {}).get(first)
    if capital is None:
        is_letter = unicodedata.category(first or " ") == "Ll"
        capital = first.title() if is_letter else first
    return capital + title[1:] if len(capital) == 1 else title


def is_article_title(title: str) -> bool:
    """Whether a title has no prefix of another English namespace (for use without a dump)."""
    return _NOT_ARTICLE.match(title) is None


def read_views(
    lines: Iterable[bytes], wiki: str, losses: Counter[str]
) -> Iterator[tuple[str, int]]:
    """Title and views of each line of the wiki, in file order (titles repeat).

    Percent-encoding is decoded once. Lines of the wiki that cannot be used are counted in
    ``losses``: ``broken_lines``, ``bad_titles`` (no UTF-8, illegal characters, too long),
    ``no_title`` (``-``); lines of other wikis as ``other_wikis``.
    """
    hourly = {wiki.encode(), f"{wiki}.m".encode(), f"{wiki}.zero".encode()}
    daily = f"{wiki}.wikipedia".encode()
    for line in lines:
        fields = line.split(b" ")
        if fields[0] in hourly:
            right_length, count = len(fields) == 4, fields[2:3]
        elif fields[0] == daily:
            right_length, count = len(fields) == 6, fields[4:5]
        else:
            losses[OTHER_WIKIS if len(fields) > 3 else Loss.BROKEN_LINES] += bool(line)
            continue
        if not right_length or not count[0].isdigit() or len(count[0]) > 15:
            losses[Loss.BROKEN_LINES] += 1
        elif fields[1] == b"-":
            losses[Loss.NO_TITLE] += 1
        else:
            title = _decode(fields[1], wiki)
            if title is None:
                losses[Loss.BAD_TITLES] += 1
            else:
                yield title, int(count[0])


def _decode(raw: bytes, wiki: str) -> str | None:
    try:
        title = title_of(unquote_to_bytes(raw).decode(), wiki)
    except UnicodeDecodeError:
        return None
    if not title or len(title.encode()) > MAX_TITLE_BYTES or _ILLEGAL.search(title):
        return None
    return title
