"""What one process does alone does not grow with the number of files: it is a listing, or tasks."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import digests
from metacurate.commoncrawl.extract import ExtractConfig, extract_pool
from metacurate.curation import count
from metacurate.deduplication.dedup import DedupConfig, dedup
from metacurate.images.duplicates import mark_duplicates
from metacurate.images.filter import FilterConfig, filter_images
from metacurate.pipeline import curate
from metacurate.pool import open as opening
from metacurate.pool.columns import PAIRS
from metacurate.pool.identify import LanguageConfig, identify_languages
from metacurate.pool.open import open_pool
from metacurate.pool.schema import PoolConfig
from metacurate.runtime import storage
from metacurate.runtime.engines.local import LocalEngine
from metacurate.runtime.storage import Folder, read_ahead
from metacurate.webdataset import uid_list
from metacurate.webdataset.ingest import ingest
from metacurate.webdataset.reshard import reshard
from metacurate.webdataset.uid_list import write_uid_list

FILES = opening.FILES_ALONE + 1
STORE = "memory://growth"
TAR = (".tar", ".parquet")


class Begun(Exception):
    """The first tasks were handed over."""


class Stopped:
    """An engine at which a run ends."""

    def map_shards(self, function: Any, tasks: Sequence[Any]) -> Iterator[Any]:
        raise Begun(len(tasks))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the files of a store that are opened; the store has a snapshot's worth."""
    memory = fsspec.filesystem("memory")
    for number in range(FILES):
        for folder, kinds in (("", (".wat.gz", ".parquet")), ("tars/", TAR), ("unmarked/", TAR)):
            for kind in kinds:
                memory.pipe_file(f"/growth/{folder}{number:05d}{kind}", b"not looked at")
    memory.pipe_file(f"/growth/tars/duplicates/{FILES - 1:05d}.parquet", b"not looked at")
    found: list[str] = []
    real_open = type(memory)._open

    def noted_open(self: Any, path: str, mode: str = "rb", **options: Any) -> Any:
        if "r" in mode and not path.endswith(("manifest.json", ".lock")):
            found.append(path)
        return real_open(self, path, mode, **options)

    monkeypatch.setattr(type(memory), "_open", noted_open)
    yield found
    for name in [name for name in memory.store if name.startswith("/growth/")]:
        del memory.store[name]


ENTRIES = ["a cat"]
STAGES: dict[str, Callable[[str, Path], object]] = {
    "extract": lambda at, out: extract_pool([at], str(out), ExtractConfig(), engine=Stopped()),
    "language": lambda at, out: identify_languages(
        [at], str(out), LanguageConfig(), PoolConfig(), engine=Stopped()
    ),
    "dedup": lambda at, out: dedup(
        [at], str(out), DedupConfig(), PoolConfig(), engine=Stopped()
    ),
    "curate": lambda at, out: curate([at], ENTRIES, str(out), t=1, engine=Stopped()),
    "uids": lambda at, out: write_uid_list([at], f"{out}.npy", engine=Stopped()),
    "ingest": lambda at, out: ingest(f"{at}/tars", str(out), engine=Stopped()),
    "reshard": lambda at, out: reshard([at], f"{at}/tars", str(out), engine=Stopped()),
    "filter": lambda at, out: filter_images(
        f"{at}/tars", str(out), FilterConfig(drop_duplicates="exact"), engine=Stopped()
    ),
    "duplicates": lambda at, _: mark_duplicates(f"{at}/unmarked", engine=Stopped()),
}  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_opens_its_inputs_before_its_tasks(
    stage: str, opened: list[str], tmp_path: Path
) -> None:
    with pytest.raises(Begun):
        STAGES[stage](STORE, tmp_path / "out")
    assert opened == []


def write_pool(folder: Path, files: int) -> None:
    """Files of two kinds of columns, one of them partitioned, and one that cannot be used."""
    (folder / "lang=de").mkdir(parents=True)
    for number in range(files):
        rows = {"url": [f"http://a.example/{number}/{row}" for row in range(3)]}
        rows |= {"caption" if number % 3 else "text": ["a cat", "a dog", "a cat and a dog"]}
        place = folder / ("lang=de" if number % 5 == 0 else ".")
        pq.write_table(pa.table(rows), place / f"{number:03d}.parquet")
    (folder / "damaged.parquet").write_bytes(b"no Parquet")


def test_a_pool_looked_at_in_tasks_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pool(tmp_path / "pool", 20)
    alone = open_pool([str(tmp_path / "pool")], PoolConfig(), PAIRS)
    monkeypatch.setattr(opening, "FILES_ALONE", 3)
    monkeypatch.setattr(opening, "OPEN_FILES", 2)
    with LocalEngine(2) as engine:
        in_tasks = open_pool([str(tmp_path / "pool")], PoolConfig(), PAIRS, engine=engine)
    assert in_tasks == alone
    assert in_tasks.describe() == alone.describe()
    assert len({id(unit.columns) for unit in in_tasks.units}) < len(in_tasks.units)
    assert in_tasks.schema.equals(alone.schema, check_metadata=True)


def test_many_partials_and_parts_are_merged_in_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts, the data card and lists of uids: the same files, however many steps it takes."""
    write_pool(tmp_path / "pool", 11)
    names = ("counts.npy", "kept_counts.npy", "datacard.json", "manifest.json")

    def made(name: str) -> tuple[dict[str, str], bytes]:
        options: dict[str, Any] = {"engine": LocalEngine(1)}
        out = tmp_path / name
        curate(tmp_path / "pool", ["a cat", "dog", "none"], out, t=4, report=False, **options)
        write_uid_list([str(tmp_path / "pool" / "*.parquet")], f"{out}.npy", **options)
        return digests(out), Path(f"{out}.npy").read_bytes()

    (tmp_path / "pool" / "damaged.parquet").unlink()
    at_once, uids = made("at-once")
    monkeypatch.setattr(count, "MOST_PARTIALS", 2)
    monkeypatch.setattr(count, "PARTIALS_PER_SUM", 2)
    monkeypatch.setattr(uid_list, "MOST_PARTS", 2)
    monkeypatch.setattr(uid_list, "PARTS_PER_MERGE", 2)
    in_steps, uids_in_steps = made("in-steps")
    assert {name: in_steps[name] for name in names} == {name: at_once[name] for name in names}
    assert "state/counts/sums-2/part-000000.npy" in in_steps
    assert uids_in_steps == uids
    assert len(np.load(io.BytesIO(uids))) == 3 * (11 - 3)


def test_reading_ahead_keeps_order_and_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a remote folder only so many results wait, however slowly they are taken."""
    monkeypatch.setattr(storage, "READ_AHEAD", 4)
    asked: list[int] = []

    def names() -> Iterator[int]:
        for number in range(50):
            asked.append(number)
            yield number

    for taken, number in enumerate(read_ahead(Folder("memory://x"), lambda n: 2 * n, names())):
        assert number == 2 * taken
        assert len(asked) - taken <= 4
    assert len(asked) == 50
