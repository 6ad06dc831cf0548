"""Pieces of the report's page: every text that comes from outside goes through here."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from metacurate.printable import printable

ENTRY_CHARACTERS = 80


def text(value: str, limit: int = ENTRY_CHARACTERS) -> str:
    """Foreign text as HTML: control characters made visible, escaped, isolated in direction."""
    return f"<bdi>{html.escape(printable(value, limit))}</bdi>"


def marked_text(value: str, entry: str, limit: int, length: int) -> str:
    """Foreign text (of a whole ``length``) with the first occurrence of an entry marked."""
    shown, wanted = printable(value, limit, length), printable(entry, limit)
    place = _occurrence(shown, wanted)
    if place < 0:
        return f"<bdi>{html.escape(shown)}</bdi>"
    end = place + len(wanted)
    before, match, after = (html.escape(s) for s in (shown[:place], shown[place:end], shown[end:]))
    return f"<bdi>{before}<mark>{match}</mark>{after}</bdi>"


def _occurrence(shown: str, wanted: str) -> int:
    """Where the entry stands by itself, else anywhere, else -1."""
    place = shown.find(wanted)
    while place >= 0:
        before = shown[place - 1 : place] if place else ""
        after = shown[place + len(wanted) : place + len(wanted) + 1]
        if not before.isalnum() and not after.isalnum():
            return place
        place = shown.find(wanted, place + 1)
    return shown.find(wanted)


def link(url: str) -> str:
    """A foreign URL: a link if it is a plain web address, else text."""
    shown = html.escape(printable(url, 100))
    try:
        web = urlsplit(url).scheme.lower() in ("http", "https") and url.isprintable()
    except ValueError:
        web = False
    if not web:
        return f"<bdi>{shown}</bdi>"
    address = html.escape(url, quote=True)
    return f'<a href="{address}" rel="noopener noreferrer nofollow" target="_blank">{shown}</a>'


def bar(share: float, kind: str) -> str:
    """A horizontal bar; ``share`` between 0 and 1 of the width, ``kind`` its class."""
    width = f"{100 * min(max(share, 0.0), 1.0):.2f}"
    return (
        '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="{kind}" width="{width}" height="10"/></svg>'
    )


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], kinds: Sequence[str]
) -> str:
    """A table of cells that are HTML already; ``kinds`` are the columns' classes."""
    title = f"<caption>{caption}</caption>" if caption else ""
    names = "".join(
        f'<th scope="col" class="{k}">{n}</th>' for n, k in zip(head, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{k}">{c}</td>' for c, k in zip(row, kinds, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll"><table>{title}<thead><tr>{names}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def json_block(name: str, value: Any) -> str:
    """Data for the page's script; nothing in it can end the element."""
    data = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{data}</script>'


def csp_hash(content: str) -> str:
    """The source expression of an inline style or script in a content-security policy."""
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
