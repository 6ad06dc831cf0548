"""Checkpoints that travel: open_clip's and transformers' own code give the same features."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")
safetensors = pytest.importorskip("safetensors.torch", reason="needs the extra metacurate[train]")

from PIL import Image
from typer.testing import CliRunner

from metacurate.cli import app
from metacurate.errors import UserError
from metacurate.evaluation.zero_shot import load_model
from metacurate.training.checkpoints import Checkpoint
from metacurate.training.export import FORMATS, _pieces, export
from metacurate.training.openclip import ModelConfig, create_model, open_clip, register

VISION = {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
MODEL = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
TEXTS = ["a dog", "", "Two  cats & a 鳥, it's 12:30!", "word " * 40]
SHAPES = {
    "quick": {},
    # The ratio of bigG/14: the inner width is a number that it does not give exactly.
    "gelu": {
        "quick_gelu": False,
        "vision_cfg": {**VISION, "mlp_ratio": 4.9231},
        "custom_text": True,
    },
}


def picture() -> Any:
    ramp = torch.arange(40 * 60 * 3).reshape(40, 60, 3) * 7 % 251
    return Image.fromarray(ramp.to(torch.uint8).numpy())


@pytest.fixture(scope="module", params=sorted(SHAPES))
def trained(request: Any, tmp_path_factory: Any) -> Path:
    """A folder as training leaves it, of a model whose every weight is drawn."""
    folder = tmp_path_factory.mktemp("trained")
    config = MODEL | SHAPES[request.param]
    model = ModelConfig(f"travel-{request.param}", config)
    register(model)
    torch.manual_seed(0)
    made = create_model(model, "cpu")
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
        made.logit_scale.fill_(3.3)
    torch.save({"name": model.name, "state_dict": made.state_dict()}, folder / "final.pt")
    (folder / "model.json").write_text(json.dumps(config))
    return folder


def features(loaded: Any) -> tuple[Any, Any]:
    with torch.no_grad():
        images = loaded.image_features([loaded.preprocess(picture())])
        return images, loaded.text_features(TEXTS)


def assert_same(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    for own, other in zip(found, expected, strict=True):
        assert torch.allclose(own, other, atol=2e-6)


def test_open_clip_loads_its_layout(trained, tmp_path):
    export(str(trained), str(tmp_path / "out"), to="open_clip")
    name = f"local-dir:{tmp_path / 'out'}"
    model, preprocess = open_clip().create_model_from_pretrained(name)
    tokenizer = open_clip().get_tokenizer(name)
    with torch.no_grad():
        images = model.encode_image(preprocess(picture())[None], normalize=True)
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    expected = features(load_model(str(trained), device="cpu"))
    assert torch.equal(images, expected[0])
    assert torch.equal(texts, expected[1])
    assert_same(features(load_model(str(tmp_path / "out"), device="cpu")), expected)


def test_transformers_loads_its_layout_and_it_comes_back(trained, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(sys.prefix) / "apart"))  # where tests/run puts it
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    out = tmp_path / "out"
    export(str(trained), str(out), to="transformers")
    model, report = transformers.CLIPModel.from_pretrained(out, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys"))
    processor = transformers.AutoProcessor.from_pretrained(out)
    own = load_model(str(trained), device="cpu")
    expected = features(own)
    said = processor(
        text=TEXTS, images=picture(), padding=True, truncation=True, return_tensors="pt"
    )
    # Resizing differs in the last bits: the model is compared on the same pixels.
    pixels = own.preprocess(picture())[None]
    assert (said["pixel_values"] - pixels).abs().max() < 0.05
    with torch.no_grad():
        result = model(**{**said, "pixel_values": pixels})
        other = model(input_ids=own.tokenizer(TEXTS), pixel_values=pixels)  # padded otherwise
    for found in (result, other):
        assert_same((found.image_embeds, found.text_embeds), expected)
    cosines = result.logits_per_image / math.exp(3.3)
    assert torch.allclose(cosines, expected[0] @ expected[1].T, atol=2e-6)

    # What transformers itself writes is read again, and so is what this wrote.
    model.save_pretrained(tmp_path / "theirs")
    processor.save_pretrained(tmp_path / "theirs")
    for folder in (out, tmp_path / "theirs"):
        assert_same(features(load_model(str(folder), device="cpu")), expected)
    export(str(tmp_path / "theirs"), str(tmp_path / "back"), to="open_clip")
    back = safetensors.load_file(tmp_path / "back" / "open_clip_model.safetensors")
    first = torch.load(trained / "final.pt")["state_dict"]
    assert {k: v.tolist() for k, v in back.items()} == {
        name.removeprefix("text."): value.tolist() for name, value in first.items()
    }
    again = json.loads((tmp_path / "back" / "open_clip_config.json").read_text())["model_cfg"]
    assert again["quick_gelu"] == json.loads((trained / "model.json").read_text())["quick_gelu"]


@pytest.mark.parametrize("trained", ["quick"], indirect=True)
def test_sizes_and_towers_are_read_as_transformers_reads_them(trained, tmp_path, monkeypatch):
    """Squares without a crop, and the towers of older files, which have them twice."""
    monkeypatch.syspath_prepend(str(Path(sys.prefix) / "apart"))
    transformers = pytest.importorskip("transformers", reason="needs the package transformers")
    out = tmp_path / "out"
    export(str(trained), str(out), to="transformers")
    config = json.loads((out / "config.json").read_text())
    for tower in ("vision_config", "text_config"):
        config[f"{tower}_dict"] = {**config[tower], "hidden_act": "gelu"}
    (out / "config.json").write_text(json.dumps(config))
    images = json.loads((out / "preprocessor_config.json").read_text())
    images |= {"size": images["crop_size"], "do_center_crop": False}
    (out / "preprocessor_config.json").write_text(json.dumps(images))
    wide = picture().resize((90, 40))
    own = load_model(str(out), device="cpu")
    pixels = own.preprocess(wide)[None]
    theirs = transformers.CLIPImageProcessor.from_pretrained(out)(wide, return_tensors="pt")
    assert (theirs["pixel_values"] - pixels).abs().max() < 0.05
    with torch.no_grad():
        result = transformers.CLIPModel.from_pretrained(out)(
            input_ids=own.tokenizer(TEXTS), pixel_values=pixels
        )
        mine = own.image_features([pixels[0]]), own.text_features(TEXTS)
    assert_same(mine, (result.image_embeds, result.text_embeds))
    export(str(out), str(tmp_path / "again"), to="transformers")
    again = load_model(str(tmp_path / "again"), device="cpu")
    assert torch.equal(again.preprocess(wide), pixels[0])


@pytest.mark.parametrize("trained", ["quick"], indirect=True)
def test_the_command_writes_the_same_bytes_and_refuses_a_mix(trained, tmp_path):
    def run(out: str, to: str) -> Any:
        return CliRunner().invoke(
            app, ["export", str(trained), "--to", to, "--out", str(tmp_path / out), "--json"]
        )

    totals = json.loads(run("a", "transformers").stdout)
    assert totals["parameters"] == sum(
        value.numel() for value in torch.load(trained / "final.pt")["state_dict"].values()
    )
    run("b", "transformers")
    for name in totals["files"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads(run("a", "transformers").stdout) == totals
    assert "holds a run with other settings" in str(run("a", "open_clip").exception)
    # Images that are prepared otherwise make another checkpoint too.
    run("c", "open_clip")
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "c", again)
    config = json.loads((again / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["interpolation"] = "bilinear"
    (again / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="holds a run with other settings"):
        export(str(again), str(tmp_path / "c"), to="open_clip")


def changed(out: Path, config: dict[str, Any]) -> Path:
    """A folder as training leaves it, of another model."""
    model = ModelConfig(f"travel-{zlib.crc32(json.dumps(config).encode())}", config)
    register(model)
    out.mkdir()
    torch.save({"state_dict": create_model(model, "cpu").state_dict()}, out / "final.pt")
    (out / "model.json").write_text(json.dumps(config))
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_cfg": {**VISION, "layers": [1, 1, 1, 1], "width": 8}}, "tower is a ResNet"),
        ({"vision_cfg": {**VISION, "no_ln_pre": True}}, "no_ln_pre = True"),
        ({"text_cfg": {**TEXT, "pool_type": "last"}}, "pool_type = 'last'"),
        ({"text_cfg": {**TEXT, "vocab_size": 300}}, "vocab_size = 300"),
        ({"init_logit_bias": -10.0}, "init_logit_bias = -10.0"),
    ],
)
def test_models_that_are_no_clip_model_are_refused(tmp_path, change, message):
    folder = changed(tmp_path / "model", MODEL | change)
    with pytest.raises(UserError, match=message):
        export(str(folder), str(tmp_path / "out"), to="transformers")
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_tokenizer_of_ones_own_travels_with_open_clip_only(tmp_path):
    words = tmp_path / "words"
    words.mkdir()
    (words / "tokenizer.json").write_text("{}")
    (words / "secret.txt").write_text("stays")
    config = MODEL | {"text_cfg": {**TEXT, "hf_tokenizer_name": str(words)}}
    folder = changed(tmp_path / "model", config)
    with pytest.raises(UserError, match="export it to open_clip"):
        export(str(folder), str(tmp_path / "out"), to="transformers")
    totals = export(str(folder), str(tmp_path / "kept"), to="open_clip")
    assert totals["files"] == [
        "open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json"
    ]  # fmt: skip
    said = json.loads((tmp_path / "kept" / "open_clip_config.json").read_text())
    assert said["model_cfg"]["text_cfg"]["hf_tokenizer_name"] == "."  # no path of this machine
    own = load_model(str(tmp_path / "kept"), device="cpu").tokenizer.model.config
    assert own["text_cfg"]["hf_tokenizer_name"] == str(tmp_path / "kept")
    shutil.rmtree(words)
    with pytest.raises(UserError, match="which is no folder of this machine"):
        export(str(folder), str(tmp_path / "lost"), to="open_clip")


@pytest.mark.parametrize("trained", ["quick"], indirect=True)
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", r"config.json cannot be read"),
        ("config.json", "[]", "no JSON object"),
        ("config.json", '{"model_type": "bert"}', "of type 'bert', not 'clip'"),
        ("config.json", {"text_config": {"eos_token_id": 7}}, "eos_token_id = 7"),
        ("config.json", {"text_config": {"hidden_act": "relu"}}, "activations are"),
        (
            "config.json",
            {"vision_config": {"num_hidden_layers": 3}},
            "weights have no vision_model",
        ),
        ("config.json", {"vision_config": {"hidden_size": "48"}}, "config.json cannot be read"),
        ("vocab.json", '{"a": 0}', "its tokenizer is not CLIP's"),
        ("config.json", {"vision_config": {"intermediate_size": 10**400}}, "cannot be read"),
        ("preprocessor_config.json", '{"image_std": [1, 0, 1]}', "image_std = .* three positive"),
        ("preprocessor_config.json", '{"resample": 9}', "resample = 9"),
        ("preprocessor_config.json", '{"do_normalize": false}', "do_normalize = False"),
        ("preprocessor_config.json", '{"rescale_factor": 1}', "rescale_factor = 1"),
        ("preprocessor_config.json", '{"size": {"shortest_edge": 7}}', "resized to .*edge.: 7}"),
        ("preprocessor_config.json", '{"crop_size": 7}', "cropped to 7, which open_clip does not"),
        ("model.safetensors", "nothing", "more weights than model.safetensors of 7 bytes"),
        ("model.safetensors", "nothing " * 2**18, "cannot be loaded as [^;]*$"),
    ],
)
def test_folders_of_transformers_that_cannot_be_read_are_named(
    trained, tmp_path, file, content, message
):
    export(str(trained), str(tmp_path / "out"), to="transformers")
    path = tmp_path / "out" / file
    if isinstance(content, dict):
        config = json.loads(path.read_text())
        for name, fields in content.items():
            config[name] |= fields
        content = json.dumps(config)
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_model(str(tmp_path / "out"), device="cpu")


@pytest.mark.parametrize("trained", ["quick"], indirect=True)
@pytest.mark.parametrize(
    "change",
    [
        {"text_cfg": {**TEXT, "layers": 10**15}},
        {"text_cfg": {**TEXT, "vocab_size": 10**13}},
        {"text_cfg": {**TEXT, "context_length": 10**12}},
        {"text_cfg": {**TEXT, "width": 10**9}},
        {"vision_cfg": {**VISION, "layers": [1, 10**12], "width": 8}},
        {"vision_cfg": {**VISION, "layers": [1, 1, 1, 1], "width": 8, "image_size": 10**8}},
        {"vision_cfg": {**VISION, "image_size": 10**8}},
        {"vision_cfg": {**VISION, "image_size": [10**8, 32]}},
        {"vision_cfg": {**VISION, "image_size": 10**8, "patch_size": 10**8}},
    ],
    ids=lambda change: "-".join(f"{k}-{v}" for k, v in next(iter(change.values())).items()
                                if v not in (*VISION.values(), *TEXT.values())),
)  # fmt: skip
def test_no_model_is_built_that_its_weights_cannot_fill(trained, tmp_path, change):
    shutil.copy(trained / "final.pt", tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(MODEL | change))
    with pytest.raises(UserError, match=r"has more weights than final\.pt of"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([1], "open_clip_config.json cannot be read"),
        ({"interpolation": "nearest"}, "image_interpolation = 'nearest'"),
        ({"resize_mode": "crop"}, "image_resize_mode = 'crop'"),
        ({"mean": "black"}, "image_mean = 'black'"),
        ({"std": [1.0, 1.0, math.nan]}, "image_std"),
    ],
)
@pytest.mark.parametrize("trained", ["quick"], indirect=True)
def test_images_that_open_clip_cannot_prepare(trained, tmp_path, said, message):
    export(str(trained), str(tmp_path / "out"), to="open_clip")
    path = tmp_path / "out" / "open_clip_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"preprocess_cfg": said}))
    with pytest.raises(UserError, match=message):
        load_model(str(tmp_path / "out"), device="cpu")


@pytest.mark.parametrize("trained", ["quick"], indirect=True)
def test_code_beside_a_tokenizer_is_not_run(trained, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(sys.prefix) / "apart"))
    pytest.importorskip("transformers", reason="needs the package transformers")
    out = tmp_path / "out"
    export(str(trained), str(out), to="open_clip")
    config = json.loads((out / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "x"
    (out / "open_clip_config.json").write_text(json.dumps(config))
    (out / "config.json").write_text('{"model_type": "bert"}')
    (out / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", null]}}'
    )
    (out / "own.py").write_text(
        f"open({str(tmp_path / 'harmed')!r}, 'w')\n"
        "from transformers import BertTokenizer\n"
        "class Own(BertTokenizer):\n    pass\n"
    )
    loaded = load_model(str(out), device="cpu")
    with pytest.raises(UserError, match=r"tokenizer of metacurate-.* cannot be loaded"):
        loaded.tokenizer(["a dog"])
    assert not (tmp_path / "harmed").exists()


class Harmful:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("harmed"),))


@pytest.mark.parametrize("trained", ["quick"], indirect=True)
@pytest.mark.parametrize(
    ("to", "old", "name"),
    [
        ("transformers", "model.safetensors", "pytorch_model.bin"),
        ("open_clip", "open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    ],
)
def test_code_in_weights_is_not_run(trained, tmp_path, monkeypatch, to, old, name):
    monkeypatch.chdir(tmp_path)
    export(str(trained), str(tmp_path / "out"), to=to)
    weights = safetensors.load_file(tmp_path / "out" / old)
    (tmp_path / "out" / old).unlink()
    torch.save(weights, tmp_path / "out" / name)
    assert_same(
        features(load_model(str(tmp_path / "out"), device="cpu")),
        features(load_model(str(trained), device="cpu")),
    )
    torch.save({**weights, "more": Harmful()}, tmp_path / "out" / name)
    with pytest.raises(UserError, match="no file of weights alone"):
        load_model(str(tmp_path / "out"), device="cpu")
    assert not (tmp_path / "harmed").exists()


def test_files_of_weights_are_those_of_safetensors():
    """Its own ``save`` is the oracle: every type, shapes without numbers, names of any script."""
    kinds = (
        torch.int64, torch.float64, torch.float32, torch.int32, torch.bfloat16, torch.float16,
        torch.int16, torch.int8, torch.uint8, torch.bool,
    )  # fmt: skip
    weights = {f"{name}.{i}": torch.arange(6 + i).to(kind) for i, kind in enumerate(kinds)
               for name in ("z", "ä\"\n")}  # fmt: skip
    weights |= {"scalar": torch.tensor(2.5), "none": torch.zeros(0, 3)}
    weights["across"] = torch.arange(6.0).reshape(2, 3).T
    plain = {name: value.contiguous() for name, value in weights.items()}
    written = b"".join(_pieces(weights))
    assert written == safetensors.save(plain, {"format": "pt"})


@pytest.mark.parametrize("to", FORMATS)
def test_weights_are_held_once(tmp_path, monkeypatch, to):
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux says how much memory a process had at most")

    def memory(name: str) -> int:
        return int(re.search(rf"{name}:\s+(\d+) kB", status.read_text())[1]) << 10

    config = {
        "embed_dim": 64,
        "vision_cfg": {**VISION, "layers": 1},
        "text_cfg": {**TEXT, "layers": 1, "width": 640},
    }
    model = ModelConfig("travel-held", config)
    register(model)
    made, _, preprocess = open_clip().create_model_and_transforms(model.name)
    size = sum(value.nbytes for value in made.state_dict().values())
    loaded = Checkpoint(made.eval(), preprocess, model)
    monkeypatch.setattr("metacurate.training.export.load_checkpoint", lambda *_: loaded)
    Path("/proc/self/clear_refs").write_text("5")  # the most until now is what there is now
    before = memory("VmRSS")
    export(str(tmp_path / "model"), str(tmp_path / "out"), to=to)
    assert memory("VmHWM") - before < size / 2  # that of a tokenizer, among others


@pytest.mark.parametrize("trained", ["quick"], indirect=True)
def test_weights_of_old_torch_are_read(trained, tmp_path):
    """Its files are no zip archives, and cannot be mapped into memory."""
    content = torch.load(trained / "final.pt")
    torch.save(content, tmp_path / "final.pt", _use_new_zipfile_serialization=False)
    shutil.copy(trained / "model.json", tmp_path)
    assert_same(
        features(load_model(str(tmp_path), device="cpu")),
        features(load_model(str(trained), device="cpu")),
    )
