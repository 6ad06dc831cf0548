"""The report's page: one HTML file that needs nothing else and allows itself nothing else.

Here values are chosen and counted; ``templates/`` has the words and the HTML.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.curation.balancing import Counts, keep_probabilities
from metacurate.curation.subset import Sample
from metacurate.formats.reasons import NO_IMAGE, NO_TEXT, NO_URL
from metacurate.metadata.store import Metadata
from metacurate.printable import printable
from metacurate.reporting.charts import short_number
from metacurate.reporting.entry_index import held_entries, packed_entries
from metacurate.reporting.html import Column, Figure, Table, marked, render
from metacurate.reporting.provenance import curate_command, pool_name
from metacurate.reporting.rejected import DROPPED, NO_MATCH, RejectedFrom
from metacurate.reporting.scan import OTHER, Scan
from metacurate.version import __version__

TABLE_ROWS = 25
CAPTION_CHARACTERS = 300

LANGUAGE_ROWS = 400
SECTIONS = {
    "search": "Search",
    "distribution": "Distribution",
    "languages": "Languages",
    "rejected": "Not kept",
    "head": "Head",
    "tail": "Tail",
    "unmatched": "Never matched",
    "sources": "Sources and languages",
    "samples": "Sample pairs",
}


@dataclass(frozen=True)
class PageData:
    """What the page shows; ``match``, ``count`` and ``balance`` are manifest sections.

    ``tables``: the data card's.

    ``counts`` and ``kept`` uint64[entries]; ``head``, ``tail``, ``unmatched`` and ``sampled`` are
    entry ids, ``costly`` those of ``scan.lost``; ``charts`` by name; ``thumbnails``
    data URIs by uid; ``rejected_from`` where samples of what is not kept come from. ``t`` is that
    of the one list or of the ``reference`` language, ``thresholds`` float64[entries] each entry's.
    With several languages, ``languages`` has the card's facts and ``language_charts`` those of
    some.
    """

    match: dict[str, Any]
    count: dict[str, Any]
    balance: dict[str, Any]
    tables: dict[str, dict[str, dict[str, int]]]
    metadata: Metadata
    counts: Counts
    kept: Counts
    t: float
    thresholds: npt.NDArray[np.float64]
    head: npt.NDArray[np.int64]
    tail: npt.NDArray[np.int64]
    unmatched: npt.NDArray[np.int64]
    sampled: Sequence[int]
    scan: Scan
    costly: npt.NDArray[np.int64]
    rejected_from: RejectedFrom
    thumbnails: dict[str, str]
    charts: dict[str, Figure]
    reference: str | None = None
    languages: dict[str, dict[str, Any]] = field(default_factory=dict)
    language_charts: dict[str, dict[str, Figure]] = field(default_factory=dict)

    def language(self, position: int) -> str | None:
        """An entry's language; None if the metadata are one list."""
        if not self.languages or self.metadata.lang is None:
            return None
        return self.metadata.lang[position].as_py()

    def shown(self, position: int) -> str:
        """An entry with its language, if there are several, to be escaped."""
        language = self.language(position)
        return self.entry(position) if language is None else f"{self.entry(position)} ({language})"

    def entry(self, position: int) -> str:
        """An entry as it is, to be escaped."""
        return self.metadata.entries[position].as_py()

    @property
    def threshold(self) -> str:
        """The threshold in words."""
        t = "infinite" if math.isinf(self.t) else f"{self.t:,.6g}"
        return t if self.reference is None else f"{t} ({self.reference})"


def render_page(data: PageData) -> str:
    """The whole page as HTML."""
    match, kept = data.match["totals"], data.balance["totals"]
    head = data.counts >= data.thresholds
    made = _made(data)
    return render(
        "page.html",
        title=f"{made['pool']}, t = {data.threshold}: curation report",
        made=made,
        pairs=match["pairs"],
        pairs_kept=kept["pairs_kept"],
        pairs_expected=kept["pairs_expected"],
        threshold=data.threshold,
        short_threshold=short_number(data.t),
        balanced=not math.isinf(data.t),
        head={
            "entries": int(np.count_nonzero(head)),
            "share": _share(int(data.counts[head].sum()), int(data.counts.sum())),
        },
        facts=_facts(data),
        funnel=_funnel(data),
        texts={"pool": match["texts"], "matched": match["texts_matched"],
               "kept": kept["texts_kept"]},
        problems=_problems(data),
        titles=SECTIONS | ({"distribution": f"Distribution ({data.reference})"}
                           if data.reference is not None else {}),
        sections={
            "distribution": _distribution(data),
            "languages": _languages(data),
            "rejected": _rejected(data),
            "head": _head(data),
            "tail": _tail(data),
            "unmatched": _unmatched(data),
            "sources": _sources(data),
            "samples": _samples(data),
            "search": _search(data),
        },
        version=__version__,
        metadata=data.match["config"]["metadata"],
        seed=kept["seed"],
    )  # fmt: skip


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _facts(data: PageData) -> dict[str, str]:
    pairs_kept = data.balance["totals"]["pairs_kept"]
    return {
        "pairs kept": f"{pairs_kept:,}",
        "of the pool": _share(pairs_kept, data.match["totals"]["pairs"]),
        "threshold t": data.threshold,
        "tail's share of counts": f"{data.balance['totals']['p']:.1%}",
        "entries matched": f"{np.count_nonzero(data.counts):,}",
        "head entries": f"{np.count_nonzero(data.counts >= data.thresholds):,}",
        "matches before": f"{int(data.counts.sum()):,}",
        "matches after": f"{int(data.kept.sum()):,}",
    }


