"""Lemmas of WordNets of any language: files of Open Multilingual WordNet or WN-LMF, or ``wn``.

A source on disk is a ``.tab`` file of OMW 1.4, an ``.xml`` file of WN-LMF (both also ``.gz`` or
``.xz``), a folder in which such files are looked for, at any depth, or a folder with the database
``wn.db`` of the package ``wn``; ``wn:LEXICON`` is a lexicon of ``wn``'s own database. All lemmas of
all synsets are taken, in the order of the files, underscores as spaces, without repeats.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

from metacurate.errors import ArgumentError, UserError
from metacurate.metadata.store import BUILT_IN
from metacurate.needs import needs_package
from metacurate.wikipedia.wikis import group_of, wiki_of_wordnet

_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
_FILES = re.compile(r".*\.(?:tab|xml)(?:\.gz|\.xz)?")
_TAB_LANGUAGE = re.compile(r"wn-data-(\w+)\.tab")
DATABASE = "wn.db"


def read_lemmas(source: str, wiki: str) -> list[str]:
    """The lemmas that a WordNet on disk, or one of ``wn``'s, has in the language of a Wikipedia.

    UserError if there is none, if it is damaged, or if it is of other languages only.
    """
    if source in (BUILT_IN, "nltk"):
        raise ArgumentError(
            "{wordnet} {value} is English: for {wiki} name a .tab or .xml file of its WordNet, "
            "a folder of them, or wn:LEXICON",
            value=repr(source),
            wiki=repr(wiki),
        )  # fmt: skip
    seen: set[str] = set()
    lemmas = list(dict.fromkeys(_of_language(source, wiki, seen)))
    if not lemmas:
        others = ", ".join(sorted(seen)) or "no language"
        raise UserError(f"{source} has no lemmas in the language of {wiki}; it has {others}")
    return lemmas


def _of_language(source: str, wiki: str, seen: set[str]) -> Iterator[str]:
    """The lemmas of a source in a wiki's language; notes the languages that it has."""
    for language, lemma in _lemmas(source):
        known = wiki_of_wordnet(language)
        seen.add(language)
        if known in (wiki, group_of(wiki)):
            yield lemma.replace("_", " ")


def _lemmas(source: str) -> Iterator[tuple[str, str]]:
    if source.startswith("wn:"):
        yield from _wn_lemmas(source.removeprefix("wn:"))
        return
    path = Path(source)
    if path.is_dir() and (path / DATABASE).is_file():
        yield from _wn_lemmas("*", path)
    elif path.is_dir():
        files = sorted(p for p in path.rglob("*") if _FILES.fullmatch(p.name) and p.is_file())
        if not files:
            raise UserError(
                f"{source} holds neither .tab nor .xml files of WordNets, nor {DATABASE}"
            )
        for file in files:
            yield from _file_lemmas(file)
    elif _FILES.fullmatch(path.name):
        yield from _file_lemmas(path)
    elif path.name == DATABASE:
        yield from _wn_lemmas("*", path.parent)
    else:
        raise UserError(
            f"{source} is no WordNet: give a .tab or .xml file, a folder of them or of {DATABASE}, "
            "or wn:LEXICON"
        )


def _file_lemmas(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with _OPENERS.get(path.suffix, open)(path, "rb") as file:
            yield from _tab_lemmas(file, path) if ".tab" in path.suffixes else _lmf(file)
    except (expat.ExpatError, _NotLmfError) as error:
        raise UserError(f"{path} is no WN-LMF file: {error}") from None
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise UserError(f"the WordNet {path} cannot be read: {error}") from None


def _tab_lemmas(file: IO[bytes], path: Path) -> Iterator[tuple[str, str]]:
    """``synset TAB lemma TAB text`` or ``synset TAB jpn:lemma TAB text``; other lines are no
    lemmas. A line without a language is of the header's, or of the file name's."""
    named = _TAB_LANGUAGE.match(path.name)
    language = named[1] if named else ""
    for number, raw in enumerate(file, 1):
        try:
            fields = raw.decode("utf-8-sig").rstrip("\r\n").split("\t")
        except UnicodeDecodeError:
            raise UserError(f"{path}, line {number}: this is not UTF-8") from None
        if fields[0].startswith("#"):
            language = fields[1].strip() if number == 1 and len(fields) > 1 else language
        elif len(fields) >= 3:
            code, _, kind = fields[1].rpartition(":")
            if kind == "lemma":
                yield code or language, fields[2]


class _NotLmfError(Exception):
    """Why a file is no lexicon."""


def _lmf(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """The written forms of entries that have a sense (words in no synset have none)."""
    found: list[tuple[str, str]] = []
    language = lemma = root = ""
    senses = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal language, lemma, senses, root
        if not root:
            root = name
            if root != "LexicalResource":
                raise _NotLmfError(f"its root is {root}, not LexicalResource")
        if name == "Lexicon":
            language = attributes.get("language", "")
        elif name == "LexicalEntry":
            lemma, senses = "", 0
        elif name == "Lemma":
            lemma = attributes.get("writtenForm", "")
        elif name == "Sense":
            senses += 1

    def end(name: str) -> None:
        if name == "LexicalEntry" and senses and lemma:
            found.append((language, lemma))

    def refuse(*_: Any) -> None:
        raise _NotLmfError("it declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.EntityDeclHandler = refuse
    while data := file.read(1 << 20):
        parser.Parse(data, False)
        yield from found
        found.clear()
    parser.Parse(b"", True)
    yield from found


def _wn_lemmas(lexicon: str, folder: Path | None = None) -> Iterator[tuple[str, str]]:
    """The lemmas of all synsets of lexicons in a database of the package ``wn``."""
    with needs_package("wn", "{wordnet} of wn's"):
        import wn
    with _wn_folder(wn, folder):
        try:
            for found in wn.Wordnet(lexicon=lexicon).lexicons():
                synsets: Iterable[Any] = wn.Wordnet(found.specifier()).synsets()
                for synset in synsets:
                    for lemma in synset.lemmas():
                        yield found.language, str(lemma)
        except wn.Error as error:
            raise UserError(
                f"the package wn has no lexicon {lexicon} ({error}): "
                f"python -m wn download {lexicon}"
            ) from None


@contextlib.contextmanager
def _wn_folder(wn: Any, folder: Path | None) -> Iterator[None]:
    before = wn.config.data_directory
    if folder is not None:
        wn.config.data_directory = folder
    try:
        yield
    finally:
        wn.config.data_directory = before
