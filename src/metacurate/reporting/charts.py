"""The report's charts: matplotlib figures as SVG for the page, and as SVG and PNG files.

In the page the charts' colours are CSS variables (light and dark), and no element has a style
attribute: the page's content-security policy allows none.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from metacurate.curation.balancing import Counts
from metacurate.needs import needs
from metacurate.runtime.storage import Folder

with needs("report"):
    from matplotlib import style
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"

COLOURS = {
    "ink": "#1f2328",
    "muted": "#5d6670",
    "grid": "#d8dce1",
    "before": "#8a94a0",
    "after": "#0a7d70",
    "accent": "#b3471d",
    "second": "#3b5bb5",
    "third": "#8a5aa8",
}
"""The charts' colours on white; the page gives the variables ``--chart-NAME`` their values."""

MAX_CURVE_POINTS = 400
TABLE_POINTS = 25
"""So many places of a curve have their values in a table, and under the pointer."""
PNG_DPI = 160
LEAST_COUNT = 0.8
"""Where an axis of counts begins."""
MOST_ABOVE = 1000
"""A threshold so many times above all counts is not drawn."""

_STYLE = {
    "figure.figsize": (4.8, 3.3),
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "font.size": 9.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["grid"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "metacurate",
}


@dataclass(frozen=True)
class Chart:
    """A chart and some of its values, for a table and to be shown under the pointer.

    ``columns``: what the values are. ``rows``: each has the place of its values in the figure, in
    units of the inline SVG from its left, and the values in words.
    """

    figure: Figure
    columns: tuple[str, ...] = ()
    rows: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)


def _chart(
    fill: Callable[[Axes], None],
    columns: Sequence[str],
    values: Sequence[tuple[float, Sequence[str]]],
) -> Chart:
    """A chart that ``fill`` draws; ``values`` are (place on the horizontal axis, values)."""
    figure = draw(fill)
    place = figure.axes[0].transData
    points = 72 / figure.dpi  # an SVG's units are points
    rows = [
        (round(float(place.transform((x, 1))[0]) * points, 2), tuple(cells)) for x, cells in values
    ]
    return Chart(figure, tuple(columns), rows)


def draw(fill: Callable[[Axes], None]) -> Figure:
    """A figure with one chart that ``fill`` draws."""
    with style.context(["default", _STYLE]):
        figure = Figure(layout="constrained")
        fill(figure.add_subplot())
        # Laid out once, not again for each file.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return figure


def save_plot(figure: Figure, folder: Folder, name: str) -> None:
    """Write a figure as ``NAME.svg`` (letters as outlines: the same anywhere) and ``NAME.png``."""
    with folder.create(f"{name}.svg") as file:
        file.write(_svg(figure, "path").encode())
    with style.context(["default", _STYLE]), folder.create(f"{name}.png") as file:
        figure.savefig(file, format="png", dpi=PNG_DPI, metadata={"Software": None})


