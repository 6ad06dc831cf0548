"""Curation by language: matching, thresholds and choices against plain computations."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Command, command_line, digests, environment
from curation_pools import fails
from metacurate import curate
from metacurate.curation import balancing
from metacurate.curation.balancing import draw, solve_threshold, tail_proportion
from metacurate.curation.languages import Languages, TextsByLanguage, match_by_language
from metacurate.curation.matching.matcher import Matcher
from metacurate.curation.matching.reference import match_text
from metacurate.curation.settings import Balance
from metacurate.curation.thresholds import Thresholds, given_thresholds, solve_thresholds
from metacurate.errors import UserError
from metacurate.metadata.store import Block, load_metadata, make_metadata, save_parquet
from metacurate.pool.schema import TEXTS_TYPE, PoolConfig
from metacurate.pool.uid import url_uid
from metacurate.runtime.engines.threads import MOST_THREADS
from metacurate.texts.languages import LanguageMap, load_language_map

# Thirty languages; these have entries and texts of their own, the others letters with a mark.
WORDS = {
    "en": (" ", ["dog", "cat", "a", "red", "photo", "C++", "of the", "a"]),
    "de": (" ", ["Hund", "Katze", "a", "rot", "Foto"]),
    "zh": ("", ["狗", "猫", "的", "照片", "红"]),
    "ja": ("", ["犬", "猫", "写真", "の犬"]),
    "th": ("", ["หมา", "แมว", "ภาพ", "ภาพแมว"]),
    "ar": (" ", ["كلب", "قط", "صورة"]),
    "ko": (" ", ["개", "고양이", "사진"]),
    "other": (" ", ["hond", "a", "dog"]),
}
OTHERS = "fr es it pt nl sv da no fi pl cs sk hu ro bg ru uk el he hi bn ta".split()  # noqa: SIM905
WORDS |= {code: (" ", [f"{word}{code}" for word in ("dog", "cat", "a", "x")]) for code in OTHERS}
LABELS = {"en": ["en", "eng_Latn", "EN-gb"], "zh": ["zh", "zh-Hant-TW", "cmn", "yue"],
          "no": ["nb", "no"], "other": [None, "", "und", "xx", "sw"]}  # fmt: skip
REASONS = {None: "no_language", "": "no_language", "und": "no_language", "xx": "unknown_language",
           "sw": "language_without_metadata"}  # fmt: skip


def entries_of(language: str) -> list[str]:
    return list(dict.fromkeys(WORDS[language][1]))


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file for each language, in all the forms that these may have."""
    folder = tmp_path_factory.mktemp("metadata") / "worldwide"
    folder.mkdir()
    for number, language in enumerate(WORDS):
        entries = entries_of(language)
        if number % 3 == 0:
            (folder / f"{language}.json").write_text(json.dumps(entries))
        elif number % 3 == 1:
            told = json.dumps(dict.fromkeys(entries, "wiki"), ensure_ascii=False)
            (folder / f"{language}.json").write_text(told)
        else:
            save_parquet(make_metadata(entries), folder / f"{language}.parquet")
    return folder


def make_rows(number: int, seed: int = 5) -> list[dict[str, Any]]:
    """Pairs of one to three texts, each in some language, of words by a long tail."""
    rng = random.Random(seed)
    rows = []
    for i in range(number):
        texts = []
        for _ in range(rng.randint(1, 3)):
            language = rng.choice([*WORDS, "en", "en", "zh", "th"])
            between, words = WORDS[language]
            weights = [1 / (k + 1) ** 2 for k in range(len(words))]
            text = between.join(rng.choices(words, weights, k=rng.randint(0, 4)))
            lang = rng.choice(LABELS.get(language, [language]))
            texts.append({"source": "alt", "text": text or rng.choice(["", None]), "lang": lang})
        rows.append({"url": f"https://a.example/{i}.png", "texts": texts})
    return rows


def write_pool(folder: Path, rows: list[dict[str, Any]], files: int = 3) -> Path:
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, pa.schema([("url", pa.string()), ("texts", TEXTS_TYPE)]))
    size = math.ceil(len(rows) / files)
    for i in range(files):
        part = table.slice(i * size, size)
        pq.write_table(part, folder / f"{i}.parquet", row_group_size=100)
    return folder


