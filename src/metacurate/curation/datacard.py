"""The data card: what a curated subset is made of, as JSON."""

from __future__ import annotations

import math
from typing import Any, NotRequired, TypeAlias, TypedDict, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.curation import balancing
from metacurate.curation.balancing import Counts
from metacurate.curation.count import (
    CountTask,
    count_tasks,
    partial_file,
    save_partial,
    sum_partials,
)
from metacurate.curation.layout import (
    BALANCE,
    CARD,
    COUNT,
    DATACARD_FILE,
    KEPT_COUNTS_FILE,
    MATCH,
    curated_file_name,
    finished_section,
    load_counts,
    matched_run,
    run_metadata,
)
from metacurate.curation.thresholds import run_thresholds
from metacurate.metadata.store import Block, Metadata
from metacurate.runtime.arrowfiles import open_parquet
from metacurate.runtime.made import open_made, save_array
from metacurate.runtime.manifest import Statistics, add_statistics
from metacurate.runtime.run import Run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder
from metacurate.version import __version__


class PoolFacts(TypedDict):
    """What was read; ``fingerprints``: by file; ``bad_files``: reasons by file."""

    fingerprints: dict[str, str]
    pairs: int
    texts: int
    skipped: dict[str, int]
    bad_files: dict[str, str]


class MetadataFacts(TypedDict):
    """The entries that texts were matched with."""

    entries: int
    fingerprint: str
    matched_entries: int


class MatchedFacts(TypedDict):
    """What matched, by which rule: pairs, texts, and counts per (text, entry)."""

    rule: str
    pairs: int
    texts: int
    match_counts: int


class BalancingFacts(TypedDict):
    """The threshold (the string "inf" for none) and the settings that it comes from.

    ``counts``: ``given`` if they are not those of the pool itself; the entry counts of the card are
    then the given ones too.
    """

    settings: dict[str, Any]
    counts: NotRequired[str]
    t: float | str
    tail_proportion: float
    seed: int


class KeptFacts(TypedDict):
    """What was kept; ``values_lost``: carried values that no column could hold, by reason."""

    pairs: int
    pairs_expected: float
    texts: int
    match_counts: int
    values_lost: dict[str, int]


class LanguageFacts(TypedDict):
    """One language: its entries, texts, matches and threshold (null where nothing matched)."""

    entries: int
    matched_entries: int
    texts: int
    texts_matched: int
    match_counts: int
    t: float | str | None
    tail_proportion: float
    head_entries: int
    kept_texts: int
    kept_match_counts: int


class DataCard(TypedDict):
    """A curated subset in numbers; ``tables``: part (head, tail) or column, value, counts.

    With metadata of several languages: ``languages``, and ``not_in_own_language`` (how many texts
    were matched with ``other`` or with nothing, by reason).
    """

    metacurate: str
    pool: PoolFacts
    metadata: MetadataFacts
    matched: MatchedFacts
    balancing: BalancingFacts
    kept: KeptFacts
    tables: dict[str, dict[str, dict[str, int]]]
    languages: NotRequired[dict[str, LanguageFacts]]
    not_in_own_language: NotRequired[dict[str, int]]


EntryCounts: TypeAlias = dict[str, int] | dict[str, dict[str, int]]


class FullDataCard(DataCard):
    """As the file ``datacard.json`` has it: with the counts of the entries that match.

    ``{entry: count}``, or ``{language: {entry: count}}`` with several languages.
    """

    entry_counts: EntryCounts
    entry_counts_kept: EntryCounts


def write_datacard(run: Run) -> DataCard:
    """Count the kept entries and write ``datacard.json``; returns the card without its entries."""
    shards, _ = matched_run(run.folder)
    finished_section(run.folder, BALANCE)
    tasks = count_tasks(run.folder, shards)

    def totals(shards: list[Statistics]) -> Statistics:
        kept = sum_partials(run, tasks, "kept_counts")
        save_array(run.folder, KEPT_COUNTS_FILE, kept)
        texts = add_statistics(shards).get("kept_texts", {})
        run.folder.write_json(DATACARD_FILE, make_datacard(run.folder, kept, texts))
        return {"kept_match_counts": int(kept.sum())}

    run_stage(
        run, CARD, {}, tasks, count_curated_shards,
        unit="matches", counted="match_counts", totals=totals,
    )  # fmt: skip
    card = run.folder.read_json(DATACARD_FILE)
    short = {k: v for k, v in card.items() if not k.startswith("entry_counts")}
    return cast(DataCard, short)


def count_curated_shards(task: CountTask) -> Statistics:
    """Count the entries of the kept texts of some curated shards into one partial.

    ``kept_texts`` of what is returned: the kept texts by language (that of their entries).
    """
    counts = np.zeros(task.entries, np.uint64)
    blocks = task.blocks
    kept_texts = np.zeros(len(blocks), np.int64)
    stops = np.array([block.stop for block in blocks])
    columns = ["matched", "text_kept"]
    for position in task.shards:
        with open_made(task.folder, curated_file_name(position)) as file:
            for batch in open_parquet(file).iter_batches(columns=columns, use_threads=False):
                texts = batch.column("matched").flatten()
                kept = texts.filter(batch.column("text_kept").flatten())
                balancing.add_counts(counts, np.asarray(kept.flatten()))
                if len(blocks) > 1:
                    # A kept text has an entry, and all of one language.
                    first = np.asarray(pc.list_element(kept, 0))
                    of_language = np.searchsorted(stops, first, side="right")
                    kept_texts += np.bincount(of_language, minlength=len(blocks))
    save_partial(task.folder, partial_file("kept_counts", task.position), counts)
    found: Statistics = {"match_counts": int(counts.sum())}
    if len(blocks) > 1:
        found["kept_texts"] = {
            str(block.language): number
            for block, number in zip(blocks, kept_texts.tolist(), strict=True)
            if number
        }
    return found


