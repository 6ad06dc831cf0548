"""open_clip's own loaders (WebDataset and CSV) read what curation keeps."""

from __future__ import annotations

import csv
import io
import random
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest

from test_output_formats import curate_tars

pytest.importorskip("torch", reason="needs the extra metacurate[train]")
Image = pytest.importorskip("PIL.Image", reason="needs the extra metacurate[train]")
openclip = pytest.importorskip(
    "metacurate.training.openclip", reason="needs metacurate's training part"
)


@pytest.fixture(scope="module")
def loaders():  # type: ignore[no-untyped-def]
    """``open_clip_train.data``; imported the way training does it (see openclip.open_clip)."""
    openclip.open_clip()
    return pytest.importorskip(
        "open_clip_train.data", reason="open_clip's loaders need webdataset and pandas"
    )


def jpeg(shard: int, sample: int) -> bytes:
    """A plain picture whose colour tells which sample it is."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (80 * shard, 10 * sample, 99)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def options(data: str, samples: int) -> Namespace:
    return Namespace(
        train_data=data, train_num_samples=samples, train_data_upsampling_factors=None, seed=0,
        dataset_resampled=False, workers=0, world_size=1, batch_size=5, distributed=False,
        csv_img_key="filepath", csv_caption_key="title", csv_separator="\t",
    )  # fmt: skip


def test_webdataset_loader(loaders, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    kept, rows = curate_tars(tmp_path, jpeg)
    tars = sorted(kept.glob("*.tar"))
    assert tars == [kept / "00000.tar"]
    tokenizer = openclip.open_clip().get_tokenizer("ViT-B-32")
    batches = len(rows) // 5
    data = loaders.get_wds_dataset(
        options(f"{kept}/{{00000..00000}}.tar", batches * 5),
        lambda image: list(image.resize((1, 1)).getdata())[0],
        is_train=True,
        tokenizer=tokenizer,
    )
    seen: Counter[tuple[int, ...]] = Counter()
    for images, texts in data.dataloader:
        assert len(images) == 5 or len(images[0]) == 5
        seen.update(tuple(text.tolist()) for text in texts)
    captions = Counter(
        tuple(tokenizer(row["texts"][0]["text"])[0].tolist()) for row in rows
    )
    assert seen.total() == batches * 5
    assert seen <= captions


def test_csv_loader(loaders, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Images in files, and a table that names them: a few lines from the curated shards."""
    kept, rows = curate_tars(tmp_path, jpeg)
    assert kept.is_dir()
    with (tmp_path / "train.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["filepath", "title"])
        for row in rows:
            path = tmp_path / f"{row['key']}.jpg"
            path.write_bytes(jpeg(int(row["key"][:5]), int(row["key"][5:])))
            writer.writerow([path, row["texts"][0]["text"]])
    tokenizer = openclip.open_clip().get_tokenizer("ViT-B-32")
    dataset = loaders.CsvDataset(
        str(tmp_path / "train.tsv"), lambda image: image.size, "filepath", "title", "\t", tokenizer
    )
    assert len(dataset) == len(rows)
    position = random.Random(0).randrange(len(rows))
    size, tokens = dataset[position]
    assert size == (16, 16)
    expected = tokenizer(rows[position]["texts"][0]["text"])[0]
    assert tokens.tolist() == expected.tolist()


