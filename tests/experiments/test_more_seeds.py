"""An experiment with more seeds or arms than before, or fewer, and what may not differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from typer.testing import CliRunner

from metacurate.cli import app
from metacurate.errors import UserError
from metacurate.experiments import run
from metacurate.experiments.config import Arm, ExperimentConfig
from metacurate.experiments.inputs import read_inputs
from metacurate.experiments.record import ARMS, EXPERIMENT, record, results_settings
from metacurate.experiments.run import experiment
from metacurate.library import status
from metacurate.runtime.manifest import begin, finish
from metacurate.runtime.run import open_run
from metacurate.training.config import from_table
from training_pools import SHAPES, WORDS, write_images, write_pool
from training_runs import SIZES

ARMS_OF: dict[str, dict[str, Any]] = {
    "raw": {"kind": "raw"},
    "t-12": {"kind": "balanced", "t": 12},
    "random": {"kind": "random", "like": "t-12"},
    "half": {"kind": "matched", "pool_fraction": 0.5},
    "scored": {"kind": "scored", "share": 0.3},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pool, metadata, and a test set with an image of every class."""
    folder = tmp_path_factory.mktemp("growth")
    write_pool(folder / "pool", 120, shards=2)
    (folder / "metadata.json").write_text(json.dumps([*WORDS, *SHAPES]))
    write_images(folder / "test", 1)
    return folder


def configured(place: Path, names: list[str], seeds: list[int], **more: Any) -> ExperimentConfig:
    scorer = {"scorer": "raw"} if "scored" in names else {}
    return from_table(
        ExperimentConfig,
        {
            **scorer,
            "compare_to": "raw",
            "seeds": seeds,
            "pool": {"paths": str(place / "pool"), "metadata": str(place / "metadata.json")},
            "model": {"name": "metacurate-growth", "config": SIZES},
            "optimizer": {"warmup_steps": 1},
            "train": {"seen_pairs": 16, "global_batch": 8, "threads": 1},
            "evaluation": {"data": str(place / "test")},
            "arms": [{"name": name, **ARMS_OF[name]} for name in names],
            **more,
        },
        "test",
    )  # fmt: skip


def written(folder: Path, *patterns: str) -> dict[str, int]:
    """When the files of some patterns were written."""
    found = {path for pattern in patterns for path in folder.glob(pattern)}
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in found}


