"""Words by the worldwide rule against its definition and against the segmenters called directly."""

from __future__ import annotations

import string
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metacurate.errors import UserError
from metacurate.wikipedia.segmenters import (
    load_segmenter,
    segmenter_name,
    segmenter_version,
)
from metacurate.wikipedia.tokens import TokenRule, is_word, reason_to_drop
from metacurate.wikipedia.wikis import (
    WORDNET_CODES,
    check_wiki,
    group_of,
    has_spaces,
    wiki_of_wordnet,
)
from worldwide_texts import TEXTS

MARKS = string.punctuation + "，。、；：？！¿“”‘’（）【】《》〈〉「」『』～—"


def words(wiki: str, text: str, segmenter: str | None = None) -> list[str]:
    """A text's words, an empty one where neighbours are parted."""
    found = TokenRule(wiki, segmenter_name(segmenter, wiki)).splitter()(text)
    return [token if is_word(token) else "" for token in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("l’homme (1,5 km)", ["l", "", "homme", "", "1", "", "5", "km", ""]),
        ("Haus\nund \t Hof", ["Haus", "und", "Hof"]),
        ("x - y – z", ["x", "", "y", "", "z"]),
        ("ein\ufffcWort\u200bhier", ["ein", "", "Wort", "hier"]),
        ("東京 ok", ["東", "京", "ok"]),
        ("ソニー한국어 наука", ["ソニー한국어", "наука"]),
        ("كلمة، هنا", ["كلمة،", "هنا"]),  # the mark is no wide one: matching keeps it too
        ("naïve cafe\u0301", ["naïve", "cafe\u0301"]),
        ("", []),
        (" \u3000 ", []),
    ],
)
def test_words_of_languages_with_spaces(text: str, expected: list[str]) -> None:
    assert words("fr", text) == expected


def is_wide(character: str) -> bool:
    code = ord(character)
    blocks = (
        "2E80-2EFF 2F00-2FDF 2FF0-2FFF 3400-4DBF 4E00-9FFF F900-FAFF 20000-2A6DF 2A700-2EBEF "
        "0E00-0EFF 0F00-0FFF 1000-109F 1780-17FF"
    )
    ends = (block.split("-") for block in blocks.split())
    return character in MARKS or any(int(low, 16) <= code <= int(high, 16) for low, high in ends)


NASTY = st.text(
    st.sampled_from("aé1 \n\u3000\u200b-，¿「東京กิ한カ々་།ភ\U00020000\U0002f800🦆\ufe0f'")
)


@given(NASTY | st.text(max_size=30))
@example("a\u0e01\u0e34b")
def test_languages_with_spaces_by_the_definition(text: str) -> None:
    expected: list[str] = []
    for piece in text.replace("\u200b", " ").split():
        run = ""
        for character in piece:
            if is_wide(character) or character == "\ufffc":
                expected += [run] * bool(run) + [character]
                run = ""
            else:
                run += character
        expected += [run] * bool(run)
    assert TokenRule("de", "none").splitter()(text) == expected


@pytest.mark.parametrize("wiki", ["zh", "ja", "th", "km", "lo", "my"])
def test_icu_finds_the_words_that_it_finds_in_the_whole_text(wiki: str) -> None:
    breakers = pytest.importorskip("icu4py.breakers", reason="needs metacurate[worldwide]")
    text = "\n".join(TEXTS[wiki])
    direct = [w for w in breakers.WordBreaker(text, wiki) if w.strip()]
    assert TokenRule(wiki, "icu").splitter()(text) == direct
    counted = [word for word in words(wiki, text) if word]
    assert counted == [word for word in direct if any(map(str.isalnum, word))]
    # Whole clauses become no words: the longest here is a name.
    assert max(map(len, counted)) <= len("ប្រាសាទអង្គរវត្ត")


def by_jieba(text: str) -> list[str]:
    return pytest.importorskip("jieba").lcut(text)


def by_mecab(text: str) -> list[str]:
    tagger = pytest.importorskip("MeCab").Tagger(pytest.importorskip("ipadic").MECAB_ARGS)
    return [line.split("\t")[0] for line in tagger.parse(text).splitlines()[:-1]]


def by_pythainlp(text: str) -> list[str]:
    return pytest.importorskip("pythainlp").word_tokenize(text, engine="newmm")


def by_laonlp(text: str) -> list[str]:
    return pytest.importorskip("laonlp").tokenize.word_tokenize(text)


def by_khmer_nltk(text: str) -> list[str]:
    return pytest.importorskip("khmernltk").word_tokenize(text)


@pytest.mark.parametrize(
    ("wiki", "segmenter", "package", "direct"),
    [
        ("zh", "jieba", "jieba", by_jieba),
        ("ja", "mecab", "mecab-python3", by_mecab),
        ("th", "pythainlp", "pythainlp", by_pythainlp),
        ("lo", "laonlp", "laonlp", by_laonlp),
        ("km", "khmer-nltk", "khmer-nltk", by_khmer_nltk),
    ],
)
def test_other_segmenters_called_directly(
    wiki: str, segmenter: str, package: str, direct: Callable[[str], list[str]]
) -> None:
    direct("a")
    split = TokenRule(wiki, segmenter).splitter()
    for text in TEXTS[wiki]:
        expected = [w for piece in text.split() for w in direct(piece) if w.strip()]
        assert split(text) == expected
        assert 3 < len(expected) < len(text) / 1.3
        assert "".join(expected) == "".join(text.split())
    assert segmenter_version(load_segmenter(segmenter, wiki)).startswith(f"{package} ")


