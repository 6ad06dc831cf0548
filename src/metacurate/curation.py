"""The stages put together: a pool and metadata in, a balanced, documented subset out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metacurate.balance_stage import balance
from metacurate.count_stage import count
from metacurate.datacard import write_datacard
from metacurate.engines.local import LocalEngine, available_cores
from metacurate.errors import UserError
from metacurate.match_stage import match
from metacurate.metadata.store import Metadata, load_metadata
from metacurate.pool.schema import PoolConfig
from metacurate.pool.sources import open_pool
from metacurate.progress import note
from metacurate.run import Balance, Run
from metacurate.stage import Statistics, exclusive
from metacurate.storage import Folder


def curate(
    pool: str | Sequence[str],
    metadata: str | Metadata,
    out: str,
    *,
    t: float | None = None,
    p: float | None = None,
    target_size: int | None = None,
    seed: int = 0,
    expect_survival: float = 1.0,
    pool_config: PoolConfig | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Curate a pool: match, count, balance and write the data card; resumes what is there.

    ``pool`` names files, folders or globs; ``metadata`` is "wordnet", a file or loaded
    :class:`Metadata`; exactly one of ``t`` (math.inf: no balancing), ``p`` (tail proportion) and
    ``target_size`` (expected pairs) is given; ``expect_survival`` is the share of the kept pairs
    whose images will survive the download, for which the threshold makes up. The subset is
    ``out/curated/*.parquet``. Returns the data card without its entry counts. Raises UserError for
    what the caller can mend.
    """
    settings = Balance(t, p, target_size, seed, expect_survival)
    folder = Folder(out)
    with exclusive(folder), LocalEngine(workers or available_cores()) as engine:
        return curate_run(
            Run(folder, engine, overwrite, show_progress),
            [pool] if isinstance(pool, str) else pool,
            metadata if isinstance(metadata, Metadata) else load_metadata(metadata),
            pool_config or PoolConfig(),
            settings,
        )


def _why_nothing_matched(matched: Statistics) -> str:
    skipped = "; ".join(f"{reason}: {n:,}" for reason, n in matched["skipped"].items())
    return (
        f"none of the pool's {matched['texts']:,} texts matches a metadata entry"
        f"{f' ({skipped})' if skipped else ''}; check --text-col and --metadata"
    )


def curate_run(
    run: Run,
    inputs: Sequence[str],
    metadata: Metadata,
    pool_config: PoolConfig,
    settings: Balance,
) -> dict[str, Any]:
    """:func:`curate` with its parts given."""
    pool = open_pool(inputs, pool_config)
    if run.show_progress:
        note(pool.describe())
    if not pool.units:
        raise UserError("the pool has no rows; check the input files")
    matched = match(run, pool, pool_config, metadata)
    if not matched["pairs_matched"]:
        raise UserError(_why_nothing_matched(matched))
    count(run)
    balance(run, settings, pool)
    return write_datacard(run)
