"""Pools of every format, sound and damaged, give the rows they hold and say what they lack."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacurate.errors import UserError
from metacurate.formats import delimited, files, jsontext
from metacurate.formats.types import carried_type
from metacurate.pool import read as tabular
from metacurate.pool.columns import PAIRS_WITH_LANGS, ResolvedColumns
from metacurate.pool.convert import converted
from metacurate.pool.find import find
from metacurate.pool.open import Pool, open_pool
from metacurate.pool.read import read_unit
from metacurate.pool.schema import TEXTS_TYPE, PoolBatch, PoolConfig
from metacurate.pool.uid import key_uid, url_uid
from metacurate.pool.write import canonical_batch, canonical_schema

Row = tuple[bytes | None, list[str | None]]


def check(batch: PoolBatch) -> None:
    """What every batch promises."""
    batch.uids.validate(full=True)
    batch.texts.validate(full=True)
    assert batch.texts.type == pa.large_string()
    assert batch.uids.type == pa.binary(16)
    assert batch.text_offsets.dtype == np.int64
    assert len(batch.text_offsets) == batch.rows + 1
    assert batch.text_offsets[-1] == len(batch.texts)
    if batch.columns is not None:
        batch.columns.validate(full=True)
        assert batch.columns.num_rows == batch.rows


def read(
    pool: Pool, *, batch_rows: int = 65_536
) -> tuple[list[Row], list[dict[str, Any]], Counter[str]]:
    """All rows, their own columns, and what was skipped; both ways of reading must agree."""
    both = []
    for all_columns in (False, True):
        skipped: Counter[str] = Counter()
        rows: dict[tuple[int, int], Row] = {}
        columns: list[dict[str, Any]] = []
        for place, unit in enumerate(pool.units):
            for batch in read_unit(
                pickle.loads(pickle.dumps(unit)),
                all_columns=all_columns,
                skipped=skipped,
                batch_rows=batch_rows,
            ):
                check(batch)
                assert batch.rows <= batch_rows
                texts, offsets = batch.texts.to_pylist(), batch.text_offsets
                for i, uid in enumerate(batch.uids.to_pylist()):
                    assert (place, batch.first_row + i) not in rows
                    rows[place, batch.first_row + i] = (uid, texts[offsets[i] : offsets[i + 1]])
                if all_columns:
                    assert batch.columns is not None
                    assert batch.columns.schema == pool.schema
                    columns += batch.columns.to_pylist()
                else:
                    assert batch.columns is None
        both.append((rows, columns, skipped))
    assert both[0][0] == both[1][0]
    return list(both[1][0].values()), both[1][1], both[1][2]


def rows_of(urls: Sequence[str | None], texts: Sequence[str | None]) -> list[Row]:
    return [
        (None if url is None else url_uid(url), [text])
        for url, text in zip(urls, texts, strict=True)
    ]


URLS = [f"http://Example.com/{i}.jpg" for i in range(7)]
TEXTS = ["a dog", 'say "hi", twice', "two\nlines", "", "ümlaut 犬", "tab\there", " pad "]


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith(".gz"):
        data = gzip.compress(data, mtime=0)
    elif path.name.endswith(".zst"):
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


def csv_bytes(columns: Sequence[Sequence[str]], delimiter: str) -> bytes:
    """A CSV file with every value quoted."""

    def quoted(value: str) -> str:
        return '"' + value.replace('"', '""') + '"'

    lines = [delimiter.join(("url", "caption"))]
    lines += [delimiter.join(map(quoted, row)) for row in zip(*columns, strict=True)]
    return "\r\n".join([*lines, ""]).encode()


def json_lines(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def pair_rows() -> list[dict[str, str]]:
    return [{"url": u, "caption": t} for u, t in zip(URLS, TEXTS, strict=True)]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "ndjson"])
def test_text_formats(tmp_path: Path, form: str, compression: str) -> None:
    data = (
        csv_bytes([URLS, TEXTS], {"csv": ",", "tsv": "\t"}[form])
        if form in {"csv", "tsv"}
        else json_lines(pair_rows())
    )
    path = write(tmp_path / f"pool.{form}{compression}", data)
    pool = open_pool([str(path)], PoolConfig())
    rows, columns, skipped = read(pool, batch_rows=3)
    assert rows == rows_of(URLS, TEXTS)
    assert columns == pair_rows()
    assert skipped == {"no_text": 1}
    assert "URL from 'url', text from 'caption'" in pool.describe()


TEXT_ARRAYS = {
    "string": pa.array(TEXTS, pa.string()),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "binary": pa.array([t.encode() for t in TEXTS], pa.binary()),
    "large_binary": pa.array([t.encode() for t in TEXTS], pa.large_binary()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "binary_view": pa.array([t.encode() for t in TEXTS], pa.binary_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
}


# Not every Arrow that this package supports writes views to Parquet; see the next test.
@pytest.mark.parametrize("kind", [kind for kind in TEXT_ARRAYS if not kind.endswith("view")])
@pytest.mark.parametrize("batch_rows", [2, 100])
def test_parquet_text_types(tmp_path: Path, kind: str, batch_rows: int) -> None:
    table = pa.table({"URL": pa.array(URLS), "TEXT": TEXT_ARRAYS[kind], "WIDTH": range(7)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
    pool = open_pool([str(tmp_path)], PoolConfig(rows_per_unit=4))
    assert [unit.pieces for unit in pool.units] == [(0, 2), (2, 3)]
    assert pool.rows == 7
    rows, columns, skipped = read(pool, batch_rows=batch_rows)
    assert rows == rows_of(URLS, TEXTS)
    assert [row["WIDTH"] for row in columns] == list(range(7))
    assert skipped == {"no_text": 1}


@pytest.mark.parametrize("kind", TEXT_ARRAYS)
def test_text_arrays_in_memory(kind: str) -> None:
    """Whatever Parquet makes of a type, each one is read as it comes, slices too."""
    for start, stop in ((0, 7), (2, 5), (3, 3)):
        texts = tabular._checked_texts(TEXT_ARRAYS[kind][start:stop], Counter())
        texts.validate(full=True)
        assert texts.type == pa.large_string()
        assert texts.to_pylist() == TEXTS[start:stop]
        part = TEXT_ARRAYS[kind][start:stop]
        carried = converted(part, carried_type(part.type), Counter())
        assert carried.type == carried_type(part.type)
        assert carried.to_pylist() == part.to_pylist()


def test_lists_and_several_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "url": ["http://a", "http://b", "http://c", None],
            "alt": ["1", None, "3", "4"],
            "titles": pa.array([["x", None], None, [], ["y", "z", ""]]),
            "texts": pa.array(
                [[("alt", "p", "en")], None, [("t", None, None), None, ("t", "q", "de")], []],
                TEXTS_TYPE,
            ),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    config = PoolConfig(text_cols=("titles", "alt", "texts"))
    rows, columns, _ = read(open_pool([str(tmp_path)], config), batch_rows=3)
    assert [texts for _, texts in rows] == [
        ["x", None, "1", "p"],
        [None],
        ["3", None, None, "q"],
        ["y", "z", "", "4"],
    ]
    assert columns == table.to_pylist()
    # The canonical column is taken by itself.
    rows, _, skipped = read(open_pool([str(tmp_path)], PoolConfig()))
    assert [texts for _, texts in rows] == [["p"], [], [None, None, "q"], []]
    assert skipped == {"no_url": 1, "no_text": 2}


SOME_TEXTS = st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.none() | st.text(max_size=3), SOME_TEXTS, SOME_TEXTS), max_size=9),
    st.integers(0, 4),
)
def test_interleaving_equals_the_obvious(rows: list[tuple[Any, Any, Any]], skip: int) -> None:
    batch = pa.record_batch(
        {
            "a": pa.array([r[0] for r in rows], pa.string()),
            "b": pa.array([r[1] for r in rows], pa.list_(pa.string())),
            "c": pa.array([r[2] for r in rows], pa.large_list(pa.large_string())),
        }
    )[skip:]
    columns = ResolvedColumns(None, None, ("a", "b", "c"), batch.schema, batch.schema)
    texts, offsets, langs = tabular._texts(batch, columns, Counter())
    flat = texts.to_pylist()
    got = [flat[offsets[i] : offsets[i + 1]] for i in range(batch.num_rows)]
    assert got == [[a, *(b or []), *(c or [])] for a, b, c in rows[skip:]]
    assert langs is None


LANG = st.none() | st.sampled_from(["en", "zh-Hant", ""])
TOLD = st.fixed_dictionaries({"lang": LANG, "text": st.none() | st.text(max_size=2)})


@given(
    st.lists(
        st.tuples(st.none() | st.lists(TOLD, max_size=3), st.text(max_size=2), LANG,
                  st.none() | st.lists(LANG, max_size=3)),
        max_size=8,
    ),
    st.integers(0, 3),
)  # fmt: skip
def test_each_text_has_its_language(rows: list[tuple[Any, Any, Any, Any]], skip: int) -> None:
    told = pa.list_(pa.struct([("text", pa.string()), ("lang", pa.string())]))
    kinds = {"told": told, "plain": pa.string(), "row": pa.string(), "each": pa.list_(pa.string())}
    batch = pa.record_batch(
        {name: pa.array([r[i] for r in rows], kind) for i, (name, kind) in enumerate(kinds.items())}
    )[skip:]
    texts = [[*(t["text"] for t in told or []), plain] for told, plain, _, _ in rows[skip:]]
    want = {
        None: [[*(t["lang"] for t in told or []), None] for told, _, _, _ in rows[skip:]],
        "row": [[row] * len(own) for own, (_, _, row, _) in zip(texts, rows[skip:], strict=True)],
        "each": [
            each if each is not None and len(each) == len(own) else [None] * len(own)
            for own, (_, _, _, each) in zip(texts, rows[skip:], strict=True)
        ],
    }
    for lang, langs_wanted in want.items():
        columns = ResolvedColumns(
            None, None, ("told", "plain"), batch.schema, batch.schema, lang=lang, with_langs=True
        )
        flat, offsets, langs = tabular._texts(batch, columns, Counter())
        assert langs is not None
        for found, wanted in ((flat, texts), (langs, langs_wanted)):
            values = found.to_pylist()
            assert [values[a:b] for a, b in pairwise(offsets.tolist())] == wanted


@pytest.mark.parametrize(
    ("texts", "lang"),
    [
        ([["alt", "a plate", [2]], ["title", "battery", []]], [None, None]),  # matched
        ([["alt", "a plate"], ["title", "battery"]], [None, None]),  # parsed
        ([["alt", "a plate", "en"], ["title", "battery", "zh"]], ["en", "zh"]),
        ([["alt", "a plate", None], ["title", "battery"]], [None, None]),
    ],
)
def test_texts_that_are_lists(tmp_path: Path, texts: list[list[Any]], lang: list[Any]) -> None:
    """The records of the official scripts; a list that is too short has no text."""
    records = [
        {"uuid": "0" * 24, "url": "http://a.example/1", "texts": texts},
        {"uuid": "1" * 24, "url": "http://a.example/2", "texts": [["alt"], []]},
    ]
    (tmp_path / "x.json").write_text(json.dumps(records, indent=1))
    pool = open_pool([str(tmp_path / "x.json")], PoolConfig(), PAIRS_WITH_LANGS)
    skipped: Counter[str] = Counter()
    [batch] = read_unit(pool.units[0], all_columns=True, skipped=skipped)
    check(batch)
    assert batch.texts.to_pylist() == ["a plate", "battery", None, None]
    assert batch.text_offsets.tolist() == [0, 2, 4]
    assert batch.langs is not None
    assert batch.langs.to_pylist() == [*lang, None, None]
    rows = canonical_batch(batch, pool.units[0].columns, canonical_schema(pool))
    assert [text["source"] for text in rows["texts"][0].as_py()] == ["alt", "title"]
    assert rows["uuid"].to_pylist() == ["0" * 24, "1" * 24]
    assert skipped["no_text"] == 1


@pytest.mark.parametrize(
    ("names", "url", "text"),
    [
        (["SAMPLE_ID", "URL", "TEXT", "HEIGHT", "LICENSE", "NSFW", "similarity"], "URL", "TEXT"),
        (["id", "url", "text", "width", "image_phash", "text_length"], "url", "text"),
        (["key", "status", "url", "caption", "sha256"], "url", "caption"),
        (["image_url", "alt_text"], "image_url", "alt_text"),
        (["url", "title"], "url", "title"),
        (["URL", "Description"], "URL", "Description"),
    ],
)
def test_names_of_known_pools(tmp_path: Path, names: list[str], url: str, text: str) -> None:
    table = pa.table({n: URLS if n == url else TEXTS if n == text else range(7) for n in names})
    pq.write_table(table, tmp_path / "a.parquet")
    pool = open_pool([str(tmp_path)], PoolConfig())
    assert f"URL from {url!r}, text from {text!r}" in pool.describe()
    assert read(pool)[0] == rows_of(URLS, TEXTS)


def test_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    uids = [bytes([i]) * 16 for i in range(6)]
    keys = [*(uid.hex() for uid in uids), None]
    pq.write_table(pa.table({"uid": keys, "url": URLS, "text": TEXTS}), path)  # as DataComp
    rows, _, _ = read(open_pool([str(path)], PoolConfig()))
    assert [uid for uid, _ in rows] == [*uids, url_uid(URLS[6])]  # no key: the URL
    config = PoolConfig(url_col="url")
    assert read(open_pool([str(path)], config))[0] == rows_of(URLS, TEXTS)
    # The same 16 bytes as bytes.
    raw = pa.array([*uids, None], pa.binary(16))
    pq.write_table(pa.table({"uid": raw, "text": TEXTS}), path)
    rows, _, skipped = read(open_pool([str(path)], PoolConfig()))
    assert [uid for uid, _ in rows] == [*uids, None]
    assert skipped["no_url"] == 1
    # Bytes of another width are hashed.
    wide = pa.array([b"x" * 20] * 7, pa.binary(20))
    pq.write_table(pa.table({"key": wide, "text": TEXTS}), path)
    rows, _, _ = read(open_pool([str(path)], PoolConfig()))
    assert {uid for uid, _ in rows} == {key_uid(b"x" * 20)}
    # Integers by their decimal digits.
    numbers = pa.array([-1, 0, 2, 3, 4, 5, None], pa.int64())
    pq.write_table(pa.table({"id": numbers, "text": TEXTS}), path)
    rows, _, _ = read(open_pool([str(path)], PoolConfig()))
    assert [uid for uid, _ in rows] == [*(key_uid(str(n)) for n in (-1, 0, 2, 3, 4, 5)), None]


@pytest.mark.parametrize("url_first", [True, False])
@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".tsv.gz"])
def test_headerless_conceptual_captions(tmp_path: Path, url_first: bool, suffix: str) -> None:
    captions = ["a dog", "http://in.a.caption", "the end"]
    if "tsv" in suffix:
        captions[0] = '"a dog'  # never closed: quotation marks mean nothing here
    delimiter = "\t" if "tsv" in suffix else ","
    pairs = [(u, c) if url_first else (c, u) for u, c in zip(URLS[:3], captions, strict=True)]
    write(tmp_path / f"cc{suffix}", "\n".join(delimiter.join(p) for p in pairs).encode())
    rows, columns, _ = read(open_pool([str(tmp_path)], PoolConfig()))
    assert rows == rows_of(URLS[:3], captions)
    assert columns[2]["caption"] == "the end"


def test_what_is_ambiguous_or_missing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"url": URLS, "caption": TEXTS, "title": TEXTS}), path)
    with pytest.raises(UserError, match=r"caption, title; choose with text_cols"):
        open_pool([str(tmp_path)], PoolConfig())
    with pytest.raises(UserError, match="has no column 'nope'"):
        open_pool([str(tmp_path)], PoolConfig(text_cols=("nope",)))
    with pytest.raises(UserError, match="there is no file or folder"):
        open_pool([str(tmp_path / "none")], PoolConfig())
    with pytest.raises(UserError, match="no file or folder matches"):
        open_pool([str(tmp_path / "*.csv")], PoolConfig())
    write(tmp_path / "x.txt", b"text")
    with pytest.raises(UserError, match="is no pool file; a pool is"):
        open_pool([str(tmp_path / "x.txt")], PoolConfig())
    with pytest.raises(UserError, match="nosuch"):
        open_pool(["nosuch://bucket/a.parquet"], PoolConfig())
    with pytest.raises(UserError, match="no input"):
        open_pool([], PoolConfig())
    pq.write_table(pa.table({"url": URLS, "caption": range(7)}), path)
    with pytest.raises(UserError, match="column 'caption' holds int64, not text"):
        open_pool([str(tmp_path)], PoolConfig())
    pq.write_table(pa.table({"a": TEXTS, "b": TEXTS}), path)
    with pytest.raises(UserError, match="url_col or key_col"):
        open_pool([str(tmp_path)], PoolConfig())


def test_bad_files_among_good_ones_are_listed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": URLS, "caption": TEXTS}), tmp_path / "good.parquet")
    write(tmp_path / "cut.parquet", (tmp_path / "good.parquet").read_bytes()[:-10])
    write(tmp_path / "junk.parquet", b"not Parquet at all")
    write(tmp_path / "empty.csv", b"")
    write(tmp_path / "junk.jsonl", b"[1]\nnothing\n")
    (tmp_path / "broken.csv.gz").write_bytes(b"not gzip")
    pq.write_table(pa.table({"url": URLS}), tmp_path / "lacks.parquet")
    pq.write_table(pa.table({"url": URLS, "caption": range(7)}), tmp_path / "type.parquet")
    pool = open_pool([str(tmp_path)], PoolConfig())
    reasons = {os.path.basename(address): reason for address, reason in pool.bad_files}
    assert list(reasons) == [
        *("broken.csv.gz", "cut.parquet", "empty.csv", "junk.jsonl", "junk.parquet"),
        *("lacks.parquet", "type.parquet"),
    ]
    assert "is damaged" in reasons["broken.csv.gz"]
    assert "not text" in reasons["type.parquet"]
    assert "no text column" in reasons["lacks.parquet"]
    assert "no readable Parquet" in reasons["cut.parquet"]
    assert all("\n" not in reason for reason in reasons.values())
    assert "7 files cannot be used" in pool.describe()
    assert read(pool)[0] == rows_of(URLS, TEXTS)


def test_finding_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *("b.jsonl", "a/z.jsonl", "a/c/y.ndjson.gz", ".hidden.jsonl", "_SUCCESS", "notes.md"),
        *("a/_temporary/x.jsonl", "a/.git/x.jsonl", "x.parquet.gz"),
    ):
        write(tmp_path / "_pool" / name, json_lines(pair_rows()))
    root = str(tmp_path / "_pool")
    names = ["a/c/y.ndjson.gz", "a/z.jsonl", "b.jsonl"]
    found = find([root])
    assert found.require_all() == [f"{root}/{n}" for n in names]
    assert len(found.others) == 2
    several = find([root, f"{root}/b.jsonl", f"{root}/a/*", f"file://{root}/b.jsonl"])
    assert several.files == found.files
    assert find([f"{root}/*.jsonl"]).require_all() == [f"{root}/b.jsonl"]
    assert find([f"{root}/.hidden.jsonl"]).require_all() == [f"{root}/.hidden.jsonl"]
    monkeypatch.chdir(tmp_path)
    assert find(["_pool"]).require_all() == [f"_pool/{n}" for n in names]
    assert find(["./_pool/b.jsonl", "_pool/b.jsonl"]).require_all() == ["_pool/b.jsonl"]


def test_other_filesystems() -> None:
    memory = fsspec.filesystem("memory")
    table = pa.table({"url": URLS, "caption": TEXTS, "n": range(7)})
    with memory.open("/pool-reading/a.parquet", "wb") as file:
        pq.write_table(table, file, row_group_size=2)
    memory.pipe_file(
        "/pool-reading/deep/b.csv.gz", gzip.compress(csv_bytes([URLS, TEXTS], ","), mtime=0)
    )
    try:
        pool = open_pool(["memory://pool-reading"], PoolConfig(rows_per_unit=3))
        assert [unit.url for unit in pool.units] == [
            *["memory:///pool-reading/a.parquet"] * 2,
            "memory:///pool-reading/deep/b.csv.gz",
        ]
        rows, columns, _ = read(pool)
        assert rows == rows_of(URLS, TEXTS) * 2
        assert [row["n"] for row in columns] == [*range(7), *[None] * 7]
        again = open_pool(["memory://pool-reading/**/*.csv.gz"], PoolConfig())
        assert again.fingerprints.items() <= pool.fingerprints.items()
    finally:
        memory.rm("/pool-reading", recursive=True)


class FailingFile:
    """A remote file whose reads fail after some, as a network's do."""

    def __init__(self, file: Any) -> None:
        self.file, self.size, self.reads = file, file.size, 0

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        if self.reads > 4:
            raise OSError("connection reset")
        return self.file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz", "a.jsonl"])
