"""``pool language``: what a pool lacks is found, what it has stays, and nothing else changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from conftest import Command, digests
from metacurate.pool import identify
from metacurate.pool.identify import LanguageConfig, identify_languages
from metacurate.pool.schema import PoolConfig

pytest.importorskip("pycld2")

SENTENCES = {
    "en": "a small dog runs across the street in the rain",
    "de": "ein kleiner Hund läuft bei Regen über die Straße",
    "fr": "un petit chien traverse la rue sous la pluie",
    "ru": "маленькая собака бежит по улице под дождём",
    "ja": "小さな犬が雨の中で通りを走っている",
    "zh": "一隻小狗在雨中穿過街道",  # CLD2 says zh-Hant
    "th": "สุนัขตัวเล็กวิ่งข้ามถนนท่ามกลางสายฝน",
    "he": "כלב קטן רץ ברחוב בגשם",  # and iw
    "ko": "작은 개가 빗속에서 거리를 가로질러 달린다",
    "el": "ένα μικρό σκυλί τρέχει στο δρόμο στη βροχή",
}
Row = dict[str, Any]


def pool(path: Path, rows: Sequence[Row], **types: pa.DataType) -> str:
    table = pa.Table.from_pylist(rows)
    for name, kind in types.items():
        column = pa.array([row[name] for row in rows], kind)
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, path, row_group_size=7)
    return str(path)


def rows_of(out: Path) -> list[Row]:
    shards = sorted((out / "pool").glob("*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


def run(source: str, out: Path, workers: int = 1, **config: Any) -> dict[str, Any]:
    columns = {k: config.pop(k) for k in ("text_cols", "lang_col") if k in config}
    settings = PoolConfig(rows_per_unit=7, **columns)
    return identify_languages([source], str(out), LanguageConfig(**config), settings,
                              workers=workers)  # fmt: skip


def test_two_columns_many_languages(tmp_path: Path) -> None:
    """Rows, their order and their columns stay, whatever the number of workers."""
    languages = list(SENTENCES)
    rows = [
        {
            "url": f"https://example.org/{n}.jpg" if n % 5 else None,
            "alt": SENTENCES[languages[n % 10]],
            "number": n,
            "title": [SENTENCES["fr"], None, "", "12"][n % 4],
        }
        for n in range(30)
    ]
    source = pool(tmp_path / "pool.parquet", rows)
    outs = [tmp_path / "one", tmp_path / "two"]
    for workers, out in enumerate(outs, 1):
        totals = run(source, out, workers, text_cols=("title", "alt"))
    assert digests(outs[0] / "pool") == digests(outs[1] / "pool")
    title = ["fr", None, "und", "und"]
    found = rows_of(outs[0])
    assert [(row["url"], row["number"]) for row in found] == [
        (row["url"], row["number"]) for row in rows
    ]
    assert [row["texts"] for row in found] == [
        [
            {"source": "title", "text": row["title"], "lang": title[n % 4]},
            {"source": "alt", "text": row["alt"], "lang": languages[n % 10]},
        ]
        for n, row in enumerate(rows)
    ]
    assert [row["uid"] is None for row in found] == [row["url"] is None for row in rows]
    by_language = {**dict.fromkeys(languages, 3), "fr": 3 + 8, "und": 7 + 7}
    assert totals["languages"] == by_language
    assert list(totals["languages"])[:2] == ["und", "fr"]
    del totals["languages"]
    assert totals == {
        "units": 5, "rows": 30, "texts": 52, "identified": 52, "kept": 0, "undetermined": 14,
        "skipped": {"no_url": 6}, "bad_files": {},
    }  # fmt: skip


TEXTS = pa.list_(pa.struct([("text", pa.string()), ("lang", pa.string()), ("source", pa.string())]))


@pytest.mark.parametrize(
    ("config", "expected", "identified"),
    [
        ({}, ["xx", "de", "de", "de", "de", "de", "und"], 6),
        ({"every": True}, ["de", "de", "de", "de", "de", "de", "und"], 7),
        ({"min_score": 1.0, "identifier": "test_identify:Unsure"},
         ["xx", "und", "und", "und", "und", "und", "und"], 6),
    ],
)  # fmt: skip
def test_what_has_a_language_keeps_it(
    tmp_path: Path, config: Row, expected: list[str], identified: int
) -> None:
    given = ["xx", None, "", "und", " Und", " ", None]
    texts = [{"text": SENTENCES["de"], "lang": lang, "source": "alt"} for lang in given]
    texts[-1]["text"] = "7"
    rows = [{"uid": bytes(16), "texts": texts}, {"uid": bytes(16), "texts": None}]
    source = pool(tmp_path / "pool.parquet", rows, texts=TEXTS, uid=pa.binary(16))
    totals = run(source, tmp_path / "out", **config)
    found = rows_of(tmp_path / "out")
    assert [text["lang"] for text in found[0]["texts"]] == expected
    assert {text["source"] for text in found[0]["texts"]} == {"alt"}
    assert found[1]["texts"] == []
    assert (totals["identified"], totals["kept"]) == (identified, 7 - identified)
    assert sum(totals["languages"].values()) == totals["texts"] == 7


class Unsure:
    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        return ["de"] * len(texts), [0.5] * len(texts)


@pytest.mark.parametrize("name", ["lang", "idioma"])
def test_a_column_says_the_language(tmp_path: Path, name: str) -> None:
    langs = ["pt_BR", None, "", "en"]
    rows = [
        {"url": f"https://example.org/{n}", "caption": SENTENCES["de"], name: lang}
        for n, lang in enumerate(langs)
    ]
    source = pool(tmp_path / "pool.parquet", rows)
    run(source, tmp_path / "out", **({} if name == "lang" else {"lang_col": name}))
    found = rows_of(tmp_path / "out")
    assert [row["texts"][0]["lang"] for row in found] == ["pt_BR", "de", "de", "en"]
    assert [row[name] for row in found] == langs  # carried as any other column


def test_totals_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identify, "MAX_LABELS", 3)
    labels = ["de"] * 3 + ["en"] * 2 + [f"l{n}" for n in range(20)] + ["x" * 1_000] * 5
    rows = [
        {"uid": bytes(16), "texts": [{"text": "t", "lang": label, "source": ""}]}
        for label in labels
    ]
    source = pool(tmp_path / "pool.parquet", rows, texts=TEXTS, uid=pa.binary(16))
    totals = run(source, tmp_path / "out")
    assert len(totals["languages"]) == 4
    assert sum(totals["languages"].values()) == totals["texts"] == 30
    assert totals["languages"]["de"] == 3
    assert [row["texts"][0]["lang"] for row in rows_of(tmp_path / "out")] == labels


def test_the_command(tmp_path: Path, metacurate: Command) -> None:
    lines = [
        {"url": f"https://example.org/{n}", "text": text}
        for n, text in enumerate(SENTENCES.values())
    ]
    source, out = tmp_path / "pool.jsonl", tmp_path / "out"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    call = ("pool", "language", source, "--out", out, "--workers", 1)
    ran = metacurate(*call, "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["languages"] == dict.fromkeys(sorted(SENTENCES), 1)
    again = metacurate(*call)
    assert "texts in zh" in again.stdout
    for wrong, said in [
        (("--identifier", "nonsense"), "no language identifier 'nonsense'"),
        (("--min-lang-score", "2"), "--min-lang-score must be from 0 to 1"),
        (("--all",), "--overwrite"),
        (("--lang-col", "nothing"), "nothing"),
    ]:
        failed = metacurate(*call, *wrong)
        assert failed.returncode == 2
        assert said in failed.stderr
        assert failed.stderr.count("\n") == 1 or "JSON file" in failed.stderr
