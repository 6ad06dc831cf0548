"""open_clip: its import, its models (also those of a user's own sizes) and its tokenizers."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from types import ModuleType
from typing import Any

from metacurate.errors import UserError, first_line
from metacurate.needs import MissingPackageError, needs, needs_package
from metacurate.runtime.scratch import scratch_folder
from metacurate.training.bpe import bound

MODEL_KEYS = ("embed_dim", "vision_cfg", "text_cfg")
# torchvision registers shape functions for these two operators as it is imported, which fails if
# its compiled part did not load (its PyPI build beside a CPU build of torch). CLIP uses neither.
TORCHVISION_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[Any] = []  # torch drops an operator with the Library that declared it


@lru_cache(maxsize=1)
def open_clip() -> ModuleType:
    """The module ``open_clip``; UserError naming the extra if it or torch is not installed."""
    with needs("train"):
        import torch

        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            if "torchvision::nms" not in str(error):
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in TORCHVISION_OPERATORS:
                library.define(operator)
            _declared.append(library)
        import open_clip as module
    return module


@dataclass(frozen=True)
class ModelConfig:
    """A model: open_clip's name for it, or a name of one's own with a configuration.

    ``config`` is what open_clip's model files hold (``embed_dim``, ``vision_cfg``, ``text_cfg``).
    """

    name: str
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.config and not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise UserError(
                f"a model's name may have letters, digits, . _ and -, not {self.name!r}"
            )
        missing = [key for key in MODEL_KEYS if key not in self.config]
        if self.config and missing:
            raise UserError(f"config of the model {self.name!r} lacks {', '.join(missing)}")


def register(model: ModelConfig) -> None:
    """Make a model of one's own known to open_clip; UserError if there is no such model."""
    clip = open_clip()
    if model.config:
        if clip.get_model_config(model.name) == model.config:
            return
        if model.name in clip.list_models() and not _is_registered(model):
            raise UserError(f"open_clip has a model {model.name!r} already; choose another name")
        with scratch_folder() as scratch:
            path = scratch / f"{model.name}.json"
            path.write_text(json.dumps(model.config))
            clip.add_model_config(path)
            _registered.add(model.name)
    elif clip.get_model_config(model.name) is None:
        raise UserError(
            f"open_clip has no model {model.name!r}; see open_clip.list_models(), "
            "or give its sizes in [model.config]"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings by ``logging``: open_clip warns that a new model has no trained weights."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


def create_model(model: ModelConfig, device: Any) -> Any:
    """A registered model with random weights; UserError if its sizes do not fit one another."""
    clip = open_clip()
    try:
        with quiet():
            created = clip.create_model(model.name, device=device, output_dict=True)
    except Exception as error:  # each layer has its own way to refuse a size
        raise UserError(f"the model {model.name!r} cannot be built: {first_line(error)}") from None
    if not isinstance(created, clip.CLIP | clip.CustomTextCLIP):
        raise UserError(
            f"{model.name!r} is a {type(created).__name__}; only CLIP models can be trained"
        )
    return created


def square_side(size: Any, name: str) -> int:
    """The side of a model's images; UserError if they are no squares, which training cuts."""
    sides = {*size} if isinstance(size, tuple | list) else {size}
    if len(sides) > 1:
        raise UserError(
            f"the model {name!r} takes images of {'x'.join(map(str, size))} pixels; only models of "
            "square images can be trained"
        )
    side: int = sides.pop()
    return side


def check_vocabulary(model: ModelConfig, tokens: Any) -> None:
    """UserError if a registered model has no vector of one of these tokens."""
    text = (open_clip().get_model_config(model.name) or {}).get("text_cfg") or {}
    size, highest = text.get("vocab_size"), int(tokens.max())
    if size is not None and not text.get("hf_model_name") and highest >= size:
        raise UserError(
            f"the model {model.name!r} has vocab_size = {size}, and its tokenizer gives ids up to "
            f"{highest} or more"
        )


_registered: set[str] = set()


def _is_registered(model: ModelConfig) -> bool:
    return model.name in _registered


@dataclass(frozen=True)
class OpenClipTokenizer:
    """A model's tokenizer; loaded where it is first used, so that workers can be given it."""

    model: ModelConfig

    def __call__(self, texts: Sequence[str]) -> Any:
        return _tokenizer(self.model.name, json.dumps(self.model.config))(list(texts))


@lru_cache(maxsize=4)
def _tokenizer(name: str, config: str) -> Any:
    register(ModelConfig(name, json.loads(config)))
    known = open_clip().get_model_config(name) or {}
    text = known.get("text_cfg") or {}
    if (text.get("tokenizer_kwargs") or {}).get("reduction_mask"):
        raise UserError(
            f"the tokenizer of {name} draws the tokens of long texts at random (reduction_mask), "
            "other ones in each run; leave reduction_mask out"
        )
    # A configuration from elsewhere may ask transformers to run code beside the tokenizer.
    other = text.get("hf_tokenizer_name")
    options = {}
    if other:
        options = {"trust_remote_code": False, "local_files_only": os.path.isdir(other)}
    try:
        with needs_package("transformers", f"the tokenizer of {name}"):
            found = open_clip().get_tokenizer(name, **options)
        found(["a text"])  # what it lacks is told now, not in the middle of a run
    except MissingPackageError:
        raise
    except Exception as error:  # a package that is not installed, a file that cannot be fetched
        raise UserError(f"the tokenizer of {name} cannot be loaded: {first_line(error)}") from None
    if isinstance(found, open_clip().SimpleTokenizer):
        bound(found)
    return found
