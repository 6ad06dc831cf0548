"""What an experiment compares: its arms, pool, budget and evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from metacurate.curation.matching.spacing import check_rule
from metacurate.curation.settings import (
    ANY,
    P_RULES,
    REFERENCE,
    SAME,
    TEXT_CHOICES,
    check_choice,
)
from metacurate.errors import UserError
from metacurate.runtime.inputs import read_toml
from metacurate.training.config import OptimizerSection
from metacurate.training.openclip import ModelConfig
from metacurate.training.select import check_captions

KINDS = ("raw", "matched", "random", "balanced", "scored")
MEAN_OF_LANGUAGES = "languages"
"""What the names of the means over languages begin with, in the results."""
SCORE = "clip_score"
"""The column that an experiment's scorer writes."""
TAKEN_BY = {
    "t": ("balanced", "scored"),
    "online": ("balanced",),
    "like": ("random", "scored"),
    "paths": ("raw", "matched", "balanced"),
    "metadata": ("matched", "balanced", "scored"),
    "rule": ("matched", "balanced", "scored"),
    "p_rule": ("balanced",),
    "reference": ("balanced",),
    "choose_text": ("balanced",),
    "score": ("scored",),
    "share": ("scored",),
    "above": ("scored",),
    "pool_fraction": ("raw", "matched", "balanced"),
}
"""Which kinds of arms take a setting: for others it would do nothing. Those not named: all."""


@dataclass(frozen=True)
class Arm:
    """A way to choose pairs; ``t`` for balanced arms, ``like`` (another arm) for random ones.

    Scored arms have the pairs of the pool with the highest ``score`` (a column of numbers; the
    scorer's if not given): a ``share`` of those that have one, those from ``above`` on, or as many
    as the arm ``like``; with ``t`` these are then matched and balanced.
    ``paths`` and ``metadata``: instead of the pool's; ``rule``, ``p_rule``, ``reference``,
    ``choose_text``: as of curation. ``captions``: as in ``[data]`` of a training configuration.
    ``scale``: seen pairs and global batch are so many times as large as those of ``[train]``, with
    as many steps (what Meta CLIP 2 does, arXiv 2507.22062, for data that more languages make
    larger); the batch is rounded to a multiple of the streams and of ``accumulate``.
    ``pool_fraction``: the arm's pool is this share of the pool's pairs (see ``pools``): its counts
    are those of the smaller pool.
    """

    name: str
    kind: str
    t: float | None = None
    online: bool = False
    like: str | None = None
    paths: tuple[str, ...] = ()
    metadata: str | None = None
    rule: str | None = None
    p_rule: str | None = None
    reference: str = REFERENCE
    choose_text: str = ANY
    scale: float = 1.0
    score: str = SCORE
    share: float | None = None
    above: float | None = None
    captions: dict[str, float] = field(default_factory=dict)
    pool_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"an arm's kind must be one of {', '.join(KINDS)}, not {self.kind!r}")
        if not self.name or not all(c.isalnum() or c in "._-" for c in self.name):
            raise UserError(f"an arm's name may have letters, digits, . _ and -: {self.name!r}")
        if self.name in (".", ".."):  # its runs are in a folder of this name
            raise UserError(f"an arm cannot be named {self.name!r}")
        given = {f.name for f in fields(self) if getattr(self, f.name) not in (f.default, {})}
        for name in sorted(given & TAKEN_BY.keys()):
            if self.kind not in (kinds := TAKEN_BY[name]):
                *most, last = kinds
                who = f"{', '.join(most)} and {last}" if most else last
                raise UserError(f"arm {self.name!r}: only {who} arms take {name}")
        for kind, name in (("balanced", "t"), ("random", "like")):
            if self.kind == kind and name not in given:
                raise UserError(f"arm {self.name!r}: {kind} arms need {name}")
        if self.t is not None and not self.t > 0:
            raise UserError(f"arm {self.name!r}: t must be positive, not {self.t:.15g}")
        if self.kind == "scored":
            self._check_scored(given)
        if self.p_rule == SAME and "reference" in given:
            raise UserError(
                f"arm {self.name!r}: with p_rule = {SAME!r} no language is the reference"
            )
        if self.rule is not None:
            check_rule(self.rule)
        if self.p_rule is not None:
            check_choice("p_rule", self.p_rule, (*P_RULES, SAME))
        check_choice("choose_text", self.choose_text, TEXT_CHOICES)
        check_captions(self.captions, ())
        if not 0 < self.pool_fraction <= 1:
            raise UserError(
                f"arm {self.name!r}: pool_fraction must lie in (0, 1], not "
                f"{self.pool_fraction:.15g}"
            )
        if self.pool_fraction < 1 and self.paths:
            raise UserError(f"arm {self.name!r}: only arms without paths take pool_fraction")
        if not 0 < self.scale < math.inf:
            raise UserError(f"arm {self.name!r}: scale must be positive, not {self.scale:.15g}")

    def _check_scored(self, given: set[str]) -> None:
        if len(given & {"share", "above", "like"}) != 1:
            raise UserError(f"arm {self.name!r}: scored arms need one of share, above and like")
        if self.share is not None and not 0 < self.share <= 1:
            raise UserError(f"arm {self.name!r}: share must lie in (0, 1], not {self.share:.15g}")
        if self.above is not None and not math.isfinite(self.above):
            raise UserError(f"arm {self.name!r}: above must be a number, not {self.above:.15g}")
        for name in sorted(given & {"metadata", "rule"}):
            if self.t is None:
                raise UserError(f"arm {self.name!r}: scored arms without t take no {name}")


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
    """``[pool]``: the raw pool with its images, and the metadata.

    ``caption_cols``: columns with captions, for arms that name them in ``captions``.
    """

    paths: tuple[str, ...]
    metadata: str
    url_col: str | None = None
    key_col: str | None = None
    text_cols: tuple[str, ...] = ()
    lang_col: str | None = None
    image_col: str | None = None
    image_root: str | None = None
    caption_cols: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationSection:
    """``[evaluation]``: a data set for zero-shot classification, as for ``metacurate eval``.

    ``languages``: files of the same classes' names in other languages, by language; each is
    evaluated too, with the same templates. ``more``: further data sets, by name, each with the
    names and templates in its own folder.
    """

    data: str
    class_names: str | None = None
    templates: str | None = None
    groups: str | None = None
    languages: dict[str, str] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for language, names in self.languages.items():
            if not isinstance(names, str):
                raise UserError(f"languages: {language} must be a file of class names")
        for name, data in self.more.items():
            if not isinstance(data, str) or name in self.languages:
                raise UserError(f"more: {name} must be a data set's folder, and no language")
        self.check_groups(())

    def check_groups(self, groups: Iterable[str]) -> None:
        """UserError if results of two kinds would have one name: those of groups of classes, of
        languages, of further data sets, and the languages' mean."""
        others = {*self.languages, *self.more}
        for name in sorted(others & {*groups, MEAN_OF_LANGUAGES}):
            what = "the mean over languages" if name == MEAN_OF_LANGUAGES else "a group of classes"
            raise UserError(f"{name!r} is {what} in the results: give {name!r} another name")