ROWS = make_rows(900)
CONFIG = PoolConfig(rows_per_unit=150)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool") / "pool", ROWS)


# By definition.


def language_of(label: str | None) -> str:
    known = {"eng_Latn": "en", "EN-gb": "en", "zh-Hant-TW": "zh", "cmn": "zh", "yue": "zh",
             "nb": "no"}  # fmt: skip
    return known.get(label, label) if label in known or label in WORDS else "other"  # type: ignore[return-value,arg-type]


def nearest(counts: list[int], p: float) -> float:
    """Meta CLIP 2's threshold (arXiv 2507.22062), over the counts above 0."""
    positive = sorted(c for c in counts if c > 0)
    if not positive:
        return math.inf
    shares = [sum(positive[: i + 1]) / sum(positive) for i in range(len(positive))]
    distances = [abs(share - p) for share in shares]
    return float(positive[distances.index(min(distances))])


class ByDefinition:
    """Matches, counts, thresholds and draws of ROWS, in plain Python."""

    def __init__(self, t: float, reference: str = "en", seed: int = 0) -> None:
        self.counts: dict[str, Counter[str]] = {language: Counter() for language in WORDS}
        self.matches: list[list[tuple[str, list[int]]]] = []
        self.reasons: Counter[str] = Counter()
        for row in ROWS:
            found = []
            for text in row["texts"]:
                language = language_of(text["lang"])
                entries = entries_of(language)
                ids = match_text(text["text"] or "", entries, rule="worldwide")
                found.append((language, ids))
                self.counts[language].update(entries[i] for i in ids)
                if text["text"] is not None and text["lang"] in REASONS:
                    self.reasons[REASONS[text["lang"]]] += 1
            self.matches.append(found)
        of_reference = list(self.counts[reference].values())
        p = sum(c for c in of_reference if c < t) / sum(of_reference)
        self.t = {
            language: t if language == reference else nearest(list(own.values()), p)
            for language, own in self.counts.items()
        }
        self.kept: dict[str, list[bool]] = {}
        self.keep_prob: dict[str, float] = {}
        firsts, first = {}, 0
        for language in sorted(WORDS):  # a folder's files are taken by name
            firsts[language], first = first, first + len(entries_of(language))
        for row, found in zip(ROWS, self.matches, strict=True):
            uid, lost, flags = url_uid(row["url"]), 1.0, []
            for position, (language, ids) in enumerate(found):
                entries, success = entries_of(language), False
                for i in ids:
                    p = min(1.0, self.t[language] / self.counts[language][entries[i]])
                    lost *= 1 - p
                    success |= draw(seed, uid, position, firsts[language] + i) < p
                flags.append(success)
            if any(flags):
                self.kept[uid.hex()] = flags
                self.keep_prob[uid.hex()] = 1 - lost


def read_kept(out: Path) -> list[dict[str, Any]]:
    return pq.read_table(out / "curated").to_pylist()


def test_equals_the_definition(pool: Path, metadata: Path, tmp_path: Path) -> None:
    t = 12
    wanted = ByDefinition(t)
    card = curate(
        pool, metadata, tmp_path / "out", t=t, pool_config=CONFIG, workers=1, report=False
    )
    kept = read_kept(tmp_path / "out")
    assert {row["uid"].hex(): row["text_kept"] for row in kept} == wanted.kept
    for row in kept:
        assert row["keep_prob"] == pytest.approx(wanted.keep_prob[row["uid"].hex()], rel=1e-9)
    assert 0 < len(kept) < sum(any(ids for _, ids in found) for found in wanted.matches)
    assert card["matched"]["rule"] == "worldwide"
    assert card["not_in_own_language"] == wanted.reasons
    whole = json.loads((tmp_path / "out/datacard.json").read_text())
    for language, own in wanted.counts.items():
        assert whole["entry_counts"][language] == dict(own)
        facts = card["languages"][language]
        assert facts["t"] == wanted.t[language]
        assert facts["match_counts"] == sum(own.values())
        assert facts["texts"] == sum(
            language_of(text["lang"]) == language and text["text"] is not None
            for row in ROWS for text in row["texts"]
        )  # fmt: skip
        assert facts["head_entries"] == sum(c >= wanted.t[language] for c in own.values())
        assert facts["kept_texts"] == sum(
            flag and found[0] == language
            for row, matches in zip(ROWS, wanted.matches, strict=True)
            for flag, found in zip(
                wanted.kept.get(url_uid(row["url"]).hex(), [False] * 3), matches, strict=False
            )
        )
    assert (
        sum(facts["kept_match_counts"] for facts in card["languages"].values())
        == (card["kept"]["match_counts"])
    )


