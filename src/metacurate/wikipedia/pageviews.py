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
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from metacurate.wikipedia.reasons import MOBILE, OTHER_WIKIS, TOO_FEW_AN_HOUR, Loss

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
_HOUR = re.compile(rb"[A-X](\d{1,15})")
_NOT_ARTICLE = re.compile(rf"(?:{_NAMESPACES})(?: talk)?:", re.IGNORECASE)


def title_of(text: str, wiki: str | None = "en") -> str:
    """A title in the dump's form: underscores as single spaces, trimmed, first letter capital.

    ``wiki`` None: the first letter stays.

    The capital is the one that MediaWiki makes: in the case of titles (``ǆ`` becomes ``ǅ``) and of
    the wiki's language; a letter without such a capital that is a single letter (``ß``) stays, as
    do Georgian ones (whose capitals are for headlines only), numerals and circled letters.
    """
    title = " ".join(text.replace("_", " ").split())
    if not title.isascii():
        title = _MARKS_OF_DIRECTION.sub("", title).strip()
    if wiki is None:
        return title
    first = title[:1]
    capital = _CAPITALS.get(wiki, {}).get(first)
    if capital is None:
        is_letter = unicodedata.category(first or " ") == "Ll"
        capital = first.title() if is_letter else first
    return capital + title[1:] if len(capital) == 1 else title


def is_article_title(title: str) -> bool:
    """Whether a title has no prefix of another English namespace (for use without a dump)."""
    return _NOT_ARTICLE.match(title) is None


@dataclass(frozen=True)
class ViewRule:
    """Which views count. ``wiki``: as in page view files (``zh-yue``); ``desktop``: those of the
    desktop site alone; ``min_hourly``: those of hours in which a title has so many; ``capital``:
    whether a title is taken in the dump's form, not as it was asked for."""

    wiki: str = "en"
    desktop: bool = False
    min_hourly: int = 1
    capital: bool = True


def read_views(
    lines: Iterable[bytes], rule: ViewRule, losses: Counter[str]
) -> Iterator[tuple[str, int]]:
    """Title and views of each line of the wiki, in file order (titles repeat).

    Percent-encoding is decoded once. Lines of the wiki that cannot be used are counted in
    ``losses``: ``broken_lines``, ``bad_titles`` (no UTF-8, illegal characters, too long),
    ``no_title`` (``-``). Lines that are not asked for are there too, under the names of
    ``NOT_ASKED_FOR``.
    """
    wiki = rule.wiki.encode()
    mobile = {wiki + b".m", wiki + b".zero"}
    daily = wiki + b".wikipedia"
    for line in lines:
        fields = line.split(b" ")
        if fields[0] == wiki or fields[0] in mobile:
            right_length, count = len(fields) == 4, fields[2:3]
            is_desktop = fields[0] == wiki
        elif fields[0] == daily:
            right_length, count = len(fields) == 6, fields[4:5]
            is_desktop = fields[3:4] == [b"desktop"]
        else:
            losses[OTHER_WIKIS if len(fields) > 3 else Loss.BROKEN_LINES] += bool(line)
            continue
        if not right_length or not count[0].isdigit() or len(count[0]) > 15:
            losses[Loss.BROKEN_LINES] += 1
            continue
        if rule.desktop and not is_desktop:
            losses[MOBILE] += 1
            continue
        views = int(count[0])
        if rule.min_hourly > 1:
            hours = [views] if len(fields) == 4 else _hours(fields[5])
            views = sum(hour for hour in hours if hour >= rule.min_hourly)
            if not views:
                losses[TOO_FEW_AN_HOUR] += 1
                continue
        if fields[1] == b"-":
            losses[Loss.NO_TITLE] += 1
            continue
        title = _decode(fields[1], rule.wiki if rule.capital else None)
        if title is None:
            losses[Loss.BAD_TITLES] += 1
        else:
            yield title, views


def _hours(counts: bytes) -> list[int]:
    """The views of each hour of a day: ``A5X2`` are 5 in the first and 2 in the last."""
    return [int(number) for number in _HOUR.findall(counts)]


def _decode(raw: bytes, wiki: str | None) -> str | None:
    try:
        title = title_of(unquote_to_bytes(raw).decode(), wiki)
    except UnicodeDecodeError:
        return None
    if not title or len(title.encode()) > MAX_TITLE_BYTES or _ILLEGAL.search(title):
        return None
    return title
