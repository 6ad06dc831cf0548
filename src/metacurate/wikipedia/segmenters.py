"""Word segmenters for languages without spaces: one call for a piece of text, whoever answers.

A segmenter is named by one word: ``icu``, ``mecab``, ``jieba``, ``pythainlp``, ``laonlp``,
``khmer-nltk``, or ``module:factory`` for one of your own: ``factory(wiki)`` gives an object with
the method of ``Segmenter``. They serve the building of metadata alone: captions are not segmented.
"""

from __future__ import annotations

import importlib
import logging
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from metacurate.errors import UserError
from metacurate.needs import needs, needs_package
from metacurate.plugins import load_plugin
from metacurate.wikipedia.wikis import domain_code, has_spaces

ICU = "icu"
NONE = "none"
"""No segmenter: the rule of languages with spaces."""


class Segmenter(Protocol):
    """What every segmenter offers; ``version`` (text), where there is one, is recorded too."""

    def segment(self, text: str) -> list[str]:
        """The words and marks of a piece of text without white space, in order."""
        ...


def segmenter_name(name: str | None, wiki: str) -> str:
    """The segmenter that is asked for, or the one for the language of a Wikipedia."""
    return name or (NONE if has_spaces(wiki) else ICU)


def load_segmenter(name: str, wiki: str) -> Segmenter:
    """The segmenter of that name for the language of a Wikipedia.

    UserError if there is none of that name, or if its package is not installed.
    """
    factory: Callable[[str], Any] = load_plugin("segmenter", name, _FACTORIES, also=[NONE])
    segmenter = factory(wiki)
    if not callable(getattr(segmenter, "segment", None)):
        raise UserError(f"the segmenter {name!r} has no method segment")
    return segmenter


def segmenter_version(segmenter: Segmenter) -> str:
    """What is recorded of a segmenter beside its name."""
    return str(getattr(segmenter, "version", "unknown"))


class _Icu:
    """ICU: dictionaries of Chinese, Japanese, Thai, Lao, Khmer, Burmese; Tibetan by syllables."""

    def __init__(self, wiki: str) -> None:
        breakers = _import(ICU, "icu4py.breakers")
        self._breaker = breakers.WordBreaker
        self._locale = domain_code(wiki)
        icu = importlib.import_module("icu4py._version").icu_version
        self.version = f"{_versions('icu4py')}, ICU {icu}"

    def segment(self, text: str) -> list[str]:
        return list(self._breaker(text, self._locale))


class _Mecab:
    """MeCab with the dictionary of IPA: Japanese."""

    def __init__(self, wiki: str) -> None:
        dictionary = _import("mecab", "ipadic", "mecab-python3 ipadic")
        mecab = _import("mecab", "MeCab", "mecab-python3 ipadic")
        self._tagger = mecab.Tagger(f"-Owakati {dictionary.MECAB_ARGS}")
        self.version = _versions("mecab-python3", "ipadic")

    def segment(self, text: str) -> list[str]:
        return self._tagger.parse(text).split()


class _Jieba:
    """jieba: Chinese."""

    def __init__(self, wiki: str) -> None:
        jieba = _import("jieba", "jieba", "jieba")
        jieba.setLogLevel(logging.WARNING)
        self._tokenizer = jieba.Tokenizer()
        # It would read and trust a cache in the folder of temporary files, which all may write to.
        with tempfile.TemporaryDirectory() as folder:
            self._tokenizer.tmp_dir = folder
            self._tokenizer.initialize()
        self.version = _versions("jieba")

    def segment(self, text: str) -> list[str]:
        return self._tokenizer.lcut(text)


class _PyThaiNlp:
    """PyThaiNLP's dictionary of Thai, by the algorithm whose time is bounded."""

    def __init__(self, wiki: str) -> None:
        self._words = _import("pythainlp", "pythainlp.tokenize", "pythainlp").word_tokenize
        self.version = _versions("pythainlp")

    def segment(self, text: str) -> list[str]:
        return self._words(text, engine="newmm-safe", keep_whitespace=False)


class _LaoNlp:
    """LaoNLP: Lao."""

    def __init__(self, wiki: str) -> None:
        self._words = _import("laonlp", "laonlp.tokenize", "laonlp").word_tokenize
        self.version = _versions("laonlp")

    def segment(self, text: str) -> list[str]:
        return self._words(text)


class _KhmerNltk:
    """khmer-nltk: Khmer."""

    def __init__(self, wiki: str) -> None:
        self._words = _import("khmer-nltk", "khmernltk", "khmer-nltk").word_tokenize
        self.version = _versions("khmer-nltk")

    def segment(self, text: str) -> list[str]:
        return self._words(text, return_tokens=True)


_FACTORIES: dict[str, Callable[[str], Any]] = {
    ICU: _Icu,
    "jieba": _Jieba,
    "khmer-nltk": _KhmerNltk,
    "laonlp": _LaoNlp,
    "mecab": _Mecab,
    "pythainlp": _PyThaiNlp,
}


def _import(name: str, module: str, packages: str = "") -> Any:
    """A module of a segmenter; ``packages``: what have it, if no extra does."""
    what = f"{{segmenter}} {name}"
    with needs_package(packages, what) if packages else needs("worldwide", what):
        return importlib.import_module(module)


def _versions(*packages: str) -> str:
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # its module is there, however it was put there
            found.append(package)
    return ", ".join(found)
