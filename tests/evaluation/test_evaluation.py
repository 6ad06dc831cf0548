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
from scipy import stats
from typer.testing import CliRunner

from metacurate.cli import app
from metacurate.errors import UserError
from metacurate.evaluation import datasets, metrics
from metacurate.evaluation.evaluate import estimates, evaluate
from metacurate.evaluation.zero_shot import LoadedModel, _class_vectors, _ranks, load_model
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
        assert "top5" not in result  # of three classes
        assert "roc_auc" not in result
        assert result["mean_per_class"]["value"] == pytest.approx((1 + 1 + 0.8) / 3)
        assert result["groups"]["rare"]["top1"]["value"] == pytest.approx(0.8)
        assert [result["groups"][g]["images"] for g in ("rare", "common")] == [10, 20]
        assert result["repeated_class_names"] == []
        assert result["groups"]["common"]["top1"]["value"] == 1
        assert result["skipped"] == {"not_an_image": 1}
        assert result["top1"]["low"] < 28 / 30 < result["top1"]["high"]
    assert dict(estimates(results[0])).keys() >= {"top1", "rare top1", "common mean_per_class"}
    groups.write_text(json.dumps({"Red": "rare"}))
    with pytest.raises(UserError, match=r"a group of none of the classes \('blue', \.\.\.\)"):
        evaluate(COLOUR_MODEL, str(image_folder), groups=str(groups))


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


@pytest.mark.parametrize(("value", "right"), [(1.0, 1 / 3), (float("nan"), 0.0)])
def test_a_model_that_cannot_tell_is_at_chance_and_one_without_numbers_below(
    image_folder, tmp_path, value, right
):
    class Constant(ColourModel):
        def encode_image(self, images: Any) -> Any:
            return torch.full_like(images, value)

        encode_text = encode_image

    constant = LoadedModel(Constant(), _mean_colour, _tokens, torch.device("cpu"))
    result = evaluate(constant, str(image_folder))
    # All are taken for the first class: that is what argmax gives.
    assert result["top1"]["value"] == pytest.approx(right)
    assert result["mean_per_class"]["value"] == pytest.approx(right)
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for i, colour in enumerate(COLOURS.values()):
            add_member(tar, f"{i}.png", png(colour))
            add_member(tar, f"{i}.txt", b"red")
    recalls = evaluate(constant, str(tmp_path), task="retrieval")
    assert recalls["image_to_text"]["recall_at_1"]["value"] == 0
    assert recalls["text_to_image"]["recall_at_1"]["value"] == 0


def write_tar(folder: Path, colours: list[str], labels: list[int]) -> Path:
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for i, (colour, label) in enumerate(zip(colours, labels, strict=True)):
            add_member(tar, f"{i:03}.png", png(COLOURS[colour]))
            add_member(tar, f"{i:03}.cls", str(label).encode())
    return folder


def test_of_classes_with_one_name_the_first_can_be_right(tmp_path):
    """As clip-benchmark counts: argmax takes the first of equal scores."""
    names = ["red", "green", "blue", "red", "green", "a fox"]
    colours = ["red", "green", "blue", "red", "green", "red"]
    folder = write_tar(tmp_path / "d", colours * 2, list(range(6)) * 2)
    (folder / "classnames.txt").write_text("\n".join(names))
    result = evaluate(COLOUR_MODEL, str(folder))
    assert result["top1"]["value"] == pytest.approx(3 / 6)
    assert result["repeated_class_names"] == ["green", "red"]
    # The second "red" is second for a red image: among the first five.
    assert result["top5"]["value"] == pytest.approx(6 / 6)


@pytest.mark.parametrize(
    ("logits", "own", "ranks"),
    [
        ([[5.0, 4, 3, 2, 1, 0]] * 6, range(6), range(6)),
        ([[0.0, 1, 1, 1, 2, 1]] * 6, range(6), [5, 1, 2, 3, 0, 4]),
        ([[float("nan"), 1.0, 2.0]] * 3, range(3), [2, 2, 1]),
        ([[1.0]], [0], [0]),
    ],
)
def test_the_rank_of_an_images_class(logits, own, ranks):
    found = _ranks(torch.tensor(logits), torch.tensor(list(own)))
    assert found.tolist() == list(ranks)