def test_same_bytes_for_any_number_of_workers_and_after_a_kill(
    pool: Path, metadata: Path, tmp_path: Path, metacurate: Command
) -> None:
    common = (pool, "-m", metadata, "--t", 12, "--rows-per-unit", 150, "--no-report")
    contents = []
    for workers in (1, 2, MOST_THREADS + 1):  # alone, threads, processes
        out = tmp_path / f"by-{workers}"
        run = metacurate("curate", *common, "--out", out, "--workers", workers)
        assert run.returncode == 0, run.stderr
        contents.append(digests(out))
    assert contents[0] == contents[1] == contents[2]
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command_line("curate", *common, "--out", killed, "--workers", 1),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not list(killed.glob("state/match/part-*.json")):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "datacard.json").exists()
    run = metacurate("curate", *common, "--out", killed, "--workers", 1)
    assert run.returncode == 0, run.stderr
    assert digests(killed) == contents[0]


# Matching by language.


TEXTS = st.none() | st.text(st.sampled_from("ab 猫狗.é"), max_size=8)


@settings(max_examples=60)
@given(st.lists(st.tuples(TEXTS, st.sampled_from(["x", "y", "z", None])), max_size=12))
def test_texts_match_their_own_language(rows: list[tuple[str | None, str | None]]) -> None:
    entries = {"x": ["a", "a b", "猫"], "y": ["b", "a", "猫狗"], "z": ["é"]}
    metadata = make_metadata(
        [e for own in entries.values() for e in own],
        lang=[name for name, own in entries.items() for _ in own],
    )
    assert metadata.languages == ("x", "y", "z")
    languages = Languages(metadata.blocks, LanguageMap({}))
    texts = pa.array([text for text, _ in rows], pa.large_string())
    langs = pa.array([lang for _, lang in rows], pa.large_string()).dictionary_encode()
    counted = TextsByLanguage(languages)
    codes = counted.codes(texts, langs)
    matchers = [
        Matcher(metadata.entries.slice(b.first, len(b)), rule="worldwide") for b in metadata.blocks
    ]
    offsets, ids = match_by_language(texts, codes, metadata.blocks, matchers.__getitem__)
    counted.add(codes, texts, offsets)
    want = []
    for text, lang in rows:
        block = metadata.block_of(lang) if lang else None
        own = match_text(text or "", entries[lang], rule="worldwide") if lang else []
        want.append([block.first + i for i in own] if block else [])
    assert [ids[a:b].tolist() for a, b in pairwise(offsets.tolist())] == want
    found = counted.totals()["languages"]
    for name in entries:
        own_rows = [w for (text, lang), w in zip(rows, want, strict=True)
                    if lang == name and text is not None]  # fmt: skip
        if own_rows:
            assert found[name] == {
                "texts": len(own_rows),
                "texts_matched": sum(map(bool, own_rows)),
                "match_counts": sum(map(len, own_rows)),
            }
        else:
            assert name not in found


def test_labels_lead_to_languages() -> None:
    blocks = tuple(Block(name, i, i + 1) for i, name in enumerate(["en", "zh", "tlh", "other"]))
    languages = Languages(blocks, load_language_map())
    assert languages.place("en-US") == (0, None)
    assert languages.place("yue") == (1, None)
    assert languages.place("tlh") == (2, None)  # of which the table knows nothing
    assert languages.place("ja") == (3, "language_without_metadata")
    assert languages.place("qqq") == (3, "unknown_language")
    for label in (None, "", " ", "und", " UND "):
        assert languages.place(label) == (3, "no_language")
    assert Languages(blocks[:2], load_language_map()).place("ja")[0] == -1
    assert Languages.from_json(json.loads(json.dumps(languages.as_json()))) == languages
    assert languages.unreached == ()
    blocks = tuple(Block(name, i, i + 1) for i, name in enumerate(["EN", "tlh", "other", "eng"]))
    assert Languages(blocks, load_language_map()).unreached == ("EN", "eng")


