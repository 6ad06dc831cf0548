"""Metadata of other Wikipedias and MetaCLIP's own rules, on small dumps of real sentences."""

from __future__ import annotations

import gzip
import json
import random
import re
import string
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from nltk import FreqDist
from nltk.collocations import BigramCollocationFinder
from nltk.metrics import BigramAssocMeasures

from metacurate.errors import UserError
from metacurate.metadata.build import BuildConfig, build_metadata
from metacurate.metadata.entryfile import read_about
from metacurate.metadata.limits import LIMITS, most
from metacurate.metadata.store import load_metadata
from worldwide_texts import CHINESE, GERMAN, dump

MARKS = set(string.punctuation + "，。、；：？！¿“”‘’（）【】《》〈〉「」『』～—")
DRAW = random.Random(4)
# Sentences in several orders, so that words repeat.
ARTICLES = {
    f"条目 {n}": "\n".join(DRAW.sample(CHINESE, 4)) + "\n[[文件:甲.jpg|thumb|丢掉]]{{模板}}"
    for n in range(40)
}


def build(tmp_path: Path, config: BuildConfig, workers: int = 1, name: str = "m") -> Any:
    return build_metadata(config, str(tmp_path / f"{name}.json"), workers=workers)


def rows(tmp_path: Path, source: str | None = None, name: str = "m") -> list[dict[str, Any]]:
    found = pq.read_table(tmp_path / f"{name}.parquet").to_pylist()
    return [row for row in found if source in (None, row["source"])]


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zh")
    data = dump("zhwiki", ARTICLES, {6: "文件", 14: "分类"})
    (folder / "zhwiki-1-pages-articles.xml").write_bytes(data)
    titles = [*ARTICLES, "甲:乙", "不在"]
    views = [f"zh {t.replace(' ', '_')} {n + 1} 0\nzh.m {t.replace(' ', '_')} 1 0"
             for n, t in enumerate(titles)]  # fmt: skip
    (folder / "pageviews.gz").write_bytes(gzip.compress("\n".join(views).encode()))
    lemmas = ["狗", "家_犬", "， ", "x" * 300, " 北京 ", ""]
    lines = ["# x\tcmn", *(f"{n}-n\tcmn:lemma\t{lemma}" for n, lemma in enumerate(lemmas))]
    (folder / "wn-data-cmn.tab").write_text("\n".join(lines), encoding="utf-8")
    return folder


def config_for(folder: Path, **changes: Any) -> BuildConfig:
    given: dict[str, Any] = {
        "wiki": "zh",
        "dumps": (str(folder / "*.xml"),),
        "pageviews": (str(folder / "pageviews.gz"),),
        "wordnet": str(folder / "wn-data-cmn.tab"),
        "part_bytes": 3000,
        "partitions": 3,
    }
    return BuildConfig(**{**given, **changes})


def chinese_stream() -> list[str]:
    """All tokens of the articles by ICU itself; an empty one at marks and between articles."""
    breakers = pytest.importorskip("icu4py.breakers", reason="needs metacurate[worldwide]")
    stream: list[str] = []
    for text in ARTICLES.values():
        kept = text.partition("\n[[")[0]
        for token in breakers.WordBreaker(kept, "zh"):
            if token.strip():
                stream.append("" if set(token) <= MARKS else token)
        stream.append("")
    return stream


