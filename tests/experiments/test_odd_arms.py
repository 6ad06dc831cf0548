"""Arms and settings that are legal but odd, and those that would be found too late."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from metacurate.errors import UserError
from metacurate.experiments import run
from metacurate.experiments.config import ExperimentConfig
from metacurate.experiments.run import experiment
from metacurate.training.config import from_table
from training_pools import SHAPES, WORDS, write_images, write_pool
from training_runs import SIZES


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pool with a score for four of five pairs, metadata, and a test set."""
    folder = tmp_path_factory.mktemp("place")
    write_pool(folder / "pool", 60, shards=1)
    file = folder / "pool/shard-0.parquet"
    table = pq.read_table(file)
    scores = pa.array([float(i) if i % 5 else None for i in range(len(table))])
    pq.write_table(table.append_column("score", scores), file)
    (folder / "metadata.json").write_text(json.dumps([*WORDS, *SHAPES]))
    names = write_images(folder / "test", 1)
    (folder / "names.txt").write_text("\n".join(names))
    (folder / "groups.json").write_text(json.dumps({names[0]: "head", names[1]: "tail"}))
    return folder


def configured(place: Path, **changes: Any) -> ExperimentConfig:
    table: dict[str, Any] = {
        "compare_to": "a",
        "seeds": [0, 1],
        "pool": {"paths": str(place / "pool"), "metadata": str(place / "metadata.json")},
        "model": {"name": "metacurate-odd", "config": SIZES},
        "optimizer": {"warmup_steps": 1},
        "train": {"seen_pairs": 16, "global_batch": 8, "threads": 1},
        "evaluation": {"data": str(place / "test")},
        "arms": [{"name": "a", "kind": "raw"}],
    }
    for name, value in changes.items():
        table[name] = {**table[name], **value} if isinstance(value, dict) else value
    return from_table(ExperimentConfig, table, "test")


def test_balanced_at_infinity_is_matched_with_every_seed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "plot", lambda *_: None)
    arms = [
        {"name": "a", "kind": "matched"},
        {"name": "t", "kind": "balanced", "t": math.inf},
        {"name": "online", "kind": "balanced", "t": math.inf, "online": True},
        {"name": "scored", "kind": "scored", "score": "score", "share": 1.0, "t": math.inf},
    ]
    found = experiment(configured(place, arms=arms), str(tmp_path / "out"))["arms"]
    matched = found["a"]["pairs"]
    assert matched[0] == matched[1] == 54  # a tenth has a file name only
    assert found["t"]["pairs"] == found["online"]["pairs"] == matched
    assert found["scored"]["pairs"] == [42, 42]  # a fifth has no score, and a tenth no match
    assert found["t"]["scores"] == found["a"]["scores"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": [{"name": "..", "kind": "raw"}]}, "an arm cannot be named '..'"),
        ({"arms": [{"name": "a", "kind": "balanced", "t": math.nan}]}, "arm 'a': t must be pos"),
        ({"train": {"accumulate": 3}}, "must be a multiple of accumulate"),
        ({"evaluation": {"languages": {"languages": "x"}}}, "is the mean over languages"),
        ({"evaluation": {"groups": "groups.json", "more": {"head": "x"}}}, "'head' is a group"),
        ({"seeds": [2**70]}, "seeds is out of range"),
    ],
)
def test_what_would_be_found_after_the_first_run_is_found_before(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("curated")

    monkeypatch.setattr(run, "curate", refuse)
    monkeypatch.chdir(place)
    (place / "x").write_text("\n".join(" ".join((w, s)) for w in WORDS for s in SHAPES))
    if "more" in changes.get("evaluation", {}):
        changes = {"evaluation": {**changes["evaluation"], "more": {"head": "test"}}}
    with pytest.raises(UserError, match=message):
        experiment(configured(place, **changes), str(tmp_path / "out"))


def test_a_scaled_batch_can_be_accumulated(place: Path, tmp_path: Path) -> None:
    config = configured(
        place, arms=[{"name": "a", "kind": "raw", "scale": 2.3}],
        train={"accumulate": 3, "global_batch": 24},
    )  # fmt: skip
    task = run.RunTask(config, run.Folder(str(tmp_path)), config.arms[0], 0)
    assert run.train_config(task).global_batch == 48
