"""Cards of runs: what the hub's own readers and Croissant's make of them, and what is in them."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import metacurate as mc
from conftest import Command
from curation_pools import fails
from hostile_pool import ENTRIES
from metacurate.analysis.read_counts import read_counts
from metacurate.sharing.columns import hub_features
from metacurate.sharing.facts import language_codes
from metacurate.sharing.readme import size_category

HOSTILE_ENTRIES = [*ENTRIES, "@user", "[a](http://b.example)", "a|b", "![x](y)", "\n---\nlicense"]
COLUMN = "a\n---\nlicense: mit\n<b>|`"
NAME = 'Pairs: "of" <b>mine</b> --- # 🐈'
TEXT_MARK, URL_MARK = "zzsecret", "https://private.example"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool with hostile entries in its texts, and a column with a hostile name."""
    folder = tmp_path_factory.mktemp("private-folder")
    texts = [f"{entry} {TEXT_MARK} and a cat" for entry in HOSTILE_ENTRIES * 3]
    texts += ["a cat", "a dog", "nothing"] * 20
    rows = len(texts)
    table = pa.table({
        "url": [f"{URL_MARK}/{n}.png" for n in range(rows)],
        "a text": texts,
        COLUMN: list(range(rows)),
        "nested": [[{"a": [n], "b": None}] for n in range(rows)],
        "when": pa.array([n * 10**6 for n in range(rows)], pa.timestamp("us", "UTC")),
    })  # fmt: skip
    pq.write_table(table, folder / "pool.parquet")
    return folder / "pool.parquet"