def test_top_5_ends_at_the_fifth(tmp_path):
    """Grey levels and a text for each: an image's own class is at the rank that its level gives."""

    class Levels(ColourModel):
        def encode_image(self, images: Any) -> Any:  # nearest to 0 degrees
            return torch.stack([torch.ones(len(images)), torch.zeros(len(images))], 1)

        def encode_text(self, tokens: Any) -> Any:
            return torch.stack([torch.cos(tokens), torch.sin(tokens)], 1)

    def angles(texts: list[str]) -> Any:
        return torch.tensor([float(text.split()[-1].strip(".")) for text in texts]) / 10

    model = LoadedModel(Levels(), _mean_colour, angles, torch.device("cpu"))
    for classes, first, in_five in ((6, 1, 5), (7, 1, 5), (5, 1, 5)):
        folder = write_tar(tmp_path / str(classes), ["red"] * classes, list(range(classes)))
        (folder / "classnames.txt").write_text("\n".join(map(str, range(classes))))
        (folder / "zeroshot_classification_templates.txt").write_text("{c}")
        result = evaluate(model, str(folder))
        assert result["top1"]["value"] == pytest.approx(first / classes)
        assert result["top5"]["value"] == pytest.approx(in_five / classes)
        both = result["mean_of_top1_and_top5"]
        assert both["value"] == pytest.approx((first + in_five) / 2 / classes)
        assert both["n"] == classes
        assert result["chance"] == 1 / classes
    folder = write_tar(tmp_path / "four", ["red"] * 4, list(range(4)))
    (folder / "classnames.txt").write_text("0\n1\n2\n3")
    assert "top5" not in evaluate(model, str(folder))


def test_labels_out_of_range_are_counted(tmp_path):
    folder = write_tar(tmp_path / "d", ["red", "red", "green", "blue"], [0, -1, 2, 1])
    (folder / "classnames.txt").write_text("red\nblue\n")
    result = evaluate(COLOUR_MODEL, str(folder))
    assert result["images"] == 2
    assert result["top1"]["value"] == 1
    assert result["skipped"] == {"label_out_of_range": 2}


def test_two_classes_have_an_area_under_the_curve(tmp_path):
    folder = write_tar(tmp_path / "d", ["red", "green", "red", "green"], [0, 1, 1, 0])
    (folder / "classnames.txt").write_text("red\ngreen\n")
    # Scores: a red image leads for class 0, a green one for class 1; of 4 pairs one is in order,
    # one is in reverse, two are ties.
    assert evaluate(COLOUR_MODEL, str(folder))["roc_auc"]["value"] == pytest.approx(0.5)
    folder = write_tar(tmp_path / "e", ["red", "green", "red"], [0, 1, 1])
    (folder / "classnames.txt").write_text("red\ngreen\n")
    result = evaluate(COLOUR_MODEL, str(folder))["roc_auc"]
    assert result["value"] == pytest.approx(0.75)
    assert result["low"] <= 0.75 <= result["high"] <= 1
    folder = write_tar(tmp_path / "f", ["red"], [0])
    (folder / "classnames.txt").write_text("red\ngreen\n")
    assert "roc_auc" not in evaluate(COLOUR_MODEL, str(folder))  # images of one class only


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_the_share_of_pairs_in_order(seed):
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, 8, 60).astype(float), rng.random(60) < 0.4
    above = scores[positive][:, None] - scores[~positive][None, :]
    expected = ((above > 0) + 0.5 * (above == 0)).mean()
    estimate = metrics.roc_auc_estimate(scores, positive)
    assert estimate.value == pytest.approx(expected)
    assert estimate.low < estimate.value < estimate.high
    u = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    assert estimate.value == pytest.approx(u / positive.sum() / (~positive).sum())


