"""Suites: what their data sets are called, scored by and named with; reports; languages."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import tarfile
from importlib.metadata import PackageNotFoundError
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
from metacurate.evaluation import datasets, metrics, names, published, suite
from metacurate.evaluation.names import NoNames, names_in, texts_of
from metacurate.evaluation.suites import SUITES, folders_of, places_of
from metacurate.evaluation.zero_shot import LoadedModel, classify
from training_pools import add_member

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}
NAMES = ["red", "green", "blue", "a", "b", "c"]
HELD = {d.name: d for held in SUITES.values() for d in held}


class ColourModel(torch.nn.Module):
    """Images as their mean colour, texts as the colours that they name: exact answers."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def encode_image(self, images: Any) -> Any:
        return images

    encode_text = encode_image


def tokens(texts: list[str]) -> Any:
    named = [[c for w, c in COLOURS.items() if w in t] or [(1, 1, 1)] for t in texts]
    return torch.tensor(np.array([np.sum(c, axis=0) for c in named]), dtype=torch.float32)


def mean_colour(image: Any) -> Any:
    return torch.tensor(np.asarray(image, dtype=np.float32).mean(axis=(0, 1)))


def model(weight: float = 1.0) -> LoadedModel:
    return LoadedModel(ColourModel(weight), mean_colour, tokens, torch.device("cpu"), 64)


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), COLOURS[colour]).save(file, "PNG")
    return file.getvalue()


def write_tar(
    folder: Path,
    labelled: list[tuple[str, int]],
    classes: list[str] | None = None,
    fields: list[list[int] | None] | None = None,
) -> Path:
    """Colours with labels as clip-benchmark's WebDataset, with names of classes and a template."""
    (folder / "test").mkdir(parents=True)
    if classes is not None:
        (folder / "classnames.txt").write_text("\n".join(classes))
        (folder / "zeroshot_classification_templates.txt").write_text("{c}")
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for i, (colour, label) in enumerate(labelled):
            add_member(tar, f"{i:03}.png", png(colour))
            add_member(tar, f"{i:03}.cls", str(label).encode())
            if fields is not None and (row := fields[i]) is not None:
                file = io.BytesIO()
                np.save(file, np.array(row))
                add_member(tar, f"{i:03}.npy", file.getvalue())
    return folder


def write_folders(place: Path, classes: list[str]) -> Path:
    for i, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        (place / name / "0.png").write_bytes(png(list(COLOURS)[i % 3]))
    return place


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 50)


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    names._table.cache_clear()
    monkeypatch.setattr(names, "distribution", absent)


@pytest.fixture
def package() -> None:
    if not names.installed():
        pytest.skip("needs clip-benchmark (pip install --no-deps clip-benchmark)")


@pytest.mark.parametrize(
    ("name", "size", "other"),
    [
        (
            "slip26",
            26,
            {
                **dict.fromkeys(
                    ("fgvc_aircraft", "pets", "caltech101", "flowers"), "mean_per_class"
                ),
                "kinetics700": "mean_of_top1_and_top5",
                "hateful_memes": "roc_auc",
            },
        ),
        (
            "datacomp38",
            38,
            {
                **dict.fromkeys(
                    ("fgvc_aircraft", "pets", "caltech101", "flowers"), "mean_per_class"
                ),
                **dict.fromkeys(("flickr30k", "mscoco_captions"), "mean_recall_at_1"),
                **dict.fromkeys(("fmow", "geode"), "worst_group_top1"),
                "dollar_street": "worst_group_top5",
                "iwildcam": "f1_macro",
                "winogavil": "jaccard",
            },
        ),
        ("vtab", 19, {}),
    ],
)
def test_a_suites_data_sets_and_metrics(name, size, other):
    held = SUITES[name]
    assert len(held) == len({d.name for d in held}) == size
    assert {d.short: d.metric for d in held if d.metric != "top1"} == other
    # No folder's name could be of two.
    called = [folder for d in held for folder in d.folders]
    assert len(called) == len(set(called))


