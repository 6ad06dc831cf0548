"""The balance stage: solves the threshold, draws, and writes the kept pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.curation import balancing
from metacurate.curation.balancing import Counts, Probabilities
from metacurate.curation.layout import (
    BALANCE,
    COUNT,
    MATCH,
    THRESHOLD_FILE,
    curated_file_name,
    finished_section,
    index_file_name,
    load_counts,
    run_blocks,
)
from metacurate.curation.match_index import MATCHED_TYPE, read_index
from metacurate.curation.settings import Balance
from metacurate.curation.thresholds import Thresholds, read_thresholds, solve_thresholds
from metacurate.errors import UserError
from metacurate.formats import reasons
from metacurate.formats.features import features_of, with_features
from metacurate.metadata.store import Block
from metacurate.pool.columns import WrittenColumns
from metacurate.pool.open import Pool, Unit, open_pool
from metacurate.pool.read import read_columns
from metacurate.pool.schema import UID_TYPE, PoolConfig
from metacurate.pool.write import leaf_columns
from metacurate.runtime.kept import kept
from metacurate.runtime.made import open_made
from metacurate.runtime.manifest import Statistics, add_statistics, digest
from metacurate.runtime.progress import note
from metacurate.runtime.run import Run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder

# A kept row group is written when it has this many rows, or bytes.
ROW_GROUP_ROWS = 131_072
ROW_GROUP_BYTES = 256 * 2**20

CURATED_FIELDS = (
    pa.field("uid", UID_TYPE, nullable=False),
    pa.field("matched", MATCHED_TYPE, nullable=False),
    pa.field("text_kept", pa.list_(pa.bool_()), nullable=False),
    pa.field("keep_prob", pa.float64(), nullable=False),
)


@dataclass(frozen=True)
class SizeTask:
    """An index shard whose expected size at some thresholds is asked for."""

    folder: Folder
    position: int
    thresholds: Thresholds
    choose_text: str
    counts: str  # names what was counted


@dataclass(frozen=True)
class BalanceTask:
    """One unit of the pool whose kept pairs are to be written."""

    folder: Folder
    position: int
    unit: Unit
    thresholds: Thresholds
    choose_text: str
    seed: int
    counts: str  # names what was counted


def balance(run: Run, settings: Balance, pool: Pool | None = None) -> Statistics:
    """Draw the balanced subset and write it. Returns the totals.

    ``pool`` is the matched pool if it is open already; its files must not have changed.
    """
    matched = finished_section(run.folder, MATCH)
    count = finished_section(run.folder, COUNT)
    pool_config = PoolConfig.from_json(matched["config"]["pool_config"])
    if pool is None:
        pool = open_pool(list(matched["config"]["pool"]), pool_config, engine=run.engine)
    if pool.fingerprints != matched["config"]["pool"]:
        raise UserError(f"the pool has changed since {run.folder.url} matched it; match it again")
    counts = load_counts(run.folder)
    counted = digest({"matched": matched["config"], "counted": count["config"]})
    units = pool.units

    blocks = run_blocks(run.folder)

    def tasks() -> list[BalanceTask]:
        thresholds = read_thresholds(run.folder, blocks)
        if thresholds is None:
            thresholds = _solve(run, settings, counts, blocks, len(units), counted)
        # Written again too: a resumed run records the same files.
        run.folder.write_json(THRESHOLD_FILE, thresholds.saved())
        return [
            BalanceTask(
                run.folder, position, unit, thresholds, settings.choose_text, settings.seed, counted
            )
            for position, unit in enumerate(units)
        ]

    def totals(shards: list[Statistics]) -> Statistics:
        thresholds = read_thresholds(run.folder, blocks)
        assert thresholds is not None
        return {
            **thresholds.as_json(counts),
            "seed": settings.seed,
            **add_statistics(shards),
            # Summed exactly, whatever the order of the shards.
            "pairs_expected": math.fsum(shard["pairs_expected"] for shard in shards),
        }

    return run_stage(
        run, BALANCE, settings.as_json(), tasks, balance_shard,
        unit="pairs", counted="pairs_matched", totals=totals,
    )  # fmt: skip


def _solve(
    run: Run,
    settings: Balance,
    counts: Counts,
    blocks: tuple[Block, ...],
    shards: int,
    counted: str,
) -> Thresholds:
    passes = 0

    def expected_size(thresholds: Thresholds) -> float:
        nonlocal passes
        passes += 1
        tasks = [
            SizeTask(run.folder, position, thresholds, settings.choose_text, counted)
            for position in range(shards)
        ]
        sizes = dict(run.engine.map_shards(expected_shard_size, tasks))
        size = math.fsum(sizes.values())
        note(f"solve: pass {passes}, t = {thresholds.of_reference:,.1f} keeps {size:,.0f} pairs")
        return size

    return solve_thresholds(settings, counts, blocks, expected_size)


@kept(2)
def run_keep_probabilities(folder: Folder, counts: str, thresholds: Thresholds) -> Probabilities:
    """Each entry's keep probability, float64[entries]; ``counts`` names what was counted."""
    del counts  # of the key
    return balancing.keep_probabilities(load_counts(folder), thresholds.by_entry)


