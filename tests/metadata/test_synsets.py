"""Synset names of NLTK's WordNet and of a lexicon in the ``wn`` package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metacurate.errors import UserError
from metacurate.metadata.synsets import read_synsets_of
from metacurate.metadata.wordnet import shipped_entries

SYSTEM_FILES = Path("/usr/share/wordnet")
LEXICON = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.0.dtd">
<LexicalResource xmlns:dc="http://purl.org/dc/elements/1.1/">
  <Lexicon id="tiny" label="Tiny" language="en" email="a@b.c" version="1"
           license="https://creativecommons.org/licenses/by/4.0/">
    <LexicalEntry id="tiny-1"><Lemma writtenForm="St. Petersburg" partOfSpeech="n"/>
      <Sense id="tiny-1-s" synset="tiny-ss1"/></LexicalEntry>
    <LexicalEntry id="tiny-2"><Lemma writtenForm="Hot dog" partOfSpeech="n"/>
      <Sense id="tiny-2-s" synset="tiny-ss2"/></LexicalEntry>
    <LexicalEntry id="tiny-3"><Lemma writtenForm="frank" partOfSpeech="n"/>
      <Sense id="tiny-3-s" synset="tiny-ss2"/></LexicalEntry>
    <LexicalEntry id="tiny-4"><Lemma writtenForm="hot_dog" partOfSpeech="v"/>
      <Sense id="tiny-4-s" synset="tiny-ss3"/></LexicalEntry>
    <Synset id="tiny-ss1" ili="" partOfSpeech="n"/>
    <Synset id="tiny-ss2" ili="" partOfSpeech="n"/>
    <Synset id="tiny-ss3" ili="" partOfSpeech="v"/>
  </Lexicon>
</LexicalResource>
"""
PRINT_NLTK = """
import json
from metacurate.metadata.synsets import read_synsets_of
print(json.dumps(read_synsets_of("nltk")))
"""


def test_nltk_gives_the_names_that_its_files_hold(tmp_path: Path) -> None:
    if not (SYSTEM_FILES / "data.noun").exists():
        pytest.skip("needs the Debian package wordnet-base (apt-get install wordnet-base)")
    corpus = tmp_path / "corpora" / "wordnet"
    corpus.mkdir(parents=True)
    for path in SYSTEM_FILES.iterdir():
        if path.name.startswith("data."):  # NLTK is slow: the first lines of each part of speech
            lines = path.read_bytes().splitlines(keepends=True)[:800]
            (corpus / path.name).write_bytes(b"".join(lines))
        elif path.is_file():
            shutil.copy(path, corpus)
    # NLTK wants two more files of WordNet's that the package leaves out; names need neither.
    (corpus / "index.sense").touch()
    (corpus / "lexnames").write_text("".join(f"{n:02d}\tfile{n}\t1\n" for n in range(45)))
    done = subprocess.run(
        [sys.executable, "-c", PRINT_NLTK],
        env={
            **os.environ,
            "NLTK_DATA": str(tmp_path),
            "PYTHONPATH": str(Path(__file__).parents[2] / "src"),
        },
        check=True,
        capture_output=True,
        text=True,
    )
    # Only the order of the parts of speech is another.
    expected = read_synsets_of(str(corpus))
    assert len(expected) > 2000
    assert sorted(json.loads(done.stdout)) == sorted(expected)


def test_wn_lexicon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wn = pytest.importorskip("wn", reason="needs the package wn (pip install wn)")
    monkeypatch.setattr(wn.config, "data_directory", tmp_path)
    path = tmp_path / "tiny.xml"
    path.write_text(LEXICON)
    wn.add(path, progress_handler=None)
    assert read_synsets_of("wn:tiny:1") == ["st", "hot dog"]
    with pytest.raises(UserError, match=r"no lexicon nope:1.*wn download nope:1"):
        read_synsets_of("wn:nope:1")


def test_a_folder_and_the_built_in_list() -> None:
    assert read_synsets_of("wordnet") == shipped_entries()
    with pytest.raises(UserError, match="name the folder of WordNet"):
        read_synsets_of("nowhere")
