"""Build metadata from its sources: numbers, WordNet, Wikipedia's words, bigrams and titles.

The sources are put one after the other in this order without repeats. Every source is optional.
English metadata are built by MetaCLIP's rules, those of other languages by Meta CLIP 2's.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any, TypedDict, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.arguments import whole
from metacurate.counts import counted, in_words
from metacurate.errors import ArgumentError, UserError
from metacurate.formats.files import fingerprint, open_source
from metacurate.metadata import stages
from metacurate.metadata.entryfile import write_built
from metacurate.metadata.lemmas import read_lemmas
from metacurate.metadata.limits import LIMITS, V1, WORLDWIDE, Limits, check_limits, most
from metacurate.metadata.store import (
    BUILT_IN,
    Metadata,
    load_metadata,
    make_metadata,
    save_json,
)
from metacurate.metadata.synsets import read_synsets_of
from metacurate.plugins import load_plugin
from metacurate.runtime.find import File, Wanted, find_files
from metacurate.runtime.manifest import Stage, Statistics, finished, reopen, shard_name
from metacurate.runtime.run import Run, RunOptions, check_writable, open_run
from metacurate.runtime.stage import do_again, run_stage
from metacurate.runtime.storage import CONNECTIONS
from metacurate.wikipedia.dumpfile import Part, split
from metacurate.wikipedia.ngrams import TOKENS_A_RUN
from metacurate.wikipedia.pages import SiteInfo, check_dumps
from metacurate.wikipedia.pageviews import ViewRule
from metacurate.wikipedia.reasons import NoEntry
from metacurate.wikipedia.segmenters import (
    NONE,
    load_segmenter,
    segmenter_name,
    segmenter_version,
)
from metacurate.wikipedia.shuffle import partitions_for, read_table
from metacurate.wikipedia.tokens import MAX_ENTRY, TokenRule, reason_to_drop
from metacurate.wikipedia.wikis import ENGLISH, check_wiki, domain_code, has_variants
from metacurate.wikipedia.wikitext import DROPPED_NAMESPACES, Wiki

SOURCES = ("numbers", "wordnet", "unigrams", "bigrams", "titles")
COUNTED = frozenset(("unigrams", "bigrams", "titles"))  # from dumps
NUMBERS = tuple(map(str, range(100)))
# Entries by source in the paper (arXiv 2309.16671), whose 86,654 of WordNet are the first two.
PAPER_SIZES = {
    "numbers": 100, "wordnet": 86_554, "unigrams": 251_465, "bigrams": 100_646, "titles": 61_235
}  # fmt: skip
PAPER_TOTAL = 500_000
ARTICLES, OFFICIAL = "articles", "official"
TITLE_RULES = (ARTICLES, OFFICIAL)
OFFICIAL_MIN_HOURLY_VIEWS = 50
_FILE, _CATEGORY, _MEDIA = 6, 14, -2


DUMPS = Wanted("dump", "give Wikimedia's files as they were downloaded", lambda _: True)


@dataclass(frozen=True)
class BuildConfig:
    """What metadata is built from and by which rules.

    Attributes:
        wordnet: English: see ``metacurate.metadata.synsets.read_synsets_of``; other languages:
            ``metacurate.metadata.lemmas.read_lemmas``. None for the built-in list in English,
            and for no lemmas in other languages.
        dumps: File patterns; empty for none.
        pageviews: File patterns; empty for none.
        sources: Some of ``SOURCES``, and sources of one's own (``metacurate.plugins``): callables
            without arguments that give entries in order, each with its score or None.
        rules: ``v1`` or ``worldwide``; None for v1 in English, worldwide in other languages.
        wiki: The Wikipedia's code, written as ``lang`` beside each entry.
        segmenter: See ``metacurate.wikipedia.segmenters``; ``none`` for none, None for the
            language's own. By the worldwide rules alone.
        title_rule: ``articles``: views of all sites, those of a redirect its target's, titles of
            articles; ``official``: the desktop site alone, titles as they were asked for, without
            colon, in hours with at least 50 views.
        min_hourly_views: Titles: only hours with so many views of a title count.
        max_entries: At most so many entries; those at the end are left out.

    ``min_count`` to ``title_share`` are those of ``metacurate.metadata.limits.Limits``; None
    for what the rules say. ``best_bigrams`` replaces the rules' ``min_pmi``.
    """

    wordnet: str | None = None
    dumps: tuple[str, ...] = ()
    pageviews: tuple[str, ...] = ()
    sources: tuple[str, ...] = SOURCES
    rules: str | None = None
    min_count: int | None = None
    max_unigrams: int | None = None
    unigram_share: float | None = None
    min_pmi: float | None = None
    min_bigram_count: int | None = None
    best_bigrams: int | None = None
    bigram_share: float | None = None
    min_views: int | None = None
    max_titles: int | None = None
    title_share: float | None = None
    title_rule: str = ARTICLES
    min_hourly_views: int | None = None
    max_entries: int | None = None
    lowercase: bool = False
    wiki: str = ENGLISH
    segmenter: str | None = None
    part_bytes: int = 64 << 20
    max_page_bytes: int = 4 << 20
    tokens_a_run: int = TOKENS_A_RUN
    partitions: int | None = None

    def checked(self) -> BuildConfig:
        """These settings with what is not given filled in; ArgumentError if one is no choice."""
        wiki = check_wiki(self.wiki)
        rules = self.rules or (V1 if wiki == ENGLISH else WORLDWIDE)
        for name, value, known in (
            ("rules", rules, tuple(LIMITS)),
            ("title_rule", self.title_rule, TITLE_RULES),
        ):
            if value not in known:
                raise ArgumentError(
                    f"{{{name}}} must be one of {{known}}, not {{value}}",
                    known=", ".join(known),
                    value=repr(value),
                )
        if self.segmenter is not None and rules == V1:
            raise ArgumentError("{segmenter} is for the worldwide rules alone: {rules} worldwide")
        if self.max_entries is not None:
            whole("max_entries", self.max_entries, 1)
        least = OFFICIAL_MIN_HOURLY_VIEWS if self.title_rule == OFFICIAL else 1
        return replace(
            self,
            wiki=wiki,
            rules=rules,
            wordnet=self.wordnet or (BUILT_IN if wiki == ENGLISH else None),
            segmenter=None if rules == V1 else segmenter_name(self.segmenter, wiki),
            min_hourly_views=whole("min_hourly_views", self.min_hourly_views or least, 1),
        )

    @cached_property
    def limits(self) -> Limits:
        """The limits of the rules, with those that are given in their place."""
        limits = LIMITS[self.rules or V1]
        if self.best_bigrams is not None:
            limits = replace(limits, min_pmi=None)
        if self.title_rule == OFFICIAL:
            limits = replace(limits, colons=False)
        given = {name: getattr(self, name, None) for name in limits.__dataclass_fields__}
        return check_limits(replace(limits, **{n: v for n, v in given.items() if v is not None}))

    @property
    def token_rule(self) -> TokenRule | None:
        """How texts are split into words; None by MetaCLIP's rule."""
        return None if self.segmenter is None else TokenRule(self.wiki, self.segmenter)

    def chosen(self) -> tuple[str, ...]:
        """The sources to use: those asked for whose inputs are given. UserError if none."""
        own = tuple(source for source in self.sources if source not in SOURCES)
        for source in own:
            _own_source(source)
        given = {
            "numbers": True,
            "wordnet": self.wordnet is not None,
            "unigrams": bool(self.dumps),
            "bigrams": bool(self.dumps),
            "titles": bool(self.pageviews),
        }
        found = tuple(s for s in SOURCES if s in self.sources and given[s]) + own
        if not set(found) - {"numbers"} and set(self.sources) != {"numbers"}:
            raise ArgumentError("nothing to build from: give {wordnet}, {dumps} or {pageviews}")
        return found