def test_unknown_labels_are_bounded() -> None:
    counted = TextsByLanguage(Languages((Block("en", 0, 1),), LanguageMap({})))
    labels = [f"label-{i}\x1b[31m" for i in range(5000)]
    texts = pa.array(["x"] * 5000, pa.large_string())
    codes = counted.codes(texts, pa.array(labels, pa.large_string()).dictionary_encode())
    assert (codes == -1).all()
    told = counted.totals()
    assert told["not_in_own_language"] == {"unknown_language": 5000}
    assert len(told["unknown_labels"]) == 101
    assert sum(told["unknown_labels"].values()) == 5000
    assert "\x1b" not in "".join(told["unknown_labels"])


# Thresholds.


def as_counts(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


@pytest.mark.parametrize(
    ("counts", "p", "t"),
    [
        ([0, 0, 1, 1, 2, 3, 5, 8, 100, 300], 0.04, 8),
        ([0, 0, 1, 50], 0.06, 1),
        ([5] * 10, 0.06, 5),
        ([3, 3, 4, 90], 0.06, 3),
        ([0, 1, 1000], 0.06, 1),
        ([0, 7], 0.06, 7),  # where the official rule ends in t = 0
        ([0, 0], 0.06, math.inf),  # or in NaN
        ([], 0.06, math.inf),
        ([9, 1, 4], 1.0, 9),
        ([9, 1, 4], 0.0, 1),
    ],
)
def test_nearest_threshold(counts: list[int], p: float, t: float) -> None:
    assert solve_threshold(as_counts(counts), p, rule="nearest") == t


def test_nearest_threshold_equals_the_definition() -> None:
    rng = random.Random(3)
    for _ in range(1000):
        counts = [
            int(rng.paretovariate(0.7)) - rng.randint(0, 2) for _ in range(rng.randint(1, 40))
        ]
        counts = [max(c, 0) for c in counts]
        p = rng.choice([rng.random(), 0.06, rng.random() / 10, 0.0, 1.0])
        assert solve_threshold(as_counts(counts), p, rule="nearest") == nearest(counts, p)


BLOCKS = (Block("de", 0, 4), Block("en", 4, 8), Block("zh", 8, 11), Block("other", 11, 13))
COUNTS = as_counts([3, 3, 4, 90, 1, 10, 40, 100, 0, 1, 1000, 0, 0])


def solved(**given: Any) -> list[float]:
    return list(given_thresholds(Balance(**given), COUNTS, BLOCKS).t)


def test_thresholds_by_language() -> None:
    en = COUNTS[4:8]
    p = tail_proportion(en, 40)
    assert p == 11 / 151
    rest = [nearest(own.tolist(), p) for own in (COUNTS[:4], COUNTS[8:11])]
    assert solved(t=40) == [rest[0], 40, rest[1], math.inf]
    assert solved(t=40, t_of=(("zh", 7), ("en", 5))) == [rest[0], 5, 7, math.inf]
    assert solved(t=90, reference="de") == [90, *[nearest(own.tolist(), 0.1) for own in (
        en, COUNTS[8:11])], math.inf]  # fmt: skip
    assert solved(p=0.06) == [nearest(own.tolist(), 0.06) for own in (
        COUNTS[:4], en, COUNTS[8:11], COUNTS[11:])]  # fmt: skip
    assert solved(p=0.06, p_rule="below") == [solve_threshold(own, 0.06) for own in (
        COUNTS[:4], en, COUNTS[8:11], COUNTS[11:])]  # fmt: skip
    assert solved(t=40, p_rule="same") == [40] * 4
    assert solved(t=math.inf) == [math.inf] * 4
    assert solved(t=40, expect_survival=0.5) == [2 * rest[0], 80, 2 * rest[1], math.inf]
    told = given_thresholds(Balance(40), COUNTS, BLOCKS).as_json(COUNTS)
    assert (told["t"], told["p"]) == (40, p)
    assert told["languages"]["other"] == {"t": None, "p": 0.0}  # nothing to keep, and it says so


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"t": 5, "reference": "fr"}, "the metadata has no language fr"),
        ({"t": 5, "reference": "other"}, "the metadata matches nothing in the language other"),
        ({"t": 5, "t_of": (("fr", 2),)}, "the metadata has no language fr"),
        ({"t": 5, "p_rule": "middle"}, "p_rule must be below or nearest or same"),
        ({"p": 0.1, "p_rule": "same"}, "p_rule same is for t"),
        ({"t": 5, "choose_text": "two"}, "choose_text must be any or one"),
        ({"t": 5, "t_of": (("zh", 0),)}, "t_of: t must be positive"),
    ],
)
def test_unusable_settings(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        solved(**given)


def test_settings_of_languages_need_languages() -> None:
    one_list = (Block(None, 0, 13),)
    for wanted in (Balance(5, t_of=(("zh", 5),)), Balance(5, reference="zh")):
        with pytest.raises(ValueError, match="needs metadata of several languages"):
            given_thresholds(wanted, COUNTS, one_list)


def size_of(thresholds: Thresholds) -> float:
    return float(np.minimum(COUNTS, thresholds.by_entry).sum())


LEAST = math.ceil(size_of(given_thresholds(Balance(1e-6), COUNTS, BLOCKS)))


def test_target_size_where_the_reference_has_the_highest_count() -> None:
    """At t = 1,000 French has t = 300 (1,601 are kept); just above that, all are."""
    counts, blocks = as_counts([1, 1000, 300, 700]), (Block("en", 0, 2), Block("fr", 2, 4))

    def size(found: Thresholds) -> float:
        return float(np.minimum(counts, found.by_entry).sum())

    for target in (1602, 2000):
        found = solve_thresholds(Balance(target_size=target), counts, blocks, size)
        assert found.t == pytest.approx((1000, 300), rel=1e-5)
    with pytest.raises(ValueError, match="below the 2001 matched pairs"):
        solve_thresholds(Balance(target_size=2001), counts, blocks, size)


@given(st.integers(LEAST, int(COUNTS.sum()) - 1))
def test_target_size_by_language(target: int) -> None:
    """The size is a step function of t: what is found is the last t that does not pass it."""
    found = solve_thresholds(Balance(target_size=target), COUNTS, BLOCKS, size_of)
    assert size_of(found) <= target * (1 + 1e-5)
    more = given_thresholds(Balance(found.of_reference * 1.00001), COUNTS, BLOCKS)
    assert size_of(more) >= target * (1 - 1e-4)


@pytest.mark.parametrize("target", [1, LEAST - 1, int(COUNTS.sum()), 10**9])
def test_a_size_out_of_reach(target: int) -> None:
    with pytest.raises(ValueError, match="must be from"):
        solve_thresholds(Balance(target_size=target), COUNTS, BLOCKS, size_of)


# One text of a pair, chosen first.


@given(
    st.lists(
        st.lists(st.lists(st.integers(0, 5), max_size=3, unique=True), max_size=4), max_size=6
    ),
    st.integers(0, 2**64 - 1),
    st.integers(0, 3),
)
def test_one_chosen_text_keeps_a_pair(pairs: list[list[list[int]]], seed: int, epoch: int) -> None:
    texts = [text for pair in pairs for text in pair]
    pair_offsets = np.cumsum([0, *map(len, pairs)])
    text_offsets = np.cumsum([0, *map(len, texts)])
    ids = np.array([i for text in texts for i in text], np.uint32)
    keep_probs = np.array([1.0, 0.5, 0.1, 0.9, 1e-6, 0.3])
    uids = np.arange(2 * len(pairs), dtype=np.uint64).reshape(-1, 2)
    arrays = (uids, pair_offsets, text_offsets, ids, keep_probs)
    found = balancing.balance(*arrays, seed=seed, epoch=epoch, choose_text="one")
    every = balancing.balance(*arrays, seed=seed, epoch=epoch)
    place = 0
    for number, pair in enumerate(pairs):
        uid = uids[number].astype("<u8").tobytes()
        matching = [k for k, text in enumerate(pair) if text]
        chosen = balancing.chosen_texts(seed, uid, [len(t) for t in pair], "one", epoch=epoch)
        assert sum(chosen) == bool(matching)
        u = draw(seed, uid, 2**32 - 1, 2**32 - 2, epoch=epoch)
        for k in range(len(pair)):
            is_chosen = bool(matching) and k == matching[int(u * len(matching))]
            assert chosen[k] == is_chosen
            assert found.texts[place + k] == (is_chosen and every.texts[place + k])
        assert found.pairs[number] == any(found.texts[place : place + len(pair)])
        each = [1 - math.prod(1 - keep_probs[i] for i in pair[k]) for k in matching]
        mean = sum(each) / len(each) if each else 0.0
        assert found.keep_prob[number] == pytest.approx(mean, rel=1e-9)
        place += len(pair)
    sizes = balancing.expected_sizes(pair_offsets, text_offsets, ids, keep_probs, "one")
    assert sizes == pytest.approx((found.keep_prob.sum(),) * 2)
    sizes = balancing.expected_sizes(pair_offsets, text_offsets, ids, keep_probs)
    assert sizes[0] == pytest.approx(every.keep_prob.sum())


def test_each_matching_text_is_chosen_as_often() -> None:
    chosen = Counter(
        balancing.chosen_texts(7, i.to_bytes(16, "big"), [2, 0, 1, 5], "one").index(True)
        for i in range(3000)
    )
    assert set(chosen) == {0, 2, 3}
    assert max(abs(n - 1000) for n in chosen.values()) < 5 * math.sqrt(3000 * 2 / 9)


def test_one_text_through_the_stages(pool: Path, metadata: Path, tmp_path: Path) -> None:
    common = {"t": 12, "pool_config": CONFIG, "workers": 1, "report": False}
    card = curate(pool, metadata, tmp_path / "one", choose_text="one", **common)  # type: ignore[arg-type]
    every = curate(pool, metadata, tmp_path / "any", **common)  # type: ignore[arg-type]
    assert card["balancing"]["settings"]["choose_text"] == "one"
    assert "choose_text" not in every["balancing"]["settings"]
    kept = {row["uid"]: row for row in read_kept(tmp_path / "one")}
    assert all(sum(row["text_kept"]) == 1 for row in kept.values())
    assert set(kept) < {row["uid"] for row in read_kept(tmp_path / "any")}
    assert card["kept"]["texts"] == card["kept"]["pairs"] == len(kept)
    expected, variance = card["kept"]["pairs_expected"], len(ROWS) / 4
    assert abs(len(kept) - expected) < 5 * math.sqrt(variance)


# Metadata, pools and options.


def test_metadata_of_several_languages(tmp_path: Path) -> None:
    made = make_metadata(["b", "a", "a", "c"], lang=["en", "zh", "en", None], score=[1, 2, 3, 4])
    assert made.entries.to_pylist() == ["b", "a", "a", "c"]
    assert made.blocks == (Block("en", 0, 2), Block("zh", 2, 3), Block("other", 3, 4))
    assert made.score is not None
    assert made.score.to_pylist() == [1, 3, 2, 4]
    assert made.lang is not None
    assert made.lang.to_pylist() == ["en", "en", "zh", "other"]
    with pytest.raises(UserError, match=r'1 repeated at 3 \("a", as at 1\)'):
        make_metadata(["b", "a", "a", "a"], lang=["en", "zh", "en", "zh"])
    with pytest.raises(UserError, match="in 1,025 languages"):
        make_metadata([str(i) for i in range(1025)], lang=[str(i) for i in range(1025)])
    one = make_metadata(["b", "a"], lang=["en", None])
    assert one.languages == ()
    assert one.fingerprint == make_metadata(["b", "a"]).fingerprint
    both = {made.fingerprint, make_metadata(["b", "a", "a", "c"], lang=[*"xxyz"]).fingerprint}
    assert len(both) == 2
    save_parquet(made, tmp_path / "m.parquet")
    again = load_metadata(tmp_path / "m.parquet")
    assert (again.blocks, again.fingerprint) == (made.blocks, made.fingerprint)


def test_groups_of_languages_are_joined(tmp_path: Path) -> None:
    files = {"zh": ["猫", "狗"], "zh_yue": ["貓", "猫"], "be": ["кот"], "be_tarask": ["кот"]}
    for name, entries in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(entries))
    (tmp_path / "README.md").write_text("not metadata")
    save_parquet(make_metadata(["猫", "狗"], score=[2, 1]), tmp_path / "zh.parquet")
    found = load_metadata(tmp_path)
    assert found.languages == ("be", "zh")
    assert found.entries.to_pylist() == ["кот", "猫", "狗", "貓"]
    assert found.score is not None
    assert found.score.to_pylist() == [None, 2, 1, None]
    save_parquet(make_metadata(["a", "b"], lang=["en", "fr"]), tmp_path / "all.parquet")
    with pytest.raises(UserError, match=r"all\.parquet has entries of 2 languages"):
        load_metadata(tmp_path)


