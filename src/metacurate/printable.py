"""Text from a pool made safe to show, in a terminal or a page: web content is hostile."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

DEFAULT_LIMIT = 200
TABLE_LIMIT = 300
# Invisible, but scripts and emoji need them: the zero-width non-joiner and joiner.
_KEPT_FORMAT_CHARACTERS = "\u200c\u200d"
# Control, format (bidirectional overrides and isolates, tags) and surrogate characters, line and
# paragraph separators.
_ESCAPED_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str, limit: int = DEFAULT_LIMIT, length: int | None = None) -> str:
    """One line without anything that moves the cursor, changes colours or turns the direction.

    Control and format characters (terminal escapes, bidirectional overrides) are written as
    backslash escapes. Only the first ``limit`` characters are looked at; a longer text ends in an
    ellipsis and its length (``length`` if ``text`` is itself a piece). The result is neither HTML
    nor markup: escape it for where it goes.
    """
    if length is None and len(text) <= limit and text.isprintable():
        return text  # most texts: nothing in it is of the escaped categories
    shown = "".join(map(_visible, text[:limit]))
    length = len(text) if length is None else length
    return shown if length <= limit else f"{shown}… ({length:,} characters)"


@lru_cache(maxsize=4096)
def _visible(character: str) -> str:
    if character in _KEPT_FORMAT_CHARACTERS:
        return character
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def html_table(caption: str, rows: Iterable[tuple[str, str]]) -> str:
    """Names and values as a table for notebooks, as text that can be no markup."""
    shown = "".join(
        f'<tr><th style="text-align:left">{_cell(name)}</th>'
        f'<td style="text-align:left">{_cell(value)}</td></tr>'
        for name, value in rows
    )
    return f"<table><caption>{_cell(caption)}</caption><tbody>{shown}</tbody></table>"


def _cell(text: str) -> str:
    return html.escape(printable(text, TABLE_LIMIT))
