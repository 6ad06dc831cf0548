"""Wikipedia's dumps: reading in parts, damage, wikitext, words and bigrams, page views."""

from __future__ import annotations

import bz2
import gzip
import random
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.collocations import BigramAssocMeasures, BigramCollocationFinder

from metacurate.errors import UserError
from metacurate.wikipedia.dumpfile import Block, Part, read_blocks, read_lines, split
from metacurate.wikipedia.ngrams import pmi, tokens
from metacurate.wikipedia.pages import (
    PageError,
    SiteInfo,
    check_dumps,
    parse_page,
    read_pages,
    read_site_info,
    split_pages,
)
from metacurate.wikipedia.pageviews import (
    ViewRule,
    is_article_title,
    read_views,
    title_of,
)
from metacurate.wikipedia.reasons import NOT_ASKED_FOR
from metacurate.wikipedia.wikitext import GAP, Wiki, plain_text
from wikipedia_dumps import SEGMENTS, maker
from worldwide_texts import dump

MAX_PAGE = 1 << 20
ARTICLES = maker.make_articles(SEGMENTS, 250, seed=3)
REDIRECTS = [(f"Old {article.title}", article.title) for article in ARTICLES[:40]]
PAGES = maker.dump_pages(ARTICLES, REDIRECTS)


def read_all(path: Path, part_bytes: int) -> tuple[list, Counter]:
    losses: Counter[str] = Counter()
    parts = split(str(path), part_bytes)
    return [page for part in parts for page in read_pages(part, MAX_PAGE, losses)], +losses


# --- dump files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("part_bytes", [1, 777, 20_000, 1 << 30])
@pytest.mark.parametrize("form", ["multistream", "bz2", "xml", "gz", "split anywhere"])
def test_every_part_size_gives_every_page_once(tmp_path: Path, form: str, part_bytes: int) -> None:
    xml = maker.single_stream(PAGES[:60])
    if part_bytes == 1:
        xml = maker.single_stream(PAGES[:2])  # one part a byte
    if form == "multistream":
        path = tmp_path / "d.xml.bz2"
        path.write_bytes(maker.multistream(PAGES[:60] if part_bytes > 1 else PAGES[:2], 7))
    elif form == "split anywhere":  # as pbzip2 writes: streams end within pages and tags
        path = tmp_path / "d.xml.bz2"
        path.write_bytes(
            b"".join(bz2.compress(xml[at : at + 1013]) for at in range(0, len(xml), 1013))
        )
    else:
        path = tmp_path / f"d.xml{'' if form == 'xml' else f'.{form}'}"
        pack = {"bz2": bz2.compress, "gz": gzip.compress, "xml": bytes}[form]
        path.write_bytes(pack(xml))
    pages, losses = read_all(path, part_bytes)
    expected = [parse_page(raw) for raw in (PAGES[:60] if part_bytes > 1 else PAGES[:2])]
    assert pages == expected
    assert not losses


def test_damaged_stream_costs_that_stream_only(tmp_path: Path) -> None:
    packed = bytearray(maker.multistream(PAGES[:60], 10))
    starts = [i for i in range(len(packed)) if packed[i : i + 10].startswith(b"BZh91AY&SY")]
    for position in range(starts[3] + 200, starts[3] + 230):
        packed[position] ^= 0xFF
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(packed)
    expected = [parse_page(raw).title for raw in PAGES[:20] + PAGES[30:60]]
    for part_bytes in (3000, 1 << 30):
        pages, losses = read_all(path, part_bytes)
        assert [page.title for page in pages] == expected
        assert losses["damaged_streams"] == 1


def test_truncated_file_is_counted_not_fatal(tmp_path: Path) -> None:
    whole = maker.multistream(PAGES[:60], 10)
    starts = [i for i in range(len(whole)) if whole[i : i + 10].startswith(b"BZh91AY&SY")]
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(whole[: starts[4] + 100])
    pages, losses = read_all(path, 1 << 30)
    assert [page.title for page in pages] == [parse_page(raw).title for raw in PAGES[:30]]
    assert losses == {"truncated_streams": 1}

    text = maker.single_stream(PAGES[:60])
    path = tmp_path / "d.xml"
    path.write_bytes(text[: text.rindex(b"<text")])
    pages, losses = read_all(path, 5000)
    assert len(pages) == 59
    assert losses == {"truncated_pages": 1}

    path = tmp_path / "d.xml.gz"
    path.write_bytes(gzip.compress(text)[:-2000])
    pages, losses = read_all(path, 1)
    assert 0 < len(pages) < 60
    assert losses["truncated_streams"] == 1


