"""What a training run leaves in its folder: checkpoints by step, metrics; and how far it is."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from metacurate.runtime.manifest import (
    Progress,
    Stage,
    read_manifest,
    seconds_since,
    since_start,
)
from metacurate.runtime.storage import Folder, is_local, local_path

CHECKPOINTS = "checkpoints"
FINAL = "final.pt"
MODEL_FILE = "model.json"
METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"
TRAIN = Stage("train", (CHECKPOINTS, FINAL, MODEL_FILE, METRICS, TENSORBOARD))


def checkpoint_name(step: int) -> str:
    """The name of a checkpoint."""
    return f"{CHECKPOINTS}/step-{step:09d}.pt"


def checkpoint_steps(folder: Folder) -> list[int]:
    """The steps of the checkpoints that are there, in order; other files, as copies, are none."""
    names = [n.rsplit("/", 1)[-1] for n in folder.list(CHECKPOINTS)]
    return sorted(int(n[5:-3]) for n in names if re.fullmatch(r"step-[0-9]{9,}\.pt", n))


def weights_of(folder: Folder) -> str:
    """The checksum of a finished run's weights."""
    return str(folder.read_json(TRAIN.details)["files"][FINAL]["xxh3"])


def read_metrics(folder: Folder) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``, but for one that is being written or is none of its own (a
    machine that lost its power leaves zeros)."""
    if not folder.exists(METRICS):
        return []
    with folder.open(METRICS) as file:
        lines = file.read().splitlines(keepends=True)
    found = [_line(line) for line in lines if line.endswith(b"\n")]
    return [metrics for metrics in found if metrics is not None]


def _line(line: bytes) -> dict[str, Any] | None:
    try:
        metrics = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(metrics, dict) and {"step", "loss"} <= metrics.keys()
    return metrics if whole and isinstance(metrics["step"], int) else None


def last_loss(folder: Folder) -> float:
    """The loss of the last line of ``metrics.jsonl``; NaN without one."""
    metrics = read_metrics(folder)
    return metrics[-1]["loss"] if metrics else math.nan


def append_metrics(folder: Folder, metrics: dict[str, Any]) -> None:
    """Add a line; object stores cannot append: there the whole file is written again."""
    if is_local(folder.url):
        with local_path(folder.address(METRICS)).open("ab") as file:
            file.write(json.dumps(metrics).encode() + b"\n")
        return
    _write(folder, [*read_metrics(folder), metrics])


def _write(folder: Folder, metrics: Sequence[dict[str, Any]]) -> None:
    with folder.create(METRICS) as file:
        file.write(b"".join(json.dumps(m).encode() + b"\n" for m in metrics))


def trim_metrics(folder: Folder, step: int) -> None:
    """Drop what was written after the checkpoint of ``step``, also half a line or a broken one."""
    if folder.exists(METRICS):
        _write(folder, [metrics for metrics in read_metrics(folder) if metrics["step"] <= step])


@dataclass(frozen=True)
class Training:
    """How far a training run is.

    Attributes:
        seen_pairs: So far: to the newest line of metrics or checkpoint.
        budget: Seen pairs of the whole run.
        pairs_per_second: Of the present run, or the last one; None before its first line.
        checkpoint: The step of the newest checkpoint, from which it would go on; None without one.
        loss: Of the newest line of metrics; None without one.
    """

    seen_pairs: int
    budget: int
    pairs_per_second: float | None
    checkpoint: int | None
    loss: float | None


def training_progress(folder: Folder, stage: Progress) -> tuple[Progress, Training]:
    """How far a training run is; ``stage``: what ``manifest.status`` knows of it."""
    section = read_manifest(folder)["stages"][TRAIN.name]
    batch, budget = (section["config"]["train"][key] for key in ("global_batch", "seen_pairs"))
    steps = -(-budget // batch)
    metrics, saved = read_metrics(folder), checkpoint_steps(folder)
    last: dict[str, Any] = metrics[-1] if metrics else {"step": 0, "loss": None}
    done = steps if stage.state == "done" else max([last["step"], *saved])
    rate = left = None
    written = folder.times().get(METRICS)
    start = since_start(folder, TRAIN.name)
    if start is not None and written is not None and last["step"] > start[1] and written > start[0]:
        rate = (last["step"] - start[1]) / (written - start[0])
        left = (steps - done) / rate if stage.state == "running" else None
    age = stage.age_seconds
    if stage.state != "done" and metrics and written is not None:
        age = seconds_since(written)
    told = replace(
        stage, shards=steps, shards_done=done, parts="steps", age_seconds=age,
        shards_per_minute=60 * rate if rate is not None else None, seconds_left=left,
    )  # fmt: skip
    per_second = rate * batch if rate is not None else None
    return told, Training(
        done * batch, steps * batch, per_second, saved[-1] if saved else None, last["loss"]
    )
