"""Compare language identifiers on real short texts: accuracy, English precision and recall, speed.

Two sets of texts, each with its language known:

- ``debian``: the one-line descriptions of Debian packages and their translations;
- ``cldr``: the short names of emoji in the Unicode CLDR (one to four words: as hard as it gets).

    npm pack cldr-annotations-full && tar xzf cldr-annotations-full-*.tgz
    lists=lists && mkdir -p $lists/partial
    apt-get -o Dir::State::lists=$PWD/$lists -o Acquire::GzipIndexes=false \\
        -o Acquire::Languages=en,cs,de,es,fi,fr,it,ja,ko,nl,pl,pt_BR,ru,sv,uk,zh_CN update
    python benchmarks/language_id.py --debian lists --cldr package \\
        --identifier eldc --identifier py3langid --identifier fasttext:lid.176.ftz

A language counts as right if it is the text's own (``no``, ``nb`` and ``nn`` are one). Languages
that an identifier does not know count against it. ``und`` is never right.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from metacurate.texts.language import UNDETERMINED, load_identifier

NORWEGIAN = {"nb": "no", "nn": "no"}
SHORT_CHARS = 20
Example = tuple[str, str]


def debian_texts(folder: Path, per_language: int) -> list[Example]:
    """(language, description) of packages whose description is translated."""
    texts: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*_main_i18n_Translation-*")):
        language = path.name.rsplit("Translation-", 1)[1].split("%")[0].split("_")[0]
        found = re.findall(r"^Description-(?!md5)\w+: (.+)$", path.read_text("utf-8"), re.MULTILINE)
        texts.setdefault(language, set()).update(text for text in found if "<trans>" not in text)
    english = texts.get("en", set())
    return [
        (language, text)
        for language, found in sorted(texts.items())
        for text in sample(found - english if language != "en" else found, language, per_language)
    ]


def cldr_texts(folder: Path, per_language: int) -> list[Example]:
    """(language, emoji name) of the locales whose name is a language's."""
    examples = []
    for path in sorted(folder.glob("annotations/*/annotations.json")):
        language = path.parent.name
        if not re.fullmatch("[a-z]{2}", language):
            continue
        annotations = json.loads(path.read_text("utf-8"))["annotations"]["annotations"]
        names = {text for entry in annotations.values() for text in entry.get("tts", [])}
        examples += [(language, text) for text in sample(names, language, per_language)]
    return examples


def sample(texts: set[str], language: str, size: int) -> list[str]:
    """A fixed choice of a language's texts."""
    ordered = sorted(texts)
    return Random(language).sample(ordered, min(size, len(ordered)))


def measure(name: str, examples: Sequence[Example]) -> dict[str, float]:
    """An identifier's figures on a set of texts."""
    identifier = load_identifier(name)
    texts = [text for _, text in examples]
    identifier.identify(texts[:100])
    start = time.perf_counter()
    found, _ = identifier.identify(texts)
    seconds = time.perf_counter() - start
    pairs = [
        (NORWEGIAN.get(true, true), NORWEGIAN.get(said, said), len(text) < SHORT_CHARS)
        for (true, text), said in zip(examples, found, strict=True)
    ]
    english = sum(true == "en" for true, _, _ in pairs)
    said_english = sum(said == "en" for _, said, _ in pairs)
    both = sum(true == said == "en" for true, said, _ in pairs)
    short = [true == said for true, said, is_short in pairs if is_short]
    return {
        "accuracy": sum(true == said for true, said, _ in pairs) / len(pairs),
        "accuracy_short": sum(short) / max(1, len(short)),
        "undetermined": sum(said == UNDETERMINED for _, said, _ in pairs) / len(pairs),
        "english_precision": both / max(1, said_english),
        "english_recall": both / max(1, english),
        "texts_per_second": len(texts) / seconds,
    }


def main() -> None:
    """Print a table of both sets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--debian", type=Path, help="folder with Debian's Translation files")
    parser.add_argument("--cldr", type=Path, help="unpacked npm package cldr-annotations-full")
    parser.add_argument("--identifier", action="append", required=True)
    parser.add_argument("--per-language", type=int, default=400, help="texts of each language")
    options = parser.parse_args()
    sets: dict[str, list[Example]] = {}
    if options.debian:
        sets["debian"] = debian_texts(options.debian, options.per_language)
    if options.cldr:
        sets["cldr"] = cldr_texts(options.cldr, options.per_language)
    for title, examples in sets.items():
        languages = {language for language, _ in examples}
        mean = sum(len(text) for _, text in examples) / max(1, len(examples))
        print(f"\n{title}: {len(examples)} texts of {len(languages)} languages,", end=" ")
        print(f"{mean:.0f} characters on average")
        print(
            f"| identifier | accuracy | under {SHORT_CHARS} characters | und | "
            "English precision | English recall | texts/s |\n|---|---|---|---|---|---|---|"
        )
        for name in options.identifier:
            figures = measure(name, examples)
            shares = [f"{100 * v:.1f}%" for k, v in figures.items() if k != "texts_per_second"]
            print(f"| {name} | {' | '.join(shares)} | {figures['texts_per_second']:,.0f} |")


if __name__ == "__main__":
    main()
