"""The scripts that take GPU figures still run: in miniature, on the CPU."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra metacurate[train]")


def test_our_side_of_the_throughput_benchmark_runs(tmp_path):
    path = Path(__file__).parent.parent / "benchmarks" / "gpu" / "train_throughput.py"
    spec = importlib.util.spec_from_file_location("train_throughput", path)
    script = importlib.util.module_from_spec(spec)
    sys.modules["train_throughput"] = script
    spec.loader.exec_module(script)
    from metacurate.training.openclip import ModelConfig, register

    sizes = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8,
                       "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2,
                     "layers": 1},
    }  # fmt: skip
    register(ModelConfig("benchmark-test", sizes))
    script.make_tars(tmp_path, 32, 32)
    assert len(list(tmp_path.glob("*.tar"))) == script.SHARDS
    options = argparse.Namespace(
        model="benchmark-test", batch=8, steps=2, warmup=1, workers=0, precision="fp32",
        grad_checkpointing=False,
    )  # fmt: skip
    result = script.run_metacurate(options, tmp_path)
    assert result["pairs_per_second"] > 0
    assert 0 <= result["data_wait"] < 1
