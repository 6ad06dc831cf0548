"""Scored arms: the pairs of a pool that a CLIP model, or any column of numbers, puts first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metacurate.counts import counted
from metacurate.errors import UserError
from metacurate.evaluation.clip_score import best, open_scorer, score
from metacurate.evaluation.zero_shot import LoadedModel
from metacurate.experiments.config import SCORE, Arm, PoolSection
from metacurate.experiments.pools import (
    BATCH_ROWS,
    PAIRS,
    Out,
    open_section,
    plain_schema,
    write_pairs,
    write_pool,
)
from metacurate.needs import needs
from metacurate.pool.open import Pool, Unit
from metacurate.pool.read import read_columns, read_unit
from metacurate.pool.schema import PoolBatch
from metacurate.runtime.manifest import Stage, Statistics
from metacurate.runtime.storage import Folder
from metacurate.training.shards import ShardsConfig, image_column, image_getter

with needs("train"):
    import torch
    from PIL import Image as PilImage

SCORES = Stage("scores", (PAIRS,))
SUBSET = Stage("subset", (PAIRS,))


@dataclass(frozen=True)
class ScoreTask:
    """A pool to score by a model; ``weights``: what tells it from others of its name."""

    pool: PoolSection
    out: Out
    model: str
    weights: str = ""
    threads: int | None = None


@dataclass(frozen=True)
class _UnitTask:
    """One unit to score."""

    score: ScoreTask
    folder: Folder
    position: int
    unit: Unit
    column: str
    schema: pa.Schema


def score_pool(task: ScoreTask) -> Statistics:
    """Write the pool's rows with one column more, ``clip_score``: the best of the pair's texts.

    A pair whose image cannot be read, or that has no text, has no score (null).
    """
    section = task.pool
    pool = open_section(section)
    images = ShardsConfig(section.paths, image_col=section.image_col)
    images = replace(images, image_root=section.image_root)
    column = image_column(pool.schema, images, pool.units[0].url)
    schema = plain_schema(pool.schema, SCORE).append(pa.field(SCORE, pa.float32()))

    def tasks(folder: Folder) -> list[_UnitTask]:
        units = enumerate(pool.units)
        return [_UnitTask(task, folder, n, unit, column, schema) for n, unit in units]

    config = {
        "image_col": column, "image_root": section.image_root,
        "model": task.model, "weights": task.weights,
    }  # fmt: skip
    return write_pool(task.out, SCORES, pool, config, tasks, _write_scored)


@lru_cache(maxsize=1)
def _scorer(model: str, weights: str) -> LoadedModel:
    del weights  # of the key: a folder may be trained again
    return open_scorer(model)


def _write_scored(task: _UnitTask) -> Statistics:
    if task.score.threads is not None:
        torch.set_num_threads(task.score.threads)
    model = _scorer(task.score.model, task.score.weights)
    skipped: Counter[str] = Counter()

    def scores(batch: PoolBatch) -> pa.Array:
        assert batch.columns is not None
        image, root = image_getter(batch.columns.column(task.column)), task.score.pool.image_root
        found = [_decoded(image(i), root, skipped) for i in range(batch.rows)]
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

    def scored() -> Iterator[pa.RecordBatch]:
        read = read_unit(task.unit, all_columns=True, skipped=skipped, batch_rows=BATCH_ROWS)
        for batch in read:
            assert batch.columns is not None
            rows = [batch.columns.column(name) for name in task.schema.names[:-1]]
            yield pa.RecordBatch.from_arrays([*rows, scores(batch)], schema=task.schema)

    pairs = write_pairs(task.folder, task.position, task.schema, scored())
    return {"pairs": pairs, "skipped": counted(skipped)}


def _decoded(image: Any, root: str | None, skipped: Counter[str]) -> PilImage.Image | None:
    from metacurate.images.decode import UndecodableImage
    from metacurate.images.decoders import decode_isolated
    from metacurate.training.images import load_image

    try:
        return decode_isolated(load_image(image, root))
    except UndecodableImage as reason:
        skipped[str(reason)] += 1
        return None


@dataclass(frozen=True)
class _SubsetTask:
    """One unit, of whose rows those that are ``chosen`` are written, bool[rows]."""

    folder: Folder
    position: int
    unit: Unit
    schema: pa.Schema
    chosen: npt.NDArray[np.bool_]


def check_scores(section: PoolSection, arm: Arm) -> None:
    """UserError if the pool has no column of the arm's scores, or no numbers in its first rows."""
    pool = _open_scored(section, section.paths, arm)
    for batch in islice(_batches(pool.units[0], arm.score), 1):
        _numbers(batch, arm)


def _open_scored(section: PoolSection, paths: Sequence[str], arm: Arm) -> Pool:
    """The pool whose pairs an arm takes by its scores; UserError if it has no column of these."""
    pool = open_section(section, paths)
    if arm.score not in pool.schema.names:
        raise UserError(
            f"arm {arm.name!r}: the pool has no column {arm.score!r}; it has "
            f"{', '.join(pool.schema.names)}"
        )
    return pool


def write_subset(
    section: PoolSection, paths: Sequence[str], arm: Arm, size: int | None, out: Out
) -> int:
    """Write the rows of the highest scores; returns how many.

    ``size``: how many at most, for an arm that is like another one. Of pairs with the same score
    the first in the pool is taken first. Rows without a score are never taken.
    """
    pool = _open_scored(section, paths, arm)
    schema = plain_schema(pool.schema)

    def tasks(folder: Folder) -> list[_SubsetTask]:
        of_units = [
            np.concatenate([np.empty(0), *(_numbers(b, arm) for b in _batches(unit, arm.score))])
            for unit in pool.units
        ]
        chosen = _highest(np.concatenate(of_units), arm, size)
        parts = np.split(chosen, np.cumsum([len(scores) for scores in of_units])[:-1])
        return [
            _SubsetTask(folder, n, unit, schema, part)
            for n, (unit, part) in enumerate(zip(pool.units, parts, strict=True))
        ]

    config = {"score": arm.score, "share": arm.share, "above": arm.above, "size": size}
    return int(write_pool(out, SUBSET, pool, config, tasks, _write_chosen)["pairs"])


def _highest(scores: npt.NDArray[np.float64], arm: Arm, size: int | None) -> npt.NDArray[np.bool_]:
    """Which of the scores an arm takes, bool[n]; UserError if it is none."""
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
    return chosen


def _write_chosen(task: _SubsetTask) -> Statistics:
    def chosen() -> Iterator[pa.RecordBatch]:
        first = 0
        for batch in _batches(task.unit):
            mask = pa.array(task.chosen[first : first + batch.num_rows])
            yield batch.filter(mask).replace_schema_metadata(None)
            first += batch.num_rows

    return {"pairs": write_pairs(task.folder, task.position, task.schema, chosen())}


def _batches(unit: Unit, *only: str) -> Iterator[pa.RecordBatch]:
    """The rows of a unit; ``only``: without the columns that are neither these nor needed."""
    lean = replace(unit, columns=unit.columns.only(only)) if only else unit
    for _, batch in read_columns(lean, skipped=Counter(), batch_rows=BATCH_ROWS):
        yield batch


def _numbers(batch: pa.RecordBatch, arm: Arm) -> npt.NDArray[np.float64]:
    try:
        values = batch.column(arm.score).cast(pa.float64())
    except pa.ArrowException:
        raise UserError(f"arm {arm.name!r}: {arm.score!r} is no column of numbers") from None
    return values.to_numpy(zero_copy_only=False)
