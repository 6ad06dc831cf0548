"""The example pools: their schemas, texts, addresses, counts and licences."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import ahocorasick
import numpy as np
import pyarrow.parquet as pq
import pytest

from metacurate.metadata.wordnet import shipped_entries

EXAMPLES = Path(__file__).parents[1] / "examples"
POOL = EXAMPLES / "emoji"
VENDORS = {
    "noto": (3786, "Apache-2.0"),
    "twemoji": (3786, "CC-BY-4.0"),
    "openmoji": (4495, "CC-BY-SA-4.0"),
    "fluent": (2873, "MIT"),
}


def load_script(name: str) -> Any:
    """The module of a script of the examples."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses with postponed annotations look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> Any:
    """The module that made the pool."""
    return load_script("make_emoji_pool")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """All pairs of the pool."""
    return [
        row for vendor in VENDORS for row in pq.read_table(POOL / f"{vendor}.parquet").to_pylist()
    ]


@pytest.mark.parametrize("vendor", VENDORS)
def test_shards(vendor: str, script: Any) -> None:
    file = pq.ParquetFile(POOL / f"{vendor}.parquet")
    pairs, licence = VENDORS[vendor]
    assert file.schema_arrow.equals(script.SCHEMA)
    assert file.metadata.num_rows == pairs
    assert file.num_row_groups > 1
    table = file.read()
    assert set(table["vendor"].to_pylist()) == {vendor}
    assert set(table["license"].to_pylist()) == {licence}


def test_only_free_art_and_a_small_size() -> None:
    assert {p.stem for p in POOL.glob("*.parquet")} == set(VENDORS)
    assert sum(p.stat().st_size for p in POOL.iterdir()) < 3 * 2**20


def test_addresses_are_unique_and_pinned(rows: list[dict[str, Any]], script: Any) -> None:
    pinned = re.compile(r"https://cdn\.jsdelivr\.net/npm/([a-z-]+)@([0-9.]+)/[\w./-]+\.(png|svg)")
    assert len({row["url"] for row in rows}) == len(rows)
    for row in rows:
        match = pinned.fullmatch(row["url"])
        assert match is not None, row["url"]
        assert script.VERSIONS[match[1]] == match[2]


def test_texts(rows: list[dict[str, Any]]) -> None:
    sources = Counter(text["source"] for row in rows for text in row["texts"])
    assert set(sources) == {
        "unicode_name",
        "short_names",
        "cldr_short_name",
        "cldr_keywords",
        "openmoji_annotation",
        "openmoji_tags",
    }
    for row in rows:
        assert row["texts"]
        assert all(t["text"].strip() for t in row["texts"])
        assert {t["lang"] for t in row["texts"]} == {"en"}
    [dog] = [r for r in rows if r["emoji"] == "🐕" and r["vendor"] == "noto"]
    assert [t["text"] for t in dog["texts"][:3]] == ["DOG", "dog2", "dog"]
    assert (dog["group"], dog["subgroup"]) == ("animals-nature", "animal-mammal")


def test_each_emoji_is_drawn_by_several_vendors(rows: list[dict[str, Any]]) -> None:
    vendors: dict[str, set[str]] = {}
    for row in rows:
        vendors.setdefault(row["emoji"].replace("\ufe0f", ""), set()).add(row["vendor"])
    assert sum(len(found) == 4 for found in vendors.values()) > 2500


def test_head_and_tail_over_wordnet(rows: list[dict[str, Any]]) -> None:
    """A few heads hold most counts, thousands of entries hold few: what balancing needs."""
    entries = shipped_entries()
    automaton = ahocorasick.Automaton()
    for position, entry in enumerate(entries):
        automaton.add_word(f" {entry} ", position)
    automaton.make_automaton()
    counts: Counter[str] = Counter()
    matched_pairs = 0
    for row in rows:
        found: list[int] = []
        for text in row["texts"]:
            spaced = re.sub(r"[\t\n\r]", " ", re.sub(r"([,.;:?!`])", r" \1 ", f" {text['text']} "))
            found += {position for _, position in automaton.iter(spaced)}
        matched_pairs += bool(found)
        counts.update(entries[position] for position in found)
    assert len(rows) == 14_940
    assert matched_pairs == 14_914
    assert len(counts) == 3_580
    assert counts.total() == 163_908
    assert [entry for entry, _ in counts.most_common(3)] == ["tone", "skin", "man"]
    heads = [count for count in counts.values() if count >= 100]
    assert len(heads) == 218
    assert sum(heads) / counts.total() > 0.65


def test_file_names_of_fluent_emoji(script: Any) -> None:
    assert script.file_name("woman surfing: dark skin tone") == "woman-surfing-dark"
    assert script.file_name("Japanese “secret” button") == "japanese-secret-button"
    assert script.file_name("flag: Côte d’Ivoire") == "flag-cote-divoire"


