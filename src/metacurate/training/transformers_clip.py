"""open_clip's CLIP and the ``CLIPModel`` of transformers: configurations and weights.

Both compute the same where a model is the plain one: a ViT whose class token is projected, and a
causal text transformer that is read at the end-of-text token. What is not (ResNets, timm models,
other text towers, other ways to pool) is refused: there is no ``CLIPModel`` of it.

transformers itself is not needed: its files are JSON and safetensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from metacurate.errors import UserError
from metacurate.needs import needs
from metacurate.training.openclip import open_clip

with needs("train"):
    import torch

Weights = dict[str, torch.Tensor]

START_OF_TEXT, END_OF_TEXT = 49406, 49407
VOCABULARY = 49408
LAYER_NORM_EPS = 1e-5
# Fields of open_clip's configurations that a CLIPModel has too, or that change no result.
PLAIN_VISION = {
    "layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "patch_dropout",
    "output_tokens",
}  # fmt: skip
PLAIN_TEXT = {
    "context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "output_tokens",
    "pad_id", "eos_id",
}  # fmt: skip
PLAIN_MODEL = {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text"}
# What a field of a transformers configuration is if the file leaves it out: the defaults of
# CLIPConfig, CLIPVisionConfig and CLIPTextConfig.
MODEL_DEFAULTS: dict[str, Any] = {"projection_dim": 512}
VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "num_channels": 3, "image_size": 224, "patch_size": 32,
    "hidden_act": "quick_gelu", "layer_norm_eps": LAYER_NORM_EPS,
}  # fmt: skip
TEXT_DEFAULTS: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 512, "intermediate_size": 2048,
    "num_hidden_layers": 12, "num_attention_heads": 8, "max_position_embeddings": 77,
    "hidden_act": "quick_gelu", "layer_norm_eps": LAYER_NORM_EPS, "eos_token_id": END_OF_TEXT,
}  # fmt: skip
LEGACY_END_OF_TEXT = 2
"""transformers reads a text at its highest id if the end-of-text id is said to be this one."""


def to_transformers_config(model: Mapping[str, Any], logit_scale: float) -> dict[str, Any]:
    """The ``config.json`` of an open_clip model; UserError if there is no ``CLIPModel`` of it."""
    clip = open_clip()
    vision, text = model["vision_cfg"], model["text_cfg"]
    if isinstance(vision.get("layers"), list | tuple):
        raise _not_plain("its image tower is a ResNet")
    for key in sorted(model.keys() - PLAIN_MODEL):
        raise _not_plain(f"{key} = {model[key]!r}")
    for section, plain, config in (
        (vision, PLAIN_VISION, clip.CLIPVisionCfg), (text, PLAIN_TEXT, clip.CLIPTextCfg),
    ):  # fmt: skip
        for field in dataclasses.fields(config):
            value = section.get(field.name, field.default)
            if field.name not in plain and value != field.default:
                raise _not_plain(f"{field.name} = {value!r}")
    vision = dataclasses.asdict(clip.CLIPVisionCfg(**vision))
    text = dataclasses.asdict(clip.CLIPTextCfg(**text))
    size = vision["image_size"]
    if not isinstance(size, int) and len({*size}) > 1:
        raise _not_plain(f"image_size = {size!r}")
    if text["vocab_size"] < VOCABULARY:
        raise _not_plain(f"vocab_size = {text['vocab_size']}, less than CLIP's {VOCABULARY}")
    common = {
        "hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "layer_norm_eps": LAYER_NORM_EPS,
        "projection_dim": model["embed_dim"],
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": model["embed_dim"],
        "logit_scale_init_value": logit_scale,
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": vision["width"],
            "intermediate_size": int(vision["width"] * vision["mlp_ratio"]),
            "num_hidden_layers": vision["layers"],
            "num_attention_heads": vision["width"] // vision["head_width"],
            "num_channels": 3,
            "image_size": size if isinstance(size, int) else size[0],
            "patch_size": vision["patch_size"],
            **common,
        },
        "text_config": {
            "model_type": "clip_text_model",
            "vocab_size": text["vocab_size"],
            "hidden_size": text["width"],
            "intermediate_size": int(text["width"] * text["mlp_ratio"]),
            "num_hidden_layers": text["layers"],
            "num_attention_heads": text["heads"],
            "max_position_embeddings": text["context_length"],
            "bos_token_id": START_OF_TEXT,
            "eos_token_id": END_OF_TEXT,
            "pad_token_id": END_OF_TEXT,
            **common,
        },
    }


def _not_plain(why: str) -> UserError:
    return UserError(f"this model cannot be a CLIPModel of transformers: {why}")


def to_open_clip_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip's configuration of the model of a ``config.json``; UserError if it has none."""
    if config.get("model_type") != "clip":
        raise UserError(
            f"config.json is of a model of type {config.get('model_type')!r}, not 'clip'"
        )
    vision = _section(config, "vision_config", VISION_DEFAULTS)
    text = _section(config, "text_config", TEXT_DEFAULTS)
    model = MODEL_DEFAULTS | dict(config)
    activations = {vision["hidden_act"], text["hidden_act"]}
    if len(activations) > 1 or not activations <= {"quick_gelu", "gelu"}:
        raise _not_open_clip(f"its activations are {', '.join(sorted(map(str, activations)))}")
    for name, section in (("vision", vision), ("text", text)):
        if section["layer_norm_eps"] != LAYER_NORM_EPS:
            raise _not_open_clip(f"{name} layer_norm_eps = {section['layer_norm_eps']!r}")
    if vision["num_channels"] != 3:
        raise _not_open_clip(f"it has {vision['num_channels']} channels")
    # open_clip reads a text at its highest id.
    if text["eos_token_id"] not in (LEGACY_END_OF_TEXT, text["vocab_size"] - 1, END_OF_TEXT):
        raise _not_open_clip(f"eos_token_id = {text['eos_token_id']!r} is not the highest id")
    return {
        "embed_dim": model["projection_dim"],
        "quick_gelu": activations == {"quick_gelu"},
        "vision_cfg": {
            "image_size": vision["image_size"],
            "layers": vision["num_hidden_layers"],
            "width": vision["hidden_size"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
            "mlp_ratio": _ratio(vision["hidden_size"], vision["intermediate_size"]),
            "patch_size": vision["patch_size"],
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
            "mlp_ratio": _ratio(text["hidden_size"], text["intermediate_size"]),
        },
    }


def _section(config: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """A tower's part of a ``config.json``.

    Older files have it twice (``text_config_dict``): what is said there, and its defaults, decides
    in transformers.
    """
    older = config.get(f"{name}_dict")
    over = {} if older is None else {**defaults, **older}
    return {**defaults, **(config.get(name) or {}), **over}


def _not_open_clip(why: str) -> UserError:
    return UserError(f"this model cannot be a model of open_clip: {why}")


def _ratio(width: int, inner: int) -> float:
    """The ratio from which open_clip computes the inner width, which it rounds down."""
    exact = inner / width
    return exact if int(width * exact) == inner else (inner + 0.5) / width


# Weights: each name of open_clip with transformers' names; three for one that is split in three.

_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
          "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}  # fmt: skip


def _names(vision_layers: int, text_layers: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    both = ("weight", "bias")
    yield "logit_scale", ("logit_scale",)
    vision, text = "vision_model.embeddings", "text_model.embeddings"
    yield "visual.class_embedding", (f"{vision}.class_embedding",)
    yield "visual.positional_embedding", (f"{vision}.position_embedding.weight",)
    yield "visual.conv1.weight", (f"{vision}.patch_embedding.weight",)
    yield "visual.proj", ("visual_projection.weight",)
    yield "token_embedding.weight", (f"{text}.token_embedding.weight",)
    yield "positional_embedding", (f"{text}.position_embedding.weight",)
    yield "text_projection", ("text_projection.weight",)
    for part in both:
        yield f"visual.ln_pre.{part}", (f"vision_model.pre_layrnorm.{part}",)  # their spelling
        yield f"visual.ln_post.{part}", (f"vision_model.post_layernorm.{part}",)
        yield f"ln_final.{part}", (f"text_model.final_layer_norm.{part}",)
        for own, theirs, layers in (
            ("visual.transformer.resblocks", "vision_model.encoder.layers", vision_layers),
            ("transformer.resblocks", "text_model.encoder.layers", text_layers),
        ):
            for i in range(layers):
                yield (
                    f"{own}.{i}.attn.in_proj_{part}",
                    tuple(f"{theirs}.{i}.{name}.{part}" for name in _ATTENTION),
                )
                for name, other in _BLOCK.items():
                    yield f"{own}.{i}.{name}.{part}", (f"{theirs}.{i}.{other}.{part}",)


# transformers multiplies by the transposed matrix of a linear layer.
_TRANSPOSED = {"visual.proj", "text_projection"}


def to_transformers_weights(
    weights: Mapping[str, torch.Tensor], model: Mapping[str, Any]
) -> Weights:
    """The weights of an open_clip model under the names of a ``CLIPModel``: views of them."""
    # Models with a text tower of their own (custom_text) have its weights below "text.".
    own = {name.removeprefix("text."): value for name, value in weights.items()}
    found: Weights = {}
    for name, theirs in _names(model["vision_cfg"]["layers"], model["text_cfg"]["layers"]):
        value = own[name].T if name in _TRANSPOSED else own[name]
        for other, part in zip(theirs, value.chunk(len(theirs)) if value.ndim else [value],
                               strict=True):  # fmt: skip
            found[other] = part
    return found


def to_open_clip_weights(weights: Mapping[str, torch.Tensor], model: Mapping[str, Any]) -> Weights:
    """The weights of a ``CLIPModel`` under open_clip's names: views where they can be.

    UserError if one is missing.
    """
    found: Weights = {}
    for name, theirs in _names(model["vision_cfg"]["layers"], model["text_cfg"]["layers"]):
        missing = [other for other in theirs if other not in weights]
        if missing:
            raise UserError(f"the weights have no {missing[0]}: they are not those of a CLIPModel")
        parts = [weights[other] for other in theirs]
        value = torch.cat(parts) if len(parts) > 1 else parts[0]
        found[name] = value.T if name in _TRANSPOSED else value
    return found
