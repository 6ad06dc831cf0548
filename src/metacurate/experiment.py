"""The experiment: the same model, budget and evaluation on data chosen in different ways.

An *arm* is a way to choose pairs: ``raw`` (the whole pool), ``matched`` (curated, not balanced),
``random`` (of the matched pairs, at random, as many as another arm has) and ``balanced`` (at a
threshold t, drawn once or, with ``online``, anew in every epoch). Every arm is trained once a seed;
the seed decides the weights at the start, the order of the pairs and the draws of the subset.

The output folder holds ``curation/`` (a curation run for each threshold and seed), ``runs/`` (a
training run with its evaluation for each arm and seed), ``results.json``, ``results.md`` and plots.
What is finished is not done again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from metacurate.curation import curate
from metacurate.engines.local import LocalEngine
from metacurate.errors import UserError
from metacurate.pool.schema import PoolConfig
from metacurate.progress import meter
from metacurate.stage import Stage, begin, exclusive, finish, read_manifest, run_shards
from metacurate.storage import Folder
from metacurate.training.config import DataSection, OptimizerSection, TrainConfig
from metacurate.training.openclip import ModelConfig

KINDS = ("raw", "matched", "random", "balanced")
EXPERIMENT = Stage(
    "experiment",
    ("curation", "runs", "results.json", "results.md", "results.png", "results.svg"),
)
EVALUATION_FILE = "evaluation.json"
RESULTS_FILE = "results.json"
TABLE_FILE = "results.md"
# Two-sided 95% points of Student's t by degrees of freedom.
STUDENT_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
)  # fmt: skip
NORMAL_95 = 1.960


@dataclass(frozen=True)
class Arm:
    """A way to choose pairs; ``t`` for balanced arms, ``like`` (another arm) for random ones."""

    name: str
    kind: str
    t: float | None = None
    online: bool = False
    like: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"an arm's kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if (self.kind == "balanced") != (self.t is not None):
            raise UserError(f"arm {self.name!r}: balanced arms need t, and no other takes it")
        if (self.kind == "random") != (self.like is not None):
            raise UserError(f"arm {self.name!r}: random arms need like, and no other takes it")
        if not self.name or not all(c.isalnum() or c in "._-" for c in self.name):
            raise UserError(f"an arm's name may have letters, digits, . _ and -: {self.name!r}")
        if self.online and self.kind != "balanced":
            raise UserError(f"arm {self.name!r}: only balanced arms can be online")


@dataclass(frozen=True)
class TrainSection:
    """``[train]``: as in a training configuration, but for the data and the seed."""

    seen_pairs: int
    global_batch: int
    precision: str = "fp32"
    accumulate: int = 1
    grad_checkpointing: bool = False
    threads: int | None = None
    streams: int = 8
    shuffle_block: int = 1024
    crop_scale: tuple[float, float] = (0.9, 1.0)
    workers: int = 0


@dataclass(frozen=True)
class PoolSection:
    """``[pool]``: the raw pool with its images, and the metadata."""

    paths: tuple[str, ...]
    metadata: str
    url_col: str | None = None
    key_col: str | None = None
    text_cols: tuple[str, ...] = ()
    image_col: str | None = None
    image_root: str | None = None


@dataclass(frozen=True)
class EvaluationSection:
    """``[evaluation]``: a data set for zero-shot classification, as for ``metacurate eval``."""

    data: str
    class_names: str | None = None
    templates: str | None = None
    groups: str | None = None


@dataclass(frozen=True)
class ExperimentConfig:
    """An experiment; ``compare_to`` names the arm that the others are compared with."""

    pool: PoolSection
    model: ModelConfig
    train: TrainSection
    evaluation: EvaluationSection
    arms: tuple[Arm, ...]
    compare_to: str
    seeds: tuple[int, ...] = (0, 1, 2)
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"there are two arms named {twice[0]!r}")
        for other in (self.compare_to, *(arm.like for arm in self.arms if arm.like)):
            if other not in names:
                raise UserError(f"there is no arm named {other!r}")
        if any(self.arm(arm.like).kind == "random" for arm in self.arms if arm.like):
            raise UserError("a random arm cannot be like another random arm")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise UserError("seeds must be different numbers, at least one")

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)


def load_experiment_config(path: str) -> ExperimentConfig:
    """Read an experiment's TOML file; UserError naming the key that is wrong."""
    from metacurate.training.config import from_table, load_toml

    return from_table(ExperimentConfig, load_toml(path), path)


