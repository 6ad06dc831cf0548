"""Training: the same bits after a resume, the same loss on two ranks, checkpoints for open_clip."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from typer.testing import CliRunner

from metacurate.cli import app
from metacurate.errors import UserError
from metacurate.storage import Folder
from metacurate.training import trainer
from metacurate.training.config import (
    DataSection,
    OptimizerSection,
    TrainConfig,
    from_table,
    load_train_config,
)
from metacurate.training.openclip import ModelConfig, open_clip
from metacurate.training.trainer import learning_rate, train
from training_pools import curated, write_pool

SIZES = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
MODEL = ModelConfig("metacurate-test", SIZES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_pool(folder / "pool", 200)
    return curated(folder / "pool", folder / "matched", math.inf)


def config(run: Path, **more: Any) -> TrainConfig:
    data = DataSection(
        shards=(str(run / "curated"),), selection="online", counts=str(run / "counts.npy"),
        t=20.0, streams=4, shuffle_block=16,
    )  # fmt: skip
    values = {
        "seen_pairs": 12 * 16, "global_batch": 16, "threads": 1, "tensorboard": False,
        "optimizer": OptimizerSection(warmup_steps=3), "log_every": 3, "checkpoint_every": 4,
        **more,
    }  # fmt: skip
    return TrainConfig(MODEL, data, **values)


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "final.pt", weights_only=True)["state_dict"]


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def undisturbed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "model"
    totals = train(config(run), str(out), show_progress=False)
    assert totals["seen_pairs"] == 192
    assert totals["epoch"] >= 1
    return out


@pytest.mark.parametrize("stops", [[6], [1, 5, 11]])
def test_a_resumed_run_ends_with_the_same_bits(run, undisturbed, tmp_path, monkeypatch, stops):
    original = trainer.Trainer._step

    def until(stop: int) -> Any:
        def step(self: Any, batch: Any) -> Any:
            if self.progress.step == stop:
                raise KeyboardInterrupt
            return original(self, batch)

        return step

    for stop in stops:
        monkeypatch.setattr(trainer.Trainer, "_step", until(stop))
        with pytest.raises(KeyboardInterrupt):
            train(config(run), str(tmp_path), show_progress=False)
    monkeypatch.setattr(trainer.Trainer, "_step", original)
    train(config(run), str(tmp_path), show_progress=False)
    mine, expected = weights(tmp_path), weights(undisturbed)
    assert mine.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(mine[name], tensor), name
    for name in ("metrics.jsonl", "manifest.json", "model.json"):
        assert (tmp_path / name).read_bytes() == (undisturbed / name).read_bytes()
    last = "checkpoints/step-000000012.pt"
    first = torch.load(tmp_path / last, weights_only=True)
    second = torch.load(undisturbed / last, weights_only=True)
    assert first["loader"] == second["loader"]
    for index, state in second["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(first["optimizer"]["state"][index][name], value)
    # A finished run is not trained again, and keeps the two newest checkpoints.
    assert "pairs_per_second" not in train(config(run), str(tmp_path), show_progress=False)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def toml(run: Path, path: Path, **more: Any) -> Path:
    """The configuration of ``config`` as a file."""
    top = {"seen_pairs": 192, "global_batch": 16, "threads": 1, "tensorboard": False,
           "log_every": 3, "checkpoint_every": 4, **more}  # fmt: skip
    lines = [f"{k} = {json.dumps(v)}" for k, v in top.items()]
    lines += ["[optimizer]", "warmup_steps = 3", "[data]", f'shards = "{run / "curated"}"']
    lines += ['selection = "online"', f'counts = "{run / "counts.npy"}"', "t = 20"]
    lines += ["streams = 4", "shuffle_block = 16", "[model]", f'name = "{MODEL.name}"']
    for section, table in (("", SIZES), (".vision_cfg", SIZES["vision_cfg"]),
                           (".text_cfg", SIZES["text_cfg"])):  # fmt: skip
        lines.append(f"[model.config{section}]")
        lines += [f"{k} = {json.dumps(v)}" for k, v in table.items() if not isinstance(v, dict)]
    path.write_text("\n".join(lines))
    return path


def test_two_ranks_match_the_loss_and_weights_of_one_process(run, undisturbed, tmp_path):
    """Which pairs the ranks see: ``test_ranks_together_see_every_kept_pair_once_an_epoch``."""
    file = toml(run, tmp_path / "train.toml")
    assert load_train_config(str(file)) == config(run)
    out = tmp_path / "model"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
        "-m", "metacurate", "train", "--config", str(file), "--out", str(out), "--json",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, env=env, timeout=300
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout)["seen_pairs"] == 192
    assert losses(out) == pytest.approx(losses(undisturbed), rel=2e-5)
    for name, tensor in weights(undisturbed).items():
        # The order of sums differs; AdamW turns a last bit of a tiny gradient into up to lr.
        assert torch.allclose(weights(out)[name], tensor, atol=2e-4), name


def test_accumulated_gradients_are_those_of_the_whole_batch(run, tmp_path):
    def gradients(accumulate: int) -> tuple[float, dict[str, Any]]:
        torch.manual_seed(0)
        here = trainer.Ranks(0, 1, torch.device("cpu"))
        own = trainer.Trainer(
            config(run, accumulate=accumulate), Folder(str(tmp_path)), here, False
        )
        with torch.no_grad():
            own._clip_model.logit_scale.fill_(1.0)
        loss = own._step(next(iter(own.loader)))
        named = own._clip_model.named_parameters()
        return float(loss), {name: p.grad.clone() for name, p in named}

    open_clip()
    trainer.register(MODEL)
    loss, expected = gradients(1)
    parts_loss, mine = gradients(4)
    assert parts_loss == pytest.approx(loss, rel=1e-6)
    for name, gradient in expected.items():
        assert torch.allclose(mine[name], gradient, rtol=1e-4, atol=1e-6), name
    assert expected["logit_scale"].abs() > 1e-4


def test_checkpoints_load_in_open_clip_as_they_are(undisturbed):
    clip = open_clip()
    clip.add_model_config(undisturbed / "model.json")  # goes by the file's name
    newest = undisturbed / "checkpoints" / "step-000000012.pt"
    for path in (undisturbed / "final.pt", newest):
        model, _, preprocess = clip.create_model_and_transforms("model", pretrained=str(path))
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, weights(undisturbed)[name])
    assert preprocess is not None


@pytest.mark.parametrize("more", [{"precision": "amp_bf16"}, {"grad_checkpointing": True}])
def test_bf16_and_gradient_checkpointing_give_nearly_the_same_losses(
    run, undisturbed, tmp_path, more
):
    train(config(run, **more), str(tmp_path), show_progress=False)
    assert losses(tmp_path) == pytest.approx(losses(undisturbed), rel=0.02)


def test_the_logit_scale_is_clamped(run, tmp_path):
    train(config(run, max_logit_scale=2.0), str(tmp_path), show_progress=False)
    # It begins at log(1 / 0.07) = 2.66.
    assert 0.6 < float(weights(tmp_path)["logit_scale"]) <= math.log(2.0) + 1e-6


def test_the_learning_rate_warms_up_and_decays_to_zero():
    settings = OptimizerSection(lr=1.0, warmup_steps=10)
    rates = [learning_rate(settings, step, 110) for step in range(110)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001


def test_other_settings_in_the_same_folder_are_refused(run, undisturbed):
    with pytest.raises(UserError, match="seed was 0, is now 1"):
        train(config(run, seed=1), str(undisturbed), show_progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seen_pair": 1}, "unknown key 'seen_pair'"),
        ({"seen_pairs": "many"}, "seen_pairs must be of type int"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"data": {"shards": "x", "selection": "online"}}, "needs counts and t"),
        ({"data": {}}, "the key 'shards' is missing"),
    ],
)
def test_mistakes_in_the_configuration_are_named(change, message):
    table = {
        "model": {"name": "ViT-B-32-quickgelu"}, "data": {"shards": "x"}, "seen_pairs": 12.8e9,
        "global_batch": 32768, **change,
    }  # fmt: skip
    with pytest.raises(UserError, match=message):
        from_table(TrainConfig, table, "file.toml")


RECIPES = sorted((Path(__file__).parent.parent / "examples" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_are_the_papers(path):
    recipe = load_train_config(str(path))
    assert open_clip().get_model_config(recipe.model.name)["quick_gelu"]
    assert recipe.seen_pairs == 12_800_000_000
    assert recipe.global_batch == 32_768
    assert recipe.steps == 390_625
    lr = 4e-4 if "L-14" in recipe.model.name or "H-14" in recipe.model.name else 5e-4
    assert dataclasses.astuple(recipe.optimizer) == (lr, 2000, 0.9, 0.98, 1e-6, 0.2, None)
    assert recipe.max_logit_scale == 100
    assert recipe.precision == "amp_bf16"


def test_there_are_recipes_for_all_four_models():
    assert len(RECIPES) == 4


def test_help_names_an_example():
    result = CliRunner().invoke(app, ["train", "--help"])
    assert result.exit_code == 0
    assert "torchrun" in result.stdout
