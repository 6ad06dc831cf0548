"""Loading CLIP checkpoints, of whatever kind: the one way for evaluation and export.

A checkpoint is a folder of ``metacurate train``, a folder in open_clip's layout of the hub
(``open_clip_config.json``), a folder of a ``CLIPModel`` of transformers (``config.json``), a file
of weights, or the tag of weights that open_clip knows. What is read is data: no code in it is run,
and nothing that it names is fetched.
"""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from metacurate.arguments import shown
from metacurate.errors import ArgumentError, UserError, first_line
from metacurate.needs import needs
from metacurate.training.named import (
    MODEL_CONFIG,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    localized,
    offline,
)
from metacurate.training.openclip import ModelConfig, open_clip, quiet, register
from metacurate.training.transformers_clip import (
    VOCABULARY,
    to_open_clip_config,
    to_open_clip_weights,
)

with needs("train"):
    import torch
    import torch.utils.serialization
    from safetensors.torch import load_file

RUN_CONFIG, RUN_WEIGHTS = "model.json", "final.pt"
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
TRANSFORMERS_CONFIG = MODEL_CONFIG
TRANSFORMERS_WEIGHTS = "model.safetensors"
IMAGE_CONFIG = "preprocessor_config.json"
PROCESSOR_CONFIG = "processor_config.json"  # of newer releases, with the former in it
WEIGHTS = {
    RUN_CONFIG: (RUN_WEIGHTS,),
    OPEN_CLIP_CONFIG: (OPEN_CLIP_WEIGHTS, "open_clip_pytorch_model.bin"),
    TRANSFORMERS_CONFIG: (TRANSFORMERS_WEIGHTS, "pytorch_model.bin"),
}
"""Files of weights by the file that says which folder it is; the first that is there is read."""
STEPS = ("do_resize", "do_rescale", "do_normalize")
"""Of a CLIPImageProcessor, that open_clip always takes."""
# Pillow's numbers of the ways to interpolate.
INTERPOLATIONS = {"bilinear": 2, "bicubic": 3}
RESIZE = ("shortest", "longest", "squash")
# open_clip's names of what its configuration of images calls otherwise.
IMAGE_OPTIONS = {
    "mean": "image_mean", "std": "image_std", "interpolation": "image_interpolation",
    "resize_mode": "image_resize_mode",
}  # fmt: skip


_LAYER_BYTES = 500
"""Of a transformer's layer in a file of weights: the names and places of its twelve tensors."""


@dataclass(frozen=True)
class Checkpoint:
    """A model with its weights, in evaluation mode; ``preprocess``: an image to float32[3, h, w].

    ``config``: as open_clip's model files have it, with ``config.config`` filled in.
    """

    model: Any
    preprocess: Any
    config: ModelConfig


@dataclass(frozen=True)
class _Found:
    """Where a checkpoint's weights are, and of what model; ``image``: open_clip's options."""

    config: ModelConfig
    weights: str
    image: Mapping[str, Any] = field(default_factory=dict)
    of_transformers: bool = False


def load_checkpoint(checkpoint: str, model: str | None, device: Any) -> Checkpoint:
    """Load a checkpoint; ``model``: open_clip's name of the architecture, for files and tags.

    Raises UserError if there is none, or if it does not fit the model.
    """
    clip = open_clip()
    found = _find(checkpoint, model)
    config = found.config
    register(config)
    weights = None if found.of_transformers else found.weights
    try:
        with ExitStack() as stack:
            stack.enter_context(_mapped(found.weights))
            if found.of_transformers:
                stack.enter_context(quiet())
            if config.config:  # of a folder, and not open_clip's own that the user named
                stack.enter_context(offline())
            loaded, _, preprocess = clip.create_model_and_transforms(
                config.name, pretrained=weights, device=device, **found.image
            )
            if found.of_transformers:
                own = to_open_clip_weights(_weights(found.weights), config.config)
                loaded.load_state_dict(own)
    except UserError as error:
        raise UserError(f"{checkpoint}: {error}") from None
    except Exception as error:  # a file that is no checkpoint can make torch raise anything
        first = first_line(error)
        # torch's advice is to run the code in the file.
        if "weights_only" in first or "Weights only" in first:
            first = "it is no file of weights alone"
        is_here = Path(checkpoint).exists()
        advice = "" if is_here else "; give a local file if the weights cannot be fetched"
        raise UserError(
            f"{checkpoint} cannot be loaded as {config.name}: {first}{advice}"
        ) from None
    known = ModelConfig(config.name, config.config or clip.get_model_config(config.name))
    return Checkpoint(loaded.eval(), preprocess, known)