def small(folder: Path, table: dict[str, list[Any]]) -> Path:
    folder.mkdir()
    pq.write_table(pa.table(table), folder / "p.parquet")
    return folder


@pytest.mark.parametrize(
    ("columns", "config"),
    [
        ({"lang": ["en", "zh"]}, {}),
        ({"LANGUAGE": ["eng", "cmn"]}, {}),
        ({"l": ["en", "zh"], "lang": ["zh", "en"]}, {"lang_col": "l"}),
        ({"lang": [["en"], ["zh"]]}, {}),
    ],
)
def test_columns_of_languages(
    tmp_path: Path, columns: dict[str, list[Any]], config: dict[str, str]
) -> None:
    pool = small(tmp_path / "p", {"url": ["u1", "u2"], "text": ["a dog", "一只猫"], **columns})
    entries = make_metadata(["dog", "猫", "dog"], lang=["en", "zh", "zh"])
    card = curate(pool, entries, tmp_path / "out", t=5, workers=1, report=False,
                  pool_config=PoolConfig(**config))  # type: ignore[arg-type]  # fmt: skip
    counts = json.loads((tmp_path / "out/datacard.json").read_text())["entry_counts"]
    assert counts == {"en": {"dog": 1}, "zh": {"猫": 1}}
    assert card["not_in_own_language"] == {}


