"""Checkpoints that travel: to open_clip's layout of the hub, or to transformers.

``open_clip``: ``open_clip_config.json`` and ``open_clip_model.safetensors``, which open_clip loads
as ``local-dir:DIR``, or as ``hf-hub:ORG/NAME`` once they are there. ``transformers``:
``config.json``, ``model.safetensors``, the tokenizer and ``preprocessor_config.json`` of a
``CLIPModel``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import xxhash

from metacurate.curation.settings import check_choice
from metacurate.errors import UserError
from metacurate.needs import needs
from metacurate.runtime.manifest import Stage, begin, finish
from metacurate.runtime.run import open_run
from metacurate.runtime.stage import do_again
from metacurate.runtime.storage import recorded
from metacurate.training.checkpoints import (
    IMAGE_CONFIG,
    INTERPOLATIONS,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    TRANSFORMERS_CONFIG,
    TRANSFORMERS_WEIGHTS,
    Checkpoint,
    clip_vocabulary,
    load_checkpoint,
)
from metacurate.training.named import (
    MERGES_FILE,
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    VOCABULARY_FILE,
    local_folder,
)
from metacurate.training.openclip import open_clip
from metacurate.training.transformers_clip import (
    to_transformers_config,
    to_transformers_weights,
)

with needs("train"):
    import torch

FORMATS = ("open_clip", "transformers")
EXPORT = Stage(
    "export",
    (
        OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, TRANSFORMERS_CONFIG, TRANSFORMERS_WEIGHTS,
        IMAGE_CONFIG, *TOKENIZER_FILES,
    ),
)  # fmt: skip


Content = bytes | Mapping[str, torch.Tensor]
"""Of a file: its bytes, or the weights that a file of safetensors holds."""
# The types of numbers that a file of safetensors has, in the order in which it has them.
_TYPES = {
    torch.int64: "I64", torch.float64: "F64", torch.float32: "F32", torch.int32: "I32",
    torch.bfloat16: "BF16", torch.float16: "F16", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class ExportTotals(TypedDict):
    """``parameters``: numbers in the weights; ``files``: what was written."""

    format: str
    parameters: int
    files: list[str]


def export(
    checkpoint: str, out: str, *, to: str, model: str | None = None, overwrite: bool = False
) -> ExportTotals:
    """Write a checkpoint as ``to`` has it; ``checkpoint`` and ``model``: as of ``load_checkpoint``.

    Raises UserError if the checkpoint cannot be loaded, or has no such form.
    """
    check_choice("to", to, FORMATS)
    inputs = [checkpoint] if Path(checkpoint).exists() else []
    with open_run(out, inputs=inputs, workers=1, overwrite=overwrite) as run:
        loaded = load_checkpoint(checkpoint, model, "cpu")
        weights = loaded.model.state_dict()
        files = _open_clip_files(loaded, weights) if to == FORMATS[0] else _transformers_files(
            loaded, weights
        )  # fmt: skip
        settings = {
            "to": to,
            "files": {name: _digest(_pieces(files[name])) for name in sorted(files)},
        }

        def work() -> ExportTotals:
            done = begin(run.folder, EXPORT, settings, overwrite=overwrite)
            if done is not None:
                return cast(ExportTotals, done)
            with recorded() as written:
                for name, content in files.items():
                    with run.folder.create(name) as file:
                        for piece in _pieces(content):
                            file.write(piece)
            totals: ExportTotals = {
                "format": to,
                "parameters": sum(value.numel() for value in weights.values()),
                "files": sorted(files),
            }
            names = {run.folder.name_of(address): facts for address, facts in written.items()}
            found = {name: facts for name, facts in names.items() if name in files}
            finish(run.folder, EXPORT, dict(totals), files=cast(Any, found))
            return totals

        return do_again(run, [EXPORT], work)


def _digest(pieces: Iterable[bytes | memoryview]) -> str:
    digest = xxhash.xxh3_128()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _pieces(content: Content) -> Iterator[bytes | memoryview]:
    """The bytes of a file, one after the other: weights are nowhere in memory a second time.

    As safetensors' ``save`` has them, which makes one piece of all; its ``save_file`` puts a file
    of its own in place of the one that is being written, readable by its owner only.
    """
    if isinstance(content, bytes):
        yield content
        return
    ranks = {kind: rank for rank, kind in enumerate(_TYPES)}
    ordered = sorted(content.items(), key=lambda item: (ranks[item[1].dtype], item[0]))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in ordered:
        start, end = end, end + value.nbytes
        header[name] = {
            "dtype": _TYPES[value.dtype], "shape": [*value.shape], "data_offsets": [start, end]
        }  # fmt: skip
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, value in ordered:
        yield value.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _text(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _images(loaded: Checkpoint) -> dict[str, Any]:
    """How the model's images are prepared, as open_clip says it."""
    found: dict[str, Any] = open_clip().get_model_preprocess_cfg(loaded.model)
    return found