def test_failing_storage_is_no_damage(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    generator = random.Random(0)
    urls = [f"http://h/{generator.randbytes(40).hex()}" for _ in range(60_000)]
    table = pa.table({"url": urls, "caption": urls})
    with memory.open(f"/failing/{name}", "wb") as file:
        if name.endswith("parquet"):
            pq.write_table(table, file, row_group_size=10_000)
        elif name.endswith("jsonl"):
            file.write(json_lines(table.to_pylist()))
        else:
            file.write(gzip.compress(csv_bytes([urls, urls], ","), 1, mtime=0))
    try:
        pool = open_pool(["memory://failing"], PoolConfig())
        real = type(memory).open
        monkeypatch.setattr(type(memory), "open", lambda *a, **k: FailingFile(real(*a, **k)))
        [unit] = pool.units
        with pytest.raises(OSError, match="connection reset"):
            list(read_unit(unit, all_columns=True, skipped=Counter()))
    finally:
        monkeypatch.undo()
        memory.rm("/failing", recursive=True)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
# Zstandard frames need not have a checksum (these have none): flipped bytes may go unseen.
@pytest.mark.parametrize(("codec", "damage"), [("gz", "cut"), ("gz", "flip"), ("zst", "cut")])
def test_damaged_compression(tmp_path: Path, form: str, damage: str, codec: str) -> None:
    """The rows before the damage are read and the damage is counted."""
    count = 60_000
    generator = random.Random(1)
    urls = [f"http://h/{i}" for i in range(count)]
    texts = [generator.randbytes(24).hex() for _ in range(count)]
    table = pa.table({"url": urls, "caption": texts})
    data = csv_bytes([urls, texts], ",") if form == "csv" else json_lines(table.to_pylist())
    path = write(tmp_path / f"a.{form}.{codec}", data)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "cut":
        del content[middle:]
    else:
        content[middle : middle + 64] = bytes(b ^ 0xFF for b in content[middle : middle + 64])
    path.write_bytes(content)
    rows, _, skipped = read(open_pool([str(path)], PoolConfig()))
    assert skipped["truncated_file"] == 1
    if damage == "cut":
        assert 0.3 * count < len(rows) < 0.7 * count
        assert rows == rows_of(urls[: len(rows)], texts[: len(rows)])
        assert skipped == {"truncated_file": 1}
    else:
        # Flipped bytes may decode to wrong ones before the codec notices.
        expected = set(zip((url_uid(u) for u in urls), texts, strict=True))
        right = sum((uid, text) in expected for uid, [text] in rows)
        assert 0.3 * count < right < 0.7 * count


def damage_column(path: Path, group: int, column: int) -> None:
    """Overwrite one column chunk of a Parquet file."""
    chunk = pq.ParquetFile(path).metadata.row_group(group).column(column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data = bytearray(path.read_bytes())
    for at in range(start, start + chunk.total_compressed_size):
        data[at] ^= 0xA5
    path.write_bytes(data)


def test_damaged_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"url": URLS, "caption": TEXTS, "n": range(7)})
    pq.write_table(table, path, row_group_size=3)
    damage_column(path, 0, 1)
    rows, columns, skipped = read(open_pool([str(path)], PoolConfig()))
    assert rows == rows_of(URLS[3:], TEXTS[3:])
    assert [row["n"] for row in columns] == [3, 4, 5, 6]
    assert skipped == {"unreadable_row_group": 3, "no_text": 1}
    # Rows keep their numbers.
    [unit] = open_pool([str(path)], PoolConfig()).units
    batches = list(read_unit(unit, all_columns=False, skipped=Counter()))
    assert [batch.first_row for batch in batches] == [3, 6]