def test_bad_pages_are_counted_by_reason(tmp_path: Path) -> None:
    good = maker.page_xml(1, "Good", "text")
    bad = [
        good.replace(b"text<", b"te\xff\xfext<"),
        good.replace(b">text<", b">&undeclared;<"),
        good.replace(b">text<", b"><a><b></a><"),
        good.replace(b">text<", b">" + b"<x>" * 50_000 + b"<"),
        good.replace(b"<ns>0</ns>", b"<ns>zero</ns>"),
        good.replace(b"<title>Good</title>", b""),
        good.replace(b"<model>wikitext", b"<model>css"),
        maker.page_xml(2, "Long", "long " * MAX_PAGE),
    ]
    path = tmp_path / "d.xml"
    path.write_bytes(maker.single_stream([good, *bad, good]))
    pages, losses = read_all(path, 1 << 30)
    assert [page.title for page in pages] == ["Good", "Good"]
    assert losses == {
        "bad_utf8": 1,
        "bad_xml": 3,
        "incomplete_pages": 2,
        "not_wikitext": 1,
        "long_pages": 1,
    }


def test_no_entity_can_be_declared() -> None:
    bomb = b'<!DOCTYPE page [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    page = maker.page_xml(1, "T", "x").replace(b">x<", b">&b;<")
    with pytest.raises(PageError, match="bad_xml"):
        parse_page(bomb + page)
    # In a dump the document type is outside of the page: the entity is not declared.
    with pytest.raises(PageError, match="bad_xml"):
        parse_page(page)


def test_redirect_and_title_forms() -> None:
    page = parse_page(maker.page_xml(1, "AT&T", "#REDIRECT", redirect="A_T & T#History"))
    assert (page.title, page.redirect, page.namespace) == ("AT&T", "A T & T", 0)


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20))
@settings(max_examples=200)
def test_splitting_does_not_depend_on_blocks(noise: bytes, cuts: list[int]) -> None:
    data = b"<page>a</page>" + noise + b"<page>" + noise[:50] + b"</page><pa<page>b</page>"

    def pages(sizes: list[int]) -> list[bytes]:
        blocks, rest = [], data
        for size in sizes:
            blocks.append(Block(rest[:size]))
            rest = rest[size:]
        return list(split_pages([*blocks, Block(rest)], 1000, Counter()))

    assert pages(cuts) == pages([]) == pages([1] * len(data))


@pytest.mark.parametrize("form", ["xml.bz2", "xml.gz", "xml"])
def test_mutated_dumps_are_survived(tmp_path: Path, form: str) -> None:
    draw = random.Random(form)
    xml = maker.single_stream(PAGES[:12])
    data = {"xml.bz2": maker.multistream(PAGES[:12], 4), "xml.gz": gzip.compress(xml), "xml": xml}
    titles = {parse_page(raw).title for raw in PAGES[:12]}
    path = tmp_path / f"d.{form}"
    lost = 0
    for _ in range(60):
        mutated = bytearray(data[form])
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(mutated))
            kind = draw.randrange(4)
            if kind == 0:
                mutated[at] ^= 1 << draw.randrange(8)
            elif kind == 1:
                del mutated[at : at + draw.randrange(2000)]
            elif kind == 2:
                mutated[at:at] = mutated[: draw.randrange(2000)]
            else:
                mutated[at : at + 40] = draw.randbytes(40)
        path.write_bytes(mutated)
        pages, losses = read_all(path, 4000)
        found = {page.title for page in pages}
        if form == "xml.bz2":  # a checksum a block: what is read is right
            assert found <= titles
        if form != "xml" and found != titles and len(mutated) >= len(data[form]):
            lost += 1
            assert losses
    assert form == "xml" or lost > 5


