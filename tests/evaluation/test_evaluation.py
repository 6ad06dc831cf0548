"""Zero-shot evaluation: metrics against plain computations, data sets in all layouts."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from PIL import Image
from typer.testing import CliRunner

from metacurate.cli import app
from metacurate.errors import UserError
from metacurate.evaluation import datasets, metrics
from metacurate.evaluation.evaluate import estimates, evaluate
from metacurate.evaluation.zero_shot import LoadedModel, load_model
from training_pools import add_member

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}


class ColourModel:
    """Images as their mean colour, texts as the colours that they name: exact answers."""

    def encode_image(self, images: Any) -> Any:
        return images

    def encode_text(self, tokens: Any) -> Any:
        return tokens


def _tokens(texts: list[str]) -> Any:
    named = [[c for w, c in COLOURS.items() if w in t] or [(1, 1, 1)] for t in texts]
    return torch.tensor(np.array([np.sum(c, axis=0) for c in named]), dtype=torch.float32)


def _mean_colour(image: Any) -> Any:
    return torch.tensor(np.asarray(image, dtype=np.float32).mean(axis=(0, 1)))


COLOUR_MODEL = LoadedModel(ColourModel(), _mean_colour, _tokens, torch.device("cpu"), 4)


def png(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Blue, green and red images; two of ten red ones are green, and one file is broken."""
    folder = tmp_path / "images"
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(10):
            wrong = name == "red" and i < 2
            (folder / name / f"{i}.png").write_bytes(png(COLOURS["green"] if wrong else colour))
    (folder / "blue" / "broken.png").write_bytes(b"nothing")
    return folder


@pytest.fixture
def tar_folder(image_folder: Path, tmp_path: Path) -> Path:
    """The same as WebDataset in clip-benchmark's layout."""
    folder = tmp_path / "wds"
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("\n".join(sorted(COLOURS)))
    (folder / "zeroshot_classification_templates.txt").write_text("a {c} thing.\nsome {c}\n")
    for part, names in enumerate((["blue", "green"], ["red"])):
        with tarfile.open(folder / "test" / f"{part}.tar", "w") as tar:
            for name in names:
                for i, path in enumerate(sorted((image_folder / name).iterdir())):
                    add_member(
                        tar, f"s{name}{i:04d}.cls", str(sorted(COLOURS).index(name)).encode()
                    )
                    add_member(tar, f"s{name}{i:04d}.png", path.read_bytes())
    return folder


def test_classification_of_a_folder_and_of_tars_agree(image_folder, tar_folder, tmp_path):
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps({"red": "rare", "blue": "common", "green": "common"}))
    results = [
        evaluate(COLOUR_MODEL, str(folder), groups=str(groups))
        for folder in (image_folder, tar_folder)
    ]
    for result in results:
        assert result["images"] == 30
        assert result["top1"]["value"] == pytest.approx(28 / 30)
        assert result["top5"]["value"] == 1
        assert result["mean_per_class"]["value"] == pytest.approx((1 + 1 + 0.8) / 3)
        assert result["groups"]["rare"]["top1"]["value"] == pytest.approx(0.8)
        assert result["groups"]["common"]["top1"]["value"] == 1
        assert result["skipped"] == {"not_an_image": 1}
        assert result["top1"]["low"] < 28 / 30 < result["top1"]["high"]
    assert dict(estimates(results[0])).keys() >= {"top1", "rare top1", "common mean_per_class"}


def test_data_on_an_object_store_give_the_same(image_folder, tar_folder):
    store = fsspec.filesystem("memory")
    for number, folder in enumerate((image_folder, tar_folder)):
        store.put(str(folder), f"/bucket/{number}", recursive=True)
        remote = evaluate(COLOUR_MODEL, f"memory://bucket/{number}")
        local = evaluate(COLOUR_MODEL, str(folder))
        assert {**remote, "data": ""} == {**local, "data": ""}
        assert remote["images"] == 30
    texts = datasets.class_texts("memory://bucket/1")
    assert texts == datasets.class_texts(str(tar_folder))
    assert texts.class_names == ("blue", "green", "red")


def test_a_batch_with_broken_images_keeps_the_order_of_the_others(image_folder):
    small = dataclasses.replace(COLOUR_MODEL, batch_size=3)
    result = evaluate(small, str(image_folder))
    assert result == evaluate(COLOUR_MODEL, str(image_folder))
    assert result["skipped"] == {"not_an_image": 1}


def test_a_model_that_cannot_tell_gets_no_hits(image_folder):
    class Constant(ColourModel):
        def encode_image(self, images: Any) -> Any:
            return torch.ones_like(images)

        encode_text = encode_image

    constant = LoadedModel(Constant(), _mean_colour, _tokens, torch.device("cpu"))
    assert evaluate(constant, str(image_folder))["top1"]["value"] == 0


