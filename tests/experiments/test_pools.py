"""Pools that an experiment writes are stages: what is written stays, what is missing is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from metacurate.experiments import pools, scoring
from metacurate.experiments.config import Arm, PoolSection
from metacurate.experiments.pools import Out, write_share
from metacurate.experiments.scoring import ScoreTask, score_pool, write_subset
from training_pools import write_pool


@pytest.fixture
def pool(tmp_path: Path) -> PoolSection:
    """A pool of three files with a column of numbers."""
    write_pool(tmp_path / "given", 60)
    (tmp_path / "pool").mkdir()
    for path in (tmp_path / "given").glob("*.parquet"):
        table = pq.read_table(path)
        scores = np.random.default_rng(len(path.name)).random(len(table))
        pq.write_table(
            table.append_column("quality", pa.array(scores)), tmp_path / "pool" / path.name
        )
    return PoolSection((str(tmp_path / "pool"),), "unused")


def subset(pool: PoolSection, share: float, out: Out) -> Any:
    return write_subset(
        pool, pool.paths, Arm("a", "scored", score="quality", share=share), None, out
    )


def scored(pool: PoolSection, weights: float, out: Out) -> Any:
    return score_pool(ScoreTask(pool, out, "model", str(weights)))


def by_length(_: object, images: list[Any], texts: list[list[str]]) -> list[list[float]]:
    """In place of a model."""
    return [[len(text) / 100 for text in of_pair] for of_pair in texts]


WRITERS: dict[str, Callable[[PoolSection, float, Out], Any]] = {
    "share": lambda pool, share, out: write_share(pool, share, 0, out),
    "subset": subset,
    "scores": scored,
}


def contents(out: Path) -> dict[str, bytes]:
    names = (path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(out)): path.read_bytes() for path in names}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_pool_is_written_once_and_repaired(writer, pool, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "_scorer", lambda *_: None)
    monkeypatch.setattr(scoring, "score", by_length)
    write = partial(WRITERS[writer], pool)
    told = write(0.5, Out(str(tmp_path / "whole")))
    expected = contents(tmp_path / "whole")
    assert sum(name.startswith("pairs/") for name in expected) == 3

    killed = tmp_path / "killed"
    original, calls = pools.write_pairs, []

    def interrupted(*arguments: Any) -> int:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        for module in (pools, scoring):
            patch.setattr(module, "write_pairs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(0.5, Out(str(killed)))
    files = sorted((killed / "pairs").glob("*.parquet"))
    assert len(files) == 1
    first = files[0].stat().st_mtime_ns
    for _ in range(2):
        assert write(0.5, Out(str(killed))) == told
        assert contents(killed) == expected
        assert files[0].stat().st_mtime_ns == first
    times = {path: path.stat().st_mtime_ns for path in killed.rglob("*.parquet")}
    assert write(0.5, Out(str(killed))) == told
    assert {path: path.stat().st_mtime_ns for path in killed.rglob("*.parquet")} == times
    with pytest.raises(Exception, match="holds a run with other settings"):
        write(0.4, Out(str(killed)))
    if writer != "scores":
        told = write(0.4, Out(str(killed), overwrite=True))
        assert (
            told
            == pq.read_table(killed / "pairs").num_rows
            < pq.read_table(tmp_path / "whole/pairs").num_rows
        )
