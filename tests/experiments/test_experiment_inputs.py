"""Inputs of an experiment that hold something else than before, under the same names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from metacurate.errors import UserError
from metacurate.experiments import run
from metacurate.experiments.config import ExperimentConfig
from metacurate.experiments.run import experiment
from metacurate.training.config import from_table
from training_pools import SHAPES, WORDS, write_images, write_pool
from training_runs import SIZES

ARMS: list[dict[str, Any]] = [
    {"name": "raw", "kind": "raw"},
    {"name": "t-12", "kind": "balanced", "t": 12},
    {"name": "half", "kind": "matched", "pool_fraction": 0.5},
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small pool, metadata, and a test set with an image of every class."""
    monkeypatch.setattr(run, "plot", lambda *_: None)
    write_pool(tmp_path / "pool", 120, shards=2)
    (tmp_path / "metadata.json").write_text(json.dumps([*WORDS, *SHAPES]))
    write_images(tmp_path / "test", 1)
    return tmp_path


def configured(place: Path, arms: list[dict[str, Any]]) -> ExperimentConfig:
    table = {
        "compare_to": "raw",
        "seeds": [0],
        "pool": {"paths": str(place / "pool"), "metadata": str(place / "metadata.json")},
        "model": {"name": "metacurate-inputs", "config": SIZES},
        "optimizer": {"warmup_steps": 1},
        "train": {"seen_pairs": 16, "global_batch": 8, "threads": 1},
        "evaluation": {"data": str(place / "test")},
        "arms": arms,
    }
    return from_table(ExperimentConfig, table, "test")


def sizes(results: Any) -> dict[str, list[int]]:
    return {name: arm["pairs"] for name, arm in results["arms"].items()}


def test_another_pool_is_refused_or_begun_anew(place, tmp_path, monkeypatch):
    """Also by an experiment that was stopped: it must not be mixed of two pools."""
    out, config = str(tmp_path / "out"), configured(place, ARMS)
    original = run._evaluate

    def interrupted(task: run.RunTask) -> Any:
        if task.arm.name == "t-12":
            raise KeyboardInterrupt
        return original(task)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            experiment(config, out)
    write_pool(place / "pool", 150, shards=3)
    with pytest.raises(UserError, match=r"other settings: pool\.files\..*shard-0\.parquet was"):
        experiment(config, out)
    told = sizes(experiment(config, out, overwrite=True))
    assert told["raw"] == [150]
    assert told == sizes(experiment(config, str(tmp_path / "other")))


@pytest.mark.parametrize("of_arm", [False, True])
@pytest.mark.parametrize("changed", ["pool", "metadata"])
def test_a_finished_experiment_is_not_that_of_other_inputs(place, tmp_path, changed, of_arm):
    arm = {"name": "own", "kind": "balanced", "t": 12}
    if of_arm:
        write_pool(place / "own", 100, shards=1)
        (place / "own.json").write_text(json.dumps(SHAPES))
        arm |= {"paths": str(place / "own"), "metadata": str(place / "own.json")}
    config, out = configured(place, [ARMS[0], arm]), str(tmp_path / "out")
    before = experiment(config, out)
    assert experiment(config, out) == before
    if changed == "pool":
        write_pool(place / ("own" if of_arm else "pool"), 90, shards=1 if of_arm else 2)
        where = "files"
    else:
        (place / ("own.json" if of_arm else "metadata.json")).write_text(json.dumps(SHAPES[1:]))
        where = "metadata_fingerprint"
    owner = "arms.own" if of_arm else "pool"
    with pytest.raises(UserError, match=f"other settings: {owner}.{where}"):
        experiment(config, out)
    assert experiment(config, out, overwrite=True) != before


def test_other_test_images_are_evaluated_with_the_weights_that_there_are(place, tmp_path):
    config, out = configured(place, ARMS[:2]), tmp_path / "out"
    experiment(config, str(out))
    weights = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/final.pt")}
    assert len(weights) == 2
    shutil.rmtree(place / "test")
    classes = write_images(place / "test", 2)
    experiment(config, str(out))
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*/final.pt")} == weights
    images = [json.loads(p.read_text())["images"] for p in out.glob("runs/*/*/evaluation.json")]
    assert images == [2 * len(classes)] * 2
