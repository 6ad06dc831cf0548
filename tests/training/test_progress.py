"""How far a training run is, from what lies in its folder."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from metacurate.cli import app
from metacurate.library import status
from metacurate.runtime.manifest import begin, finish, plan, started
from metacurate.runtime.run import hold
from metacurate.runtime.storage import Folder
from metacurate.training.layout import METRICS, TRAIN, checkpoint_name

BATCH, STEPS = 10, 200


def begun(place: Path) -> Folder:
    folder = Folder(str(place))
    config = {"train": {"global_batch": BATCH, "seen_pairs": STEPS * BATCH - 3}}
    begin(folder, TRAIN, config, overwrite=False)
    plan(folder, TRAIN, STEPS)
    return folder


@pytest.mark.parametrize(
    ("lines", "saved", "begun_at", "done", "rate", "left"),
    [
        ((), (), None, 0, None, None),
        ((20,), (), 0, 20, 20 * BATCH / 50, 180 * 50 / 20),
        # Gone on from step 100: the seconds and steps before it are another run's.
        ((50, 100, 120), (100,), 100, 120, 20 * BATCH / 50, 80 * 50 / 20),
        ((50, 100), (50, 100), 100, 100, None, None),
        ((20,), (25,), 0, 25, 20 * BATCH / 50, 175 * 50 / 20),  # a line is due at 40
    ],
)
def test_status_of_training(lines, saved, begun_at, done, rate, left, tmp_path):
    folder, now = begun(tmp_path), time.time()
    for step in saved:
        with folder.create(checkpoint_name(step)):
            pass
    if begun_at is not None:
        started(folder, TRAIN, begun_at)
        os.utime(tmp_path / "state/started/train.json", (now - 90, now - 90))
    if lines:
        text = "".join(json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in lines)
        (tmp_path / METRICS).write_text(text + '{"step": 19')  # a line that is being written
        os.utime(tmp_path / METRICS, (now - 40, now - 40))

    def check(held: bool) -> None:
        found = status(tmp_path)
        stage, training = found["stages"]["train"], found["training"]
        assert (stage["shards_done"], stage["shards"], stage["parts"]) == (done, STEPS, "steps")
        assert stage["state"] == ("running" if held else "stopped")
        assert stage["seconds_left"] == (pytest.approx(left) if held else None)
        if lines:
            assert stage["age_seconds"] == pytest.approx(40, abs=5)
        expected: dict[str, Any] = {
            "seen_pairs": done * BATCH, "budget": STEPS * BATCH,
            "pairs_per_second": pytest.approx(rate), "checkpoint": max(saved, default=None),
            "loss": 1 / lines[-1] if lines else None,
        }  # fmt: skip
        assert training == expected

    check(held=False)
    with hold(folder):
        check(held=True)
    shown = CliRunner().invoke(app, ["status", str(tmp_path)], env={"COLUMNS": "160"}).stdout
    assert f"stopped, {done} of {STEPS} steps" in shown
    told = f"{done * BATCH:,} of {STEPS * BATCH:,}" + (f", {rate:.3g} a second" if rate else "")
    assert told in shown
    assert (f"step {saved[-1]}" if saved else "none yet") in shown


def test_status_of_finished_training(tmp_path):
    folder = begun(tmp_path)
    started(folder, TRAIN, 0)
    finish(folder, TRAIN, {})
    assert not (tmp_path / "state/started/train.json").exists()  # it depends on restarts
    stage = status(tmp_path)["stages"]["train"]
    assert (stage["state"], stage["shards_done"], stage["shards_per_minute"]) == ("done", 200, None)
