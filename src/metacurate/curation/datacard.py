"""The data card: what a curated subset is made of, as JSON."""

from __future__ import annotations

from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from metacurate.curation import balancing
from metacurate.curation.balancing import Counts
from metacurate.curation.count import CountTask, count_tasks, partial_file, sum_partials
from metacurate.curation.layout import (
    BALANCE,
    CARD,
    DATACARD_FILE,
    KEPT_COUNTS_FILE,
    MATCH,
    METADATA_FILE,
    curated_file_name,
    finished_section,
    load_counts,
    matched_run,
)
from metacurate.metadata.store import Metadata, load_metadata
from metacurate.runtime.made import open_made, save_array
from metacurate.runtime.manifest import Statistics
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
    """The threshold (the string "inf" for none) and the settings that it comes from."""

    settings: dict[str, Any]
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


class DataCard(TypedDict):
    """A curated subset in numbers; ``tables``: part (head, tail) or column, value, counts."""

    metacurate: str
    pool: PoolFacts
    metadata: MetadataFacts
    matched: MatchedFacts
    balancing: BalancingFacts
    kept: KeptFacts
    tables: dict[str, dict[str, dict[str, int]]]


class FullDataCard(DataCard):
    """As the file ``datacard.json`` has it: with the counts of the entries that match."""

    entry_counts: dict[str, int]
    entry_counts_kept: dict[str, int]


def write_datacard(run: Run) -> DataCard:
    """Count the kept entries and write ``datacard.json``; returns the card without its entries."""
    shards, entries = matched_run(run.folder)
    finished_section(run.folder, BALANCE)
    tasks = count_tasks(run.folder, shards, entries)

    def totals(_: list[Statistics]) -> Statistics:
        kept = sum_partials(tasks, "kept_counts")
        save_array(run.folder, KEPT_COUNTS_FILE, kept)
        run.folder.write_json(DATACARD_FILE, make_datacard(run.folder, kept))
        return {"kept_match_counts": int(kept.sum())}

    run_stage(run, CARD, {}, tasks, count_curated_shards, unit="match_counts", totals=totals)
    card = run.folder.read_json(DATACARD_FILE)
    short = {k: v for k, v in card.items() if not k.startswith("entry_counts")}
    return cast(DataCard, short)


def count_curated_shards(task: CountTask) -> Statistics:
    """Count the entries of the kept texts of some curated shards into one partial."""
    counts = np.zeros(task.entries, np.uint64)
    for position in task.shards:
        with open_made(task.folder, curated_file_name(position)) as file:
            for batch in pq.ParquetFile(file).iter_batches(columns=["matched", "text_kept"]):
                texts = batch.column("matched").flatten()
                kept = texts.filter(batch.column("text_kept").flatten())
                balancing.add_counts(counts, np.asarray(kept.flatten()))
    save_array(task.folder, partial_file("kept_counts", task.position), counts)
    return {"match_counts": int(counts.sum())}


def make_datacard(folder: Folder, kept_counts: Counts) -> FullDataCard:
    """The data card of a balanced run; counts are per (text, entry)."""
    match = finished_section(folder, MATCH)
    balance = finished_section(folder, BALANCE)
    metadata = load_metadata(folder.address(METADATA_FILE))
    counts = load_counts(folder)
    t = float(balance["totals"]["t"])
    totals, kept = match["totals"], balance["totals"]
    return {
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
            "match_counts": int(counts.sum()),
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
                "head": _table(counts >= t, counts, kept_counts),
                "tail": _table(counts < t, counts, kept_counts),
            },
            "metadata_source": _tables(metadata.source, counts, kept_counts),
            "metadata_lang": _tables(metadata.lang, counts, kept_counts),
        },
        "entry_counts": _by_entry(metadata, counts),
        "entry_counts_kept": _by_entry(metadata, kept_counts),
    }


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


def _by_entry(metadata: Metadata, counts: Counts) -> dict[str, int]:
    """``{entry: count}`` of the entries that match at all, in the metadata's order."""
    there = np.flatnonzero(counts)
    return dict(zip(metadata.entries.take(there).to_pylist(), counts[there].tolist(), strict=True))
