"""The scripts that take GPU figures still run: in miniature, on the CPU."""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra metacurate[train]")


ROOT = Path(__file__).parent.parent
# What making pools needs and training must not.
FOR_POOLS = ("aiohttp", "eldc", "fastwarc", "mwparserfromhell", "resiliparse")


def test_batches_of_the_documented_commands_fit_their_workers():
    text = (ROOT / "benchmarks" / "gpu" / "README.md").read_text()
    commands = re.findall(r"--batch\s+(\d+)\s.*?--workers\s+(\d+)", text, re.DOTALL)
    assert len(commands) == 4
    assert all(int(batch) % int(workers) == 0 for batch, workers in commands)


def test_training_imports_nothing_that_only_pools_need():
    code = (
        "import sys\n"
        f"for name in {FOR_POOLS!r}: sys.modules[name] = None\n"  # an import then fails
        "import metacurate.cli, metacurate.experiments.run, metacurate.training.trainer\n"
        "import metacurate.evaluation.evaluate\n"
        "from metacurate.training.openclip import open_clip\n"
        "open_clip()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_our_side_of_the_throughput_benchmark_runs(tmp_path):
    path = ROOT / "benchmarks" / "gpu" / "train_throughput.py"
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