def _open_clip_files(loaded: Checkpoint, weights: Mapping[str, torch.Tensor]) -> dict[str, Content]:
    config = copy.deepcopy(loaded.config.config)
    said = _images(loaded)
    images = {k: said[k] for k in ("mean", "std", "interpolation", "resize_mode") if k in said}
    text = config["text_cfg"]
    files: dict[str, Content] = {}
    if text.get("hf_model_name"):
        raise UserError(
            f"its text tower is {text['hf_model_name']} of transformers, which does not travel"
        )
    if name := text.get("hf_tokenizer_name"):
        files |= _tokenizer_files(name)
        text["hf_tokenizer_name"] = "."  # the folder itself: not where it lay here
    files[OPEN_CLIP_CONFIG] = _text({"model_cfg": config, "preprocess_cfg": images})
    files[OPEN_CLIP_WEIGHTS] = weights
    return files


def _tokenizer_files(name: str) -> dict[str, bytes]:
    """The files of a tokenizer of one's own."""
    folder = local_folder("tokenizer", name, TOKENIZER_FILES)
    return {n: (folder / n).read_bytes() for n in TOKENIZER_FILES if (folder / n).is_file()}


def _transformers_files(
    loaded: Checkpoint, weights: Mapping[str, torch.Tensor]
) -> dict[str, Content]:
    model = loaded.config.config
    if model["text_cfg"].get("hf_tokenizer_name"):
        raise UserError(
            f"its tokenizer is {model['text_cfg']['hf_tokenizer_name']}: a CLIPModel of "
            "transformers has CLIP's own; export it to open_clip"
        )
    config = to_transformers_config(model, float(weights["logit_scale"]))
    length = config["text_config"]["max_position_embeddings"]
    tokenizer = open_clip().SimpleTokenizer()
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    end = "<|endoftext|>"
    return {
        TRANSFORMERS_CONFIG: _text(config),
        TRANSFORMERS_WEIGHTS: to_transformers_weights(weights, model),
        IMAGE_CONFIG: _text(_image_config(_images(loaded), config["vision_config"]["image_size"])),
        VOCABULARY_FILE: json.dumps(clip_vocabulary(), ensure_ascii=False).encode(),
        MERGES_FILE: ("\n".join(lines) + "\n").encode(),
        TOKENIZER_CONFIG: _text(
            {
                "tokenizer_class": "CLIPTokenizer", "model_max_length": length,
                "bos_token": "<|startoftext|>", "eos_token": end, "unk_token": end,
                "pad_token": end, "do_lower_case": True, "errors": "replace",
            }
        ),
    }  # fmt: skip


def _image_config(images: Mapping[str, Any], size: int) -> dict[str, Any]:
    interpolation = images.get("interpolation", "bicubic")
    mode = images.get("resize_mode", "shortest")
    square = {"height": size, "width": size}
    if interpolation not in INTERPOLATIONS or mode not in ("shortest", "squash"):
        raise UserError(
            f"its images are resized by {interpolation!r} and {mode!r}, which a CLIPImageProcessor "
            "of transformers does not do"
        )
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": size} if mode == "shortest" else square,
        "resample": INTERPOLATIONS[interpolation],
        "do_center_crop": True,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(images["mean"]),
        "image_std": list(images["std"]),
    }