def test_damaged_other_column_costs_no_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"url": URLS, "n": range(7), "caption": TEXTS, "m": range(7)})
    pq.write_table(table, path, row_group_size=4)
    damage_column(path, 0, 1)
    rows, columns, skipped = read(open_pool([str(path)], PoolConfig()), batch_rows=2)
    assert rows == rows_of(URLS, TEXTS)
    assert [row["n"] for row in columns] == [None, None, None, None, 4, 5, 6]
    assert [row["m"] for row in columns] == list(range(7))
    assert skipped == {"unreadable_value": 4, "no_text": 1}


def test_damaged_page_of_another_column_costs_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    count = 50_000
    texts = [f"{i:08d}" for i in range(count)]
    table = pa.table({"url": texts, "caption": texts, "n": texts})
    pq.write_table(table, path, compression="none", use_dictionary=False, data_page_size=1 << 14,
                   write_page_checksum=True)  # fmt: skip
    data = path.read_bytes()
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(2)
    damaged = data.index(b"00030000", chunk.data_page_offset)
    path.write_bytes(data[:damaged] + b"x" + data[damaged + 1 :])
    rows, columns, skipped = read(open_pool([str(path)], PoolConfig()))
    assert rows == rows_of(texts, texts)
    kept = count - skipped["unreadable_value"]
    assert [row["n"] for row in columns] == [*texts[:kept], *[None] * (count - kept)]
    assert 25_000 < kept <= 30_000


