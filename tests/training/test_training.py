"""Training: the same bits after a resume, the same loss on two ranks, checkpoints for open_clip."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from torch.overrides import TorchFunctionMode
from typer.testing import CliRunner

from metacurate.cli import app, main
from metacurate.errors import Stopped, UserError
from metacurate.runtime import progress
from metacurate.runtime.storage import Folder
from metacurate.training import trainer
from metacurate.training.config import (
    DataSection,
    OptimizerSection,
    TrainConfig,
    from_table,
    load_train_config,
)
from metacurate.training.layout import checkpoint_steps
from metacurate.training.openclip import ModelConfig, OpenClipTokenizer, open_clip
from metacurate.training.trainer import learning_rate, make_optimizer, train
from training_pools import curated, write_pool
from training_runs import MODEL, SIZES, config, losses


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_pool(folder / "pool", 200)
    return curated(folder / "pool", folder / "matched", math.inf)


VISION = SIZES["vision_cfg"]


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "final.pt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def undisturbed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "model"
    totals = train(config(run), str(out))
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
            train(config(run), str(tmp_path))
    monkeypatch.setattr(trainer.Trainer, "_step", original)
    train(config(run), str(tmp_path))
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
    assert "pairs_per_second" not in train(config(run), str(tmp_path))
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def run_files(folder: Path) -> dict[str, bytes]:
    """All files of a run but TensorBoard's (which hold times) and the lock, by name."""
    paths = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
    return {name: data for name, data in files.items() if not name.startswith("tensorboard/")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_at_the_end_of_the_step_with_a_checkpoint_and_the_same_bits_later(
    run, undisturbed, tmp_path, monkeypatch, number
):
    original = trainer.Trainer._step
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    for stop in (2, 10):  # the steps under way, from 0

        def step(self: Any, batch: Any, stop: int = stop) -> Any:
            if self.progress.step == stop:
                os.kill(os.getpid(), number)
            return original(self, batch)

        monkeypatch.setattr(trainer.Trainer, "_step", step)
        with pytest.raises(Stopped, match=f"stopped at step {stop + 1} of 12") as stopped:
            train(config(run), str(tmp_path))
        assert stopped.value.number == number
        assert (tmp_path / "checkpoints" / f"step-{stop + 1:09d}.pt").is_file()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    monkeypatch.setattr(trainer.Trainer, "_step", original)
    train(config(run), str(tmp_path))
    mine, expected = run_files(tmp_path), run_files(undisturbed)
    assert mine.keys() == expected.keys()  # also the same checkpoints
    for name in ("metrics.jsonl", "manifest.json", "model.json"):
        assert mine[name] == expected[name]
    for name, tensor in weights(undisturbed).items():
        assert torch.equal(weights(tmp_path)[name], tensor), name


def test_a_second_ctrl_c_does_not_wait_for_the_step(run, tmp_path, monkeypatch):
    def step(self: Any, batch: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    monkeypatch.setattr(trainer.Trainer, "_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(config(run), str(tmp_path))


SIGNALLED = """
import os, signal, sys
from metacurate.cli import main
from metacurate.training import trainer

original = trainer.Trainer._step


def step(self, batch):
    if self.progress.step == int(sys.argv[1]) and self.here.rank == int(sys.argv[2]):
        # The group's signal reaches the loader's workers too.
        os.killpg(os.getpgid(0), signal.SIGTERM)
    return original(self, batch)


if __name__ == "__main__":  # workers import this file
    if os.getsid(0) != os.getpid():  # torchrun's processes have a group of their own already
        os.setpgid(0, 0)
    trainer.Trainer._step = step
    main(sys.argv[3:])
"""


REFUSING = """
import os, sys
from metacurate.cli import main
from metacurate.errors import UserError
from metacurate.training import trainer


def refuse(*_):
    raise UserError("this rank has no tokenizer")


if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        trainer.OpenClipTokenizer = refuse
    main(sys.argv[1:])
"""


# What shares the weights must be gone before the process group is: else a rank may wait for ever as
# it ends, for a thread that waits for Python's lock.
LEAVING = """
import gc, sys
import torch
import torch.distributed as dist
from metacurate.cli import main
from metacurate.training import trainer


def leave():
    wrappers = [o for o in gc.get_objects() if type(o) is trainer.DistributedDataParallel]
    print("wrappers:", len(wrappers), file=sys.stderr, flush=True)
    original()


def forward(self, *_):
    raise RuntimeError("the model is broken")


if __name__ == "__main__":
    original, dist.destroy_process_group = dist.destroy_process_group, leave
    if sys.argv[1] == "fails":
        trainer.open_clip().CLIP.forward = forward
    main(sys.argv[2:])
"""


def test_the_command_ends_in_one_line_and_with_the_signals_exit_code(run, undisturbed, tmp_path):
    (tmp_path / "run.py").write_text(SIGNALLED)
    file = toml(run, tmp_path / "train.toml", data={"workers": 2})
    out = tmp_path / "model"
    arguments = ["train", "--config", str(file), "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}

    stopped = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), "5", "0", *arguments],
        check=False, capture_output=True, text=True, env=env, timeout=240,
    )  # fmt: skip
    assert stopped.returncode == 128 + signal.SIGTERM
    message = "stopped at step 6 of 12; run the same command again to resume"
    # A slow machine reports its progress besides.
    said = [line for line in stopped.stderr.splitlines() if not line.startswith("train: ")]
    assert said == [message]
    # Without workers: they are no part of what a run is.
    train(load_train_config(str(toml(run, tmp_path / "here.toml"))), str(out))
    for name, tensor in weights(undisturbed).items():
        assert torch.equal(weights(out)[name], tensor), name


def two_ranks(*words: object) -> subprocess.CompletedProcess[str]:
    """A command of Python's as torchrun runs it on two ranks, without a GPU."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
        *map(str, words),
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=env, timeout=240
    )


def test_what_one_rank_refuses_leaves_nothing(run, tmp_path):
    (tmp_path / "run.py").write_text(REFUSING)
    file = toml(run, tmp_path / "train.toml")
    result = two_ranks(tmp_path / "run.py", "train", "-c", file, "-o", tmp_path / "model")
    assert result.returncode != 0
    assert result.stderr.count("metacurate: error: this rank has no tokenizer") == 2
    assert not (tmp_path / "model").exists()


def test_ranks_that_fail_leave_the_process_group_without_waiting(run, tmp_path):
    (tmp_path / "run.py").write_text(LEAVING)
    file = toml(run, tmp_path / "train.toml")
    result = two_ranks(tmp_path / "run.py", "fails", "train", "-c", file, "-o", tmp_path / "model")
    assert result.returncode != 0
    assert "the model is broken" in result.stderr
    # torchrun ends the other rank once one has failed.
    assert result.stderr.count("wrappers: 0") in (1, 2)
    assert "wrappers: 1" not in result.stderr


def test_ranks_stop_at_the_same_step_when_one_of_them_is_asked_to(run, undisturbed, tmp_path):
    (tmp_path / "run.py").write_text(SIGNALLED)
    file = toml(run, tmp_path / "train.toml", seen_pairs=200 * 16)
    out = tmp_path / "model"
    result = two_ranks(tmp_path / "run.py", "3", "1", "train", "--config", file, "--out", out)
    assert result.returncode != 0
    steps = checkpoint_steps(Folder(str(out)))
    assert 4 <= steps[-1] < 200
    assert result.stderr.count(f"stopped at step {steps[-1]} of 200;") == 1
    assert (out / "metrics.jsonl").read_text().count("\n") == steps[-1] // 3
    assert losses(out)[0] == pytest.approx(losses(undisturbed)[0], rel=2e-5)


def test_an_optimiser_saved_on_another_kind_of_device_goes_on_as_this_one_needs(
    run, undisturbed, tmp_path, monkeypatch
):
    def stop(self: Any) -> None:
        save(self)
        raise KeyboardInterrupt

    save = trainer.Trainer._save
    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_save", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config(run), str(tmp_path))
    (path,) = (tmp_path / "checkpoints").iterdir()
    state = torch.load(path, weights_only=True)
    for group in state["optimizer"]["param_groups"]:
        group["fused"] = True  # as on a GPU
    torch.save(state, path)
    train(config(run), str(tmp_path))
    for name, tensor in weights(undisturbed).items():
        assert torch.equal(weights(tmp_path)[name], tensor), name


class NoTraffic(TorchFunctionMode):
    """Fails at what makes the CPU wait for a device: values moved between the two."""

    READERS = frozenset({"item", "cpu", "numpy", "tolist", "__float__", "__bool__", "__int__"})
    MAKERS = (torch.tensor, torch.as_tensor)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        on_device = any(isinstance(a, torch.Tensor) and a.is_meta for a in args)
        assert not (on_device and name in self.READERS), name
        target = str(kwargs.get("device") or "cpu")
        assert not (func in self.MAKERS and target != "cpu"), f"{name} on {target}"
        result = func(*args, **kwargs)
        if name == "to" and isinstance(result, torch.Tensor):
            assert result.device == args[0].device, name
        return result


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_moves_nothing_between_cpu_and_device(run, tmp_path, accumulate):
    """On the meta device, which has no values: reading one fails there anyhow."""
    meta = torch.device("meta")
    trainer.register(MODEL)
    settings = config(run, accumulate=accumulate, optimizer=OptimizerSection(grad_clip_norm=1.0))
    own = trainer.Trainer(settings, Folder(str(tmp_path)), trainer.Ranks(0, 1, meta), False)
    batch = next(iter(own.loader))
    assert batch.images.is_meta
    own._step(batch)  # what is made once may be copied
    own.progress.step += 1
    with NoTraffic():
        loss = own._step(batch)
    assert loss.is_meta


def toml(run: Path, path: Path, *, data: dict[str, Any] | None = None, **more: Any) -> Path:
    """The configuration of ``config`` as a file."""
    top = {"seen_pairs": 192, "global_batch": 16, "threads": 1, "tensorboard": False,
           "log_every": 3, "checkpoint_every": 4, **more}  # fmt: skip
    lines = [f"{k} = {json.dumps(v)}" for k, v in top.items()]
    lines += ["[optimizer]", "warmup_steps = 3", "[data]", f'shards = "{run / "curated"}"']
    lines += ['selection = "online"', f'counts = "{run / "counts.npy"}"', "t = 20"]
    lines += [f"{k} = {json.dumps(v)}" for k, v in (data or {}).items()]
    lines += ["streams = 4", "shuffle_block = 16", "[model]", f'name = "{MODEL.name}"']
    for section, table in (("", SIZES), (".vision_cfg", SIZES["vision_cfg"]),
                           (".text_cfg", SIZES["text_cfg"])):  # fmt: skip
        lines.append(f"[model.config{section}]")
        lines += [f"{k} = {json.dumps(v)}" for k, v in table.items() if not isinstance(v, dict)]
    path.write_text("\n".join(lines))
    return path


def test_counts_and_thresholds_of_a_run_in_all_their_forms(run: Path, tmp_path: Path) -> None:
    """The array, the counts by name, and the run itself select the same."""
    named = tmp_path / "counts.json"
    named.write_text(json.dumps(json.loads((run / "datacard.json").read_text())["entry_counts"]))
    metadata = str(run / "metadata.parquet")
    common = {"shards": ("x",), "selection": "online"}
    array = DataSection(**common, counts=str(run / "counts.npy"), t=math.inf).load_selection()
    forms = [
        DataSection(**common, counts=str(named), metadata=metadata, t=math.inf),
        DataSection(**common, counts=str(run), metadata=metadata, t=math.inf),
        DataSection(**common, run=str(run)),
    ]
    for form in forms:
        selection = form.load_selection()
        assert selection.counts.tolist() == array.counts.tolist()
        assert selection.keep_probs.tolist() == array.keep_probs.tolist()
        assert selection.choose_text == "any"
    with pytest.raises(UserError, match="has counts by name: give metadata too"):
        DataSection(**common, counts=str(named), t=5).load_selection()
    for wrong in ({"run": "r", "t": 5}, {"run": "r", "counts": "c"}, {"choose_text": "one"}):
        with pytest.raises(UserError, match="needs run, or counts and t"):
            DataSection(shards=("x",), **wrong)


def test_two_ranks_match_the_loss_and_weights_of_one_process(run, undisturbed, tmp_path):
    """Which pairs the ranks see: ``test_ranks_together_see_every_kept_pair_once_an_epoch``."""
    (tmp_path / "run.py").write_text(LEAVING)
    file = toml(run, tmp_path / "train.toml")
    assert load_train_config(str(file)) == config(run)
    out = tmp_path / "model"
    result = two_ranks(
        tmp_path / "run.py", "ends", "train", "--config", file, "--out", out, "--json"
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stderr.count("wrappers: 0") == 2
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
    train(config(run, **more), str(tmp_path))
    assert losses(tmp_path) == pytest.approx(losses(undisturbed), rel=0.02)


def test_the_logit_scale_is_clamped(run, tmp_path):
    train(config(run, max_logit_scale=2.0), str(tmp_path))
    # It begins at log(1 / 0.07) = 2.66.
    assert 0.6 < float(weights(tmp_path)["logit_scale"]) <= math.log(2.0) + 1e-6


def test_the_learning_rate_warms_up_and_decays_to_zero():
    settings = OptimizerSection(lr=1.0, warmup_steps=10)
    rates = [learning_rate(settings, step, 110) for step in range(110)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001


def test_biases_do_not_decay_be_they_tables():
    """What open_clip leaves out: biases by name, norms' gains and the logit scale by shape."""
    model = torch.nn.Module()
    for name, shape in {"weight": (2, 2), "bias": (2,), "relative_bias_table": (3, 2)}.items():
        setattr(model, name, torch.nn.Parameter(torch.zeros(shape)))
    plain, decayed = make_optimizer(model, OptimizerSection(), fused=False).param_groups
    assert [p.shape for p in plain["params"]] == [(2,), (3, 2)]
    assert [p.shape for p in decayed["params"]] == [(2, 2)]
    assert (plain["weight_decay"], decayed["weight_decay"]) == (0, 0.2)


def test_other_settings_in_the_same_folder_are_refused(run, undisturbed):
    with pytest.raises(UserError, match="seed was 0, is now 1"):
        train(config(run, seed=1), str(undisturbed))


def test_settings_may_be_mended_until_there_is_a_checkpoint(run, tmp_path):
    wrong = dataclasses.replace(
        config(run), data=dataclasses.replace(config(run).data, image_col="nope")
    )
    with pytest.raises(UserError, match="no column 'nope'"):
        train(wrong, str(tmp_path))
    assert train(config(run), str(tmp_path))["steps"] == 12


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ModelConfig("no-such"), "open_clip has no model 'no-such'"),
        (ModelConfig("coca_base"), "only CLIP models"),
        (ModelConfig("odd", {**SIZES, "text_cfg": {**SIZES["text_cfg"], "heads": 3}}), "built"),
        (ModelConfig("key", {**SIZES, "text_cfg": {"layerss": 3}}), "unexpected keyword"),
        (
            ModelConfig("wide", {**SIZES, "vision_cfg": {**VISION, "image_size": [16, 32]}}),
            "'wide' takes images of 16x32 pixels",
        ),
        (
            ModelConfig("few", {**SIZES, "text_cfg": {**SIZES["text_cfg"], "vocab_size": 99}}),
            "vocab_size = 99, and its tokenizer gives ids up to 49407",
        ),
    ],
)
def test_models_that_cannot_be_trained_are_named(run, tmp_path, model, message):
    with pytest.raises(UserError, match=message):
        train(dataclasses.replace(config(run), model=model), str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("shards", ["s4://bucket/*.tar", "nothere"])
def test_shards_that_cannot_be_had_are_named(run, tmp_path, shards):
    data = dataclasses.replace(config(run).data, shards=(shards,))
    with pytest.raises(UserError, match=shards.split("/")[0]):
        train(dataclasses.replace(config(run), data=data), str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_training_is_quiet_and_says_steps_and_loss(run, tmp_path, monkeypatch, capsys, caplog):
    monkeypatch.setattr(progress, "LOG_INTERVAL_SECONDS", 0.0)
    caplog.set_level("INFO")
    train(config(run), str(tmp_path / "model"), show_progress=True)
    assert {record.name for record in caplog.records} == {"metacurate"}
    lines = caplog.messages
    assert len(lines) == 1 + 12
    assert lines[-1].startswith("train: 12/12 steps, ")
    assert "pairs/s, loss " in lines[-1]
    assert not capsys.readouterr().err
    assert main_code(["train", "-c", str(tmp_path / "no.toml"), "-o", str(tmp_path / "x")]) == 2
    file = toml(run, tmp_path / "train.toml")
    assert main_code(["train", "-c", str(file), "-o", str(file)]) == 2  # a file, not a folder


def main_code(arguments: list[str]) -> Any:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return end.value.code


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seen_pair": 1}, "unknown key 'seen_pair'"),
        ({"seen_pairs": "many"}, "seen_pairs must be of type int"),
        ({"precision": "fp8"}, "precision must be one of"),
        ({"data": {"shards": "x", "selection": "online"}}, "needs run, or counts and t"),
        ({"data": {}}, "the key 'shards' is missing"),
        ({"data": {"shards": "x", "workers": -1}}, "data: workers must be 0 or more"),
        ({"data": {"shards": "x", "prefetch": 0}}, "data: prefetch must be positive"),
        ({"data": {"shards": "x", "selection": "online", "counts": "c", "t": 0}}, "t must be pos"),
        ({"data": {"shards": "x", "streams": 5}}, "must divide global_batch"),
        ({"data": {"shards": "x", "streams": 8, "workers": 3}}, "multiple of workers"),
        ({"threads": 0}, "threads must be from 1 to 1024"),
        ({"threads": 100_000}, "threads must be from 1 to 1024"),
        ({"max_logit_scale": 0}, "max_logit_scale must be 1 or more"),
        ({"optimizer": {"lr": -1}}, "optimizer: lr must be positive"),
        ({"optimizer": {"lr": math.nan}}, "optimizer: lr must be positive"),
        ({"optimizer": {"beta2": 1}}, "beta2 must lie in"),
        ({"optimizer": {"warmup_steps": -1}}, "warmup_steps must be 0 or more"),
        ({"optimizer": {"grad_clip_norm": 0}}, "grad_clip_norm must be positive"),
        ({"model": {"name": "m", "config": {"embed_dim": 4}}}, "lacks vision_cfg, text_cfg"),
        ({"model": {"name": "m", "config": {"a": {"b": [math.inf]}}}}, "config.a.b must be a num"),
        ({"model": {"name": "m", "config": {"a": datetime.date(2000, 1, 1)}}}, "not 2000-01-01"),
        ({"global_batch": 10**20}, "global_batch is out of range: 1"),
        ({"accumulate": 5}, "must be a multiple of accumulate .5."),
    ],
)
def test_mistakes_in_the_configuration_are_named(change, message):
    table = {
        "model": {"name": "ViT-B-32-quickgelu"}, "data": {"shards": "x"}, "seen_pairs": 12.8e9,
        "global_batch": 32768, **change,
    }  # fmt: skip
    with pytest.raises(UserError, match=message):
        from_table(TrainConfig, table, "file.toml")