def test_folders_may_say_the_language(tmp_path: Path) -> None:
    for lang, text in (("en", "a dog"), ("zh", "一只猫")):
        (tmp_path / "p").mkdir(exist_ok=True)
        small(tmp_path / "p" / f"lang={lang}", {"url": [lang], "text": [text]})
    entries = make_metadata(["dog", "猫"], lang=["en", "zh"])
    card = curate(tmp_path / "p", entries, tmp_path / "out", t=5, workers=1, report=False)
    assert card["kept"]["pairs"] == 2


def test_a_language_map_of_ones_own(pool: Path, metadata: Path, tmp_path: Path) -> None:
    table = tmp_path / "map.json"
    table.write_text(json.dumps({"xx": "de", "zh": None}))
    common = {"t": 12, "workers": 1, "report": False}
    card = curate(pool, metadata, tmp_path / "out", language_map=table, **common)  # type: ignore[arg-type]
    told = card["not_in_own_language"]
    assert told["unknown_language"] == sum(
        text["lang"] in ("zh", "zh-Hant-TW") and text["text"] is not None
        for row in ROWS for text in row["texts"]
    )  # fmt: skip


def test_unusable_options_are_one_clear_line(
    pool: Path, metadata: Path, tmp_path: Path, metacurate: Command
) -> None:
    common = ("curate", pool, "-m", metadata, "--out", tmp_path / "out", "--workers", 1)
    fails(metacurate(*common, "--t", 5, "--t-of", "ja"), "--t-of takes a language", "ja=5000")
    fails(metacurate(*common, "--t", 5, "--t-of", "tlh=3"), "--t-of", "no language tlh")
    fails(metacurate(*common, "--t", 5, "--reference", "tlh"), "--reference", "tlh", "--p")
    fails(metacurate(*common, "--t", 5, "--choose-text", "two"), "--choose-text", "any or one")
    plain = small(tmp_path / "plain", {"url": ["u"], "text": ["a dog"]})
    run = metacurate("curate", plain, "-m", metadata, "--t", 5, "--out", tmp_path / "o")
    fails(run, "has no languages of its texts", "--lang-col", "metacurate pool language")


