"""The roads that people come by, from end to end: their files in, what they go on with out.

The official scripts' files to a subset and its card; a folder of img2dataset to tars; a data set in
memory to one; DataComp's shards to a list of uids for its resharder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import metacurate as mc
import webdataset
from conftest import Command
from curation_pools import ENTRIES, fails
from hostile_server import encoded, photo

WORDS = ["cat", "dog", "a", "red", "of", "the", "on", "mat", "rare thing", "zzz", "cat,"]
WEIGHTS = [1 / (place + 1) ** 1.5 for place in range(len(WORDS))]


def captions(number: int, seed: int) -> list[str]:
    """Texts with a long tail of entries."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, WEIGHTS, k=rng.randrange(1, 9))) for _ in range(number)]


def matched_ids(text: str) -> list[int]:
    """The entries of a text by the published rule: sub-strings between spaces."""
    spaced = f" {text} ".replace(",", " , ")
    return [number for number, entry in enumerate(ENTRIES) if f" {entry} " in spaced]


def kept_for_sure(ids: Iterable[int], counts: np.ndarray, t: float) -> float:
    return float(1 - np.prod([1 - min(1, t / counts[number]) for number in ids]))


# The official scripts.


def write_official(root: Path) -> list[dict[str, Any]]:
    """Their folder: the metadata, the counts of 400M, and what they matched in two archives."""
    folder = root / "data/CC/matched"
    folder.mkdir(parents=True)
    (root / "metadata.json").write_text(json.dumps(ENTRIES))
    texts = iter(captions(1200, 1))
    records = []
    for number in range(600):
        url = f"https://example.org/{number}.jpg"
        of_url = ((attribute, next(texts)) for attribute in ("alt", "title"))
        listed = [[attribute, text, matched_ids(text)] for attribute, text in of_url]
        listed = [one for one in listed if one[2]]  # the scripts drop texts without a match
        if listed:
            uuid = hashlib.sha224(url.encode()).hexdigest()[:24]
            records.append({"uuid": uuid, "url": url, "texts": listed})
    for place, part in enumerate((records[:300], records[300:])):
        name = f"CC-MAIN-2018042008140{place}-00000.warc.gz.json"
        (folder / name).write_text(json.dumps(part))
    ids = np.concatenate([one[2] for record in records for one in record["texts"]])
    counts = 10 * np.bincount(ids, minlength=len(ENTRIES))
    by_entry = dict(zip(ENTRIES, counts.tolist(), strict=True))
    (root / "entry_counts_400m.json").write_text(json.dumps(by_entry))
    return records


@pytest.mark.parametrize("counts", ["own", "entry_counts_400m.json"])
def test_official_files_to_a_subset_and_its_card(
    counts: str,
    metacurate: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offline_datasets: ModuleType,
) -> None:
    monkeypatch.chdir(tmp_path)
    records = write_official(tmp_path)
    given = [] if counts == "own" else ["--counts", counts]
    done = metacurate("curate", "data/CC/matched", "--metadata", "metadata.json", "--t", 150,
                      "--out", "run", "--no-report", "--workers", 1, *given)  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = metacurate("card", "run", "--license", "cc-by-4.0", "--repo", "me/pairs")
    assert done.returncode == 0, done.stderr

    # The scripts' own ids give the same counts and probabilities.
    ids = [one[2] for record in records for one in record["texts"]]
    counted = np.bincount(np.concatenate(ids), minlength=len(ENTRIES))
    by = counted if counts == "own" else 10 * counted
    assert np.array_equal(np.load("run/counts.npy"), by)
    kept = offline_datasets.load_dataset("run", split="train", cache_dir=str(tmp_path / "cache"))
    by_uuid = {record["uuid"]: record for record in records}
    assert 0 < len(kept) < len(records)
    for row in kept:
        record = by_uuid[row["uuid"]]
        assert row["url"] == record["url"]
        assert row["matched"] == [one[2] for one in record["texts"]]
        every = [number for one in record["texts"] for number in one[2]]
        assert row["keep_prob"] == pytest.approx(kept_for_sure(every, by, 150))
    expected = [
        kept_for_sure([n for one in record["texts"] for n in one[2]], by, 150) for record in records
    ]
    assert abs(len(kept) - sum(expected)) < 5 * np.sqrt(len(records) / 4)
    card = Path("run/README.md").read_text(encoding="utf-8")
    assert f"| kept | {len(kept):,} |" in card
    assert 'load_dataset("me/pairs"' in card
    if counts == "own":  # what those who balance twice look at
        assert metacurate("diff", "run", "entry_counts_400m.json", "--json").returncode == 0


