"""What a checkpoint's configuration names outside its folder: used if it is here, never fetched.

open_clip looks for these on the hub: a text tower of transformers (``hf_model_name``), its
tokenizer (``hf_tokenizer_name``), an image tower that timm builds (``timm_model_name`` with
``hf-hub:``). A checkpoint may come from anyone: what it names is a folder of this machine, or what
the user has downloaded into the cache of Hugging Face's hub.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metacurate.arguments import shown
from metacurate.errors import UserError, first_line
from metacurate.needs import needs

MODEL_CONFIG = "config.json"
MERGES_FILE, TOKENIZER_CONFIG = "merges.txt", "tokenizer_config.json"
VOCABULARY_FILE, TOKENIZER_FILE = "vocab.json", "tokenizer.json"
TOKENIZER_FILES = (
    TOKENIZER_FILE, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json",
    VOCABULARY_FILE, MERGES_FILE, "vocab.txt", "sentencepiece.bpe.model", "spiece.model",
    "tokenizer.model",
)  # fmt: skip
"""What the folder of a tokenizer of transformers may hold: data, no code."""
# open_clip passes all of them on to transformers, where some name files and allow code.
TOKENIZER_OPTIONS = {
    "additional_special_tokens", "clean", "language", "reduction_mask", "strip_sep_token",
    "use_fast",
}  # fmt: skip
TIMM_HUBS = ("hf-hub", "hf_hub")
CODE = "auto_map"
"""In a file of transformers: where the code is that reads it."""


def localized(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's configuration, as of open_clip, in which names on the hub are folders here.

    UserError if one is not on this machine, or comes with code.
    """
    found: dict[str, Any] = copy.deepcopy(dict(config))
    text, vision = found["text_cfg"], found["vision_cfg"]
    unknown = sorted(map(str, (text.get("tokenizer_kwargs") or {}).keys() - TOKENIZER_OPTIONS))
    if unknown:
        raise UserError(
            f"its tokenizer_kwargs has {shown(unknown[0])}, which no checkpoint may ask"
        )
    if text.get("hf_tokenizer_name"):
        folder = local_folder("tokenizer", text["hf_tokenizer_name"], TOKENIZER_FILES)
        text["hf_tokenizer_name"] = str(folder)
    if text.get("hf_model_name"):
        folder = local_folder("text tower", text["hf_model_name"], (MODEL_CONFIG,))
        _check_plain(folder / MODEL_CONFIG)
        text["hf_model_name"] = str(folder)
    source, _, name = str(vision.get("timm_model_name") or "").partition(":")
    if source.lower() in TIMM_HUBS:
        local_folder("image tower", name, (MODEL_CONFIG,))
    return found


def local_folder(what: str, name: Any, files: tuple[str, ...]) -> Path:
    """The folder with one of these files that a name of the hub, or a path, stands for here."""
    if not isinstance(name, str):
        raise UserError(f"its {what} is {shown(name)}, which is no name")
    if os.path.isdir(name):  # Path.is_dir raises for a name that is too long
        here = Path(name)
        if any((here / file).is_file() for file in files):
            return here.resolve()
        raise UserError(f"its {what} {shown(name)} is a folder without {files[0]}")
    with needs("train"):
        from huggingface_hub import try_to_load_from_cache

    repository, _, revision = name.partition("@")
    for file in files:
        try:
            cached = try_to_load_from_cache(repository, file, revision=revision or None)
        except ValueError:
            break  # no name that the hub could have
        if isinstance(cached, str):
            return Path(cached).parent
    raise UserError(
        f"its {what} is {shown(name)}, which is no folder of this machine and not in its cache of "
        "Hugging Face's hub; what a checkpoint names is not downloaded: if you trust it, fetch it "
        "with `hf download` first"
    )


def _check_plain(path: Path) -> None:
    """UserError if a file of transformers wants code of its own, anywhere in it."""
    try:
        waiting = [json.loads(path.read_bytes())]
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)})") from None
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if CODE in value:
                raise UserError(f"{path} asks for code of its own ({CODE}), which is not run")
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


@contextmanager
def offline() -> Iterator[None]:
    """Without requests to Hugging Face's hub, whatever the files that are read refer to."""
    with needs("train"):
        from huggingface_hub import constants
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
