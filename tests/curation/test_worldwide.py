"""The worldwide rule: the official function's matches, kernel against reference, bounded times."""

from __future__ import annotations

import json
import os
import random
import string
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import metacurate
from conftest import Command
from metacurate.curation.matching.matcher import Matcher
from metacurate.curation.matching.reference import match_text
from metacurate.curation.matching.spacing import RULES, is_wide, sided, spaced_by
from metacurate.errors import UserError
from metacurate.kernels.matching import WIDE_START_RANGES
from metacurate.kernels.matching_wide import CREDIT, _sorted_trie
from metacurate.texts.scripts import KANA_RANGES, WIDE_MARKS, WIDE_RANGES

OBSERVED = json.loads((Path(__file__).parent / "worldwide_matches.json").read_text("utf-8"))
WORLDWIDE = [rule for rule in RULES if rule != "v1"]
W = "worldwide"
AUTOMATON_ALONE = (0, 0)
CLDR = "METACURATE_CLDR_ANNOTATIONS"
"""Names the folder of npm's cldr-annotations-full, unpacked."""
APT_LISTS = "METACURATE_APT_LISTS"
"""Names a folder with apt's Translation files (``apt-get update -o Acquire::Languages=...``)."""

# Few distinct pieces make matches, shared beginnings and runs of separators likely.
PIECES = [
    "a", "b", "St", "C++", "é", "猫", "黑猫", "京", "東京", "京都", "の", "カメラ", "ｶﾒﾗ", "々",
    "・", "แมว", "ขนม", "นม", "ก็", "ꯍ", "གི", "က", "ក", "고양이", "قطة", "،", "बिल्ली", "।", "𠀀",
    "丽", "😀", "\u0301", "\u0e48", "\x00", "\x1c", "\u2028", "\u3000", "\ufeff", "Ａ", "！",
    "，", "。", "“", "—", "¿", "x" * 17, "猫" * 9, "น" * 30,
]  # fmt: skip
SEPARATORS = [*" ,.;:?!`\t\n\r", "  ", "-", "'", "(", ")", "#", "$", "~", "/"]
pieced = st.lists(st.sampled_from(PIECES + SEPARATORS), max_size=30).map("".join)
strings = pieced | st.text(max_size=60)
metadata = st.lists(strings.filter(bool) | st.sampled_from(PIECES), unique=True, max_size=40)


def as_lists(result: tuple[np.ndarray, np.ndarray]) -> list[list[int]]:
    offsets, ids = result
    assert offsets.dtype == np.int64
    assert ids.dtype == np.uint32
    return [ids[a:b].tolist() for a, b in pairwise(offsets)]


def expected(texts: Sequence[str | None], entries: Sequence[str], rule: str) -> list[list[int]]:
    return [[] if text is None else match_text(text, entries, rule) for text in texts]


@pytest.mark.parametrize("group", OBSERVED["groups"], ids=lambda group: group["lang"])
def test_the_official_functions_matches(group: dict) -> None:
    entries, texts = group["entries"], [case["text"] for case in group["cases"]]
    assert [sided("worldwide", entry) for entry in entries] == group["spaced_entries"]
    found = as_lists(Matcher(entries, rule="worldwide").match(texts))
    assert found == expected(texts, entries, "worldwide")
    named = [[entries[i] for i in ids] for ids in found]
    assert named == [case["matched"] for case in group["cases"]]


def test_rules_differ_where_the_documentation_says() -> None:
    entries = ["C++", "'s", "猫", "の", "カメラ", "dog", "Yahoo!", "T恤"]
    texts = ["C++11", "cat's", "黑猫", "ソニーのカメラ", "hotdog", "Yahoo!", "送T恤", "送 T恤衫"]
    by_rule = {
        rule: [[entries[i] for i in ids] for ids in found]
        for rule in RULES
        for found in [as_lists(Matcher(entries, rule=rule).match(texts))]
    }
    assert by_rule["v1"] == [[], [], [], [], [], [], [], []]
    found = [["C++"], ["'s"], ["猫"], [], [], [], [], ["T恤"]]
    assert by_rule["worldwide"] == found
    found[3] = ["の", "カメラ"]
    assert by_rule["worldwide+kana"] == found


def test_every_wide_character_is_looked_for() -> None:
    """The kernel looks at those bytes alone that a wide character may start with."""
    starts = {n for first, count in WIDE_START_RANGES for n in range(first, first + count)}
    ranges = [range(low, high + 1) for low, high in WIDE_RANGES + KANA_RANGES]
    wide = [*WIDE_MARKS, *(chr(code) for codes in ranges for code in codes)]
    assert len(wide) > 80_000
    assert all(is_wide(character, "worldwide+kana") for character in wide[::50])
    assert [character for character in wide if character.encode()[0] not in starts] == []


