"""What an experiment's folder records: the settings of its arms, and how far each run is.

A seed is no setting of an experiment but of its runs, and an arm's settings are its own. What all
runs share, and the settings of each arm that there has ever been, must stay; arms and seeds may
come and go, and the results are of those of the configuration that is given.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from metacurate.experiments.config import SCORE, ExperimentConfig
from metacurate.experiments.inputs import Inputs
from metacurate.runtime import manifest
from metacurate.runtime.find import files_below
from metacurate.runtime.manifest import (
    MANIFEST,
    Progress,
    Stage,
    begin,
    finish,
    read_manifest,
    seconds_since,
    since_start,
    void,
    widen,
)
from metacurate.runtime.run import Run, is_held
from metacurate.runtime.storage import Folder
from metacurate.training.layout import TRAIN, Training, training_progress

EXPERIMENT = Stage(
    "experiment", ("results.json", "results.md", "results.png", "results.svg"), format=2
)
"""The results: of these arms and seeds."""
ARMS = Stage("arms", ("curation", "pools", "scores", "subsets", "runs"), (EXPERIMENT,))
"""What the results are made of; each of its folders holds runs that know their own settings."""
EVALUATION_FILE = "evaluation.json"
EVALUATION = Stage("evaluation", (EVALUATION_FILE,))
"""Of a run's folder, beside its training."""


def run_name(arm: str, seed: int) -> str:
    """The folder of an arm's run, below the experiment's."""
    return f"runs/{arm}/seed-{seed}"


def results_settings(config: ExperimentConfig, inputs: Inputs) -> dict[str, Any]:
    """What decides the results once all runs are there."""
    return {
        "evaluation": inputs.evaluation,
        "arms": [arm.name for arm in config.arms],
        "seeds": list(config.seeds),
        "compare_to": config.compare_to,
    }


def _settings(config: ExperimentConfig, inputs: Inputs) -> dict[str, Any]:
    """What all runs share and, by name, what each arm has of its own, as plain JSON values."""

    def content(paths: Sequence[str], metadata: str | None) -> dict[str, Any]:
        found: dict[str, Any] = {"files": inputs.pools[tuple(paths)]} if paths else {}
        if metadata is not None:
            found["metadata_fingerprint"] = inputs.metadata[metadata]
        return found

    values = json.loads(json.dumps(asdict(config)))
    for name in ("threads", "workers"):
        del values["train"][name]
    del values["pool"]["caption_cols"]
    values["pool"] |= content(config.pool.paths, config.pool.metadata)
    shared = ("pool", "model", "train", "optimizer", "evaluation")
    arms = {}
    for arm, own in zip(config.arms, values["arms"], strict=True):
        del own["name"]
        own.update(content(arm.paths, arm.metadata))
        own["caption_cols"] = list(caption_columns(config, arm.captions))
        if arm.kind == "scored" and arm.score == SCORE:
            own["scorer"] = config.scorer
        arms[arm.name] = own
    return {**{name: values[name] for name in shared}, "arms": arms}


def caption_columns(config: ExperimentConfig, captions: dict[str, float]) -> tuple[str, ...]:
    """The columns of captions that an arm takes texts from."""
    return tuple(name for name in config.pool.caption_cols if name in captions)


def record(run: Run, config: ExperimentConfig, inputs: Inputs) -> None:
    """Record an experiment's settings, with those of arms that are new.

    Raises UserError naming what differs if it has other settings or inputs, or an arm of the same
    name has; with the run's ``overwrite`` all that there is goes.
    """
    given = _settings(config, inputs)
    kept = _of_known_arms(run.folder, given)
    if kept is None or (run.overwrite and not is_recorded(run.folder, config, inputs)):
        kept = {**given, "arms": {}}  # arms that are not given any more go with their runs
    told = begin(run.folder, ARMS, kept, overwrite=run.overwrite)
    widen(run.folder, ARMS, {**given, "arms": kept["arms"] | given["arms"]})
    if told is None:
        finish(run.folder, ARMS, {})