def test_page_checksums_are_verified(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"url": URLS, "caption": ["one", "two", "six", "ten", "a", "b", "c"]}),
        path,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    data = path.read_bytes()
    assert data.count(b"six") == 1
    path.write_bytes(data.replace(b"six", b"sin"))
    _, _, skipped = read(open_pool([str(path)], PoolConfig()))
    assert skipped == {"unreadable_row_group": 7}


@settings(max_examples=100, derandomize=True)
@given(st.data())
def test_flipped_bytes_never_crash(data: st.DataObject) -> None:
    """Any damage to a Parquet file's pages gives rows or counted losses, no exception."""
    table = pa.table({"url": URLS * 30, "caption": TEXTS * 30, "n": list(range(7)) * 30})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=100)
    content = bytearray(sink.getvalue().to_pybytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, footer - 1))] = data.draw(st.integers(0, 255))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/flipped.parquet", bytes(content))
    rows, _, skipped = read(open_pool(["memory://flipped.parquet"], PoolConfig()))
    # Both ways of reading count what both lose.
    assert len(rows) + skipped["unreadable_row_group"] == 210


BAD_TEXTS = [b"fine", b"bad \xff", None, b"x" * 20, b"x" * 21, b"\xed\xa0\x80", b""]
GOOD_TEXTS = ["fine", None, None, "x" * 20, None, None, ""]
BAD_URLS = [b"http://a/\xff", *(url.encode() for url in URLS[1:])]
BAD_COUNTS = {"undecodable_text": 2, "oversized_text": 1, "no_text": 5}
GOOD_ROWS: list[Row] = [(url_uid(u), [t]) for u, t in zip(BAD_URLS, GOOD_TEXTS, strict=True)]


