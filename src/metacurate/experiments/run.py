"""The experiment: the same model, budget and evaluation on data chosen in different ways.

An *arm* is a way to choose pairs: ``raw`` (the whole pool), ``matched`` (curated, not balanced),
``random`` (of the matched pairs, at random, as many as another arm has), ``balanced`` (at a
threshold t, drawn once or, with ``online``, in every epoch) and ``scored`` (those of the highest
scores by a CLIP model, balanced or not). An arm may have its own pool, or a share of it, its own
metadata and rules, and see more pairs. Every arm is trained once a seed;
the seed decides the weights at the start, the order of the pairs and the draws of the subset.

The output folder holds ``curation/`` (a curation run for each threshold and seed), ``runs/`` (a
training run with its evaluation for each arm and seed), for scored arms ``scores/`` (the pool with
its scores) and ``subsets/``, for arms with a share of the pool ``pools/``, and ``results.json``,
``results.md`` and plots. Each of these is a run of its own: what is finished is not done again,
also if the experiment has more arms or seeds than before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from metacurate.curation.datacard import DataCard
from metacurate.curation.settings import ANY, REFERENCE
from metacurate.errors import UserError
from metacurate.experiments.config import (
    MEAN_OF_LANGUAGES,
    SCORE,
    Arm,
    ExperimentConfig,
    check_languages,
)
from metacurate.experiments.inputs import Inputs, read_inputs
from metacurate.experiments.pools import Out, pairs_in, pool_config, write_share
from metacurate.experiments.record import (
    ARMS,
    EVALUATION,
    EVALUATION_FILE,
    EXPERIMENT,
    caption_columns,
    is_recorded,
    record,
    results_settings,
    run_name,
)
from metacurate.experiments.results import Results, RunResult, markdown, plot, summarise
from metacurate.experiments.scoring import ScoreTask, check_scores, score_pool, write_subset
from metacurate.needs import needs
from metacurate.pipeline import curate
from metacurate.runtime.manifest import Statistics, finished
from metacurate.runtime.progress import meter, quiet
from metacurate.runtime.run import Run, open_run
from metacurate.runtime.stage import do_again, run_stage
from metacurate.runtime.storage import Folder
from metacurate.training.config import DataSection, TrainConfig
from metacurate.training.layout import weights_of

if TYPE_CHECKING:
    from metacurate.training.trainer import TrainTotals

RESULTS_FILE = "results.json"
TABLE_FILE = "results.md"


@dataclass(frozen=True)
class RunTask:
    """One arm with one seed; ``fraction`` of its data's pairs is used.

    ``evaluation``: the digest of what it is evaluated on.
    """

    config: ExperimentConfig
    folder: Folder
    arm: Arm
    seed: int
    fraction: float = 1.0
    pairs: int = 0
    evaluation: str = ""

    @property
    def name(self) -> str:
        """The run's folder, below the experiment's."""
        return run_name(self.arm.name, self.seed)


def experiment(
    config: ExperimentConfig,
    out: str,
    *,
    workers: int = 1,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Results:
    """Run what is missing of an experiment and write its results; returns them.

    ``workers`` training runs go at a time (on a GPU they share it). Raises UserError for what the
    caller can fix.
    """
    with open_run(
        out, inputs=config.pool.paths, workers=workers,
        overwrite=overwrite, show_progress=show_progress,
    ) as run:  # fmt: skip
        folder, inputs = run.folder, read_inputs(config)

        def tasks() -> list[RunTask]:
            sizes = _curate(config, run, workers, config.arms, _scored_pools(config, run, workers))
            return [
                replace(_task(config, folder, arm, seed, sizes), evaluation=inputs.evaluation)
                # Seed by seed, so that what a stopped run has done can be compared.
                for seed in config.seeds
                for arm in config.arms
            ]

        def write(runs: list[Statistics]) -> Statistics:
            results = summarise(config, cast(list[RunResult], runs))
            folder.write_json(RESULTS_FILE, results)
            with folder.create(TABLE_FILE) as file:
                file.write(markdown(results).encode())
            plot(results, folder)
            return {"runs": len(runs)}

        def work() -> Statistics:
            settings = results_settings(config, inputs)
            if (
                not is_recorded(folder, config, inputs)
                or finished(folder, EXPERIMENT, settings) is None
            ):
                _check(config, inputs, folder)
            record(run, config, inputs)
            return run_stage(
                run, EXPERIMENT, settings, tasks, run_arm, unit="pairs", counted="seen_pairs",
                parts="runs", totals=write, replace=True,
            )  # fmt: skip

        do_again(run, [ARMS], work)
        return cast(Results, folder.read_json(RESULTS_FILE))


def _check(config: ExperimentConfig, inputs: Inputs, folder: Folder) -> None:
    """UserError for what would else be found after curation and a first training run."""
    from metacurate.evaluation.evaluate import check, read_groups
    from metacurate.training.openclip import create_model, register
    from metacurate.training.shards import ShardsConfig, find_shards

    section, pool = config.evaluation, config.pool
    check(section.data, section.class_names, section.templates, section.groups)
    if section.groups is not None:
        section.check_groups(read_groups(section.groups).values())
    for names in section.languages.values():
        check(section.data, names, section.templates, None)
    for data in section.more.values():
        check(data, None, None, None)
    register(config.model)
    create_model(config.model, "cpu")
    for paths, captions in {
        (arm.paths or pool.paths, caption_columns(config, arm.captions)): None
        for arm in config.arms
    }:
        find_shards(
            ShardsConfig(
                paths,
                pool.url_col,
                pool.key_col,
                pool.text_cols,
                pool.image_col,
                pool.image_root,
                captions,
            )
        )
    for arm in config.arms:
        if arm.kind == "scored" and (arm.score != SCORE or config.scorer is None):
            check_scores(pool, arm)
    if config.scorer is not None and config.scorer not in [arm.name for arm in config.arms]:
        _check_scorer(config.scorer)
    of_arms = {arm.name: arm.metadata or pool.metadata for arm in config.arms}
    check_languages(config, {name: of in inputs.with_languages for name, of in of_arms.items()})
    for arm in config.arms:
        train_config(RunTask(config, folder, arm, config.seeds[0]))


def _check_scorer(scorer: str) -> None:
    from metacurate.evaluation.clip_score import open_scorer

    try:
        open_scorer(scorer)
    except UserError as error:
        raise UserError(f"scorer {scorer!r} names no arm, and no model: {error}") from None


Sizes = dict[tuple[str, int], int]
Scored = dict[int, str]
"""By seed the folder with the pool's pairs and their scores."""


