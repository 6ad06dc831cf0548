"""What training sees is what curation kept: each road from a pool to a loader, end to end.

Pairs have three texts each, of which any of the eight subsets match the metadata. Whatever way the
pool holds them and whatever way the pairs take, a loader gives texts that curation kept, all of
them in time, with the image of their own pair.
"""

from __future__ import annotations

import functools
import io
import json
import math
from argparse import Namespace
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("torch", reason="needs the extra metacurate[train]")
Image = pytest.importorskip("PIL.Image", reason="needs the extra metacurate[train]")

from hostile_server import HostileServer, encoded, photo
from metacurate.images.download import DownloadConfig, download
from metacurate.images.fetch import FetchConfig
from metacurate.images.process import ImageConfig
from metacurate.images.urltable import ColumnNames
from metacurate.pipeline import curate
from metacurate.pool.schema import TEXTS_TYPE, PoolConfig
from metacurate.runtime.engines.local import LocalEngine
from metacurate.training.openclip import open_clip
from metacurate.training.select import Curated, DataConfig, PairSource
from metacurate.training.shards import ShardsConfig
from metacurate.webdataset.ingest import ingest
from metacurate.webdataset.reshard import reshard

PAIRS, TEXTS = 16, 3
EPOCHS = 20
COLUMNS = ("alt", "caption", "title")
NEWEST_WEBDATASET = (0, 2, 86)  # of which the loaders of open_clip 3.3 know the records
DOWNLOAD = DownloadConfig(
    images=ImageConfig(size=64, min_size=4),
    fetch=FetchConfig(per_host=32, retries=1, allow_networks=("127.0.0.1/32",)),
    samples_per_shard=6,
)


def matches(pair: int, place: int) -> bool:
    return bool(pair >> place & 1)


def text(pair: int, place: int) -> str:
    return f"{'a dog' if matches(pair, place) else 'nothing'} , {pair} {place}"


KEPT = {
    pair: [text(pair, place) for place in range(TEXTS) if matches(pair, place)]
    for pair in range(PAIRS)
    if pair % 8
}


def texts_as(layout: str) -> dict[str, pa.Array]:
    """The pool's columns of texts: the same texts in the same order, held in different ways."""
    texts = [[text(pair, place) for place in range(TEXTS)] for pair in range(PAIRS)]
    decoys = pa.array([["a dog that is no text of the pair"]] * PAIRS)
    columns = {name: pa.array([of[i] for of in texts]) for i, name in enumerate(COLUMNS)}
    structs = [[{"source": "alt", "text": t, "lang": "en"} for t in of] for of in texts]
    return {
        "structs": {"texts": pa.array(structs, TEXTS_TYPE)},
        "triples": {"texts": pa.array([[["alt", t, "en"] for t in of] for of in texts])},
        "list column": {"captions": pa.array(texts)},
        "columns beside texts": {**columns, "texts": decoys},
    }[layout]


@dataclass(frozen=True)
class Case:
    """A pool and its curated run, with what names its texts."""

    pool: Path
    run: Path
    text_cols: tuple[str, ...]


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


@pytest.fixture(scope="module")
def case(request: Any, server: HostileServer, tmp_path_factory: Any) -> Case:
    folder = tmp_path_factory.mktemp("case")
    columns = {
        "url": pa.array([server.url(f"photo/{i}.jpg") for i in range(PAIRS)]),
        "image": pa.array([encoded(photo(i), "PNG") for i in range(PAIRS)]),
        **texts_as(request.param),
    }
    pq.write_table(pa.table(columns), folder / "pool.parquet", row_group_size=5)
    text_cols = COLUMNS if request.param.startswith("columns") else ()
    curated(folder / "pool.parquet", folder / "run", text_cols)
    return Case(folder / "pool.parquet", folder / "run", text_cols)


def curated(pool: Path, out: Path, text_cols: tuple[str, ...] = ()) -> None:
    curate(
        str(pool), str(metadata(out.parent)), str(out), t=math.inf, workers=1, report=False,
        pool_config=PoolConfig(text_cols=text_cols),
    )  # fmt: skip


def metadata(folder: Path) -> Path:
    path = folder / "metadata.json"
    path.write_text(json.dumps(["dog"]))
    return path


def downloaded(source: Path, out: Path, text_cols: tuple[str, ...] = ()) -> Path:
    columns = ColumnNames(texts=text_cols)
    config = DownloadConfig(columns, DOWNLOAD.images, DOWNLOAD.fetch, samples_per_shard=6)
    assert download(str(source), str(out), config, workers=1)["failed_to_download"] == 0
    return out


