"""Matching side by side: metacurate, pyahocorasick, ahocorasick-rs, and entry by entry.

All on one thread, the same 500,000 entries and the same real texts, in one run; every matcher's
results are compared with metacurate's. Then metacurate on two threads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import ahocorasick
import ahocorasick_rs
import numpy as np
import pyarrow as pa

from data import entries, texts
from metacurate.curation.matching.matcher import Matcher
from metacurate.curation.matching.reference import match_text
from metacurate.curation.matching.spacing import spaced
from record import record, table

SCANNED = 50


def timed(function: Callable[[], object], repeats: int) -> tuple[float, object]:
    """Median seconds of a few runs, and the last result."""
    seconds = []
    result: object = None
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def with_pyahocorasick(names: Sequence[str]) -> Callable[[Sequence[str]], list[list[int]]]:
    automaton = ahocorasick.Automaton()
    for entry_id, name in enumerate(names):
        automaton.add_word(f" {name} ", entry_id)
    automaton.make_automaton()
    return lambda batch: [sorted({i for _, i in automaton.iter(spaced(text))}) for text in batch]


def with_ahocorasick_rs(names: Sequence[str]) -> Callable[[Sequence[str]], list[list[int]]]:
    automaton = ahocorasick_rs.AhoCorasick([f" {name} " for name in names])
    find = automaton.find_matches_as_indexes
    return lambda batch: [
        sorted({i for i, _, _ in find(spaced(text), overlapping=True)}) for text in batch
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    names, batch = entries(arguments.entries), texts()
    array = pa.array(batch, pa.large_string())
    Matcher(names).match(array)  # compiles, or loads what an earlier run compiled

    build, matcher = timed(lambda: Matcher(names), 3)
    assert isinstance(matcher, Matcher)
    one, found = timed(lambda: matcher.match(array), arguments.repeats)
    two, _ = timed(lambda: matcher.match(array, threads=2), arguments.repeats)
    offsets, ids = found  # type: ignore[misc]
    rows = [
        ["metacurate, one thread", f"{build:.2f}", f"{len(batch) / one:,.0f}", ""],
        ["metacurate, two threads", "", f"{len(batch) / two:,.0f}", ""],
    ]
    rates = [len(batch) / one, len(batch) / two]
    for name, make in (
        ("pyahocorasick", with_pyahocorasick),
        ("ahocorasick-rs", with_ahocorasick_rs),
    ):
        build, match = timed(lambda make=make: make(names), 1)
        seconds, result = timed(lambda match=match: match(batch), 3)  # type: ignore[misc]
        same = all(
            r == ids[a:b].tolist()
            for r, a, b in zip(result, offsets[:-1], offsets[1:], strict=True)  # type: ignore[arg-type]
        )
        if not same:
            raise SystemExit(f"{name} finds other matches")
        rows.append([f"{name}, Python spacing", f"{build:.2f}", f"{len(batch) / seconds:,.0f}", ""])
        rates.append(len(batch) / seconds)
    sample = batch[:: len(batch) // SCANNED][:SCANNED]
    seconds, result = timed(lambda: [match_text(text, names) for text in sample], 1)
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


if __name__ == "__main__":
    main()
