"""WordNet's database files: parsing, the metadata rule's figures, the packed data file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from metacurate.errors import UserError
from metacurate.metadata import wordnet

SYSTEM_FILES = Path("/usr/share/wordnet")
REPOSITORY = Path(__file__).parents[2]
LICENCE_LINE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
NOUNS = (
    '00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | what exists; an "alive" or not thing  ',
    '00001930 15 n 02 Saint_Petersburg 0 St._Petersburg 0 000 | a city; "the city; Petersburg"  ',
    "00002137 15 n 02 St._Petersburg 1 Leningrad 0 000 | another city  ",
    # Sixteen words: the count is hexadecimal.
    "00003000 15 n 10 " + " ".join(f"Word_{i} 0" for i in range(16)) + " 000 | many words  ",
)
VERBS = (
    '00001740 29 v 02 breathe 0 take_a_breath 0 000 02 + 02 00 + 08 00 | draw air; "I breathe";'
    ' "You breathe'  # WordNet has some examples whose closing quote is missing
    "  ",
)
ADJECTIVES = (
    "00001740 00 a 01 able 0 000 | (usually followed by `to') having the means  ",
    "00002000 00 s 02 ready_to_hand(p) 0 galore(ip) 0 000 | easy to reach  ",
    "00003000 01 a 01 .22_caliber 0 000 | of a calibre  ",
)
ADVERBS = (
    "00001740 02 r 01 Breathe 0 000 | again  ",
    "00002000 02 r 02 cf. 0 cf 0 000 | compare  ",
)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder in WordNet's format with a few synsets."""
    parts = zip(wordnet.DATA_FILES, (NOUNS, VERBS, ADJECTIVES, ADVERBS), strict=True)
    for name, lines in parts:
        (tmp_path / name).write_text(LICENCE_LINE + "".join(f"{line}\n" for line in lines))
    return tmp_path


@pytest.fixture(scope="module")
def system() -> Path:
    """The files of Debian's package wordnet-base."""
    if not (SYSTEM_FILES / "data.noun").exists():
        pytest.skip("needs the Debian package wordnet-base (apt-get install wordnet-base)")
    return SYSTEM_FILES


def test_synsets(small: Path) -> None:
    synsets = list(wordnet.read_synsets(small))
    assert [s.type for s in synsets] == list("nnnnvasarr")
    assert synsets[1].words == ("Saint_Petersburg", "St._Petersburg")
    assert len(synsets[3].words) == 16
    assert synsets[6].words == ("ready_to_hand", "galore")
    assert synsets[6].offset == 2000
    assert synsets[2].gloss == "another city"


def test_names_follow_the_rule(small: Path) -> None:
    names = ["entity", "saint petersburg", "st", "word 0", "breathe", "able", "ready to hand"]
    assert wordnet.read_synset_names(small) == [*names, "", "cf"]
    assert wordnet.read_entries(small) == [*names, "cf"]
    names[2] = "st. petersburg"
    assert wordnet.read_synset_names(small, keep_dots=True) == [*names, ".22 caliber", "cf."]
    assert wordnet.read_entries(small, keep_dots=True) == [*names, ".22 caliber", "cf."]


def test_glosses(small: Path) -> None:
    assert wordnet.read_glosses(small) == [
        "what exists",
        'an "alive" or not thing',
        "a city",
        "the city; Petersburg",
        "another city",
        "many words",
        "draw air",
        "I breathe",
        "You breathe",
        "(usually followed by `to') having the means",
        "easy to reach",
        "of a calibre",
        "again",
        "compare",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "some text",
        "00001740 03 n zz entity 0 000 | no count",
        "00001740 03 x 01 entity 0 000 | no type",
        "1740 03 n 01 entity 0 000 | no offset",
        "00001740 03 n 00 000 | no words",
        "00001740 03 n 04 entity 0",
    ],
)
def test_a_damaged_line_is_named(small: Path, line: str) -> None:
    with (small / "data.verb").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=r"data\.verb, line 3: .*no WordNet synset"):
        list(wordnet.read_synsets(small))


def test_a_missing_file_is_named(small: Path) -> None:
    (small / "data.adv").unlink()
    with pytest.raises(UserError, match=r"there is no .*data\.adv.*wordnet-base"):
        wordnet.read_synset_names(small)


def test_binary_files_are_refused(small: Path) -> None:
    (small / "data.noun").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        wordnet.read_synset_names(small)


def test_figures_of_wordnet(system: Path) -> None:
    assert sum(1 for _ in wordnet.read_synsets(system)) == 117_659
    assert len(wordnet.read_synset_names(system)) == 86_555
    assert len(wordnet.read_synset_names(system, keep_dots=True)) == 86_571
    assert len(wordnet.read_entries(system)) == 86_554  # without the empty name


def test_glosses_of_wordnet(system: Path) -> None:
    texts = wordnet.read_glosses(system)
    assert len(texts) == 184_186
    assert all(text == text.strip() and text for text in texts[:1000])
    assert "an entity that has physical existence" in texts


def test_data_file_is_what_the_script_derives(system: Path, tmp_path: Path) -> None:
    path = REPOSITORY / "examples/make_wordnet_metadata.py"
    spec = importlib.util.spec_from_file_location("make_wordnet_metadata", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(system, tmp_path / "first.xz")
    script.main(system, tmp_path / "second.xz")
    derived = (tmp_path / "first.xz").read_bytes()
    assert derived == (tmp_path / "second.xz").read_bytes()
    # The compressed bytes may differ between releases of liblzma; the entries never do.
    assert wordnet.unpack(derived) == wordnet.shipped_entries()


def test_shipped_entries() -> None:
    entries = wordnet.shipped_entries()
    assert len(entries) == len(set(entries)) == 86_554
    assert entries[:3] == ["entity", "physical entity", "abstraction"]
    assert all(entry and "_" not in entry and "." not in entry for entry in entries)
    folder = REPOSITORY / "src/metacurate/data"
    assert (folder / "wordnet.txt.xz").stat().st_size < 2**20
    assert "WordNet 3.0 Copyright 2006 by Princeton" in (folder / "LICENSE.wordnet").read_text()


def test_packing_round_trip() -> None:
    entries = ["a", "b c", "é", "\u2028", "d\r"]
    assert wordnet.unpack(wordnet.pack(entries)) == entries
    assert wordnet.unpack(wordnet.pack([])) == []
