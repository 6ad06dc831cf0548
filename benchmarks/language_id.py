"""Compare language identifiers on real short texts: accuracy, English precision and recall, speed.

Sets of texts, each with its language known:

- ``debian``: the one-line descriptions of Debian packages and their translations;
- ``cldr``: the short names of emoji in the Unicode CLDR (one to four words: as hard as it gets);
- ``ui``: the texts of programs (menus, messages) and their translations, as installed.

    npm pack cldr-annotations-full && tar xzf cldr-annotations-full-*.tgz
    lists=lists && mkdir -p $lists/partial
    apt-get -o Dir::State::lists=$PWD/$lists -o Acquire::GzipIndexes=false \\
        -o Acquire::Languages=en,cs,de,es,fi,fr,it,ja,ko,nl,pl,pt_BR,ru,sv,uk,zh_CN update
    apt-get install libgtk-3-common libglib2.0-data libgtk2.0-common at-spi2-common
    python benchmarks/language_id.py --debian lists --cldr package --ui /usr/share/locale \\
        --identifier eldc --identifier py3langid --identifier fasttext:lid.176.ftz \\
        --identifier eldc+py3langid

``A+B`` is identifier A with ``--page-language B``: the texts of a language are put on pages of
eight, and on pages in other languages one text in ten is replaced by an English one (in all runs,
so that they can be compared).

A language counts as right if it is the text's own (``no``, ``nb`` and ``nn`` are one). Languages
that an identifier does not know count against it in the first column; the second is of the
languages of which eldc knows at least a third of the texts. ``und`` is never right.
"""

from __future__ import annotations

import argparse
import gettext
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np

from metacurate.texts.language import UNDETERMINED, letters, load_identifier
from metacurate.texts.page_language import with_pages

NORWEGIAN = {"nb": "no", "nn": "no"}
SHORT_CHARS = 20
PAGE_TEXTS = 8
ENGLISH_SHARE = 0.1
UI_PACKAGES = frozenset({"gtk30", "gtk20", "glib20", "at-spi2-core", "gdk-pixbuf"})
MIN_UI_TEXTS = 60
Example = tuple[str, str]


class Answer(NamedTuple):
    """What is right for a text, and what was said."""

    true: str
    said: str
    text: str
    on_english_page: bool


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


def ui_texts(folder: Path, per_language: int) -> list[Example]:
    """(language, text) of programs' translations; the originals are English."""
    texts: dict[str, set[str]] = {"en": set()}
    for path in sorted(folder.glob("*/LC_MESSAGES/*.mo")):
        language = path.parent.parent.name
        if path.stem not in UI_PACKAGES or not re.fullmatch("[a-z]{2}", language):
            continue
        try:
            with path.open("rb") as file:
                catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
        except (OSError, ValueError, IndexError):
            continue
        for original, translation in catalog.items():
            if isinstance(original, str) and original and translation != original:
                texts.setdefault(language, set()).add(_plain(translation))
                texts["en"].add(_plain(original.rpartition("\x04")[2]))
    return [
        (language, text)
        for language, found in sorted(texts.items())
        if len(found) >= MIN_UI_TEXTS
        for text in sample({t for t in found if letters(t) >= 3}, language, per_language)
    ]


def _plain(message: str) -> str:
    """A message without the marks of programs."""
    return " ".join(re.sub(r"%[-#0-9.lz]*[a-zA-Z]|_|<[^>]*>|\|.*", "", message).split())


def sample(texts: set[str], language: str, size: int) -> list[str]:
    """A fixed choice of a language's texts."""
    ordered = sorted(texts)
    return Random(language).sample(ordered, min(size, len(ordered)))


def on_pages(examples: Sequence[Example]) -> list[list[Example]]:
    """Pages of ``PAGE_TEXTS`` texts of a language, on which some are English instead."""
    random = Random(0)
    by_language: dict[str, list[Example]] = {}
    for language, text in examples:
        by_language.setdefault(language, []).append((language, text))
    pages = []
    for language, found in sorted(by_language.items()):
        random.shuffle(found)
        for at in range(0, len(found), PAGE_TEXTS):
            page = found[at : at + PAGE_TEXTS]
            if language != "en":
                page = [
                    random.choice(by_language["en"]) if random.random() < ENGLISH_SHARE else one
                    for one in page
                ]
            pages.append(page)
    return pages