def _svg(figure: Figure, fonttype: str) -> str:
    buffer = io.StringIO()
    with style.context(["default", _STYLE, {"svg.fonttype": fonttype}]):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """A figure as an ``<svg>`` element for the page; ``name`` makes its ids the page's own."""
    root = ElementTree.fromstring(_svg(figure, "none"))
    variables = {value: f"var(--chart-{key})" for key, value in COLOURS.items()}
    variables["#ffffff"] = "none"  # the page's own background
    dropped = {f"{{{SVG}}}metadata", f"{{{SVG}}}style"}
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag in dropped]:
            parent.remove(child)
    for element in root.iter():
        for property_, value in _declarations(element.attrib.pop("style", "")):
            if property_ != "font-family":  # the page's
                element.set(property_, value)
        link = element.attrib.pop(f"{{{XLINK}}}href", None)
        if link is not None:
            element.set("href", link)
        for key, value in list(element.attrib.items()):
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif key == "href":
                element.set(key, value.replace("#", f"#{name}-", 1))
            elif value in variables:
                element.set(key, variables[value])
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", title)
    ElementTree.register_namespace("", SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _declarations(style: str) -> list[tuple[str, str]]:
    pairs = (declaration.split(":", 1) for declaration in style.split(";") if ":" in declaration)
    return [(property_.strip(), value.strip()) for property_, value in pairs]


def short_number(value: float, _position: int | None = None) -> str:
    """A number in few characters: 950, 1.5k, 20k, 3M, 5.7B."""
    if math.isinf(value):
        return "∞"
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


# Up to here a logarithmic axis has ticks between the powers of ten, and few points have marks.
SHORT_AXIS = 200
FEW_POINTS = 30
LINEAR_ENTRIES = 20
"""Bins with no more entries than this are drawn on a linear axis: a small pool's would be flat."""


def _log_axis(axis: Any, top: float) -> None:
    """Ticks of a logarithmic axis whose values go up to ``top``."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if top < SHORT_AXIS else (1.0,)))
    axis.set_major_formatter(FuncFormatter(short_number))
    axis.set_minor_locator(NullLocator())


def cumulative_chart(counts: Counts, t: float, thresholds: Sequence[float]) -> Chart:
    """Cumulative counts over entries from the least to the most common, for each threshold.

    An entry counts ``min(count, t)``, its expected number of successful draws. ``t`` (the run's)
    is drawn strong; a vertical line divides its tail from its head.
    """
    ordered = np.sort(counts[counts > 0]).astype(np.float64)
    weak = iter(("second", "third", "accent", "muted"))
    shown = sorted({*thresholds, t, math.inf}, reverse=True)

    def fill(axes: Axes) -> None:
        for threshold in shown:
            curve = np.cumsum(np.minimum(ordered, threshold))
            colour = "before" if math.isinf(threshold) else next(weak, "muted")
            at = _curve_points(curve)
            axes.plot(
                at + 1, curve[at],
                color=COLOURS["after" if threshold == t else colour],
                linewidth=2.4 if threshold == t else 1.4,
                label=f"t = {short_number(threshold)}",
            )  # fmt: skip
        tail = int(np.searchsorted(ordered, t))
        if 0 < tail < ordered.size:
            axes.axvline(tail + 0.5, color=COLOURS["muted"], linewidth=1, linestyle=(0, (3, 3)))
            for word, side, away in (("tail", "right", -6), ("head", "left", 6)):
                axes.annotate(
                    word, (tail + 0.5, 0.5), (away, 0), xycoords=axes.get_xaxis_transform(),
                    textcoords="offset points", ha=side, color=COLOURS["muted"],
                )  # fmt: skip
        axes.set_xlabel("entries, from the least to the most common")
        axes.set_ylabel("cumulative count")
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(short_number))
        axes.yaxis.set_major_formatter(FuncFormatter(short_number))
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.legend(loc="upper left")

    curves = [np.cumsum(np.minimum(ordered, threshold)) for threshold in shown]
    values = [
        (place + 1, [f"{place + 1:,}", *(f"{curve[place]:,.6g}" for curve in curves)])
        for place in np.unique(np.linspace(0, ordered.size - 1, TABLE_POINTS).astype(int)).tolist()
        if ordered.size
    ]
    columns = ["entries", *(f"t = {short_number(threshold)}" for threshold in shown)]
    return _chart(fill, columns, values)


def _curve_points(curve: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Where to sample a rising curve: evenly in both directions, both ends included."""
    if curve.size <= MAX_CURVE_POINTS:
        return np.arange(curve.size)
    half = MAX_CURVE_POINTS // 2
    across = np.linspace(0, curve.size - 1, half).astype(np.int64)
    up = np.searchsorted(curve, np.linspace(curve[0], curve[-1], half))
    return np.unique(np.concatenate([across, np.minimum(up, curve.size - 1)]))


def histogram_chart(counts: Counts, kept: Counts, t: float) -> Chart:
    """Entries by their count, before and after balancing, both axes logarithmic."""
    top = max(1, int(counts.max(initial=1)))
    # Whole numbers as edges where bins are narrow: no bin is empty by construction.
    edges = np.unique(np.round(np.geomspace(1, top + 1, 41)))
    numbers = {
        name: np.histogram(values[values > 0], edges)[0]
        for name, values in (("before", counts), ("after", kept))
    }

    def fill(axes: Axes) -> None:
        axes.set_xlabel("count of an entry")
        axes.set_ylabel("entries")
        if not counts.any():
            return
        for name in ("before", "after"):
            axes.stairs(
                numbers[name], edges, color=COLOURS[name], label=name, linewidth=1.8,
                fill=False, baseline=None,
            )  # fmt: skip
        if math.isfinite(t) and edges[0] < t < edges[-1]:
            axes.axvline(t, color=COLOURS["muted"], linewidth=1, linestyle=(0, (3, 3)))
            axes.annotate(
                f"t = {short_number(t)}", (t, 0.97), (6, 0), xycoords=axes.get_xaxis_transform(),
                textcoords="offset points", va="top", color=COLOURS["muted"],
            )  # fmt: skip
        axes.set_xscale("log")
        _log_axis(axes.xaxis, top)
        most = max(int(found.max()) for found in numbers.values())
        if most > LINEAR_ENTRIES:
            axes.set_yscale("log")
            axes.set_ylim(bottom=LEAST_COUNT)
            _log_axis(axes.yaxis, most)
        else:
            axes.set_ylim(0, most * 1.25)
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="upper right")

    values = [
        (math.sqrt(low * high), [_span(low, high - 1), f"{before:,}", f"{after:,}"])
        for low, high, before, after in zip(
            edges[:-1].tolist(), edges[1:].tolist(), numbers["before"].tolist(),
            numbers["after"].tolist(), strict=True,
        )
        if before or after
    ]  # fmt: skip
    return _chart(fill, ["count", "entries before", "entries after"], values)


def _span(low: float, high: float) -> str:
    """The whole numbers of a bin."""
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def rank_chart(counts: Counts, kept: Counts, t: float) -> Chart:
    """Counts over entries from the most to the least common, both axes logarithmic."""
    order = np.argsort(counts, kind="stable")[::-1]
    order = order[counts[order] > 0]
    ranks = np.unique(np.geomspace(1, max(order.size, 1), MAX_CURVE_POINTS).astype(np.int64))

    after = kept[order].astype(np.float64)
    few = order.size <= FEW_POINTS
    if not few:
        after = _windowed_median(after, ranks)

    def fill(axes: Axes) -> None:
        axes.set_xlabel("rank of the entry before balancing")
        axes.set_ylabel("count")
        if not order.size:
            return
        marks: dict[str, Any] = {"marker": "o", "markersize": 4} if few else {}
        before = counts[order][ranks - 1]
        axes.plot(ranks, before, color=COLOURS["before"], label="before", **marks)
        label = "after" if few else "after (median around the rank)"
        axes.plot(ranks, after, color=COLOURS["after"], label=label, **marks)
        # Beyond the axis its words would stand outside of the chart, or the curves would be flat.
        if LEAST_COUNT <= t <= MOST_ABOVE * counts.max():
            axes.axhline(t, color=COLOURS["muted"], linewidth=1, linestyle=(0, (3, 3)))
            axes.text(
                0.02, t, f"t = {short_number(t)}", transform=axes.get_yaxis_transform(),
                va="bottom", color=COLOURS["muted"],
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(bottom=LEAST_COUNT)
        _log_axis(axes.xaxis, order.size)
        _log_axis(axes.yaxis, int(counts.max()))
        axes.legend(loc="upper right")

    shown = np.unique(np.linspace(0, ranks.size - 1, TABLE_POINTS).astype(int))
    values = [
        (rank, [f"{rank:,}", f"{int(counts[order[rank - 1]]):,}", f"{after[place]:,.6g}"])
        for place, rank in zip(shown.tolist(), ranks[shown].tolist(), strict=True)
        if order.size
    ]
    return _chart(fill, ["rank", "before", "after" if few else "after (median)"], values)


def sides_chart(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> Chart:
    """Counts (or shares) of two sides, each over its own entries from the most common on."""
    ordered = [np.sort(side[side > 0])[::-1] for side in (first, second)]
    most = max(side.size for side in ordered)
    top = max(float(side.max(initial=0)) for side in ordered)
    ranks = np.unique(np.geomspace(1, max(most, 1), MAX_CURVE_POINTS).astype(np.int64))

    def fill(axes: Axes) -> None:
        axes.set_xlabel("rank of the entry")
        axes.set_ylabel("count")
        if not most:
            return
        # The first is broad: it is seen where the second lies on it.
        styles = (("A", "before", 4.0), ("B", "after", 1.6))
        for side, (label, colour, width) in zip(ordered, styles, strict=True):
            there = ranks[ranks <= side.size]
            axes.plot(
                there, side[there - 1], color=COLOURS[colour], label=label, linewidth=width,
                marker="o" if side.size <= FEW_POINTS else None, markersize=width + 2,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        if top > 1:  # counts, not shares
            axes.set_ylim(bottom=LEAST_COUNT)
        _log_axis(axes.xaxis, most)
        _log_axis(axes.yaxis, top)
        axes.legend(loc="upper right")

    shown = np.unique(np.linspace(0, ranks.size - 1, TABLE_POINTS).astype(int))
    values = [
        (
            rank,
            [f"{rank:,}", *(f"{s[rank - 1]:,.6g}" if rank <= s.size else "–" for s in ordered)],
        )
        for rank in ranks[shown].tolist()
        if most
    ]
    return _chart(fill, ["rank", "A", "B"], values)


def _windowed_median(
    values: npt.NDArray[np.float64], ranks: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The median over ranks within 10% of each rank."""
    return np.array([np.median(values[int(r * 0.9) : int(r * 1.1) + 1]) for r in ranks - 1])


def matches_chart(before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> Chart:
    """The share of texts by their number of matched entries (from 1), before and after."""
    last = before.size - 1
    used = int(np.max(np.flatnonzero(before[1:]), initial=0)) + 1
    places = np.arange(1, used + 1)

    shares = {
        name: values[1 : used + 1] / max(int(values[1:].sum()), 1)
        for name, values in (("before", before), ("after", after))
    }

    def fill(axes: Axes) -> None:
        for name, shift in (("before", -0.2), ("after", 0.2)):
            axes.bar(
                places + shift, shares[name], width=0.4,
                color=COLOURS[name], label=name,
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0.4, used + 0.6)
        axes.set_xlabel("matched entries of a text" + (f" ({last}: or more)" * (used == last)))
        axes.set_ylabel("share of matched texts")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper right")

    values = [
        (place, [
            f"{place:,}" + " or more" * (place == last),
            f"{shares['before'][place - 1]:.2%}", f"{shares['after'][place - 1]:.2%}",
        ])
        for place in places.tolist()
    ]  # fmt: skip
    return _chart(fill, ["matched entries", "texts before", "texts after"], values)