@pytest.mark.parametrize("entries", [[], [" "], [" cat ", "猫"]])
def test_the_trie_stays_within_its_arrays(entries: list[str]) -> None:
    """The uncompiled function: NumPy refuses what compiled code would write beside an array."""
    data = np.frombuffer("".join(entries).encode(), np.uint8)
    offsets = np.cumsum([0, *(len(entry.encode()) for entry in entries)])
    ids = np.arange(len(entries), dtype=np.uint32)
    parents, symbols, owns = _sorted_trie.py_func(data, offsets, ids)
    assert (parents[0], symbols[1]) == (0, ord(" "))
    assert sorted(owns[owns > 0].tolist()) == [n + 1 for n in range(len(entries))]


@settings(max_examples=400)
@given(metadata, st.lists(st.none() | strings, max_size=20), st.sampled_from(WORLDWIDE))
@example(["猫", "猫猫", "黑猫", "猫黑", "黑"], ["猫猫猫", "黑猫黑", "猫 黑", "", "黑 猫"], W)
@example(["ขน", "ขนม", "นม", "ม", "ข"], ["ขนม", "ขนมขนม", "ข น ม", "นม"], W)
@example(["T恤", "3D打印", "iPhone手机", "T"], ["T恤", "买T恤", "iPhone手机壳", "x 3D打印机"], W)
@example(["C++", "C+", "(a", "a)", "a (b)"], ["C++11", "C+", "(a b)", "a (b)c"], W)
@example([".", "!", ". a", "a .", "!!", "! !", ","], [".", "a.", "..", "!!", ". a", ","], W)
@example([" 猫", "猫 ", " 猫 ", " ", "  "], ["猫", " 猫 ", "x 猫 x", "x  猫  x"], W)
@example(["猫\t", "\t猫", "猫\n犬", "\r"], ["猫\t犬", "\t猫\n", "猫\n犬"], W)
@example(["-", "猫"], ["\x1c-\x1f", "\u3000猫\u3000", "\x85猫\xa0", "\u2028-", "猫\u200b"], W)
@example(["カメ", "カメラ", "メ", "。カ"], ["カメラ。カメ", "ソ・カ"], "worldwide+kana")
def test_kernel_equals_reference(entries: list[str], texts: list[str | None], rule: str) -> None:
    wanted = expected(texts, entries, rule)
    assert as_lists(Matcher(entries, rule=rule).match(texts)) == wanted
    automaton = Matcher(entries, rule=rule, _credit=AUTOMATON_ALONE)
    assert as_lists(automaton.match(texts)) == wanted


@settings(max_examples=60)
@given(
    metadata,
    st.lists(strings, max_size=10),
    st.sampled_from([0, 1, 3, 0x10001]),
    st.sampled_from([CREDIT, (5, 0), AUTOMATON_ALONE]),
)
def test_neither_collisions_nor_little_credit_change_anything(
    entries: list[str], texts: list[str], mask: int, credit: tuple[int, int]
) -> None:
    matcher = Matcher(entries, rule="worldwide", _hash_mask=np.uint64(mask), _credit=credit)
    assert as_lists(matcher.match(texts)) == expected(texts, entries, "worldwide")


@settings(max_examples=150)
@given(
    st.text("猫犬 -", min_size=1, max_size=8), st.lists(st.text("猫犬 -", max_size=90), max_size=8)
)
def test_prefixes_suffixes_and_infixes_of_each_other(whole: str, texts: list[str]) -> None:
    size = range(len(whole) + 1)
    entries = sorted({whole[a:b] for a in size for b in size if a < b})
    for credit in (CREDIT, (9, 1), AUTOMATON_ALONE):
        matcher = Matcher(entries, rule="worldwide", _credit=credit)
        assert as_lists(matcher.match(texts)) == expected(texts, entries, "worldwide")


def test_walks_at_every_place_of_a_block() -> None:
    """Texts that end, and characters that lie, at each place of the 64 bytes looked at together."""
    entries = ["猫", "猫a", "a猫", "。猫", "b", "-", "๏"]
    texts = ["x" * n + tail for n in range(70) for tail in ("猫", " a猫", "。猫a b", "-", "é๏")]
    assert as_lists(Matcher(entries, rule="worldwide").match(texts)) == expected(
        texts, entries, "worldwide"
    )
    for text in texts[::7]:  # with not a byte behind it
        data = text.encode()
        array = pa.LargeStringArray.from_buffers(
            1, pa.py_buffer(np.array([0, len(data)], np.int64)), pa.py_buffer(data)
        )
        found = as_lists(Matcher(entries, rule="worldwide").match(array))
        assert found == expected([text], entries, "worldwide")


