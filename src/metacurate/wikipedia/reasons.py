"""Why parts of dumps are not counted, or are no entries: the names under which it is reported."""

from __future__ import annotations

from enum import StrEnum


class Loss(StrEnum):
    """Of a dump's streams, pages and words, and of page views' lines."""

    TRUNCATED_STREAMS = "truncated_streams"
    DAMAGED_STREAMS = "damaged_streams"
    TRUNCATED_PAGES = "truncated_pages"
    LONG_PAGES = "long_pages"
    BAD_UTF8 = "bad_utf8"
    BAD_XML = "bad_xml"
    INCOMPLETE_PAGES = "incomplete_pages"
    NOT_WIKITEXT = "not_wikitext"
    LONG_WORDS = "long_words"
    BROKEN_LINES = "broken_lines"
    LONG_LINES = "long_lines"
    BAD_TITLES = "bad_titles"
    NO_TITLE = "no_title"


class NoEntry(StrEnum):
    """Of what the sources of metadata offer."""

    EMPTY = "empty"
    PUNCTUATION = "punctuation"
    TOO_LONG = "too_long"
    BEYOND_MAX_ENTRIES = "beyond_max_entries"


OTHER_WIKIS, MOBILE, TOO_FEW_AN_HOUR = "other_wikis", "mobile", "too_few_an_hour"
NOT_ASKED_FOR = (OTHER_WIKIS, MOBILE, TOO_FEW_AN_HOUR)
"""Lines of page views that are no loss: other wikis', the mobile site's where the desktop's alone
counts, and those of hours with too few views where that matters."""
