"""The page that compares two data cards, in the style of the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from metacurate.analysis.read_counts import Card
from metacurate.printable import printable
from metacurate.reporting import charts
from metacurate.reporting.html import Column, Figure, Table, figure_of, render
from metacurate.reporting.provenance import pool_name
from metacurate.version import __version__

SECTIONS = {
    "totals": "Totals",
    "counts": "Counts by rank",
    "movers": "Largest changes",
    "gained": "Gained and lost",
    "by_language": "By language",
}
PARTS = ("before", "after")
LANGUAGE_ROWS = 400


def render_comparison(first: Card, second: Card, found: dict[str, Any]) -> str:
    """A whole page, as HTML, from two cards and what ``analysis.diff.compare`` finds of them."""
    names = [pool_name([card.name]) for card in (first, second)]
    parts = [part for part in PARTS if part in found]
    sides = {
        "before": (first.counts, second.counts),
        "after": (first.balanced, second.balanced),
    }
    last = found[parts[-1]]
    return render(
        "comparison.html",
        title=f"{names[0]} and {names[1]}: comparison",
        names=names,
        divergence=last["jensen_shannon_divergence"],
        last=parts[-1],
        gained=last["entries_gained"],
        lost=last["entries_lost"],
        titles=SECTIONS,
        sections={
            "totals": _totals(found, parts),
            "counts": {part: _ranks(part, *sides[part]) for part in parts},
            "movers": [
                _movers(part, found[part]["movers"]) for part in parts if found[part]["movers"]
            ] or None,
            "gained": [(part, kind, found[part][f"entries_{kind}"], found[part][kind])
                       for part in parts for kind in ("gained", "lost")],
            "by_language": _languages(found),
        },
        version=__version__,
    )  # fmt: skip


def _totals(found: dict[str, Any], parts: list[str]) -> Table:
    rows = [["threshold t", *map(_number, found["t"])]]
    for part in parts:
        rows += [
            [f"matches {part}", *map(_number, found[part]["match_counts"])],
            [f"entries matched {part}", *map(_number, found[part]["entries_matched"])],
        ]
    if "parts" in found:
        moved = found["parts"]
        rows.append(["head entries", *map(_number, moved["head_entries"])])
        for part in PARTS:
            shares = moved[f"tail_proportion_{part}"]
            rows.append([f"tail's share {part}", *(f"{share:.2%}" for share in shares)])
        rows.append(
            ["head here, tail there", f"{moved['head_to_tail']:,}", f"{moved['tail_to_head']:,}"]
        )
    return Table("", [Column("total"), Column("A", "n"), Column("B", "n")], rows)


def _ranks(part: str, first: Mapping[str, float], second: Mapping[str, float]) -> Figure:
    values = [np.array(list(side.values()), np.float64) for side in (first, second)]
    title = f"Counts by rank in A and in B, {part} balancing"
    return figure_of(charts.sides_chart(*values), f"ranks-{part}", title)


def _movers(part: str, movers: list[dict[str, Any]]) -> Table:
    most = max((max(mover["shares"]) for mover in movers), default=1.0) or 1.0
    rows = []
    for mover in movers:
        a, b = mover["shares"]
        rows.append([
            mover["entry"], *map(_number, mover["counts"]), f"{a:.3%}", f"{b:.3%}",
            f"{b - a:+.3%}", [(a / most, "b0"), (b / most, "b1")],
        ])  # fmt: skip
    columns = [
        Column("entry", "e", "foreign"), Column("count in A", "n wide"),
        Column("count in B", "n wide"), Column("share in A", "n wide"),
        Column("share in B", "n wide"), Column("change", "n"),
        Column("shares: A, B", "bar", "bars"),
    ]  # fmt: skip
    return Table(
        f"Entries whose share of all matches changed most, {part} balancing", columns, rows
    )


def _languages(found: dict[str, Any]) -> Table | None:
    if "languages" not in found:
        return None
    compared = [(name, own) for name, own in found["languages"].items() if sum(own["match_counts"])]
    ranked = sorted(compared, key=lambda item: (-sum(item[1]["match_counts"]), item[0]))
    rows = [
        [
            name, *map(_number, own["match_counts"]), *map(_number, own["t"]),
            f"{own['entries_gained']:,}", f"{own['entries_lost']:,}",
            _bits(own["jensen_shannon_divergence"]),
        ]
        for name, own in ranked[:LANGUAGE_ROWS]
    ]  # fmt: skip
    columns = [
        Column("language", "e", "foreign"), Column("matches in A", "n"), Column("in B", "n"),
        Column("t in A", "n wide"), Column("in B", "n wide"), Column("gained", "n wide"),
        Column("lost", "n wide"), Column("divergence", "n"),
    ]  # fmt: skip
    more = f" (the first {LANGUAGE_ROWS} of {len(ranked):,})" * (len(ranked) > LANGUAGE_ROWS)
    return Table(f"Before balancing{more}", columns, rows)


def _number(value: float | str | None) -> str:
    if value is None:
        return "–"
    return printable(value) if isinstance(value, str) else f"{value:,.10g}"


def _bits(divergence: float | None) -> str:
    return "–" if divergence is None else f"{divergence:.6f}"
