"""From plain values to HTML: templates that escape everything, and how foreign text is shown."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from metacurate.needs import needs
from metacurate.printable import printable
from metacurate.reporting.charts import Chart, inline_svg

with needs("report"):
    import jinja2
    from markupsafe import Markup


@dataclass(frozen=True)
class Column:
    """A column of a table.

    ``kind``: its class in the style sheet. ``shown``: ``plain``; ``foreign`` (text from outside,
    cut at ``limit`` characters); ``bars`` (a list of shares of the width, each with its class).
    """

    name: str
    kind: str = ""
    shown: str = "plain"
    limit: int = 80


@dataclass(frozen=True)
class Table:
    """A table: each row has a value a column."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Figure:
    """A chart in the page: its SVG, and its values (places in the SVG, and a table's rows)."""

    title: str
    svg: Markup
    columns: Sequence[str]
    rows: Sequence[tuple[float, Sequence[str]]]


def figure_of(chart: Chart, name: str, title: str) -> Figure:
    """A chart for the page; ``name`` makes its ids the page's own."""
    return Figure(title, Markup(inline_svg(chart.figure, name, title)), chart.columns, chart.rows)


@cache
def templates() -> jinja2.Environment:
    """The templates of ``templates/``; values are escaped unless they are ``Markup``."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metacurate.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": "{:,}".format, "printable": printable, "width": _width}
    environment.tests["web_address"] = is_web_address
    return environment


def render(template: str, **values: Any) -> str:
    """A whole page, with the style and the script that its security policy allows."""
    resources = files("metacurate.reporting")
    style = resources.joinpath("page.css").read_text(encoding="utf-8")
    script = resources.joinpath("page.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src {csp_hash(style)}; script-src {csp_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        templates()
        .get_template(template)
        .render(policy=policy, style=Markup(style), script=Markup(script), **values)
    )


def _width(share: float) -> str:
    """A share of the width of bars, at most all of it, in per cent."""
    return f"{100 * min(max(share, 0.0), 1.0):.2f}"


def is_web_address(url: str) -> bool:
    """Whether a URL may be a link: a plain one with http or https."""
    try:
        return urlsplit(url).scheme.lower() in ("http", "https") and url.isprintable()
    except ValueError:
        return False


def marked(value: str, entry: str, limit: int, length: int) -> tuple[str, str, str]:
    """Foreign text (of a whole ``length``) parted around the first occurrence of an entry.

    What is before, the occurrence (empty if there is none) and what is after, made printable.
    """
    shown, wanted = printable(value, limit, length), printable(entry, limit)
    place = _occurrence(shown, wanted)
    if place < 0:
        return shown, "", ""
    end = place + len(wanted)
    return shown[:place], shown[place:end], shown[end:]


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


def csp_hash(content: str) -> str:
    """The source expression of an inline style or script in a content-security policy."""
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
