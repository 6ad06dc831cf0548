"""Going on with a run in whose folder something is damaged, or beside what belongs there."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from metacurate.errors import UserError
from metacurate.runtime.storage import Folder
from metacurate.training import trainer
from metacurate.training.layout import checkpoint_steps, read_metrics
from metacurate.training.trainer import train
from training_pools import curated, write_pool
from training_runs import config

NEWEST = "checkpoints/step-000000004.pt"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_pool(folder / "pool", 100)
    return curated(folder / "pool", folder / "matched", math.inf)


@pytest.fixture(scope="module")
def of_module(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A run that was stopped, and the metrics of one that was not."""
    folder = tmp_path_factory.mktemp("runs")
    train(config(run), str(folder / "whole"))
    original = trainer.Trainer._step

    def step(self: Any, batch: Any) -> Any:
        if self.progress.step == 5:
            raise KeyboardInterrupt
        return original(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            train(config(run), str(folder / "stopped"))
    return folder / "stopped", (folder / "whole/metrics.jsonl").read_bytes()


@pytest.fixture
def stopped(of_module: tuple[Path, bytes], tmp_path: Path) -> Path:
    return Path(shutil.copytree(of_module[0], tmp_path / "model"))


def flipped(path: Path) -> None:
    """A few bytes amid the numbers."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 8] = bytes(255 - value for value in data[middle : middle + 8])
    path.write_bytes(data)


def weights_alone(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    torch.save({"state_dict": state["state_dict"]}, path)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (flipped, "does not fit its checksum"),
        (weights_alone, "it has no loader"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "it is not whole"),
        (lambda path: path.write_bytes(b""), "it is not whole"),
    ],
)
def test_a_damaged_checkpoint_is_named(
    run: Path, stopped: Path, damage: Callable[[Path], Any], why: str
) -> None:
    damage(stopped / NEWEST)
    with pytest.raises(UserError, match=f"{NEWEST} is no usable checkpoint .*{why}.; remove it"):
        train(config(run), str(stopped))


def test_what_lies_beside_is_no_harm(run: Path, stopped: Path, of_module: Any) -> None:
    for name in ("step-000000004 (copy).pt", "step-best.pt"):
        shutil.copy(stopped / NEWEST, stopped / "checkpoints" / name)
    with (stopped / "metrics.jsonl").open("ab") as file:
        file.write(b"\0" * 100 + b"\n[]\n" + b"\0" * 100)
    assert checkpoint_steps(Folder(str(stopped))) == [4]
    assert [line["step"] for line in read_metrics(Folder(str(stopped)))] == [3]
    train(config(run), str(stopped))
    assert (stopped / "metrics.jsonl").read_bytes() == of_module[1]


def test_the_loss_of_two_ranks_is_that_of_one_that_goes_on(
    run: Path, stopped: Path, of_module: Any
) -> None:
    state = torch.load(stopped / NEWEST, weights_only=True)
    ((total, steps),) = state["loss_sums"]
    state["loss_sums"] = [(total - 0.5, steps), (total + 0.5, steps)]
    torch.save(state, stopped / NEWEST)
    train(config(run), str(stopped))
    assert (stopped / "metrics.jsonl").read_bytes() == of_module[1]
