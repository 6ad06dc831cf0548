"""The language stage: finds the language of each text that has none, and writes the pool with it.

One shard a unit of the pool, its rows in their order, with all their columns. What is written
depends on the input and the settings alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TypedDict, Unpack, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from metacurate.counts import counted
from metacurate.errors import ArgumentError
from metacurate.pool.memory import AnyPool, Given
from metacurate.pool.open import Unit
from metacurate.pool.read import read_unit
from metacurate.pool.schema import TEXTS_TYPE, PoolBatch, PoolConfig
from metacurate.pool.write import canonical_batch, canonical_schema, open_to_rewrite
from metacurate.runtime.manifest import Stage, Statistics, add_statistics, shard_name
from metacurate.runtime.run import RunOptions, open_run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder
from metacurate.texts.language import (
    DEFAULT_OF_MANY,
    UNDETERMINED,
    CarefulIdentifier,
    load_identifier,
)
from metacurate.texts.languages import MAX_LABEL

LANGUAGE = Stage("language", ("pool",), format=2)
ROW_GROUP_ROWS = 65_536
# Labels come from the pool too and may be anything: so many are counted by name.
MAX_LABELS = 1_000
OTHER_LABELS = "other labels"


@dataclass(frozen=True)
class LanguageConfig:
    """How to identify languages.

    ``identifier``: a language identifier's name (``texts.language``); ``min_score``: texts with a
    lower score are ``und``; ``every``: identify the texts that have a language too.
    """

    identifier: str = DEFAULT_OF_MANY
    min_score: float = 0.0
    every: bool = False


_COUNTS = ("rows", "texts", "identified", "kept", "undetermined")
_NOTHING: Statistics = {**dict.fromkeys(_COUNTS, 0), "languages": {}, "skipped": {}}


@dataclass(frozen=True)
class _Task:
    folder: Folder
    position: int
    unit: Unit
    schema: pa.Schema
    config: LanguageConfig


class LanguageTotals(TypedDict):
    """``texts`` = ``identified`` + ``kept`` (those that had a language).

    ``languages``: the texts by label, most first; ``undetermined``: those that are ``und``;
    ``skipped``: what the reader could not use, by reason (``formats.reasons``); ``bad_files``:
    reasons by file.
    """

    units: int
    rows: int
    texts: int
    identified: int
    kept: int
    undetermined: int
    languages: dict[str, int]
    skipped: dict[str, int]
    bad_files: dict[str, str]


def identify_languages(
    pool: AnyPool,
    out: str,
    config: LanguageConfig,
    pool_config: PoolConfig,
    **options: Unpack[RunOptions],
) -> LanguageTotals:
    """Write ``OUT/pool/part-NNNNNN.parquet``: the pool, with the language of each text.

    A text has a language if the pool says one other than ``und``, beside it or in the column
    ``pool_config.lang_col``. Resumes; UserError if ``out`` holds another run or the identifier
    cannot be loaded.
    """
    if not 0 <= config.min_score <= 1:
        raise ArgumentError(
            "{min_lang_score} must be from 0 to 1, not {value}", value=config.min_score
        )
    load_identifier(config.identifier)  # a missing package is told before the work begins
    given = Given.of(pool)
    with open_run(out, inputs=given.paths, preload=__name__, **options) as run:
        inputs = given.files(run)
        opened = open_to_rewrite(run, inputs, pool_config)
        settings = {
            "inputs": inputs,
            "pool": opened.fingerprints,
            "pool_config": asdict(pool_config),
            **asdict(config),
        }
        schema = canonical_schema(opened)
        units = enumerate(opened.units)
        tasks = [_Task(run.folder, n, unit, schema, config) for n, unit in units]

        def totals(shards: list[Statistics]) -> LanguageTotals:
            found = add_statistics([_NOTHING, *shards])
            found["languages"] = _most(found["languages"])
            bad_files = dict(opened.bad_files)
            return cast(LanguageTotals, {"units": len(tasks), **found, "bad_files": bad_files})

        return run_stage(
            run, LANGUAGE, settings, tasks, _identify_unit, unit="texts", totals=totals, alone=True
        )


@lru_cache(maxsize=1)
def _identifier(name: str, min_score: float) -> CarefulIdentifier:
    return load_identifier(name, min_score)


def _identify_unit(task: _Task) -> Statistics:
    """Write one unit with its languages."""
    config = task.config
    identifier = _identifier(config.identifier, config.min_score)
    skipped: Counter[str] = Counter()
    counts = dict.fromkeys(_COUNTS, 0)
    labels: Counter[str] = Counter()
    name = f"pool/{shard_name(task.position)}.parquet"
    with (
        task.folder.create(name) as file,
        pq.ParquetWriter(file, task.schema, compression="zstd") as writer,
    ):
        for batch in read_unit(task.unit, all_columns=True, skipped=skipped):
            rows = canonical_batch(batch, task.unit.columns, task.schema)
            texts = rows.column("texts")
            languages, identified = _languages(batch, texts, identifier, config.every)
            place = rows.schema.get_field_index("texts")
            with_languages = rows.set_column(place, "texts", _with(texts, languages))
            writer.write_batch(with_languages, row_group_size=ROW_GROUP_ROWS)
            found = len(languages) - languages.null_count
            counts["rows"] += rows.num_rows
            counts["texts"] += found
            counts["identified"] += identified
            counts["kept"] += found - identified
            counts["undetermined"] += pc.sum(pc.equal(languages, UNDETERMINED)).as_py() or 0
            for count in pc.value_counts(languages.drop_null()).to_pylist():
                label = count["values"]
                labels[label if len(label) <= MAX_LABEL else OTHER_LABELS] += count["counts"]
            labels = Counter(_most(labels))
    return {
        **counts,
        "languages": _most(labels),
        "skipped": counted(skipped),
    }


def _languages(
    batch: PoolBatch, lists: pa.ListArray, identifier: CarefulIdentifier, every: bool
) -> tuple[pa.StringArray, int]:
    """The language of each text, null where the text is; how many of them were identified."""
    texts = pc.struct_field(lists.values, "text")
    assert batch.langs is not None
    said = batch.langs.cast(pa.large_string()).cast(pa.string())
    if every:
        said = pa.nulls(len(texts), pa.string())
    stated = pc.utf8_lower(pc.utf8_trim_whitespace(said))  # as curation takes labels
    says = pc.and_(pc.not_equal(stated, ""), pc.not_equal(stated, UNDETERMINED))
    wanted = pc.and_(pc.invert(pc.fill_null(says, False)), texts.is_valid())
    where = np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
    found = identifier.of_column(texts.take(pa.array(where)))
    said = pc.if_else(texts.is_valid(), said, pa.scalar(None, pa.string()))
    return pc.replace_with_mask(said, wanted, found), len(where)


def _with(lists: pa.ListArray, languages: pa.StringArray) -> pa.ListArray:
    values = lists.values
    fields = [pc.struct_field(values, "source"), pc.struct_field(values, "text"), languages]
    structs = pa.StructArray.from_arrays(fields, fields=list(TEXTS_TYPE.value_type))
    return pa.ListArray.from_arrays(lists.offsets, structs, type=TEXTS_TYPE)


def _most(labels: Mapping[str, int]) -> dict[str, int]:
    """The counts of the labels that occur most, most first, and of all others together."""
    ordered = sorted(labels, key=lambda label: (-labels[label], label))
    named = [label for label in ordered if label != OTHER_LABELS]
    kept = {label: labels[label] for label in named[:MAX_LABELS]}
    others = sum(labels.values()) - sum(kept.values())
    return {**kept, OTHER_LABELS: others} if others else kept
