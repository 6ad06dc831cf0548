"""The report's page: one HTML file that needs nothing else and allows itself nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.curation.balancing import Counts, keep_probabilities
from metacurate.curation.subset import Sample, smallest_hashes
from metacurate.metadata.store import Metadata
from metacurate.printable import printable
from metacurate.report.charts import short_number
from metacurate.report.html import bar, csp_hash, json_block, link, marked_text, table, text
from metacurate.report.scan import OTHER, Scan
from metacurate.version import __version__

SEARCHED_TOP = 5000
SEARCHED_SAMPLE = 2500
TABLE_ROWS = 25
CAPTION_CHARACTERS = 300

PLOTS = {
    "cumulative": "Cumulative counts over entries for several thresholds",
    "ranks": "Counts by rank of the entry, before and after balancing",
    "histogram": "Number of entries by their count, before and after balancing",
    "matches": "Matched entries per text, before and after balancing",
}
"""The charts and their titles."""

SECTIONS = {
    "distribution": "Distribution",
    "head": "Head",
    "tail": "Tail",
    "unmatched": "Never matched",
    "sources": "Sources and languages",
    "samples": "Sample pairs",
    "search": "Search",
}


@dataclass(frozen=True)
class PageData:
    """What the page shows; ``match`` and ``balance`` are manifest sections, ``tables`` the card's.

    ``counts`` and ``kept`` uint64[entries]; ``head``, ``tail``, ``unmatched`` and ``sampled`` are
    entry ids; ``charts`` the inline SVG by name; ``thumbnails`` data URIs by uid.
    """

    match: dict[str, Any]
    balance: dict[str, Any]
    tables: dict[str, dict[str, dict[str, int]]]
    metadata: Metadata
    counts: Counts
    kept: Counts
    t: float
    head: npt.NDArray[np.int64]
    tail: npt.NDArray[np.int64]
    unmatched: npt.NDArray[np.int64]
    sampled: Sequence[int]
    scan: Scan
    thumbnails: dict[str, str]
    charts: dict[str, str]

    def entry(self, position: int) -> str:
        """An entry as it is, to be escaped."""
        return self.metadata.entries[position].as_py()

    @property
    def threshold(self) -> str:
        """The threshold in words."""
        return "infinite" if math.isinf(self.t) else f"{self.t:,.6g}"


def render_page(data: PageData) -> str:
    """The whole page as HTML."""
    resources = files("metacurate.report")
    style = resources.joinpath("page.css").read_text(encoding="utf-8")
    script = resources.joinpath("page.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src {csp_hash(style)}; script-src {csp_hash(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    body = {
        "distribution": _distribution(data),
        "head": _head(data),
        "tail": _tail(data),
        "unmatched": _unmatched(data),
        "sources": _sources(data),
        "samples": _samples(data),
        "search": _search(data),
    }
    sections = "\n".join(
        f'<section id="{name}"><h2>{SECTIONS[name]}</h2>\n{content}\n</section>'
        for name, content in body.items()
        if content
    )
    menu = "".join(f'<a href="#{name}">{SECTIONS[name]}</a>' for name in body if body[name])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Curation report</title>
<style>{style}</style>
</head>
<body>
<header>
{_header(data)}
<nav aria-label="Sections">{menu}</nav>
</header>
<main>
{sections}
</main>
<footer>{_footer(data)}</footer>
<script>{script}</script>
</body>
</html>
"""


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _header(data: PageData) -> str:
    match, kept = data.match["totals"], data.balance["totals"]
    pairs, pairs_kept = match["pairs"], kept["pairs_kept"]
    matched_entries = int(np.count_nonzero(data.counts))
    head_entries = int(np.count_nonzero(data.counts >= data.t))
    head_share = _share(int(data.counts[data.counts >= data.t].sum()), int(data.counts.sum()))
    facts = {
        "pairs kept": f"{pairs_kept:,}",
        "of the pool": _share(pairs_kept, pairs),
        "threshold t": data.threshold,
        "tail's share of counts": f"{kept['p']:.1%}",
        "entries matched": f"{matched_entries:,}",
        "head entries": f"{head_entries:,}",
        "matches before": f"{int(data.counts.sum()):,}",
        "matches after": f"{int(data.kept.sum()):,}",
    }
    if math.isinf(data.t):
        lead = "Without balancing (t infinite) every matched pair is kept."
    else:
        lead = (
            f"{head_entries:,} head entries hold {head_share} of all matches. Each of their "
            f"matches is kept with probability t / count; the tail keeps everything. "
            f"{kept['pairs_expected']:,.1f} pairs were expected to be kept."
        )
    boxes = "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in facts.items())
    return f"""<p class="over">Curation report</p>
<h1>{pairs_kept:,} of {pairs:,} pairs kept at t = {data.threshold}</h1>
<p class="lead">{lead}</p>
<dl class="facts">{boxes}</dl>
{_funnel(data)}"""


