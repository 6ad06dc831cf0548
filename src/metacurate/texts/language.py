"""Which language a text is in: one call for a batch of texts, whichever library answers.

An identifier is named by one word: ``eldc``, ``pycld2``, ``py3langid``, ``lingua``,
``fasttext:MODEL_FILE``, or ``module:factory`` for one of your own: ``factory()`` returns an object
with the method of ``Identifier``. ``docs/language.md`` compares them.

Codes are ISO 639-1 where there is one (``en``), otherwise what the library says. Texts with fewer
than ``MIN_LETTERS`` letters, and those of which the library is not sure, are ``und``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from metacurate.errors import UserError
from metacurate.needs import needs, needs_package
from metacurate.plugins import load_plugin

UNDETERMINED = "und"
DEFAULT = "eldc"
"""For telling one language from the others: the most accurate on the 60 that it knows."""
DEFAULT_OF_MANY = "pycld2"
"""For pools of many languages (``docs/language.md`` has the measurements)."""

# One or two letters are in any language. CJK characters say more: they count as words.
MIN_LETTERS = 3
# Identifiers look at the beginning of a text only: enough, and bounded work on hostile texts.
MAX_CHARS = 1000


class Identifier(Protocol):
    """What every identifier offers."""

    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        """The language code and the score (0 to 1, higher is surer) of each text."""
        ...


def load_identifier(name: str, min_score: float = 0.0) -> CarefulIdentifier:
    """The identifier of that name, with the rules for short texts and low scores applied.

    ``min_score``: texts with a lower score become ``und``; scores of different libraries cannot be
    compared. UserError if the name is unknown or the library or model is not there.
    """
    kind, _, argument = name.partition(":")
    if kind == "fasttext" and argument:
        return CarefulIdentifier(_FastText(argument), min_score)
    identifier = load_plugin(
        "language identifier", name, _FACTORIES, also=["fasttext:MODEL_FILE"]
    )()
    if not callable(getattr(identifier, "identify", None)):
        raise UserError(f"the language identifier {name!r} has no method identify")
    return CarefulIdentifier(identifier, min_score)


def letters(text: str) -> int:
    """How many letters a text has, up to ``MIN_LETTERS`` (a CJK or Hangul character as that many).

    Such characters write syllables or words.
    """
    count = 0
    for character in text:
        if character.isalpha():
            count += 1 if character < "\u2e80" else MIN_LETTERS
            if count >= MIN_LETTERS:
                return MIN_LETTERS
    return count


class CarefulIdentifier:
    """An identifier with the rules applied that are the same for all."""

    def __init__(self, identifier: Identifier, min_score: float) -> None:
        self._identifier = identifier
        self._min_score = min_score

    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        """The language code and the score of each text (see ``Identifier``)."""
        languages, scores = [UNDETERMINED] * len(texts), [0.0] * len(texts)
        places = _places_with_letters(texts)
        found = self._identifier.identify([texts[i][:MAX_CHARS] for i in places])
        for i, language, score in zip(places, *found, strict=True):
            scores[i] = score
            if score >= self._min_score:
                languages[i] = language or UNDETERMINED
        return languages, scores

    def languages(self, texts: Sequence[str]) -> list[str]:
        """The language codes alone: of eldc, they cost a third if no score is asked for."""
        if not isinstance(self._identifier, _Eldc) or self._min_score != 0:
            return self.identify(texts)[0]
        languages = [UNDETERMINED] * len(texts)
        places = _places_with_letters(texts)
        found = self._identifier.languages([texts[i][:MAX_CHARS] for i in places])
        for i, language in zip(places, found, strict=True):
            languages[i] = language or UNDETERMINED
        return languages

    def of_column(self, texts: pa.Array) -> pa.StringArray:
        """The language codes of an Arrow array of strings; null where a text is null.

        Equal texts are looked at once.
        """
        beginnings = pc.utf8_slice_codeunits(texts, 0, MAX_CHARS).dictionary_encode()
        languages = self.languages(beginnings.dictionary.to_pylist())
        return pa.array(languages, pa.string()).take(beginnings.indices)


def _places_with_letters(texts: Sequence[str]) -> list[int]:
    return [i for i, text in enumerate(texts) if letters(text) >= MIN_LETTERS]


class _Eldc:
    """ELD-C: n-grams of bytes, 60 languages; its own word on whether it is sure is used."""

    def __init__(self) -> None:
        self._eldc = _import("eldc", "eldc")
        self._eldc.init()

    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        detect = self._eldc.detect_details
        found = [detect(text.replace("\0", " ")) for text in texts]
        return [f.language for f in found], [_first_score(f) for f in found]

    def languages(self, texts: Sequence[str]) -> list[str]:
        """The codes that ``identify`` gives."""
        detect = self._eldc.detect
        return [detect(text.replace("\0", " ")) for text in texts]


def _first_score(result: Any) -> float:
    scores = result.scores
    return float(next(iter(scores.values()))) if scores else 0.0


class _Cld2:
    """CLD2: n-grams of letters, over 160 languages; the score is no probability.

    It is the share of the text that is in its language, halved where CLD2 calls that unreliable.
    """

    def __init__(self) -> None:
        self._detect = _import("pycld2", "pycld2").detect

    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        languages, scores = [], []
        for text in texts:
            plain = _NOT_INTERCHANGED.sub(" ", text)
            # Of short texts it says something only if it is told to try its best.
            reliable, _, found = self._detect(plain, isPlainText=True, bestEffort=True)
            _, code, percent, _ = found[0]
            languages.append(_cld2_language(code))
            scores.append(percent / (100 if reliable else 200))
        return languages, scores


# Control characters, noncharacters and lone surrogates, which CLD2 takes for broken UTF-8.
_NOT_INTERCHANGED = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"
    + "".join(chr(plane << 16 | last) for plane in range(1, 17) for last in (0xFFFE, 0xFFFF))
    + "]"
)
# Old codes; scripts in which one language is written. Other scripts, jokes (Pig Latin, "Bork")
# and "un", for unknown, are no language.
_CLD2_CODES = {
    "iw": "he", "jw": "jv", "zh-Hant": "zh", "sr-ME": "sr",
    "xx-Bugi": "bug", "xx-Goth": "got", "xx-Yiii": "ii",
}  # fmt: skip
_CLD2_NOTHING = re.compile("un|xxx|xx-.*|zz.")


def _cld2_language(code: str) -> str:
    code = _CLD2_CODES.get(code, code)
    return "" if _CLD2_NOTHING.fullmatch(code) else code


class _Py3langid:
    """py3langid: naive Bayes on byte n-grams, over 130 languages; scores are probabilities."""

    def __init__(self) -> None:
        module = _import("py3langid", "py3langid.langid")
        self._identifier = module.LanguageIdentifier.from_model_file(
            module.MODEL_FILE, norm_probs=True
        )

    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        found = [self._identifier.classify(text) for text in texts]
        languages = [_PY3LANGID_CODES.get(language, language) for language, _ in found]
        return languages, [float(score) for _, score in found]


# Members of languages that have a code of two letters; "zxx" is no language.
_PY3LANGID_CODES = {"fuv": "ff", "gug": "gn", "kik": "ki", "uzs": "uz", "zxx": ""}


class _Lingua:
    """lingua: n-grams of characters and rules, 75 languages; scores are probabilities."""

    def __init__(self) -> None:
        module = _import("lingua", "lingua", "lingua-language-detector")
        self._detector = module.LanguageDetectorBuilder.from_all_languages().build()

    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        languages, scores = [], []
        for text in texts:
            best = self._detector.compute_language_confidence_values(text)[0]
            languages.append(best.language.iso_code_639_1.name.lower() if best.value else "")
            scores.append(float(best.value))
        return languages, scores


class _FastText:
    """A fastText classifier with labels ``__label__en`` (such as lid.176.ftz or .bin)."""

    def __init__(self, model_file: str) -> None:
        module = _import("fasttext", "fasttext", "fasttext-predict")
        if not Path(model_file).is_file():
            raise UserError(f"{model_file}: no such fastText model; give fasttext:MODEL_FILE")
        try:
            self._model = module.load_model(model_file)
        except ValueError as error:
            raise UserError(f"{model_file} is no fastText model: {error}") from None

    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        # The classifier reads one line a text; a line break within would be an error. It was
        # trained on sentences: capitals ("RED BARN") mislead it.
        found = [self._model.predict(" ".join(text.lower().split())) for text in texts]
        languages = [labels[0].removeprefix("__label__") if labels else "" for labels, _ in found]
        return languages, [min(1.0, float(s[0])) if len(s) else 0.0 for _, s in found]


_FACTORIES: dict[str, Callable[[], Identifier]] = {
    "eldc": _Eldc,
    "pycld2": _Cld2,
    "py3langid": _Py3langid,
    "lingua": _Lingua,
}


def _import(name: str, module: str, package: str | None = None) -> Any:
    """The module of an identifier; ``package``: what has it, if no extra does."""
    what = f"the language identifier {name}"
    with needs_package(package, what) if package else needs("languages", what):
        return importlib.import_module(module)
