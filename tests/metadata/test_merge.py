"""Metadata of many languages joined: groups, order, repeats, forms of files, one list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metacurate as mc
from conftest import Command
from metacurate.errors import UserError
from metacurate.metadata.entryfile import read_about, write_built
from metacurate.metadata.store import save_parquet

FILES: dict[str, Any] = {
    "en.json": ["dog", "cat", "42"],
    "zh.json": {"狗": "wordnet", "42": "numbers"},
    "zh_yue.json": ["狗", "猫", "貓"],
    "zh_classical.json": ["猫", "犬"],
    "be_tarask.json": ["кот", "Кот"],
    "be.json": ["кот", "Мова"],
    "xx_odd.json": ["qwe", "42"],
    "qqq.json": ["dog", "qwe"],
}


def write(folder: Path, files: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return folder


def by_language(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault(row["lang"], []).append(row["entry"])
    return found


EXPECTED = {
    "be": ["кот", "Мова", "Кот"],
    "en": ["dog", "cat", "42"],
    "other": ["dog", "qwe", "42"],
    "zh": ["狗", "42", "猫", "犬", "貓"],
}


def test_groups_are_joined_in_the_order_of_their_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", FILES)
    totals = mc.merge_metadata(folder, tmp_path / "all.parquet")
    assert by_language(tmp_path / "all.parquet") == EXPECTED
    assert list(by_language(tmp_path / "all.parquet")) == sorted(EXPECTED)
    assert totals == {
        "entries": 14,
        "repeated": 4,
        "languages": {name: len(entries) for name, entries in EXPECTED.items()},
        "other": ["qqq", "xx"],
    }
    table = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert [row["source"] for row in table if row["lang"] == "zh"][:2] == ["wordnet", "numbers"]

    # Files given one by one have the order in which they are given.
    files = [folder / name for name in ("zh_yue.json", "zh.json")]
    mc.merge_metadata(files, tmp_path / "zh.parquet")
    assert by_language(tmp_path / "zh.parquet") == {"zh": ["狗", "猫", "貓", "42"]}


def test_what_is_merged_is_metadata_of_languages(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", FILES)
    mc.merge_metadata(folder, tmp_path / "all.parquet")
    mc.merge_metadata(folder, tmp_path / "all")
    one, two = (mc.load_metadata(tmp_path / name) for name in ("all.parquet", "all"))
    assert one.languages == two.languages == tuple(EXPECTED)
    assert one.fingerprint == two.fingerprint
    # Each language is in row groups of its own: it can be read alone.
    groups = pq.ParquetFile(tmp_path / "all.parquet")
    assert groups.num_row_groups == len(EXPECTED)
    # Merging again changes nothing, from either form.
    for name in ("all.parquet", "all"):
        mc.merge_metadata(tmp_path / name, tmp_path / "again.parquet")
        assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "all.parquet").read_bytes()


def test_one_list(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", FILES)
    totals = mc.merge_metadata(folder, tmp_path / "one.parquet", one_list=True)
    union = list(dict.fromkeys(entry for entries in EXPECTED.values() for entry in entries))
    metadata = mc.load_metadata(tmp_path / "one.parquet")
    assert metadata.entries.to_pylist() == union
    assert metadata.languages == ()
    assert metadata.lang is None
    assert totals["entries"] == len(union)
    assert totals["repeated"] == 4 + 14 - len(union)


WORDS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(["de", "zh", "zh_yue", "als", "qq_a", "qq"]), WORDS))
def test_any_files_by_the_definition(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, list[str]]
) -> None:
    if not files:
        return
    folder = tmp_path_factory.mktemp("merge")
    write(folder / "in", {f"{code}.json": words for code, words in files.items()})
    expected: dict[str, dict[str, None]] = {}
    for code in sorted(files):
        group = code.partition("_")[0]
        language = "other" if group == "qq" else group
        expected.setdefault(language, {}).update(dict.fromkeys(files[code]))
    totals = mc.merge_metadata(folder / "in", folder / "all.parquet")
    merged = by_language(folder / "all.parquet")
    assert {name: list(words) for name, words in expected.items()} == merged
    one = mc.merge_metadata(folder / "all.parquet", folder / "one.parquet", one_list=True)
    union = {word for words in files.values() for word in words}
    assert one["entries"] == len(union)
    assert totals["entries"] - one["repeated"] == len(union)


def test_files_of_several_languages_and_of_none(tmp_path: Path) -> None:
    mixed = mc.make_metadata(
        ["a", "b", "c", "a"], lang=["zh-yue", None, "th", "th"], score=[1, 2, 3, 4]
    )
    save_parquet(mixed, tmp_path / "ko.parquet")
    save_parquet(mc.make_metadata(["x", "y"]), tmp_path / "metadata.parquet")
    write(tmp_path, {"list.json": ["z", "x"]})
    mc.merge_metadata(
        [tmp_path / "ko.parquet", f"en={tmp_path}/metadata.parquet", f"en={tmp_path}/list.json"],
        tmp_path / "all.parquet",
    )
    expected = {"en": ["x", "y", "z"], "other": ["b"], "th": ["c", "a"], "zh": ["a"]}
    assert by_language(tmp_path / "all.parquet") == expected
    scores = {r["entry"]: r["score"] for r in pq.read_table(tmp_path / "all.parquet").to_pylist()
              if r["lang"] == "th"}  # fmt: skip
    assert scores == {"c": 3.0, "a": 4.0}
    # What is said before a file goes for all of it.
    mc.merge_metadata(f"de={tmp_path}/all.parquet", tmp_path / "de.parquet")
    assert by_language(tmp_path / "de.parquet") == {"de": ["x", "y", "z", "b", "c", "a"]}


def test_languages_without_order_are_found_in_all_row_groups(tmp_path: Path) -> None:
    rows = [(f"{lang}{n}", lang) for n in range(30) for lang in ("th", "zh", None)]
    table = pa.table({"entry": [e for e, _ in rows], "lang": [lang for _, lang in rows]})
    pq.write_table(table, tmp_path / "ko.parquet", row_group_size=7)
    mc.merge_metadata(tmp_path / "ko.parquet", tmp_path / "all.parquet")
    assert by_language(tmp_path / "all.parquet") == {
        "ko": [f"None{n}" for n in range(30)],
        "th": [f"th{n}" for n in range(30)],
        "zh": [f"zh{n}" for n in range(30)],
    }


def test_how_entries_were_made_stays_known(tmp_path: Path) -> None:
    abouts = [{"wiki": wiki, "segmenter": {"name": "icu", "version": "1"}} for wiki in ("th", "zh")]
    for about in abouts:
        wiki = about["wiki"]
        metadata = mc.make_metadata(["a"], source=["x"], score=[1.0], lang=[wiki])
        write_built(metadata, str(tmp_path / "in" / f"{wiki}.parquet"), about)
        # The JSON file that the build puts beside it has less, and is left.
        write(tmp_path / "in", {f"{wiki}.json": ["a"]})
    mc.merge_metadata(tmp_path / "in", tmp_path / "all.parquet")
    assert read_about(pq.read_schema(tmp_path / "all.parquet")) == abouts
    assert {r["score"] for r in pq.read_table(tmp_path / "all.parquet").to_pylist()} == {1.0}


def test_the_language_map_is_the_users(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", FILES)
    write(tmp_path, {"map.json": {"klingon": "qqq"}})
    totals = mc.merge_metadata(folder, tmp_path / "all.parquet", language_map=tmp_path / "map.json")
    assert totals["languages"]["qqq"] == 2
    assert totals["other"] == ["xx"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing.json", None, "there is no metadata file|no metadata file"),
        ("metadata.json", b'["a"]', r"does not say its language: .*give en="),
        ("zh.json", b'["a", "a"]', "repeated"),
        ("zh.json", b'["a", ""]', "empty"),
        ("zh.json", b"{", "neither JSON"),
        ("zh.parquet", b"PAR1 rubbish", "damaged Parquet"),
    ],
)
def test_bad_files_are_one_line(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        mc.merge_metadata(tmp_path / name, tmp_path / "out" / "all.parquet")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "all.parquet").exists()


def test_bad_outputs_and_languages_are_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", FILES)
    with pytest.raises(UserError, match="overlaps the input"):
        mc.merge_metadata(folder, folder / "all.parquet")
    with pytest.raises(UserError, match="holds files already"):
        mc.merge_metadata(folder, write(tmp_path / "full", {"a.json": []}))
    with pytest.raises(UserError, match=r"must name a \.parquet file for one list"):
        mc.merge_metadata(folder, tmp_path / "x.json", one_list=True)
    with pytest.raises(UserError, match="no file of a language's metadata"):
        mc.merge_metadata(write(tmp_path / "empty", {}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"is a folder: its files' names say"):
        mc.merge_metadata(f"en={folder}", tmp_path / "x.parquet")
    for columns in (["entry"], ["entry", "lang"]):
        empty = pa.schema([(name, pa.string()) for name in columns]).empty_table()
        pq.write_table(empty, tmp_path / "th.parquet")
        with pytest.raises(UserError, match=r"has no entries|has 0 entries"):
            mc.merge_metadata(tmp_path / "th.parquet", tmp_path / "x.parquet", one_list=True)
    pq.write_table(pa.table({"entry": ["a"], "lang": ["../etc"]}), tmp_path / "y.parquet")
    with pytest.raises(UserError, match=r"'\.\./etc' in the column lang is no code of a language"):
        mc.merge_metadata(tmp_path / "y.parquet", tmp_path / "out")


def test_the_command(tmp_path: Path, metacurate: Command) -> None:
    folder = write(tmp_path / "in", FILES)
    done = metacurate("metadata", "merge", folder, "--out", tmp_path / "all", "--json")
    assert json.loads(done.stdout)["languages"] == {n: len(e) for n, e in EXPECTED.items()}
    assert "no identifier's label maps to qqq, xx" in done.stderr
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == [
        f"{name}.parquet" for name in sorted(EXPECTED)
    ]