@pytest.fixture
def short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tabular, "MAX_TEXT_BYTES", 20)


@pytest.mark.usefixtures("short_texts")
def test_undecodable_and_oversized_texts_in_parquet(tmp_path: Path) -> None:
    for kind in (pa.binary(), pa.string()):
        columns = [pa.array(v, pa.binary()).view(kind) for v in (BAD_URLS, BAD_TEXTS)]
        pq.write_table(pa.table(columns, ["url", "caption"]), tmp_path / "a.parquet")
        rows, carried, skipped = read(open_pool([str(tmp_path)], PoolConfig()))
        assert rows == GOOD_ROWS
        # Bytes are carried as they are; a string that is none cannot be.
        lost = {"undecodable_value": 1} if kind == pa.string() else {}
        assert skipped == BAD_COUNTS | lost
        assert carried[0]["url"] == (None if lost else BAD_URLS[0])


@pytest.mark.usefixtures("short_texts")
def test_undecodable_and_oversized_texts_in_csv(tmp_path: Path) -> None:
    pairs = zip(BAD_URLS, BAD_TEXTS, strict=True)
    lines = [b'"%s","%s"' % (url, text or b"") for url, text in pairs]
    write(tmp_path / "a.csv", b"\n".join([b"url,caption", *lines]))
    rows, carried, skipped = read(open_pool([str(tmp_path)], PoolConfig()))
    expected = list(GOOD_ROWS)
    expected[2] = (expected[2][0], [""])  # CSV knows no null
    assert rows == expected
    assert skipped == BAD_COUNTS | {"undecodable_value": 1}
    assert carried[0] == {"url": None, "caption": "fine"}


