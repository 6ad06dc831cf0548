"""What an experiment compares: its arms, pool, budget and evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from metacurate.curation.matching.spacing import check_rule
from metacurate.curation.settings import P_RULES, REFERENCE, SAME, check_choice
from metacurate.errors import UserError
from metacurate.runtime.inputs import read_toml
from metacurate.training.config import OptimizerSection
from metacurate.training.openclip import ModelConfig

KINDS = ("raw", "matched", "random", "balanced")


@dataclass(frozen=True)
class Arm:
    """A way to choose pairs; ``t`` for balanced arms, ``like`` (another arm) for random ones.

    ``paths`` and ``metadata``: instead of the pool's; ``rule``, ``p_rule``, ``reference``: as of
    curation. ``scale``: seen pairs and global batch are so many times as large as those of
    ``[train]``, with as many steps (what Meta CLIP 2 does, arXiv 2507.22062, for data that more
    languages make larger); the batch is rounded to a multiple of the streams.
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
    scale: float = 1.0

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
        if (self.p_rule, self.reference) != (None, REFERENCE) and self.kind != "balanced":
            raise UserError(f"arm {self.name!r}: only balanced arms take p_rule and reference")
        if self.like is not None and (self.paths or self.metadata or self.rule):
            raise UserError(
                f"arm {self.name!r}: a random arm has the pairs of the arm that it is like, and no "
                "paths, metadata or rule of its own"
            )
        if self.rule is not None:
            check_rule(self.rule)
        if self.p_rule is not None:
            check_choice("p_rule", self.p_rule, (*P_RULES, SAME))
        if not 0 < self.scale < math.inf:
            raise UserError(f"arm {self.name!r}: scale must be positive, not {self.scale:g}")


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
    lang_col: str | None = None
    image_col: str | None = None
    image_root: str | None = None


@dataclass(frozen=True)
class EvaluationSection:
    """``[evaluation]``: a data set for zero-shot classification, as for ``metacurate eval``.

    ``languages``: files of the same classes' names in other languages, by language; each is
    evaluated too, with the same templates.
    """

    data: str
    class_names: str | None = None
    templates: str | None = None
    groups: str | None = None
    languages: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for language, names in self.languages.items():
            if not isinstance(names, str):
                raise UserError(f"languages: {language} must be a file of class names")


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
    from metacurate.training.config import from_table

    return from_table(ExperimentConfig, read_toml(path), path)