def test_bomb_is_read_in_bounded_blocks(tmp_path: Path) -> None:
    path = tmp_path / "d.bz2"
    path.write_bytes(bz2.compress(b"\0" * 200_000_000))
    sizes = [len(b.data) for b in read_blocks(Part(str(path), 0, 10**6), Counter())]
    assert sum(sizes) == 200_000_000
    assert max(sizes) <= 1 << 20


def test_unsuitable_inputs(tmp_path: Path) -> None:
    index = tmp_path / "enwiki-1-pages-articles-multistream-index.txt.bz2"
    index.write_bytes(bz2.compress(b"600:10:AccessibleComputing\n"))
    with pytest.raises(UserError, match="no Wikipedia XML dump"):
        check_dumps([str(index)])
    names = [tmp_path / f"enwiki-1-pages-articles{rest}.xml.bz2" for rest in ("", "-multistream")]
    for name in names:
        name.write_bytes(maker.multistream(PAGES[:2]))
    with pytest.raises(UserError, match="same pages twice"):
        check_dumps([str(name) for name in names])


# --- wikitext -------------------------------------------------------------------------------------


def counted(text: str) -> tuple[Counter, Counter]:
    found = tokens(text)
    pairs = ((a, b) for a, b in pairwise(found) if a and b)
    return Counter(word for word in found if word), Counter(pairs)


def test_articles_have_the_words_they_were_made_of() -> None:
    for article in ARTICLES:
        assert counted(plain_text(article.wikitext)) == maker.known_counts([article])


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("a<ref>b</ref> c", "a c"),
        ("a<ref name=x/> c", "a c"),
        ("a {{t|{{u}}}} c", f"a {GAP} c"),
        ("a {{t c", f"a {GAP}t c"),
        ("a }} c", f"a {GAP} c"),
        ("a <!-- b --> c", "a  c"),
        ("a <!-- b", "a "),
        ("[[a|b]]s [[c]] [[:Category:D]] [[e#f|]]", "bs c Category:D e#f"),
        ("[[File:a.jpg|thumb|b [[c]] d]]e", "e"),
        ("[[Image:a.jpg|b\nc]]e", "e"),
        ("[[fr:a]]b [[Category:c]]", "b "),
        ("[http://a.b c d] [http://a.b]", "c d "),
        ("'''a''' ''b'' '''''c'''''", "a b c"),
        ("a&nbsp;b &amp; &#x41; &lt;c>", f"a\xa0b & A <c{GAP}"),
        ("a &#xD800; b &#10;c", f"a {GAP} b {GAP}c"),
        ("H<sub>2</sub>O x<sup>2</sup>", "H2O x2"),
        ("a<br>b<BR/>c", "a\nb\nc"),
        ("<math>a</math>b<math>c", f"{GAP}bc"),
        ("<nowiki>[[a]] ''b''</nowiki>", f"{GAP}{GAP}a{GAP}{GAP} {GAP}b{GAP}"),
        ("d<nowiki>'</nowiki>''a''", "d'a"),
        ("== a ==\nb", "\na\n\nb"),
        ("* a\n# b\n; c : d", "\n a\n\n b\n\n c \n d"),
        ("{|\n| a\n|}\nb", "\n\nb"),
        ("b\n{|\n| a", "b\n\n"),
        ("{{a|\n{|\n|}\n}}b", f"{GAP}b"),
        ("5 < 6 and 7 > 6", f"5 {GAP} 6 and 7 {GAP} 6"),
        ("[[a", "[[a"),
        ("__NOTOC__a", f"{GAP}a"),
        ("__notoc__a __init__", f"{GAP}a __init__"),
        ("a<includeonly>b [[c]]</includeonly> d", "a d"),
        ("a<noinclude> b</noinclude><onlyinclude> c</onlyinclude>", "a b c"),
        ("a<style>.b { c: d }</style> e", f"a{GAP} e"),
        ("a<STYLE type=x>.b</style\n> e<script>f()</script>", f"a{GAP} e{GAP}"),
        ("a&shy;b c\xadd e&#173;f", "ab cd ef"),
        ("a&zwnj;b c&#x200D;d e\u200cf", "a\u200cb c\u200dd e\u200cf"),
        ("a&lrm;b &#8288;c\ufeffd", "ab cd"),
        ("a&#8203;b", "a\u200bb"),
        ("i<n and x>y", f"i{GAP}n and x{GAP}y"),
        ("if k <n then\n\nb>c", f"if k {GAP}n then\n\nb{GAP}c"),
        ("a <b then\n\nc> d", f"a {GAP}b then\n\nc{GAP} d"),
        ("a <ref x\n \nb/> c", f"a {GAP}ref x\n \nb/{GAP} c"),
        ("a<span\n title='b'>c</span>d", "acd"),
        ("a<foo>b</foo>c", f"a{GAP}foo{GAP}b{GAP}/foo{GAP}c"),
        (
            "a <pre-war>b</pre-war> <source-code>",
            f"a {GAP}pre-war{GAP}b{GAP}/pre-war{GAP} {GAP}source-code{GAP}",
        ),
        ("a<ref group=b/>c<br/>d<b\t>e</b >f", "ac\ndef"),
        ("{|\n| a\n{|\n| b\n|}\n| c\n|}\nd", "\n\nd"),
        ("e\n{|\n| a\n{|\n| b\n{|\n|}\n|}\n| c\n|}\nd {{f|\n{|\n|}\n}} g", f"e\n\n\nd {GAP} g"),
        ("{|\n| a\n{|\n| b\n|}\nc", "\n"),
        ("{|\n| a {{b|\n|}\nc}}\nd", f"\n\nc{GAP}\nd"),
        ("", ""),
    ],
)
def test_markup(wikitext: str, plain: str) -> None:
    assert plain_text(wikitext) == plain