@dataclass(frozen=True)
class ExperimentConfig:
    """An experiment; ``compare_to`` names the arm that the others are compared with.

    ``scorer``: what scored arms choose by: the name of an arm, whose model of the same seed scores
    the pool (raw, as LAION's and DFN's scorers were trained), or a model as of the scorer
    ``clip-score``. Not needed for scores that the pool has.
    """

    pool: PoolSection
    model: ModelConfig
    train: TrainSection
    evaluation: EvaluationSection
    arms: tuple[Arm, ...]
    compare_to: str
    seeds: tuple[int, ...] = (0, 1, 2)
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    scorer: str | None = None

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"there are two arms named {twice[0]!r}")
        for other in (self.compare_to, *(arm.like for arm in self.arms if arm.like)):
            if other not in names:
                raise UserError(f"there is no arm named {other!r}")
        for arm in self.arms:
            if arm.like is not None and self.arm(arm.like).like is not None:
                raise UserError(
                    f"arm {arm.name!r} cannot be like {arm.like!r}, which is like another one"
                )
            if arm.kind == "random" and self.arm(arm.like or "").kind == "scored":
                raise UserError(f"arm {arm.name!r}: a random arm cannot be like a scored one")
            if arm.kind == "scored" and arm.score == SCORE and self.scorer is None:
                raise UserError(
                    f"arm {arm.name!r} needs scores: set scorer, or score to a column of the pool"
                )
        if self.scorer in names and self.arm(self.scorer or "").kind in ("scored", "random"):
            raise UserError(f"the scorer {self.scorer!r} must be no scored and no random arm")
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise UserError("seeds must be different numbers, at least one")
        if self.scorer is not None and not any(
            arm.kind == "scored" and arm.score == SCORE for arm in self.arms
        ):
            raise UserError(f"scorer: no arm has its pairs by the scores of {self.scorer!r}")
        for name in self.pool.caption_cols:
            if not any(name in arm.captions for arm in self.arms):
                raise UserError(f"caption_cols: no arm has a share of {name!r} in its captions")

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)


def check_languages(config: ExperimentConfig, have_languages: Mapping[str, bool]) -> None:
    """UserError for settings that only metadata of several languages give a meaning.

    ``have_languages``: by arm, whether its metadata have several.
    """
    for arm in config.arms:
        for name, default in (("p_rule", None), ("reference", REFERENCE)):
            if getattr(arm, name) != default and not have_languages[arm.name]:
                raise UserError(
                    f"arm {arm.name!r}: {name} needs metadata of several languages; these are one "
                    "list"
                )
    if config.pool.lang_col is not None and not any(have_languages.values()):
        raise UserError("lang_col: no arm has metadata of several languages")


def load_experiment_config(path: str) -> ExperimentConfig:
    """Read an experiment's TOML file; UserError naming the key that is wrong."""
    from metacurate.training.config import from_table

    return from_table(ExperimentConfig, read_toml(path), path)