def _funnel(data: PageData) -> Table:
    match, kept = data.match["totals"], data.balance["totals"]
    steps = {
        "pool": match["pairs"],
        "with text": match["pairs"] - match["skipped"].get("no_text", 0),
        "matched": match["pairs_matched"],
        "kept": kept["pairs_kept"],
    }
    pairs = max(match["pairs"], 1)
    rows = [
        [
            name,
            f"{n:,}",
            _share(n, match["pairs"]),
            [(n / pairs, "b1" if name == "kept" else "b0")],
        ]
        for name, n in steps.items()
    ]
    columns = [
        Column("stage"), Column("pairs", "n"), Column("share", "n"),
        Column("of the pool", "bar", "bars"),
    ]  # fmt: skip
    return Table("Pairs from the pool to the subset", columns, rows)


def _problems(data: PageData) -> list[Table]:
    skipped, bad = data.match["totals"]["skipped"], data.match["totals"]["bad_files"]
    tables = []
    if skipped:
        rows = [[reason.replace("_", " "), f"{n:,}"] for reason, n in skipped.items()]
        columns = [Column("reason", "", "foreign"), Column("number", "n")]
        tables.append(Table("Skipped, or of no use", columns, rows))
    if bad:
        rows = [[str(address), str(why)] for address, why in list(bad.items())[:TABLE_ROWS]]
        columns = [Column(name, "", "foreign", 120) for name in ("file", "reason")]
        tables.append(Table(f"Files that could not be read ({len(bad):,})", columns, rows))
    return tables


def _distribution(data: PageData) -> dict[str, Any]:
    rows = [
        [name, *_group_cells(data, group)] for name, group in data.tables.get("part", {}).items()
    ]
    title = "Head and tail: entries, and matches before and after"
    return {
        "charts": data.charts,
        "parts": Table(title, [Column("part"), *_GROUP_COLUMNS], rows),
    }


_GROUP_COLUMNS = (
    Column("entries", "n"), Column("matched", "n wide"), Column("before", "n"),
    Column("after", "n"), Column("share before", "n wide"), Column("share after", "n"),
)  # fmt: skip


def _group_cells(data: PageData, group: dict[str, int]) -> list[str]:
    return [
        f"{group['entries']:,}",
        f"{group['matched_entries']:,}",
        f"{group['match_counts']:,}",
        f"{group['kept_match_counts']:,}",
        _share(group["match_counts"], int(data.counts.sum())),
        _share(group["kept_match_counts"], int(data.kept.sum())),
    ]


def _languages(data: PageData) -> dict[str, Any] | None:
    """A table of the languages, and the charts of those with most matches."""
    if not data.languages:
        return None
    ranked = sorted(data.languages.items(), key=lambda item: (-item[1]["match_counts"], item[0]))
    rows = [
        [
            language,
            f"{facts['entries']:,}",
            f"{facts['texts']:,}",
            f"{facts['match_counts']:,}",
            "–" if facts["t"] is None else short_number(float(facts["t"])),
            f"{facts['tail_proportion']:.1%}",
            f"{facts['head_entries']:,}",
            f"{facts['kept_texts']:,}",
            _share(facts["kept_texts"], facts["texts"]),
        ]
        for language, facts in ranked[:LANGUAGE_ROWS]
    ]
    columns = [
        Column("language", "e", "foreign"), Column("entries", "n wide"), Column("texts", "n"),
        Column("matches", "n"), Column("t", "n"), Column("p", "n wide"), Column("head", "n wide"),
        Column("kept texts", "n"), Column("share", "n"),
    ]  # fmt: skip
    more = f" (the first {LANGUAGE_ROWS} of {len(ranked):,})" * (len(ranked) > LANGUAGE_ROWS)
    return {
        "number": sum(facts["match_counts"] > 0 for facts in data.languages.values()),
        "all": len(ranked),
        "table": Table(f"Each language with its threshold t{more}", columns, rows),
        "charts": data.language_charts,
        "told": data.match["totals"]["not_in_own_language"],
    }


