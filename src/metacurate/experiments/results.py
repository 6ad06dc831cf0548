"""The results of an experiment: means, intervals over seeds, table and plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, NotRequired, TypedDict, cast

import numpy as np

from metacurate.experiments.config import ExperimentConfig
from metacurate.needs import needs
from metacurate.runtime.storage import Folder

# Two-sided 95% points of Student's t by degrees of freedom.
STUDENT_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093,
)  # fmt: skip
NORMAL_95 = 1.960
DIFFERENCES = ("top1", "languages top1")
PLOTS_A_ROW = 4


class RunResult(TypedDict):
    """One arm with one seed; ``scores``: the values of its evaluation by name."""

    arm: str
    seed: int
    pairs: int
    seen_pairs: int
    loss: float
    chance: float
    scores: dict[str, float]


class Score(TypedDict):
    """A mean over seeds, the bounds of its 95% interval (None of a single value), the values."""

    mean: float
    low: float | None
    high: float | None
    values: list[float]


class ArmResult(TypedDict):
    """The arm's settings; ``seen_pairs`` of each run; ``difference``: paired by seed."""

    seen_pairs: int
    kind: str
    t: NotRequired[float]
    online: NotRequired[bool]
    like: NotRequired[str]
    paths: NotRequired[list[str]]
    metadata: NotRequired[str]
    rule: NotRequired[str]
    p_rule: NotRequired[str]
    reference: NotRequired[str]
    choose_text: NotRequired[str]
    scale: NotRequired[float]
    score: NotRequired[str]
    share: NotRequired[float]
    above: NotRequired[float]
    captions: NotRequired[dict[str, float]]
    pool_fraction: NotRequired[float]
    pairs: list[int]
    loss: list[float]
    scores: dict[str, Score]
    difference: dict[str, Score]


class Results(TypedDict):
    """An experiment's results: by arm, beside what all runs share."""

    seeds: list[int]
    chance: float
    compare_to: str
    arms: dict[str, ArmResult]


def summarise(config: ExperimentConfig, runs: Sequence[RunResult]) -> Results:
    """Means over seeds with 95% intervals (Student's t), and differences paired by seed."""
    by_arm = {arm.name: [run for run in runs if run["arm"] == arm.name] for arm in config.arms}
    baseline = by_arm[config.compare_to]
    arms: dict[str, ArmResult] = {}
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
        arm = config.arm(name)
        given = [f.name for f in fields(arm) if getattr(arm, f.name) not in (f.default, {})]
        settings = {k: v for k, v in asdict(arm).items() if k in given and k != "name"}
        found = {
            **settings,
            "seen_pairs": of_arm[0]["seen_pairs"],
            "pairs": [run["pairs"] for run in of_arm],
            "loss": [run["loss"] for run in of_arm],
            "scores": scores,
            "difference": differences,
        }
        arms[name] = cast(ArmResult, found)
    return {
        "seeds": list(config.seeds),
        "chance": runs[0]["chance"],
        "compare_to": config.compare_to,
        "arms": arms,
    }


def mean_interval(values: Sequence[float]) -> Score:
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


def score_text(score: Score, *, signed: bool = False) -> str:
    """A mean in percent with half its interval's width."""
    mean = f"{100 * score['mean']:{'+' if signed else ''}.1f}"
    if score["high"] is None:
        return mean
    return f"{mean} ± {100 * (score['high'] - score['mean']):.1f}"


def table_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the results' table."""
    arms = results["arms"]
    metrics = list(next(iter(arms.values()))["scores"])
    shown = [m for m in metrics if m in ("top1", "top5") or m.endswith(" top1")]
    compared = [m for m in DIFFERENCES if m in metrics]
    scaled = len({arm["seen_pairs"] for arm in arms.values()}) > 1
    header = ["arm", "pairs", *["seen pairs"] * scaled, *(m.replace("_", " ") for m in shown)]
    header += [f"{m} minus {results['compare_to']}" for m in compared]
    rows = []
    for name, arm in arms.items():
        numbers = [round(sum(arm["pairs"]) / len(arm["pairs"])), *[arm["seen_pairs"]] * scaled]
        scores = [score_text(arm["scores"][m]) for m in shown]
        same = name == results["compare_to"]
        differences = [
            "" if same else score_text(arm["difference"][m], signed=True) for m in compared
        ]
        rows.append([name, *(f"{n:,}" for n in numbers), *scores, *differences])
    return header, rows


def markdown(results: Results) -> str:
    """The results as a Markdown table with what its numbers mean."""
    header, rows = table_rows(results)
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    lines += [" | ".join(row) for row in rows]
    table = "\n".join(f"| {line} |" for line in lines)
    seen = sorted({arm["seen_pairs"] for arm in results["arms"].values()})
    return (
        f"{table}\n\nAccuracies in %, mean over {len(results['seeds'])} seeds ± half of the 95% "
        f"interval (Student's t); {' or '.join(f'{n:,}' for n in seen)} seen pairs a run; chance "
        f"{100 * results['chance']:.2f}%. Differences are paired by seed.\n"
    )


def plot(results: Results, folder: Folder) -> None:
    """Accuracies of all arms as PNG and SVG."""
    with needs("report"):
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot

    arms = results["arms"]
    metrics = [m for m in next(iter(arms.values()))["scores"] if m == "top1" or m.endswith(" top1")]
    with mpl.rc_context({"svg.hashsalt": "metacurate", "axes.spines.top": False,
                         "axes.spines.right": False}):  # fmt: skip
        rows, columns = -(-len(metrics) // PLOTS_A_ROW), min(len(metrics), PLOTS_A_ROW)
        figure, axes = pyplot.subplots(
            rows, columns, figsize=(3.2 * columns, rows * (0.6 + 0.4 * len(arms))), sharey=True,
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for axis in axes.flat[len(metrics) :]:
            axis.set_axis_off()
        names = list(arms)[::-1]
        for axis, metric in zip(axes.flat, metrics, strict=False):
            for row, name in enumerate(names):
                score = arms[name]["scores"][metric]
                if score["low"] is not None and score["high"] is not None:
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
