"""The match stage: every text of the pool against the metadata; writes the index.

With metadata of several languages a text is matched against those of its own (``languages``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from metacurate.curation.languages import Languages, Matches, TextsByLanguage, match_by_language
from metacurate.curation.layout import (
    LANGUAGES_FILE,
    MATCH,
    METADATA_FILE,
    index_file_name,
    matcher_address,
)
from metacurate.curation.match_index import select_matched, write_index
from metacurate.curation.matching.matcher import Matcher
from metacurate.curation.matching.spacing import V1, WORLDWIDE, check_rule
from metacurate.metadata.store import MAX_LANGUAGES, Metadata, load_language, save_parquet
from metacurate.pool.columns import PAIRS, PAIRS_WITH_LANGS, Needs
from metacurate.pool.open import Pool, Unit
from metacurate.pool.read import read_unit
from metacurate.pool.schema import PoolBatch, PoolConfig
from metacurate.runtime.kept import kept
from metacurate.runtime.manifest import Statistics, add_statistics
from metacurate.runtime.progress import is_noting, note
from metacurate.runtime.run import Run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder, is_local, local_path
from metacurate.texts.languages import LanguageMap, load_language_map

# A worker that cannot map tables from a disk that it shares holds those of so many languages.
BUILT_MATCHERS = 64


@dataclass(frozen=True)
class MatchTask:
    """One unit of the pool to match."""

    folder: Folder
    position: int
    unit: Unit
    metadata: str  # its fingerprint
    rule: str
    languages: str | None  # the fingerprint of their table, if the metadata have several


def needs_of(metadata: Metadata) -> Needs:
    """What a pool must have to be matched."""
    return PAIRS_WITH_LANGS if metadata.languages else PAIRS


def rule_for(metadata: Metadata, rule: str | None) -> str:
    """The rule that is asked for; if none is, ``worldwide`` for several languages, else ``v1``."""
    if rule is None:
        return WORLDWIDE if metadata.languages else V1
    return check_rule(rule)


def match(
    run: Run,
    pool: Pool,
    pool_config: PoolConfig,
    metadata: Metadata,
    rule: str | None = None,
    language_map: LanguageMap | None = None,
) -> Statistics:
    """Match all texts of the pool by a rule; writes the index. Returns the totals.

    ``rule``: ``worldwide`` if the metadata have several languages and ``v1`` if not, unless given.
    ``language_map``: the shipped one if not given; it counts with several languages only.
    """
    rule = rule_for(metadata, rule)
    config: dict[str, Any] = {
        "pool": pool.fingerprints,
        "columns": pool.describe(),
        "pool_config": asdict(pool_config),
        "metadata": {"entries": len(metadata), "fingerprint": metadata.fingerprint},
        "rule": rule,
    }
    languages = None
    if metadata.languages:
        languages = Languages(metadata.blocks, language_map or load_language_map())
        config["metadata"]["languages"] = [[b.language, len(b)] for b in metadata.blocks]
        config["language_map"] = languages.table.fingerprint
        if is_noting() and (unreached := languages.unreached):
            shown = ", ".join(unreached[:5]) + (", ..." if len(unreached) > 5 else "")
            note(f"no label of a text leads to the metadata of {len(unreached)} languages: {shown}")

    def tasks() -> list[MatchTask]:
        with ThreadPoolExecutor(1) as beside:
            save = partial(save_parquet, metadata, run.folder.address(METADATA_FILE))
            saved = beside.submit(copy_context().run, save)
            if languages is not None:
                run.folder.write_json(LANGUAGES_FILE, languages.as_json())
            if is_local(run.folder.url):
                for place, block in enumerate(metadata.blocks):
                    entries = metadata.entries.slice(block.first, len(block))
                    Matcher(entries, rule=rule).save(local_path(matcher_address(run.folder, place)))
            saved.result()
        table = languages.table.fingerprint if languages is not None else None
        return [
            MatchTask(run.folder, position, unit, metadata.fingerprint, rule, table)
            for position, unit in enumerate(pool.units)
        ]

    def totals(shards: list[Statistics]) -> Statistics:
        return {**add_statistics(shards), "bad_files": dict(pool.bad_files)}

    return run_stage(run, MATCH, config, tasks, match_shard, unit="texts", totals=totals)


@kept(1)
def _languages(folder: Folder, metadata: str, table: str) -> Languages:
    del metadata, table  # of the key
    return Languages.from_json(folder.read_json(LANGUAGES_FILE))


@kept(1)
def _matchers(
    folder: Folder, metadata: str, rule: str, table: str | None
) -> Callable[[int], Matcher]:
    """Gives the matcher of the block at a place; those of an earlier run are let go."""
    if is_local(folder.url):

        def mapped(place: int) -> Matcher:
            # So that this machine's workers share its pages.
            return Matcher.load(local_path(matcher_address(folder, place)))

        return kept(MAX_LANGUAGES)(mapped)
    blocks = _languages(folder, metadata, table).blocks if table is not None else ()

    def built(place: int) -> Matcher:
        language = blocks[place].language if blocks else None
        return Matcher(load_language(folder.address(METADATA_FILE), language), rule=rule)

    return kept(BUILT_MATCHERS)(built)


def match_shard(task: MatchTask) -> Statistics:
    """Match one unit; writes its index shard."""
    matcher_of = _matchers(task.folder, task.metadata, task.rule, task.languages)
    by_language = None
    if task.languages is not None:
        languages = _languages(task.folder, task.metadata, task.languages)
        by_language = TextsByLanguage(languages)
    totals = dict.fromkeys(("pairs", "texts", "texts_matched", "pairs_matched", "match_counts"), 0)
    skipped: Counter[str] = Counter()

    def matches(batch: PoolBatch) -> Matches:
        if by_language is None:
            return matcher_of(0).match(batch.texts)
        assert batch.langs is not None
        codes = by_language.codes(batch.texts, batch.langs)
        found = match_by_language(batch.texts, codes, languages.blocks, matcher_of)
        by_language.add(codes, batch.texts, found[0])
        return found

    def index_batches() -> Iterator[pa.RecordBatch]:
        for batch in read_unit(task.unit, all_columns=False, skipped=skipped):
            offsets, entry_ids = matches(batch)
            index = select_matched(batch, offsets, entry_ids)
            totals["pairs"] += batch.rows
            totals["texts"] += len(batch.texts) - batch.texts.null_count
            totals["texts_matched"] += int(np.count_nonzero(np.diff(offsets)))
            totals["pairs_matched"] += index.num_rows
            totals["match_counts"] += len(index.column("matched").flatten().flatten())
            yield index

    with task.folder.create(index_file_name(task.position)) as file:
        write_index(file, index_batches())
    told = {} if by_language is None else by_language.totals()
    return {**totals, "skipped": dict(sorted(skipped.items())), **told}