class BuildTotals(TypedDict):
    """``rules`` and ``segmenter``: what was built by, with its version; ``sizes``: entries by
    source, beside the paper's and the most there may be; ``dropped``: what of each source is no
    entry, by reason; ``notes``: what a user should know of the result; ``stages``: what was counted
    and lost on the way, by stage (``wikipedia.reasons``).
    """

    entries: int
    fingerprint: str
    rules: str
    segmenter: dict[str, str] | None
    sizes: dict[str, Any]
    dropped: dict[str, dict[str, int]]
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
    for name in (out, _parquet_beside(out)):
        check_writable(name)
    config = config.checked()
    chosen = config.chosen()
    segmenter = _segmenter(config)
    named, views = _named(config.dumps), _named(config.pageviews)
    dumps = [file.address for file in named]
    # The dump alone decides if there is one: page views may be added later.
    stored = sum(file.size for file in named or views)
    config = replace(config, partitions=config.partitions or partitions_for(stored))
    inputs = [file.address for file in (*named, *views)]
    with open_run(work_folder(out), inputs=inputs, **options) as run:

        def work() -> BuildTotals:
            totals: dict[str, Statistics] = {}
            site = SiteInfo()
            if dumps and not COUNTED.isdisjoint(chosen):
                site = check_dumps(dumps)
                totals |= _dump_stages(run, config, chosen, dumps, site, segmenter)
            if "titles" in chosen:
                totals |= _title_stages(run, config, views, bool(dumps), site.capital)
            return _assemble(run, config, chosen, totals, site, segmenter, out)

        return do_again(run, [stages.DUMP, stages.VIEWS, stages.METADATA], work)