def test_the_interval_of_an_area_is_that_of_areas_of_resamples(monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 60)
    generator = np.random.default_rng(1)
    scores, positive = generator.integers(9, size=25) / 8, generator.random(25) < 0.4
    found = metrics.roc_auc_estimate(scores, positive, seed=3)
    areas = []
    generator = np.random.default_rng(3)
    for _ in range(60):
        taken = generator.integers(25, size=25)
        ours, others = scores[taken][positive[taken]], scores[taken][~positive[taken]]
        areas.append(stats.mannwhitneyu(ours, others).statistic / (ours.size * others.size))
    low, high = np.quantile(areas, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_a_class_of_several_names_is_the_mean_of_their_prompts(tmp_path):
    """FER2013's "happy, smiling": each name in every template, one normalised mean."""
    folder = write_tar(tmp_path / "d", ["red", "blue", "green"], [0, 0, 1])
    (folder / "classnames.json").write_text('[["red", "blue"], "green"]')
    (folder / "zeroshot_classification_templates.txt").write_text("a {c}\n{c} thing\n\n")
    texts = datasets.class_texts(str(folder))
    assert texts.classes == (("red", "blue"), ("green",))
    assert texts.class_names == ("red", "green")
    assert texts.prompts(0) == ("a red", "red thing", "a blue", "blue thing")
    assert evaluate(COLOUR_MODEL, str(folder))["top1"]["value"] == 1
    vectors, places = _class_vectors(COLOUR_MODEL, texts)
    expected = np.array(COLOURS["red"]) + np.array(COLOURS["blue"])
    assert vectors[0].numpy() == pytest.approx(expected / np.linalg.norm(expected))
    assert places.tolist() == [0, 1]
    for content in ('["a", []]', '["a", 3]', '["a", ["b", 3]]', "[]", '{"a": 1}', "[", '"ab"'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(UserError, match=r"bad\.json"):
            datasets.class_texts(str(folder), str(tmp_path / "bad.json"))


def test_an_empty_class_name_is_a_class(tmp_path):
    """clevr_closest_object_distance has one."""
    folder = write_tar(tmp_path / "d", ["red", "green", "blue"], [0, 2, 3])
    (folder / "classnames.txt").write_bytes("\ufeffred\n \ngreen \r\nblue\n".encode())
    assert datasets.class_texts(str(folder)).class_names == ("red", "", "green", "blue")
    result = evaluate(COLOUR_MODEL, str(folder))
    assert (result["classes"], result["top1"]["value"]) == (4, 1)
    (folder / "classnames.txt").write_bytes("red\u2028\x85wine\r\n\rgreen\nblue".encode())
    assert datasets.class_texts(str(folder)).class_names == (
        "red\u2028\x85wine",
        "",
        "green",
        "blue",
    )
    (folder / "classnames.txt").write_text("\n \n")
    with pytest.raises(UserError, match="is empty"):
        datasets.class_texts(str(folder))


def image_classes(folder: Path, names: list[str]) -> Path:
    for i, name in enumerate(names):
        (folder / name / "sub").mkdir(parents=True)
        (folder / name / "sub" / "x.png").write_bytes(png((i % 256, i // 256, 0)))
    return folder


def labels_of(folder: Path) -> dict[tuple[int, int], int]:
    found = {}
    for example in datasets.examples(str(folder), Counter()):
        red, green, _ = Image.open(io.BytesIO(example.image)).getpixel((0, 0))
        found[red + 256 * green] = example.label
    return found


@pytest.mark.parametrize(
    ("names", "order"),
    [
        ([str(n) for n in range(120)], list(range(120))),  # ImageNetV2: by name, 10 is before 2
        ([f"{n:05}" for n in range(12)], list(range(12))),  # GTSRB
        (["10", "9", "1"], [2, 1, 0]),
        (["10", "9", "a"], [0, 1, 2]),  # not numbers all of them: by name
        (["B", "a", "A"], [1, 2, 0]),
    ],
)
def test_class_folders_that_are_numbers_are_in_their_order(tmp_path, names, order):
    assert labels_of(image_classes(tmp_path, names)) == dict(enumerate(order))
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path), f"/order-{tmp_path.name}", recursive=True)
    remote = datasets.class_folders(f"memory://order-{tmp_path.name}")
    assert [name.rpartition("/")[2] for name in remote] == [
        names[k] for k in np.argsort(order).tolist()
    ]


def test_hidden_folders_and_files_are_no_classes(tmp_path):
    image_classes(tmp_path / "d", ["1", "2", ".ipynb_checkpoints", "__MACOSX"])
    for name in ("._x.png", ".DS_Store"):
        (tmp_path / "d" / "1" / name).write_bytes(b"no picture")
    (tmp_path / "d" / "2" / ".thumbs").mkdir()
    (tmp_path / "d" / "2" / ".thumbs" / "x.png").write_bytes(png((9, 9, 9)))
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "d"), "/hidden/d", recursive=True)
    for place in (str(tmp_path / "d"), "memory://hidden/d"):
        skipped: Counter[str] = Counter()
        found = list(datasets.examples(place, skipped))
        assert [e.label for e in found] == [0, 1]
        assert datasets.class_texts(place).class_names == ("1", "2")
        assert not skipped


@pytest.mark.parametrize("number", [2, 4])
def test_as_many_names_as_class_folders(image_folder, number):
    (image_folder / "classnames.txt").write_text("".join(f"name {n}\n" for n in range(number)))
    with pytest.raises(UserError, match=rf"has 3 class folders, but there are {number} class"):
        evaluate(COLOUR_MODEL, str(image_folder))
    (image_folder / "classnames.txt").write_text("blue\ngreen\nred\n")
    assert evaluate(COLOUR_MODEL, str(image_folder))["classes"] == 3


@pytest.mark.parametrize(
    "suffix",
    ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp", "PNG", "TIF"],
)
def test_images_of_every_suffix_of_torchvision(tmp_path, suffix):
    (tmp_path / "d" / "red").mkdir(parents=True)
    colour = Image.new("L" if suffix == "pgm" else "RGB", (8, 8), 200)
    colour.save(tmp_path / "d" / "red" / f"x.{suffix}")
    (tmp_path / "d" / "red" / "notes.txt").write_text("taken in May")
    (tmp_path / "d" / "red" / "extensionless").write_text("taken in May")
    result = evaluate(COLOUR_MODEL, str(tmp_path / "d"))
    assert result["images"] == 1
    assert result["skipped"] == {"not_an_image_file": 2}


@pytest.mark.parametrize("kind", ["multilabel", "captioning", ""])
def test_other_tasks_are_refused(tmp_path, kind):
    folder = write_tar(tmp_path / "d", ["red"], [0])
    (folder / "classnames.txt").write_text("red\n")
    (folder / "dataset_type.txt").write_text(f"{kind}\n")
    with pytest.raises(UserError, match=rf"dataset_type\.txt names the task '{kind}'"):
        evaluate(COLOUR_MODEL, str(folder))
    with pytest.raises(
        UserError,
        match="there is no evaluation task 'x'; known are classification, cvqa, retrieval",
    ):
        evaluate(COLOUR_MODEL, str(folder), task="x")
    (folder / "dataset_type.txt").write_text("Classification")
    assert evaluate(COLOUR_MODEL, str(folder))["images"] == 1


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


@pytest.mark.parametrize(
    "estimate",
    [
        metrics.mean_estimate,
        lambda hits, seed: metrics.class_mean_estimate(hits, np.arange(200) % 7, seed=seed),
        lambda hits, seed: metrics.clustered_mean_estimate(hits, np.arange(200) // 3, seed=seed),
        lambda hits, seed: metrics.roc_auc_estimate(np.arange(200) % 11.0, hits, seed=seed),
    ],
)
def test_an_estimate_depends_on_its_seed_alone(estimate):
    hits = np.random.default_rng(3).random(200) < 0.4
    first = estimate(hits, seed=0)
    assert estimate(hits, seed=0) == first
    other = estimate(hits, seed=1)
    assert (other.value, other.n) == (first.value, 200)
    assert (other.low, other.high) != (first.low, first.high)
    assert first.low < first.value < first.high
    assert first.high - first.low == pytest.approx(other.high - other.low, rel=0.2)
    assert first.as_json() == dataclasses.asdict(first)


def test_items_that_go_together_make_an_interval_wider():
    """Captions of an image that are all right or all wrong are worth one caption."""
    right = np.random.default_rng(5).random(100) < 0.5
    alone = metrics.clustered_mean_estimate(right, np.arange(100))
    fivefold = metrics.clustered_mean_estimate(np.repeat(right, 5), np.repeat(np.arange(100), 5))
    assert (fivefold.value, fivefold.low, fivefold.high) == (alone.value, alone.low, alone.high)
    assert (alone.n, fivefold.n) == (100, 500)
    free = metrics.mean_estimate(np.repeat(right, 5))
    assert fivefold.high - fivefold.low > 1.8 * (free.high - free.low)
    # Groups of other sizes weigh by their items.
    uneven = metrics.clustered_mean_estimate(np.array([True, False, False, False]), [0, 1, 1, 1])
    assert uneven.value == 0.25


def test_estimates_of_nothing():
    none = np.empty(0, bool)
    for estimate in (
        metrics.mean_estimate(none),
        metrics.class_mean_estimate(none, np.empty(0, np.int64)),
        metrics.clustered_mean_estimate(none, np.empty(0, np.int64)),
    ):
        assert estimate.n == 0
        assert np.isnan([estimate.value, estimate.low, estimate.high]).all()


def test_the_mean_per_class_weighs_classes_alike():
    labels = np.array([0] * 90 + [1] * 10)
    hits = np.array([True] * 90 + [False] * 10)
    estimate = metrics.class_mean_estimate(hits, labels)
    assert estimate.value == 0.5
    assert estimate.low == estimate.high == 0.5
    varied = metrics.class_mean_estimate(np.arange(100) % 10 > 4, labels)
    assert varied.low < varied.value < varied.high


def test_imagenet_names_and_templates_come_from_open_clip(tar_folder):
    texts = datasets.class_texts(str(tar_folder), "imagenet", "imagenet")
    assert len(texts.class_names) == 1000
    assert len(texts.templates) == 80
    assert datasets.fill(texts.templates[0], "tench") == "a bad photo of a tench."


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: datasets.class_texts(str(d / "none")), "no folder"),
        (lambda d: datasets.class_texts(str(d), templates=str(d / "bad.txt")), "has no {c}"),
        (lambda d: datasets.class_texts(str(d), class_names=str(d / "no.txt")), "there is no file"),
        (lambda d: list(datasets.examples(str(d / "red"), Counter())), "neither tars"),
        (lambda d: list(datasets.examples(str(d / "empty"), Counter())), "no folder"),
        (lambda d: datasets.class_texts("s4://bucket/x"), "s4"),
        (lambda d: load_model(str(d)), "no finished training run"),
        (lambda d: load_model("openai"), "give model too"),
        (lambda d: load_model(str(d / "bad.txt")), "give model with"),
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