def make_datacard(
    folder: Folder, kept_counts: Counts, kept_texts: dict[str, int] | None = None
) -> FullDataCard:
    """The data card of a balanced run; counts are per (text, entry).

    ``kept_texts``: how many by language, with metadata of several.
    """
    match = finished_section(folder, MATCH)
    count, balance = finished_section(folder, COUNT), finished_section(folder, BALANCE)
    metadata = run_metadata(folder)
    counts = load_counts(folder)
    totals, kept = match["totals"], balance["totals"]
    by_language = _by_language(metadata, totals, kept, counts, kept_counts, kept_texts or {})
    thresholds = run_thresholds(folder).by_entry
    card: FullDataCard = {
        "metacurate": __version__,
        "pool": {
            "fingerprints": match["config"]["pool"],
            "pairs": totals["pairs"],
            "texts": totals["texts"],
            "skipped": totals["skipped"],
            "bad_files": totals["bad_files"],
        },
        "metadata": {
            "entries": match["config"]["metadata"]["entries"],
            "fingerprint": match["config"]["metadata"]["fingerprint"],
            "matched_entries": int(np.count_nonzero(counts)),
        },
        "matched": {
            "rule": match["config"]["rule"],
            "pairs": totals["pairs_matched"],
            "texts": totals["texts_matched"],
            "match_counts": totals["match_counts"],
        },
        "balancing": {
            "settings": {k: v for k, v in balance["config"].items() if k != "format"},
            "t": kept["t"],
            "tail_proportion": kept["p"],
            "seed": kept["seed"],
        },
        "kept": {
            "pairs": kept["pairs_kept"],
            "pairs_expected": kept["pairs_expected"],
            "texts": kept["texts_kept"],
            "match_counts": int(kept_counts.sum()),
            "values_lost": kept["values_lost"],
        },
        "tables": {
            "part": {
                "head": _table(counts >= thresholds, counts, kept_counts),
                "tail": _table(counts < thresholds, counts, kept_counts),
            },
            "metadata_source": _tables(metadata.source, counts, kept_counts),
            "metadata_lang": _tables(metadata.lang, counts, kept_counts),
        },
        "entry_counts": _by_entry(metadata, counts),
        "entry_counts_kept": _by_entry(metadata, kept_counts),
    }
    if "given" in count["config"]:
        card["balancing"]["counts"] = "given"
    if by_language:
        card["languages"] = by_language
        card["not_in_own_language"] = totals["not_in_own_language"]
    return card


def _by_language(
    metadata: Metadata,
    matched: Statistics,
    balanced: Statistics,
    counts: Counts,
    kept_counts: Counts,
    kept_texts: dict[str, int],
) -> dict[str, LanguageFacts]:
    """The facts of each language, in the metadata's order; none if they are one list."""
    found: dict[str, LanguageFacts] = {}
    for block in metadata.blocks if metadata.languages else ():
        language = str(block.language)
        own = counts[block.first : block.stop]
        texts = matched["languages"].get(language, {})
        solved = balanced["languages"][language]
        t = math.inf if solved["t"] is None else float(solved["t"])
        found[language] = {
            "entries": len(block),
            "matched_entries": int(np.count_nonzero(own)),
            "texts": texts.get("texts", 0),
            "texts_matched": texts.get("texts_matched", 0),
            "match_counts": int(own.sum()),
            "t": solved["t"],
            "tail_proportion": solved["p"],
            "head_entries": int(np.count_nonzero(own >= t)),
            "kept_texts": kept_texts.get(language, 0),
            "kept_match_counts": int(kept_counts[block.first : block.stop].sum()),
        }
    return found


def _table(chosen: npt.NDArray[np.bool_], counts: Counts, kept_counts: Counts) -> dict[str, int]:
    return {
        "entries": int(chosen.sum()),
        "matched_entries": int(np.count_nonzero(counts[chosen])),
        "match_counts": int(counts[chosen].sum()),
        "kept_match_counts": int(kept_counts[chosen].sum()),
    }


def _tables(
    groups: pa.Array | None, counts: Counts, kept_counts: Counts
) -> dict[str, dict[str, int]]:
    """A table for each value of a metadata column; empty if there is no such column."""
    if groups is None:
        return {}
    filled = pc.fill_null(groups, "unknown")
    return {
        value: _table(np.asarray(pc.equal(filled, value)), counts, kept_counts)
        for value in sorted(filled.unique().to_pylist())
    }


def _by_entry(metadata: Metadata, counts: Counts) -> EntryCounts:
    """``{entry: count}`` of the entries that match at all, in the metadata's order; by language."""

    def of_block(block: Block) -> dict[str, int]:
        there = block.first + np.flatnonzero(counts[block.first : block.stop])
        entries = metadata.entries.take(there).to_pylist()
        return dict(zip(entries, counts[there].tolist(), strict=True))

    if not metadata.languages:
        return of_block(metadata.blocks[0])
    return {str(block.language): of_block(block) for block in metadata.blocks}
