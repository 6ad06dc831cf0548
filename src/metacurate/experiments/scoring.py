"""Scored arms: the pairs of a pool that a CLIP model, or any column of numbers, puts first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.counts import counted
from metacurate.errors import UserError
from metacurate.experiments.config import SCORE, Arm, PoolSection
from metacurate.needs import needs
from metacurate.pool.open import Pool, Unit, open_pool
from metacurate.pool.read import read_columns, read_unit
from metacurate.pool.schema import PoolBatch, PoolConfig
from metacurate.runtime.manifest import shard_name
from metacurate.runtime.storage import Folder

with needs("train"):
    from PIL import Image as PilImage

BATCH_ROWS = 256


@dataclass(frozen=True)
class ScoreTask:
    """A pool to score by a model; the scored pool goes to ``name`` in ``folder``."""

    pool: PoolSection
    folder: Folder
    name: str
    model: str
    threads: int | None = None


def pool_config(pool: PoolSection) -> PoolConfig:
    """How the experiment's pool is read."""
    return PoolConfig(pool.url_col, pool.key_col, pool.text_cols, lang_col=pool.lang_col)


def score_pool(task: ScoreTask) -> dict[str, Any]:
    """Write the pool's rows with one column more, ``clip_score``: the best of the pair's texts.

    A pair whose image cannot be read, or that has no text, has no score (null).
    """
    from metacurate.evaluation.clip_score import best, open_scorer, score
    from metacurate.training.shards import ShardsConfig, image_column, image_getter

    with needs("train"):
        import torch

    if task.threads is not None:
        torch.set_num_threads(task.threads)
    pool = open_section(task.pool)
    section = task.pool
    images = ShardsConfig(section.paths, image_col=section.image_col)
    images = replace(images, image_root=section.image_root)
    column = image_column(pool.schema, images, pool.units[0].url)
    model = open_scorer(task.model)
    skipped: Counter[str] = Counter()

    def scores(batch: PoolBatch) -> pa.Array:
        assert batch.columns is not None
        image = image_getter(batch.columns.column(column))
        found = [_decoded(image(i), section.image_root, skipped) for i in range(batch.rows)]
        values = batch.texts.to_pylist()
        offsets = batch.text_offsets - batch.text_offsets[0]
        texts = [values[a:b] for a, b in pairwise(offsets)]
        usable = [i for i, picture in enumerate(found) if picture is not None]
        pictures = [picture for picture in found if picture is not None]
        of_usable = score(model, pictures, [texts[i] for i in usable])
        row_scores: list[float | None] = [None] * batch.rows
        for i, of_pair in zip(usable, of_usable, strict=True):
            row_scores[i] = best(of_pair)
        return pa.array(row_scores, pa.float32())

    schema = plain_schema(pool.schema, SCORE).append(pa.field(SCORE, pa.float32()))

    def scored(unit: Unit) -> Iterator[pa.RecordBatch]:
        read = read_unit(unit, all_columns=True, skipped=skipped, batch_rows=BATCH_ROWS)
        for batch in read:
            assert batch.columns is not None
            rows = [batch.columns.column(name) for name in schema.names[:-1]]
            yield pa.RecordBatch.from_arrays([*rows, scores(batch)], schema=schema)

    pairs = write_units(pool.units, schema, task.folder, task.name, scored)
    return {"pairs": pairs, "skipped": counted(skipped)}


def open_section(section: PoolSection, paths: Sequence[str] | None = None) -> Pool:
    """The experiment's pool, or other files that are read as it; UserError if it has no rows."""
    pool = open_pool(paths or section.paths, pool_config(section), reserved=())
    pool.require_all()
    pool.require_rows()
    return pool


def plain_schema(schema: pa.Schema, without: str = "") -> pa.Schema:
    """A pool's schema as its rows are written again, but for one column."""
    return pa.schema([field.remove_metadata() for field in schema if field.name != without])


def write_units(
    units: Sequence[Unit],
    schema: pa.Schema,
    folder: Folder,
    name: str,
    rows_of: Callable[[Unit], Iterator[pa.RecordBatch]],
) -> int:
    """Write what ``rows_of`` gives of each unit, a file a unit, to ``name`` in ``folder``.

    Returns how many rows that is.
    """
    rows = 0
    for number, unit in enumerate(units):
        with (
            folder.create(f"{name}/{shard_name(number)}.parquet") as file,
            pq.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            for batch in rows_of(unit):
                writer.write_batch(batch)
                rows += batch.num_rows
    return rows


def _decoded(image: Any, root: str | None, skipped: Counter[str]) -> PilImage.Image | None:
    from metacurate.images.decode import UndecodableImage
    from metacurate.images.decoders import decode_isolated
    from metacurate.training.images import load_image

    try:
        return decode_isolated(load_image(image, root))
    except UndecodableImage as reason:
        skipped[str(reason)] += 1
        return None


def write_subset(
    section: PoolSection,
    paths: Sequence[str],
    arm: Arm,
    size: int | None,
    folder: Folder,
    name: str,
) -> int:
    """Write the rows of the highest scores to ``name`` in ``folder``; returns how many.

    ``size``: how many at most, for an arm that is like another one. Of pairs with the same score
    the first in the pool is taken first. Rows without a score are never taken.
    """
    pool = open_section(section, paths)
    if arm.score not in pool.schema.names:
        raise UserError(
            f"arm {arm.name!r}: the pool has no column {arm.score!r}; it has "
            f"{', '.join(pool.schema.names)}"
        )
    scores = np.concatenate([_numbers(batch, arm) for batch in _batches(pool.units, arm.score)])
    known = np.flatnonzero(~np.isnan(scores))
    if arm.above is not None:
        taken = known[scores[known] >= arm.above]
    else:
        limit = size if size is not None else round((arm.share or 0) * known.size)
        taken = known[np.argsort(-scores[known], kind="stable")[:limit]]
    if not taken.size:
        raise UserError(f"arm {arm.name!r}: no pair is left; {known.size:,} have a score")
    chosen = np.zeros(scores.size, np.bool_)
    chosen[taken] = True
    first = 0

    def best_of(unit: Unit) -> Iterator[pa.RecordBatch]:
        nonlocal first
        for batch in _batches([unit]):
            mask = pa.array(chosen[first : first + batch.num_rows])
            yield batch.filter(mask).replace_schema_metadata(None)
            first += batch.num_rows

    return write_units(pool.units, plain_schema(pool.schema), folder, name, best_of)


def _batches(units: Sequence[Unit], *only: str) -> Iterator[pa.RecordBatch]:
    """The rows of some units; ``only``: without the columns that are neither these nor needed."""
    for unit in units:
        lean = replace(unit, columns=unit.columns.only(only)) if only else unit
        for _, batch in read_columns(lean, skipped=Counter(), batch_rows=BATCH_ROWS):
            yield batch


def _numbers(batch: pa.RecordBatch, arm: Arm) -> npt.NDArray[np.float64]:
    try:
        values = batch.column(arm.score).cast(pa.float64())
    except pa.ArrowException:
        raise UserError(f"arm {arm.name!r}: {arm.score!r} is no column of numbers") from None
    return values.to_numpy(zero_copy_only=False)
