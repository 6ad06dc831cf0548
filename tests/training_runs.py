"""A small model and its training runs, for the tests of training on the CPU and on a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metacurate.training.config import DataSection, OptimizerSection, TrainConfig
from metacurate.training.openclip import ModelConfig

SIZES = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
MODEL = ModelConfig("metacurate-test", SIZES)
# Steps of a run of `config`.
STEPS = 12


def config(run: Path, **more: Any) -> TrainConfig:
    data = DataSection(
        shards=(str(run / "curated"),), selection="online", counts=str(run / "counts.npy"),
        t=20.0, streams=4, shuffle_block=16,
    )  # fmt: skip
    values = {
        "seen_pairs": STEPS * 16, "global_batch": 16, "threads": 1, "tensorboard": False,
        "optimizer": OptimizerSection(warmup_steps=3), "log_every": 3, "checkpoint_every": 4,
        **more,
    }  # fmt: skip
    return TrainConfig(MODEL, data, **values)


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]
