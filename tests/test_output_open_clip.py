"""open_clip's own loaders (WebDataset and CSV) read what curation keeps."""

from __future__ import annotations

import csv
import io
import random
from argparse import Namespace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from test_output_formats import curate_tars

pytest.importorskip("torch", reason="needs the extra metacurate[train]")
Image = pytest.importorskip("PIL.Image", reason="needs the extra metacurate[train]")
openclip = pytest.importorskip(
    "metacurate.training.openclip", reason="needs the extra metacurate[train]"
)

NEWEST_WEBDATASET = (0, 2, 86)  # of which the loaders of open_clip 3.3 know the records


@pytest.fixture(scope="module")
def loaders() -> ModuleType:
    """``open_clip_train.data``; open_clip is imported first, the way training does it."""
    openclip.open_clip()
    reason = "open_clip's loaders need its extra: pip install 'open_clip_torch[training]'"
    pytest.importorskip("webdataset", reason=reason)
    found = version("webdataset")
    if tuple(map(int, found.split(".")[:3])) > NEWEST_WEBDATASET:
        pytest.skip(f"{reason} (webdataset {found} is too new for them)")
    return pytest.importorskip("open_clip_train.data", reason=reason)


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


def test_webdataset_loader(loaders: ModuleType, tmp_path: Path) -> None:
    kept, rows = curate_tars(tmp_path, jpeg)
    assert [path.name for path in kept.glob("*.tar")] == ["00000.tar"]
    tokenizer = openclip.open_clip().get_tokenizer("ViT-B-32")
    batches = len(rows) // 5
    data = loaders.get_wds_dataset(
        options(f"{kept}/{{00000..00000}}.tar", batches * 5),
        lambda image: image.resize((1, 1)).getpixel((0, 0)),
        is_train=True,
        tokenizer=tokenizer,
    )
    tokens = {
        (int(row["key"][:5]), int(row["key"][5:])): tokenizer(row["texts"][0]["text"])[0].tolist()
        for row in rows
    }
    seen = []
    for colours, texts in data.dataloader:
        assert len(colours) == len(texts) == 5
        for (red, green, _), text in zip(colours, texts, strict=True):
            sample = round(int(red) / 80), round(int(green) / 10)
            assert text.tolist() == tokens[sample]
            seen.append(sample)
    assert len(seen) == len(set(seen)) == batches * 5


def test_csv_loader(loaders: ModuleType, tmp_path: Path) -> None:
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