def expected_shard_size(task: SizeTask) -> float:
    """The expected number of kept pairs of an index shard."""
    keep_probs = run_keep_probabilities(task.folder, task.counts, task.thresholds)
    sizes = []
    with open_made(task.folder, index_file_name(task.position)) as file:
        for batch in read_index(file):
            pairs, _ = balancing.expected_sizes(
                batch.pair_offsets, batch.text_offsets, batch.entry_ids, keep_probs,
                task.choose_text,
            )  # fmt: skip
            sizes.append(pairs)
    return math.fsum(sizes)


def balance_shard(task: BalanceTask) -> Statistics:
    """Write the kept pairs of one unit: the pool's own columns and what curation adds.

    ``values_lost`` of what is returned: how many values of the unit's own columns are null because
    they could not be carried, by reason.
    """
    names = ("pairs_matched", "pairs_kept", "texts_kept", "bytes_in_memory")
    totals: Statistics = dict.fromkeys(names, 0)
    expected: list[float] = []
    added = {field.name for field in CURATED_FIELDS}
    own = [field for field in task.unit.columns.carried if field.name not in added]
    columns = task.unit.columns
    schema = with_features(
        pa.schema([*own, *CURATED_FIELDS], WrittenColumns(columns.url, columns.texts).metadata()),
        features_of(columns.carried),
    )
    repetitive = leaf_columns(schema, {"uid", "keep_prob", columns.key, columns.url})
    compared = leaf_columns(schema, {*added, *columns.texts, columns.key, columns.url})
    skipped: Counter[str] = Counter()
    with (
        open_made(task.folder, index_file_name(task.position)) as index_file,
        task.folder.create(curated_file_name(task.position)) as file,
        pq.ParquetWriter(
            file, schema, compression="zstd", use_dictionary=repetitive, write_statistics=compared
        ) as writer,
    ):
        kept_batches = _Cursor(_kept_batches(task, index_file, totals, expected))
        group: list[pa.RecordBatch] = []

        def write_group() -> None:
            # As its readers have it: in one piece.
            rows = pa.Table.from_batches(group).combine_chunks()
            totals["bytes_in_memory"] += rows.nbytes
            writer.write_table(rows)
            group.clear()

        for first_row, rows in read_columns(task.unit, skipped=skipped):
            kept = kept_batches.take_below(first_row + rows.num_rows)
            if not kept.num_rows:
                continue
            chosen = pa.array(np.asarray(kept.column("row"), np.int64) - first_row)
            arrays = [rows.column(field.name).take(chosen) for field in own]
            arrays += [kept.column(field.name) for field in CURATED_FIELDS]
            group.append(pa.record_batch(arrays, schema=schema))
            if (
                sum(b.num_rows for b in group) >= ROW_GROUP_ROWS
                or sum(b.nbytes for b in group) >= ROW_GROUP_BYTES
            ):
                write_group()
        if group:
            write_group()
    # Other losses are those that matching counted.
    lost = {reason: skipped[reason] for reason in reasons.VALUES if skipped[reason]}
    return {**totals, "pairs_expected": math.fsum(expected), "values_lost": lost}


KEPT_SCHEMA = pa.schema([pa.field("row", pa.uint32(), nullable=False), *CURATED_FIELDS])
NOTHING_KEPT = pa.record_batch([pa.nulls(0, f.type) for f in KEPT_SCHEMA], schema=KEPT_SCHEMA)


def _kept_batches(
    task: BalanceTask, index_file: IO[bytes], totals: Statistics, expected: list[float]
) -> Iterator[pa.RecordBatch]:
    """The kept pairs of an index shard, in row order."""
    keep_probs = run_keep_probabilities(task.folder, task.counts, task.thresholds)
    for index in read_index(index_file):
        pair_offsets = index.pair_offsets
        result = balancing.balance(
            index.uids, pair_offsets, index.text_offsets, index.entry_ids, keep_probs,
            seed=task.seed, choose_text=task.choose_text,
        )  # fmt: skip
        totals["pairs_matched"] += index.batch.num_rows
        totals["pairs_kept"] += int(np.count_nonzero(result.pairs))
        totals["texts_kept"] += int(np.count_nonzero(result.texts))
        expected.append(float(result.keep_prob.sum()))
        rows, uids, matched = index.batch.columns
        flags = pa.ListArray.from_arrays(matched.offsets, pa.array(result.texts))
        columns = [rows, uids, matched, flags, pa.array(result.keep_prob)]
        yield pa.record_batch(columns, schema=KEPT_SCHEMA).filter(pa.array(result.pairs))


class _Cursor:
    """Hands out a stream of kept pairs, sorted by row, piece by piece."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._pending: pa.RecordBatch | None = None

    def take_below(self, row: int) -> pa.RecordBatch:
        """All remaining pairs with a row number below ``row``."""
        parts: list[pa.RecordBatch] = []
        while True:
            if self._pending is None:
                self._pending = next(self._batches, None)
                if self._pending is None:
                    break
            n = int(np.searchsorted(np.asarray(self._pending.column("row")), row))
            parts.append(self._pending.slice(0, n))
            if n < self._pending.num_rows:
                self._pending = self._pending.slice(n)
                break
            self._pending = None
        return pa.concat_batches(parts) if parts else NOTHING_KEPT