def test_clip_benchmark_has_the_names_that_are_asked_of_it(package):
    table = names._table("en_classnames.json")
    assert {d.names for d in HELD.values()} - {""} <= table.keys()
    sizes = {"imagenet1k": 1000, "country211": 211, "eurosat": 10, "pcam": 2, "caltech101": 102}
    assert {key: len(table[key]) for key in sizes} == sizes
    named = [d for d in HELD.values() if d.names]
    assert [(d.name, d.classes) for d in named] == [(d.name, len(table[d.names])) for d in named]


@pytest.mark.parametrize(
    "place",
    ["wds_vtab-dtd_test", "wds_vtab-dtd", "wds_dtd", "vtab/dtd", "DTD", "Describable-Textures",
     "wds/vtab-dtd", "wds/wds_dtd"],
)  # fmt: skip
def test_a_data_set_is_found_by_each_of_its_names(tmp_path, place):
    write_tar(tmp_path / place, [("red", 0)], NAMES)
    found = places_of(HELD["vtab/dtd"], folders_of(str(tmp_path)))
    assert found == [str(tmp_path / place)]
    others = [d for d in HELD.values() if d.short != "dtd"]
    assert not any(places_of(d, folders_of(str(tmp_path))) for d in others)


@pytest.mark.parametrize("split", ["", "test", "val", "val_images", "dev"])
def test_a_plain_data_set_lies_in_its_folder_or_its_split(tmp_path, split):
    write_folders(tmp_path / "food101" / split, ["red", "green"])
    if split:
        write_folders(tmp_path / "food101" / "train", ["red", "green"])
    write_tar(tmp_path / "wds_food101", [("red", 0)], NAMES)
    found = places_of(HELD["food101"], folders_of(str(tmp_path)))
    assert found == [str(tmp_path / "wds_food101"), str(tmp_path / "food101" / split).rstrip("/")]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six of SLIP's 26, two of which cannot be evaluated."""
    place = tmp_path / "data"
    unequal = [("red", 0), ("red", 0), ("red", 0), ("blue", 3)]
    write_tar(place / "wds_cifar10", unequal, NAMES)
    write_tar(place / "wds_vtab-pets", unequal, NAMES)
    write_tar(place / "wds_kinetics700", unequal, NAMES)
    memes = [("red", 0), ("green", 1), ("red", 1), ("green", 1)]
    write_tar(place / "hateful_memes", memes, ["red", "green"])
    write_folders(place / "ucf101" / "val", ["1", "2"])
    (place / "stl10").mkdir()
    (place / "notes").mkdir()
    return place


def test_each_data_set_by_its_own_metric(root, tmp_path):
    report = suite.evaluate_suite(model(), "slip26", str(root))
    values = {name: r["value"]["value"] for name, r in report["results"].items()}
    assert values == {
        "cifar10": 3 / 4,
        "vtab/pets": 1 / 2,
        # The blue image's class is second of six.
        "kinetics700": pytest.approx((3 / 4 + 1) / 2),
        "hateful_memes": pytest.approx(5 / 6),
    }
    assert report["mean"]["value"] == pytest.approx(sum(values.values()) / 4)
    assert report["mean"]["low"] < report["mean"]["value"] < report["mean"]["high"]
    assert (report["mean"]["n"], report["of"]) == (4, 26)
    assert len(report["missing"]) == 22
    assert "there are no class names: put classnames.txt" in report["missing"]["ucf101"]
    assert report["missing"]["food101"] == "there is no folder of it"
    assert "stl10" in report["missing"]
    assert report["results"]["cifar10"]["texts"] == "the folder, 6 classes instead of 10"


def test_data_and_report_on_an_object_store(root):
    store = fsspec.filesystem("memory")
    store.put(str(root), "/suites/data", recursive=True)
    out = "memory://suites/out.json"
    remote = suite.evaluate_suite(model(), "slip26", "memory://suites/data", out=out)
    local = suite.evaluate_suite(model(), "slip26", str(root))
    for name, result in remote["results"].items():
        assert result["data"].startswith("memory://")
        assert result["result"] == local["results"][name]["result"]
    assert remote["mean"] == local["mean"]
    assert remote["missing"].keys() == local["missing"].keys()
    again = suite.evaluate_suite(model(), "slip26", "memory://suites/data", out=out)
    assert again == remote == json.loads(store.cat("/suites/out.json"))


