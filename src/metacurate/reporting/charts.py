"""The report's charts: matplotlib figures as SVG for the page, and as SVG and PNG files.

In the page the charts' colours are CSS variables (light and dark), and no element has a style
attribute: the page's content-security policy allows none.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
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
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

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
PNG_DPI = 160

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


def _log_axis(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(short_number))
    axis.set_minor_locator(NullLocator())


def cumulative_chart(counts: Counts, t: float, thresholds: Sequence[float]) -> Figure:
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
        axes.xaxis.set_major_formatter(FuncFormatter(short_number))
        axes.yaxis.set_major_formatter(FuncFormatter(short_number))
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.legend(loc="upper left")

    return draw(fill)


def _curve_points(curve: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Where to sample a rising curve: evenly in both directions, both ends included."""
    if curve.size <= MAX_CURVE_POINTS:
        return np.arange(curve.size)
    half = MAX_CURVE_POINTS // 2
    across = np.linspace(0, curve.size - 1, half).astype(np.int64)
    up = np.searchsorted(curve, np.linspace(curve[0], curve[-1], half))
    return np.unique(np.concatenate([across, np.minimum(up, curve.size - 1)]))


def histogram_chart(counts: Counts, kept: Counts, t: float) -> Figure:
    """Entries by their count, before and after balancing, both axes logarithmic."""
    top = max(1, int(counts.max(initial=1)))
    # Whole numbers as edges where bins are narrow: no bin is empty by construction.
    edges = np.unique(np.round(np.geomspace(1, top + 1, 41)))

    def fill(axes: Axes) -> None:
        axes.set_xlabel("count of an entry")
        axes.set_ylabel("entries")
        if not counts.any():
            return
        for name, values in (("before", counts), ("after", kept)):
            numbers, _ = np.histogram(values[values > 0], edges)
            axes.stairs(
                numbers, edges, color=COLOURS[name], label=name, linewidth=1.8,
                fill=False, baseline=None,
            )  # fmt: skip
        if math.isfinite(t) and edges[0] < t < edges[-1]:
            axes.axvline(t, color=COLOURS["muted"], linewidth=1, linestyle=(0, (3, 3)))
            axes.annotate(
                f"t = {short_number(t)}", (t, 0.97), (6, 0), xycoords=axes.get_xaxis_transform(),
                textcoords="offset points", va="top", color=COLOURS["muted"],
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.8)
        _log_axis(axes.xaxis)
        _log_axis(axes.yaxis)
        axes.legend(loc="upper right")

    return draw(fill)


def rank_chart(counts: Counts, kept: Counts, t: float) -> Figure:
    """Counts over entries from the most to the least common, both axes logarithmic."""
    order = np.argsort(counts, kind="stable")[::-1]
    order = order[counts[order] > 0]
    ranks = np.unique(np.geomspace(1, max(order.size, 1), MAX_CURVE_POINTS).astype(np.int64))

    def fill(axes: Axes) -> None:
        axes.set_xlabel("rank of the entry before balancing")
        axes.set_ylabel("count")
        if not order.size:
            return
        after = _windowed_median(kept[order].astype(np.float64), ranks)
        axes.plot(ranks, counts[order][ranks - 1], color=COLOURS["before"], label="before")
        axes.plot(ranks, after, color=COLOURS["after"], label="after (median around the rank)")
        if math.isfinite(t):
            axes.axhline(t, color=COLOURS["muted"], linewidth=1, linestyle=(0, (3, 3)))
            axes.text(
                0.02, t, f"t = {short_number(t)}", transform=axes.get_yaxis_transform(),
                va="bottom", color=COLOURS["muted"],
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.8)
        _log_axis(axes.xaxis)
        _log_axis(axes.yaxis)
        axes.legend(loc="upper right")

    return draw(fill)


def _windowed_median(
    values: npt.NDArray[np.float64], ranks: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """The median over ranks within 10% of each rank."""
    return np.array([np.median(values[int(r * 0.9) : int(r * 1.1) + 1]) for r in ranks - 1])


def matches_chart(before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> Figure:
    """The share of texts by their number of matched entries (from 1), before and after."""
    last = before.size - 1
    used = max(int(np.max(np.flatnonzero(before[1:]), initial=0)) + 1, 3)
    places = np.arange(1, used + 1)

    def fill(axes: Axes) -> None:
        for name, values, shift in (("before", before, -0.2), ("after", after, 0.2)):
            total = max(int(values[1:].sum()), 1)
            axes.bar(
                places + shift, values[1 : used + 1] / total, width=0.4,
                color=COLOURS[name], label=name,
            )  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("matched entries of a text" + (f" ({last}: or more)" * (used == last)))
        axes.set_ylabel("share of matched texts")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="upper right")

    return draw(fill)