def _funnel(data: PageData) -> str:
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
            bar(n / pairs, "b1" if name == "kept" else "b0"),
        ]
        for name, n in steps.items()
    ]
    found = table("Pairs from the pool to the subset", ["", "pairs", "share", ""], rows,
                  ["", "n", "n", "bar"])  # fmt: skip
    texts = (
        f'<p class="note">Texts: {match["texts"]:,} in the pool, '
        f"{match['texts_matched']:,} matched, {kept['texts_kept']:,} kept.</p>"
    )
    skipped = [[text(reason.replace("_", " ")), f"{n:,}"] for reason, n in match["skipped"].items()]
    bad = [
        [text(str(address), 120), text(str(reason), 120)]
        for address, reason in list(match["bad_files"].items())[:TABLE_ROWS]
    ]
    problems = ""
    if skipped:
        problems += table("Passed over or of no use", ["reason", "number"], skipped, ["", "n"])
    if bad:
        title = f"Files that could not be read ({len(match['bad_files']):,})"
        problems += table(title, ["file", "reason"], bad, ["", ""])
    return f'<div class="funnel">{found}</div>{texts}{problems}'


def _figure(data: PageData, name: str, caption: str) -> str:
    return f"<figure>{data.charts[name]}<figcaption>{caption}</figcaption></figure>"


def _distribution(data: PageData) -> str:
    cumulative = _figure(
        data, "cumulative",
        "Cumulative counts with the entries sorted from tail to head, each counted "
        "min(count, t) times: at t = ∞ as in the pool. Where a curve turns straight, its head "
        "begins. Entries never matched are left out.",
    )  # fmt: skip
    ranks = _figure(
        data, "ranks",
        "Counts by rank. After balancing head entries lie above t where their pairs also match "
        "other entries that keep them.",
    )  # fmt: skip
    histogram = _figure(
        data, "histogram", "How many entries have which count, before and after balancing."
    )
    matches = _figure(
        data, "matches",
        "How many entries a text matches, as a share of the matched (before) and the kept (after) "
        "texts.",
    )  # fmt: skip
    parts = [
        [name, *_group_cells(data, group)] for name, group in data.tables.get("part", {}).items()
    ]
    title = "Head and tail: entries, and matches before and after"
    groups = table(title, ["part", *_GROUP_HEAD], parts, ["", *_GROUP_KINDS])
    return f'<div class="pair">{cumulative}{ranks}{histogram}{matches}</div>{groups}'


_GROUP_HEAD = ("entries", "matched", "before", "after", "share before", "share after")
_GROUP_KINDS = ("n", "n wide", "n", "n", "n wide", "n")


def _group_cells(data: PageData, group: dict[str, int]) -> list[str]:
    return [
        f"{group['entries']:,}",
        f"{group['matched_entries']:,}",
        f"{group['match_counts']:,}",
        f"{group['kept_match_counts']:,}",
        _share(group["match_counts"], int(data.counts.sum())),
        _share(group["kept_match_counts"], int(data.kept.sum())),
    ]