def _rejected(data: PageData) -> dict[str, Any] | None:
    """What was not kept: pairs by reason with samples, and the entries that cost most."""
    match = data.match["totals"]
    unmatched = match["pairs"] - match["pairs_matched"]
    no_text = match["skipped"].get(NO_TEXT, 0)
    if not (unmatched or data.scan.dropped):
        return None
    # A pair without a uid is not looked up, whatever its texts.
    unnamed = any(match["skipped"].get(reason) for reason in (NO_URL, NO_IMAGE))
    skipped = ", or skipped (see above)" * unnamed
    numbers = {
        DROPPED: ("matched, but dropped by balancing", data.scan.dropped),
        NO_MATCH: ("with texts, but without a match" + skipped, max(unmatched - no_text, 0)),
        NO_TEXT: ("without a text", no_text),
    }
    reasons = [[words, f"{n:,}", _share(n, match["pairs"])] for words, n in numbers.values()]
    order = np.argsort(-data.scan.lost, kind="stable")[:TABLE_ROWS]
    order = order[data.scan.lost[order] > 0]
    ids = data.costly[order]
    probabilities = keep_probabilities(data.counts[ids], data.thresholds[ids])
    top = max(int(data.scan.lost.max(initial=0)), 1)
    rows = [
        [
            data.shown(entry), f"{data.scan.lost[i]:,}", f"{data.scan.alone[i]:,}",
            f"{data.counts[entry]:,}", f"{p:.3g}",
            [(data.scan.lost[i] / top, "b0"), (data.scan.alone[i] / top, "b2")],
        ]
        for i, entry, p in zip(order.tolist(), ids.tolist(), probabilities.tolist(), strict=True)
    ]  # fmt: skip
    columns = [
        Column("entry", "e", "foreign"), Column("pairs lost", "n"), Column("alone", "n"),
        Column("matches", "n wide"), Column("p", "n wide"), Column("lost, alone", "bar", "bars"),
    ]  # fmt: skip
    return {
        "reasons": Table(
            "Pairs by reason",
            [Column("reason"), Column("pairs", "n"), Column("of the pool", "n")],
            reasons,
        ),
        "costly": Table("The entries that cost most", columns, rows) if rows else None,
        "texts_unmatched": match["texts"] - match["texts_matched"],
        "samples": [
            (reason, *numbers[reason], [_rejected_sample(data, s) for s in found])
            for reason, found in data.scan.rejected.items()
            if found
        ],
        "read": len(data.rejected_from.units),
        "of": data.rejected_from.of,
        "why_not": data.rejected_from.why_not,
    }


def _rejected_sample(data: PageData, sample: Sample) -> dict[str, Any]:
    first = data.entry(sample["entries"][0]) if sample["entries"] else ""
    before, match, after = marked(sample["text"], first, CAPTION_CHARACTERS, sample["length"])
    return {
        "before": before,
        "match": match,
        "after": after,
        "entries": [(data.shown(i), int(data.counts[i])) for i in sample["entries"]],
        "keep_prob": sample["keep_prob"],
        "texts": sample["texts"],
        "uid": sample["uid"],
        "url": sample["url"],
    }


def _head(data: PageData) -> dict[str, Any]:
    top = max(int(data.counts.max(initial=0)), 1)
    probabilities = keep_probabilities(data.counts, data.thresholds)
    rows = [
        [
            data.shown(i),
            f"{int(data.counts[i]):,}",
            f"{int(data.kept[i]):,}",
            f"{probabilities[i]:.3g}",
            [(int(data.counts[i]) / top, "b0"), (int(data.kept[i]) / top, "b1")],
        ]
        for i in data.head.tolist()
    ]
    columns = [
        Column("entry", "e", "foreign"), Column("before", "n"), Column("after", "n"),
        Column("p", "n wide"), Column("before, after", "bar", "bars"),
    ]  # fmt: skip
    return {"number": data.head.size, "table": Table("", columns, rows)}


def _tail(data: PageData) -> dict[str, Any] | None:
    number = int(np.count_nonzero((data.counts > 0) & (data.counts < data.thresholds)))
    entries = [(data.shown(i), int(data.counts[i])) for i in data.tail.tolist()]
    return {"number": number, "entries": entries} if number else None


def _unmatched(data: PageData) -> dict[str, Any] | None:
    number, entries = int(np.count_nonzero(data.counts == 0)), data.counts.size
    if not number:
        return None
    return {
        "number": number,
        "all": entries,
        "share": _share(number, entries),
        "entries": [data.shown(i) for i in data.unmatched.tolist()],
    }


