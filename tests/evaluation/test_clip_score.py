"""``clip-score`` against open_clip's own forward pass."""

from __future__ import annotations

import io
import json
import math
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from PIL import Image

from metacurate.errors import UserError
from metacurate.evaluation.clip_score import open_scorer
from metacurate.images.filter import FilterConfig, Rule, filter_images
from metacurate.images.scorers import load_scorer
from metacurate.training.openclip import open_clip
from metacurate.training.trainer import train
from training_pools import add_member, curated, write_pool
from training_runs import SIZES, config

ROWS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scorer")
    write_pool(folder / "pool", 60)
    run = curated(folder / "pool", folder / "matched", math.inf)
    train(config(run, seen_pairs=32), str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="module")
def rows(model: Path) -> list[dict[str, Any]]:
    return pq.read_table(model.parent / "pool").to_pylist()[:ROWS]


def plain_scores(model: Path, image: bytes, texts: list[str]) -> list[float]:
    """By open_clip alone: its model, its preprocessing, its tokenizer, its normalised features."""
    sizes = json.loads((model / "model.json").read_text())
    assert sizes == SIZES
    clip = open_clip()
    net = clip.model.CLIP(
        sizes["embed_dim"], sizes["vision_cfg"], sizes["text_cfg"], quick_gelu=True
    )
    net.load_state_dict(torch.load(model / "final.pt", weights_only=True)["state_dict"])
    net.eval()
    prepare = clip.image_transform(16, is_train=False)
    tokens = clip.SimpleTokenizer(context_length=8)(texts)
    with torch.no_grad():
        picture = net.encode_image(
            prepare(Image.open(io.BytesIO(image)).convert("RGB"))[None], normalize=True
        )
        words = net.encode_text(tokens, normalize=True)
    return (words @ picture[0]).tolist()


def test_scores_are_open_clips_cosines_for_each_text_and_their_best(model, rows, tmp_path):
    tars = tmp_path / "tars"
    tars.mkdir()
    with tarfile.open(tars / "00000.tar", "w") as tar:
        for i, row in enumerate(rows):
            image = row.pop("image") if i != 3 else b"no picture"
            texts = [*row["texts"], " "] if i % 2 else None
            add_member(tar, f"{i:09d}.png", image)
            if texts is None:
                add_member(tar, f"{i:09d}.txt", row["texts"][0].encode())
            record = {"key": f"{i:09d}", **({} if texts is None else {"texts": texts})}
            add_member(tar, f"{i:09d}.json", json.dumps(record).encode())
            row |= {"image": image, "used": texts or row["texts"][:1]}
    scorer = f"clip-score:{model}"
    filter_images(str(tars), str(tmp_path / "all"), FilterConfig(scorers=(scorer,)), workers=1)
    found = pq.read_table(tmp_path / "all" / "00000.parquet").to_pylist()
    expected = []
    for i, (row, of) in enumerate(zip(rows, found, strict=True)):
        if i == 3:
            assert of["clip_score"] is None
            continue
        texts = [text for text in row["used"] if text.strip()]
        scores = plain_scores(model, row["image"], texts)
        own = [score for score in of["clip_scores"] if score is not None]
        assert own == pytest.approx(scores, abs=1e-5)
        assert len(of["clip_scores"]) == len(row["used"])
        assert of["clip_score"] == max(own)
        expected.append(of["clip_score"])
    middle = sorted(expected)[len(expected) // 2]
    totals = filter_images(
        str(tars), str(tmp_path / "best"),
        FilterConfig(scorers=(scorer,), keep=(Rule("clip_score", ">=", middle),)), workers=1,
    )  # fmt: skip
    assert totals["successes"] == sum(score >= middle for score in expected)


def test_an_experiments_scorer_is_the_model_that_is_there_now(model, tmp_path):
    """A folder that was trained again is read again."""
    shutil.copytree(model, tmp_path / "model")
    before = open_scorer(str(tmp_path / "model")).text_features(["a red disc"])
    saved = torch.load(model / "final.pt", weights_only=True)
    for tensor in saved["state_dict"].values():
        if tensor.is_floating_point():
            tensor.add_(torch.linspace(0, 1, tensor.numel()).reshape(tensor.shape))
    torch.save(saved, tmp_path / "model" / "final.pt")
    after = open_scorer(str(tmp_path / "model")).text_features(["a red disc"])
    assert not torch.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize("place", ["user@host/model", "ViT-B-32@model"])
def test_a_folder_may_have_the_mark_of_an_architecture_in_its_path(model, tmp_path, place):
    shutil.copytree(model, tmp_path / place)
    texts = ["a red disc"]
    expected = open_scorer(str(model)).text_features(texts)
    assert torch.equal(open_scorer(str(tmp_path / place)).text_features(texts), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip-score", "clip-score needs a model"),
        ("clip-score:", "clip-score needs a model"),
        ("clip-score:ViT-B-32@no/such/file", "no/such/file is neither a file"),
        ("clip-score:ViT-B-32@no@such", "^no@such is neither a file"),
        ("clip-score:no/such/folder", "no/such/folder is no folder; a model is ARCHITECTURE@"),
        (f"clip-score:{__file__}", "is a file of no known architecture; a model is ARCHITECTURE@"),
        ("clip-scores:model", "cannot be loaded"),
    ],
)
def test_what_is_no_model_is_named(name, message):
    with pytest.raises(UserError, match=message):
        load_scorer(name)([], []) if name == "clip-score" else load_scorer(name)
