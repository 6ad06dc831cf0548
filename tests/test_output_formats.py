"""What users do with the output: it opens as it is in the tools they have."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import metacurate
from conftest import EMOJI_POOL
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.engines.local import LocalEngine
from metacurate.webdataset.ingest import ingest
from metacurate.webdataset.reshard import reshard


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example pool, curated into several shards."""
    folder = tmp_path_factory.mktemp("curated") / "out"
    metacurate.curate(str(EMOJI_POOL), "wordnet", str(folder), t=10, workers=1)
    return folder


@pytest.fixture(scope="module")
def rows(out: Path) -> pa.Table:
    return pq.read_table(out / "curated")


def test_nothing_but_parquet(out: Path, rows: pa.Table) -> None:
    """Tools that are given the folder find nothing that they cannot read."""
    files = sorted((out / "curated").rglob("*"))
    assert len(files) == 4
    assert {file.suffix for file in files} == {".parquet"}
    schemas = [pq.read_schema(file) for file in files]
    assert all(schema.equals(rows.schema) for schema in schemas)
    assert rows.num_rows > 5000


def test_duckdb(out: Path, rows: pa.Table) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs the package duckdb")
    found = duckdb.sql(f"SELECT * FROM '{out}/curated/*.parquet' ORDER BY uid").fetchall()
    expected = rows.sort_by("uid").to_pylist()
    assert [dict(zip(rows.schema.names, row, strict=True)) for row in found] == expected
    metadata, counts = f"'{out}/metadata.parquet'", Counter(_kept_entries(rows))
    top = duckdb.sql(
        f"""
        WITH names AS (SELECT entry, row_number() OVER () - 1 AS id FROM {metadata}),
        texts AS (SELECT unnest(matched) AS ids, unnest(text_kept) AS kept
                  FROM '{out}/curated/*.parquet'),
        matches AS (SELECT unnest(ids) AS id FROM texts WHERE kept)
        SELECT entry, count(*) AS n FROM matches JOIN names USING (id)
        GROUP BY entry ORDER BY n DESC, entry LIMIT 10
        """
    ).fetchall()
    names = pq.read_table(out / "metadata.parquet")["entry"].to_pylist()
    by_name = {names[entry]: count for entry, count in counts.items()}
    assert top == sorted(by_name.items(), key=lambda item: (-item[1], item[0]))[:10]
    card = json.loads((out / "datacard.json").read_text())
    assert dict(top).items() <= card["entry_counts_kept"].items()


def _kept_entries(rows: pa.Table) -> list[int]:
    return [
        entry
        for row in rows.select(["matched", "text_kept"]).to_pylist()
        for ids, kept in zip(row["matched"], row["text_kept"], strict=True)
        if kept
        for entry in ids
    ]


def test_polars(out: Path, rows: pa.Table) -> None:
    polars = pytest.importorskip("polars", reason="needs the package polars")
    for frame in (
        polars.read_parquet(out / "curated"),
        polars.scan_parquet(f"{out}/curated/*.parquet").collect(),
    ):
        assert frame.to_dicts() == rows.to_pylist()
    sure = polars.scan_parquet(out / "curated").filter(polars.col("keep_prob") == 1.0)
    expected = sum(p == 1.0 for p in rows["keep_prob"].to_pylist())
    assert sure.select(polars.len()).collect().item() == expected


def test_table_for_the_csv_loader(out: Path, rows: pa.Table, tmp_path: Path) -> None:
    """The lines of docs/using-the-output.md that make open_clip's table."""
    polars = pytest.importorskip("polars", reason="needs the package polars")
    frame = polars.read_parquet(out / "curated").explode("texts", "text_kept")
    frame.filter("text_kept").select(
        filepath=polars.format("images/{}.jpg", polars.col("uid").bin.encode("hex")),
        title=polars.col("texts").struct.field("text"),
    ).write_csv(tmp_path / "train.tsv", separator="\t")
    with (tmp_path / "train.tsv").open(newline="") as file:
        found = list(csv.DictReader(file, delimiter="\t"))
    expected = [
        {"filepath": f"images/{row['uid'].hex()}.jpg", "title": text["text"]}
        for row in rows.to_pylist()
        for text, kept in zip(row["texts"], row["text_kept"], strict=True)
        if kept
    ]
    assert found == expected


def test_hugging_face_datasets(
    out: Path, rows: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    files = f"{out}/curated/*.parquet"
    arguments = {"data_files": files, "split": "train", "cache_dir": str(tmp_path)}
    loaded = datasets.load_dataset("parquet", **arguments)
    assert len(loaded) == rows.num_rows
    assert loaded[:100] == rows.slice(0, 100).to_pydict()
    streamed = datasets.load_dataset("parquet", streaming=True, **arguments)
    assert list(streamed.take(50)) == rows.slice(0, 50).to_pylist()
    whole = datasets.load_dataset(str(out / "curated"), split="train", cache_dir=str(tmp_path))
    assert len(whole) == rows.num_rows


def write_tars(folder: Path, image: Any, *, shards: int = 3, samples: int = 20) -> None:
    """Tars as img2dataset and ``metacurate pool download`` write them."""
    folder.mkdir()
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for sample in range(samples):
                key = f"{shard:05d}{sample:04d}"
                caption = "a photo of a dog" if sample % 4 else f"a zebra and {shard} cats"
                facts = {"url": f"https://a.example/{key}.jpg", "caption": caption, "key": key}
                for extension, data in (
                    ("jpg", image(shard, sample)),
                    ("txt", caption.encode()),
                    ("json", json.dumps(facts).encode()),
                ):
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def curate_tars(folder: Path, image: Any) -> tuple[Path, list[dict[str, Any]]]:
    """Tars of pairs, curated into tars of the kept ones; and the curated rows."""
    one = LocalEngine(1)
    write_tars(folder / "tars", image)
    ingest(str(folder / "tars"), str(folder / "pool"), engine=one)
    metacurate.curate(
        str(folder / "pool" / "pool"), "wordnet", str(folder / "out"), t=15, workers=1,
        pool_config=PoolConfig(),
    )  # fmt: skip
    reshard(
        [str(folder / "out" / "curated")], str(folder / "tars"), str(folder / "kept"), engine=one
    )
    kept = pq.read_table(folder / "out" / "curated").to_pylist()
    assert 15 <= len(kept) < 55
    return folder / "kept", kept


def test_webdataset(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset", reason="needs the package webdataset")
    kept, rows = curate_tars(tmp_path, lambda shard, sample: bytes([shard, sample]))
    urls = sorted(map(str, kept.glob("*.tar")))
    read = webdataset.WebDataset(urls, shardshuffle=False).to_tuple("__key__", "jpg", "txt")
    found = {key: (image, text.decode()) for key, image, text in read}
    assert found == {
        row["key"]: (bytes([int(row["key"][:5]), int(row["key"][5:])]), row["texts"][0]["text"])
        for row in rows
    }