def test_chinese_by_the_definition(chinese: Path, tmp_path: Path) -> None:
    stream = chinese_stream()
    totals = build(tmp_path, config_for(chinese, unigram_share=0.5))
    counts = Counter(token for token in stream if token)
    pairs = Counter((a, b) for a, b in pairwise(stream) if a and b)

    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    unigrams = ranked[: len(counts) // 2]
    assert len(unigrams) == totals["sizes"]["unigrams"]["limit"] == 30
    rarest = counts[unigrams[-1]]
    finder = BigramCollocationFinder(FreqDist(counts), FreqDist(pairs))
    pmi = {
        left + right: score
        for (left, right), score in finder.score_ngrams(BigramAssocMeasures.pmi)
        if pairs[left, right] >= rarest
    }
    often = {left + right: count for (left, right), count in pairs.items()}
    order = sorted(pmi, key=lambda entry: (-round(pmi[entry], 9), -often[entry], entry))
    bigrams = order[: int(30 * 0.4)]
    assert len(bigrams) == 12
    titles = {title: n + 2 for n, title in enumerate(ARTICLES)}
    best_titles = sorted(titles, key=lambda title: -titles[title])[: int(40 * 0.76)]

    numbers = [str(number) for number in range(100)]
    expected = [*numbers, "狗", "家 犬", "x" * 300, "北京", *unigrams, *bigrams, *best_titles]
    entries = [row["entry"] for row in rows(tmp_path)]
    assert entries == list(dict.fromkeys(expected))
    assert entries == load_metadata(tmp_path / "m.json").entries.to_pylist()
    assert totals["dropped"] == {"wordnet": {"empty": 1, "punctuation": 1}}
    assert {row["lang"] for row in rows(tmp_path)} == {"zh"}
    assert [row["score"] for row in rows(tmp_path, "bigrams")] == pytest.approx(
        [pmi[row["entry"]] for row in rows(tmp_path, "bigrams")]
    )
    assert {row["entry"]: row["score"] for row in rows(tmp_path, "titles")} == {
        title: float(titles[title]) for title in best_titles
    }
    assert totals["stages"]["titles"]["with_colon"] == 0  # the dump has no such article
    # No whole clauses, nothing of dropped markup.
    assert max(len(row["entry"]) for row in rows(tmp_path, "unigrams")) <= 4
    assert "丢" not in "".join(entries)

    about = {"wiki": "zh", "rules": "worldwide", "segmenter": totals["segmenter"]}
    assert read_about(pq.read_schema(tmp_path / "m.parquet")) == [about]
    assert totals["segmenter"]["name"] == "icu"
    assert "ICU" in totals["segmenter"]["version"]
    manifest = json.loads((tmp_path / "m.build" / "manifest.json").read_text())
    assert manifest["stages"]["dump"]["config"]["segmenter"] == totals["segmenter"]


def test_bytes_do_not_depend_on_workers_or_partitions(chinese: Path, tmp_path: Path) -> None:
    pytest.importorskip("icu4py", reason="needs metacurate[worldwide]")
    build(tmp_path, config_for(chinese), name="one")
    build(tmp_path, config_for(chinese, partitions=1, part_bytes=1 << 20), 2, "two")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


class Letters:
    """A segmenter of one's own: each character a word."""

    version = "1"

    def __init__(self, wiki: str) -> None:
        pass

    def segment(self, text: str) -> list[str]:
        return list(text)


def test_the_segmenter_is_chosen_and_recorded(chinese: Path, tmp_path: Path) -> None:
    own = f"{__name__}:Letters"
    config = config_for(chinese, segmenter=own, sources=("unigrams",), unigram_share=1.0)
    totals = build(tmp_path, config)
    assert totals["segmenter"] == {"name": own, "version": "1"}
    kept = "".join(text.partition("\n[[")[0] for text in ARTICLES.values())
    counts = Counter(c for c in kept if c not in MARKS and not c.isspace())
    assert {row["entry"]: row["score"] for row in rows(tmp_path)} == counts
    other = config_for(chinese, segmenter="none", sources=("unigrams",), unigram_share=1.0)
    with pytest.raises(UserError, match="overwrite"):
        build(tmp_path, other)


def test_a_language_with_spaces(tmp_path: Path) -> None:
    (tmp_path / "d.xml").write_bytes(dump("dewiki", {"A": "\n".join(GERMAN)}))
    config = BuildConfig(
        wiki="de", dumps=(str(tmp_path / "d.xml"),), unigram_share=1.0, bigram_share=1.0
    )
    build(tmp_path, config)
    unigrams = {row["entry"]: row["score"] for row in rows(tmp_path, "unigrams")}
    text = " ".join(GERMAN)
    counts = Counter("".join(" " if c in MARKS else c for c in text).split())
    assert counts.pop("–") == 2  # punctuation alone is no word
    assert counts["„Der"] == 1  # but a mark that matching does not part is part of one
    assert unigrams == counts
    bigrams = [row["entry"] for row in rows(tmp_path, "bigrams")]
    assert bigrams == ["steht am"]


@pytest.mark.parametrize(
    ("limit", "share", "of", "expected"),
    [
        (251_465, 0.1, 10_000_000, 251_465),
        (251_465, 0.1, 999, 99),
        (100_646, 0.4, 5, 2),
        (61_235, 0.76, 100, 76),
        (None, 0.29, 100, 29),  # 28.999999999999996 in floating point
        (10, None, 5, 10),
        (None, None, 5, None),
        (10, 0.1, 0, 0),
    ],
)
def test_limits(limit: int | None, share: float | None, of: int, expected: int | None) -> None:
    assert most(limit, share, of) == expected


def test_limits_are_the_papers() -> None:
    worldwide, v1 = LIMITS["worldwide"], LIMITS["v1"]
    assert (worldwide.max_unigrams, worldwide.unigram_share) == (251_465, 0.1)
    assert (worldwide.best_bigrams, worldwide.bigram_share) == (100_646, 0.4)
    assert (worldwide.max_titles, worldwide.title_share) == (61_235, 0.76)
    assert (v1.min_count, v1.min_pmi, v1.min_views) == (100, 30.0, 70)


VIEWS = """\
en Dog 60 0
en Dog 49 0
en Dog 50 0
en dog 900 0
en iPhone 69 0
en.m Dog 900 0
en Cat_food 55 0
en Cat_food 55 0
en Star_Wars:_A_Film 900 0
en Talk:Dog 900 0
en Hund 69 0
en Wolf 70 0
fr Dog 900 0
"""


def test_titles_by_the_official_rule(tmp_path: Path) -> None:
    (tmp_path / "pageviews-1.gz").write_bytes(gzip.compress(VIEWS.encode()))
    pages = dump("enwiki", {"Dog": "a dog", "Wolf": "x"})
    (tmp_path / "d.xml").write_bytes(pages)
    views = (str(tmp_path / "pageviews-1.gz"),)
    official = BuildConfig(pageviews=views, sources=("titles",), title_rule="official")
    build(tmp_path, official)
    expected = {"dog": 900.0, "Dog": 110.0, "Cat food": 110.0, "Wolf": 70.0}
    assert {row["entry"]: row["score"] for row in rows(tmp_path)} == expected
    dumped = BuildConfig(
        pageviews=views, dumps=(str(tmp_path / "d.xml"),), sources=("titles",),
        title_rule="official",
    )  # fmt: skip
    build(tmp_path, dumped, name="dumped")  # articles and redirects of a dump change nothing
    assert rows(tmp_path, name="dumped") == rows(tmp_path)
    own = BuildConfig(pageviews=views, sources=("titles",))
    build(tmp_path, own, name="own")
    assert {row["entry"]: row["score"] for row in rows(tmp_path, name="own")} == {
        "Dog": 1959.0, "Star Wars: A Film": 900.0, "Cat food": 110.0, "Wolf": 70.0
    }  # fmt: skip


def test_titles_with_small_letters(tmp_path: Path) -> None:
    (tmp_path / "pageviews-1.gz").write_bytes(gzip.compress(b"jbo cukta 500 0\njbo Cukta 90 0\n"))
    pages = dump("jbowiki", {"cukta": "x", "Cukta": "x"})
    old = re.sub(rb" case=.first-letter.", b"", pages)  # <case> alone
    for name, content, expected in (
        ("capital", pages, {"Cukta": 590}),
        ("small", pages.replace(b"first-letter", b"case-sensitive"), {"cukta": 500, "Cukta": 90}),
        ("old", old.replace(b"first-letter", b"case-sensitive"), {"cukta": 500, "Cukta": 90}),
    ):
        (tmp_path / "d.xml").write_bytes(content)
        config = BuildConfig(
            wiki="jbo", rules="v1", sources=("titles",), dumps=(str(tmp_path / "d.xml"),),
            pageviews=(str(tmp_path / "pageviews-1.gz"),),
        )  # fmt: skip
        build(tmp_path, config, name=name)
        assert {row["entry"]: row["score"] for row in rows(tmp_path, name=name)} == expected


def test_max_entries_leaves_out_the_last(tmp_path: Path) -> None:
    totals = build(tmp_path, BuildConfig(max_entries=150))
    assert totals["entries"] == 150
    assert [row["source"] for row in rows(tmp_path)] == ["numbers"] * 100 + ["wordnet"] * 50
    assert totals["dropped"] == {"wordnet": {"beyond_max_entries": 86_504}}
    assert any("86,504 beyond_max_entries" in note for note in totals["notes"])


def test_the_dump_of_another_wiki_is_noted(tmp_path: Path) -> None:
    (tmp_path / "d.xml").write_bytes(dump("frwiki", {"A": "b c"}))
    totals = build(
        tmp_path, BuildConfig(wiki="de", dumps=(str(tmp_path / "d.xml"),), unigram_share=1.0)
    )
    assert totals["notes"][0] == "the dump is of frwiki, not of dewiki"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wiki": "Chinese"}, "wiki must be the code of a Wikipedia"),
        ({"rules": "v2"}, "rules must be one of v1, worldwide"),
        ({"title_rule": "all"}, "title_rule must be one of articles, official"),
        ({"rules": "v1", "segmenter": "icu"}, "segmenter is for the worldwide rules alone"),
        ({"segmenter": "nope"}, "no segmenter 'nope'; known are icu, jieba"),
        ({"unigram_share": -0.1}, "unigram_share must be at least 0"),
        ({"max_titles": 0}, "max_titles must be at least 1"),
        ({"max_entries": 0}, "max_entries must be at least 1"),
        ({"wordnet": "wordnet"}, "is English"),
        ({"dumps": (), "pageviews": (), "wordnet": None}, "nothing to build from"),
    ],
)
def test_mistakes_are_one_line(
    chinese: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(tmp_path, config_for(chinese, **{"sources": ("wordnet", "titles"), **changes}))
    assert "\n" not in str(caught.value)
