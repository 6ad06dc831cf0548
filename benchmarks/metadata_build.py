"""How fast metadata is built from dumps: wikitext, whole dump, page views, summing runs.

    python benchmarks/metadata_build.py --dump enwiki-...-pages-articles.xml.bz2

The dump should be a real one: the rate depends on what articles consist of. gensim's package
(``pip download --no-deps gensim``, folder gensim/test/test_data) carries 106 real articles of
2016, 1.7 MB as bzip2. Each figure is the best of ``--repeat`` runs, in CPU seconds of one core.
Summing is compared with DuckDB and Polars, which must be installed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from metacurate.metadata.build import BuildConfig, build_metadata
from metacurate.runtime.storage import Folder
from metacurate.wikipedia.dumpfile import Part
from metacurate.wikipedia.ngrams import tokens
from metacurate.wikipedia.pages import read_pages
from metacurate.wikipedia.pageviews import ViewRule, read_views
from metacurate.wikipedia.shuffle import hash_texts, read_runs, sum_by, write_run
from metacurate.wikipedia.wikitext import plain_text
from record import record, table


def best(function: Callable[[], Any], repeat: int) -> float:
    """The least CPU time of several calls."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def measure_wikitext(dump: Path, repeat: int) -> dict[str, float]:
    """Wikitext to text, in MB (million characters) of wikitext a second, and words of text."""
    import mwparserfromhell

    part = Part(str(dump), 0, dump.stat().st_size)
    pages = [p for p in read_pages(part, 4 << 20, Counter()) if p.namespace == 0 and not p.redirect]
    texts = [page.text for page in pages]
    size = sum(map(len, texts)) / 1e6
    plain = [plain_text(text) for text in texts]
    few = texts[: max(1, len(texts) // 4)]
    few_size = sum(map(len, few)) / 1e6
    return {
        "articles": len(texts),
        "mb": size,
        "ours": size / best(lambda: [plain_text(t) for t in texts], repeat),
        "whole pages": few_size
        / best(lambda: [mwparserfromhell.parse(t).strip_code() for t in few], 1),
        "words": sum(map(len, plain)) / 1e6
        / best(lambda: [tokens(t) for t in plain], repeat),
    }  # fmt: skip


def measure_build(dump: Path, copies: int) -> dict[str, float]:
    """Words and bigrams of copies of a dump, in this process: stored MB a CPU second."""
    with tempfile.TemporaryDirectory() as scratch:
        out = f"{scratch}/m.json"
        for copy in range(copies):
            shutil.copy(dump, f"{scratch}/copy{copy}{dump.suffix}")
        config = BuildConfig(
            dumps=(f"{scratch}/copy*",), sources=("unigrams", "bigrams"), best_bigrams=1000
        )
        start = time.process_time()
        totals = build_metadata(config, out, workers=1)
        cpu = time.process_time() - start
        work = sum(p.stat().st_size for p in Path(f"{scratch}/m.build").rglob("*") if p.is_file())
    stored = copies * dump.stat().st_size / 1e6
    return {
        "stored": stored,
        "rate": stored / cpu,
        "tokens": totals["stages"]["dump"]["tokens"],
        "work": work / 1e6 / stored,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measure_views(lines: int, repeat: int) -> float:
    """Page view lines a second (made up lines, half of them of the wiki)."""
    made = [
        f"{'en' if n % 2 else 'de'} Title_number_{n % 99991} {n % 7 + 1} 0" for n in range(lines)
    ]
    encoded = [line.encode() for line in made]
    seconds = best(
        lambda: sum(n for _, n in read_views(encoded, ViewRule("en"), Counter())), repeat
    )
    return lines / seconds


def make_runs(folder: Folder, runs: int, rows: int, partitions: int) -> None:
    """Runs of bigrams with Zipf-like words: what parts of a dump leave."""
    draw = np.random.default_rng(0)
    vocabulary = pa.array([f"word{n}" for n in range(300_000)])
    hashes = hash_texts(vocabulary.to_pylist())
    for run in range(runs):
        left, right = (np.minimum(draw.zipf(1.15, rows) - 1, 299_999) for _ in range(2))
        pairs, counts = np.unique(left * 300_000 + right, return_counts=True)
        left, right = pairs // 300_000, pairs % 300_000
        table = pa.table(
            {
                "left": vocabulary.take(pa.array(left)),
                "right": vocabulary.take(pa.array(right)),
                "count": pa.array(counts.astype(np.uint64)),
            }
        )
        write_run(folder, f"run-{run:03d}.arrow", table, hashes[left], partitions)


def sum_partitions(url: str, partitions: int) -> int:
    """Our way: each partition by itself."""
    folder = Folder(url)
    names = folder.list()
    return sum(
        sum_by(read_runs(folder, names, p), ["left", "right"], "count").num_rows
        for p in range(partitions)
    )


def sum_duckdb(url: str, _: int) -> int:
    """DuckDB over the same files, one thread, sorted as ours."""
    import duckdb
    import pyarrow.dataset as ds

    connection = duckdb.connect(config={"threads": 1, "memory_limit": "2GB"})
    connection.register("runs", ds.dataset(url, format="ipc"))
    query = 'select l, r, sum(c) from (select "left" l, "right" r, count c from runs) \
group by l, r order by l, r'
    return connection.sql(query).to_arrow_table().num_rows


def sum_polars(url: str, _: int) -> int:
    """Polars' streaming engine over the same files, sorted as ours."""
    import polars

    frame = polars.scan_ipc(f"{url}/*.arrow").group_by("left", "right").agg(polars.sum("count"))
    return frame.sort("left", "right").collect(engine="streaming").height


WAYS = {"partitions (ours)": sum_partitions, "DuckDB": sum_duckdb, "Polars": sum_polars}


def _measured(function: Callable[[str, int], int], url: str, partitions: int, pipe: Any) -> None:
    start = time.process_time()
    rows = function(url, partitions)
    used = {
        "rows": rows,
        "cpu": time.process_time() - start,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    pipe.send(used)


def measure_sums(runs: int, rows: int, partitions: int) -> dict[str, Any]:
    """Time and peak memory of summing the same runs, each way in a process of its own."""
    results: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        make_runs(Folder(scratch), runs, rows, partitions)
        for name, function in WAYS.items():
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_measured, args=(function, scratch, partitions, sender)
            )
            process.start()
            sender.close()
            results[name] = receiver.recv()
            process.join()
    return results


def main() -> None:
    """Run all measurements and record them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--dump", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=6, help="Copies of the dump to build from.")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--rows", type=int, default=1_000_000, help="Bigrams drawn for a run.")
    parser.add_argument("--partitions", type=int, default=8)
    options = parser.parse_args()
    build = measure_build(options.dump, options.copies)
    wikitext = measure_wikitext(options.dump, options.repeat)
    lines = measure_views(500_000, options.repeat)
    sums = measure_sums(options.runs, options.rows, options.partitions)
    speeds = [
        ["wikitext to plain text", f"{wikitext['ours']:.1f} MB/s of wikitext"],
        ["mwparserfromhell, whole pages", f"{wikitext['whole pages']:.1f} MB/s of wikitext"],
        ["plain text to words", f"{wikitext['words']:.1f} MB/s of text"],
        ["whole build of words and bigrams", f"{build['rate']:.2f} MB/s of bzip2"],
        ["page view lines", f"{lines:,.0f} lines/s"],
    ]
    ways = [
        [name, f"{way['rows']:,}", f"{way['cpu']:.1f}", f"{way['peak']:,.0f}"]
        for name, way in sums.items()
    ]
    record(
        "metadata",
        f"A dump of {wikitext['articles']} real articles, {wikitext['mb']:.1f} MB of wikitext; "
        f"the build is of {options.copies} copies, {build['stored']:.1f} MB as bzip2, "
        f"{build['tokens']:,} words, leaves {build['work']:.1f} MB of work files a MB and takes "
        f"{build['peak']:.0f} MiB. CPU seconds of one core.\n\n"
        + table(["step", "speed"], speeds)
        + f"\n\nSumming {options.runs} runs of bigrams ({options.rows:,} drawn for each), sorted; "
        "one process each.\n\n"
        + table(["way", "distinct bigrams", "CPU seconds", "peak MiB"], ways),
    )


if __name__ == "__main__":
    main()