def test_the_script_wants_the_pinned_packages(script: Any, tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"must hold emoji-datasource-google@16\.0\.0, found: none"
    ):
        script.main(tmp_path, tmp_path / "out")
    package = tmp_path / "emoji-datasource-google"
    package.mkdir()
    (package / "package.json").write_text('{"version": "15.0.0"}')
    with pytest.raises(SystemExit, match=r"found: 15\.0\.0"):
        script.main(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_licences_travel_along() -> None:
    readme = (POOL / "README.md").read_text(encoding="utf-8")
    for name in (*(licence for _, licence in VENDORS.values()), "Unicode-3.0", *VENDORS):
        assert name.lower() in readme.lower(), name
    assert "UNICODE LICENSE V3" in (POOL / "LICENSE.cldr").read_text(encoding="utf-8")
    assert "MIT License" in (POOL / "LICENSE.emoji-datasource").read_text(encoding="utf-8")


WORLDWIDE = EXAMPLES / "worldwide"


@pytest.fixture(scope="module")
def worldwide() -> Any:
    """The module that made the worldwide example."""
    return load_script("make_worldwide_pool")


@pytest.fixture(scope="module")
def worldwide_rows(worldwide: Any) -> list[dict[str, Any]]:
    """All pairs of the worldwide pool."""
    found: list[dict[str, Any]] = []
    for vendor in worldwide.VENDORS:
        table = pq.read_table(WORLDWIDE / "pool" / f"{vendor}.parquet")
        assert table.schema.equals(worldwide.SCHEMA)
        found += table.to_pylist()
    return found


def test_worldwide_pool(
    worldwide: Any, worldwide_rows: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> None:
    labels = {*worldwide.LANGUAGES, *worldwide.WITHOUT_METADATA, None}
    texts = [text for row in worldwide_rows for text in row["texts"]]
    assert {text["lang"] for text in texts} == labels
    assert len(worldwide.LANGUAGES) >= 20
    assert {"en", "zh", "ja", "th", "km", "my", "ko", "ar", "hi", "he"} <= labels
    assert len(worldwide_rows) == 14_407
    assert len(texts) == 86_412
    assert all(text["text"].strip() for text in texts)
    licences = {row["url"]: row["license"] for row in rows}
    assert all(row["license"] == licences[row["url"]] for row in worldwide_rows)
    [dog] = [r for r in worldwide_rows if r["emoji"] == "🐶" and r["vendor"] == "noto"]
    assert len({text["lang"] for text in dog["texts"]}) == worldwide.LANGUAGES_AN_IMAGE


def test_worldwide_metadata(worldwide: Any) -> None:
    files = {path.stem: path for path in (WORLDWIDE / "metadata").iterdir()}
    assert set(files) == set(worldwide.LANGUAGES)
    for language, path in files.items():
        entries = json.loads(path.read_text(encoding="utf-8"))
        assert entries[:100] == [str(number) for number in range(100)], language
        assert len(entries) == len(set(entries)) > 3_000, language
    size = sum(path.stat().st_size for path in WORLDWIDE.glob("**/*") if path.is_file())
    assert size < 5 * 2**20
    assert "UNICODE LICENSE V3" in (WORLDWIDE / "LICENSE.cldr").read_text(encoding="utf-8")


# What docs/worldwide.md says of t = 20, by language: matches and the threshold that is nearest.
DOCUMENTED = {"en": (44_529, 20), "th": (12_006, 8), "ko": (9_565, 4), "lo": (3_874, 3)}


def test_worldwide_counts(worldwide_rows: list[dict[str, Any]]) -> None:
    """Matches by pyahocorasick over entries with their spaces, and thresholds by definition."""
    wide = re.compile(r"[\u0e00-\u0eff!-/:-@\[-`{-~，。、；：？！“”‘’（）【】《》〈〉「」『』～—]")
    found: dict[str, list[int]] = {}
    for language in DOCUMENTED:
        entries = json.loads((WORLDWIDE / f"metadata/{language}.json").read_text("utf-8"))
        automaton = ahocorasick.Automaton()
        for number, entry in enumerate(entries):
            left, right = ("" if wide.match(entry[place]) else " " for place in (0, -1))
            automaton.add_word(left + entry + right, number)
        automaton.make_automaton()
        counts: Counter[int] = Counter()
        for row in worldwide_rows:
            for text in row["texts"]:
                if text["lang"] == language:
                    said = re.sub(r"([,.;:?!`])", r" \1 ", f" {text['text'].strip()} ")
                    counts.update({number for _, number in automaton.iter(said)})
        found[language] = sorted(counts.values())
    p = sum(count for count in found["en"] if count < 20) / sum(found["en"])
    for language, (matches, t) in DOCUMENTED.items():
        counts_up = np.array(found[language])
        assert counts_up.sum() == matches
        if language != "en":
            shares = counts_up.cumsum() / matches
            assert counts_up[np.abs(shares - p).argmin()] == t


def test_the_worldwide_script_wants_the_pinned_packages(worldwide: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"must hold cldr-annotations-full@48\.2\.0, found: none"):
        worldwide.main(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