@dataclass(frozen=True)
class _ScorerTask:
    """A seed's scorer: trained first, if it is an arm's model."""

    train: RunTask | None
    score: ScoreTask


def _scored_pools(config: ExperimentConfig, run: Run, workers: int) -> Scored:
    """Score the pool, once a seed if the scorer is an arm's; empty if no arm needs it."""
    if config.scorer is None:
        return {}
    folder = run.folder
    arm = next((arm for arm in config.arms if arm.name == config.scorer), None)
    sizes = {} if arm is None else _curate(config, run, workers, (arm,), {})
    outs: dict[int, Out] = {}
    tasks = {}
    for seed in config.seeds:
        place = folder.address("scores/one" if arm is None else f"scores/seed-{seed}")
        outs[seed] = Out(place, overwrite=run.overwrite)
        train = None if arm is None else _task(config, folder, arm, seed, sizes)
        model = config.scorer if train is None else folder.address(train.name)
        score = ScoreTask(config.pool, outs[seed], model, threads=config.train.threads)
        tasks[place] = _ScorerTask(train, score)
    with meter("score", len(tasks), "pairs", parts="pools", show=run.show_progress) as bar:
        for _, scored in run.engine.map_shards(_score, list(tasks.values())):
            bar.advance(scored["pairs"])
    return {seed: out.pairs for seed, out in outs.items()}


def _score(task: _ScorerTask) -> Statistics:
    """Train a scorer, or take it as it is, and score the pool by it."""
    score = task.score
    if task.train is not None:
        _train(task.train)
        score = replace(score, weights=weights_of(Folder(score.model)))
    return score_pool(score)


def _source(config: ExperimentConfig, arm: Arm) -> Arm:
    """The arm whose pairs an arm has: its own, or those of the arm that a random one is like."""
    return config.arm(arm.like or "") if arm.kind == "random" else arm


def _curation(folder: Folder, source: Arm, t: float, seed: int) -> str:
    """Where a curation run at a threshold is; ``source``: the arm whose pairs it has (``_source``).

    Without balancing the seed is nothing, but where it draws the arm's pool. Arms of the pool's own
    metadata and rules share it. No place depends on what other arms there are.
    """
    share = source.pool_fraction
    own: tuple[Any, ...] = (source.paths, source.metadata, source.rule)
    if not math.isinf(t):
        own += (source.p_rule, source.reference, source.choose_text)
    place = "curation" if share == 1 else f"curation/pools/{_as_name(share)}"
    if source.kind == "scored":
        place = f"{place}/scored/{source.name}"
    elif own != ((), None, None, None, REFERENCE, ANY)[: len(own)]:
        place = f"{place}/arms/{source.name}"
    name = "matched" if math.isinf(t) else f"t-{_as_name(t)}"
    if _of_seeds(source, t):
        name = f"{name}-seed-{seed}"
    return folder.address(f"{place}/{name}")