def _sources(data: PageData) -> dict[str, Any] | None:
    metadata = []
    for name, what, title in (
        ("metadata_source", "source", "Entries by metadata source, and their matches"),
        ("metadata_lang", "language", "Entries by language, and their matches"),
    ):
        groups = data.tables.get(name, {})
        ranked = sorted(groups.items(), key=lambda item: (-item[1]["match_counts"], item[0]))
        rows = [[value, *_group_cells(data, group)] for value, group in ranked[:TABLE_ROWS]]
        if rows:
            more = f" (the first {TABLE_ROWS} of {len(ranked):,})" * (len(ranked) > TABLE_ROWS)
            columns = [Column(what, "e", "foreign"), *_GROUP_COLUMNS]
            metadata.append(Table(title + more, columns, rows))
    texts = [
        _text_table(what, values)
        for what, values in (("source", data.scan.sources), ("language", data.scan.langs))
        if values
    ]
    return {"metadata": metadata, "texts": texts} if metadata or texts else None


def _text_table(what: str, values: dict[str, tuple[int, int]]) -> Table:
    shown = [(v, n) for v, n in values.items() if v != OTHER][:TABLE_ROWS]
    rest = [n for v, n in values.items() if v not in dict(shown)]
    if rest:
        shown.append(("other", (sum(n[0] for n in rest), sum(n[1] for n in rest))))
    rows = [[value, f"{texts:,}", f"{kept:,}"] for value, (texts, kept) in shown]
    columns = [Column(what, "e", "foreign"), Column("texts", "n"), Column("kept texts", "n")]
    return Table(f"Texts of the kept pairs by {what}", columns, rows)


def _samples(data: PageData) -> list[dict[str, Any]] | None:
    entries = []
    for position in data.sampled:
        name, count = data.entry(position), int(data.counts[position])
        samples = [_sample(name, sample, data.thumbnails) for sample in data.scan.samples[position]]
        if samples:
            entries.append(
                {
                    "id": position,
                    "name": data.shown(position),
                    "part": "head" if count >= data.thresholds[position] else "tail",
                    "count": count,
                    "kept": int(data.kept[position]),
                    "samples": samples,
                }
            )
    return entries or None


def _sample(entry: str, sample: Sample, thumbnails: dict[str, str]) -> dict[str, Any]:
    before, match, after = marked(sample["text"], entry, CAPTION_CHARACTERS, sample["length"])
    return {
        "image": thumbnails.get(sample["uid"]),
        "before": before,
        "match": match,
        "after": after,
        "keep_prob": sample["keep_prob"],
        "details": [value for value in (sample["source"], sample["lang"]) if value],
        "url": sample["url"],
    }


def _search(data: PageData) -> dict[str, Any]:
    further: dict[str, Any] = {"language": data.metadata.lang} if data.languages else {}
    if data.metadata.source is not None:
        further["source"] = data.metadata.source
    columns = [
        Column("entry"), Column("before", "n"), Column("after", "n"), Column("p", "n wide"),
        Column("part"), Column("sample pairs", "wide"), *(Column(name, "wide") for name in further),
    ]  # fmt: skip
    ids = held_entries(data.counts)
    return {
        "shown": ids.size,
        "all": data.counts.size,
        "columns": columns,
        "data": packed_entries(
            ids, data.metadata.entries, data.counts, data.kept, data.thresholds, further,
            [entry for entry in data.sampled if data.scan.samples[entry]],
        ),
    }  # fmt: skip


def _made(data: PageData) -> dict[str, str]:
    """How the run was made."""
    files, metadata = data.match["config"]["pool"], data.match["config"]["metadata"]
    sources = "" if data.metadata.source is None else _listed(data.tables["metadata_source"])
    languages = f" in {len(data.languages):,} languages" if data.languages else ""
    return {
        "pool": pool_name(list(files)),
        "files": f"{len(files):,} file{'s' * (len(files) != 1)}",
        "metadata": f"{metadata['entries']:,} entries{languages}{sources}",
        "fingerprint": metadata["fingerprint"],
        "command": curate_command(
            data.match["config"], data.count["config"], data.balance["config"]
        ),
    }


def _listed(sources: dict[str, dict[str, int]]) -> str:
    """Where the entries come from, in a few words."""
    ranked = sorted(sources.items(), key=lambda item: (-item[1]["entries"], item[0]))
    names = ", ".join(printable(name, 40) for name, _ in ranked[:4])
    return f" from {names}" + (f" and {len(ranked) - 4:,} more sources" if len(ranked) > 4 else "")