EXAMPLES = Path(__file__).parents[2] / "examples" / "recipes"
WORLDWIDE = EXAMPLES / "vit-h-14-worldwide.toml"
V1_2 = EXAMPLES / "vit-h-14-v1.2.toml"
RECIPES = sorted({*EXAMPLES.glob("*.toml")} - {WORLDWIDE, V1_2})


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_shipped_recipes_are_the_papers(path):
    recipe = load_train_config(str(path))
    assert open_clip().get_model_config(recipe.model.name)["quick_gelu"]
    assert recipe.seen_pairs == 12_800_000_000
    assert recipe.global_batch == 32_768
    assert recipe.steps == 390_625
    lr = 4e-4 if recipe.model.name.split("-")[1] in ("L", "H", "bigG") else 5e-4
    assert dataclasses.astuple(recipe.optimizer) == (lr, 2000, 0.9, 0.98, 1e-6, 0.2, None)
    assert recipe.max_logit_scale == 100
    assert recipe.precision == "amp_bf16"


def test_the_worldwide_recipe_is_meta_clip_2s():
    """2.3 times MetaCLIP's pairs in as many steps, and open_clip's model but for the tokenizer."""
    recipe = load_train_config(str(WORLDWIDE))
    assert (recipe.seen_pairs, recipe.global_batch, recipe.steps) == (
        29_400_000_000,
        75_264,
        390_625,
    )
    assert dataclasses.astuple(recipe.optimizer) == (4e-4, 2000, 0.9, 0.95, 1e-6, 0.1, None)
    own, theirs = recipe.model.config, open_clip().get_model_config("ViT-H-14-worldwide-quickgelu")
    assert theirs["text_cfg"].pop("hf_tokenizer_name") == "facebook/xlm-v-base"
    assert own["text_cfg"].pop("hf_tokenizer_name") == "xlm-v-base"
    assert own == theirs


