"""Pools that an experiment writes: a run in a folder of its own for each, with a file a unit.

Here those of arms with a smaller pool: a share of the pool's pairs, drawn by uid. A pair is in the
smaller pool if its draw of the seed is below the share: the draws are those of balancing, at a text
position that no text has. So of two shares with one seed the smaller pool is part of the larger
one, and each seed has another draw of the pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.curation.balancing import draw
from metacurate.errors import UserError
from metacurate.experiments.config import PoolSection
from metacurate.pool.open import Pool, Unit, open_pool
from metacurate.pool.read import read_unit
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.engine import Task
from metacurate.runtime.manifest import Stage, Statistics, shard_name
from metacurate.runtime.run import open_run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder
from metacurate.training.select import FREE_POSITION, POOL_ENTRY

BATCH_ROWS = 256
PAIRS = "pairs"
"""The sub-folder with the files of a pool that was written."""
SHARE = Stage("share", (PAIRS,))


@dataclass(frozen=True)
class Out:
    """Where a pool is written, and how: ``workers`` and ``overwrite`` as of the experiment."""

    folder: str
    workers: int = 1
    overwrite: bool = False

    @property
    def pairs(self) -> str:
        """The folder with its files."""
        return pairs_in(self.folder)


def pairs_in(folder: str) -> str:
    """The folder with the files of a pool that was written to ``folder``."""
    return Folder(folder).address(PAIRS)


def pool_config(pool: PoolSection) -> PoolConfig:
    """How the experiment's pool is read."""
    return PoolConfig(pool.url_col, pool.key_col, pool.text_cols, lang_col=pool.lang_col)


def open_section(section: PoolSection, paths: Sequence[str] | None = None) -> Pool:
    """The experiment's pool, or other files that are read as it; UserError if it has no rows."""
    pool = open_pool(paths or section.paths, pool_config(section), reserved=())
    pool.require_all()
    pool.require_rows()
    return pool


def plain_schema(schema: pa.Schema, without: str = "") -> pa.Schema:
    """A pool's schema as its rows are written again, but for one column."""
    return pa.schema([field.remove_metadata() for field in schema if field.name != without])


def write_pool(
    out: Out,
    stage: Stage,
    pool: Pool,
    config: Mapping[str, Any],
    tasks: Callable[[Folder], Sequence[Task]],
    function: Callable[[Task], Statistics],
) -> Statistics:
    """Write a pool made of another one, or what is missing of it; returns the totals.

    ``config``: what decides its bytes beside the other pool; ``tasks``: one for each unit,
    ``function`` writes its pairs by ``write_pairs``.
    """
    with open_run(out.folder, workers=out.workers, overwrite=out.overwrite) as run:
        settings = {"pool": pool.fingerprints, "columns": pool.describe(), **config}
        return run_stage(run, stage, settings, lambda: tasks(run.folder), function, unit="pairs")


def write_pairs(
    folder: Folder, position: int, schema: pa.Schema, batches: Iterator[pa.RecordBatch]
) -> int:
    """Write the pairs of one unit; returns how many."""
    rows = 0
    with (
        folder.create(f"{PAIRS}/{shard_name(position)}.parquet") as file,
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


@dataclass(frozen=True)
class _ShareTask:
    """One unit, of which the share is written."""

    folder: Folder
    position: int
    unit: Unit
    schema: pa.Schema
    share: float
    seed: int


def write_share(section: PoolSection, share: float, seed: int, out: Out) -> int:
    """Write a share of the pool's rows, as they are; returns how many.

    Rows without a uid are in no share. Raises UserError if none is left.
    """
    pool = open_section(section)
    schema = plain_schema(pool.schema)

    def tasks(folder: Folder) -> list[_ShareTask]:
        units = enumerate(pool.units)
        return [_ShareTask(folder, n, unit, schema, share, seed) for n, unit in units]

    totals = write_pool(out, SHARE, pool, {"share": share, "seed": seed}, tasks, _write_drawn)
    if not totals["pairs"]:
        raise UserError(
            f"pool_fraction = {share:.15g} leaves no pair of the pool; take a larger one"
        )
    return int(totals["pairs"])


def _write_drawn(task: _ShareTask) -> Statistics:
    def drawn() -> Iterator[pa.RecordBatch]:
        read = read_unit(task.unit, all_columns=True, skipped=Counter(), batch_rows=BATCH_ROWS)
        for batch in read:
            assert batch.columns is not None
            chosen = pa.array(chosen_uids(batch.uids, task.share, task.seed))
            yield batch.columns.filter(chosen).replace_schema_metadata(None)

    return {"pairs": write_pairs(task.folder, task.position, task.schema, drawn())}


def chosen_uids(uids: pa.FixedSizeBinaryArray, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which uids are in a share of a pool, bool[n]; null ones are not."""
    values = uids.to_pylist()
    drawn = [1.0 if uid is None else draw(seed, uid, FREE_POSITION, POOL_ENTRY) for uid in values]
    return np.array(drawn, np.float64) < share
