"""The configuration of a training run, read from TOML; every key is checked."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from metacurate.analysis.read_counts import Numbered, in_order, read_file
from metacurate.curation.layout import BALANCE, finished_section, load_counts
from metacurate.curation.settings import ANY, TEXT_CHOICES, check_choice
from metacurate.curation.thresholds import run_thresholds
from metacurate.errors import UserError
from metacurate.metadata.store import load_metadata
from metacurate.runtime.inputs import read_toml
from metacurate.runtime.storage import Folder
from metacurate.training.openclip import ModelConfig
from metacurate.training.select import (
    AllTexts,
    Curated,
    DataConfig,
    Online,
    Selection,
    check_captions,
)
from metacurate.training.shards import ShardsConfig

Section = TypeVar("Section")

PRECISIONS = ("fp32", "amp_bf16")
SELECTIONS = ("curated", "online", "all")
MAX_THREADS = 1024
"""PyTorch ends the process if it gets none of so many."""


@dataclass(frozen=True)
class DataSection:
    """``[data]``: which pairs, and how they are read.

    ``selection``: "curated" (what curation kept), "online" (balanced again in every epoch: with the
    counts and thresholds of ``run``, the folder of a curation of the same pool, or with ``counts``,
    its counts.npy, or counts by name and the ``metadata`` of the run, and ``t``) or "all" (no
    curation). ``choose_text``: which of a pair's texts may
    keep it online, "any" or "one"; that of ``run`` if not given. ``captions``: shares of sources of
    captions; ``caption_cols``: those of them that are columns beside the texts.
    The rest: see ``metacurate.training.select.DataConfig`` and
    ``metacurate.training.shards.ShardsConfig``. ``workers``: loader processes a rank.
    """

    shards: tuple[str, ...]
    selection: str = "curated"
    counts: str | None = None
    metadata: str | None = None
    t: float | None = None
    run: str | None = None
    choose_text: str | None = None
    fraction: float = 1.0
    captions: dict[str, float] = field(default_factory=dict)
    caption_cols: tuple[str, ...] = ()
    url_col: str | None = None
    key_col: str | None = None
    text_cols: tuple[str, ...] = ()
    image_col: str | None = None
    image_root: str | None = None
    streams: int = 8
    shuffle_block: int = 1024
    crop_scale: tuple[float, float] = (0.9, 1.0)
    workers: int = 0
    prefetch: int = 4

    def __post_init__(self) -> None:
        if self.selection not in SELECTIONS:
            raise UserError(
                f"selection must be one of {', '.join(SELECTIONS)}, not {self.selection!r}"
            )
        both = self.counts is not None and self.t is not None
        neither = self.counts is None and self.t is None
        online = both if self.run is None else neither
        given = not neither or self.run is not None or self.choose_text is not None
        if not online if self.selection == "online" else given:
            raise UserError(
                "selection = 'online' needs run, or counts and t; no other takes them or "
                "choose_text"
            )
        if self.choose_text is not None:
            check_choice("choose_text", self.choose_text, TEXT_CHOICES)
        check_captions(self.captions, self.caption_cols)
        if self.t is not None and not self.t > 0:
            raise UserError(f"t must be positive, not {self.t:.15g}")
        if self.workers < 0:
            raise UserError(f"workers must be 0 or more, not {self.workers}")
        if self.prefetch < 1:
            raise UserError(f"prefetch must be positive, not {self.prefetch}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UserError("crop_scale must be two numbers in (0, 1], the smaller first")

    def load_selection(self) -> Selection:
        """The selection with its counts read."""
        if self.selection != "online":
            return Curated() if self.selection == "curated" else AllTexts()
        if self.run is not None:
            folder = Folder(self.run)
            chosen = finished_section(folder, BALANCE)["config"].get("choose_text", ANY)
            return Online(
                load_counts(folder), run_thresholds(folder).by_entry, self.choose_text or chosen
            )
        assert self.counts is not None
        assert self.t is not None
        found = read_file(self.counts)
        if self.metadata is not None:
            counts = in_order(found, load_metadata(self.metadata), self.counts)
        elif isinstance(found, Numbered) and found.whole and set(found.of) == {None}:
            counts = found.of[None]
        else:
            raise UserError(
                f"{self.counts} has counts by name: give metadata too (the run's metadata.parquet)"
            )
        return Online(counts, self.t, self.choose_text or ANY)


@dataclass(frozen=True)
class OptimizerSection:
    """``[optimizer]``: AdamW with linear warm-up and cosine decay to zero."""

    lr: float = 5e-4
    warmup_steps: int = 2000
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.2
    grad_clip_norm: float | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive, not {getattr(self, name):.15g}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must lie in [0, 1), not {getattr(self, name):.15g}")
        for name in ("warmup_steps", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} must be 0 or more, not {getattr(self, name):.15g}")
        if self.grad_clip_norm is not None and not self.grad_clip_norm > 0:
            raise UserError(f"grad_clip_norm must be positive, not {self.grad_clip_norm:.15g}")


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    ``seen_pairs``: the budget; ``global_batch``: pairs a step over all ranks; ``accumulate``: in
    how many parts a rank computes its share of a batch (the loss is that of the whole batch);
    ``precision``: "fp32" or "amp_bf16"; ``local_loss``: each rank computes its rows of the logits
    only (same gradients, less memory); ``max_logit_scale``: where exp(logit scale) is clamped.
    Steps between log lines and checkpoints; ``keep_checkpoints``: how many, the newest.
    """

    model: ModelConfig
    data: DataSection
    seen_pairs: int
    global_batch: int
    optimizer: OptimizerSection = OptimizerSection()
    seed: int = 0
    precision: str = "fp32"
    accumulate: int = 1
    grad_checkpointing: bool = False
    local_loss: bool = True
    max_logit_scale: float = 100.0
    threads: int | None = None
    log_every: int = 10
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    tensorboard: bool = True
    log_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(
                f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}"
            )
        for name in (
            "seen_pairs", "global_batch", "accumulate", "log_every", "checkpoint_every",
            "keep_checkpoints",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be positive, not {getattr(self, name)}")
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise UserError(f"threads must be from 1 to {MAX_THREADS}, not {self.threads}")
        if not self.max_logit_scale >= 1:
            raise UserError(f"max_logit_scale must be 1 or more, not {self.max_logit_scale:.15g}")
        self._check_streams()
        if self.global_batch % self.accumulate:
            raise UserError(
                f"global_batch ({self.global_batch}) must be a multiple of accumulate "
                f"({self.accumulate}), times the ranks if there are several"
            )
        if not 0 <= self.seed < 2**64:
            raise UserError(f"seed must lie between 0 and 2**64 - 1, not {self.seed}")

    def _check_streams(self) -> None:
        """Raise UserError if the batch and one rank's workers cannot share the streams evenly."""
        streams, workers = self.data.streams, max(self.data.workers, 1)
        if streams < 1 or self.global_batch % streams or streams % workers:
            raise UserError(
                f"streams ({streams}) must divide global_batch ({self.global_batch}) and be a "
                f"multiple of workers ({workers}), times the ranks if there are several"
            )

    @property
    def steps(self) -> int:
        """Steps of the run: as many whole batches as make at least ``seen_pairs``."""
        return -(-self.seen_pairs // self.global_batch)

    def data_config(self, image_size: int) -> DataConfig:
        """What the loader is given."""
        data = self.data
        return DataConfig(
            shards=ShardsConfig(
                data.shards, data.url_col, data.key_col, data.text_cols, data.image_col,
                data.image_root, data.caption_cols,
            ),
            selection=data.load_selection(),
            global_batch=self.global_batch,
            image_size=image_size,
            seed=self.seed,
            fraction=data.fraction,
            streams=data.streams,
            shuffle_block=data.shuffle_block,
            crop_scale=data.crop_scale,
            captions=data.captions,
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """What decides the weights, as plain values: the rest may change on resuming."""
        values = dataclasses.asdict(self)
        for name in (
            "threads", "log_every", "checkpoint_every", "keep_checkpoints", "tensorboard",
            "log_to",
        ):  # fmt: skip
            del values[name]
        for name in ("workers", "prefetch"):
            del values["data"][name]
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain


def load_train_config(path: str) -> TrainConfig:
    """Read a training configuration; UserError naming the key that is wrong."""
    return from_table(TrainConfig, read_toml(path), path)


def from_table(kind: type[Section], table: dict[str, Any], where: str) -> Section:
    """A dataclass from a TOML table: unknown and missing keys and wrong types are errors."""
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(table) - set(fields))
    if unknown:
        raise UserError(
            f"{where}: unknown key {unknown[0]!r}; known are {', '.join(sorted(fields))}"
        )
    missing = [
        name
        for name, f in fields.items()
        if name not in table
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where}: the key {missing[0]!r} is missing")
    values = {name: _value(value, hints[name], f"{where}: {name}") for name, value in table.items()}
    try:
        return kind(**values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _value(value: Any, kind: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (kind,) = (a for a in arguments if a is not type(None))
        return _value(value, kind, where)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a table")
        return from_table(kind, value, where)
    if origin is tuple:
        values = value if isinstance(value, list) else [value]
        if arguments[-1] is Ellipsis:
            return tuple(_value(v, arguments[0], where) for v in values)
        if len(values) != len(arguments):
            raise UserError(f"{where} must be a list of {len(arguments)} values")
        return tuple(_value(v, a, where) for v, a in zip(values, arguments, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a table")
        _check_free(value, where)
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # 12.8e9 is how one writes a large number of pairs, and TOML makes it a float.
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UserError(f"{where} must be of type {kind.__name__}, not {value!r}")
    if kind is int and not -(2**63) <= value < 2**64:
        raise UserError(f"{where} is out of range: {value}")
    return value


def _check_free(values: Any, where: str) -> None:
    """UserError for what TOML has and JSON has not (times, infinities), in a table of any keys."""
    if isinstance(values, dict):
        for name, value in values.items():
            _check_free(value, f"{where}.{name}")
    elif isinstance(values, list):
        for value in values:
            _check_free(value, where)
    elif not isinstance(values, str | int | float) or (
        isinstance(values, float) and not math.isfinite(values)
    ):
        raise UserError(f"{where} must be a number, a text, true or false, not {values}")