def _segmenter(config: BuildConfig) -> dict[str, str] | None:
    """The segmenter's name and version, None if there is none; UserError if it is not there."""
    name = config.segmenter
    if name is None or name == NONE:
        return None
    found = load_segmenter(name, config.wiki)
    return {"name": name, "version": segmenter_version(found)}


def _stage(
    run: Run,
    stage: Stage,
    config: dict[str, Any],
    function: Callable[[Any], Statistics],
    tasks: Sequence[Any],
    unit: str,
) -> dict[str, Statistics]:
    return {stage.name: run_stage(run, stage, config, tasks, function, unit=unit)}


def _named(inputs: Sequence[str]) -> tuple[File, ...]:
    if not inputs:
        return ()
    found = find_files(inputs, DUMPS)
    found.require_all()
    return found.files


def _whole(file: File) -> Part:
    """A file as a single part."""
    return Part(file.address, 0, file.size)


def _files(addresses: Iterable[str]) -> list[dict[str, Any]]:
    """Names, sizes and fingerprints of input files."""

    def facts(address: str) -> dict[str, Any]:
        with open_source(address) as source:
            name = address.rsplit("/", 1)[-1]
            return {"name": name, "bytes": source.size(), "fingerprint": fingerprint(source)}

    # Together: page views are in 8,760 files a year, and object stores answer slowly.
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return list(threads.map(facts, addresses))


