"""Small pools of image-text pairs for the tests of training, evaluation and experiments."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from metacurate.pipeline import curate

WORDS = ("red", "green", "blue", "yellow", "cyan", "purple", "white", "black")
COLOURS = (
    (220, 30, 30), (30, 200, 40), (40, 60, 220), (230, 220, 40),
    (40, 210, 210), (150, 40, 180), (245, 245, 245), (15, 15, 15),
)  # fmt: skip
SHAPES = ("square", "disc")


def picture(colour: int, shape: int, generator: np.random.Generator, size: int = 16) -> bytes:
    """A PNG of a coloured shape with some noise."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inside = (
        (np.abs(x) < size * 0.3) & (np.abs(y) < size * 0.3) if shape == 0
        else x**2 + y**2 < (size * 0.42) ** 2
    )  # fmt: skip
    pixels = np.full((size, size, 3), 128.0)
    pixels[inside] = COLOURS[colour]
    pixels += generator.normal(0, 8, pixels.shape)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_pool(folder: Path, pairs: int, *, seed: int = 0, shards: int = 3) -> None:
    """Pairs of coloured shapes, long-tailed over colours (Zipf), a tenth with texts of noise."""
    generator = np.random.default_rng(seed)
    ranks = 1 / np.arange(1, len(WORDS) + 1)
    colours = generator.choice(len(WORDS), pairs, p=ranks / ranks.sum())
    shapes = generator.integers(len(SHAPES), size=pairs)
    rows = []
    for i in range(pairs):
        name = f"{WORDS[colours[i]]} {SHAPES[shapes[i]]}"
        texts = [f"a {name} on grey", f"{name} , seen from near", f"IMG_{i:05d}"]
        if i % 10 == 9:
            texts = [f"IMG_{i:05d}.PNG"]
        rows.append(
            {
                "url": f"https://example.org/{i}.png",
                "texts": texts,
                "image": picture(colours[i], shapes[i], generator),
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-pairs // shards)
    for number in range(shards):
        table = pa.Table.from_pylist(rows[number * size : (number + 1) * size])
        pq.write_table(table, folder / f"shard-{number}.parquet", row_group_size=64)


def write_images(folder: Path, images_a_class: int) -> list[str]:
    """A test set in clip-benchmark's layout, with as many images of every class; its names."""
    generator = np.random.default_rng(1)
    names = [f"{word} {shape}" for word in WORDS for shape in SHAPES]
    for number, name in enumerate(names):
        place = folder / f"{number:02d}"
        place.mkdir(parents=True)
        word, shape = name.split()
        for i in range(images_a_class):
            image = picture(WORDS.index(word), SHAPES.index(shape), generator)
            (place / f"{i}.png").write_bytes(image)
    (folder / "classnames.txt").write_text("\n".join(names))
    templates = "a {c} on grey\n{c} , seen from near\n"
    (folder / "zeroshot_classification_templates.txt").write_text(templates)
    return names


def curated(pool: Path, out: Path, t: float, seed: int = 0) -> Path:
    """Curate with the words of colours and shapes as metadata."""
    metadata = out.parent / "metadata.json"
    metadata.write_text(json.dumps([*WORDS, *SHAPES]))
    curate(str(pool), str(metadata), str(out), t=t, seed=seed, workers=1)
    return out


def write_tars(curated_folder: Path, out: Path) -> None:
    """The curated pairs as WebDataset tars in the layout of ``metacurate pool download``."""
    out.mkdir(parents=True)
    for number, shard in enumerate(sorted((curated_folder / "curated").glob("*.parquet"))):
        with tarfile.open(out / f"{number:05d}.tar", "w") as tar:
            for i, row in enumerate(pq.read_table(shard).to_pylist()):
                image = row.pop("image")
                row["uid"] = row["uid"].hex()
                key = f"{number:05d}{i:04d}"
                add_member(tar, f"{key}.png", image)
                add_member(tar, f"{key}.txt", row["texts"][0].encode())
                add_member(tar, f"{key}.json", json.dumps(row).encode())


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def kept_pairs(run: Path) -> dict[bytes, list[str]]:
    """The kept texts of each pair of a curated run, by uid."""
    rows: list[dict[str, Any]] = []
    for shard in sorted((run / "curated").glob("*.parquet")):
        rows += pq.read_table(shard).to_pylist()
    return {
        row["uid"]: [t for t, k in zip(row["texts"], row["text_kept"], strict=True) if k]
        for row in rows
    }
