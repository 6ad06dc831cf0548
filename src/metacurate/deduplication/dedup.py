"""Deduplicate a pool by uid, exactly and in bounded memory.

If the pairs that alone are kept are listed, ``listed`` gathers their uids. ``partition`` reads
each unit of the pool, filters it and writes it as runs sorted by uid; ``merge`` merges a range of
uids of all runs into one output shard. With a limit on the images that may share a text, merging
goes to scratch files instead, ``repeats`` counts the texts and ``write`` drops those over the
limit. What each stage writes depends on the input and the settings alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from typing import Any, TypedDict, Unpack, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from metacurate.counts import counted
from metacurate.deduplication.blocklist import Blocklist
from metacurate.deduplication.listed import (
    find_lists,
    is_listed,
    read_listed,
    write_listed,
)
from metacurate.deduplication.merging import select_texts
from metacurate.deduplication.reasons import DroppedRow, DroppedText
from metacurate.deduplication.repeats import count_texts, drop_texts, limit_texts, plan_buckets
from metacurate.deduplication.runs import (
    MergeCounts,
    UidRange,
    compression_of,
    merge_range,
    plan_ranges,
    read_index,
    rows_per_batch,
    write_runs,
)
from metacurate.formats import reasons
from metacurate.pool.memory import AnyPool, Given
from metacurate.pool.open import Pool, Unit
from metacurate.pool.read import read_unit
from metacurate.pool.schema import PoolConfig
from metacurate.pool.write import (
    canonical_batch,
    canonical_schema,
    leaf_columns,
    open_to_rewrite,
)
from metacurate.runtime.arrowfiles import open_ipc
from metacurate.runtime.manifest import (
    Stage,
    Statistics,
    add_statistics,
    digest,
    discard,
    finished,
    shard_name,
)
from metacurate.runtime.progress import note
from metacurate.runtime.run import Run, RunOptions, open_run
from metacurate.runtime.stage import do_again, run_stage
from metacurate.runtime.storage import Folder, as_addresses, read_ahead
from metacurate.texts.rules import TextRules, clean, drop_reason

WRITE = Stage("write", ("pool",), format=3)
REPEATS = Stage("repeats", ("limits",), (WRITE,))
MERGE = Stage("merge", ("pool", "merged"), (REPEATS,), format=3)
PARTITION = Stage("partition", ("runs",), (MERGE,), format=2)
LISTED = Stage("listed", ("listed",), (PARTITION,))
SCRATCH = ("listed", "runs", "merged", "limits")

SHARD_BYTES = 256 << 20
ROW_GROUP_ROWS = 65_536
MOST_PARTS = 256
UNIQUE = ("uid", "url", "texts.list.element.text")
NO_BLOCKLIST = Blocklist()


@dataclass(frozen=True)
class DedupConfig:
    """What to drop, and how large the output shards are.

    ``text_rules`` look at the cleaned text; what is kept stays as it was. ``only``: files with the
    uids (``.npy``), keys (``.json``) or keys and URLs (``.txt``) of the pairs that alone are kept,
    if any are given. ``max_texts``: texts an
    image keeps at most (0: all). ``max_images_per_text``: a text that more images share is dropped
    (0: never), or with ``keep_repeats`` stays with the first so many by uid. ``shard_rows``: about
    how many rows an output shard has before merging.
    """

    text_rules: TextRules | None = None
    blocklist: Blocklist = NO_BLOCKLIST
    only: tuple[str | PathLike[str], ...] = ()
    max_texts: int = 1_000
    max_images_per_text: int = 0
    keep_repeats: bool = False
    shard_rows: int = 500_000

    def as_json(self) -> Statistics:
        """Plain values for the manifest."""
        return {
            **asdict(replace(self, blocklist=NO_BLOCKLIST, only=())),
            "blocklist": self.blocklist.fingerprint,
        }


@dataclass(frozen=True)
class _Job:
    """What all tasks of a run share."""

    folder: Folder
    config: DedupConfig
    schema: pa.Schema
    parts: int
    batch_rows: int
    compression: str | None
    listed: str | None  # names the lists of the pairs that alone are kept


@dataclass(frozen=True)
class _ListTask:
    folder: Folder
    lists: tuple[str, ...]


@dataclass(frozen=True)
class _PartitionTask:
    job: _Job
    position: int
    units: Sequence[Unit]


@dataclass(frozen=True)
class _MergeTask:
    job: _Job
    position: int
    uids: UidRange


@dataclass(frozen=True)
class _RepeatsTask:
    job: _Job
    position: int
    shards: int
    buckets: tuple[int, int]


@dataclass(frozen=True)
class _WriteTask:
    job: _Job
    position: int
    shards: int
    limits: int


class DedupTotals(TypedDict):
    """``rows`` read = ``pairs`` + the sum of ``dropped``; ``texts_read`` = ``texts`` + the sum of
    ``texts_dropped``; ``skipped``: what the reader could not use; counts are by reason
    (``reasons``, ``formats.reasons``). ``bad_files``: reasons by file.
    """

    units: int
    rows: int
    pairs: int
    dropped: dict[str, int]
    texts_read: int
    texts: int
    texts_dropped: dict[str, int]
    shards: int
    skipped: dict[str, int]
    bad_files: dict[str, str]


def dedup(
    pool: AnyPool,
    out: str,
    config: DedupConfig,
    pool_config: PoolConfig,
    **options: Unpack[RunOptions],
) -> DedupTotals:
    """Write ``OUT/pool/part-NNNNNN.parquet``: one row a uid, sorted by uid over all shards.

    A row has the columns of its first row in the pool (inputs in the order of their names), and the
    distinct texts of all its rows in the order in which they first appear. Resumes; UserError if
    ``out`` holds another run.
    """
    only = as_addresses(config.only, "only")
    given = Given.of(pool)
    with open_run(
        out,
        inputs=[*given.paths, *only],
        preload=__name__,
        compiled=config.text_rules is None,  # those look at each text in Python
        held=given.held,
        **options,
    ) as run:
        lists = find_lists(only) if only else {}  # before the pool, which takes longer to look at
        inputs = given.files(run)
        opened = open_to_rewrite(run, inputs, pool_config)
        known = all(unit.rows is not None for unit in opened.units)
        # All stages have one configuration: the scratch files of a finished run are gone, so that a
        # change redoes it from its start. Those that may come first have each file of the pool,
        # to be named.
        settings = {
            "inputs": inputs,
            "pool": opened.fingerprint,
            "pool_config": asdict(pool_config),
            **config.as_json(),
            "only": digest(lists) if lists else None,
        }
        job = _Job(
            run.folder, config, canonical_schema(opened), len(_parts(opened)),
            rows_per_batch(opened.rows, config.shard_rows),
            compression_of(opened.rows if known else None),
            settings["only"],
        )  # fmt: skip
        first, last = LISTED if lists else PARTITION, WRITE if config.max_images_per_text else MERGE

        def work() -> Statistics:
            totals = finished(run.folder, last, settings)
            if totals is None:
                if lists:
                    tasks = [_ListTask(run.folder, tuple(lists))]
                    named = {**settings, "pool": opened.fingerprints}
                    read = run_stage(run, LISTED, named, tasks, _list, unit="rows")
                    if read["unusable"]:
                        note(f"{read['unusable']:,} of the lists' keys and URLs name nothing")
                totals = _run(run, job, opened, settings)
            discard(run.folder, SCRATCH)
            return totals

        return cast(DedupTotals, do_again(run, [first], work))


def _run(run: Run, job: _Job, pool: Pool, settings: Statistics) -> Statistics:
    folder, most = job.folder, job.config.max_images_per_text
    parts: list[Statistics] = []

    def stage(
        which: Stage,
        function: Callable[[Any], Statistics],
        tasks: list[Any],
        unit: str,
        key: str | None = None,
    ) -> Statistics:
        def totals(shards: list[Statistics]) -> Statistics:
            own = add_statistics(shards)
            is_last = which == (WRITE if most else MERGE)
            return cast(Statistics, _totals([*parts, own], pool)) if is_last else own

        config = {**settings, "pool": pool.fingerprints} if which == PARTITION else settings
        parts.append(
            run_stage(run, which, config, tasks, function, unit=unit, counted=key, totals=totals)
        )
        return parts[-1]

    partitions = [_PartitionTask(job, n, units) for n, units in enumerate(_parts(pool))]
    stage(PARTITION, _partition, partitions, "rows")
    names = map(_runs, range(job.parts))
    indices = read_ahead(folder, lambda name: read_index(folder, name), names)
    ranges = plan_ranges(indices, job.config.shard_rows, SHARD_BYTES)
    merges = [_MergeTask(job, n, uids) for n, uids in enumerate(ranges)]
    totals = stage(MERGE, _merge, merges, "rows", "rows_merged")
    if most:
        buckets = plan_buckets(folder, [_counts(n) for n in range(len(ranges))])
        repeats = [_RepeatsTask(job, n, len(ranges), b) for n, b in enumerate(buckets)]
        stage(REPEATS, _repeats, repeats, "texts", "texts_over_limit")
        writes = [_WriteTask(job, n, len(ranges), len(buckets)) for n in range(len(ranges))]
        totals = stage(WRITE, _write, writes, "pairs")
    return totals


def _totals(parts: Sequence[Statistics], pool: Pool) -> DedupTotals:
    read, written = parts[0], parts[-1]
    summed = add_statistics(parts)
    return {
        "units": len(pool.units),
        "rows": read["rows"],
        "pairs": written["pairs"],
        "dropped": counted(summed["dropped"]),
        "texts_read": read["texts_read"],
        "texts": written["texts"],
        "texts_dropped": counted(summed["texts_dropped"]),
        "shards": written["shards"],
        "skipped": read["skipped"],
        "bad_files": dict(pool.bad_files),
    }


def _parts(pool: Pool) -> list[Sequence[Unit]]:
    """Consecutive units, in ``MOST_PARTS`` parts at most: each shard opens every part's runs."""
    size = -(-len(pool.units) // MOST_PARTS) or 1
    return [pool.units[start : start + size] for start in range(0, len(pool.units), size)]


def _runs(position: int) -> str:
    return f"runs/{shard_name(position)}"


def _merged(position: int) -> str:
    return f"merged/{shard_name(position)}.arrow"


def _counts(position: int) -> str:
    return f"merged/{shard_name(position)}.texts"


def _limits(position: int) -> str:
    return f"limits/{shard_name(position)}.texts"


def _list(task: _ListTask) -> Statistics:
    rows, unusable = write_listed(task.folder, task.lists)
    return {"rows": rows, "unusable": unusable}


def _partition(task: _PartitionTask) -> Statistics:
    job = task.job
    skipped: Counter[str] = Counter()
    drops = _Drops()
    counts = MergeCounts()

    def tables() -> Iterator[pa.Table]:
        for unit in task.units:
            for batch in read_unit(unit, all_columns=True, skipped=skipped):
                rows = canonical_batch(batch, unit.columns, job.schema)
                yield _filter(rows, job, drops)

    write_runs(
        job.folder, _runs(task.position), tables(), job.schema, job.batch_rows,
        job.config.max_texts, counts, job.compression,
    )  # fmt: skip
    # The reader's counts of rows without these are a part of what is dropped here.
    for reason in (reasons.NO_URL, reasons.NO_TEXT):
        del skipped[reason]
    return {
        "rows": drops.rows,
        "texts_read": drops.texts,
        **_with_merged(drops, counts),
        "skipped": counted(skipped),
    }


@dataclass
class _Drops:
    """What was read and what of it was dropped, by reason."""

    rows: int = 0
    texts: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    texts_dropped: Counter[str] = field(default_factory=Counter)


def _with_merged(drops: _Drops, counts: MergeCounts) -> Statistics:
    return {
        "dropped": counted({**drops.dropped, DroppedRow.DUPLICATE: counts.duplicate_pairs}),
        "texts_dropped": counted(
            {
                **drops.texts_dropped,
                DroppedText.DUPLICATE: counts.duplicate_texts,
                DroppedText.OVER_MAX_TEXTS: counts.texts_over_limit,
            }
        ),
    }


def _filter(rows: pa.RecordBatch, job: _Job, drops: _Drops) -> pa.Table:
    """The rows that are left, with the texts that are left; each drop under its first reason."""
    config = job.config
    drops.rows += rows.num_rows
    domain, url = config.blocklist.masks(rows.column("url"))
    kept_rows = np.ones(rows.num_rows, dtype=bool)
    no_uid = rows.column("uid").is_null().to_numpy(zero_copy_only=False)
    row_reasons = [
        (DroppedRow.NO_UID, no_uid),
        (DroppedRow.NOT_LISTED, _not_listed(rows, job)),
        (DroppedRow.BLOCKED_DOMAIN, domain),
        (DroppedRow.BLOCKED_URL, url),
    ]
    _take_out(kept_rows, row_reasons, drops.dropped)

    lists = rows.column("texts")
    texts = pc.struct_field(lists.values, "text")
    there = texts.is_valid().to_numpy(zero_copy_only=False)
    texts = texts.fill_null("")
    drops.texts += int(np.count_nonzero(there))
    kept = there.copy()
    of_dropped = np.repeat(~kept_rows, np.diff(lists.offsets.to_numpy()))
    empty = pc.equal(pc.binary_length(texts), 0).to_numpy(zero_copy_only=False)
    text_reasons = [(DroppedText.OF_DROPPED_PAIR, of_dropped), (DroppedText.EMPTY, empty)]
    _take_out(kept, text_reasons, drops.texts_dropped)
    if config.text_rules is not None:
        _apply_rules(texts, kept, config.text_rules, drops.texts_dropped)

    table, left = select_texts(pa.Table.from_batches([rows]), kept)
    _take_out(kept_rows, [(DroppedRow.NO_TEXT, left == 0)], drops.dropped)
    return table if kept_rows.all() else table.filter(pa.array(kept_rows))


def _not_listed(rows: pa.RecordBatch, job: _Job) -> np.ndarray:
    if job.listed is None:
        return np.zeros(rows.num_rows, dtype=bool)
    return ~is_listed(rows.column("uid"), read_listed(job.folder, job.listed))


def _apply_rules(texts: pa.Array, kept: np.ndarray, rules: TextRules, counts: Counter[str]) -> None:
    distinct = texts.dictionary_encode()
    reasons = [drop_reason(clean(text), rules) for text in distinct.dictionary.to_pylist()]
    names = sorted({reason for reason in reasons if reason})
    number = {name: n for n, name in enumerate(names)}
    codes = np.array([number.get(reason or "", -1) for reason in reasons], dtype=np.int64)
    which = codes[distinct.indices.to_numpy()]
    _take_out(kept, [(name.replace(" ", "_"), which == n) for name, n in number.items()], counts)


def _take_out(
    kept: np.ndarray, reasons: Sequence[tuple[str, np.ndarray]], counts: Counter[str]
) -> None:
    for reason, mask in reasons:
        counts[reason] += int(np.count_nonzero(kept & mask))
        kept &= ~mask


def _merge(task: _MergeTask) -> Statistics:
    job, counts = task.job, MergeCounts()
    names = [_runs(position) for position in range(job.parts)]
    table = merge_range(job.folder, names, task.uids, job.schema, job.config.max_texts, counts)
    if job.config.max_images_per_text:
        with (
            job.folder.create(_merged(task.position)) as file,
            pa.ipc.new_file(file, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))
            as writer,
        ):  # fmt: skip
            writer.write_table(table)
        count_texts(job.folder, _counts(task.position), table)
    else:
        _write_shard(job.folder, task.position, table)
    return {
        "rows_merged": table.num_rows + counts.duplicate_pairs,
        **_size(table),
        **_with_merged(_Drops(), counts),
    }


