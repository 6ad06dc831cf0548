"""Foreign text made plain text of YAML and of Markdown: no name can be markup, a link or a key."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

from metacurate.printable import printable

MAX_SHOWN = 80  # characters of a name in a card
# Within a line a hyphen, a comma and a point between digits are nothing else either.
_MARKUP = re.compile(
    rf"(?!(?<=\d)\.\d)[{re.escape(string.punctuation.translate({45: None, 44: None}))}]"
)
# Between the backticks of a code span these are themselves, in a table's cell too.
_CODE = re.compile(r"[^\W_](?:[\w.:,()<>\[\]-]| (?! ))*(?<! )")


def yaml(value: Any) -> str:
    """Nested mappings, lists and plain values as a YAML document, keys in the given order.

    Keys are this program's own words.
    Strings are written in double quotes, as JSON has them: they are valid YAML, and nothing in them
    can end the scalar or the front matter.
    """
    return "".join(f"{line}\n" for line in _lines(value))


def _lines(value: Any) -> list[str]:
    lines: list[str] = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            if _is_nested(item):
                lines += [f"{key}:", *(f"  {line}" for line in _lines(item))]
            else:
                lines.append(f"{key}: {scalar(item)}")
        return lines
    for item in value:
        nested = _lines(item) if _is_nested(item) else [scalar(item)]
        lines += [f"- {nested[0]}", *(f"  {line}" for line in nested[1:])]
    return lines


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list) and bool(value)


def scalar(value: Any) -> str:
    """A string, number, truth value or an empty list as a YAML scalar."""
    if not isinstance(value, str):
        return json.dumps(value)
    quoted = json.dumps(value, ensure_ascii=False)
    # YAML allows fewer characters as they are than JSON does, and knows no surrogate pairs.
    return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in quoted)


def markdown(text: str, limit: int = MAX_SHOWN) -> str:
    """Foreign text as plain text of Markdown, on one line.

    ASCII punctuation becomes character references, which never are markup: no link, HTML, code or
    table can come of it. For the middle of a line.
    """
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", printable(text, limit))


def code(text: str, limit: int = MAX_SHOWN) -> str:
    """A foreign name in the type of code."""
    if len(text) <= limit and _CODE.fullmatch(text) and text.isprintable():
        return f"`{text}`"
    return f"<code>{markdown(text, limit)}</code>"


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True
) -> list[str]:
    """The lines of a Markdown table of cells that are Markdown; the first column is no number."""
    align = ["---", *["---:" if numbers else "---"] * (len(columns) - 1)]
    cells = [columns, align, *rows]
    return [f"| {' | '.join(line)} |" for line in cells]
