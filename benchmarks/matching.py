"""Matching side by side: metacurate, pyahocorasick, ahocorasick-rs, and entry by entry.

All on one thread, the same 500,000 entries and the same real texts, in one run; every matcher's
results are compared with metacurate's. Then metacurate on two threads.

Then the worldwide rule in several languages, against pyahocorasick as the official scripts use it
(``spaced_by_replace``, a set for each text), and against the rule ``v1``; by the
thread's processor time, since the parts take turns.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import ahocorasick
import ahocorasick_rs
import numpy as np
import pyarrow as pa

from data import entries, spaced_by_replace, texts, worldwide_entries, worldwide_texts
from metacurate.curation.matching.matcher import Matcher
from metacurate.curation.matching.reference import match_text
from metacurate.curation.matching.spacing import sided
from record import record, table

Result = TypeVar("Result")

SCANNED = 50
OFFICIAL_TEXTS = 20_000


def timed(function: Callable[[], Result], repeats: int) -> tuple[float, Result]:
    """Median seconds of a few runs, and the last result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def with_pyahocorasick(names: Sequence[str]) -> Callable[[Sequence[str]], list[set[int]]]:
    automaton = ahocorasick.Automaton()
    for entry_id, name in enumerate(names):
        automaton.add_word(f" {name} ", entry_id)
    automaton.make_automaton()
    return lambda batch: [{i for _, i in automaton.iter(spaced_by_replace(text))} for text in batch]


def with_ahocorasick_rs(names: Sequence[str]) -> Callable[[Sequence[str]], list[set[int]]]:
    automaton = ahocorasick_rs.AhoCorasick([f" {name} " for name in names])
    find = automaton.find_matches_as_indexes
    return lambda batch: [
        {i for i, _, _ in find(spaced_by_replace(text), overlapping=True)} for text in batch
    ]


def official(names: Sequence[str]) -> Callable[[Sequence[str]], list[set[int]]]:
    """The official way of the worldwide rule."""
    automaton = ahocorasick.Automaton()
    for entry_id, name in enumerate(names):
        automaton.add_word(sided("worldwide", name), entry_id)
    automaton.make_automaton()

    def match(batch: Sequence[str]) -> list[set[int]]:
        found = []
        for text in batch:
            found.append({i for _, i in automaton.iter(spaced_by_replace(text.strip()))})
        return found

    return match


def processor_time(function: Callable[[], Result]) -> tuple[float, Result]:
    start = time.thread_time()
    result = function()
    return time.thread_time() - start, result


def worldwide(repeats: int) -> None:
    """The worldwide rule in several languages; each round takes all three ways in turn."""
    data = {lang: (worldwide_entries(lang), worldwide_texts(lang)) for lang in ("zh", "ja", "th")}
    data["en"] = (entries(500_000), texts())
    quarters = [name for names, _ in data.values() for name in names[:125_000]]
    shuffled = [text for _, batch in data.values() for text in batch[:20_000]]
    random.Random(0).shuffle(shuffled)
    data["mixed"] = (list(dict.fromkeys(quarters)), shuffled)
    rows = []
    for lang, (names, batch) in data.items():
        array = pa.array(batch, pa.large_string())
        build, matcher = processor_time(partial(Matcher, names, rule="worldwide"))
        by_v1, by_official = Matcher(names), official(names)
        sample = batch[:OFFICIAL_TEXTS]
        seconds: list[list[float]] = [[], [], []]
        for _ in range(repeats):
            taken, (offsets, ids) = processor_time(partial(matcher.match, array))
            seconds[0].append(taken / len(batch))
            seconds[1].append(processor_time(partial(by_v1.match, array))[0] / len(batch))
            taken, sets = processor_time(partial(by_official, sample))
            seconds[2].append(taken / len(sample))
        for found, a, b in zip(sets, offsets[:-1], offsets[1:], strict=False):
            if sorted(found) != ids[a:b].tolist():
                raise SystemExit(f"pyahocorasick finds other matches in {lang}")
        here, v1, other = map(statistics.median, seconds)
        rows.append([
            lang, f"{len(names):,}", f"{len(batch):,}",
            f"{np.mean([len(text) for text in batch]):.0f}", f"{ids.size / len(batch):.1f}",
            f"{build:.2f}", f"{1 / here:,.0f}", f"{1 / v1:,.0f}", f"{1 / other:,.0f}",
            f"{other / here:.1f}",
        ])  # fmt: skip
    header = [
        "texts", "entries", "number", "characters", "matches a text", "build, s",
        "worldwide, texts/s", "v1, texts/s", "official way, texts/s", "times the official way",
    ]  # fmt: skip
    record(
        "matching-worldwide",
        "The worldwide rule by language, one thread, by processor time; medians of "
        f"{repeats} rounds in which the three alternate. The official way runs on the first "
        f"{OFFICIAL_TEXTS:,} texts and finds the same. The rule v1 finds less where scripts have "
        "no spaces, so its rate is to be compared in en alone.\n\n" + table(header, rows),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--worldwide", action="store_true", help="The worldwide rule alone.")
    arguments = parser.parse_args()
    if arguments.worldwide:
        worldwide(arguments.repeats)
        return
    names, batch = entries(arguments.entries), texts()
    array = pa.array(batch, pa.large_string())
    Matcher(names).match(array)  # compiles, or loads what an earlier run compiled

    build, matcher = timed(lambda: Matcher(names), 3)
    one, found = timed(lambda: matcher.match(array), arguments.repeats)
    two, _ = timed(lambda: matcher.match(array, threads=2), arguments.repeats)
    offsets, ids = found
    rows = [
        ["metacurate, one thread", f"{build:.2f}", f"{len(batch) / one:,.0f}", ""],
        ["metacurate, two threads", "", f"{len(batch) / two:,.0f}", ""],
    ]
    rates = [len(batch) / one, len(batch) / two]
    for name, make in (
        ("pyahocorasick", with_pyahocorasick),
        ("ahocorasick-rs", with_ahocorasick_rs),
    ):
        build, match = timed(partial(make, names), 1)
        seconds, result = timed(partial(match, batch), 3)
        same = all(
            r == set(ids[a:b].tolist())
            for r, a, b in zip(result, offsets[:-1], offsets[1:], strict=True)
        )
        if not same:
            raise SystemExit(f"{name} finds other matches")
        rows.append([f"{name}, Python spacing", f"{build:.2f}", f"{len(batch) / seconds:,.0f}", ""])
        rates.append(len(batch) / seconds)
    sample = batch[:: len(batch) // SCANNED][:SCANNED]
    seconds, _ = timed(lambda: [match_text(text, names) for text in sample], 1)
    rows.append([f"entry by entry ({SCANNED} texts)", "", f"{len(sample) / seconds:,.0f}", ""])
    rates.append(len(sample) / seconds)
    for row, rate in zip(rows, rates, strict=True):
        row[3] = f"{rate / rates[2]:,.2g}" if rate < rates[2] else f"{rate / rates[2]:.1f}"
    record(
        "matching",
        f"{len(names):,} entries (WordNet and Debian's largest English word list), "
        f"{len(batch):,} texts (WordNet's glosses, {np.mean([len(t) for t in batch]):.0f} "
        f"characters on average), {ids.size:,} matches, the same for all; medians of "
        f"{arguments.repeats} runs.\n\n"
        + table(["matcher", "build, s", "texts/s", "times pyahocorasick"], rows),
    )
    worldwide(arguments.repeats)


if __name__ == "__main__":
    main()