def _size(table: pa.Table) -> Statistics:
    texts = pc.sum(pc.list_value_length(table.column("texts"))).as_py()
    return {"pairs": table.num_rows, "texts": texts or 0, "shards": 1}


def _write_shard(folder: Folder, position: int, table: pa.Table) -> None:
    with folder.create(f"pool/{shard_name(position)}.parquet") as file:
        pq.write_table(
            table, file, compression="zstd", row_group_size=ROW_GROUP_ROWS,
            use_dictionary=leaf_columns(table.schema, UNIQUE),
        )  # fmt: skip


def _repeats(task: _RepeatsTask) -> Statistics:
    config = task.job.config
    over = limit_texts(
        task.job.folder,
        [_counts(position) for position in range(task.shards)],
        _limits(task.position),
        task.buckets,
        config.max_images_per_text,
        config.keep_repeats,
    )
    return {"texts_over_limit": over, "dropped": {}, "texts_dropped": {}}


def _write(task: _WriteTask) -> Statistics:
    folder = task.job.folder
    with folder.open(_merged(task.position)) as file:
        table = open_ipc(file).read_all()
    limits = [_limits(position) for position in range(task.limits)]
    table, texts, rows = drop_texts(folder, limits, table, task.position, task.shards)
    _write_shard(folder, task.position, table)
    return {
        **_size(table),
        "dropped": counted({DroppedRow.TEXT_OF_MANY_IMAGES: rows}),
        "texts_dropped": counted({DroppedText.TEXT_OF_MANY_IMAGES: texts}),
    }