@pytest.mark.parametrize(
    ("wikitext", "plain"),
    [
        ("[[文件:a.jpg|thumb|b [[c]] d]]e[[File:b.png]]", "e"),
        ("甲[[分类:乙]][[ 分类 : 丙|丁]]戊", "甲戊"),
        ("[[Media_file:x]]a[[media file:y]]b", "ab"),
        ("[[:分类:乙|丙]]", "丙"),
        ("[[分类学]]", "分类学"),
        ("-{zh-hans:计算机;zh-hant:電腦;}-的", "计算机的"),
        ("-{ zh-cn : 软件 ; zh-tw : 軟體 }-", "软件"),
        ("-{zh;zh-hans|原文}-和-{R|裸}-和-{也}-", "原文和裸和也"),
        ("甲-{H|zh-hans:乙;zh-hant:丙}--{T|丁}--{-|戊}-己", "甲己"),
        ("甲-{{乙}}-丙-{丁", f"甲-{GAP}-丙-{{丁"),
        ("[[a|-{zh-hans:甲;zh-hant:乙}-]]", "甲"),
    ],
)
def test_markup_of_another_wikipedia(wikitext: str, plain: str) -> None:
    wiki = Wiki(("文件", "分类", "Media file"), variants=True)
    assert plain_text(wikitext, wiki) == plain


def test_variants_are_text_elsewhere() -> None:
    assert plain_text("a -{b}- c") == "a -{b}- c"


def test_long_lines_without_spaces_are_cut_after_a_mark() -> None:
    text = "甲" * 1500 + "。" + "乙" * 1500 + "[[丙]]"
    assert plain_text(text) == "甲" * 1500 + "。\n" + "乙" * 1500 + "丙"