def test_looking_at_a_run_by_language(
    pool: Path, metadata: Path, tmp_path: Path, metacurate: Command
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    for folder, more in ((out, ()), (other, ("--t-of", "zh=3"))):
        run = metacurate("curate", pool, "-m", metadata, "--t", 12, "--out", folder,
                         "--workers", 1, "--no-report", *more)  # fmt: skip
        assert run.returncode == 0, run.stderr
    card = json.loads((out / "datacard.json").read_text())

    def told(*command: Any) -> dict[str, Any]:
        run = metacurate(*command, "--json")
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    found = told("inspect", "text", "ภาพแมว", "--run", out, "--lang", "th")
    assert [m["entry"] for m in found["matches"]] == ["แมว", "ภาพ", "ภาพแมว"]
    assert found["t"] == card["languages"]["th"]["t"]
    fails(metacurate("inspect", "text", "ภาพแมว", "--run", out), "choose with --lang")
    fails(metacurate("inspect", "entry", "a", "--run", out), "several languages", "de, en, other")
    entry = told("inspect", "entry", "a", "--run", out, "--lang", "de")
    assert entry["count"] == card["entry_counts"]["de"]["a"]
    [plan] = told("plan", out, "--t", 12)["plans"]
    assert plan["pairs"][0] == pytest.approx(card["kept"]["pairs_expected"])
    for language, facts in card["languages"].items():
        assert plan["languages"][language]["head_entries"] == facts["head_entries"]
    alone = told("plan", "--counts", out, "--t", 12)["plans"][0]
    assert alone["languages"]["zh"]["t"] == card["languages"]["zh"]["t"]
    same = told("diff", out, other)
    assert same["languages"]["zh"]["t"] == [card["languages"]["zh"]["t"], 3]
    assert same["before"]["jensen_shannon_divergence"] == 0
    assert same["after"]["jensen_shannon_divergence"] > 0
    status = told("status", out)["languages"]
    assert {name: facts["t"] for name, facts in status.items()} == {
        name: facts["t"] for name, facts in card["languages"].items() if facts["texts"]
    }
    assert status["zh"]["texts"] == card["languages"]["zh"]["texts"]
    assert next(iter(status)) == "en"  # most matches first
    kept = read_kept(out)[5]
    pair = told("inspect", "uid", kept["uid"].hex(), "--run", out)["pairs"][0]
    assert [text["kept"] for text in pair["texts"]] == kept["text_kept"]
    assert pair["keep_prob"] == pytest.approx(kept["keep_prob"])


def test_a_language_without_matches_is_said_to_have_no_threshold(
    tmp_path: Path, metacurate: Command
) -> None:
    pool = small(tmp_path / "pool", {"url": ["http://a/1"], "text": ["cat"], "lang": ["en"]})
    metadata = {"en": ["cat", "dog"], "zh": ["猫"]}
    (tmp_path / "m").mkdir()
    for name, entries in metadata.items():
        (tmp_path / "m" / f"{name}.json").write_text(json.dumps(entries))
    run = tmp_path / "run"
    curate(str(pool), str(tmp_path / "m"), str(run), t=1, workers=1, report=False)
    for command in (
        ("inspect", "entry", "猫", "--run", run),
        ("inspect", "text", "猫", "--run", run, "--lang", "zh"),
    ):
        assert json.loads(metacurate(*command, "--json").stdout)["t"] is None
    compared = json.loads(metacurate("diff", run, run, "--json").stdout)
    assert compared["languages"]["zh"]["t"] == [None, None]
    said = "the metadata of zh has no entry 'cat'; en has it"
    fails(metacurate("inspect", "entry", "cat", "--run", run, "--lang", "zh"), said)
