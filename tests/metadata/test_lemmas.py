"""WordNets of any language from disk: OMW's tab files, WN-LMF, lexicons of ``wn``."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from metacurate.errors import UserError
from metacurate.metadata.lemmas import read_lemmas

JAPANESE = (
    "# Japanese Wordnet\tjpn\thttp://example.org\twordnet\n"
    "02084071-n\tjpn:lemma\t犬\n"
    "02084071-n\tjpn:lemma\tわん_ちゃん\n"
    "02084071-n\tjpn:def\t0\tイヌ科の動物\n"
    "02084071-n\tjpn:exe\t0\t犬が走る\n"
    "02121620-n\tjpn:lemma\t猫\n"
    "02121808-n\tjpn:lemma\t猫\n"
)
LMF = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.0.dtd">
<LexicalResource xmlns:dc="http://purl.org/dc/elements/1.1/">
  <Lexicon id="a" label="A" language="cmn-Hans" email="a@b.c" version="1"
           license="https://creativecommons.org/licenses/by/4.0/">
    <LexicalEntry id="a-1"><Lemma writtenForm="狗" partOfSpeech="n"/>
      <Form writtenForm="狗儿"/>
      <Sense id="a-1-s" synset="a-ss1"/><Sense id="a-1-t" synset="a-ss2"/></LexicalEntry>
    <LexicalEntry id="a-2"><Lemma writtenForm="家_犬" partOfSpeech="n"/>
      <Sense id="a-2-s" synset="a-ss1"/></LexicalEntry>
    <LexicalEntry id="a-3"><Lemma writtenForm="孤" partOfSpeech="n"/></LexicalEntry>
    <Synset id="a-ss1" ili="" partOfSpeech="n"/>
    <Synset id="a-ss2" ili="" partOfSpeech="n"/>
  </Lexicon>
  <Lexicon id="b" label="B" language="ja" email="a@b.c" version="1"
           license="https://creativecommons.org/licenses/by/4.0/">
    <LexicalEntry id="b-1"><Lemma writtenForm="犬" partOfSpeech="n"/>
      <Sense id="b-1-s" synset="b-ss1"/></LexicalEntry>
    <Synset id="b-ss1" ili="" partOfSpeech="n"/>
  </Lexicon>
</LexicalResource>
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """WordNets as OMW 1.4 is laid out, with a file packed and one of no WordNet."""
    for name, text in {
        "omw-1.4/jpn/wn-data-jpn.tab": JAPANESE,
        "omw-1.4/als/wn-data-als.tab": "# Albanet\tals\tx\ty\n1-n\tlemma\tqen\n",
        "omw-1.4/mcr/wn-data-eus.tab": "1-n\tlemma\ttxakur\n",  # no header: its name says it
        "omw-1.4/LICENSE": "words",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "omw-1.4/cmn.xml").write_text(LMF, encoding="utf-8")
    packed = gzip.compress(b"\xef\xbb\xbf# x\ttha\n1-n\ttha:lemma\t\xe0\xb8\x81\r\n")
    (tmp_path / "omw-1.4/wn-data-tha.tab.gz").write_bytes(packed)
    return tmp_path


@pytest.mark.parametrize(
    ("wiki", "lemmas"),
    [
        ("ja", ["犬", "わん ちゃん", "猫"]),
        ("sq", ["qen"]),  # OMW's als is Tosk Albanian, Wikipedia's als Alemannic
        ("eu", ["txakur"]),
        ("zh", ["狗", "家 犬"]),
        ("zh_yue", ["狗", "家 犬"]),
        ("th", ["ก"]),
    ],
)
def test_a_folder_has_the_lemmas_of_a_language(folder: Path, wiki: str, lemmas: list[str]) -> None:
    assert sorted(read_lemmas(str(folder), wiki)) == sorted(lemmas)


def test_order_is_the_files(folder: Path) -> None:
    assert read_lemmas(str(folder / "omw-1.4/jpn/wn-data-jpn.tab"), "ja") == [
        "犬", "わん ちゃん", "猫"
    ]  # fmt: skip
    packed = folder / "lexicon.xml.xz"
    packed.write_bytes(lzma.compress(LMF.encode()))
    assert read_lemmas(str(packed), "zh") == ["狗", "家 犬"]


def test_a_database_of_wn_has_what_its_file_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wn = pytest.importorskip("wn", reason="needs the package wn (pip install wn)")
    path = tmp_path / "lexicon.xml"
    path.write_text(LMF, encoding="utf-8")
    database = tmp_path / "data"
    database.mkdir()
    elsewhere = tmp_path / "elsewhere"
    with monkeypatch.context() as patch:
        patch.setattr(wn.config, "data_directory", database)
        wn.add(path, progress_handler=None)
        assert sorted(read_lemmas("wn:a:1", "zh")) == sorted(read_lemmas(str(path), "zh"))
        with pytest.raises(UserError, match=r"no lexicon nope:1.*wn download nope:1"):
            read_lemmas("wn:nope:1", "zh")
    monkeypatch.setattr(wn.config, "data_directory", elsewhere)
    assert read_lemmas(str(database), "ja") == ["犬"]
    assert sorted(read_lemmas(str(database / "wn.db"), "zh")) == sorted(["狗", "家 犬"])
    assert wn.config.data_directory == elsewhere


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wn-data-jpn.tab", JAPANESE.encode(), "no lemmas in the language of zh; it has jpn$"),
        ("x.tab", b"1-n\tlemma\tfoo\n", "it has no language$"),
        ("x.tab", b"# a\tcmn\n\xff\xfe\n", "line 2: this is not UTF-8"),
        ("x.xml", b"<html/>", "no WN-LMF file: its root is html, not LexicalResource"),
        ("x.xml", b"<LexicalResource><Lexicon>", "no WN-LMF file: no element found"),
        (
            "x.xml",
            b'<!DOCTYPE x [<!ENTITY a "b">]><LexicalResource/>',
            "no WN-LMF file: it declares entities",
        ),
        ("x.tab.gz", b"no gzip", "cannot be read"),
        ("x.txt", b"", "is no WordNet: give a .tab or .xml file"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_lemmas(str(tmp_path / name), "zh")
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("source", ["wordnet", "nltk"])
def test_english_lists_are_no_others(source: str) -> None:
    with pytest.raises(UserError, match="is English: for 'zh' name"):
        read_lemmas(source, "zh")


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither \.tab nor \.xml files"):
        read_lemmas(str(tmp_path), "zh")