@dataclass(frozen=True)
class RunTask:
    """One arm with one seed; ``fraction`` of its data's pairs is used."""

    config: ExperimentConfig
    folder: Folder
    arm: Arm
    seed: int
    fraction: float = 1.0
    pairs: int = 0

    @property
    def name(self) -> str:
        """The run's folder, below the experiment's."""
        return f"runs/{self.arm.name}/seed-{self.seed}"


def experiment(
    config: ExperimentConfig,
    out: str,
    *,
    workers: int = 1,
    overwrite: bool = False,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Run what is missing of an experiment and write its results; returns them.

    ``workers`` training runs go at a time (on a GPU they share it). Raises UserError for what the
    caller can mend.
    """
    folder = Folder(out)
    with exclusive(folder):
        settings = json.loads(json.dumps(asdict(config)))
        del settings["train"]["threads"], settings["train"]["workers"]
        planned = len(config.arms) * len(config.seeds)
        stages = read_manifest(folder)["stages"]
        if stages.get(EXPERIMENT.name, {}).get("state") != "done":
            _check(config, folder)
        done = begin(folder, EXPERIMENT, settings, shards=planned, overwrite=overwrite)
        if done is not None:
            return dict(folder.read_json(RESULTS_FILE))
        sizes = _curate(config, folder, workers, show_progress)
        tasks = [
            _task(config, folder, arm, seed, sizes) for arm in config.arms for seed in config.seeds
        ]
        with LocalEngine(workers) as engine:
            runs = run_shards(
                folder, EXPERIMENT, run_arm, tasks, engine,
                unit="seen_pairs", parts="runs", show_progress=show_progress,
            )  # fmt: skip
        results = summarise(config, runs)
        folder.write_json(RESULTS_FILE, results)
        with folder.create(TABLE_FILE) as file:
            file.write(markdown(results).encode())
        plot(results, folder)
        finish(folder, EXPERIMENT, {"runs": len(runs)}, runs)
        return results


def _check(config: ExperimentConfig, folder: Folder) -> None:
    """UserError for what would else be found after curation and a first training run."""
    from metacurate.evaluation.evaluate import check
    from metacurate.training.openclip import create_model, register
    from metacurate.training.shards import ShardsConfig, find_shards

    section, pool = config.evaluation, config.pool
    check(section.data, section.class_names, section.templates, section.groups)
    register(config.model)
    create_model(config.model, "cpu")
    find_shards(
        ShardsConfig(
            pool.paths, pool.url_col, pool.key_col, pool.text_cols, pool.image_col, pool.image_root
        )
    )
    train_config(RunTask(config, folder, config.arm(config.compare_to), config.seeds[0]))


Sizes = dict[tuple[str, int], int]


def _curation(folder: Folder, t: float, seed: int) -> str:
    """Where the curation run of a threshold and seed is; without balancing, the seed is nothing."""
    return folder.address("curation/matched" if math.isinf(t) else f"curation/t-{t:g}-seed-{seed}")


def _curate(config: ExperimentConfig, folder: Folder, workers: int, show: bool) -> Sizes:
    """Curate for every arm and seed; returns the pairs that each has."""
    pool = config.pool
    sizes: Sizes = {}

    def run(t: float, seed: int) -> dict[str, Any]:
        return curate(
            list(pool.paths), pool.metadata, _curation(folder, t, seed), t=t, seed=seed,
            pool_config=PoolConfig(pool.url_col, pool.key_col, pool.text_cols),
            workers=workers, show_progress=False,
        )  # fmt: skip

    with meter("curate", len(config.arms), "pairs", parts="arms", show=show) as bar:
        matched = run(math.inf, 0)
        for arm in config.arms:
            for seed in config.seeds:
                if arm.kind == "raw":
                    sizes[arm.name, seed] = matched["pool"]["pairs"]
                elif arm.kind == "matched":
                    sizes[arm.name, seed] = matched["kept"]["pairs"]
                elif arm.kind == "balanced":
                    assert arm.t is not None
                    sizes[arm.name, seed] = run(arm.t, seed)["kept"]["pairs"]
            bar.advance()
    for arm in config.arms:
        if arm.like is not None:
            for seed in config.seeds:
                sizes[arm.name, seed] = min(sizes[arm.like, seed], matched["kept"]["pairs"])
    return sizes


def _task(config: ExperimentConfig, folder: Folder, arm: Arm, seed: int, sizes: Sizes) -> RunTask:
    pairs = sizes[arm.name, seed]
    if arm.kind != "random":
        return RunTask(config, folder, arm, seed, 1.0, pairs)
    matched = Folder(_curation(folder, math.inf, 0)).read_json("datacard.json")["kept"]["pairs"]
    return RunTask(config, folder, arm, seed, pairs / matched, pairs)


def train_config(task: RunTask) -> TrainConfig:
    """The training configuration of a run."""
    config, arm, pool = task.config, task.arm, task.config.pool
    data = DataSection(
        shards=pool.paths,
        selection="all",
        fraction=task.fraction,
        url_col=pool.url_col,
        key_col=pool.key_col,
        text_cols=pool.text_cols,
        image_col=pool.image_col,
        image_root=pool.image_root,
        streams=config.train.streams,
        shuffle_block=config.train.shuffle_block,
        crop_scale=config.train.crop_scale,
        workers=config.train.workers,
    )
    if arm.kind != "raw":
        t = arm.t if arm.t is not None and not arm.online else math.inf
        curation = Folder(_curation(task.folder, t, task.seed))
        data = replace(data, shards=(curation.address("curated/*.parquet"),), selection="curated")
        if arm.online:
            counts = curation.address("counts.npy")
            data = replace(data, selection="online", counts=counts, t=arm.t)
    train = config.train
    steps = -(-train.seen_pairs // train.global_batch)
    return TrainConfig(
        model=config.model,
        data=data,
        seen_pairs=train.seen_pairs,
        global_batch=train.global_batch,
        optimizer=config.optimizer,
        seed=task.seed,
        precision=train.precision,
        accumulate=train.accumulate,
        grad_checkpointing=train.grad_checkpointing,
        threads=train.threads,
        log_every=max(steps // 20, 1),
        checkpoint_every=max(steps // 4, 1),
        keep_checkpoints=1,
        tensorboard=False,
    )


def run_arm(task: RunTask) -> dict[str, Any]:
    """Train and evaluate one arm with one seed; goes on where an earlier try stopped."""
    import torch

    from metacurate.evaluation.evaluate import evaluate
    from metacurate.evaluation.zero_shot import load_model
    from metacurate.training.trainer import train

    out = task.folder.address(task.name)
    totals = train(train_config(task), out, show_progress=False)
    if task.config.train.threads is not None:
        torch.set_num_threads(task.config.train.threads)
    section = task.config.evaluation
    result = evaluate(
        load_model(out), section.data, task="classification", class_names=section.class_names,
        templates=section.templates, groups=section.groups,
    )  # fmt: skip
    Folder(out).write_json(EVALUATION_FILE, result)
    return {
        "arm": task.arm.name,
        "seed": task.seed,
        "pairs": task.pairs,
        "seen_pairs": totals["seen_pairs"],
        "loss": totals["loss"],
        "chance": result["chance"],
        "scores": _scores(result),
    }


def _scores(result: dict[str, Any]) -> dict[str, float]:
    """The values of an evaluation by name: top1, top5, mean_per_class, and those of groups."""
    from metacurate.evaluation.evaluate import estimates

    return {name: float(estimate["value"]) for name, estimate in estimates(result)}


def summarise(config: ExperimentConfig, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds with 95% intervals (Student's t), and differences paired by seed."""
    by_arm = {arm.name: [run for run in runs if run["arm"] == arm.name] for arm in config.arms}
    baseline = by_arm[config.compare_to]
    arms = {}
    for name, of_arm in by_arm.items():
        scores = {
            metric: mean_interval([run["scores"][metric] for run in of_arm])
            for metric in of_arm[0]["scores"]
        }
        differences = {
            metric: mean_interval(
                [
                    run["scores"][metric] - other["scores"][metric]
                    for run, other in zip(of_arm, baseline, strict=True)
                ]
            )
            for metric in scores
        }
        arms[name] = {
            **{k: v for k, v in asdict(config.arm(name)).items() if k != "name" and v is not None},
            "pairs": [run["pairs"] for run in of_arm],
            "loss": [run["loss"] for run in of_arm],
            "scores": scores,
            "difference": differences,
        }
    return {
        "seeds": list(config.seeds),
        "seen_pairs": runs[0]["seen_pairs"],
        "chance": runs[0]["chance"],
        "compare_to": config.compare_to,
        "arms": arms,
    }


def mean_interval(values: Sequence[float]) -> dict[str, Any]:
    """The mean with its 95% interval by Student's t; a single value has no interval (null)."""
    array = np.array(values, dtype=np.float64)
    mean = float(array.mean())
    low = high = None
    if array.size > 1:
        freedom = array.size - 1
        point = STUDENT_95[freedom - 1] if freedom <= len(STUDENT_95) else NORMAL_95
        half = float(point * array.std(ddof=1) / math.sqrt(array.size))
        low, high = mean - half, mean + half
    return {"mean": mean, "low": low, "high": high, "values": array.tolist()}


def score_text(score: dict[str, Any], *, signed: bool = False) -> str:
    """A mean in percent with half its interval's width."""
    mean = f"{100 * score['mean']:{'+' if signed else ''}.1f}"
    if score["high"] is None:
        return mean
    return f"{mean} ± {100 * (score['high'] - score['mean']):.1f}"


def table_rows(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the results' table."""
    arms = results["arms"]
    metrics = list(next(iter(arms.values()))["scores"])
    shown = [m for m in metrics if m in ("top1", "top5") or m.endswith(" top1")]
    header = ["arm", "pairs", *(m.replace("_", " ") for m in shown)]
    header.append(f"top1 minus {results['compare_to']}")
    rows = []
    for name, arm in arms.items():
        pairs = f"{round(sum(arm['pairs']) / len(arm['pairs'])):,}"
        scores = [score_text(arm["scores"][m]) for m in shown]
        same = name == results["compare_to"]
        difference = "" if same else score_text(arm["difference"]["top1"], signed=True)
        rows.append([name, pairs, *scores, difference])
    return header, rows


def markdown(results: dict[str, Any]) -> str:
    """The results as a Markdown table with what its numbers mean."""
    header, rows = table_rows(results)
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    lines += [" | ".join(row) for row in rows]
    table = "\n".join(f"| {line} |" for line in lines)
    return (
        f"{table}\n\nAccuracies in %, mean over {len(results['seeds'])} seeds ± half of the 95% "
        f"interval (Student's t); {results['seen_pairs']:,} seen pairs a run; chance "
        f"{100 * results['chance']:.2f}%. Differences are paired by seed.\n"
    )


def plot(results: dict[str, Any], folder: Folder) -> None:
    """Accuracies of all arms as PNG and SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    arms = results["arms"]
    metrics = [m for m in next(iter(arms.values()))["scores"] if m == "top1" or m.endswith(" top1")]
    with mpl.rc_context({"svg.hashsalt": "metacurate", "axes.spines.top": False,
                         "axes.spines.right": False}):  # fmt: skip
        figure, axes = pyplot.subplots(
            1, len(metrics), figsize=(3.2 * len(metrics), 0.6 + 0.4 * len(arms)), sharey=True,
            squeeze=False, layout="constrained",
        )  # fmt: skip
        names = list(arms)[::-1]
        for axis, metric in zip(axes[0], metrics, strict=True):
            for row, name in enumerate(names):
                score = arms[name]["scores"][metric]
                if score["high"] is not None:
                    bounds = [100 * score["low"], 100 * score["high"]]
                    axis.plot(bounds, [row, row], color="tab:blue", linewidth=2)
                seeds = [100 * v for v in score["values"]]
                axis.plot(seeds, [row] * len(seeds), "|", color="0.5", markersize=9)
                axis.plot([100 * score["mean"]], [row], "o", color="tab:blue")
            axis.set_yticks(range(len(names)), names)
            axis.set_title(metric.replace("_", " "), loc="left", fontsize=10)
            axis.set_xlabel("accuracy, %")
            axis.set_xlim(left=0)
            axis.grid(axis="x", color="0.9")
        for extension in ("png", "svg"):
            with folder.create(f"results.{extension}") as file:
                figure.savefig(file, format=extension, dpi=150, metadata=_metadata(extension))
        pyplot.close(figure)


def _metadata(extension: str) -> dict[str, Any]:
    """No dates or versions in the files."""
    return {"Date": None} if extension == "svg" else {"Software": None}
