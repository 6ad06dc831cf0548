"""Training on a GPU: no step waits for the device, resuming goes on, bf16 is close to fp32."""

from __future__ import annotations

import dataclasses
import math
import signal
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from metacurate.errors import Stopped
from metacurate.evaluation.zero_shot import load_model
from metacurate.runtime.storage import Folder
from metacurate.training import trainer
from metacurate.training.trainer import train
from training_pools import curated, write_pool
from training_runs import MODEL, STEPS, config, losses

CUDA = torch.cuda.is_available()
# Everywhere, so that the file is known to run when it comes to a GPU.
on_a_gpu = pytest.mark.skipif(not CUDA, reason="needs a GPU")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_pool(folder / "pool", 200)
    return curated(folder / "pool", folder / "matched", math.inf)


@on_a_gpu
@pytest.mark.parametrize("precision", ["fp32", "amp_bf16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_step_waits_for_the_device(run, tmp_path, precision, accumulate):
    device = torch.device("cuda", 0)
    trainer.register(MODEL)
    settings = config(run, precision=precision, accumulate=accumulate)
    own = trainer.Trainer(settings, Folder(str(tmp_path)), trainer.Ranks(0, 1, device), False)
    batches = iter(own.loader)
    own._step(next(batches))  # cuBLAS and the optimiser set themselves up
    batch = next(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = own._step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert math.isfinite(float(loss))


def test_a_stopped_run_goes_on_and_ends_where_an_undisturbed_one_does(run, tmp_path, monkeypatch):
    train(config(run), str(tmp_path / "undisturbed"))

    def stop(self, step):
        return signal.SIGTERM if step >= STEPS // 2 else 0

    with monkeypatch.context() as patch:
        patch.setattr("metacurate.training.stopping.StopRequest.wanted", stop)
        with pytest.raises(Stopped):
            train(config(run), str(tmp_path / "stopped"))
    train(config(run), str(tmp_path / "stopped"))
    # A GPU adds in any order, so nearly the same.
    expected = pytest.approx(losses(tmp_path / "undisturbed"), rel=1e-3)
    assert losses(tmp_path / "stopped") == expected
    loaded = load_model(str(tmp_path / "stopped"))
    assert loaded.device.type == ("cuda" if CUDA else "cpu")
    assert loaded.text_features(["a red square"]).shape == (1, 16)


def test_bf16_with_workers_and_pinned_memory_is_close_to_fp32(run, tmp_path):
    train(config(run), str(tmp_path / "fp32"))
    settings = config(run, precision="amp_bf16")
    data = dataclasses.replace(settings.data, workers=2)
    settings = dataclasses.replace(settings, data=data)
    train(settings, str(tmp_path / "bf16"))
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=0.02)