def _dump_stages(
    run: Run,
    config: BuildConfig,
    chosen: tuple[str, ...],
    dumps: list[str],
    site: SiteInfo,
    segmenter: dict[str, str] | None,
) -> dict[str, Statistics]:
    partitions = config.partitions or 1
    count = "bigrams" if "bigrams" in chosen else "words" if "unigrams" in chosen else "nothing"
    parts = [part for address in dumps for part in split(address, config.part_bytes)]
    media = site.names(_FILE, _CATEGORY, _MEDIA)
    wiki = Wiki(
        tuple(name for name in media if name.lower() not in DROPPED_NAMESPACES),
        has_variants(config.wiki),
    )
    tasks = [
        stages.DumpTask(
            run.folder, position, part, partitions, count, config.lowercase,
            config.max_page_bytes, config.tokens_a_run, config.token_rule, wiki,
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
        "wiki": config.wiki,
        "rules": config.rules,
        "segmenter": segmenter,
        "unicode": unicodedata.unidata_version,
        "mwparserfromhell": version("mwparserfromhell"),
    }
    totals = _stage(run, stages.DUMP, settings, stages.read_dump, tasks, "pages")
    if count != "nothing":
        totals |= _count_stages(run, config, totals["dump"]["tokens"], count)
    simple = [stages.PartitionTask(run.folder, p, partitions) for p in range(partitions)]
    return totals | _stage(run, stages.ARTICLES, {}, stages.list_articles, simple, "articles")


def _count_stages(run: Run, config: BuildConfig, tokens: int, count: str) -> dict[str, Statistics]:
    """Sum words and bigrams, take the bigrams' mutual information."""
    limits, partitions = config.limits, config.partitions or 1
    rule = config.token_rule
    # Without a least count one is found from the words; a bigram that occurs once is never one.
    least = limits.min_bigram_count or 2
    common = stages.PmiTask(
        run.folder, 0, partitions, tokens, least, limits.min_pmi, None,
        joiner=" " if rule is None else rule.joiner,
        longest=None if rule is None else MAX_ENTRY,
    )  # fmt: skip
    settings = {"min_count": least, "min_pmi": limits.min_pmi}
    tasks = [replace(common, partition=p) for p in range(partitions)]
    totals = _stage(run, stages.WORDS, settings, stages.sum_words, tasks, "words")
    if count == "bigrams":
        best = limits.best_bigrams
        if limits.bigram_share is not None or limits.min_bigram_count is None:
            taken, rarest = _taken_unigrams(run, config)
            best = most(best, limits.bigram_share, taken)
            least = limits.min_bigram_count or max(least, rarest)
        settings |= {"min_count": least, "best": best}
        tasks = [replace(task, min_count=least, best=best) for task in tasks]
        totals |= _stage(run, stages.BIGRAMS, settings, stages.score_bigrams, tasks, "candidates")
    return totals


def _taken_unigrams(run: Run, config: BuildConfig) -> tuple[int, int]:
    """How many unigrams are taken, and how often the rarest of them occurs (0 if none is)."""
    counts, limit = _ranked(run, config, "unigrams")
    counts = counts[counts >= config.limits.min_count]
    taken = len(counts) if limit is None else min(limit, len(counts))
    return taken, int(np.partition(counts, len(counts) - taken)[-taken]) if taken else 0


def _title_stages(
    run: Run, config: BuildConfig, views: Sequence[File], dump: bool, capital: bool
) -> dict[str, Statistics]:
    partitions = config.partitions or 1
    official = config.title_rule == OFFICIAL
    least = config.min_hourly_views or 1
    rule = ViewRule(domain_code(config.wiki), official, least, capital=capital and not official)
    files = [
        stages.ViewsTask(run.folder, position, part, partitions, rule)
        for position, part in enumerate(map(_whole, views))
    ]
    settings = {
        "files": _files(file.address for file in views),
        "wiki": rule.wiki,
        "title_rule": config.title_rule,
        "min_hourly_views": rule.min_hourly,
        "partitions": partitions,
        "capital": rule.capital,
    }
    totals = _stage(run, stages.VIEWS, settings, stages.count_views, files, "lines")
    articles = stages.DUMP_ARTICLES if dump else stages.BY_NAME
    articles = stages.ANY_TITLE if official else articles
    colons = config.limits.colons
    tasks = [
        stages.TitlesTask(run.folder, p, partitions, articles, colons) for p in range(partitions)
    ]
    kept: dict[str, Any] = {"articles": articles}
    totals |= _stage(run, stages.RESOLVED, kept, stages.resolve_redirects, tasks, "titles")
    kept |= {"colons": colons}
    return totals | _stage(run, stages.TITLES, kept, stages.sum_titles, tasks, "titles")


def _assemble(
    run: Run,
    config: BuildConfig,
    chosen: tuple[str, ...],
    done: dict[str, Statistics],
    site: SiteInfo,
    segmenter: dict[str, str] | None,
    out: str,
) -> BuildTotals:
    found: dict[str, Entries] = {"numbers": [(number, None) for number in NUMBERS]}
    if "wordnet" in chosen:
        found["wordnet"] = [(name, None) for name in _wordnet(config)]
    own = {source: list(_own_source(source)()) for source in chosen if source not in SOURCES}
    limits = config.limits
    settings = {
        "sources": list(chosen),
        "wordnet": _digest([entry for entry, _ in found.get("wordnet", [])]),
        "rules": config.rules,
        "min_count": limits.min_count,
        "max_unigrams": limits.max_unigrams,
        "unigram_share": limits.unigram_share,
        "min_views": limits.min_views,
        "max_titles": limits.max_titles,
        "title_share": limits.title_share,
        "max_entries": config.max_entries,
        "lang": config.wiki,
        "segmenter": segmenter,
        "inputs": done,
    }
    if own:
        settings["own"] = _digest(own)
        found |= own
    parquet = _parquet_beside(out)
    done_before = finished(run.folder, stages.METADATA, settings)
    if done_before is not None and not (_holds(parquet, done_before) and _holds(out, done_before)):
        reopen(run.folder, stages.METADATA)

    def write(_: list[Statistics]) -> BuildTotals:
        metadata, sizes, dropped = _merged(run, config, chosen, found)
        about = {"wiki": config.wiki, "rules": config.rules, "segmenter": segmenter}
        write_built(metadata, parquet, about)
        save_json(metadata, out)
        return {
            "entries": len(metadata),
            "fingerprint": metadata.fingerprint,
            "rules": config.rules or V1,
            "segmenter": segmenter,
            "sizes": sizes,
            "dropped": dropped,
            "paper_entries": PAPER_TOTAL,
            "notes": _notes(config, chosen, done, site, dropped),
            "stages": done,
        }

    return run_stage(run, stages.METADATA, settings, (), _nothing, unit="entries", totals=write)


def _digest(values: Any) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


def _nothing(_: None) -> Statistics:
    return {}


Entries = list[tuple[str, float | None]]


def _merged(
    run: Run, config: BuildConfig, chosen: tuple[str, ...], found: dict[str, Entries]
) -> tuple[Metadata, dict[str, dict[str, int | None]], dict[str, dict[str, int]]]:
    """The entries of all sources in their order, without repeats; how many each gave; what of
    each was dropped, by reason."""
    merged: dict[str, tuple[str, float | None]] = {}
    sizes: dict[str, dict[str, int | None]] = {}
    dropped: dict[str, dict[str, int]] = {}
    for source in chosen:
        limit = None
        if source in found:
            entries = found[source]
        else:
            entries, limit = _scored(run, config, source)
        before, lost = len(merged), Counter[str]()
        for entry, score in _clean(entries, config, source, lost):
            if entry in merged:
                continue
            if config.max_entries is not None and len(merged) >= config.max_entries:
                lost[NoEntry.BEYOND_MAX_ENTRIES] += 1
            else:
                merged[entry] = (source, score)
        sizes[source] = {
            "found": len(entries),
            "added": len(merged) - before,
            "limit": limit,
            "paper": PAPER_SIZES.get(source, 0),
        }
        if lost:
            dropped[source] = counted(lost)
    metadata = make_metadata(
        list(merged),
        source=[source for source, _ in merged.values()],
        score=[score for _, score in merged.values()],
        lang=[config.wiki] * len(merged),
        origin="the metadata built",
    )
    return metadata, sizes, dropped


def _clean(
    entries: Entries, config: BuildConfig, source: str, lost: Counter[str]
) -> Iterator[tuple[str, float | None]]:
    """Entries stripped and, by the worldwide rules, without those that are none."""
    if config.rules == V1:
        yield from entries
        return
    for entry, score in entries:
        stripped = entry.strip()
        if reason := reason_to_drop(stripped, None if source == "wordnet" else MAX_ENTRY):
            lost[reason] += 1
        else:
            yield stripped, score


def _holds(address: str, totals: Statistics) -> bool:
    """Whether a file holds the metadata that a finished run wrote."""
    try:
        metadata = load_metadata(address)
    except UserError:
        return False
    return metadata.fingerprint == totals["fingerprint"]


def _own_source(name: str) -> Callable[[], Iterable[tuple[str, float | None]]]:
    return load_plugin("metadata source", name, {}, also=SOURCES)


def _wordnet(config: BuildConfig) -> list[str]:
    assert config.wordnet is not None
    if config.wiki == ENGLISH:
        return read_synsets_of(config.wordnet)
    return read_lemmas(config.wordnet, config.wiki)


_KINDS = {"unigrams": "words", "bigrams": "bigrams", "titles": "titles"}
_SCORES = {"unigrams": "count", "bigrams": "score", "titles": "score"}


def _ranked(run: Run, config: BuildConfig, source: str) -> tuple[np.ndarray, int | None]:
    """The scores of all candidates of a counted source, and how many may be taken."""
    parts = [
        read_table(run.folder, f"{_KINDS[source]}/{shard_name(p)}.parquet", [_SCORES[source]])
        for p in range(config.partitions or 1)
    ]
    scores = np.concatenate([part[0].to_numpy() for part in parts])
    limits = config.limits
    if source == "unigrams":
        return scores, most(limits.max_unigrams, limits.unigram_share, len(scores))
    if source == "titles":
        return scores, most(limits.max_titles, limits.title_share, len(scores))
    return scores, limits.best_bigrams


def _scored(run: Run, config: BuildConfig, source: str) -> tuple[Entries, int | None]:
    """The entries of a counted source, best first, with their scores; how many there may be."""
    scores, limit = _ranked(run, config, source)
    if source == "bigrams" and config.limits.bigram_share is not None:
        limit = most(limit, config.limits.bigram_share, _taken_unigrams(run, config)[0])
    limits = config.limits
    least = {"unigrams": limits.min_count, "titles": limits.min_views}.get(source, -math.inf)
    if limit is not None and len(scores) > limit:
        # What cannot be among the best is left on disk.
        place = len(scores) - limit
        least = max(least, np.partition(scores, place)[place]) if limit else math.inf
    tables = []
    for partition in range(config.partitions or 1):
        table = read_table(run.folder, f"{_KINDS[source]}/{shard_name(partition)}.parquet")
        if source == "unigrams":
            table = table.rename_columns(["entry", "score"])
        tables.append(table.filter(pc.greater_equal(table["score"], least)))
    order = ["score", "count"] if source == "bigrams" else ["score"]
    table = stages.best_first(pa.concat_tables(tables), order, limit)
    values = table["score"].cast(pa.float64()).to_pylist()
    return list(zip(table["entry"].to_pylist(), values, strict=True)), limit


def _notes(
    config: BuildConfig,
    chosen: tuple[str, ...],
    done: dict[str, Statistics],
    site: SiteInfo,
    dropped: dict[str, dict[str, int]],
) -> list[str]:
    """What a user should know about the result: warnings, in plain words."""
    notes = []
    limits = config.limits
    expected = f"{config.wiki}wiki"
    if site.database and site.database != expected:
        notes.append(f"the dump is of {site.database}, not of {expected}")
    for source, reasons in dropped.items():
        notes.append(f"dropped of {source}: {in_words(reasons)}")
    tokens = done.get("dump", {}).get("tokens", 0)
    if "bigrams" in chosen and limits.min_pmi is not None and tokens:
        # c(w1), c(w2) >= c(w1, w2), so PMI <= log2(N / c(w1, w2)).
        reach = tokens / 2**limits.min_pmi
        least = limits.min_bigram_count or 2
        if reach < least:
            notes.append(
                f"no bigram of {least} or more occurrences can reach a PMI of "
                f"{limits.min_pmi:.15g} in {tokens:,} tokens (the most is log2(tokens / count) = "
                f"{math.log2(tokens / least):.2f}): "
                "require a lower PMI, or take the best bigrams by their number"
            )
        elif reach < limits.min_count:
            notes.append(
                f"in {tokens:,} tokens only bigrams of at most {int(reach):,} occurrences reach a "
                f"PMI of {limits.min_pmi:.15g}; the best bigrams by their number, with a least "
                "count, are frequent ones"
            )
    for stage, totals in done.items():
        if lost := totals.get("losses"):
            notes.append(f"not usable in the {stage} files: {in_words(lost)}")
    repeated = done.get("articles", {}).get("repeated_articles", 0)
    if repeated:
        notes.append(f"{repeated:,} articles are in the dump files more than once")
    return notes


def _parquet_beside(out: str) -> str:
    return f"{out.removesuffix('.json')}.parquet"


def work_folder(out: str) -> str:
    """Where the work files of metadata written to ``out`` are kept: ``metadata.build``."""
    return f"{os.path.splitext(out)[0]}.build"