@pytest.mark.usefixtures("short_texts")
@pytest.mark.parametrize("extra", [[], [b"not JSON"]], ids=["by Arrow", "line by line"])
def test_undecodable_and_oversized_texts_in_json(tmp_path: Path, extra: list[bytes]) -> None:
    lines = [
        b'{"url": "%s", "caption": %s}' % (url, b"null" if text is None else b'"%s"' % text)
        for url, text in zip(BAD_URLS, BAD_TEXTS, strict=True)
    ]
    write(tmp_path / "a.jsonl", b"\n".join([*lines, *extra]))
    rows, _, skipped = read(open_pool([str(tmp_path)], PoolConfig()))
    assert rows == GOOD_ROWS
    bad_rows = {"malformed_row": 1} if extra else {}
    assert skipped == BAD_COUNTS | {"undecodable_value": 1} | bad_rows


def test_undecodable_text_in_lists(tmp_path: Path) -> None:
    strings = pa.array([b"a", b"\xff", b"c", None], pa.binary()).view(pa.string())
    structs = pa.StructArray.from_arrays(
        [pa.nulls(4, pa.string()), strings, pa.nulls(4, pa.string())],
        fields=list(TEXTS_TYPE.value_type),
    )
    texts = pa.ListArray.from_arrays(pa.array([0, 2, 2, 4], pa.int32()), structs)
    pq.write_table(pa.table({"url": URLS[:3], "texts": texts}), tmp_path / "a.parquet")
    rows, columns, skipped = read(open_pool([str(tmp_path)], PoolConfig()))
    assert [got for _, got in rows] == [["a", None], [], ["c", None]]
    assert [[t["text"] for t in row["texts"]] for row in columns] == [["a", None], [], ["c", None]]
    assert skipped == {"undecodable_text": 1, "no_text": 1}