def test_the_recipe_of_v1_2_is_metaclips():
    """config/metaclip_v1_2.py of its repository: 32 epochs of 1.6B, 256 GPUs with 512 pairs."""
    recipe = load_train_config(str(V1_2))
    assert recipe.seen_pairs == 32 * 1_600_000_000
    assert (recipe.global_batch, recipe.steps) == (256 * 512, 390_625)
    assert dataclasses.astuple(recipe.optimizer) == (4e-4, 2000, 0.9, 0.95, 1e-6, 0.1, None)
    assert not open_clip().get_model_config(recipe.model.name).get("quick_gelu")
    assert (recipe.data.selection, recipe.data.choose_text) == ("online", "one")
    assert recipe.data.captions == {"synthetic": 0.15}
    assert recipe.data.caption_cols == ("synthetic",)


def test_there_are_recipes_for_all_models():
    assert len(RECIPES) == 5


def test_help_names_an_example():
    result = CliRunner().invoke(app, ["train", "--help"])
    assert result.exit_code == 0
    assert "torchrun" in result.stdout


def test_a_tokenizer_names_the_package_that_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    text = {**SIZES["text_cfg"], "hf_tokenizer_name": "words"}
    tokenizer = OpenClipTokenizer(ModelConfig("metacurate-words", {**SIZES, "text_cfg": text}))
    with pytest.raises(UserError) as refusal:
        tokenizer(["a dog"])
    assert str(refusal.value) == (
        "the tokenizer of metacurate-words needs the package transformers, which is not "
        "installed: pip install transformers"
    )


@pytest.mark.parametrize("how", ["random", "simple", "shuffle", "syntax"])
def test_a_tokenizer_that_draws_tokens_is_refused(how):
    text = {**SIZES["text_cfg"], "tokenizer_kwargs": {"reduction_mask": how}}
    tokenizer = OpenClipTokenizer(ModelConfig(f"metacurate-{how}", {**SIZES, "text_cfg": text}))
    with pytest.raises(UserError, match=r"at random .*leave reduction_mask out"):
        tokenizer(["a dog"])