def test_tibetan_syllables_are_parted_and_joined_by_their_mark() -> None:
    pytest.importorskip("icu4py", reason="needs metacurate[worldwide]")
    assert words("bo", TEXTS["bo"][0]) == [
        "བོད", "ནི", "ས", "ཆ", "ཞིག", "ཡིན", "", "བོད", "ཀྱི", "ས", "ཆ", "ནི", "མཐོ", ""
    ]  # fmt: skip
    assert TokenRule("bo", "icu").joiner == "་"
    assert "་".join(("ས", "ཆ")) in TEXTS["bo"][0]


@pytest.mark.parametrize(
    ("wiki", "spaces", "segmenter"),
    [
        *(
            (wiki, False, "icu")
            for wiki in [
                "bo",
                "dz",
                "ja",
                "ryu",
                "km",
                "lo",
                "my",
                "th",
                "zh",
                "zh_yue",
                "zh_classical",
            ]
        ),
        *(
            (wiki, True, "none")
            for wiki in ["en", "de", "ko", "vi", "be_tarask", "zh_min_nan", "kmr", "simple"]
        ),
    ],
)
def test_languages_without_spaces(wiki: str, spaces: bool, segmenter: str) -> None:
    assert has_spaces(wiki) == spaces
    assert segmenter_name(None, wiki) == segmenter
    assert (TokenRule(wiki, segmenter).joiner == " ") == spaces


def test_codes() -> None:
    assert [group_of(c) for c in ("zh_min_nan", "be_tarask", "nds_nl", "en")] == [
        "zh", "be", "nds", "en"
    ]  # fmt: skip
    assert check_wiki("zh-yue") == "zh_yue"
    for wrong in ("", "EN", "zh__yue", "../x", "english", "zh_"):
        with pytest.raises(UserError, match="must be the code of a Wikipedia"):
            check_wiki(wrong)
    table = (
        "fin fi, heb he, slv sl, ita it, nno nn, nob no, pol pl, hrv hr, nld nl, ron ro, arb ar, "
        "isl is, swe sv, por pt, cmn zh, jpn ja, dan da, slk sk, lit lt, bul bg, eus eu, cat ca, "
        "glg gl, spa es, ell el, zsm ms, ind id, fra fr, tha th, als sq"
    )
    assert dict(pair.split() for pair in table.split(", ")) == WORDNET_CODES
    tags = {"ja": "ja", "cmn-Hans": "zh", "nb": "no", "sq": "sq", "arb": "ar", "pt-BR": "pt"}
    assert {tag: wiki_of_wordnet(tag) for tag in tags} == tags


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("", "empty"),
        (MARKS, "punctuation"),
        *((mark, "punctuation") for mark in "!¿—～』"),
        ("x" * 257, "too_long"),
        ("x" * 256, None),
        ("!a", None),
        ("·", None),  # not of the list
    ],
)
def test_what_is_no_entry(entry: str, reason: str | None) -> None:
    assert reason_to_drop(entry) == reason
    assert reason_to_drop(entry, None) == (None if reason == "too_long" else reason)


@pytest.mark.parametrize(
    ("segmenter", "message"),
    [
        ("icu", "segmenter icu needs the package icu4py, .*: pip install '.\\[worldwide]'"),
        ("jieba", "needs the package jieba, .*: pip install jieba$"),
        ("mecab", "needs the package ipadic, .*: pip install mecab-python3 ipadic$"),
        ("pythainlp", "needs the package pythainlp"),
        ("laonlp", "needs the package laonlp"),
        ("khmer-nltk", "needs the package khmernltk, .*: pip install khmer-nltk$"),
    ],
)
def test_a_missing_package_is_named(
    segmenter: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("icu4py.breakers", "jieba", "ipadic", "MeCab", "pythainlp.tokenize", "khmernltk",
                   "laonlp.tokenize"):  # fmt: skip
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=message):
        load_segmenter(segmenter, "zh")


def test_segmenters_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType("my_segmenter")

    class Letters:
        version = "3"

        def __init__(self, wiki: str) -> None:
            self.wiki = wiki

        def segment(self, text: str) -> list[str]:
            return [self.wiki, *text]

    made.Letters = Letters
    made.wrong = lambda wiki: object()
    monkeypatch.setitem(sys.modules, "my_segmenter", made)
    assert words("my", "ab c", "my_segmenter:Letters") == ["my", "a", "b", "my", "c"]
    assert segmenter_version(load_segmenter("my_segmenter:Letters", "my")) == "3"
    with pytest.raises(UserError, match="has no method segment"):
        load_segmenter("my_segmenter:wrong", "my")
    with pytest.raises(UserError, match="no segmenter 'nope'; known are icu, jieba, khmer-nltk"):
        load_segmenter("nope", "my")


def test_jieba_leaves_no_cache_that_others_could_write(tmp_path: Path) -> None:
    pytest.importorskip("jieba")
    import tempfile

    before = tempfile.tempdir
    tempfile.tempdir = str(tmp_path)
    try:
        load_segmenter("jieba", "zh")
    finally:
        tempfile.tempdir = before
    assert list(tmp_path.iterdir()) == []