def by_parquet(case: Case) -> Path:
    return case.run / "curated"


def by_download(case: Case) -> Path:
    return downloaded(case.run, case.pool.parent / "downloaded")


def by_reshard(case: Case) -> Path:
    """The images of all pairs first, then curation of the tars."""
    folder = case.pool.parent
    one = LocalEngine(1)
    tars = downloaded(case.pool, folder / "tars", case.text_cols)
    ingest(str(tars), str(folder / "ingested"), engine=one)
    curated(folder / "ingested" / "pool", folder / "run of tars")
    reshard([str(folder / "run of tars" / "curated")], str(tars), str(folder / "kept"), engine=one)
    return folder / "kept"


CASES = [
    (layout, road)
    for layout in ("structs", "triples", "list column", "columns beside texts")
    for road in (by_parquet, by_download, by_reshard)
    if road is not by_reshard or layout in ("structs", "columns beside texts")
]


def shown(image: Any) -> int:
    """Which pair's picture it is."""
    small = np.asarray(image.convert("RGB").resize((8, 6)), np.int64)
    return int(np.abs(photos() - small).sum(axis=(1, 2, 3)).argmin())


@functools.cache
def photos() -> Any:
    return np.stack([np.asarray(photo(i).resize((8, 6)), np.int64) for i in range(PAIRS)])


@pytest.mark.parametrize(("case", "road"), CASES, indirect=["case"])
def test_the_loader_gives_all_that_curation_kept_and_nothing_else(case: Case, road: Any) -> None:
    source = PairSource(
        DataConfig(ShardsConfig((str(road(case)),)), Curated(), 4, 8, streams=2, shuffle_block=4)
    )
    uids = {row["uid"]: row["url"] for row in pq.read_table(case.run / "curated").to_pylist()}
    found: dict[int, set[str]] = defaultdict(set)
    for epoch in range(EPOCHS):
        skipped: Any = defaultdict(int)
        pairs = [
            pair
            for unit in range(epoch * source.units, (epoch + 1) * source.units)
            for pair in source.unit_pairs(unit, skipped)
        ]
        assert not {reason: n for reason, n in skipped.items() if n}
        numbers = [shown(Image.open(io.BytesIO(pair.image))) for pair in pairs]
        assert sorted(numbers) == sorted(KEPT)  # each pair once an epoch
        for number, pair in zip(numbers, pairs, strict=True):
            assert uids[pair.uid].endswith(f"/photo/{number}.jpg")
            found[number].add(pair.text)
    # A text of three is not seen in 20 epochs once in 3,300 (the draws depend on the port).
    assert all(texts <= set(KEPT[number]) for number, texts in found.items())
    assert sum(map(len, found.values())) >= sum(map(len, KEPT.values())) - 1


@pytest.fixture(scope="module")
def loaders() -> ModuleType:
    """``open_clip_train.data``; open_clip is imported first, the way training does it."""
    open_clip()
    reason = "open_clip's loaders need its extra: pip install 'open_clip_torch[training]'"
    pytest.importorskip("webdataset", reason=reason)
    if tuple(map(int, version("webdataset").split(".")[:3])) > NEWEST_WEBDATASET:
        pytest.skip(reason)
    return pytest.importorskip("open_clip_train.data", reason=reason)


@pytest.mark.parametrize(
    ("case", "road"), [case for case in CASES if case[1] is not by_parquet], indirect=["case"]
)
def test_open_clips_own_loader_gives_the_first_text_that_curation_kept(
    case: Case, road: Any, loaders: ModuleType
) -> None:
    tars = sorted(map(str, road(case).glob("*.tar")))
    assert [Path(tar).name for tar in tars] == [f"{i:05d}.tar" for i in range(len(tars))]
    options = Namespace(
        train_data="::".join(tars), train_num_samples=len(KEPT), dataset_resampled=False, seed=0,
        train_data_upsampling_factors=None, workers=0, world_size=1, batch_size=1,
        distributed=False,
    )  # fmt: skip
    data = loaders.get_wds_dataset(options, shown, is_train=True, tokenizer=lambda t: [t])
    found = {int(number[0]): caption[0] for number, caption in data.dataloader}
    assert found == {number: texts[0] for number, texts in KEPT.items()}