def test_what_a_file_holds_of_the_same_weights_is_not_done_again(root, tmp_path, monkeypatch):
    out = tmp_path / "out.json"
    done: list[str] = []

    def counting(loaded: LoadedModel, data: str, *rest: Any, **options: Any) -> Any:
        done.append(Path(data).name)
        if len(done) == 3 and not (tmp_path / "again").exists():
            raise KeyboardInterrupt
        return classify(loaded, data, *rest, **options)

    whole = suite.evaluate_suite(model(), "slip26", str(root))
    monkeypatch.setattr(suite, "classify", counting)
    with pytest.raises(KeyboardInterrupt):
        suite.evaluate_suite(model(), "slip26", str(root), out=str(out))
    assert done == ["wds_cifar10", "wds_vtab-pets", "wds_kinetics700"]
    assert json.loads(out.read_text())["results"].keys() == {"cifar10", "vtab/pets"}
    (tmp_path / "again").touch()
    del done[:]
    report = suite.evaluate_suite(model(), "slip26", str(root), out=str(out))
    assert done == ["wds_kinetics700", "hateful_memes"]
    assert report == json.loads(out.read_text()) == whole
    # Other names of classes, other images: that data set alone.
    (root / "wds_cifar10" / "classnames.txt").write_text("\n".join(["blue", *NAMES[1:]]))
    del done[:]
    report = suite.evaluate_suite(model(), "slip26", str(root), out=str(out))
    assert done == ["wds_cifar10"]
    assert report["results"]["cifar10"]["value"]["value"] == 0
    for changed, options in ((model(2.0), {}), (model(), {"suite": "vtab"})):
        values = {"suite": "slip26", **options}
        with pytest.raises(UserError, match="holds results of another evaluation"):
            suite.evaluate_suite(changed, values["suite"], str(root), out=str(out))
    (tmp_path / "plain.json").write_text('{"results": []}')
    with pytest.raises(UserError, match=r"plain\.json holds no report of a suite"):
        suite.evaluate_suite(model(), "slip26", str(root), out=str(tmp_path / "plain.json"))


def test_the_checksum_is_of_weights_and_preparation(root):
    first = suite.weights_of(model())
    assert first == suite.weights_of(model())
    assert first != suite.weights_of(model(1.5))
    other = dataclasses.replace(model(), preprocess=torch.nn.Identity())
    assert first != suite.weights_of(other)


FIELDS = [[0, 7], [0, 7], [1, 7], [1, 7], [1, 7], None]
GROUPED = [("red", 0), ("red", 0), ("red", 0), ("blue", 3), ("green", 1), ("red", 1)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wds_wilds-fmow_test", 2 / 3),
        ("wds_geode_test", 2 / 3),
        ("wds_dollar_street_test", 1.0),
        ("wds_wilds-camelyon17_test", 4 / 6),
        # Red: 2 * 3 / (3 + 4); green: 2 * 1 / (2 + 1); a: 0.
        ("wds_wilds-iwildcam_test", (6 / 7 + 2 / 3) / 3),
    ],
)
def test_the_metrics_of_datacomps_own_sets(tmp_path, name, value):
    write_tar(tmp_path / name, GROUPED, NAMES, FIELDS)
    report = suite.evaluate_suite(model(), "datacomp38", str(tmp_path))
    (result,) = report["results"].values()
    assert result["value"]["value"] == pytest.approx(value)
    grouped = "worst_group" in result["metric"]
    assert result["result"]["skipped"] == ({"no_group": 1} if grouped else {})
    assert report["missing"]["misc/winogavil"].startswith("it cannot be evaluated: no layout")
    assert len(report["missing"]) == 37


def test_a_data_set_without_the_groups_that_it_is_reported_by(tmp_path):
    write_tar(tmp_path / "fmow", GROUPED, NAMES)
    report = suite.evaluate_suite(model(), "datacomp38", str(tmp_path))
    assert "no image has its group" in report["missing"]["wilds/fmow"]
    assert report["mean"] is None


