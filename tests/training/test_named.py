"""What a checkpoint names is used if it is on this machine, and never asked for on a network."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from huggingface_hub import constants

from metacurate.errors import UserError
from metacurate.evaluation.zero_shot import load_model
from metacurate.training.named import localized

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 12, "vocab_size": 300, "width": 32, "heads": 2, "layers": 1}
MODEL: dict[str, Any] = {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT}
HF_TOWER = {"context_length": 12, "hf_proj_type": "linear", "hf_pooler_type": "cls_pooler"}


@pytest.fixture
def asked(monkeypatch: Any) -> list[Any]:
    """What is asked of the network; nothing gets there."""
    calls: list[Any] = []

    def refuse(*args: Any, **_: Any) -> None:
        calls.append(args)
        raise OSError("there is no network")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    return calls


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: Any) -> Path:
    """A cache of the hub, with the files of one repository."""
    kept = tmp_path / "hub" / "models--org--known"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("abc")
    snapshot = kept / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_text("{}")
    (snapshot / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return snapshot


def with_name(key: str, name: Any) -> dict[str, Any]:
    section = "vision_cfg" if key.startswith("timm") else "text_cfg"
    return {**MODEL, section: {**MODEL[section], key: name}}


FOREIGN = {
    "tower": ("hf_model_name", "some/tower"),
    "tokenizer": ("hf_tokenizer_name", "some/words"),
    "timm": ("timm_model_name", "hf-hub:some/vit"),
    "timm-old": ("timm_model_name", "HF_HUB:some/vit@main"),
    "revision": ("hf_model_name", "org/known@other"),
    "address": ("hf_tokenizer_name", "http://127.0.0.1:9/words"),
    "long": ("hf_model_name", "x" * 5000),
    "null": ("hf_tokenizer_name", "a\0b"),
    "up": ("hf_tokenizer_name", "../../nowhere/at/all"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_here_is_refused_unasked(tmp_path, cache, asked, kind):
    config = with_name(*FOREIGN[kind])
    with pytest.raises(UserError, match=r"no folder of this machine.* fetch it with `hf download`"):
        localized(config)
    (tmp_path / "model.json").write_text(json.dumps(config))
    torch.save({"state_dict": {"a": torch.zeros(2**18)}}, tmp_path / "final.pt")
    with pytest.raises(UserError, match="is not downloaded") as error:
        load_model(str(tmp_path), device="cpu").text_features(["a dog"])
    assert str(error.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(error.value)
    assert asked == []


@pytest.mark.parametrize("key", ["hf_model_name", "hf_tokenizer_name"])
def test_what_is_here_is_used(cache, key):
    for name in ("org/known", "org/known@main", "org/known@abc", str(cache)):
        config = with_name(key, name)
        assert localized(config) == with_name(key, str(cache))
        assert config == with_name(key, name)


@pytest.mark.parametrize("name", ["hf-hub:org/known", "vit_tiny_patch16_224", "local-dir:/x", None])
def test_timm_finds_these_by_itself(cache, name):
    assert localized(with_name("timm_model_name", name)) == with_name("timm_model_name", name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_name("tokenizer_kwargs", {"trust_remote_code": True}), "'trust_remote_code'"),
        (with_name("tokenizer_kwargs", {"bpe_path": "/etc/hosts"}), "'bpe_path'"),
        (with_name("tokenizer_kwargs", {"clean": "lower", "vocab_file": "x"}), "'vocab_file'"),
        (with_name("hf_model_name", 5), "5, which is no name"),
        (with_name("hf_tokenizer_name", ["a"]), "which is no name"),
        (with_name("hf_tokenizer_name", "EMPTY"), r"is a folder without tokenizer\.json"),
        (with_name("hf_model_name", "EMPTY"), r"is a folder without config\.json"),
    ],
    ids=range(7),
)  # fmt: skip
def test_what_no_checkpoint_may_ask(tmp_path, monkeypatch, config, message):
    (tmp_path / "EMPTY").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        localized(config)
    assert localized(with_name("tokenizer_kwargs", {"clean": "lower", "strip_sep_token": True}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"auto_map": {"AutoConfig": "own.Own"}}', "code of its own"),
        ('{"a": [{"auto\\u005fmap": 1}]}', "code of its own"),
        ("{", "cannot be read"),
    ],
)
def test_towers_with_code_are_refused(cache, content, message):
    (cache / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        localized(with_name("hf_model_name", "org/known"))


def test_a_file_called_like_a_tag_is_the_file(tmp_path, monkeypatch, asked):
    """``openai`` in the folder that one is in, given with a model that has weights of that tag."""
    monkeypatch.chdir(tmp_path)
    Path("openai").write_bytes(b"no weights")
    with pytest.raises(UserError, match="openai cannot be loaded as RN50"):
        load_model("openai", "RN50", device="cpu")
    assert asked == []


WITHOUT_NETWORK = """
import json, socket, sys, torch
asked = []
def refuse(*args, **_):
    asked.append(args)
    raise OSError("there is no network")
for name in ("getaddrinfo", "create_connection"):
    setattr(socket, name, refuse)
socket.socket.connect = socket.socket.connect_ex = refuse
from metacurate.evaluation.zero_shot import load_model
from metacurate.training.openclip import ModelConfig, open_clip, register
folder = sys.argv[1]
register(ModelConfig("own", json.load(open(f"{folder}/model.json"))))
made = open_clip().create_model("own", pretrained_text=False)
torch.save(made.state_dict(), f"{folder}/final.pt")
found = load_model(folder, device="cpu").text_features(["a dog", "a"])
print(found.shape, (found[0] == found[1]).all().item(), asked)
"""


def test_a_tower_and_tokenizer_of_ones_own_need_no_network(tmp_path):
    """transformers itself, which open_clip looks for as it is imported: in a process of its own."""
    apart = Path(sys.prefix) / "apart"  # where tests/run puts it
    if not (apart / "transformers").is_dir():
        pytest.skip("needs the package transformers")
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text(
        json.dumps(
            {
                "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 5,
                "max_position_embeddings": 12, "pad_token_id": 0,
            }
        )
    )  # fmt: skip
    words = {"[PAD]": 0, "[UNK]": 1, "a": 2, "dog": 3, "[CLS]": 4}
    (own / "tokenizer.json").write_text(
        json.dumps(
            {
                "version": "1.0",
                "added_tokens": [],
                "pre_tokenizer": {"type": "Whitespace"},
                "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"},
            }
        )
    )
    (own / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]"}'
    )
    tower = {**HF_TOWER, "hf_model_name": str(own), "hf_tokenizer_name": str(own)}
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.json").write_text(json.dumps({**MODEL, "text_cfg": tower}))
    path = os.pathsep.join([str(apart), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, str(folder)], check=False, timeout=100,
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "torch.Size([2, 16]) False []\n"
