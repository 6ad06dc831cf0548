"""Looking closely at a text, an entry or a pair: matches, probabilities, and whether it is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.arrays import offsets_of
from metacurate.curation import balancing
from metacurate.curation.balancing import Counts, EntryIds, Probabilities
from metacurate.curation.layout import (
    BALANCE,
    COUNT,
    KEPT_COUNTS_FILE,
    MATCH,
    finished_section,
    index_file_name,
    light_engine,
    load_counts,
    matched_run,
    run_metadata,
)
from metacurate.curation.match_index import read_index
from metacurate.curation.matching.matcher import Matcher
from metacurate.curation.settings import ANY, json_number
from metacurate.curation.subset import (
    PairSampler,
    merge_samples,
    read_curated,
    run_pool_config,
)
from metacurate.curation.thresholds import Thresholds, run_thresholds
from metacurate.errors import ArgumentError, UserError
from metacurate.metadata.lookup import entry_id
from metacurate.metadata.store import Metadata
from metacurate.pool.open import open_pool
from metacurate.pool.read import read_unit
from metacurate.pool.schema import PoolConfig
from metacurate.printable import printable
from metacurate.runtime.made import load_array, open_made
from metacurate.runtime.progress import meter
from metacurate.runtime.run import Run
from metacurate.runtime.storage import Folder

MAX_PAIRS = 10
"""A pool may repeat a pair (its uid); so many are looked at."""


@dataclass(frozen=True)
class Distribution:
    """Entries with their counts (uint64[entries]) and thresholds; ``rule`` is how they match."""

    metadata: Metadata
    counts: Counts
    thresholds: Thresholds
    rule: str

    @cached_property
    def t(self) -> npt.NDArray[np.float64]:
        """Each entry's threshold, float64[entries]."""
        return self.thresholds.by_entry

    @cached_property
    def keep_probs(self) -> Probabilities:
        """Each entry's keep probability, float64[entries]."""
        return balancing.keep_probabilities(self.counts, self.t)

    def match(self, text: str, lang: str | None = None) -> EntryIds:
        """The ids of the entries that a text matches: those of its language, if there are several.

        UserError if the language has no metadata, none is given and there are several, or the text
        is no valid Unicode.
        """
        block = next((b for b in self.metadata.blocks if b.language == lang), None)
        if block is None:
            raise ArgumentError(
                "the metadata have languages ({known}): {said}; choose with {lang}",
                known=", ".join(self.metadata.languages[:20]) or "they are one list",
                said="one is needed" if lang is None else f"{lang!r} is none of them",
            )
        entries = self.metadata.entries.slice(block.first, len(block))
        try:
            _, ids = Matcher(entries, rule=self.rule).match([text])
        except ValueError as error:
            raise UserError(f"the text cannot be matched: {error}") from None
        return ids + np.uint32(block.first)


def run_distribution(folder: Folder) -> Distribution:
    """The entries, counts and thresholds of a balanced run."""
    finished_section(folder, COUNT)
    thresholds = run_thresholds(folder)
    metadata = run_metadata(folder)
    rule = finished_section(folder, MATCH)["config"]["rule"]
    return Distribution(metadata, load_counts(folder), thresholds, rule)


def inspect_text(text: str, distribution: Distribution, lang: str | None = None) -> dict[str, Any]:
    """The entries that a text matches, each with count and p, and its keep probability.

    Plain JSON values; ``keep_prob`` is that of a pair with no other text. Raises UserError if the
    text is no valid Unicode, or without its language where the metadata have several.
    """
    ids = distribution.match(text, lang)
    keep_probs, thresholds = distribution.keep_probs, distribution.thresholds
    place = [block.language for block in thresholds.blocks].index(lang)
    offsets = np.array([0, ids.size], np.int64)
    return {
        "text": text,
        **({} if lang is None else {"lang": lang}),
        "t": thresholds.t_of(place, distribution.counts),
        "matches": [_match(distribution, int(i), float(keep_probs[i])) for i in ids],
        "keep_prob": float(balancing.pair_keep_probabilities(offsets, ids, keep_probs)[0]),
    }


