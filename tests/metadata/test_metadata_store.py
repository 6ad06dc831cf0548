"""Metadata files: what loads, what is refused and how it is named, fingerprints, saving."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacurate.errors import UserError
from metacurate.metadata import wordnet
from metacurate.metadata.store import load_metadata, make_metadata, save_json, save_parquet

ENTRIES = ["dog", "Dog", " dog ", "photo of a dog", "犬", "naïve", "a\tb", "🐕", " "]


def written(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_built_in_wordnet() -> None:
    metadata = load_metadata("wordnet")
    assert metadata.entries.to_pylist() == wordnet.shipped_entries()
    assert len(metadata) == 86_554
    assert metadata.source is metadata.score is metadata.lang is None
    # Pinned: a change here changes what every finished run was made with.
    assert metadata.fingerprint == "c5b25993f1df1ba9315785dd4ecbe339"


def test_json_keeps_order_and_text(tmp_path: Path) -> None:
    metadata = load_metadata(written(tmp_path / "m.json", ENTRIES))
    assert metadata.entries.type == pa.large_string()
    assert metadata.entries.to_pylist() == ENTRIES


def test_gzip_and_remote_addresses(tmp_path: Path) -> None:
    (tmp_path / "m.json.gz").write_bytes(gzip.compress(json.dumps(ENTRIES).encode()))
    assert load_metadata(str(tmp_path / "m.json.gz")).entries.to_pylist() == ENTRIES
    with fsspec.open("memory://metadata-test/m.json", "wb") as file:
        file.write(json.dumps(ENTRIES).encode())
    assert load_metadata("memory://metadata-test/m.json").entries.to_pylist() == ENTRIES


def test_byte_order_marks_are_no_part_of_the_text(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "m.json").write_text(json.dumps(ENTRIES), encoding=encoding)
        assert load_metadata(str(tmp_path / "m.json")).entries.to_pylist() == ENTRIES


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), "dictionary"])
def test_parquet_columns(tmp_path: Path, kind: Any) -> None:
    entries = pa.array(["a", "b", "c"])
    entries = entries.dictionary_encode() if kind == "dictionary" else entries.cast(kind)
    table = pa.table(
        {
            "score": pa.array([3, None, 1]),
            "entry": entries,
            "lang": ["en", None, "de"],
            "other": [1, 2, 3],
        }
    )
    pq.write_table(table, tmp_path / "any.name", row_group_size=2)
    metadata = load_metadata(str(tmp_path / "any.name"))
    assert metadata.entries.to_pylist() == ["a", "b", "c"]
    assert metadata.score is not None
    assert metadata.score.to_pylist() == [3.0, None, 1.0]
    assert metadata.lang is not None
    assert metadata.lang.to_pylist() == ["en", "other", "de"]
    assert metadata.source is None


def test_everything_wrong_is_named_with_positions() -> None:
    values: Any = ["a", "b", "a", "", "c\ud800", 3, None, ["x"], "b", True, 1.5, {}, []]
    with pytest.raises(UserError) as caught:
        make_metadata(values, origin="m.json")
    message = str(caught.value)
    assert "\n" not in message
    message.encode()  # can be printed
    assert message.startswith("m.json is not usable: ")
    assert '7 no string at 5 (3), 6 (null), 7 (["x"]), 9 (true), 10 (1.5), and 2 more' in message
    assert '1 with lone surrogates at 4 ("c\\ud800")' in message
    assert '1 empty at 3 ("")' in message
    assert '2 repeated at 2 ("a", as at 0), 8 ("b", as at 1)' in message


def test_long_entries_are_shortened_in_messages() -> None:
    with pytest.raises(UserError) as caught:
        make_metadata(["x" * 10**6] * 2)
    assert len(str(caught.value)) < 300


def test_arrow_nulls_and_invalid_bytes_are_named() -> None:
    raw = pa.array([b"a", b"\xff\xfe", None, b"b", b"a"]).view(pa.string())
    with pytest.raises(UserError) as caught:
        make_metadata(raw)
    assert "1 no string at 2 (null)" in str(caught.value)
    assert "1 no valid UTF-8 at 1 (b'\\xff\\xfe')" in str(caught.value)
    assert '1 repeated at 4 ("a", as at 0)' in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}', "column source is not of type string"),
        (b'{"a": "x", "a": "y"}', "repeated"),
        (b'"a"', "but holds a string"),
        (b"7", "but holds a number"),
        (b"null", "but holds null"),
        (b'["a", 1]', r"1 no string at 1 \(1\)"),
        (b'["a\\ud800"]', "lone surrogates at 0"),
        (b'["a", "a"]', "1 repeated at 1"),
        (b"[]", "has 0 entries"),
        (b"", "is neither JSON .* nor Parquet"),
        (b'["a"', "is neither JSON .* nor Parquet"),
        (b'["\xff"]', "is neither JSON .* nor Parquet"),
        (b"[" * 100_000, "is neither JSON .* nor Parquet"),
        (b"[1" + b"0" * 5000 + b"]", "is neither JSON .* nor Parquet"),
        (b"PAR1 and more", "damaged Parquet file"),
    ],
)
def test_unusable_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_metadata(str(path))
    assert str(path) in str(caught.value)


def test_unusable_parquet(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"word": ["a"]}), path)
    with pytest.raises(UserError, match=r"no column 'entry' \(it has word\)"):
        load_metadata(str(path))
    pq.write_table(pa.table({"entry": [1]}), path)
    with pytest.raises(UserError, match="must be strings, but are of type int64"):
        load_metadata(str(path))
    pq.write_table(pa.table({"entry": ["a"], "score": ["high"]}), path)
    with pytest.raises(UserError, match="column score is not of type double"):
        load_metadata(str(path))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged Parquet"):
        load_metadata(str(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such/file.json", "there is no metadata file no/such/file.json"),
        ("", "must be a path or an address, not ''"),
        (".", "has no file of a language's metadata"),
        ("nosuch://bucket/m.json", "Protocol not known"),
    ],
)
def test_unreadable_addresses(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_metadata(source)


def test_damaged_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps(ENTRIES).encode())
    for content in (b"\x1f\x8bno gzip", packed[:-9], packed[:20] + b"\xff\xff\xff" + packed[23:]):
        (tmp_path / "m.json.gz").write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            load_metadata(str(tmp_path / "m.json.gz"))


def test_too_large_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metacurate.metadata.store.MAX_FILE_BYTES", 10)
    with pytest.raises(UserError, match="larger than 10 bytes"):
        load_metadata(written(tmp_path / "m.json", ["twelve bytes"]))


def test_columns_must_fit() -> None:
    with pytest.raises(UserError, match="column lang has 2 values, not 1"):
        make_metadata(["a"], lang=["en", "de"])


def test_fingerprint_is_of_entries_in_order_alone() -> None:
    plain = make_metadata(["a", "bc"]).fingerprint
    assert (
        plain == make_metadata(pa.array(["x", "a", "bc", "y"])[1:3], lang=["de", "de"]).fingerprint
    )
    assert plain == make_metadata(pa.chunked_array([["a"], ["bc"]])).fingerprint
    others = [["bc", "a"], ["ab", "c"], ["a", "b", "c"], ["a"], ["abc"], ["a", "bc", "d"]]
    fingerprints = {make_metadata(other).fingerprint for other in others}
    assert len(fingerprints | {plain}) == len(others) + 1


@given(st.lists(st.text(min_size=1), min_size=1, unique=True))
def test_saved_metadata_loads_the_same(entries: list[str]) -> None:
    metadata = make_metadata(entries)
    save_json(metadata, "memory://metadata-test/saved.json")
    save_parquet(metadata, "memory://metadata-test/saved.parquet")
    for name in ("saved.json", "saved.parquet"):
        loaded = load_metadata(f"memory://metadata-test/{name}")
        assert loaded.entries.to_pylist() == entries
        assert loaded.fingerprint == metadata.fingerprint


def test_saving_is_deterministic_and_keeps_columns(tmp_path: Path) -> None:
    metadata = make_metadata(ENTRIES, source=["wordnet"] * 9, score=[None] * 8 + [0.5])
    for name in ("one", "two"):
        save_parquet(metadata, str(tmp_path / f"{name}.parquet"))
        save_json(metadata, str(tmp_path / f"{name}.json"))
    for ending in ("json", "parquet"):
        one, two = ((tmp_path / f"{n}.{ending}").read_bytes() for n in ("one", "two"))
        assert one == two
    loaded = load_metadata(str(tmp_path / "one.parquet"))
    assert loaded.source is not None
    assert loaded.source.to_pylist() == ["wordnet"] * 9
    assert loaded.score is not None
    assert loaded.score.to_pylist()[-2:] == [None, 0.5]
    assert loaded.lang is None
    lines = (tmp_path / "one.json").read_text(encoding="utf-8").splitlines()
    assert lines[4] == '"犬",'
    assert json.loads((tmp_path / "one.json").read_bytes()) == ENTRIES


def test_saving_into_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_json(make_metadata(ENTRIES), "here.json")
    assert [p.name for p in tmp_path.iterdir()] == ["here.json"]


def test_two_million_entries_load_in_seconds(tmp_path: Path) -> None:
    entries = [f"entry number {i}" for i in range(2_000_000)]
    path = written(tmp_path / "m.json", entries)
    start = time.process_time()
    metadata = load_metadata(path)
    assert len(metadata.fingerprint) == 32
    assert len(metadata) == 2_000_000
    assert time.process_time() - start < 15  # takes about 2 s; per-entry Python work takes more