def test_results_are_those_of_one_run_whatever_arms_and_seeds_were_there_before(
    place, tmp_path, monkeypatch
):
    monkeypatch.setattr(run, "plot", lambda *_: None)
    grown, out = tmp_path / "grown", tmp_path / "whole"
    arms = ["scored", "raw", "random", "t-12", "half"]
    kept = ("runs/*/*/final.pt", "curation/**/*.parquet", "pools/*/*/pairs/*", "scores/*/pairs/*")
    experiment(configured(place, ["raw"], [1]), str(grown))
    before = written(grown, *kept)
    assert len(before) == 4  # the weights, two shards and the metadata

    # Stopped between the training and the evaluation of a run.
    original, calls = run._evaluate, []

    def interrupted(task: run.RunTask) -> dict[str, Any]:
        calls.append(task.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(task)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            experiment(configured(place, ["t-12", "raw", "half"], [0, 1]), str(grown))
    told = status(grown)
    assert {(of["arm"], of["seed"]): of["state"] for of in told["runs"]} == {
        ("t-12", 0): "done", ("raw", 0): "done", ("half", 0): "stopped",
        ("t-12", 1): "to do", ("raw", 1): "done", ("half", 1): "to do",
    }  # fmt: skip
    stage = told["stages"]["experiment"]
    found = [stage[name] for name in ("state", "shards_done", "shards", "parts", "seconds_left")]
    assert found == ["stopped", 3, 6, "runs", None]
    shown = CliRunner().invoke(app, ["status", str(grown)], env={"COLUMNS": "200"}).stdout
    assert "done: seeds 0, 1" in shown
    assert "stopped: seed 0 (done, 2 of 2 steps, " in shown
    assert "to do: seed 1" in shown

    experiment(configured(place, arms, [1, 0]), str(grown))
    after = written(grown, *kept)
    assert {name: after.get(name) for name in before} == before  # taken as it is
    before = after
    experiment(configured(place, arms, [1, 0]), str(out))
    for name in ("results.json", "results.md"):
        assert (grown / name).read_bytes() == (out / name).read_bytes(), name
    of_arms = json.loads((grown / "results.json").read_text())["arms"]
    assert of_arms["random"]["pairs"][0] != of_arms["random"]["pairs"][1]

    # Without a seed and an arm; nothing of them is deleted.
    fewer = configured(place, [arm for arm in arms if arm != "half"], [0])
    experiment(fewer, str(grown))
    found = json.loads((grown / "results.json").read_text())
    assert found["seeds"] == [0]
    assert list(found["arms"]) == [arm for arm in arms if arm != "half"]
    assert found["arms"]["random"]["pairs"] == [of_arms["random"]["pairs"][1]]
    for name, arm in found["arms"].items():
        values = {metric: score["values"] for metric, score in arm["scores"].items()}
        whole = of_arms[name]["scores"]
        assert values == {metric: [score["values"][1]] for metric, score in whole.items()}
    assert written(grown, *kept) == before
    told = status(grown)
    assert told["stages"]["experiment"]["shards_done"] == len(arms) - 1
    assert {(run["arm"], run["seed"], run["state"]) for run in told["runs"]} == {
        (arm, 0, "done") for arm in arms if arm != "half"
    }


def recorded(place: Path, out: Path, config: ExperimentConfig, *, overwrite: bool = False) -> None:
    """Record an experiment, as if it had run."""
    with open_run(out, workers=1, overwrite=overwrite) as opened:
        inputs = read_inputs(config)
        record(opened, config, inputs)
        for name in ("runs/raw/seed-0/final.pt", "curation/matched/datacard.json"):
            opened.folder.write_json(name, {})
        settings = results_settings(config, inputs)
        begin(opened.folder, EXPERIMENT, settings, overwrite=False, replace=True)
        finish(opened.folder, EXPERIMENT, {})


def arm(config: ExperimentConfig, name: str, **more: Any) -> ExperimentConfig:
    """The configuration with an arm that is changed, or new."""
    arms = {arm.name: arm for arm in config.arms}
    arms[name] = replace(arms[name], **more) if name in arms else Arm(name, **more)
    return replace(config, arms=tuple(arms.values()))


CHANGED = {
    "t": (lambda c: arm(c, "t-12", t=13.0), r"arms\.t-12\.t was 12\.0, is now 13\.0; use"),
    "scale": (lambda c: arm(c, "raw", scale=2.0), r"arms\.raw\.scale was 1\.0, is now 2\.0; use"),
    "scorer": (
        lambda c: replace(c, scorer="t-12"),
        r'arms\.scored\.scorer was "raw", is now "t-12"; use',
    ),
    "budget": (
        lambda c: replace(c, train=replace(c.train, seen_pairs=24)),
        r"train\.seen_pairs was 16, is now 24; use",
    ),
    "pool": (
        lambda c: replace(c, pool=replace(c.pool, text_cols=("texts",))),
        r'pool\.text_cols was \[\], is now \["texts"\]; use',
    ),
    # Of an arm that was taken away and is there again with other settings.
    "again": (
        lambda c: arm(c, "half", kind="matched", pool_fraction=0.25),
        r"arms\.half\.pool_fraction was 0\.5, is now 0\.25; use",
    ),
}  # fmt: skip
GROWN = {
    "seeds": lambda c: replace(c, seeds=(5, 0)),
    "compare_to": lambda c: replace(c, compare_to="t-12"),
    "new": lambda c: arm(c, "t-9", kind="balanced", t=9.0),
    "threads": lambda c: replace(c, train=replace(c.train, threads=2)),
    "captions": lambda c: replace(
        c,
        pool=replace(c.pool, caption_cols=("made",)),
        arms=(*c.arms, Arm("mixed", "raw", captions={"made": 0.5})),
    ),
    "without the scorer": lambda c: replace(
        c, scorer=None, arms=tuple(arm for arm in c.arms if arm.kind != "scored")
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", [*CHANGED, *GROWN])
def test_only_changed_settings_are_refused(change, place, tmp_path):
    first = configured(place, ["raw", "t-12", "half", "scored"], [0, 1])
    recorded(place, tmp_path, first)
    config = configured(place, ["raw", "t-12", "scored"], [0, 1])
    recorded(place, tmp_path, config)
    if change in GROWN:
        recorded(place, tmp_path, GROWN[change](config))
        recorded(place, tmp_path, first)
        assert (tmp_path / "runs/raw/seed-0/final.pt").exists()
        return
    alter, message = CHANGED[change]
    # New seeds and arms beside it are no difference.
    changed = arm(replace(alter(config), seeds=(7,)), "new", kind="raw")
    with pytest.raises(UserError, match=r"holds a run with other settings: " + message):
        recorded(place, tmp_path, changed)
    (tmp_path / "runs/half").mkdir()
    recorded(place, tmp_path, changed, overwrite=True)
    assert not (tmp_path / "runs/half").exists()
    known = json.loads((tmp_path / "manifest.json").read_text())["stages"][ARMS.name]["config"]
    assert list(known["arms"]) == [arm.name for arm in changed.arms]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scorer": "raw"}, "scorer: no arm has its pairs by the scores of 'raw'"),
        ({"pool": {"caption_cols": ["made"]}}, "caption_cols: no arm has a share of 'made'"),
        ({"pool": {"lang_col": "lang"}}, "lang_col: no arm has metadata of several languages"),
        ({"arm": {"kind": "raw", "metadata": "m.json"}}, "'a': only .* arms take metadata"),
        ({"arm": {"kind": "raw", "rule": "v1"}}, "'a': only .* arms take rule"),
        ({"arm": {"kind": "scored", "share": 0.5, "score": "s", "rule": "v1"}}, "take no rule"),
        ({"arm": {"kind": "random", "like": "t-12", "t": 5}}, "only balanced and scored .* take t"),
        (
            {"arm": {"kind": "balanced", "t": 5, "p_rule": "same", "reference": "de"}},
            "no language is the reference",
        ),
        ({"arm": {"kind": "balanced", "t": 5, "p_rule": "same"}}, "'a': p_rule needs metadata of"),
        ({"arm": {"kind": "balanced", "t": 5, "reference": "de"}}, "'a': reference needs metadata"),
        (
            {"scorer": "nope", "arm": {"kind": "scored", "share": 0.5}},
            "scorer 'nope' names no arm, and no model: clip-score:nope: nope is no folder; a model",
        ),
        ({"arm": {"kind": "scored", "share": 0.5, "score": "s"}}, "pool has no column 's'"),
        (
            {"arm": {"kind": "scored", "share": 0.5, "score": "url"}},
            "'a': 'url' is no column of numbers",
        ),
    ],
)  # fmt: skip
def test_settings_that_would_do_nothing_are_named(change, message, place, tmp_path):
    config = configured(place, ["raw", "t-12"], [0])
    table: dict[str, Any] = {
        "pool": {"paths": list(config.pool.paths), "metadata": config.pool.metadata}
        | change.get("pool", {}),
        "arms": [{"name": name, **ARMS_OF[name]} for name in ("raw", "t-12")],
    }
    if "arm" in change:
        table["arms"].append({"name": "a", **change["arm"]})
    if "scorer" in change:
        table["scorer"] = change["scorer"]
    with pytest.raises(UserError, match=message):
        experiment(configured(place, ["raw", "t-12"], [0], **table), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_damage_in_any_of_its_runs_is_found_and_mended(place, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "plot", lambda *_: None)
    out = tmp_path / "out"
    config = configured(place, ["raw", "random", "t-12", "half"], [0])
    before = experiment(config, str(out))
    assert status(out, verify=True)["damaged"] == {}
    harmed = {
        str(next(out.glob(pattern)).relative_to(out))
        for pattern in (
            "runs/raw/seed-0/final.pt", "runs/t-12/seed-0/evaluation.json",
            "curation/**/curated/*.parquet", "pools/**/pairs/*.parquet", "results.json",
        )
    }  # fmt: skip
    content = {name: (out / name).read_bytes() for name in harmed}
    for name, whole in content.items():
        (out / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert status(out, verify=True)["damaged"] == dict.fromkeys(
        sorted(harmed), "has other bytes than were written"
    )
    assert experiment(config, str(out)) == before
    assert {name: (out / name).read_bytes() for name in harmed} == content
    assert status(out, verify=True)["damaged"] == {}