def test_retrieval_with_several_captions_an_image(tmp_path):
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "dataset_type.txt").write_text("retrieval\n")
    pairs = [("red", "red\na red thing"), ("green", "green\nblue"), ("blue", "blue"), ("red", "")]
    with tarfile.open(folder / "0.tar", "w") as tar:
        for i, (colour, captions) in enumerate(pairs):
            add_member(tar, f"{i}.png", png(COLOURS[colour]))
            add_member(tar, f"{i}.txt", captions.encode())
    result = evaluate(COLOUR_MODEL, str(folder))
    assert (result["images"], result["captions"]) == (3, 5)
    assert result["skipped"] == {"no_caption": 1}
    # The blue image's caption ties with the green image's second one: no hit at 1.
    assert result["image_to_text"]["recall_at_1"]["value"] == pytest.approx(2 / 3)
    # Of five captions only "blue" of the green image finds another image first.
    assert result["text_to_image"]["recall_at_1"]["value"] == pytest.approx(4 / 5)
    assert result["text_to_image"]["recall_at_5"]["value"] == 1


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        hits = generator.random(200) < 0.3
        estimate = metrics.mean_estimate(hits, seed=trial)
        covered += estimate.low <= 0.3 <= estimate.high
    # 95% nominal; 300 trials have an sd of 1.3%: 4 sd below and above (false alarm < 1e-4; the
    # percentile interval itself covers about 94% at n = 200).
    assert 0.88 < covered / 300 <= 1


def test_the_binomial_shortcut_is_the_bootstrap():
    hits = np.random.default_rng(1).random(300) < 0.4
    slow = metrics.bootstrap(lambda weights: float((weights * hits).sum() / 300), 300)
    fast = metrics.mean_estimate(hits)
    assert fast.value == slow.value
    # Quantiles of 1000 resamples: their sd is about 0.11 of the estimate's sd, 0.028.
    assert fast.low == pytest.approx(slow.low, abs=0.015)
    assert fast.high == pytest.approx(slow.high, abs=0.015)


def test_the_mean_per_class_weighs_classes_alike():
    labels = np.array([0] * 90 + [1] * 10)
    hits = np.array([True] * 90 + [False] * 10)
    estimate = metrics.class_mean_estimate(hits, labels)
    assert estimate.value == 0.5
    assert estimate.low == estimate.high == 0.5
    varied = metrics.class_mean_estimate(np.arange(100) % 10 > 4, labels)
    assert varied.low < varied.value < varied.high


def test_imagenet_names_and_templates_come_from_open_clip(image_folder):
    texts = datasets.class_texts(str(image_folder), "imagenet", "imagenet")
    assert len(texts.class_names) == 1000
    assert len(texts.templates) == 80
    assert datasets.fill(texts.templates[0], "tench") == "a bad photo of a tench."


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: datasets.class_texts(str(d / "none")), "no folder"),
        (lambda d: datasets.class_texts(str(d), templates=str(d / "bad.txt")), "has no {c}"),
        (lambda d: datasets.class_texts(str(d), class_names=str(d / "no.txt")), "cannot be read"),
        (lambda d: list(datasets.examples(str(d / "red"), Counter())), "neither tars"),
        (lambda d: list(datasets.examples(str(d / "empty"), Counter())), "no folder"),
        (lambda d: datasets.class_texts("s4://bucket/x"), "s4"),
        (lambda d: load_model(str(d)), "no finished training run"),
        (lambda d: load_model("openai"), "give --model"),
        (lambda d: load_model(str(d / "bad.txt")), "give --model with"),
        (lambda d: load_model("x", "ViT-B-32-quickgelu"), "neither a file"),
        (lambda d: load_model(str(d / "bad.txt"), "ViT-S-32-alt"), "cannot be loaded"),
        (lambda d: load_model("x", "ViT-B-33"), "no model 'ViT-B-33'"),
    ],
)
def test_mistakes_are_named(image_folder, call, message):
    (image_folder / "bad.txt").write_text("a photo\n")
    (image_folder / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        call(image_folder)


def test_hostile_names_in_tars_reach_no_file(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        add_member(tar, "../../x.png", png(COLOURS["red"]))
        add_member(tar, "../../x.cls", b"0")
        add_member(tar, "good.png", png(COLOURS["red"]))
        add_member(tar, "good.cls", b"2")
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    skipped: Counter[str] = Counter()
    found = list(datasets.examples(str(tmp_path), skipped))
    assert [e.label for e in found] == [2]
    assert sum(skipped.values()) == 3
    assert not list(tmp_path.parent.glob("x.png"))


def test_the_help_has_examples():
    result = CliRunner().invoke(app, ["eval", "--help"])
    assert result.exit_code == 0
    assert "--classnames imagenet" in " ".join(result.stdout.split())