def test_malformed_csv_rows(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbfurl,caption\n\nhttp://a,one\nhttp://b\nhttp://c,x,y\n"http://d","two\n2"\n'
    write(tmp_path / "a.csv", data)
    rows, _, skipped = read(open_pool([str(tmp_path)], PoolConfig()))
    assert rows == rows_of(["http://a", "http://d"], ["one", "two\n2"])
    assert skipped == {"malformed_row": 2}


def test_csv_rows_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1 << 16)
    texts = [f"text {i}" for i in range(10_000)]
    texts[4_999] = '"never closed'
    lines = ["url,caption", *(f"http://h/{i},{text}" for i, text in enumerate(texts))]
    write(tmp_path / "a.csv", "\n".join(lines).encode())
    rows, _, skipped = read(open_pool([str(tmp_path)], PoolConfig()))
    assert rows == rows_of([f"http://h/{i}" for i in range(10_000)], texts)
    assert not skipped
    long = "x" * 100_000
    write(tmp_path / "a.csv", f'url,caption\nhttp://a,"{long}"\nhttp://b,{long}\n'.encode())
    rows, _, skipped = read(open_pool([str(tmp_path)], PoolConfig()))
    assert rows == rows_of(["http://a", "http://b"], [long, long])
    assert not skipped


def test_json_lines_that_are_odd(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"url": "http://a", "caption": "one", "n": 1, "tags": ["x"], '
        b'"when": "2020-01-01"}',
        b'{"url": "http://b", "caption": 5, "n": 1.5, "tags": "no", "new": {}}',
        b"",
        b'{"url": "http://c", "caption": "\\ud800", "n": null, "tags": ["\\udfff", "y"]}',
        b"[1, 2]",
        b"null",
        b'{"url": "http://d", "caption": "cut',
        b"[" * 100_000,
        b'{"caption": "no url", "when": "never"}',
        b'{"url": "http://e", "caption": "first"}{"url": "http://f"}',
    ]
    write(tmp_path / "a.jsonl", b"\r\n".join(lines))
    rows, columns, skipped = read(open_pool([str(tmp_path)], PoolConfig()))
    assert rows == [
        *rows_of(["http://a", "http://b", "http://c"], ["one", None, None]),
        (None, ["no url"]),
    ]
    assert [row["n"] for row in columns] == [1.0, 1.5, None, None]
    assert [row["when"] for row in columns] == ["2020-01-01", None, None, "never"]
    assert skipped["malformed_row"] == 5
    assert skipped["undecodable_text"] == 1
    assert skipped["no_url"] == 1
    assert skipped["no_text"] == 2


def test_json_blocks_and_long_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"url": f"http://h/{i}", "caption": "x" * (i % 97)}) for i in range(2_000)]
    lines.insert(700, json.dumps({"url": "http://long", "caption": "y" * 50_000}))
    write(tmp_path / "a.jsonl", "\n".join(lines).encode())
    pool = open_pool([str(tmp_path)], PoolConfig())
    whole, _, _ = read(pool)
    assert len(whole) == 2_001
    monkeypatch.setattr(jsontext, "BLOCK_BYTES", 1_000)
    assert read(pool, batch_rows=7)[0] == whole
    monkeypatch.setattr(jsontext, "MAX_LINE_BYTES", 20_000)
    got, _, skipped = read(pool)
    assert got == whole[:700] + whole[701:]
    assert skipped["oversized_row"] == 1