def _match(distribution: Distribution, position: int, p: float) -> dict[str, Any]:
    count = int(distribution.counts[position])
    return {
        "entry": distribution.metadata.entries[position].as_py(),
        "id": position,
        "count": count,
        "p": p,
        "part": _part(count, float(distribution.t[position])),
    }


def _part(count: int, t: float) -> str:
    if count == 0:
        return "unmatched"
    return "head" if count >= t else "tail"


@dataclass(frozen=True)
class _SampleTask:
    """A curated shard to take sample pairs of an entry from."""

    folder: Folder
    position: int
    pool_config: PoolConfig
    entries: int
    entry: int
    size: int


def _sample_shard(task: _SampleTask) -> tuple[int, list[dict[str, Any]]]:
    sampler = PairSampler([task.entry], task.entries, task.size)
    rows = 0
    for batch in read_curated(task.folder, task.position, task.pool_config):
        rows += len(batch.uids)
        sampler.add(batch)
    return rows, sampler.samples()[task.entry]


def inspect_entry(run: Run, name: str, samples: int = 5, lang: str | None = None) -> dict[str, Any]:
    """An entry's counts before and after balancing, its p, its part, and sample pairs.

    Plain JSON values. The samples are of kept texts (see ``metacurate.curation.subset``). Raises
    UserError, with entries spelled alike, if there is no such entry, and without its language
    (``lang``) if several languages have it.
    """
    shards, entries = matched_run(run.folder)
    finished_section(run.folder, BALANCE)
    metadata = run_metadata(run.folder)
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are no text in the terminal's encoding
        raise UserError(f"the metadata has no entry {printable(name, 60)!r}") from None
    position = entry_id(metadata, name, lang)
    counts, thresholds = load_counts(run.folder), run_thresholds(run.folder)
    place = next(i for i, b in enumerate(thresholds.blocks) if b.first <= position < b.stop)
    block, t = thresholds.blocks[place], thresholds.t[place]
    if not run.folder.exists(KEPT_COUNTS_FILE):
        raise UserError(f"{run.folder.url} has no data card; run its command again")
    kept = load_array(run.folder, KEPT_COUNTS_FILE)
    config = run_pool_config(run.folder)
    found: list[list[dict[str, Any]]] = []
    if samples and kept[position]:
        tasks = [
            _SampleTask(run.folder, shard, config, entries, position, samples)
            for shard in range(shards)
        ]
        with meter("inspect", shards, "pairs", show=run.show_progress) as progress:
            for _, (rows, part) in light_engine(run).map_shards(_sample_shard, tasks):
                found.append(part)
                progress.advance(rows)
    columns = {"source": metadata.source, "lang": metadata.lang, "score": metadata.score}
    count = int(counts[position])
    return {
        "entry": name,
        "id": position,
        **{k: None if v is None else v[position].as_py() for k, v in columns.items()},
        "t": thresholds.t_of(place, counts),
        "count": count,
        "count_kept": int(kept[position]),
        "p": float(balancing.keep_probabilities(counts[position : position + 1], t)[0]),
        "part": _part(count, t),
        # How many entries (of its language) are more common.
        "rank": int(np.count_nonzero(counts[block.first : block.stop] > counts[position])) + 1,
        "samples": merge_samples(found, samples),
    }


@dataclass(frozen=True)
class _FindTask:
    """An index shard to look for a pair in."""

    folder: Folder
    position: int
    uid: bytes


def _find_in_shard(task: _FindTask) -> tuple[int, list[tuple[int, list[list[int]]]]]:
    """The shard's pairs, and of those with that uid the row number and each text's entry ids."""
    wanted = np.frombuffer(task.uid, "<u8")
    rows, found = 0, []
    with open_made(task.folder, index_file_name(task.position)) as file:
        for batch in read_index(file):
            rows += batch.batch.num_rows
            for place in np.flatnonzero((batch.uids == wanted).all(axis=1)).tolist():
                row = batch.batch.column("row")[place].as_py()
                found.append((row, batch.batch.column("matched")[place].as_py()))
    return rows, found[:MAX_PAIRS]