def _of_seeds(source: Arm, t: float) -> bool:
    """Whether a curation run differs by seed: in its draws, or in the pairs that it is of."""
    return not math.isinf(t) or source.pool_fraction < 1 or source.kind == "scored"


def _as_name(value: float) -> str:
    """A number within a path; two numbers never have the same."""
    return repr(float(value)).removesuffix(".0")


def _smaller_pool(share: float, seed: int) -> str:
    """Where a share of the pool is, below the experiment's folder."""
    return f"pools/{_as_name(share)}/seed-{seed}"


def _subset(arm: Arm, seed: int) -> str:
    """Where the pairs of a scored arm are, below the experiment's folder."""
    return f"subsets/{arm.name}/seed-{seed}"


def _curate(
    config: ExperimentConfig, run: Run, workers: int, arms: Sequence[Arm], scored: Scored
) -> Sizes:
    """Curate for every one of some arms and every seed; returns the pairs that each has."""
    pool, folder = config.pool, run.folder
    sizes: Sizes = {}

    def out(name: str) -> Out:
        return Out(folder.address(name), workers, run.overwrite)

    def curated(arm: Arm, t: float, seed: int = 0) -> DataCard:
        of = _source(config, arm)
        # Without a draw all seeds, also those of other times, share a run.
        seed = seed if _of_seeds(of, t) else 0
        paths = list(of.paths or pool.paths)
        if of.kind == "scored":
            paths = [out(_subset(of, seed)).pairs]
        elif of.pool_fraction < 1:
            paths = [out(_smaller_pool(of.pool_fraction, seed)).pairs]
        with quiet():
            return curate(
                paths, of.metadata or pool.metadata, _curation(folder, of, t, seed),
                t=t, seed=seed, rule=of.rule,
                p_rule=None if math.isinf(t) else of.p_rule,
                reference=REFERENCE if math.isinf(t) else of.reference,
                choose_text=ANY if math.isinf(t) else of.choose_text,
                pool_config=pool_config(pool),
                report=False, workers=workers, show_progress=False,
            ).card  # fmt: skip

    def choose(arm: Arm, seed: int) -> int:
        """Write the pairs of a scored arm; how many are trained on."""
        paths = (scored[seed],) if arm.score == SCORE and scored else pool.paths
        size = sizes[arm.like, seed] if arm.like is not None else None
        with quiet():
            pairs = write_subset(pool, paths, arm, size, out(_subset(arm, seed)))
        return pairs if arm.t is None else curated(arm, arm.t, seed)["kept"]["pairs"]

    for share in sorted({arm.pool_fraction for arm in arms} - {1.0}):
        for seed in config.seeds:
            with quiet():
                write_share(pool, share, seed, out(_smaller_pool(share, seed)))
    with meter("curate", len(arms), "pairs", parts="arms", show=run.show_progress) as bar:
        for arm in arms:
            of_seeds = _of_seeds(_source(config, arm), math.inf)
            for seed in config.seeds:
                unbalanced = arm.online or arm.kind in ("raw", "matched", "random")
                if unbalanced and (of_seeds or seed == config.seeds[0]):
                    matched = curated(arm, math.inf, seed)
                if arm.kind == "raw":
                    sizes[arm.name, seed] = matched["pool"]["pairs"]
                elif arm.kind == "matched":
                    sizes[arm.name, seed] = matched["kept"]["pairs"]
                elif arm.kind == "balanced":
                    assert arm.t is not None
                    sizes[arm.name, seed] = curated(arm, arm.t, seed)["kept"]["pairs"]
            bar.advance()
    for arm in arms:
        for seed in config.seeds:
            if arm.kind == "scored":
                sizes[arm.name, seed] = choose(arm, seed)
            elif arm.like is not None:
                matching = _matched(config, folder, arm, seed)
                sizes[arm.name, seed] = min(sizes[arm.like, seed], matching)
    return sizes


def _matched(config: ExperimentConfig, folder: Folder, arm: Arm, seed: int) -> int:
    """How many pairs an arm's curation keeps without balancing."""
    place = Folder(_curation(folder, _source(config, arm), math.inf, seed))
    return int(place.read_json("datacard.json")["kept"]["pairs"])


def _task(config: ExperimentConfig, folder: Folder, arm: Arm, seed: int, sizes: Sizes) -> RunTask:
    pairs = sizes[arm.name, seed]
    if arm.kind != "random":
        return RunTask(config, folder, arm, seed, 1.0, pairs)
    return RunTask(config, folder, arm, seed, pairs / _matched(config, folder, arm, seed), pairs)