def identify(name: str, pages: Sequence[Sequence[Example]]) -> tuple[list[str], float]:
    """The language of every text, and the seconds it took."""
    name, _, page_name = name.partition("+")
    identifier = load_identifier(name)
    page_identifier = load_identifier(page_name) if page_name else None
    texts = [text for page in pages for _, text in page]
    numbers = np.repeat(np.arange(len(pages)), [len(page) for page in pages])
    identifier.identify(texts[:100])
    start = time.perf_counter()
    found = identifier.languages(texts)
    if page_identifier is not None:
        found = with_pages(texts, found, numbers, [None] * len(pages), page_identifier)
    return found, time.perf_counter() - start


def measure(name: str, pages: Sequence[Sequence[Example]], known: set[str]) -> dict[str, float]:
    """An identifier's figures on a set of pages."""
    found, seconds = identify(name, pages)
    pairs: list[Answer] = []
    answers = iter(found)
    for page in pages:
        main = Counter(language for language, _ in page).most_common(1)[0][0]
        pairs += [
            Answer(_norm(true), _norm(next(answers)), text, main == "en") for true, text in page
        ]
    english = [one for one in pairs if one.true == "en"]
    here = [one for one in english if one.on_english_page]

    def share(rows: list[Answer]) -> float:
        return sum(one.true == one.said for one in rows) / max(1, len(rows))

    return {
        "accuracy": share(pairs),
        "accuracy_known": share([one for one in pairs if one.true in known]),
        "accuracy_short": share([one for one in pairs if len(one.text) < SHORT_CHARS]),
        "undetermined": sum(one.said == UNDETERMINED for one in pairs) / len(pairs),
        "english_precision": sum(one.said == "en" for one in english)
        / max(1, sum(one.said == "en" for one in pairs)),
        "english_recall": share(here),
        "english_recall_1": share([one for one in here if len(one.text.split()) == 1]),
        "english_recall_2": share([one for one in here if len(one.text.split()) == 2]),
        "english_recall_elsewhere": share([one for one in english if not one.on_english_page]),
        "texts_per_second": len(pairs) / seconds,
    }


def known_languages(pages: Sequence[Sequence[Example]]) -> set[str]:
    """The languages that eldc knows: of which it finds a third of the texts."""
    found, _ = identify("eldc", pages)
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for (true, _), said in zip([e for page in pages for e in page], found, strict=True):
        total[_norm(true)] += 1
        right[_norm(true)] += _norm(true) == _norm(said)
    return {language for language in total if 3 * right[language] >= total[language]}


def _norm(language: str) -> str:
    return NORWEGIAN.get(language, language)


def main() -> None:
    """Print a table of both sets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--debian", type=Path, help="folder with Debian's Translation files")
    parser.add_argument("--cldr", type=Path, help="unpacked npm package cldr-annotations-full")
    parser.add_argument("--ui", type=Path, help="folder with locales' LC_MESSAGES")
    parser.add_argument("--identifier", action="append", required=True)
    parser.add_argument("--per-language", type=int, default=400, help="texts of each language")
    options = parser.parse_args()
    sets: dict[str, list[Example]] = {}
    if options.debian:
        sets["debian"] = debian_texts(options.debian, options.per_language)
    if options.cldr:
        sets["cldr"] = cldr_texts(options.cldr, options.per_language)
    if options.ui:
        sets["ui"] = ui_texts(options.ui, options.per_language)
    for title, examples in sets.items():
        pages = on_pages(examples)
        known = known_languages(pages)
        languages = {_norm(language) for language, _ in examples}
        mean = sum(len(text) for _, text in examples) / max(1, len(examples))
        print(f"\n{title}: {len(examples)} texts of {len(languages)} languages,", end=" ")
        print(f"{mean:.0f} characters on average; {len(known)} languages that eldc knows")
        print(
            f"| identifier | accuracy | of known | under {SHORT_CHARS} characters | und | English "
            "precision | recall on English pages | of one word | of two | on others | texts/s |"
        )
        print("|---" * 11 + "|")
        for name in options.identifier:
            figures = measure(name, pages, known)
            shares = [f"{100 * v:.1f}%" for k, v in figures.items() if k != "texts_per_second"]
            print(f"| {name} | {' | '.join(shares)} | {figures['texts_per_second']:,.0f} |")


if __name__ == "__main__":
    main()