def is_recorded(folder: Folder, config: ExperimentConfig, inputs: Inputs) -> bool:
    """Whether an experiment with the same settings is recorded, of whatever arms and seeds."""
    kept = _of_known_arms(folder, _settings(config, inputs))
    return kept is not None and manifest.has_begun(folder, ARMS, kept)


def _of_known_arms(folder: Folder, given: dict[str, Any]) -> dict[str, Any] | None:
    """Settings with the arms that are recorded, as they are given or else as they are recorded.

    None if no experiment is recorded.
    """
    section = read_manifest(folder)["stages"].get(ARMS.name)
    if section is None or section["state"] == "stale":
        return None
    known = section["config"]["arms"]
    return {**given, "arms": {name: given["arms"].get(name, known[name]) for name in known}}


@dataclass(frozen=True)
class RunProgress:
    """How far an arm's run is: ``state`` as of a stage, or ``to do``.

    ``age_seconds``: since it ended, or since its newest sign; ``train``, ``training``: how far its
    training is, if that has begun.
    """

    arm: str
    seed: int
    state: str
    age_seconds: float | None = None
    train: Progress | None = None
    training: Training | None = None


def runs_progress(folder: Folder, stage: Progress) -> tuple[Progress, list[RunProgress]]:
    """How far the runs of an experiment are; ``stage``: what ``manifest.status`` knows of it.

    Its rate is that of the runs that have ended since the present call, or the last one, began.
    """
    config = read_manifest(folder)["stages"][EXPERIMENT.name]["config"]
    runs = [_run_progress(folder, arm, seed) for seed in config["seeds"] for arm in config["arms"]]
    if stage.state == "done":
        return replace(stage, parts="runs"), runs
    ended = [run.age_seconds for run in runs if run.state == "done"]
    rate = left = None
    if (start := since_start(folder, EXPERIMENT.name)) is not None:
        ago = seconds_since(start[0]) or 0.0
        of_call = [age for age in ended if age is not None and age < ago]
        if of_call:
            rate = 60 * len(of_call) / (ago - min(of_call))
            left = 60 * (len(runs) - len(ended)) / rate if stage.state == "running" else None
    told = replace(
        stage, parts="runs", shards=len(runs), shards_done=len(ended),
        shards_per_minute=rate, seconds_left=left,
    )  # fmt: skip
    return told, runs


def _run_progress(folder: Folder, arm: str, seed: int) -> RunProgress:
    place = Folder(folder.address(run_name(arm, seed)))
    sections = read_manifest(place)["stages"]
    if TRAIN.name not in sections:
        return RunProgress(arm, seed, "to do")
    is_whole = all(sections.get(s.name, {}).get("state") == "done" for s in (TRAIN, EVALUATION))
    held = not is_whole and is_held(place)
    stages = manifest.status(place, held=held)
    told, training = training_progress(place, stages[TRAIN.name])
    if is_whole:
        return RunProgress(arm, seed, "done", stages[EVALUATION.name].age_seconds, told, training)
    return RunProgress(
        arm, seed, "running" if held else "stopped", told.age_seconds, told, training
    )


def verify(folder: Folder, *, mark: bool = True) -> dict[str, str]:
    """As ``manifest.verify``, of an experiment's folder and those of all runs in it.

    If a run's file is damaged, the experiment is not done any more: it goes through its runs again.
    """
    wrong = manifest.verify(folder, mark=mark)
    for name in _runs_below(folder):
        own = manifest.verify(Folder(folder.address(name)), mark=mark)
        wrong |= {f"{name}/{file}": reason for file, reason in own.items()}
    if wrong and mark:
        void(folder, [EXPERIMENT])
    return wrong


def _runs_below(folder: Folder) -> list[str]:
    """The folders of runs, at whatever depth."""
    below = f"/{MANIFEST}"
    names = files_below(folder.url, hidden=())
    return sorted(name.removesuffix(below) for name in names if name.endswith(below))