def test_whole_numbers_alone_are_fields(tmp_path):
    rows = [[1.0, 2.0], [1.5], [[1], [2]], ["a"], [float("nan")]]
    folder = write_tar(tmp_path / "d", [("red", 0)] * 6, NAMES, [*rows, None])
    with tarfile.open(folder / "1.tar", "w") as tar:
        add_member(tar, "0.png", png("red"))
        add_member(tar, "0.npy", b"\x80\x04no array")
    skipped: Any = datasets.Counter()
    found = [
        e.fields for tar in (folder / "test", folder) for e in datasets.examples(str(tar), skipped)
    ]
    assert found == [(1, 2), (), (), (), (), (), ()]
    assert skipped == {"broken_fields": 5}


@pytest.mark.parametrize("seed", range(3))
def test_the_macro_f1_is_scikit_learns(seed):
    sklearn = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    rng = np.random.default_rng(seed)
    labels, taken = rng.integers(6, size=50), rng.integers(8, size=50)
    found = metrics.macro_f1_estimate(taken, labels)
    expected = sklearn.f1_score(labels, taken, average="macro", labels=np.unique(labels))
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high


def test_the_worst_group_is_the_least_mean():
    rng = np.random.default_rng(0)
    hits, groups = rng.random(90) < 0.6, rng.integers(4, size=90)
    found = metrics.worst_group_estimate(hits, groups * 10 - 5)
    assert found.value == min(hits[groups == g].mean() for g in range(4))
    assert found.low <= found.value <= found.high


def in_folders(place: Path, classes: list[str], name: str) -> tuple[Any, str]:
    return texts_of(HELD[name], str(write_folders(place, classes)), None)


@pytest.mark.parametrize(
    ("name", "classes", "first", "source"),
    [
        ("mnist", [str(n) for n in range(10)], "0", "clip-benchmark"),
        ("vtab/svhn", [str(n) for n in range(10)], "zero", "clip-benchmark"),
        ("fer2013", ["angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"], "angry",
         "clip-benchmark"),
        # Folders with names of their own are not in the order of clip-benchmark's.
        ("vtab/flowers", ["anthurium", "rose"], "anthurium",
         "the folders' names, clip-benchmark, 2 classes instead of 102"),
        ("cifar10", list("abcdefghij"), "a", "the folders' names, clip-benchmark"),
        ("cifar10", list("abcdefghijk"), "a",
         "the folders' names, clip-benchmark, 11 classes instead of 10"),
        ("ucf101", ["Apply_Lipstick", "Archery"], "Apply Lipstick",
         "the folders' names, clip-benchmark's templates of ImageNet, 2 classes instead of 101"),
    ],
)  # fmt: skip
def test_where_class_names_are_from(package, tmp_path, name, classes, first, source):
    texts, found = in_folders(tmp_path / "d", classes, name)
    assert found == source
    assert texts.class_names[0] == first
    assert len(texts.classes) == len(classes)


@pytest.mark.parametrize(
    ("name", "classes", "why"),
    [
        ("imagenet-r", ["n01443537", "n01484850"], "there are no class names: put classnames.txt"),
        ("cifar10", ["0", "1"], "there are no class names: put classnames.txt beside the data$"),
        ("fer2013", ["0", "1"], "there are no class names"),  # of an order of its own
        ("imagenet1k", ["n01443537", "n01484850"], "it has 2 class folders, but 1,000 class names"),
    ],
)
def test_numbers_are_no_class_names(package, tmp_path, name, classes, why):
    with pytest.raises(NoNames, match=why):
        in_folders(tmp_path / "d", classes, name)


def test_without_the_package_it_is_named(without_package, tmp_path):
    write_folders(tmp_path / "mnist", ["0", "1"])
    write_folders(tmp_path / "country211", ["AD", "AE"])
    write_tar(tmp_path / "wds_gtsrb", [("red", 0)])
    write_folders(tmp_path / "food101", ["red", "green"])
    report = suite.evaluate_suite(model(), "slip26", str(tmp_path))
    for name in ("mnist", "country211", "gtsrb", "food101"):
        assert "(pip install --no-deps clip-benchmark)" in report["missing"][name]
    with pytest.raises(UserError, match="come from a package: install the package clip-benchmark"):
        suite.evaluate_suite(model(), "slip26", str(tmp_path), names_lang="de")


