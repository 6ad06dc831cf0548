"""A pool with a long tail and its metadata, and what an error of the command line looks like."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ENTRIES = ["cat", "dog", "a", "a dog", "red", "of", "the cat", "on", "rare thing", "never there"]
WORDS = ["cat", "dog", "a", "red", "of", "the", "on", "mat", "rare thing", "zzz", "cat,"]


def make_pairs(rows: int, seed: int = 1) -> pa.Table:
    """Random long-tailed pairs with two texts each, some of them null or empty."""
    rng = random.Random(seed)
    weights = [1 / (i + 1) ** 1.5 for i in range(len(WORDS))]
    texts = [
        rng.choice([None, "", *[" ".join(rng.choices(WORDS, weights, k=rng.randrange(9)))] * 8])
        for _ in range(2 * rows)
    ]
    urls = [f"http://example.org/{i}.jpg" if i % 37 else None for i in range(rows)]
    return pa.table(
        {"url": urls, "alt": texts[::2], "title": texts[1::2], "width": list(range(rows))}
    )


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A pool of three files with several row groups each."""
    folder = tmp_path / "pool"
    folder.mkdir()
    table = make_pairs(3000)
    for i in range(3):
        part = table.slice(1000 * i, 1000)
        pq.write_table(part, folder / f"{i}.parquet", row_group_size=170)
    return folder


@pytest.fixture
def entries_file(tmp_path: Path) -> Path:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(ENTRIES))
    return path


OPTIONS = ("--text-col", "alt", "--text-col", "title", "--rows-per-unit", 340)


def fails(run: subprocess.CompletedProcess[str], *said: str) -> None:
    """Exit code 2 and one line that says all of this; no traceback."""
    assert run.returncode == 2, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("metacurate: error: ")
    assert "Traceback" not in run.stderr
    for words in said:
        assert words in last