def _entry_rows(data: PageData, ids: npt.NDArray[np.int64]) -> list[list[str]]:
    top = max(int(data.counts.max(initial=0)), 1)
    probabilities = keep_probabilities(data.counts, data.t)
    return [
        [
            text(data.entry(i)),
            f"{int(data.counts[i]):,}",
            f"{int(data.kept[i]):,}",
            f"{probabilities[i]:.3g}",
            bar(int(data.counts[i]) / top, "b0") + bar(int(data.kept[i]) / top, "b1"),
        ]
        for i in ids.tolist()
    ]


def _head(data: PageData) -> str:
    note = (
        f"<p>The {data.head.size} most common entries, before and after balancing; p is the "
        "probability that an entry keeps a match of its own.</p>"
    )
    heads = ["entry", "before", "after", "p", "before, after"]
    rows = _entry_rows(data, data.head)
    return note + table("", heads, rows, ["e", "n", "n", "n wide", "bar"])


def _tail(data: PageData) -> str:
    number = int(np.count_nonzero((data.counts > 0) & (data.counts < data.t)))
    if not number:
        return ""
    items = "".join(
        f"<li>{text(data.entry(i))} <small>{int(data.counts[i]):,}</small></li>"
        for i in data.tail.tolist()
    )
    note = f"{number:,} matched entries have fewer than t matches and keep all of them."
    if not data.tail.size:
        return f"<p>{note}</p>"
    return f'<p>{note} {_extent(data.tail.size, number)}:</p><ul class="chips">{items}</ul>'


def _extent(shown: int, number: int) -> str:
    return "All of them" if shown == number else f"{shown:,} of them, chosen by hash"


def _unmatched(data: PageData) -> str:
    number = int(np.count_nonzero(data.counts == 0))
    if not number:
        return ""
    items = "".join(f"<li>{text(data.entry(i))}</li>" for i in data.unmatched.tolist())
    return (
        f"<p>{number:,} of {data.counts.size:,} entries ({_share(number, data.counts.size)}) occur "
        f"in no text. {_extent(data.unmatched.size, number)}:</p>"
        f'<ul class="chips">{items}</ul>'
    )


def _sources(data: PageData) -> str:
    parts = []
    for name, title in (
        ("metadata_source", "Entries by metadata source, and their matches before and after"),
        ("metadata_lang", "Entries by language, and their matches before and after"),
    ):
        groups = data.tables.get(name, {})
        ranked = sorted(groups.items(), key=lambda item: (-item[1]["match_counts"], item[0]))
        rows = [[text(value), *_group_cells(data, group)] for value, group in ranked[:TABLE_ROWS]]
        if rows:
            more = f" (the first {TABLE_ROWS} of {len(ranked):,})" * (len(ranked) > TABLE_ROWS)
            parts.append(table(title + more, ["", *_GROUP_HEAD], rows, ["e", *_GROUP_KINDS]))
    tables = [
        _text_table("Texts of the kept pairs by source", data.scan.sources),
        _text_table("Texts of the kept pairs by language", data.scan.langs),
    ]
    parts.append(f'<div class="pair">{"".join(tables)}</div>' if any(tables) else "")
    return "".join(parts)


def _text_table(title: str, values: dict[str, tuple[int, int]]) -> str:
    if not values:
        return ""
    shown = [(v, n) for v, n in values.items() if v != OTHER][:TABLE_ROWS]
    rest = [n for v, n in values.items() if v not in dict(shown)]
    rows = [[text(value), f"{texts:,}", f"{kept:,}"] for value, (texts, kept) in shown]
    if rest:
        rows.append(["other", f"{sum(n[0] for n in rest):,}", f"{sum(n[1] for n in rest):,}"])
    return table(title, ["", "texts", "kept texts"], rows, ["e", "n", "n"])


