"""Curation end to end: metacurate from Parquet, beside scripts of the usual kind on the same cores.

The usual way: Python processes, one shard of JSON lines each; per caption, spacing by a chain of
``str.replace``, pyahocorasick and a JSON line with the matched ids out; then counts, then per line
the draws and the kept lines.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import multiprocessing
import pstats
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import ahocorasick

from data import entries, spaced_by_replace, texts, write_pool
from measure import run_metacurate
from record import record, table

CORES = 2
PROFILED_ROWS = 2_000_000
# Keeps about a quarter of the pairs, as the paper's 1.6 billion become 400 million.
T = 55
# Where a profiled function belongs: parts of its file's or function's name, first hit wins.
KINDS = {
    "matching": ("matching/", "kernels/matching"),
    "naming pairs (BLAKE2b)": ("pool/uid.py", "kernels/uid", "kernels/blake2b", "kernels/url"),
    "balancing and counting": ("balancing.py",),
    "writing": ("write_table", "write_index", "write_batch", "write_group", "close"),
    "reading": (
        "pool/",
        "formats/",
        "read_index",
        "open_file",
        "get_batch",
        "iter_batches",
        "parquet/core",
    ),
}

_automaton: ahocorasick.Automaton | None = None


def _make_automaton(names: list[str]) -> None:
    global _automaton  # noqa: PLW0603  (one for each process)
    _automaton = ahocorasick.Automaton()
    for entry_id, name in enumerate(names):
        _automaton.add_word(f" {name} ", entry_id)
    _automaton.make_automaton()


def match_lines(paths: tuple[Path, Path]) -> Counter[int]:
    """Match a shard of JSON lines; writes JSON lines with the matched ids, returns the counts."""
    assert _automaton is not None
    counts: Counter[int] = Counter()
    with paths[0].open() as lines, paths[1].open("w") as out:
        for line in lines:
            pair = json.loads(line)
            ids = list({i for _, i in _automaton.iter(spaced_by_replace(pair["caption"]))})
            if ids:
                counts.update(ids)
                out.write(json.dumps({**pair, "matched": ids}) + "\n")
    return counts


def balance_lines(task: tuple[Path, Path, dict[int, float], int]) -> int:
    """Draw a matched shard; writes the kept lines, returns their number."""
    source, target, probabilities, seed = task
    rng = random.Random(seed)
    kept = 0
    with source.open() as lines, target.open("w") as out:
        for line in lines:
            if any(rng.random() < probabilities[i] for i in json.loads(line)["matched"]):
                out.write(line)
                kept += 1
    return kept


def the_usual_way(folder: Path, names: list[str], rows: int) -> float:
    """Texts per second of the usual way over ``rows`` texts in as many shards as cores."""
    captions = texts()
    folder.mkdir()
    shards = []
    for shard in range(CORES):
        path = folder / f"{shard}.jsonl"
        with path.open("w") as out:
            for i in range(shard, rows, CORES):
                url = f"https://images.example.org/{i:010d}.jpg"
                out.write(json.dumps({"url": url, "caption": captions[i % len(captions)]}) + "\n")
        shards.append(path)
    with multiprocessing.Pool(CORES, _make_automaton, (names,)) as pool:
        pool.map(time.sleep, [1.0] * CORES)  # both processes are up, with their automata built
        start = time.perf_counter()
        matched = [path.with_suffix(".matched") for path in shards]
        counts = sum(pool.map(match_lines, zip(shards, matched, strict=True)), Counter[int]())
        t = max(1.0, T * rows / 10_000_000)
        probabilities = {entry: min(1.0, t / count) for entry, count in counts.items()}
        tasks = [(m, m.with_suffix(".kept"), probabilities, i) for i, m in enumerate(matched)]
        pool.map(balance_lines, tasks)
        rate = rows / (time.perf_counter() - start)
    shutil.rmtree(folder)
    return rate


def shares(pool: Path, metadata: Path, out: Path) -> list[list[str]]:
    """The share of the time of a one-process run by kind of work, from a profile."""
    from metacurate import curate

    profile = cProfile.Profile()
    t = T * PROFILED_ROWS / 10_000_000  # keeps as large a share
    profile.runcall(curate, str(pool), str(metadata), str(out), t=t, report=False, workers=1)
    seconds: Counter[str] = Counter()
    for (file, _, function), (_, _, own, _, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        kinds = (k for k, parts in KINDS.items() if any(p in f"{file} {function}" for p in parts))
        seconds[next(kinds, "other")] += own
    total = sum(seconds.values())
    return [[kind, f"{s / total:.0%}"] for kind, s in seconds.most_common()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--usual-rows", type=int, default=500_000)
    parser.add_argument("--entries", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    names = entries(arguments.entries)
    with tempfile.TemporaryDirectory(prefix="metacurate-benchmark-") as scratch:
        folder = Path(scratch)
        (folder / "metadata.json").write_text(json.dumps(names))
        write_pool(folder / "pool", arguments.rows)
        write_pool(folder / "small", 500_000)
        parts = (
            "--metadata", folder / "metadata.json", "--t", T, "--workers", CORES, "--no-report",
        )  # fmt: skip
        run_metacurate("curate", folder / "small", *parts, "--out", folder / "compiled")
        ours, usual = [], []
        for _ in range(arguments.rounds):
            ours.append(run_metacurate("curate", folder / "pool", *parts, "--out", folder / "out"))
            shutil.rmtree(folder / "out")
            usual.append(the_usual_way(folder / "usual", names, arguments.usual_rows))
        write_pool(folder / "profiled-pool", PROFILED_ROWS)
        kinds = shares(folder / "profiled-pool", folder / "metadata.json", folder / "profiled")
    seconds = statistics.median(one.seconds for one in ours)
    rate, usual_rate = arguments.rows / seconds, statistics.median(usual)
    ratios = sorted(arguments.rows / one.seconds / u for one, u in zip(ours, usual, strict=True))
    kept = ours[0].output["kept"]["pairs"]
    record(
        "curate",
        f"{arguments.rows:,} texts (WordNet's glosses over and over, each with a URL of its own) "
        f"in Parquet, {len(names):,} entries, t = {T}, {kept:,} pairs kept, {CORES} workers; the "
        "time includes the start of all processes, the card and the manifest, not the report. The "
        f"usual way: pyahocorasick per caption in {CORES} Python processes, JSON lines in and "
        f"out, on {arguments.usual_rows:,} of the texts, not counting the building of automata. "
        f"Medians of {arguments.rounds} rounds in which the two alternate; the ratios of "
        f"the rounds lay between {ratios[0]:.1f} and {ratios[-1]:.1f}.\n\n"
        + table(
            ["", "seconds", "texts/s", "times the usual way", "peak memory, all processes"],
            [
                [
                    "metacurate curate",
                    f"{seconds:.1f}",
                    f"{rate:,.0f}",
                    f"{statistics.median(ratios):.1f}",
                    f"{max(one.peak_mib for one in ours):,.0f} MiB",
                ],
                ["the usual way", "", f"{usual_rate:,.0f}", "1.0", ""],
            ],
        )
        + f"\n\nShare of the time in one process ({PROFILED_ROWS:,} texts, profiled):\n\n"
        + table(["work", "share"], kinds),
    )


if __name__ == "__main__":
    main()
