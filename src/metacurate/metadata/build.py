"""Build metadata from its sources: WordNet synsets, Wikipedia words, bigrams and titles.

The sources are put one after the other in this order without repeats. Every source is optional.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, TypedDict, Unpack

import pyarrow as pa
import pyarrow.compute as pc

from metacurate.counts import in_words
from metacurate.errors import ArgumentError, UserError
from metacurate.formats.files import fingerprint, open_source
from metacurate.metadata import stages
from metacurate.metadata.dumpfile import Part, split
from metacurate.metadata.ngrams import TOKENS_A_RUN
from metacurate.metadata.shuffle import partitions_for, read_table
from metacurate.metadata.store import (
    BUILT_IN,
    Metadata,
    load_metadata,
    make_metadata,
    save_json,
    save_parquet,
)
from metacurate.metadata.synsets import read_synsets_of
from metacurate.metadata.wikipedia import check_dumps
from metacurate.plugins import load_plugin
from metacurate.runtime.find import Wanted, find_files
from metacurate.runtime.manifest import Stage, Statistics, finished, reopen, shard_name
from metacurate.runtime.run import Run, RunOptions, open_run
from metacurate.runtime.stage import run_stage

SOURCES = ("wordnet", "unigrams", "bigrams", "titles")
COUNTED = frozenset(SOURCES) - {"wordnet"}  # from dumps
# Entries by source in the paper (arXiv 2309.16671).
PAPER_SIZES = {"wordnet": 86_654, "unigrams": 251_465, "bigrams": 100_646, "titles": 61_235}
PAPER_TOTAL = 500_000


DUMPS = Wanted("dump", "give Wikimedia's files as they were downloaded", lambda _: True)


@dataclass(frozen=True)
class BuildConfig:
    """What metadata is built from and by which rules (the defaults are the paper's).

    ``wordnet``: see :func:`metacurate.metadata.synsets.read_synsets_of`; None for no synsets.
    ``dumps`` and ``pageviews``: file patterns; empty for none. ``best_bigrams``: instead of all
    bigrams with at least ``min_pmi``, so many with the highest PMI. ``wiki``: the wiki's code in
    page view files, written as ``lang`` beside each entry. ``sources``: some of ``SOURCES``, and
    sources of one's own (``metacurate.plugins``): callables without arguments that give entries in
    order, each with its score or None.
    """

    wordnet: str | None = "wordnet"
    dumps: tuple[str, ...] = ()
    pageviews: tuple[str, ...] = ()
    sources: tuple[str, ...] = SOURCES
    min_count: int = 100
    min_pmi: float = 30.0
    best_bigrams: int | None = None
    min_bigram_count: int = 1
    min_views: int = 70
    lowercase: bool = False
    wiki: str = "en"
    part_bytes: int = 64 << 20
    max_page_bytes: int = 4 << 20
    tokens_a_run: int = TOKENS_A_RUN
    partitions: int | None = None

    def chosen(self) -> tuple[str, ...]:
        """The sources to use: those asked for whose inputs are given. UserError if none."""
        own = tuple(source for source in self.sources if source not in SOURCES)
        for source in own:
            _own_source(source)
        given = {
            "wordnet": self.wordnet is not None,
            "unigrams": bool(self.dumps),
            "bigrams": bool(self.dumps),
            "titles": bool(self.pageviews),
        }
        found = tuple(s for s in SOURCES if s in self.sources and given[s]) + own
        if not found:
            raise ArgumentError("nothing to build from: give {wordnet}, {dumps} or {pageviews}")
        return found


class BuildTotals(TypedDict):
    """``sizes``: entries by source, beside the paper's; ``notes``: what a user should know of the
    result; ``stages``: what was counted and lost on the way, by stage (``reasons``).
    """

    entries: int
    fingerprint: str
    sizes: dict[str, Any]
    paper_entries: int
    notes: list[str]
    stages: dict[str, Statistics]


def build_metadata(config: BuildConfig, out: str, **options: Unpack[RunOptions]) -> BuildTotals:
    """Build metadata and write ``out`` (JSON) and the same name with ``.parquet``.

    The folder ``work_folder(out)`` holds the work files.
    """
    if not out.endswith(".json"):
        raise ArgumentError(
            "{out} must name a .json file (for example metadata.json), not {value}", value=out
        )
    chosen = config.chosen()
    dumps, views = _named(config.dumps), _named(config.pageviews)
    # The dump alone decides if there is one: page views may be added later.
    stored = sum(_whole(address).end for address in dumps or views)
    config = replace(config, partitions=config.partitions or partitions_for(stored))
    with open_run(work_folder(out), inputs=[*dumps, *views], **options) as run:
        totals: dict[str, Statistics] = {}
        if dumps and not COUNTED.isdisjoint(chosen):
            totals |= _dump_stages(run, config, chosen, dumps)
        if "titles" in chosen:
            totals |= _title_stages(run, config, views, bool(dumps))
        return _assemble(run, config, chosen, totals, out)


def _stage(
    run: Run,
    stage: Stage,
    config: dict[str, Any],
    function: Callable[[Any], Statistics],
    tasks: Sequence[Any],
    unit: str,
) -> dict[str, Statistics]:
    return {stage.name: run_stage(run, stage, config, tasks, function, unit=unit)}


def _named(inputs: Sequence[str]) -> list[str]:
    return find_files(inputs, DUMPS).require_all() if inputs else []


def _whole(address: str) -> Part:
    """A file as a single part."""
    return split(address, 1 << 62)[0]


def _files(addresses: list[str]) -> list[dict[str, Any]]:
    """Names, sizes and fingerprints of input files."""
    files = []
    for address in addresses:
        with open_source(address) as source:
            name = address.rsplit("/", 1)[-1]
            files.append({"name": name, "bytes": source.size(), "fingerprint": fingerprint(source)})
    return files


def _dump_stages(
    run: Run, config: BuildConfig, chosen: tuple[str, ...], dumps: list[str]
) -> dict[str, Statistics]:
    check_dumps(dumps)
    partitions = config.partitions or 1
    count = "bigrams" if "bigrams" in chosen else "words" if "unigrams" in chosen else "nothing"
    parts = [part for address in dumps for part in split(address, config.part_bytes)]
    tasks = [
        stages.DumpTask(
            run.folder, position, part, partitions, count, config.lowercase,
            config.max_page_bytes, config.tokens_a_run,
        )
        for position, part in enumerate(parts)
    ]  # fmt: skip
    settings = {
        "files": _files(dumps),
        "count": count,
        "lowercase": config.lowercase,
        "part_bytes": config.part_bytes,
        "max_page_bytes": config.max_page_bytes,
        "tokens_a_run": config.tokens_a_run,
        "partitions": partitions,
        "unicode": unicodedata.unidata_version,
        "mwparserfromhell": version("mwparserfromhell"),
    }
    totals = _stage(run, stages.DUMP, settings, stages.read_dump, tasks, "pages")
    tokens = totals["dump"]["tokens"]
    if count != "nothing":
        min_pmi = None if config.best_bigrams is not None else config.min_pmi
        rule = {"min_count": config.min_bigram_count, "min_pmi": min_pmi}
        pmi_tasks = [
            stages.PmiTask(
                run.folder, p, partitions, tokens, config.min_bigram_count, min_pmi,
                config.best_bigrams,
            )
            for p in range(partitions)
        ]  # fmt: skip
        totals |= _stage(run, stages.WORDS, rule, stages.sum_words, pmi_tasks, "words")
        if count == "bigrams":
            rule["best"] = config.best_bigrams
            totals |= _stage(
                run, stages.BIGRAMS, rule, stages.score_bigrams, pmi_tasks, "candidates"
            )
    simple = [stages.PartitionTask(run.folder, p, partitions) for p in range(partitions)]
    return totals | _stage(run, stages.ARTICLES, {}, stages.list_articles, simple, "articles")


def _title_stages(
    run: Run, config: BuildConfig, views: list[str], dump: bool
) -> dict[str, Statistics]:
    partitions = config.partitions or 1
    files = [
        stages.ViewsTask(run.folder, position, part, partitions, config.wiki)
        for position, part in enumerate(map(_whole, views))
    ]
    settings = {"files": _files(views), "wiki": config.wiki, "partitions": partitions}
    totals = _stage(run, stages.VIEWS, settings, stages.count_views, files, "lines")
    tasks = [stages.TitlesTask(run.folder, p, partitions, dump) for p in range(partitions)]
    rule = {"redirects": "from the dump" if dump else "unknown"}
    totals |= _stage(run, stages.RESOLVED, rule, stages.resolve_redirects, tasks, "titles")
    return totals | _stage(run, stages.TITLES, {}, stages.sum_titles, tasks, "titles")


def _assemble(
    run: Run,
    config: BuildConfig,
    chosen: tuple[str, ...],
    done: dict[str, Statistics],
    out: str,
) -> BuildTotals:
    found = {"wordnet": _synsets(config)} if "wordnet" in chosen else {}
    own = {source: list(_own_source(source)()) for source in chosen if source not in SOURCES}
    names = json.dumps([entry for entry, _ in found.get("wordnet", [])])
    settings = {
        "sources": list(chosen),
        "wordnet": hashlib.blake2b(names.encode(), digest_size=16).hexdigest(),
        "min_count": config.min_count,
        "min_views": config.min_views,
        "lang": config.wiki,
        "inputs": done,
    }
    if own:
        settings["own"] = hashlib.blake2b(json.dumps(own).encode(), digest_size=16).hexdigest()
        found |= own
    parquet = f"{out.removesuffix('.json')}.parquet"
    done_before = finished(run.folder, stages.METADATA, settings)
    if done_before is not None and not (_holds(parquet, done_before) and _holds(out, done_before)):
        reopen(run.folder, stages.METADATA)

    def write(_: list[Statistics]) -> BuildTotals:
        metadata, sizes = _merged(run, config, chosen, found)
        save_parquet(metadata, parquet)
        save_json(metadata, out)
        return {
            "entries": len(metadata),
            "fingerprint": metadata.fingerprint,
            "sizes": sizes,
            "paper_entries": PAPER_TOTAL,
            "notes": _notes(config, chosen, done),
            "stages": done,
        }

    return run_stage(run, stages.METADATA, settings, (), _nothing, unit="entries", totals=write)


def _nothing(_: None) -> Statistics:
    return {}


Entries = list[tuple[str, float | None]]


def _merged(
    run: Run, config: BuildConfig, chosen: tuple[str, ...], found: dict[str, Entries]
) -> tuple[Metadata, dict[str, dict[str, int]]]:
    """The entries of all sources in their order, without repeats, and how many each gave."""
    merged: dict[str, tuple[str, float | None]] = {}
    sizes: dict[str, dict[str, int]] = {}
    for source in chosen:
        entries = found[source] if source in found else _scored(run, config, source)
        before = len(merged)
        for entry, score in entries:
            merged.setdefault(entry, (source, score))
        added = len(merged) - before
        sizes[source] = {"found": len(entries), "added": added, "paper": PAPER_SIZES.get(source, 0)}
    metadata = make_metadata(
        list(merged),
        source=[source for source, _ in merged.values()],
        score=[score for _, score in merged.values()],
        lang=[config.wiki] * len(merged),
        origin="the metadata built",
    )
    return metadata, sizes


def _holds(address: str, totals: Statistics) -> bool:
    """Whether a file holds the metadata that a finished run wrote."""
    try:
        metadata = load_metadata(address)
    except UserError:
        return False
    return metadata.fingerprint == totals["fingerprint"]


def _own_source(name: str) -> Callable[[], Iterable[tuple[str, float | None]]]:
    return load_plugin("metadata source", name, {}, also=SOURCES)


def _synsets(config: BuildConfig) -> Entries:
    return [(name, None) for name in read_synsets_of(config.wordnet or BUILT_IN)]


def _scored(run: Run, config: BuildConfig, source: str) -> Entries:
    """The entries of a counted source, best first, with their scores."""
    folder, partitions = run.folder, config.partitions or 1
    kind = {"unigrams": "words", "bigrams": "bigrams", "titles": "titles"}[source]
    least = {"unigrams": config.min_count, "titles": config.min_views, "bigrams": -math.inf}[source]
    tables = []
    for partition in range(partitions):
        table = read_table(folder, f"{kind}/{shard_name(partition)}.parquet")
        if source == "unigrams":
            table = table.rename_columns(["entry", "score"])
        tables.append(table.filter(pc.greater_equal(table["score"], least)))
    order = ["score", "count"] if source == "bigrams" else ["score"]
    best = config.best_bigrams if source == "bigrams" else None
    table = stages.best_first(pa.concat_tables(tables), order, best)
    scores = table["score"].cast(pa.float64()).to_pylist()
    return list(zip(table["entry"].to_pylist(), scores, strict=True))


def _notes(config: BuildConfig, chosen: tuple[str, ...], done: dict[str, Statistics]) -> list[str]:
    """What a user should know about the result: warnings, in plain words."""
    notes = []
    tokens = done.get("dump", {}).get("tokens", 0)
    if "bigrams" in chosen and config.best_bigrams is None and tokens:
        # c(w1), c(w2) >= c(w1, w2), so PMI <= log2(N / c(w1, w2)).
        most = tokens / 2**config.min_pmi
        if most < config.min_bigram_count:
            notes.append(
                f"no bigram of {config.min_bigram_count} or more occurrences can reach a PMI of "
                f"{config.min_pmi:g} in {tokens:,} tokens (the most is log2(tokens / count) = "
                f"{math.log2(tokens / config.min_bigram_count):.2f}): "
                "require a lower PMI, or take the best bigrams by their number"
            )
        elif most < config.min_count:
            notes.append(
                f"in {tokens:,} tokens only bigrams of at most {int(most):,} occurrences reach a "
                f"PMI of {config.min_pmi:g}; the best bigrams by their number, with a least "
                "count, are frequent ones"
            )
    for stage, totals in done.items():
        if lost := totals.get("losses"):
            notes.append(f"not usable in the {stage} files: {in_words(lost)}")
    repeated = done.get("articles", {}).get("repeated_articles", 0)
    if repeated:
        notes.append(f"{repeated:,} articles are in the dump files more than once")
    return notes


def work_folder(out: str) -> str:
    """Where the work files of metadata written to ``out`` are kept: ``metadata.build``."""
    return f"{os.path.splitext(out)[0]}.build"