def train_config(task: RunTask) -> TrainConfig:
    """The training configuration of a run."""
    config, arm, pool = task.config, task.arm, task.config.pool

    def written(name: str) -> tuple[str, ...]:
        return (f"{pairs_in(task.folder.address(name))}/*.parquet",)

    data = DataSection(
        shards=arm.paths or pool.paths,
        selection="all",
        fraction=task.fraction,
        captions=arm.captions,
        caption_cols=caption_columns(config, arm.captions),
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
    if arm.kind == "scored" and arm.t is None:
        data = replace(data, shards=written(_subset(arm, task.seed)))
    elif arm.kind == "raw" and arm.pool_fraction < 1:
        data = replace(data, shards=written(_smaller_pool(arm.pool_fraction, task.seed)))
    elif arm.kind != "raw":
        source = _source(config, arm)
        t = arm.t if arm.t is not None and not arm.online else math.inf
        curation = Folder(_curation(task.folder, source, t, task.seed))
        data = replace(data, shards=(curation.address("curated/*.parquet"),), selection="curated")
        if arm.online:
            assert arm.t is not None
            balanced = _curation(task.folder, source, arm.t, task.seed)
            data = replace(data, selection="online", run=balanced)
    train = config.train
    steps = -(-train.seen_pairs // train.global_batch)
    seen_pairs, batch = train.seen_pairs, train.global_batch
    if arm.scale != 1:
        part = math.lcm(train.streams, train.accumulate)
        batch = max(round(batch * arm.scale / part), 1) * part
        seen_pairs = steps * batch
    return TrainConfig(
        model=config.model,
        data=data,
        seen_pairs=seen_pairs,
        global_batch=batch,
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


def _train(task: RunTask) -> TrainTotals:
    from metacurate.training.trainer import train

    return train(train_config(task), task.folder.address(task.name), show_progress=False)


def run_arm(task: RunTask) -> dict[str, Any]:
    """Train and evaluate one arm with one seed; goes on where an earlier try stopped."""
    out = task.folder.address(task.name)
    totals = _train(task)
    settings = asdict(task.config.evaluation)
    settings |= {"files": task.evaluation, "weights": weights_of(Folder(out))}
    with open_run(out, workers=1) as run:
        run_stage(
            run, EVALUATION, settings, [task], _evaluate, unit="images", parts="models",
            replace=True,
        )  # fmt: skip
        result = run.folder.read_json(EVALUATION_FILE)
    return {
        "arm": task.arm.name,
        "seed": task.seed,
        "pairs": task.pairs,
        "seen_pairs": totals["seen_pairs"],
        "loss": totals["loss"],
        "chance": result["chance"],
        "scores": _scores(result),
    }


def _evaluate(task: RunTask) -> Statistics:
    from metacurate.evaluation.evaluate import evaluate
    from metacurate.evaluation.zero_shot import load_model

    with needs("train"):
        import torch

    if task.config.train.threads is not None:
        torch.set_num_threads(task.config.train.threads)
    out = task.folder.address(task.name)
    section, model = task.config.evaluation, load_model(out)

    def evaluated(names: str | None, groups: str | None = None) -> dict[str, Any]:
        return evaluate(
            model, section.data, task="classification", class_names=names,
            templates=section.templates, groups=groups,
        )  # fmt: skip

    result = evaluated(section.class_names, section.groups)
    if section.languages:
        result["languages"] = {
            language: evaluated(names) for language, names in section.languages.items()
        }
    if section.more:
        result["more"] = {
            name: evaluate(model, data, task="classification")
            for name, data in section.more.items()
        }
    Folder(out).write_json(EVALUATION_FILE, result)
    return {"images": result["images"]}


def _scores(result: dict[str, Any]) -> dict[str, float]:
    """The values of an evaluation by name: top1, top5, mean_per_class, and those of groups.

    With further languages also those of each (``zh top1``), and their mean (``languages top1``);
    with further data sets those of each (``NAME top1``).
    """
    from metacurate.evaluation.evaluate import estimates

    def values(of: dict[str, Any]) -> dict[str, float]:
        return {name: float(estimate["value"]) for name, estimate in estimates(of)}

    own = {name: of for name, of in result.items() if name not in ("languages", "more")}
    found = values(own)
    by_language = {name: values(of) for name, of in result.get("languages", {}).items()}
    if by_language:
        common = set.intersection(*(set(of) for of in by_language.values()))
        for name in sorted(common):
            found[f"{MEAN_OF_LANGUAGES} {name}"] = fmean(of[name] for of in by_language.values())
    by_data = {name: values(of) for name, of in result.get("more", {}).items()}
    for language, of in (by_language | by_data).items():
        found |= {f"{language} {name}": value for name, value in of.items()}
    return found
