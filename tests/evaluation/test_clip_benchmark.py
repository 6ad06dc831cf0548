"""Scores against clip-benchmark's own code, on the same weights and images, to the last image."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")
theirs = pytest.importorskip(
    "clip_benchmark.metrics.zeroshot_classification",
    reason="needs scikit-learn and clip-benchmark (pip install --no-deps clip-benchmark)",
)
from clip_benchmark.metrics import zeroshot_retrieval
from PIL import Image
from torch.utils.data import DataLoader

from metacurate.evaluation import metrics
from metacurate.evaluation.evaluate import evaluate
from metacurate.evaluation.zero_shot import LoadedModel
from metacurate.training.openclip import open_clip
from training_pools import add_member
from training_runs import SIZES

CLASSES = ["tench", "goldfish", "great white shark", "a hen", "ostrich", "brambling", "junco"]
TEMPLATES = ["a photo of a {c}.", "a bad photo of the {c}.", "{c}"]


@pytest.fixture(autouse=True)
def quiet_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def number(value: Any) -> float:
        return float(value) if isinstance(value, str) else value.item()

    # NumPy 2.5 no longer lets `float` have an array of one number, as clip-benchmark 1.6.2 asks.
    monkeypatch.setattr(theirs, "float", number, raising=False)
    monkeypatch.setattr(theirs, "tqdm", iter)
    monkeypatch.setattr(zeroshot_retrieval, "tqdm", iter)
    monkeypatch.setattr(metrics, "RESAMPLES", 50)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    torch.manual_seed(0)
    clip = open_clip()
    net = clip.model.CLIP(
        SIZES["embed_dim"], SIZES["vision_cfg"], SIZES["text_cfg"], quick_gelu=True
    )
    with torch.no_grad():  # at the start all texts are almost alike
        net.token_embedding.weight.mul_(50)
    tokenizer = clip.SimpleTokenizer(context_length=8)
    prepare = clip.image_transform(16, is_train=False)
    return LoadedModel(net.eval(), prepare, tokenizer, torch.device("cpu"), 16)


def pictures(n: int, seed: int) -> list[bytes]:
    """Blocks of colours: unlike enough for a random model to tell them apart."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        file = io.BytesIO()
        blocks = rng.integers(256, size=(4, 5, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((40, 32), Image.Resampling.NEAREST).save(file, "PNG")
        found.append(file.getvalue())
    return found


def write(folder: Path, samples: list[tuple[bytes, str, bytes]]) -> Path:
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as tar:
        for i, (image, ending, content) in enumerate(samples):
            add_member(tar, f"{i:04}.png", image)
            add_member(tar, f"{i:04}.{ending}", content)
    return folder


class Dataset(torch.utils.data.Dataset):
    """What clip-benchmark's functions take: prepared images, and a label or captions of each."""

    def __init__(self, model: LoadedModel, images: list[bytes], targets: list[Any]) -> None:
        opened = (Image.open(io.BytesIO(image)) for image in images)
        self.images = [model.preprocess(image.convert("RGB")) for image in opened]
        self.targets = targets
        self.classes = CLASSES

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return self.images[i], self.targets[i]


@pytest.mark.parametrize("classes", [7, 5, 2])
def test_classification(model, tmp_path, classes):
    images = pictures(60, classes)
    # Classes of very different sizes: the mean over classes is not the share of images.
    labels = (np.random.default_rng(9).random(60) ** 2 * classes).astype(int).tolist()
    data = write(
        tmp_path / "d",
        [(image, "cls", str(n).encode()) for image, n in zip(images, labels, strict=True)],
    )
    (data / "classnames.txt").write_text("\n".join(CLASSES[:classes]))
    (data / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES))
    dataset = Dataset(model, images, labels)
    dataset.classes = CLASSES[:classes]
    expected = theirs.evaluate(
        model.model, DataLoader(dataset, batch_size=16), model.tokenizer, dataset.classes,
        TEMPLATES, "cpu", amp=False,
    )  # fmt: skip
    found = evaluate(model, str(data))
    assert found["images"] == 60
    assert found["top1"]["value"] == expected["acc1"]
    assert found["mean_per_class"]["value"] == pytest.approx(expected["mean_per_class_recall"])
    assert 0 < expected["acc1"] < 1
    assert expected["mean_per_class_recall"] != pytest.approx(expected["acc1"])
    if classes >= 5:
        assert found["top5"]["value"] == expected["acc5"]
    else:
        assert "top5" not in found
        assert np.isnan(expected["acc5"])
    if classes == 2:
        from sklearn.metrics import roc_auc_score

        classifier = theirs.zero_shot_classifier(
            model.model, model.tokenizer, dataset.classes, TEMPLATES, "cpu", amp=False
        )
        logits, target = theirs.run_classification(
            model.model, classifier, DataLoader(dataset, batch_size=16), "cpu", amp=False
        )
        area = roc_auc_score(target, (logits[:, 1] - logits[:, 0]).numpy())
        assert found["roc_auc"]["value"] == pytest.approx(area, abs=1e-9)


def collate(batch: list[tuple[Any, list[str]]]) -> tuple[Any, list[list[str]]]:
    return torch.stack([image for image, _ in batch]), [captions for _, captions in batch]


def test_retrieval(model, tmp_path):
    images = pictures(12, 1)
    words: Iterator[tuple[str, ...]] = itertools.permutations(
        ("red", "boat", "two", "on", "grass", "old"), 4
    )
    captions = [[" ".join(next(words)) for _ in range(1 + i % 4)] for i in range(12)]
    lines = ["\n".join(own).encode() for own in captions]
    data = write(tmp_path / "d", [(i, "txt", text) for i, text in zip(images, lines, strict=True)])
    (data / "dataset_type.txt").write_text("retrieval")
    loader = DataLoader(Dataset(model, images, captions), batch_size=16, collate_fn=collate)
    expected = zeroshot_retrieval.evaluate(
        model.model, loader, model.tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )
    found = evaluate(model, str(data))
    assert (found["images"], found["captions"]) == (12, 30)
    both = []
    for k in (1, 5, 10):
        ours = found["text_to_image"][f"recall_at_{k}"]["value"]
        assert ours == pytest.approx(expected[f"image_retrieval_recall@{k}"])
        both.append(ours)
        ours = found["image_to_text"][f"recall_at_{k}"]["value"]
        assert ours == pytest.approx(expected[f"text_retrieval_recall@{k}"])
        both.append(ours)
    assert 0 < both[0] < both[2] < both[4]
    mean = (expected["image_retrieval_recall@1"] + expected["text_retrieval_recall@1"]) / 2
    assert found["mean_recall_at_1"]["value"] == pytest.approx(mean)