def test_the_beginning_of_a_dump_names_its_wiki(tmp_path: Path) -> None:
    path = tmp_path / "zhwiki.xml"
    path.write_bytes(dump("zhwiki", {"甲": "乙"}, {6: "文件", 14: "分&amp;类", 2: "用户"}))
    site = check_dumps([str(path)])
    assert site.database == "zhwiki"
    assert site.names(6, 14) == ("Category", "文件", "分&类")
    assert read_site_info(b"<mediawiki><page>") == SiteInfo()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ViewRule("zh-yue"), [("甲", 60), ("甲", 70), ("Éclair", 49), ("甲", 155), ("乙", 9)]),
        (ViewRule("zh-yue", desktop=True), [("甲", 60), ("Éclair", 49), ("甲", 155)]),
        (ViewRule("zh-yue", min_hourly=50), [("甲", 60), ("甲", 70), ("甲", 150)]),
        (ViewRule("zh-yue", desktop=True, min_hourly=50), [("甲", 60), ("甲", 150)]),
    ],
)
def test_which_views_count(rule: ViewRule, expected: list[tuple[str, int]]) -> None:
    lines = [
        "zh-yue 甲 60 0",
        "zh-yue.m 甲 70 0",
        "zh-yue éclair 49 0",
        "zh 甲 99 0",
        "zh-yue.wikipedia 甲 1 desktop 155 A50B5X100",
        "zh-yue.wikipedia 乙 2 mobile-web 9 C9",
    ]
    losses: Counter[str] = Counter()
    assert list(read_views([line.encode() for line in lines], rule, losses)) == expected
    assert sum(losses.values()) == len(lines) - len(expected)
    assert set(losses) <= set(NOT_ASKED_FOR)


@pytest.mark.parametrize(
    "piece",
    ["<b ", "<b\n ", "<ref\n", "__toc", "[[", "{{", "<ref>", "<ref name=",
     "\n{|", "\n{|\n|}", "<!--", "[[a|", "[[File:x|\n", "{{a|",
     "'''''a", "[http://x ", "<b>", "&", "[[a|''", "'''[http://x ''", "<math>", "<nowiki>"],
)  # fmt: skip
def test_hostile_markup_takes_linear_time(piece: str) -> None:
    start = time.process_time()
    plain_text(piece * (40_000 // len(piece)))
    assert time.process_time() - start < 8  # parsed as a whole, many of these take minutes


@given(st.text(alphabet="ab'[]{}|<>!-/=*#:;& \nref", max_size=200))
@settings(max_examples=500)
def test_any_text_is_survived(text: str) -> None:
    plain_text(text).encode()


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cat's T-shirt", ["The", "cat's", "T-shirt"]),
        ("one, two", ["one", "", "two"]),
        ("one\ntwo", ["one", "", "two"]),
        ("one  two\tthree\xa0four", ["one", "two", "three", "four"]),
        ("state-of-the-art -x- y--z", ["state-of-the-art", "", "x", "", "y", "", "", "z"]),
        ("'quoted' O’Neil's", ["", "quoted", "", "O’Neil's"]),
        ("cafe\u0301 naïve 北京 1,000 x_y",
         ["cafe\u0301", "naïve", "北京", "1", "", "000", "x", "", "y"]),
        ("हिन्दी", ["हिन्दी"]),
        ("\u0301a", ["", "a"]),
        ("می\u200cخواهم \u200cx\u200d", ["می\u200cخواهم", "", "x", ""]),
        ("ක්\u200dෂ", ["ක්\u200dෂ"]),
        (f"a {GAP} b", ["a", "", "b"]),
    ],
)  # fmt: skip
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_pmi_is_the_collocation_measure_of_nltk() -> None:
    draw = random.Random(5)
    words = [draw.choice("abcdefghij") + draw.choice("klm") for _ in range(20_000)]
    finder = BigramCollocationFinder.from_words(words)
    expected = {
        pair: BigramAssocMeasures.pmi(
            count, (finder.word_fd[pair[0]], finder.word_fd[pair[1]]), finder.word_fd.N()
        )
        for pair, count in finder.ngram_fd.items()
    }
    pairs = list(expected)
    ours = pmi(
        np.array([finder.ngram_fd[p] for p in pairs], np.uint64),
        np.array([finder.word_fd[p[0]] for p in pairs], np.uint64),
        np.array([finder.word_fd[p[1]] for p in pairs], np.uint64),
        len(words),
    )
    np.testing.assert_allclose(ours, [expected[p] for p in pairs], rtol=0, atol=1e-8)


# --- page views -----------------------------------------------------------------------------------


