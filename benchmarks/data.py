"""The benchmarks' data: real entries and real texts, from Debian packages.

``wordnet-base`` has WordNet 3.0 (names and glosses), ``wamerican-insane`` Debian's largest English
word list. Other languages: entries from PyPI's ``wordfreq`` and ``pythainlp``; texts from Debian's
translated package descriptions (METACURATE_APT_LISTS names a folder with apt's Translation files,
``apt-get update -o Acquire::Languages=...``) and from npm's ``cldr-annotations-full``
(METACURATE_CLDR_ANNOTATIONS names its folder, unpacked).
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.metadata.wordnet import read_glosses, shipped_entries

WORDNET = Path("/usr/share/wordnet")
WORDS = Path("/usr/share/dict/american-english-insane")
ROWS_PER_FILE = 500_000
LOCALES = {"zh": ("zh%5fCN", "zh%5fTW"), "ja": ("ja",), "th": ("th",)}
THAI_LISTS = ("words_th", "wikipedia_titles_th", "volubilis_words_th", "orst_words_th")


def entries(number: int) -> list[str]:
    """WordNet's names, then Debian's words; beyond these, phrases of the glosses."""
    words = (word.strip() for word in WORDS.open(encoding="utf-8"))
    sources = itertools.chain(shipped_entries(), words, *map(phrases, range(2, 6)))
    unique: dict[str, None] = {}
    for entry in sources:
        if entry:
            unique[entry] = None
        if len(unique) == number:
            return list(unique)
    raise SystemExit(f"there are only {len(unique)} entries, not {number}")


def phrases(words: int) -> Iterator[str]:
    """All runs of so many words in the glosses."""
    for text in texts():
        tokens = text.split(" ")
        for start in range(len(tokens) - words + 1):
            yield " ".join(tokens[start : start + words])


def texts() -> list[str]:
    """WordNet's definitions and example sentences: 184,186 texts of 47 characters on average."""
    return read_glosses(WORDNET)


def spaced_by_replace(text: str) -> str:
    """``spaced`` in the fastest way that plain Python has: the official scripts' chain."""
    text = f" {text} "
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for space in "\t\n\r":
        text = text.replace(space, " ")
    return text


def worldwide_entries(lang: str) -> list[str]:
    """Words of zh, ja or th, by frequency as far as that is known."""
    if lang == "th":
        import pythainlp

        corpus = Path(pythainlp.__file__).parent / "corpus"
        files = ((corpus / f"{name}.txt").open(encoding="utf-8") for name in THAI_LISTS)
        words = (line.strip() for file in files for line in file)
        return [word for word in dict.fromkeys(words) if word]
    import wordfreq

    return wordfreq.top_n_list(lang, 10**6, wordlist="large")


def worldwide_texts(lang: str) -> list[str]:
    """Lines of package descriptions, and names and keywords of emoji, in zh, ja or th."""
    found: list[str] = []
    for name in LOCALES[lang]:
        for path in sorted(
            Path(os.environ["METACURATE_APT_LISTS"]).glob(f"*Translation-{name}.lz4")
        ):
            lines = pa.input_stream(str(path), compression="lz4").read().decode().splitlines()
            found += [line.strip() for line in lines if line.startswith(" ")]
    folder = Path(os.environ["METACURATE_CLDR_ANNOTATIONS"]) / "annotations"
    for path in sorted(folder.glob(f"{lang}*/annotations.json")):
        if path.parent.name.partition("-")[0] == lang:
            rows = json.loads(path.read_text("utf-8"))["annotations"]["annotations"].values()
            found += [name for row in rows for name in row.get("tts", [])]
            found += [" ".join(row.get("default", [])) for row in rows]
    return [text for text in dict.fromkeys(found) if len(text) > 3]


def write_pool(folder: Path, rows: int) -> None:
    """A pool of ``rows`` pairs: the real texts over and over, each time with another URL."""
    folder.mkdir(parents=True)
    captions = pa.array(texts())
    for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        ids = np.arange(first, min(first + ROWS_PER_FILE, rows))
        urls = [f"https://images.example.org/{i % 9973:05d}/{i:010d}.jpg" for i in ids.tolist()]
        table = pa.table(
            {"url": urls, "caption": captions.take(pa.array(ids % len(captions)))},
            schema=pa.schema([("url", pa.string()), ("caption", pa.string())]),
        )
        path = folder / f"{number:05d}.parquet"
        pq.write_table(table, path, row_group_size=100_000, compression="zstd")