def _samples(data: PageData) -> str:
    blocks = []
    for position in data.sampled:
        pairs = data.scan.samples[position]
        if not pairs:
            continue
        entry = data.entry(position)
        count = int(data.counts[position])
        part = "head" if count >= data.t else "tail"
        items = "".join(_sample(entry, sample, data.thumbnails) for sample in pairs)
        blocks.append(
            f"<details><summary><b>{text(entry)}</b> <span>{part}, {count:,} before, "
            f"{int(data.kept[position]):,} after</span></summary>"
            f'<ul class="samples">{items}</ul></details>\n'
        )
    if not blocks:
        return ""
    note = (
        "<p>Kept pairs of the entries above, chosen by hash: open an entry to see some of the "
        "texts that match it.</p>"
    )
    return note + "".join(blocks)


def _sample(entry: str, sample: Sample, thumbnails: dict[str, str]) -> str:
    image = thumbnails.get(sample["uid"])
    picture = f'<img src="{image}" alt="" width="64" height="64">' if image else ""
    text_shown = marked_text(sample["text"], entry, CAPTION_CHARACTERS, sample["length"])
    details = [f"kept with probability {sample['keep_prob']:.3g}"]
    details += [text(sample[key], 40) for key in ("source", "lang") if sample[key]]
    if sample["url"]:
        details.append(link(sample["url"]))
    return f"<li>{picture}<div>{text_shown}<small>{' · '.join(details)}</small></div></li>"


def searched_entries(counts: Counts) -> npt.NDArray[np.int64]:
    """The entries of the searchable table: the most common ones and a sample of the others."""
    order = np.argsort(counts, kind="stable")[::-1]
    rest = smallest_hashes(np.sort(order[SEARCHED_TOP:]), SEARCHED_SAMPLE)
    return np.concatenate([order[:SEARCHED_TOP], rest])


def _search(data: PageData) -> str:
    ids = searched_entries(data.counts)
    sources = None if data.metadata.source is None else data.metadata.source
    rows: list[list[str | int]] = []
    for i in ids.tolist():
        row: list[str | int] = [
            printable(data.entry(i), 120), int(data.counts[i]), int(data.kept[i]),
        ]  # fmt: skip
        if sources is not None:
            row.append(printable(sources[i].as_py() or "", 40))
        rows.append(row)
    # JSON has no infinity: with t above all counts everything is tail, as at infinity.
    t = data.t if math.isfinite(data.t) else float(2**64)
    block = json_block("entries-data", {"t": t, "withSource": sources is not None, "rows": rows})
    all_there = ids.size == data.counts.size
    extent = (
        f"All {ids.size:,} entries."
        if all_there
        else f"The {SEARCHED_TOP:,} most common of {data.counts.size:,} entries and "
        f"{ids.size - SEARCHED_TOP:,} of the others, chosen by hash."
    )
    heads = ["entry", "before", "after", "p", "part"] + ["source"] * (sources is not None)
    kinds = ["", "n", "n", "n wide", ""] + ["wide"] * (sources is not None)
    names = "".join(
        f'<th scope="col" class="{k}">{h}</th>' for h, k in zip(heads, kinds, strict=True)
    )
    return f"""<p>{extent} Any entry: <code>metacurate inspect entry NAME --run DIR</code>.</p>
<div class="search">
<input id="entry-query" type="search" placeholder="Search entries" aria-label="Search entries"
 autocomplete="off" spellcheck="false">
<select id="entry-order" aria-label="Order">
<option value="count">most matches first</option><option value="rare">fewest first</option>
<option value="kept">most kept first</option><option value="name">by name</option>
</select>
<output id="entry-status"></output>
</div>
<div class="scroll"><table><thead><tr>{names}</tr></thead>
<tbody id="entry-rows"></tbody></table></div>
{block}"""


def _footer(data: PageData) -> str:
    match, balance = data.match["config"], data.balance["totals"]
    metadata = match["metadata"]
    parts = [
        f"metacurate {__version__}",
        f"{len(match['pool']):,} pool files",
        f"{metadata['entries']:,} metadata entries, "
        f"fingerprint <code>{metadata['fingerprint']}</code>",
        f"t = {short_number(data.t)}",
        f"seed {balance['seed']}",
        "counts are per (text, entry)",
    ]
    return " · ".join(parts)
