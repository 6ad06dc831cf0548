"""The match stage: every text of the pool against the metadata; writes the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from metacurate.curation.layout import MATCH, METADATA_FILE, index_file_name
from metacurate.curation.match_index import select_matched, write_index
from metacurate.curation.matching.matcher import Matcher
from metacurate.curation.matching.spacing import V1, check_rule
from metacurate.metadata.store import Metadata, load_metadata, save_parquet
from metacurate.pool.open import Pool, Unit
from metacurate.pool.read import read_unit
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.manifest import Statistics, add_statistics
from metacurate.runtime.run import Run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder, is_local, local_path


@dataclass(frozen=True)
class MatchTask:
    """One unit of the pool to match."""

    folder: Folder
    position: int
    unit: Unit
    metadata: str  # its fingerprint
    rule: str


def match(
    run: Run, pool: Pool, pool_config: PoolConfig, metadata: Metadata, rule: str = V1
) -> Statistics:
    """Match all texts of the pool by a rule; writes the index. Returns the totals."""
    config = {
        "pool": pool.fingerprints,
        "columns": pool.describe(),
        "pool_config": asdict(pool_config),
        "metadata": {"entries": len(metadata), "fingerprint": metadata.fingerprint},
        "rule": check_rule(rule),
    }

    def tasks() -> list[MatchTask]:
        save_parquet(metadata, run.folder.address(METADATA_FILE))
        if is_local(run.folder.url):
            tables = local_path(run.folder.address("state/matcher"))
            Matcher(metadata.entries, rule=rule).save(tables)
        return [
            MatchTask(run.folder, position, unit, metadata.fingerprint, rule)
            for position, unit in enumerate(pool.units)
        ]

    def totals(shards: list[Statistics]) -> Statistics:
        return {**add_statistics(shards), "bad_files": dict(pool.bad_files)}

    return run_stage(run, MATCH, config, tasks, match_shard, unit="texts", totals=totals)


@lru_cache(maxsize=1)
def _matcher(folder: Folder, metadata: str, rule: str) -> Matcher:
    """The run's matcher: mapped (so that this machine's workers share it), or built anew."""
    if is_local(folder.url):
        return Matcher.load(local_path(folder.address("state/matcher")))
    return Matcher(load_metadata(folder.address(METADATA_FILE)).entries, rule=rule)


def match_shard(task: MatchTask) -> Statistics:
    """Match one unit; writes its index shard."""
    matcher = _matcher(task.folder, task.metadata, task.rule)
    totals = dict.fromkeys(("pairs", "texts", "texts_matched", "pairs_matched", "match_counts"), 0)
    skipped: Counter[str] = Counter()

    def index_batches() -> Iterator[pa.RecordBatch]:
        for batch in read_unit(task.unit, all_columns=False, skipped=skipped):
            offsets, entry_ids = matcher.match(batch.texts)
            index = select_matched(batch, offsets, entry_ids)
            totals["pairs"] += batch.rows
            totals["texts"] += len(batch.texts) - batch.texts.null_count
            totals["texts_matched"] += int(np.count_nonzero(np.diff(offsets)))
            totals["pairs_matched"] += index.num_rows
            totals["match_counts"] += len(index.column("matched").flatten().flatten())
            yield index

    with task.folder.create(index_file_name(task.position)) as file:
        write_index(file, index_batches())
    return {**totals, "skipped": dict(sorted(skipped.items()))}
