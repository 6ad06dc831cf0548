"""XM3600's retrieval by locale and CVQA's questions, on colours and the texts that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from PIL import Image

from metacurate.errors import UserError
from metacurate.evaluation import metrics
from metacurate.evaluation.evaluate import estimates, evaluate
from metacurate.evaluation.zero_shot import LoadedModel
from training_pools import add_member

COLOURS = {
    "red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250), "teal": (10, 250, 250),
}  # fmt: skip


class ColourModel:
    """Images as their mean colour, texts as the first colour that they name: exact answers."""

    def __init__(self, value: float = 1.0) -> None:
        self.value = value

    def encode_image(self, images: Any) -> Any:
        return images * self.value

    def encode_text(self, tokens: Any) -> Any:
        return tokens


def tokens(texts: list[str]) -> Any:
    named = [next(c for w, c in COLOURS.items() if w in text) for text in texts]
    return torch.tensor(np.array(named), dtype=torch.float32)


def model(value: float = 1.0) -> LoadedModel:
    def mean_colour(image: Any) -> Any:
        return torch.tensor(np.asarray(image, dtype=np.float32).mean(axis=(0, 1)))

    return LoadedModel(ColourModel(value), mean_colour, tokens, torch.device("cpu"), 3)


def colour(name: str, file: Any, kind: str = "PNG") -> None:
    Image.new("RGB", (8, 8), COLOURS[name]).save(file, kind)


def jpeg(place: Path, name: str) -> None:
    place.parent.mkdir(exist_ok=True, parents=True)
    colour(name, place, "JPEG")


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    """Four images and one that is missing; in Thai a text is wrong and an image has none."""
    records = {
        "a1": ("red", {"de": ["red", "a red"], "th": ["red"]}),
        "b2": ("green", {"de": ["green"], "th": ["blue"]}),
        "c3": ("blue", {"de": ["blue", "red\u2028too"], "th": ["blue"]}),
        "d4": ("teal", {"de": ["teal"], "th": []}),
        "e5": (None, {"de": ["red"], "th": ["red"]}),
    }
    lines = []
    for key, (name, texts) in records.items():
        if name is not None:
            jpeg(tmp_path / "images" / f"{key}.jpg", name)
        captions = {locale: {"caption": own} for locale, own in texts.items()}
        record = {"image/key": key, "image/locale": "de", **captions}
        lines.append(json.dumps(record, ensure_ascii=False))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_xm3600_by_locale_and_its_means(captioned):
    result = evaluate(model(), str(captioned), task="xm3600")
    assert (result["images"], result["skipped"]) == (4, {"missing_image": 1})
    values = {name: e["value"] for name, e in estimates(result)}
    # German: "red too" of the blue image finds the red one. Thai: the teal image is left out; the
    # blue image's text and the green one's are the same, so both are behind nothing: ties.
    assert values == {
        "locales de image_to_text recall_at_1": pytest.approx(3 / 4),
        "locales de text_to_image recall_at_1": pytest.approx(5 / 6),
        "locales th image_to_text recall_at_1": pytest.approx(1 / 3),
        "locales th text_to_image recall_at_1": pytest.approx(2 / 3),
        "mean image_to_text recall_at_1": pytest.approx((3 / 4 + 1 / 3) / 2),
        "mean text_to_image recall_at_1": pytest.approx((5 / 6 + 2 / 3) / 2),
    }
    for name, e in estimates(result):
        assert e["low"] <= e["value"] <= e["high"], name


def test_a_locale_of_xm3600_is_retrieval(captioned, tmp_path):
    """Which is held to clip-benchmark's own functions."""
    import io
    import tarfile

    result = evaluate(model(), str(captioned), task="xm3600")["locales"]["de"]
    (tmp_path / "wds").mkdir()
    with tarfile.open(tmp_path / "wds" / "0.tar", "w") as tar:
        texts = ["red\na red", "green", "blue\nred too", "teal"]
        for i, (name, text) in enumerate(zip(COLOURS, texts, strict=True)):
            file = io.BytesIO()
            colour(name, file)
            add_member(tar, f"{i}.png", file.getvalue())
            add_member(tar, f"{i}.txt", text.encode())
    whole = evaluate(model(), str(tmp_path / "wds"), task="retrieval")
    for way in ("image_to_text", "text_to_image"):
        assert result[way]["recall_at_1"]["value"] == whole[way]["recall_at_1"]["value"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 6, is no record of XM3600"),
        ("[]", "line 6, is no record of XM3600"),
        ('{"de": {"caption": ["red"]}}', "line 6, is no record of XM3600"),
        ('{"image/key": "../../a", "de": {"caption": ["red"]}}', "key is no name of an image"),
    ],
)
def test_a_broken_record_is_named(captioned, line, said):
    with (captioned / "captions.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=said):
        evaluate(model(), str(captioned), task="xm3600")


def question(image: Any, options: list[str], label: Any, subset: str, **more: Any) -> dict:
    return {
        "image": {"bytes": image, "path": None}, "Question": "What is it?", "Options": options,
        "Translated Question": "And this?", "Translated Options": [*options[:-1], "teal"],
        "Label": label, "Subset": subset, **more,
    }  # fmt: skip


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    import io

    def png(name: str) -> bytes:
        file = io.BytesIO()
        colour(name, file)
        return file.getvalue()

    options = ["red", "green", "blue", "teal"]
    rows = [
        question(png("green"), options, 1, "Thai"),
        question(png("teal"), options, 3, "Thai"),
        question(png("red"), ["blue", "red", "red", "teal"], 2, "Breton"),  # the first of equals
        question(png("blue"), ["red", "green", "teal", "blue"], 3, "Breton"),
        question(png("red"), options, 4, "Breton"),
        question(png("red"), [], 0, "Breton"),
        question(None, options, 0, "Breton"),
        question(b"no image", options, 0, "Breton"),
    ]
    (tmp_path / "data").mkdir()
    for number, part in enumerate((rows[:3], rows[3:])):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / "data" / f"test-{number}.parquet")
    return tmp_path