def test_page_view_lines_of_both_formats() -> None:
    lines = [
        b"en Albert_Einstein 5 1234",
        b"en.m albert_Einstein 7 0",
        b"en Caf%C3%A9_%26_bar 2 0",
        b"en AC/DC 3 0",
        b"en 100%_proof 1 0",
        b"de Albert_Einstein 9 0",
        b"en.b Albert_Einstein 9 0",
        b"en.wikipedia Albert_Einstein 736 mobile-web 11 A5B6",
        b"en.wikipedia Ulm null desktop 1 A1",
        b"de.wikipedia Ulm 1 desktop 8 A8",
        b"en - 99 0",
        b"en %FF%FE 1 0",
        b"en A%7CB 1 0",
        b"en Two_words extra 1 0",
        b"en Minus -4 0",
        b"en Huge 99999999999999999999 0",
        b"en Short",
        b"en.wikipedia Short 1 desktop",
        b"rubbish",
        b"",
    ]
    losses: Counter[str] = Counter()
    assert list(read_views(lines, ViewRule("en"), losses)) == [
        ("Albert Einstein", 5),
        ("Albert Einstein", 7),
        ("Café & bar", 2),
        ("AC/DC", 3),
        ("100% proof", 1),
        ("Albert Einstein", 11),
        ("Ulm", 1),
    ]
    assert losses == {"other_wikis": 3, "no_title": 1, "bad_titles": 2, "broken_lines": 6}


def test_titles() -> None:
    assert title_of("éclair_(food)_") == "Éclair (food)"
    assert title_of("ßx") == "ßx"
    assert title_of("__a__b") == "A b"
    assert title_of("\u200ea\u202eb\xa0") == "Ab"
    assert title_of("") == ""
    assert [t for t in ("Talk:A", "User talk:B", "Foo: a bar", "Special:Search", "Portal") if
            is_article_title(t)] == ["Foo: a bar", "Portal"]  # fmt: skip


@pytest.mark.parametrize(
    ("wiki", "text", "title"),
    [
        ("ka", "ვიკიპედია", "ვიკიპედია"),  # no capitals of headlines
        ("en", "ǆungla", "ǅungla"),
        ("en", "Ǆ", "Ǆ"),
        ("en", "ﬁre", "ﬁre"),
        ("en", "ŉ", "ŉ"),
        ("hy", "և", "և"),
        ("el", "ᾳ", "ᾼ"),
        ("el", "ᾲ", "ᾲ"),
        ("en", "ⅷ", "ⅷ"),
        ("en", "ⓐ", "ⓐ"),
        ("en", "ıx", "Ix"),
        ("en", "istanbul", "Istanbul"),
        ("tr", "istanbul", "İstanbul"),
        ("tr", "ırmak", "Irmak"),
        ("az", "istanbul", "İstanbul"),
        ("kaa", "ısıq", "Ísıq"),
        ("de", "über", "Über"),
        ("ru", "яблоко", "Яблоко"),
        ("en", "1a", "1a"),
    ],
)
def test_capitals_of_titles_are_those_of_mediawiki(wiki: str, text: str, title: str) -> None:
    assert title_of(text, wiki) == title
    line = f"{wiki} {text} 3 0".encode()
    assert list(read_views([line], ViewRule(wiki), Counter())) == [(title, 3)]


@pytest.mark.parametrize("suffix", ["gz", "bz2"])
def test_lines_of_damaged_and_strange_files(tmp_path: Path, suffix: str) -> None:
    pack = {"gz": gzip.compress, "bz2": bz2.compress}[suffix]
    path = tmp_path / f"views.{suffix}"
    rows = [f"en Title_{n} {n} 0".encode() for n in range(5000)]
    data = b"\n".join([*rows, b"x" * 5_000_000, b"en Last 1 0"])

    path.write_bytes(pack(data[:1000]) + pack(data[1000:]))  # two members
    losses: Counter[str] = Counter()
    assert list(read_lines(Part(str(path), 0, 10**9), losses, 8192)) == [*rows, b"en Last 1 0"]
    assert losses == {"long_lines": 1}

    path.write_bytes(pack(b"\n".join(rows))[:-5])
    losses = Counter()
    lines = list(read_lines(Part(str(path), 0, 10**9), losses, 8192))
    assert lines == rows[: len(lines)]
    assert losses == {"truncated_streams": 1}