@pytest.mark.parametrize("number", [1, 2, 15, 16, 17, 31])
@pytest.mark.parametrize("other", [[], ["猫"]], ids=["ascii", "others"])
def test_any_number_of_characters_that_entries_need(number: int, other: list[str]) -> None:
    """Texts with none of them are not walked; few of them are sought in another way than many."""
    marks = [mark for mark in string.punctuation if mark != "`"]
    entries = [f"a{mark}" for mark in marks[:number]] + other
    texts = [" " * 61 + f"x a{mark}b" + "y" * n for mark in [*marks, "猫"] for n in (0, 80)]
    texts += [f"a{mark}" for mark in marks]
    assert as_lists(Matcher(entries, rule="worldwide").match(texts)) == expected(
        texts, entries, "worldwide"
    )


def test_what_a_text_must_have_of_the_only_entry() -> None:
    """Beside an entry's wide end, in texts that nothing else would have looked at closely."""
    rng = random.Random(29)
    found = 0
    for _ in range(300):
        entry = "".join(rng.choices("ab)-'. é", k=rng.randrange(1, 8)))
        texts = ["".join(rng.choices("ab)-'. \té", k=rng.randrange(6))) for _ in range(30)]
        texts = [start + entry + end for start, end in zip(texts[::2], texts[1::2], strict=True)]
        texts += [entry, f"{entry},", f".{entry}", entry[1:], entry[:-1]]
        wanted = expected(texts, [entry], "worldwide")
        assert as_lists(Matcher([entry], rule="worldwide").match(texts)) == wanted, entry
        found += sum(map(len, wanted))
    assert found > 1000