def test_cvqa_as_it_is_asked_and_translated(questions):
    result = evaluate(model(), str(questions), task="cvqa")
    values = {name: e["value"] for name, e in estimates(result)}
    # Translated, the last option is teal: the blue image's own is lost.
    assert values == {
        "local": 3 / 4,
        "english": 2 / 4,
        "subsets Breton local": 1 / 2,
        "subsets Breton english": 0,
        "subsets Thai local": 1,
        "subsets Thai english": 1,
    }
    assert result["skipped"] == {"broken_question": 2, "missing_image": 1, "not_an_image": 1}
    assert evaluate(model(float("nan")), str(questions), task="cvqa")["local"]["value"] == 0


def test_what_is_no_cvqa(questions, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no Parquet file with CVQA's questions"):
        evaluate(model(), str(tmp_path / "empty"), task="cvqa")
    (questions / "data" / "test-0.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(UserError, match=r"test-0\.parquet cannot be read"):
        evaluate(model(), str(questions), task="cvqa")
    pq.write_table(pa.table({"image": [b""]}), questions / "data" / "test-0.parquet")
    with pytest.raises(UserError, match=r"test-0\.parquet lacks CVQA's columns Label, Subset"):
        evaluate(model(), str(questions), task="cvqa")


def test_a_mean_of_shares_is_over_those_that_a_resample_has():
    right, of = np.array([[1.0, 0, 0], [0, 2, 1]]), np.array([[1.0, 0, 0], [1, 2, 1]])
    found = metrics.mean_of_shares_estimate(right, of)
    assert found.value == (1 + 3 / 4) / 2
    assert 0 <= found.low < found.value < found.high <= 1
    assert found.n == 3
