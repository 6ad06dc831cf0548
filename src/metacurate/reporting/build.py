"""Writing the report of a finished run: the pass over its shards, the charts, the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from metacurate.curation import balancing
from metacurate.curation.balancing import Counts
from metacurate.curation.layout import (
    BALANCE,
    COUNT,
    DATACARD_FILE,
    KEPT_COUNTS_FILE,
    MATCH,
    REPORT,
    REPORT_FILE,
    finished_section,
    load_counts,
    matched_run,
    run_metadata,
)
from metacurate.curation.settings import ANY, check_t, json_number
from metacurate.curation.subset import run_pool_config, smallest_hashes
from metacurate.curation.thresholds import Thresholds, run_thresholds
from metacurate.errors import UserError
from metacurate.metadata.lookup import entry_id
from metacurate.metadata.store import Metadata
from metacurate.reporting import charts
from metacurate.reporting.html import Figure, figure_of
from metacurate.reporting.page import PageData, render_page
from metacurate.reporting.plots import PLOTS
from metacurate.reporting.rejected import costly_entries, sampled_units
from metacurate.reporting.scan import Draws, Scan, ScanTask, add_up, scan_shards, scan_tasks
from metacurate.runtime.made import load_array
from metacurate.runtime.manifest import Statistics, digest
from metacurate.runtime.run import Run
from metacurate.runtime.stage import run_stage

PLOT_FOLDER = "report"
LANGUAGES_DRAWN = 12
"""The languages with most matches have charts of their own, up to this many."""


@dataclass(frozen=True)
class ReportConfig:
    """What the report shows.

    ``thresholds``: further t of the cumulative curve (if none: a quarter and four times the run's).
    ``entries``: names of entries to show sample pairs of, besides the head's and the tail's; with
    several languages as ``zh:猫``.
    ``head``, ``tail``, ``unmatched``: how many entries of each kind; ``samples``: pairs an entry.
    ``tars``: a folder of WebDataset shards to take thumbnails from.
    """

    thresholds: tuple[float, ...] = ()
    entries: tuple[str, ...] = ()
    head: int = 50
    tail: int = 30
    unmatched: int = 60
    samples: int = 4
    tars: str | None = None

    def __post_init__(self) -> None:
        for t in self.thresholds:
            check_t(t)
        if min(self.head, self.tail, self.unmatched, self.samples) < 0:
            raise UserError("the numbers of entries and samples cannot be negative")


@dataclass(frozen=True)
class Chosen:
    """Entry ids that the report shows, each kind sorted as shown."""

    head: npt.NDArray[np.int64]
    tail: npt.NDArray[np.int64]
    unmatched: npt.NDArray[np.int64]
    named: list[int] = field(default_factory=list)

    @property
    def sampled(self) -> list[int]:
        """The entries to show sample pairs of, each once."""
        return list(dict.fromkeys([*self.named, *self.head.tolist(), *self.tail.tolist()]))


class ReportTotals(TypedDict):
    """What the page is made of: pairs of the pool, that match and that are kept, and its parts."""

    pairs: int
    pairs_matched: int
    pairs_kept: int
    sample_pairs: int
    thumbnails: int
    plots: int
    page_bytes: int


def write_report(run: Run, config: ReportConfig | None = None) -> ReportTotals:
    """Write ``report.html`` and its plots into a finished run's folder.

    The pass over the shards resumes what was done with the same settings; with other settings it is
    done again. Raises UserError if the run is not finished or lacks a named entry. As with other
    stages, the caller holds the folder (``metacurate.runtime.run.open_run``).
    """
    config = config or ReportConfig()
    folder = run.folder
    shards, entries = matched_run(folder)
    match, count, balance = (finished_section(folder, stage) for stage in (MATCH, COUNT, BALANCE))
    if not folder.exists(DATACARD_FILE):
        raise UserError(f"{folder.url} has no data card; run the command that made the run again")
    counts, kept = load_counts(folder), load_array(folder, KEPT_COUNTS_FILE)
    metadata = run_metadata(folder)
    thresholds = run_thresholds(folder)
    by_entry = thresholds.by_entry
    # The page's charts are of one threshold: those of one list, or of the reference language.
    block, t = thresholds.blocks[thresholds.reference], thresholds.of_reference
    reference = slice(block.first, block.stop)
    chosen = choose_entries(metadata, counts, by_entry, config)
    settings = asdict(config) | {"thresholds": [json_number(x) for x in config.thresholds]}
    costly = costly_entries(counts, kept)
    draws = Draws(
        thresholds,
        balance["config"].get("choose_text", ANY),
        balance["totals"]["seed"],
        digest({"matched": match["config"], "counted": count["config"]}),
        tuple(costly.tolist()),
    )
    pool_config = run_pool_config(folder)
    rejected_from = sampled_units(match, pool_config, run.engine)

    settings |= {"pool_read": rejected_from.why_not is None}

    def tasks() -> list[ScanTask]:
        return scan_tasks(
            folder, pool_config, shards, entries, chosen.sampled, config.samples, draws,
            rejected_from.units,
        )  # fmt: skip

    def page(parts: list[Statistics]) -> ReportTotals:
        found = add_up(parts, chosen.sampled, config.samples)
        thumbnails: dict[str, str] = {}
        if config.tars:
            from metacurate.reporting.thumbnails import find_thumbnails  # with the image decoders

            thumbnails = find_thumbnails(config.tars, found.samples)
        figures = draw_charts(counts[reference], kept[reference], t, config.thresholds, found)
        card = folder.read_json(DATACARD_FILE)
        html = render_page(
            PageData(
                match=match, count=count, balance=balance, tables=card["tables"],
                metadata=metadata, counts=counts, kept=kept, t=t, thresholds=by_entry,
                head=chosen.head, tail=chosen.tail, unmatched=chosen.unmatched,
                sampled=chosen.sampled, scan=found, costly=costly,
                rejected_from=rejected_from, thumbnails=thumbnails,
                charts={n: figure_of(chart, n, PLOTS[n]) for n, chart in figures.items()},
                reference=block.language,
                languages=card.get("languages", {}),
                language_charts=language_charts(thresholds, counts, kept),
            )
        )  # fmt: skip
        for name, chart in figures.items():
            charts.save_plot(chart.figure, folder, f"{PLOT_FOLDER}/{name}")
        with folder.create(REPORT_FILE) as file:
            file.write(html.encode())
        return {
            "pairs": match["totals"]["pairs"],
            "pairs_matched": match["totals"]["pairs_matched"],
            "pairs_kept": balance["totals"]["pairs_kept"],
            "sample_pairs": sum(map(len, found.samples.values())),
            "thumbnails": len(thumbnails),
            "plots": len(figures),
            "page_bytes": len(html.encode()),
        }

    return run_stage(
        run, REPORT, settings, tasks, scan_shards, unit="pairs", totals=page, replace=True,
        alone=True,
    )  # fmt: skip


def choose_entries(
    metadata: Metadata, counts: Counts, t: npt.NDArray[np.float64], config: ReportConfig
) -> Chosen:
    """The most common entries, and samples of the tail and of the entries never matched.

    ``t`` float64[entries]: each entry's threshold.
    """
    head = np.argsort(counts, kind="stable")[::-1][: config.head]
    head = head[counts[head] > 0]
    tail = np.flatnonzero((counts > 0) & (counts < t))
    tail = smallest_hashes(np.setdiff1d(tail, head), config.tail)
    return Chosen(
        head=head,
        tail=tail[np.argsort(counts[tail], kind="stable")[::-1]],
        unmatched=smallest_hashes(np.flatnonzero(counts == 0), config.unmatched),
        named=[_named_entry(metadata, name) for name in config.entries],
    )


def _named_entry(metadata: Metadata, name: str) -> int:
    lang, mark, entry = name.partition(":")
    if mark and lang in metadata.languages:
        return entry_id(metadata, entry, lang)
    return entry_id(metadata, name)


def language_charts(
    thresholds: Thresholds, counts: Counts, kept: Counts
) -> dict[str, dict[str, Figure]]:
    """The charts of the languages with most matches by language and name; none of one list.

    The reference language is left out: the page's own charts are its.
    """
    drawn: dict[str, dict[str, Figure]] = {}
    if thresholds.blocks[0].language is None:
        return drawn
    matches = [int(counts[b.first : b.stop].sum()) for b in thresholds.blocks]
    order = sorted(range(len(matches)), key=lambda place: (-matches[place], place))
    for place in [p for p in order if matches[p] and p != thresholds.reference][:LANGUAGES_DRAWN]:
        block, t = thresholds.blocks[place], thresholds.t[place]
        own, left = (values[block.first : block.stop] for values in (counts, kept))
        figures = {
            "cumulative": charts.cumulative_chart(own, t, []),
            "ranks": charts.rank_chart(own, left, t),
        }
        drawn[str(block.language)] = {
            name: figure_of(chart, f"{name}-{place}", PLOTS[name])
            for name, chart in figures.items()
        }
    return drawn


def draw_charts(
    counts: Counts, kept: Counts, t: float, thresholds: Sequence[float], found: Scan
) -> dict[str, charts.Chart]:
    """All charts by name."""
    if not thresholds:
        middle = t if math.isfinite(t) else balancing.solve_threshold(counts, 0.06)
        thresholds = [x for x in (middle / 4, middle, middle * 4) if math.isfinite(x)]
    return {
        "cumulative": charts.cumulative_chart(counts, t, thresholds),
        "ranks": charts.rank_chart(counts, kept, t),
        "histogram": charts.histogram_chart(counts, kept, t),
        "matches": charts.matches_chart(found.matches_before, found.matches_after),
    }