@pytest.fixture(scope="module")
def run(pool: Path, metacurate: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a report and a card, and its distribution."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "metadata.json").write_text(json.dumps(HOSTILE_ENTRIES))
    done = metacurate("curate", pool, "--text-col", "a text", "-m", folder / "metadata.json",
                      "--t", 5, "--seed", 3, "--workers", 1, "--out", folder / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = folder / "run"
    done = metacurate("card", run, "--name", NAME, "--license", "CC-BY-4.0", "--language", "en",
                      "--repo", "me/pairs", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    mc.write_card(run, name=NAME, license="mit", distribution_only=True)
    return run


def test_the_hub_reads_the_card(run: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    read = hub.DatasetCard.load(run / "README.md").data.to_dict()
    assert read["pretty_name"] == NAME
    assert (read["license"], read["language"]) == ("cc-by-4.0", ["en"])
    assert read["size_categories"] == ["n<1K"]
    assert [f["name"] for f in read["dataset_info"]["features"]][2] == COLUMN
    body = (run / "README.md").read_text(encoding="utf-8")
    plots = [f"report/{name}.png" for name in ("cumulative", "ranks", "histogram", "matches")]
    assert [name for name in plots if f"]({name})" in body and (run / name).exists()] == plots
    card = json.loads((run / "datacard.json").read_text())
    assert f"| kept | {card['kept']['pairs']:,} |" in body
    assert f"| `cat` | {card['entry_counts']['cat']} | {card['entry_counts_kept']['cat']} |" in body
    assert all(mark not in body for mark in (TEXT_MARK, URL_MARK, "private-folder", "<script"))


@pytest.mark.parametrize("part", ["", "distribution"])
def test_datasets_loads_the_folder(
    part: str, run: Path, tmp_path: Path, offline_datasets: ModuleType
) -> None:
    found = offline_datasets.load_dataset(
        str(run / part), cache_dir=str(tmp_path), verification_mode="all_checks"
    )
    assert list(found) == ["train"]
    said = offline_datasets.load_dataset_builder(
        str(run / part), cache_dir=str(tmp_path / "said")
    ).info
    assert said.splits["train"].num_examples == len(found["train"])
    assert said.dataset_size == said.splits["train"].num_bytes
    # Some bits more or less where a column has no nulls.
    assert said.dataset_size == pytest.approx(found["train"].info.dataset_size, rel=0.01)
    files = run / ("curated" if not part else "distribution/distribution.parquet")
    listed = files.iterdir() if files.is_dir() else [files]
    assert said.download_size == sum(file.stat().st_size for file in listed)
    rows = pq.read_table(files)
    assert found["train"].data.table.cast(rows.schema).equals(rows)


@pytest.mark.filterwarnings("ignore")
def test_croissant_reads_the_folder(run: Path) -> None:
    croissant = pytest.importorskip("mlcroissant")
    for file in (run / "croissant.json", run / "distribution" / "croissant.json"):
        found = croissant.Dataset(file)
        # There is no date: the same run has the same bytes.
        assert [w.rsplit("/", 1)[-1].partition('"')[0] for w in found.metadata.issues.warnings] == [
            "datePublished"
        ]
        for described in found.metadata.distribution:
            if hasattr(described, "sha256"):  # a single file
                content = (file.parent / described.content_url).read_bytes()
                assert described.sha256 == hashlib.sha256(content).hexdigest()
    rows = pq.read_table(run / "curated").to_pylist()
    records = list(croissant.Dataset(run / "croissant.json").records("pairs"))
    fields = dict(enumerate(pq.read_schema(next((run / "curated").iterdir())).names))
    assert len(records) == len(rows) > 20
    for record, row in zip(records, rows, strict=True):
        read = {fields[int(name.rpartition("/")[2])]: value for name, value in record.items()}
        assert read["url"].decode() == row["url"]
        assert (read["uid"], read[COLUMN], read["matched"]) == (
            row["uid"], row[COLUMN], row["matched"],
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_croissant_of_a_column_without_a_name(metacurate: Command, tmp_path: Path) -> None:
    """Row numbers, as pandas writes them into CSV."""
    croissant = pytest.importorskip("mlcroissant")
    (tmp_path / "p.csv").write_text(",url,text\n7,http://a.example/1,a dog\n", encoding="utf-8")
    (tmp_path / "m.json").write_text('["dog"]')
    done = metacurate("curate", tmp_path / "p.csv", "-m", tmp_path / "m.json", "--t", 1,
                      "--no-report", "--out", tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = pq.read_table(tmp_path / "run" / "curated").to_pylist()
    assert row[""] == "7"
    (read,) = croissant.Dataset(tmp_path / "run" / "croissant.json").records("pairs")
    assert {b"http://a.example/1", b"a dog", row["uid"]} <= {
        value for value in read.values() if isinstance(value, bytes)
    }


def test_the_command_makes_the_same_subset(
    run: Path, pool: Path, metacurate: Command, tmp_path: Path
) -> None:
    body = (run / "README.md").read_text(encoding="utf-8")
    line = next(line for line in body.splitlines() if line.startswith("metacurate curate"))
    places = {"POOL": pool, "OUT": tmp_path / "out", "metadata.parquet": run / "metadata.parquet"}
    words = [places.get(word, word) for word in shlex.split(line)[1:]]
    done = metacurate(*words, "--no-report", "--workers", 1)
    assert done.returncode == 0, done.stderr
    again = tmp_path / "out" / "curated"
    assert [p.read_bytes() for p in sorted(again.iterdir())] == [
        p.read_bytes() for p in sorted((run / "curated").iterdir())
    ]


def test_the_distribution_has_nothing_of_the_pairs(run: Path) -> None:
    folder = run / "distribution"
    table = pq.read_table(folder / "distribution.parquet")
    assert table.column_names == ["entry", "count", "kept_count", "keep_prob"]
    counts = np.load(run / "counts.npy")
    assert np.array_equal(table["count"], counts)
    assert np.array_equal(table["kept_count"], np.load(run / "kept_counts.npy"))
    assert np.allclose(table["keep_prob"], np.minimum(1, 5 / np.maximum(counts, 1)))
    # Both files go into commands that take metadata and counts.
    metadata = mc.load_metadata(folder / "distribution.parquet")
    assert metadata.fingerprint == mc.load_metadata(run / "metadata.parquet").fingerprint
    assert np.array_equal(read_counts(str(folder / "datacard.json"), metadata), counts)
    assert {p.name for p in (folder / "report").iterdir()} == {
        f"{name}.png" for name in ("cumulative", "ranks", "histogram", "matches")
    }
    for name in ("README.md", "croissant.json", "datacard.json"):
        content = (folder / name).read_text(encoding="utf-8")
        assert not any(mark in content for mark in (TEXT_MARK, URL_MARK, "private-folder")), name


def test_a_card_changed_by_hand_stays(
    run: Path, pool: Path, metacurate: Command, tmp_path: Path
) -> None:
    def curate(folder: Path) -> None:
        done = metacurate("curate", pool, "--text-col", "a text", "-m", run / "metadata.parquet",
                          "--t", 5, "--workers", 1, "--no-report", "--out", folder)  # fmt: skip
        assert done.returncode == 0, done.stderr

    folder = tmp_path / "run"
    folder.mkdir()
    readme = folder / "README.md"
    readme.write_text("my own")
    curate(folder)
    assert readme.read_text() == "my own"
    fails(metacurate("card", folder), "was not written by this command", "--overwrite")
    assert metacurate("card", folder, "--license", "mit", "--overwrite").returncode == 0
    written = readme.read_bytes()
    assert b'license: "mit"' in written
    curate(folder)
    assert readme.read_bytes() == written  # what was said stays
    readme.unlink()
    curate(folder)
    assert readme.read_bytes() == written
    readme.write_bytes(written.replace(b"# Curated", b"# My curated"))
    curate(folder)
    assert b"# My curated" in readme.read_bytes()
    fails(metacurate("card", folder), "changed since", "--overwrite")
    assert metacurate("status", folder, "--verify").returncode == 0


def test_several_languages(tmp_path: Path) -> None:
    texts = {"en": "a dog", "zh": "狗", "<b>x": "hund"}
    rows = {"url": [f"http://a.example/{n}" for n in range(30)],
            "text": [*texts.values()] * 10, "lang": [*texts] * 10}  # fmt: skip
    pq.write_table(pa.table(rows), tmp_path / "pool.parquet")
    metadata = mc.make_metadata(["dog", "狗", "hund"], lang=list(texts))
    mc.curate(tmp_path / "pool.parquet", metadata, tmp_path / "run", t=4, report=False, workers=1)
    body = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    facts = json.loads((tmp_path / "run" / "datacard.json").read_text())["languages"]
    assert 'language:\n  - "en"\n  - "zh"\n' in body
    for name, shown in (("en", "`en`"), ("zh", "`zh`"), ("<b>x", "<code>&#60;b&#62;x")):
        row = next(line for line in body.splitlines() if line.startswith(f"| {shown}"))
        assert row.endswith(f" {facts[name]['kept_texts']} |")


KINDS = [
    pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.string(), pa.large_string(),
    pa.binary(), pa.binary(16), pa.date32(), pa.date64(), pa.time32("s"), pa.time64("ns"),
    pa.timestamp("us"), pa.timestamp("ns", "+02:00"), pa.duration("ms"), pa.decimal128(10, 2),
    pa.decimal256(50, 2), pa.list_(pa.int32()), pa.large_list(pa.int32()), pa.list_(pa.int32(), 3),
    pa.struct([("a", pa.struct([("b", pa.list_(pa.struct([("x", pa.int8())])))]))]),
    pa.list_(pa.list_(pa.struct([("a", pa.string()), ("b", pa.list_(pa.int8()))]))),
    pa.list_(pa.large_list(pa.int8())), pa.list_(pa.map_(pa.string(), pa.int8())),
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_features_are_those_of_datasets(kind: pa.DataType) -> None:
    features = pytest.importorskip("datasets").Features
    schema = pa.schema([("x", kind)])
    try:
        expected = features.from_arrow_schema(schema)._to_yaml_list()
    except ValueError:  # there is no such type
        expected = None
    assert hub_features(schema) == expected


@pytest.mark.parametrize(
    ("rows", "name"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**9, "1B<n<10B"), (10**12, "n>1T")],
)
def test_size_categories(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_language_codes() -> None:
    assert language_codes(("zh-TW", "en", "ceb", "zh_yue", "other", "<b>", "")) == [
        "ceb", "en", "zh",
    ]  # fmt: skip


REFUSED = {
    "--name": ["", "two\nlines", "\u202ex", "x" * 201],
    "--license": ["", "a\nb"],
    "--language": ["english", "EN"],
    "--repo": ["name", "a/b/c", "../x", "a/b--c", "a/" + "b" * 97],
}


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option in REFUSED for value in REFUSED[option]]
)
def test_what_a_card_cannot_say(
    option: str, value: str, metacurate: Command, tmp_path: Path
) -> None:
    fails(metacurate("card", tmp_path, option, value), option)


def test_a_run_that_is_not_finished(metacurate: Command, tmp_path: Path) -> None:
    fails(metacurate("card", tmp_path), "no finished match stage")
    fails(metacurate("card", tmp_path / "none"), "there is no folder")


def test_a_run_cannot_write_to_the_hub(pool: Path, metacurate: Command) -> None:
    run = metacurate("curate", pool, "--t", 1, "--out", "hf://datasets/me/pairs/run")
    fails(run, "--out hf://datasets/me/pairs/run cannot be written to", "'metacurate card'")