def _find(checkpoint: str, model: str | None) -> _Found:
    path = Path(checkpoint)
    if path.is_dir():
        return _in_folder(path)
    if model is None and not path.is_file():
        raise ArgumentError(
            "there is no folder or file {checkpoint}; for a tag of open_clip's published weights "
            "give {model} too",
            checkpoint=checkpoint,
        )
    if model is None:
        raise ArgumentError(
            "give {model} with {checkpoint}: open_clip's name of the architecture "
            "(ViT-B-32-quickgelu, for example)",
            checkpoint=checkpoint,
        )
    config = ModelConfig(model)
    register(config)
    tags = open_clip().list_pretrained_tags_by_model(config.name)
    if not path.is_file() and checkpoint not in tags:
        raise UserError(
            f"{checkpoint} is neither a file, a folder of a finished training run, nor weights "
            f"that open_clip knows for {config.name} ({', '.join(tags) or 'none'})"
        )
    # As a path: of a file that is called as a tag is, open_clip would load the tag's weights.
    return _Found(config, str(path.absolute()) if path.is_file() else checkpoint)


def _in_folder(folder: Path) -> _Found:
    kind = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if kind is None:
        raise UserError(
            f"{folder} holds no finished training run ({RUN_WEIGHTS} and {RUN_CONFIG}), no "
            f"{OPEN_CLIP_CONFIG} and no {TRANSFORMERS_CONFIG}"
        )
    weights = next((name for name in WEIGHTS[kind] if (folder / name).is_file()), None)
    if weights is None:
        raise UserError(f"{folder} has no weights, or not yet ({' or '.join(WEIGHTS[kind])})")
    said = _json(folder / kind)
    try:
        if kind == RUN_CONFIG:
            return _found(said, folder / weights)
        if kind == TRANSFORMERS_CONFIG:
            own = to_open_clip_config(said)
            _check_vocabulary(folder, own["text_cfg"]["vocab_size"])
            images = _image(folder, own["vision_cfg"]["image_size"])
            return _found(own, folder / weights, images, of_transformers=True)
        config, image = said.get("model_cfg"), said.get("preprocess_cfg") or {}
        if not isinstance(config, dict) or not isinstance(config.get("text_cfg"), dict):
            raise UserError(f"{kind} has no model_cfg")
        if config["text_cfg"].get("hf_tokenizer_name"):  # as open_clip does: it is in the folder
            config["text_cfg"]["hf_tokenizer_name"] = str(folder.resolve())
        options = {IMAGE_OPTIONS[k]: v for k, v in image.items() if k in IMAGE_OPTIONS}
        _check_image(options)
        if options.get("image_resize_mode") == "longest" and image.get("fill_color"):
            raise UserError(f"fill_color = {shown(image['fill_color'])}: only 0 is known")
        return _found(config, folder / weights, options)
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{folder / kind} cannot be read ({first_line(error)})") from None
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def _found(
    config: dict[str, Any],
    weights: Path,
    image: Mapping[str, Any] | None = None,
    *,
    of_transformers: bool = False,
) -> _Found:
    """A model under a name of its own: a folder's weights go with the folder's sizes.

    UserError if the file of weights is too small for these: building a model of any size that a
    file states would take all memory, or without end.
    """
    if not config:
        raise UserError("it has no sizes of a model")
    config = localized(config)
    content = json.dumps(config, sort_keys=True).encode()
    named = ModelConfig(f"metacurate-{zlib.crc32(content):08x}", config)
    least, size = _least_bytes(config), weights.stat().st_size
    if least > size:
        raise UserError(
            f"the model that it describes has more weights than {weights.name} of {size:,} bytes"
        )
    return _Found(named, str(weights), image or {}, of_transformers)


def _least_bytes(config: Mapping[str, Any]) -> int:
    """The bytes that the weights of a model have at least, at a byte a number.

    Of towers that timm or transformers builds, and of sizes that are no whole numbers: 0.
    """
    least = 0
    for tower, built in (("vision_cfg", "timm_model_name"), ("text_cfg", "hf_model_name")):
        said = config[tower]
        if said.get(built):
            continue
        # A ResNet has a list of layers, and may have two sides; its patches have 32 pixels.
        layers, sides = (_whole(said.get(name)) for name in ("layers", "image_size"))
        width, patch, length, words = (
            sum(_whole(said.get(name)))
            for name in ("width", "patch_size", "context_length", "vocab_size")
        )
        patches = min(sides, default=0) // (patch or 32) * (max(sides, default=0) // (patch or 32))
        least += sum(layers) * (_LAYER_BYTES + 4 * width**2)
        least += width * (patches + 3 * patch**2 + length + words)
    return least