@pytest.mark.parametrize("filler", [".", "a", "猫", "猫。"])
def test_texts_about_as_long_as_are_walked(filler: str) -> None:
    """Each with others around it, one of which fills the block."""
    entries = ["犬", ". 犬", "猫犬", "a犬", "犬 .", "犬。", "。犬", "犬a"]
    size = len(filler.encode())
    texts = ["犬", *(filler * (n // size) + "犬" + filler for n in range(16_379, 16_387)), "猫犬"]
    texts = [text for long in texts for text in (long, "犬a", "猫犬。" * 700, "-")]
    assert as_lists(Matcher(entries, rule="worldwide").match(texts)) == expected(
        texts, entries, "worldwide"
    )


def test_bytes_that_are_no_characters() -> None:
    """An Arrow array may hold anything: such bytes match nothing and end no text too late."""
    pieces = [
        b"\xe7\x8c",
        b"\xe7\x8c\xab",
        b"\xed\xa0\x80",
        b"\xff",
        b"\xf0\x9f",
        b"\xf4\xbf\xbf\xbf",
        b"\xc2",
        b"-",
        b" ",
    ]
    rng = random.Random(3)
    texts = [b"".join(rng.choices(pieces, k=rng.randrange(12))) for _ in range(500)]
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    array = pa.LargeStringArray.from_buffers(
        len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))
    )
    for credit in (CREDIT, AUTOMATON_ALONE):
        found = as_lists(Matcher(["猫", "-"], rule="worldwide", _credit=credit).match(array))
        for text, ids in zip(texts, found, strict=True):
            assert (1 in ids) == (b"-" in text)
            if 0 in ids:
                assert b"\xe7\x8c\xab" in text


def test_100000_entries_that_start_alike() -> None:
    start = "很" * 40
    entries = [start + chr(0x4E00 + i // 400) + chr(0x4E00 + i % 400) for i in range(100_000)]
    matcher = Matcher(entries, rule="worldwide")
    rng = random.Random(11)
    chosen = sorted(rng.sample(range(100_000), 50))
    text = "很".join(entries[i] for i in chosen)
    begun = time.process_time()
    assert as_lists(matcher.match([text, start, start * 20_000, ""])) == [chosen, [], [], []]
    assert time.process_time() - begun < 5  # some 0.1 s


@pytest.mark.parametrize("filler", ["猫", "-", "น", " ", "a", "猫 ", "a-"])
def test_ten_megabytes_of_one_thing(filler: str) -> None:
    """With entries of the same, up to 2,000 long: in time proportional to the text."""
    text = filler * (10_000_000 // len(filler.encode()))
    lengths = [1, 2, 3, 10, 100, 500, 1999, 2000]
    entries = [(filler * n).strip() or " " * n for n in lengths]
    entries += [entries[-1] + "x", "x" + entries[-1], "犬"]
    matcher = Matcher(entries, rule="worldwide")
    matcher.match([filler])
    begun = time.process_time()
    found = as_lists(matcher.match([text]))
    taken = time.process_time() - begun
    haystack = spaced_by("worldwide", text[: 20_000 * len(filler)] if text.strip() else text)
    assert found == [[i for i, e in enumerate(entries) if sided("worldwide", e) in haystack]]
    assert taken < 20  # some 0.5 s


def test_threads_and_saved_tables_give_the_same(tmp_path: Path) -> None:
    rng = random.Random(7)
    entries = sorted(
        {"".join(rng.choices("猫犬京都ab -", k=rng.randrange(1, 5))) for _ in range(400)}
    )
    texts = ["".join(rng.choices("猫犬京都ab -,", k=rng.randrange(60))) for _ in range(6000)]
    for rule in RULES:
        built = Matcher(entries, rule=rule)
        built.save(tmp_path / rule)
        loaded = Matcher.load(tmp_path / rule)
        assert (loaded.rule, len(loaded), loaded.nbytes) == (rule, len(entries), built.nbytes)
        one = built.match(texts)
        assert as_lists(one)[:300] == expected(texts[:300], entries, rule)
        for matcher, threads in ((built, 3), (loaded, 1), (loaded, 2)):
            offsets, ids = matcher.match(texts, threads=threads)
            assert np.array_equal(one[0], offsets)
            assert np.array_equal(one[1], ids)


@pytest.mark.parametrize("rule", ["v2", "", None, 1, "Worldwide"])
def test_unknown_rules_are_named(rule: object) -> None:
    with pytest.raises(ValueError, match=r"rule must be one of v1, worldwide, worldwide\+kana"):
        Matcher(["a"], rule=rule)  # type: ignore[arg-type]
    if rule is None:  # the stages then choose by the metadata
        return
    with pytest.raises(UserError, match="rule must be one of"):
        metacurate.curate("no pool", ["a"], "no place", t=1, rule=rule)  # type: ignore[arg-type]


def test_the_commands_take_and_record_the_rule(metacurate: Command, tmp_path: Path) -> None:
    pool, entries, out = tmp_path / "pool.csv", tmp_path / "entries.json", tmp_path / "out"
    rows = [f"http://example.org/{i}.jpg,{text}\n" for i, text in enumerate(["黑猫", "猫", "犬"])]
    pool.write_text("url,text\n" + "".join(rows), encoding="utf-8")
    entries.write_text(json.dumps(["猫", "黑"]), encoding="utf-8")
    given = (pool, "--metadata", entries, "--workers", 1, "--out")
    done = metacurate("curate", *given, out, "--t", 5, "--rule", "worldwide", "--no-report")
    assert done.returncode == 0, done.stderr
    assert np.load(out / "counts.npy").tolist() == [2, 1]
    card = json.loads((out / "datacard.json").read_text("utf-8"))
    assert card["matched"]["rule"] == "worldwide"
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["stages"]["match"]["config"]["rule"] == "worldwide"
    # The same folder is not gone on with by another rule.
    assert metacurate("match", *given, out, "--rule", "v1").returncode == 2
    assert metacurate("match", *given, tmp_path / "v1").returncode == 0
    assert metacurate("count", tmp_path / "v1").returncode == 0
    assert np.load(tmp_path / "v1" / "counts.npy").tolist() == [1, 0]
    # A run's own rule, and the one given.
    counts = ("--metadata", entries, "--counts", out / "counts.npy", "--t", 5)
    for options, wanted in (
        (("--run", out), ["猫", "黑"]),
        (counts, []),
        ((*counts, "--rule", "worldwide"), ["猫", "黑"]),
    ):
        shown = metacurate("inspect", "text", "小黑猫", *options, "--json")
        assert [match["entry"] for match in json.loads(shown.stdout)["matches"]] == wanted
    refused = metacurate("inspect", "text", "猫", "--run", out, "--rule", "v1")
    assert refused.returncode == 2
    refused = metacurate("match", *given, tmp_path / "no", "--rule", "v3")
    assert refused.returncode == 2
    assert "--rule must be one of v1, worldwide, worldwide+kana, not 'v3'" in refused.stderr
    assert not (tmp_path / "no").exists()


def cldr(locale: str) -> tuple[list[str], list[str]]:
    """The keywords of a locale's emoji (each once), and their names."""
    folder = os.environ.get(CLDR)
    if not folder:
        pytest.skip(f"needs npm's cldr-annotations-full, unpacked; {CLDR} names its folder")
    path = Path(folder) / "annotations" / locale / "annotations.json"
    annotations = json.loads(path.read_text("utf-8"))["annotations"].get("annotations", {}).values()
    keywords = dict.fromkeys(word for row in annotations for word in row.get("default", []))
    return list(keywords), [name for row in annotations for name in row.get("tts", [])]


@pytest.mark.parametrize(
    ("locale", "by_v1", "worldwide"),
    [
        ("zh", 1_966, 6_817), ("zh-Hant", 1_952, 5_466), ("ja", 1_957, 4_568), ("th", 1_574, 7_433),
        ("km", 2_063, 11_734), ("lo", 2_027, 8_775), ("my", 3_088, 8_489), ("ko", 3_790, 3_790),
        ("ar", 4_490, 4_490), ("hi", 4_838, 4_867), ("en", 4_098, 4_206), ("de", 3_397, 3_474),
    ],
)  # fmt: skip
def test_numbers_of_matches_in_cldr(locale: str, by_v1: int, worldwide: int) -> None:
    """CLDR 48's keywords in its names: as many as the official function finds."""
    entries, texts = cldr(locale)
    for rule, number in (("v1", by_v1), ("worldwide", worldwide)):
        assert Matcher(entries, rule=rule).match(texts)[1].size == number


def by_pyahocorasick(entries: Sequence[str], texts: Sequence[str], rule: str) -> list[list[int]]:
    import ahocorasick

    automaton = ahocorasick.Automaton()
    for number, entry in enumerate(entries):
        automaton.add_word(sided(rule, entry), number)
    automaton.make_automaton()
    return [sorted({i for _, i in automaton.iter(spaced_by(rule, text))}) for text in texts]


def test_pyahocorasick_finds_the_same_in_all_locales() -> None:
    """An independent matcher, over the keywords and names of each of CLDR's locales."""
    cldr("en")
    locales = sorted(path.name for path in Path(os.environ[CLDR]).glob("annotations/*"))
    assert len(locales) >= 170
    for locale in locales:
        entries, texts = cldr(locale)
        entries = list(dict.fromkeys([*entries, *texts]))
        if not entries:
            continue
        texts = [*texts, " ".join(entries), "".join(entries)]
        for rule in WORLDWIDE:
            found = as_lists(Matcher(entries, rule=rule).match(texts))
            assert found == by_pyahocorasick(entries, texts, rule), locale


def test_pyahocorasick_finds_the_same_in_debians_translations() -> None:
    """The same independent matcher, over package descriptions in at least 20 languages."""
    folder = os.environ.get(APT_LISTS)
    if not folder:
        pytest.skip(f"needs Debian's translated package descriptions: {APT_LISTS} names a folder")
    texts: dict[str, list[str]] = {}
    for path in sorted(Path(folder).glob("*_i18n_Translation-*.lz4")):
        data = pa.input_stream(str(path), compression="lz4").read().decode()
        lines = [line.strip() for line in data.splitlines() if line.startswith(" ")]
        texts.setdefault(path.stem.rpartition("-")[2], []).extend(lines[:20_000])
    assert len(texts) >= 20
    for lang, lines in texts.items():
        rng = random.Random(lang)
        entries = {}
        for line in lines:
            start = rng.randrange(len(line) + 1)
            for size in (1, 2, rng.randrange(1, 12)):
                entries[line[start : start + size].strip()] = None
        names = [entry for entry in entries if entry]
        found = as_lists(Matcher(names, rule="worldwide").match(lines, threads=2))
        assert found == by_pyahocorasick(names, lines, "worldwide"), lang
        assert sum(map(len, found)) > 0


def test_pyahocorasick_finds_the_same_in_random_texts() -> None:
    """The same independent matcher, over characters of all scripts drawn at random."""
    rng = random.Random(19)
    alphabet = [chr(c) for c in (*range(0x20, 0x7F), *range(0xE01, 0xE10), *range(0x4E00, 0x4E10))]
    alphabet += ["の", "カ", "고", "ق", "𠀀", "，", "“", " ", " ", " "]
    entries = list({"".join(rng.choices(alphabet, k=rng.randrange(1, 4))) for _ in range(30_000)})
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(200))) for _ in range(3000)]
    for rule in WORLDWIDE:
        found = by_pyahocorasick(entries, texts, rule)
        assert sum(map(len, found)) > 100_000
        assert as_lists(Matcher(entries, rule=rule).match(texts, threads=2)) == found