def test_names_in_a_language(package):
    german = names_in("de")
    assert german.numbers is not None
    assert (german.numbers[0], german.class_names[0]) == (0, "Schleie")
    assert len(german.classes) == len(german.numbers) < 1000
    assert german.numbers == tuple(sorted(set(german.numbers)))
    assert all("{}" in template for template in german.templates)
    assert "Schleie" in german.prompts(0)[0]
    assert names_in("cn").numbers is None
    assert len(names_in("cn").classes) == len(names_in("it").classes) == 1000
    assert len(names_in("babel-it").classes) < 1000
    for unknown in ("xx", "br"):  # Breton has names, and no templates
        with pytest.raises(UserError, match=r"there are no class names in it; known are af, am"):
            names_in(unknown)


def test_images_of_classes_that_the_language_has(package, tmp_path):
    """Class 8 (hen) has no German name; 7 (cock) and 1 (goldfish) have."""
    german = names_in("de")
    assert german.numbers is not None
    assert 8 not in german.numbers
    write_tar(tmp_path / "imagenet1k", [("red", 1), ("red", 8), ("red", 7), ("red", 1000)])
    write_tar(tmp_path / "cifar10", [("red", 0)], NAMES)
    report = suite.evaluate_suite(model(), "slip26", str(tmp_path), names_lang="de")
    assert report["missing"]["cifar10"] == "there are no class names in de for it"
    result = report["results"]["imagenet1k"]["result"]
    assert result["images"] == 2
    assert result["classes"] == len(german.classes)
    assert result["skipped"] == {"class_without_name": 2}


def test_an_image_is_told_from_the_named_classes_only(tmp_path):
    texts = datasets.ClassificationText((("blue",), ("red",)), ("{c}",), (5, 2))
    write_tar(tmp_path / "d", [("red", 2), ("blue", 5), ("green", 0), ("red", 5)])
    result = classify(model(), str(tmp_path / "d"), texts)
    assert result["top1"]["value"] == pytest.approx(2 / 3)
    assert result["skipped"] == {"class_without_name": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "slip26"], "give --root DIR with --suite"),
        ([], "give --data DIR, or --suite NAME with --root DIR"),
        (["--data", "d", "--root", "d"], "--root and --names-lang go with --suite"),
        (["--suite", "vtab", "--classnames", "x"], "--classnames does not go with --suite"),
        (["--suite", "vtab", "--data", "x"], "--data does not go with --suite"),
        (["--suite", "slip", "--root", "d"], "there is no --suite 'slip'; known are slip26"),
        (["--suite", "vtab", "--root", "nowhere"], "there is no folder nowhere with data sets"),
        (["--suite", "vtab", "--root", "."], "below . is no folder of any data set of --suite"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(tmp_path, monkeypatch, capsys, arguments, message):
    from metacurate import cli
    from metacurate.evaluation import zero_shot

    (tmp_path / "d" / "e").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zero_shot, "load_model", lambda *_, **__: model())
    with pytest.raises(SystemExit) as stopped:
        cli.main(["eval", "x.pt", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_shows_values_the_missing_and_the_published(root, monkeypatch):
    from metacurate.evaluation import zero_shot

    monkeypatch.setattr(zero_shot, "load_model", lambda *_, **__: model())
    command = ["eval", "x.pt", "--suite", "slip26", "--root", str(root)]
    shown = CliRunner().invoke(app, command, env={"COLUMNS": "150"})
    text = re.sub(r"\s+", " ", shown.stdout)
    assert re.search(r"CIFAR-10 top1 75\.0 [\d.]+ to 100\.0 4 the folder", text)
    assert "mean of 4 of 26 " in text
    assert "missing: 22 of 26" in text
    assert "there is no folder of it food101, cifar100, cub," in text
    assert "MetaCLIP 400M ViT-B/16 70.8 57.9" in text
    report = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert report["published"] == published.as_json()
    assert report["mean"]["n"] == 4