def _whole(value: Any) -> list[int]:
    """The positive whole numbers of a value, or of a list of them."""
    values = value if isinstance(value, list) else [value]
    return [found for found in values if isinstance(found, int) and found > 0]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object")
    return value


@contextmanager
def _mapped(weights: str) -> Iterator[None]:
    """torch reads this file by mapping it: beside the model, its weights take no memory.

    It cannot map files of torch before 1.6.
    """
    with torch.utils.serialization.config.patch("load.mmap", zipfile.is_zipfile(weights)):
        yield


def _weights(path: str) -> dict[str, torch.Tensor]:
    """The tensors of a file, on the CPU."""
    if path.endswith(".safetensors"):
        found: dict[str, torch.Tensor] = load_file(path)
        return found
    loaded: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded


def _image(folder: Path, side: Any) -> dict[str, Any]:
    """How a folder of transformers prepares images for a model of that side, as open_clip's
    options; UserError if it is a way that open_clip has not."""
    said: dict[str, Any] = {}
    if (folder / IMAGE_CONFIG).is_file():
        said = _json(folder / IMAGE_CONFIG)
    elif (folder / PROCESSOR_CONFIG).is_file():
        said = _json(folder / PROCESSOR_CONFIG).get("image_processor") or {}
    found: dict[str, Any] = {n: said[n] for n in ("image_mean", "image_std") if n in said}
    if "resample" in said:
        names = {number: name for name, number in INTERPOLATIONS.items()}
        if said["resample"] not in names:
            raise UserError(f"images are resized by resample = {shown(said['resample'])}")
        found["image_interpolation"] = names[said["resample"]]
    found["image_resize_mode"] = _resize_mode(said, side)
    _check_image(found)
    return found


def _resize_mode(said: Mapping[str, Any], side: Any) -> str:
    """open_clip's name of how a processor of transformers makes images squares of that side.

    UserError for what open_clip does not do: other steps, or a size that is cropped further.
    """

    def given(name: str, otherwise: Any) -> Any:
        return otherwise if said.get(name) is None else said[name]

    for name in STEPS:
        if given(name, True) is not True:
            raise UserError(f"images are prepared with {name} = {shown(said[name])}")
    factor = given("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or not math.isclose(factor, 1 / 255, rel_tol=1e-3):
        raise UserError(f"images are prepared with rescale_factor = {shown(factor)}")
    size, crop = given("size", side), given("crop_size", side)
    square = {"height": side, "width": side}
    cropped = given("do_center_crop", True) is True
    if not cropped or crop in (side, square):
        if size == square:
            return "squash"
        if cropped and size in (side, {"shortest_edge": side}):
            return "shortest"
    raise UserError(
        f"images are resized to {shown(size)}"
        + (f" and cropped to {shown(crop)}" if cropped else "")
        + f", which open_clip does not do for a model of {shown(side)} pixels"
    )


def _check_image(options: Mapping[str, Any]) -> None:
    """UserError if open_clip cannot prepare images so."""
    for name, known in (("image_interpolation", INTERPOLATIONS), ("image_resize_mode", RESIZE)):
        if options.get(name) is not None and options[name] not in known:
            raise UserError(f"{name} = {shown(options[name])}: known are {', '.join(known)}")
    for name in ("image_mean", "image_std"):
        value = options.get(name)
        if value is not None and not _is_color(value, positive=name == "image_std"):
            positive = "positive " * (name == "image_std")
            raise UserError(f"{name} = {shown(value)}: it must be three {positive}numbers")


def _is_color(value: Any, *, positive: bool) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, int | float) and math.isfinite(v) for v in value)
        and not (positive and min(value) <= 0)
    )


def _check_vocabulary(folder: Path, size: int) -> None:
    """UserError unless a folder of transformers has CLIP's own vocabulary."""
    words: Any = None
    if (folder / VOCABULARY_FILE).is_file():
        words = _json(folder / VOCABULARY_FILE)
    elif (folder / TOKENIZER_FILE).is_file():
        words = (_json(folder / TOKENIZER_FILE).get("model") or {}).get("vocab")
    own = clip_vocabulary()
    if (words is None and size != VOCABULARY) or (words is not None and words != own):
        raise UserError("its tokenizer is not CLIP's: open_clip has none for it")


@lru_cache(maxsize=1)
def clip_vocabulary() -> dict[str, int]:
    """CLIP's tokens with their ids, as transformers writes them."""
    tokens = list(open_clip().SimpleTokenizer().encoder)
    tokens[-2:] = ["<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}