# img2dataset, and DataComp's shards, which it wrote.


def img2dataset_writer() -> ModuleType:
    """Its module that writes shards, without what the rest of the package asks for."""
    found = importlib.util.find_spec("img2dataset")
    if found is None or found.origin is None:
        pytest.skip("needs the package img2dataset (--no-deps)")
    spec = importlib.util.spec_from_file_location(
        "img2dataset_writer", Path(found.origin).with_name("writer.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TEXTS = ("key", "status", "error_message", "exif", "sha256")
SIZES = ("width", "height", "original_width", "original_height")
ADDED = {**dict.fromkeys(TEXTS, pa.string()), **dict.fromkeys(SIZES, pa.int32())}


def write_shards(folder: Path, rows: list[dict[str, Any]], size: int, digits: int) -> list[str]:
    """The shards that img2dataset's download writes for these rows; every seventh one fails.

    A row's further columns are those of ``save_additional_columns``. Returns each row's key.
    """
    writer = img2dataset_writer().WebDatasetSampleWriter
    folder.mkdir()
    schema = pa.schema({**dict.fromkeys(rows[0], pa.string()), **ADDED})
    keys = []
    for shard in range(-(-len(rows) // size)):
        shard_rows = list(enumerate(rows[shard * size : (shard + 1) * size]))
        found = [f"{shard:0{digits}d}{place:04d}" for place, _ in shard_rows]
        keys += found
        made = writer(shard, str(folder), True, digits, schema, "jpg")
        random.Random(shard).shuffle(shard_rows)  # they are written as they come in
        lost = 0
        for place, row in shard_rows:
            facts = {**row, **dict.fromkeys(ADDED), "key": found[place]}
            image = None
            if int(found[place]) % 7 == 3:
                lost += 1
                facts |= {"status": "failed_to_download", "error_message": "HTTP Error 404"}
            else:
                image = encoded(photo(place), quality=50)
                facts |= {"status": "success", "width": 96, "height": 64, "original_width": 960,
                          "original_height": 640, "exif": "{}",
                          "sha256": hashlib.sha256(image).hexdigest()}  # fmt: skip
            made.write(image, found[place], row["caption"], facts)
        made.close()
        done = len(shard_rows) - lost
        stats = {"count": len(shard_rows), "successes": done, "failed_to_download": lost,
                 "failed_to_resize": 0, "duration": 1.5, "start_time": 1.0, "end_time": 2.5,
                 "status_dict": {"success": done, "HTTP Error 404": lost}}  # fmt: skip
        name = f"{shard:0{digits}d}_stats.json"
        (folder / name).write_text(json.dumps(stats, indent=4))
    return keys


def test_img2datasets_folder_to_a_subset_in_tars(metacurate: Command, tmp_path: Path) -> None:
    texts = captions(90, 2)
    rows = [
        {"url": f"https://example.org/{number}.jpg", "caption": text, "licence": f"L{number % 3}"}
        for number, text in enumerate(texts)
    ]
    keys = write_shards(tmp_path / "tars", rows, size=40, digits=5)
    (tmp_path / "metadata.json").write_text(json.dumps(ENTRIES))
    for command in (
        ("pool", "ingest", tmp_path / "tars", "--out", tmp_path / "pool"),
        ("curate", tmp_path / "pool", "-m", tmp_path / "metadata.json", "--t", 20, "--no-report",
         "--out", tmp_path / "run"),
        ("pool", "reshard", tmp_path / "run", "--tars", tmp_path / "tars", "--out",
         tmp_path / "kept"),
    ):  # fmt: skip
        done = metacurate(*command, "--workers", 1)
        assert done.returncode == 0, done.stderr
    there = {key: row for key, row in zip(keys, rows, strict=True) if int(key) % 7 != 3}
    assert mc.survival(tmp_path / "tars").rate == len(there) / len(rows)
    curated = pq.read_table(tmp_path / "run/curated").to_pylist()
    assert 10 < len(curated) < len(there)
    counts = np.bincount(
        np.concatenate([matched_ids(row["caption"]) for row in there.values()]).astype(int),
        minlength=len(ENTRIES),
    )
    assert np.array_equal(np.load(tmp_path / "run/counts.npy"), counts)
    urls = sorted(map(str, (tmp_path / "kept").glob("*.tar")))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [row["key"] for row in curated]
    for sample, row in zip(samples, curated, strict=True):
        own = there[row["key"]]
        assert sample["txt"].decode() == own["caption"]
        facts = json.loads(sample["json"])
        assert (facts["url"], facts["licence"]) == (own["url"], own["licence"])
        assert hashlib.sha256(sample["jpg"]).hexdigest() == row["sha256"] == facts["sha256"]


def test_datacomps_shards_to_uids_for_its_resharder(metacurate: Command, tmp_path: Path) -> None:
    """The pool is its metadata; its resharder picks from its tars by the list of uids."""
    texts = captions(80, 3)
    rng = random.Random(4)
    # A uid may begin with zeros, and be beyond 2**63 in both halves.
    uids = ["0" * 31 + "7", "f" * 32, *(f"{rng.getrandbits(128):032x}" for _ in range(78))]
    urls = [f"https://example.org/{number}.jpg" for number in range(80)]
    metadata = pa.table({
        "uid": uids, "url": urls, "text": texts,
        "original_width": [960] * 80, "original_height": [640] * 80,
        "clip_b32_similarity_score": pa.array([0.3] * 80, pa.float32()),
        "face_bboxes": [[[0.1, 0.2, 0.3, 0.4]] if n % 5 == 0 else [] for n in range(80)],
        "sha256": ["ab" * 32] * 80,
    })  # fmt: skip
    (tmp_path / "metadata").mkdir()
    for part in range(2):
        name = f"{rng.getrandbits(128):032x}.parquet"
        pq.write_table(metadata.slice(40 * part, 40), tmp_path / "metadata" / name)
    (tmp_path / "entries.json").write_text(json.dumps(ENTRIES))
    for command in (
        ("curate", tmp_path / "metadata", "-m", tmp_path / "entries.json", "--t", 20,
         "--no-report", "--out", tmp_path / "run"),
        ("pool", "uids", tmp_path / "run", "--out", tmp_path / "subset.npy"),
    ):  # fmt: skip
        done = metacurate(*command, "--workers", 1)
        assert done.returncode == 0, done.stderr
    curated = pq.read_table(tmp_path / "run/curated")
    kept = {uid.hex() for uid in curated["uid"].to_pylist()}
    assert 10 < len(kept) < 80
    assert curated["input_uid"].to_pylist() == [u.hex() for u in curated["uid"].to_pylist()]

    rows = [
        {"url": url, "caption": text, "uid": uid}
        for url, text, uid in zip(urls, texts, uids, strict=True)
    ]
    keys = write_shards(tmp_path / "shards", rows, size=30, digits=8)
    there = {uid for uid, key in zip(uids, keys, strict=True) if int(key) % 7 != 3}
    # Its documented form: an array of two unsigned 64-bit numbers a uid, sorted, which it searches
    # for the number that a sample's JSON has as `uid`.
    subset = np.load(tmp_path / "subset.npy", mmap_mode="r")
    assert subset.dtype == np.dtype("u8,u8")
    picked = {}
    for file in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(file) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    found = json.load(tar.extractfile(member) or pytest.fail(member.name))
                    halves = np.array([divmod(int(found["uid"], 16), 2**64)], subset.dtype)
                    left, right = (np.searchsorted(subset, halves, side)[0]
                                   for side in ("left", "right"))  # fmt: skip
                    if left < right:
                        assert right - left == 1
                        picked[found["uid"]] = found["caption"]
    assert set(picked) == kept & there
    assert len(picked) > 10
    # The tars themselves are a pool of the same uids, for who wants tars and not a list.
    mc.ingest(tmp_path / "shards", tmp_path / "ingested", workers=1)
    ingested = pq.read_table(tmp_path / "ingested/pool")["uid"].to_pylist()
    assert {uid.hex() for uid in ingested} == there
    done = metacurate("pool", "reshard", tmp_path / "run", "--tars", tmp_path / "shards", "--out",
                      tmp_path / "kept", "--workers", 1)  # fmt: skip
    fails(done, "has no column 'tar'", "metacurate pool ingest")


# Data sets in memory.


def data_set(named_by: str) -> Any:
    datasets = pytest.importorskip("datasets")
    texts = captions(200, 5)
    features = datasets.Features({
        "breed": datasets.ClassLabel(names=["tabby", "---\n# none", "é"]),
        "picture": datasets.Image(),
        named_by: datasets.Value("string"),
        "text": datasets.Value("large_string"),
        "tags": datasets.List(datasets.Value("int32")),
        "box": datasets.Array2D((2, 2), "float32"),
        "parts": datasets.List({"a": datasets.Value("int8")}),
    })  # fmt: skip
    pictures = [{"bytes": encoded(photo(n, (9, 6)), "PNG"), "path": None} for n in range(3)]
    rows = {
        "breed": [n % 3 for n in range(200)],
        "picture": [pictures[n % 3] for n in range(200)],
        named_by: [f"https://example.org/{n}.jpg" for n in range(200)],
        "text": texts,
        "tags": [[n, n + 1] if n % 4 else None for n in range(200)],
        "box": [[[n, 1.5], [2, 3]] for n in range(200)],
        "parts": [[{"a": n % 100}] for n in range(200)],
    }
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.parametrize("named_by", ["url", "key"])
def test_a_data_set_in_memory_to_a_data_set(
    named_by: str, tmp_path: Path, offline_datasets: ModuleType
) -> None:
    given = data_set(named_by).filter(lambda row: row["breed"] != 2)  # by an index over its table
    result = mc.curate(given, ENTRIES, tmp_path / "run", t=30, report=False, workers=1)
    loaded = offline_datasets.load_dataset(
        str(tmp_path / "run"), split="train", cache_dir=str(tmp_path / "cache")
    )
    for kept in (offline_datasets.Dataset(result.to_arrow()), loaded):
        assert 0 < len(kept) == result.kept["pairs"] < len(given)
        assert kept.column_names == [
            *given.column_names, "uid", "matched", "text_kept", "keep_prob",
        ]  # fmt: skip
        for name in ("breed", "picture", "text", "tags", "parts"):
            assert kept.features[name] == given.features[name], name
        # The rows that were kept, as they are and in their order.
        places = {name: place for place, name in enumerate(given[named_by])}
        order = [places[name] for name in kept[named_by]]
        assert order == sorted(order)
        same = given.select(order)
        assert kept.remove_columns(kept.column_names[-4:])[:] == same[:]
        assert kept["matched"][:] == [[matched_ids(text)] for text in same["text"]]