def inspect_uid(run: Run, uid: str) -> dict[str, Any]:
    """A pair's texts, matches and draws, and whether it is kept, from its uid in hex.

    Plain JSON values: ``pairs`` has one element for each time that the pool has the pair among
    those matched (at most MAX_PAIRS). The draws are repeated and do not need the pool; the texts
    and the URL are read from the pool if its files are still there, else they are null and ``note``
    says why. Raises UserError if the uid is none or no matched pair has it.
    """
    try:
        raw = bytes.fromhex(uid)
    except ValueError:
        raw = b""
    if len(raw) != 16:
        raise UserError("a uid is 32 hexadecimal digits, as in the column uid of a curated shard")
    shards, _ = matched_run(run.folder)
    distribution = run_distribution(run.folder)
    seed = int(finished_section(run.folder, BALANCE)["totals"]["seed"])
    tasks = [_FindTask(run.folder, shard, raw) for shard in range(shards)]
    hits: list[tuple[int, int, list[list[int]]]] = []
    with meter("inspect", shards, "pairs", show=run.show_progress) as progress:
        for shard, (rows, found) in light_engine(run).map_shards(_find_in_shard, tasks):
            hits += [(shard, row, matched) for row, matched in found]
            progress.advance(rows)
    if not hits:
        raise UserError(f"no matched pair has the uid {uid}: it is not in the pool, or no entry "
                        "matches its texts")  # fmt: skip
    hits = sorted(hits)[:MAX_PAIRS]
    keep_probs, thresholds = distribution.keep_probs, distribution.thresholds
    choose_text = finished_section(run.folder, BALANCE)["config"].get("choose_text", ANY)
    texts, note = _pool_rows(run.folder, [(shard, row) for shard, row, _ in hits])
    pairs = []
    for (shard, row, matched), content in zip(hits, texts, strict=True):
        chosen = balancing.chosen_texts(seed, raw, [len(ids) for ids in matched], choose_text)
        made = []
        for place, ids in enumerate(matched):
            matches = []
            for i in ids:
                p, draw = float(keep_probs[i]), balancing.draw(seed, raw, place, i)
                match = _match(distribution, i, p)
                matches.append({**match, "draw": draw, "success": bool(p >= 1 or draw < p)})
            text = content["texts"][place] if content is not None else None
            kept = bool(chosen[place]) and any(match["success"] for match in matches)
            made.append({
                "text": text, "chosen": bool(chosen[place]), "matches": matches, "kept": kept,
            })  # fmt: skip
        everything = np.array([i for ids in matched for i in ids], np.uint32)
        lengths = offsets_of([len(ids) for ids in matched])
        probability, _ = balancing.expected_sizes(
            np.array([0, len(matched)]), lengths, everything, keep_probs, choose_text
        )
        pairs.append({
            "shard": shard,
            "row": row,
            "url": None if content is None else content["url"],
            "texts": made,
            "keep_prob": probability,
            "kept": any(text["kept"] for text in made),
        })  # fmt: skip
    return {
        "uid": raw.hex(),
        "t": json_number(thresholds.of_reference),
        "seed": seed,
        "note": note,
        "pairs": pairs,
    }


def _pool_rows(
    folder: Folder, places: Sequence[tuple[int, int]]
) -> tuple[list[dict[str, Any] | None], str | None]:
    """The URL and texts of some (unit, row) of the run's pool, or why they cannot be read."""
    section = finished_section(folder, MATCH)["config"]
    config = PoolConfig.from_json(section["pool_config"])
    try:
        pool = open_pool(list(section["pool"]), config)
        if pool.fingerprints != section["pool"]:
            return [None] * len(places), "the pool has changed since the run: no texts"
        return [_pool_row(pool.units[unit], row) for unit, row in places], None
    except UserError as error:
        return [None] * len(places), f"the texts cannot be read from the pool: {error}"


def _pool_row(unit: Any, row: int) -> dict[str, Any] | None:
    skipped: Counter[str] = Counter()
    for batch in read_unit(unit, all_columns=True, skipped=skipped):
        place = row - batch.first_row
        if place >= batch.rows:
            continue
        start, stop = batch.text_offsets[place : place + 2]
        assert batch.columns is not None
        url = unit.columns.url
        return {
            "url": None if url is None else batch.columns.column(url)[place].as_py(),
            "texts": batch.texts[int(start) : int(stop)].to_pylist(),
        }
    return None
