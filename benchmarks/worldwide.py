"""Curation in a hundred languages, end to end: texts/s by stage, memory of parent and worker.

The data are made, always the same ones: words of each language (those of PyPI's ``wordfreq`` as far
as it knows it, and words of random syllables of its script), half of them alone and half in pairs
as entries, and texts of frequent and rare words. The stages run as commands of their own, after one
command that did it all; each one's time includes the start of its processes.

    nice python benchmarks/worldwide.py
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import wordfreq

from measure import Measured, run_metacurate
from metacurate.texts.languages import load_language_map
from record import record, table

SCRIPTS = {
    "zh": 0x4E00, "ja": 0x4E00, "gan": 0x4E00, "wuu": 0x4E00, "cdo": 0x4E00, "hak": 0x4E00,
    "th": 0x0E01, "lo": 0x0E81, "bo": 0x0F40, "dz": 0x0F40, "my": 0x1000, "mnw": 0x1000,
    "shn": 0x1000, "km": 0x1780, "ko": 0xAC00, "hi": 0x0905, "mr": 0x0905, "ne": 0x0905,
    "bn": 0x0985, "pa": 0x0A05, "gu": 0x0A85, "or": 0x0B05, "ta": 0x0B85, "te": 0x0C05,
    "kn": 0x0C85, "ml": 0x0D05, "si": 0x0D85, "am": 0x1200, "ti": 0x1200, "ka": 0x10D0,
    "hy": 0x0561, "he": 0x05D0, "yi": 0x05D0, "ar": 0x0627, "fa": 0x0627, "ur": 0x0627,
    "el": 0x03B1, "ru": 0x0430, "uk": 0x0430, "be": 0x0430, "bg": 0x0430, "sr": 0x0430,
    "mk": 0x0430, "kk": 0x0430, "ky": 0x0430, "mn": 0x0430, "tg": 0x0430, "tt": 0x0430,
    "ba": 0x0430, "cv": 0x0430,
}  # fmt: skip
"""The first letter of the script of languages that are not written in Latin letters."""

WITHOUT_SPACES = {"zh", "ja", "gan", "wuu", "cdo", "hak", "th", "lo", "bo", "dz", "my", "mnw",
                  "shn", "km"}  # fmt: skip
# English has as many texts as so many other languages.
ENGLISH = 40
FILES = 8


def languages(number: int) -> list[str]:
    """English, those of other scripts, and others in alphabetical order."""
    known = load_language_map().languages
    chosen = dict.fromkeys(["en", *(lang for lang in SCRIPTS if lang in known), *sorted(known)])
    return list(chosen)[:number]


def words(lang: str, number: int) -> list[str]:
    """Words of a language, the most frequent first."""
    rng = np.random.default_rng([*lang.encode()])
    found: dict[str, None] = {}
    if lang in wordfreq.available_languages():
        found.update(dict.fromkeys(wordfreq.top_n_list(lang, number)))
    first = SCRIPTS.get(lang, ord("a"))
    letters = [chr(first + i) for i in range(3000 if first in (0x4E00, 0xAC00) else 24)]
    letters = [letter for letter in letters if letter.isalpha()]
    syllables = ["".join(rng.choice(letters, n)) for n in rng.integers(1, 3, 600)]
    while len(found) < number:
        for row in rng.integers(0, len(syllables), (number, 4)).tolist():
            found["".join(syllables[i] for i in row[: 1 + row[3] % 4])] = None
    return list(found)[:number]


def entries(lang: str, own: list[str], number: int) -> list[str]:
    """Words, and pairs of words, of a language."""
    rng = np.random.default_rng([1, *lang.encode()])
    found = dict.fromkeys(own)
    between = "" if lang in WITHOUT_SPACES else " "
    while len(found) < number:
        picked = (len(own) * rng.random((number, 2)) ** 2).astype(np.int64).tolist()
        found.update(dict.fromkeys(f"{own[a]}{between}{own[b]}" for a, b in picked))
    return list(found)[:number]


def texts(lang: str, own: list[str], number: int) -> Iterator[str]:
    """Texts of 3 to 12 words: the 100th word of a language is some ten times as frequent as the
    1,000th.
    """
    rng = np.random.default_rng([2, *lang.encode()])
    between = "" if lang in WITHOUT_SPACES else " "
    for size in rng.integers(3, 13, number).tolist():
        picked = len(own) ** rng.random(size)
        yield between.join([own[int(i) - 1] for i in picked])


def make(folder: Path, number: int, all_entries: int, all_texts: int) -> int:
    """Write the metadata, a file a language, and the pool; how many characters the texts have."""
    chosen = languages(number)
    per_language, share = all_entries // number, all_texts // (number - 1 + ENGLISH)
    (folder / "metadata").mkdir(parents=True)
    (folder / "pool").mkdir()
    captions: list[str] = []
    langs: list[str] = []
    for lang in chosen:
        own = words(lang, per_language // 2)
        table = pa.table({"entry": entries(lang, own, per_language)})
        pq.write_table(table, folder / "metadata" / f"{lang}.parquet", compression="zstd")
        many = all_texts - share * (number - 1) if lang == "en" else share
        captions += texts(lang, own, many)
        langs += [lang] * many
    order = np.random.default_rng(0).permutation(len(captions))
    for part, rows in enumerate(np.array_split(order, FILES)):
        urls = [f"https://images.example.org/{i:010d}.jpg" for i in rows.tolist()]
        table = pa.table(
            {"url": urls, "text": pa.array(captions).take(pa.array(rows)),
             "lang": pa.array(langs).take(pa.array(rows))}
        )  # fmt: skip
        pq.write_table(table, folder / "pool" / f"{part:05d}.parquet", compression="zstd")
    return sum(map(len, captions))


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--languages", type=int, default=100)
    parser.add_argument("--entries", type=int, default=5_000_000)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="metacurate-benchmark-") as scratch:
        folder = Path(scratch)
        make(folder / "small", 3, 3000, 3000)
        characters = make(folder, arguments.languages, arguments.entries, arguments.texts)
        columns = ("--url-col", "url", "--text-col", "text", "--lang-col", "lang")
        workers = ("--workers", arguments.workers)
        threshold = ("--t", 2000, "--reference", "en")

        def run(command: str, data: Path, out: str, *more: object) -> Measured:
            return run_metacurate(
                command, data / "pool", "--metadata", data / "metadata", *columns, *workers,
                *more, "--out", folder / out,
            )  # fmt: skip

        run("curate", folder / "small", "warm", *threshold, "--no-report")  # compiles
        measured = {
            "curate": run("curate", folder, "all", *threshold, "--no-report"),
            "match": run("match", folder, "run"),
            "count": run_metacurate("count", folder / "run", *workers),
            "balance, card": run_metacurate("balance", folder / "run", *threshold, *workers),
        }
        manifest = json.loads((folder / "run" / "manifest.json").read_text("utf-8"))
        totals = manifest["stages"]["match"]["totals"]
        tables = sum(p.stat().st_size for p in (folder / "run" / "state" / "matcher").rglob("*"))
        kept = json.loads((folder / "all" / "datacard.json").read_text("utf-8"))["kept"]["pairs"]
    rows = [
        [
            name,
            f"{one.seconds:.1f}",
            f"{one.processor_seconds:.1f}",
            f"{arguments.texts / one.seconds:,.0f}",
            f"{one.parent_mib:,.0f}",
            f"{one.worker_mib:,.0f}",
        ]
        for name, one in measured.items()
    ]
    header = [
        "command", "seconds", "of the processors", "texts/s", "parent, MiB", "largest worker, MiB",
    ]  # fmt: skip
    record(
        "worldwide",
        f"{arguments.entries:,} entries in {arguments.languages} languages, {arguments.texts:,} "
        f"texts in these ({characters / arguments.texts:.0f} characters on average), "
        f"{totals['match_counts']:,} matches, {kept:,} pairs kept, {arguments.workers} workers; "
        f"the tables of all languages' matchers take {tables / 2**20:,.0f} MiB on the disk, and "
        "workers map those of the languages that they meet. Memory: the peaks of the parent and "
        "of the largest worker, what processes share divided among them. The whole, then its "
        "stages, each a command with the start of its processes.\n\n" + table(header, rows),
    )


if __name__ == "__main__":
    main()