def test_deep_json_in_a_field_that_is_left_out(tmp_path: Path) -> None:
    """Nesting as deep as a line can hold must not end the process."""
    deep = b'{"url": "http://b", "caption": "b", "late": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    first = [b'{"url": "http://a", "caption": "a"}'] * 40_000  # more than the sample
    write(tmp_path / "a.jsonl", b"\n".join([*first, deep, first[0]]))
    rows, _, skipped = read(open_pool([str(tmp_path)], PoolConfig()))
    assert len(rows) + skipped["malformed_row"] == 40_002
    assert rows[-1] == (url_uid("http://a"), ["a"])


def test_columns_agree_over_files(tmp_path: Path) -> None:
    numbers = pa.array([1], pa.int32())
    one = pa.table({"url": ["http://a"], "caption": ["x"], "n": numbers, "s": [1]})
    two = pa.table({"n": pa.array([2.5]), "url": ["http://b"], "caption": ["y"], "s": ["t"]})
    three = pa.table({"url": ["http://c"], "caption": ["z"], "extra": [[1]]})
    four = pa.table({"url": ["http://d"], "caption": ["z"], "extra": ["no list"], "s": [b"\xff"]})
    for name, table in (("1", one), ("2", two), ("3", three), ("4", four)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    pool = open_pool([str(tmp_path)], PoolConfig())
    _, columns, skipped = read(pool)
    assert pool.schema.names == ["url", "caption", "n", "s", "extra"]
    assert [row["n"] for row in columns] == [1.0, 2.5, None, None]
    assert [row["s"] for row in columns] == [b"1", b"t", None, b"\xff"]
    assert [row["extra"] for row in columns] == [None, None, "[1]", "no list"]
    assert not skipped


def test_fingerprints_follow_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.jsonl", json_lines(pair_rows() * 500))
    data = path.read_bytes()

    def fingerprint(change: int | None, more: bytes = b"") -> str:
        changed = bytearray(data + more)
        if change is not None:
            changed[change] ^= 1
        path.write_bytes(changed)
        with files.open_source(str(path)) as source:
            return files.fingerprint(source)

    size = len(data)
    assert fingerprint(None) == fingerprint(None)
    assert (
        len({fingerprint(c) for c in (None, 0, 5_000, size - 1)} | {fingerprint(None, b"\n")}) == 5
    )
    monkeypatch.setattr(files, "WHOLE_FINGERPRINT_BYTES", 1_000)
    monkeypatch.setattr(files, "SAMPLE_BYTES", 100)
    sampled = (size - 100) * 5 // 17 + 3
    changes = (None, 0, sampled, size - 1)
    assert len({fingerprint(c) for c in changes} | {fingerprint(None, b"\n")}) == 5
    assert fingerprint(sampled + 150) == fingerprint(None)  # between two samples


def test_empty_parquet_has_no_units(tmp_path: Path) -> None:
    table = pa.table({"url": pa.array([], pa.string()), "caption": pa.array([], pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    pool = open_pool([str(tmp_path)], PoolConfig())
    assert pool.units == ()
    assert pool.describe() == "no rows"
    assert list(pool.fingerprints) == [str(tmp_path / "a.parquet")]


def test_file_gone_is_a_clear_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json_lines(pair_rows()))
    [unit] = open_pool([str(path)], PoolConfig()).units
    path.unlink()
    with pytest.raises(UserError, match="is gone"):
        list(read_unit(unit, all_columns=False, skipped=Counter()))


@pytest.mark.parametrize(("columns", "said"), [(20, "c18, c19)"), (21, "c19, and 1 more)")])
def test_a_missing_column_is_told_with_the_first_twenty(
    columns: int, said: str, tmp_path: Path
) -> None:
    table = pa.table({f"c{n}": ["x"] for n in range(columns)})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=re.escape(said)):
        open_pool([str(tmp_path)], PoolConfig())


def test_a_given_url_column_wins_over_a_known_name(tmp_path: Path) -> None:
    table = pa.table({"url": ["http://a/1"], "link_2": ["http://a/2"], "text": ["x"]})
    pq.write_table(table, tmp_path / "a.parquet")
    pool = open_pool([str(tmp_path)], PoolConfig(url_col="link_2"))
    assert pool.units[0].columns.url == "link_2"


def test_what_the_names_of_folders_say_is_a_column(tmp_path: Path) -> None:
    for name in ("lang=en", "lang=a%2Fb", "lang=__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / name).mkdir()
        table = pa.table({"url": ["http://a/1"], "text": ["x"]})
        pq.write_table(table, tmp_path / name / "x=5.parquet")
    pool = open_pool([str(tmp_path)], PoolConfig())
    assert pool.schema.names == ["url", "text", "lang"]
    found = []
    for unit in pool.units:
        for batch in read_unit(unit, all_columns=True, skipped=Counter()):
            found += batch.columns["lang"].to_pylist()
    assert sorted(found, key=str) == [None, "a/b", "en"]
