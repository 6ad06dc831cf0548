"""URL dedup at size: seconds, and the peak memory of all processes together.

First metacurate, DuckDB and Polars (both streaming, on Parquet) in turn on fewer rows, several
rounds of which the medians count; then metacurate and datatrove, whose three steps go from row to
row in Python, on still fewer; then metacurate alone on all rows, whose input is removed as soon as
it has been read: disk space is then that of the scratch files and the output.

The rows are generated: a share of fresh URLs, the others drawn from a long-tailed distribution as
on the web, where a few images are on a great many pages; texts are WordNet's glosses. The
alternatives have less to do: they group by the URL as it stands and neither hash, normalise nor
order the rows, nor keep texts in the order in which they first appear. datatrove keeps one row of
a URL and drops the texts of the others; it compares URLs by hashes of 64 bits.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data import texts
from measure import Measured, run_command, run_metacurate
from record import record, table

FILE_ROWS = 1_000_000
ROW_BY_ROW_FILES, ROW_BY_ROW_ROWS = 2, 100_000  # in each
FRESH_SHARE = 0.65
POPULAR = 20_000_000
# Of the few rows that all programs get, 44% are duplicates.
FEW_FRESH_SHARE = 0.44
FEW_POPULAR = 2_500_000


def generate(
    folder: Path,
    rows: int,
    fresh_share: float = FRESH_SHARE,
    popular_images: int = POPULAR,
    seed: int = 0,
    file_rows: int = FILE_ROWS,
) -> int:
    """Write Parquet files of ``url`` and ``text``; the number of distinct URLs."""
    folder.mkdir(parents=True)
    captions = pa.array(texts())
    popular_seen = np.zeros(popular_images, dtype=bool)
    fresh_total = 0
    for position, start in enumerate(range(0, rows, file_rows)):
        count = min(file_rows, rows - start)
        random = np.random.default_rng([seed, position])
        # Log-uniform ranks: Zipf's law with exponent 1, cut off at the last popular image.
        popular = (popular_images ** random.random(count)).astype(np.int64) - 1
        fresh = random.random(count) < fresh_share
        ids = np.where(fresh, popular_images + start + np.arange(count), popular)
        popular_seen[popular[~fresh]] = True
        fresh_total += int(np.count_nonzero(fresh))
        hosts, numbers = pa.array(ids % 100_003).cast(pa.string()), pa.array(ids).cast(pa.string())
        urls = pc.binary_join_element_wise(
            "https://images",
            hosts,
            ".example.com/uploads/2021/04/photo-",
            numbers,
            "-1024x768.jpg",
            "",
        )
        chosen = captions.take(pa.array(random.integers(0, len(captions), count)))
        out = folder / f"part-{position:05d}.parquet"
        pq.write_table(pa.table({"url": urls, "text": chosen}), out, compression="zstd",
                       row_group_size=250_000)  # fmt: skip
    return fresh_total + int(np.count_nonzero(popular_seen))


def with_duckdb(source: Path, out: Path, arguments: argparse.Namespace) -> int:
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET memory_limit = '{0.75 * arguments.limit_gib:.2f}GiB'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"SET temp_directory = '{out}.spill'")
    connection.execute(
        "COPY (SELECT url, list(DISTINCT text) AS texts "
        f"FROM read_parquet('{source}/*.parquet') GROUP BY url) "
        f"TO '{out}.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )
    return pq.read_metadata(f"{out}.parquet").num_rows


def with_polars(source: Path, out: Path, arguments: argparse.Namespace) -> int:
    import polars as pl

    del arguments  # it has no limit of memory
    grouped = pl.scan_parquet(source / "*.parquet").group_by("url").agg(pl.col("text").unique())
    grouped.sink_parquet(f"{out}.parquet", compression="zstd")
    return pq.read_metadata(f"{out}.parquet").num_rows


def _url(document: Any) -> bytes:
    url: str = document.metadata["url"]
    return url.encode()


def with_datatrove(source: Path, out: Path, arguments: argparse.Namespace) -> int:
    """Signatures, duplicates and filter: the steps of its exact deduplication."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup.exact_dedup import (
        ExactDedupConfig,
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
    )
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter

    config = ExactDedupConfig(content_getter=_url)
    files, workers = len(list(source.glob("*.parquet"))), arguments.workers
    signatures, found, kept = f"{out}/signatures", f"{out}/found", f"{out}/kept"
    steps: list[tuple[int, list[Any]]] = [
        (files, [ParquetReader(str(source)),
                 ExactDedupSignature(signatures, config, finder_workers=workers)]),
        (workers, [ExactFindDedups(signatures, found, config)]),
        (files, [ParquetReader(str(source)), ExactDedupFilter(found, config),
                 ParquetWriter(kept, compression="zstd")]),
    ]  # fmt: skip
    for step, (tasks, pipeline) in enumerate(steps):
        LocalPipelineExecutor(
            pipeline, tasks=tasks, workers=workers, logging_dir=f"{out}/logs-{step}"
        ).run()
    return sum(pq.read_metadata(file).num_rows for file in Path(kept).glob("*.parquet"))


ALTERNATIVES = {"duckdb": with_duckdb, "polars": with_polars}
ROW_BY_ROW = {"datatrove": with_datatrove}


def run_dedup(source: Path, out: Path, workers: int) -> Measured:
    return run_metacurate("pool", "dedup", source, "--out", out, "--workers", workers)


def size_gib(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet")) / 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--compare-rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit-gib", type=float, default=4.0)
    parser.add_argument("--scratch", type=Path, help="where to put the files; a temporary folder")
    parser.add_argument("--no-record", action="store_true", help="only print")
    parser.add_argument("--child", nargs=3, metavar=("WHO", "IN", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        who, source, out = arguments.child
        print((ALTERNATIVES | ROW_BY_ROW)[who](Path(source), Path(out), arguments))
        return
    scratch = Path(tempfile.mkdtemp(prefix="dedup-", dir=arguments.scratch))
    try:
        parts = (compare, row_by_row, alone)
        body = "\n\n".join(part(scratch, arguments) for part in parts)
    finally:
        shutil.rmtree(scratch)
    if arguments.no_record:
        print(body)
    else:
        record("dedup", body)


def compare(scratch: Path, arguments: argparse.Namespace) -> str:
    """All contenders on the same rows; they must agree on the number of distinct URLs."""
    source, rows = scratch / "few", arguments.compare_rows
    distinct = generate(source, rows, FEW_FRESH_SHARE, FEW_POPULAR)
    found: dict[str, list[Measured]] = {}
    failed: dict[str, str] = {}
    for who in ["metacurate", *ALTERNATIVES] * arguments.rounds:
        try:
            measured = run_one(who, source, scratch / f"few-{who}", arguments)
        except RuntimeError as error:
            failed[who] = str(error).replace("\n", " ")
            continue
        pairs = measured.output["pairs"] if who == "metacurate" else measured.output
        assert pairs == distinct, (who, pairs, distinct)
        found.setdefault(who, []).append(measured)
    shutil.rmtree(source)
    ours = medians(found["metacurate"])
    lines = []
    for who, all_measured in found.items():
        seconds, processors, peak = medians(all_measured)
        lines.append(
            [
                who,
                f"{seconds:.1f}",
                f"{rows / seconds:,.0f}",
                f"{processors:.1f}",
                f"{peak / 1024:.2f}",
                f"{seconds / ours[0]:.2f}",
                f"{processors / ours[1]:.2f}",
            ]
        )
    lines += [[who, "failed", why, "", "", "", ""] for who, why in failed.items()]
    intro = f"{rows:,} rows, {distinct:,} distinct URLs ({1 - distinct / rows:.1%} duplicates); "
    intro += f"{arguments.workers} workers, DuckDB and Polars with all cores; medians of "
    intro += f"{arguments.rounds} rounds in turn."
    header = ["program", "s", "rows/s", "of the processors, s", "peak memory, GiB",
              "time over metacurate's", "processor time over metacurate's"]  # fmt: skip
    return f"{intro}\n\n{table(header, lines)}"


def row_by_row(scratch: Path, arguments: argparse.Namespace) -> str:
    """metacurate and datatrove, once each."""
    source, rows = scratch / "fewest", ROW_BY_ROW_FILES * ROW_BY_ROW_ROWS
    distinct = generate(source, rows, FEW_FRESH_SHARE, FEW_POPULAR, file_rows=ROW_BY_ROW_ROWS)
    ours, theirs = (
        run_one(who, source, scratch / f"fewest-{who}", arguments)
        for who in ("metacurate", *ROW_BY_ROW)
    )
    shutil.rmtree(source)
    assert ours.output["pairs"] == theirs.output == distinct
    return (
        f"datatrove's exact deduplication by URL, {arguments.workers} workers, {rows:,} rows in "
        f"{ROW_BY_ROW_FILES} files: {theirs.seconds:.0f} s, {theirs.processor_seconds:.0f} s of "
        f"the processors ({1e6 * theirs.processor_seconds / rows:.0f} microseconds a row, start-up "
        f"included); metacurate {ours.seconds:.1f} s and {ours.processor_seconds:.1f} s."
    )


def run_one(who: str, source: Path, out: Path, arguments: argparse.Namespace) -> Measured:
    """One contender's run; what it wrote is removed."""
    try:
        if who == "metacurate":
            return run_dedup(source, out, arguments.workers)
        given = ("--limit-gib", arguments.limit_gib, "--workers", arguments.workers)
        child = (*given, "--child", who, source, out)
        return run_command([sys.executable, __file__, *map(str, child)])
    finally:
        for left in out.parent.glob(f"{out.name}*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def medians(measured: list[Measured]) -> tuple[float, float, float]:
    """Seconds, processor seconds and peak memory (MiB)."""
    seconds = statistics.median(one.seconds for one in measured)
    processors = statistics.median(one.processor_seconds for one in measured)
    return seconds, processors, statistics.median(one.peak_mib for one in measured)


def remove_when_read(source: Path, out: Path, done: threading.Event) -> None:
    """Remove the input as soon as it is partitioned: what follows reads the runs alone."""
    while not done.wait(1):
        if (out / "state" / "merge").exists():
            shutil.rmtree(source)
            return


def alone(scratch: Path, arguments: argparse.Namespace) -> str:
    """metacurate on all rows: exact, and under the limit."""
    source, out, rows = scratch / "many", scratch / "many-out", arguments.rows
    distinct = generate(source, rows)
    given = size_gib(source)
    done = threading.Event()
    remover = threading.Thread(target=remove_when_read, args=(source, out, done))
    remover.start()
    try:
        measured = run_dedup(source, out, arguments.workers)
    finally:
        done.set()
        remover.join()
    seconds, peak, totals = measured.seconds, measured.peak_mib / 1024, measured.output
    assert totals["pairs"] == distinct, (totals["pairs"], distinct)
    assert totals["texts_read"] == totals["texts"] + sum(totals["texts_dropped"].values())
    verdict = "under" if peak < arguments.limit_gib else "OVER"
    return (
        f"metacurate, {rows:,} rows ({given:.1f} GiB of Parquet), {distinct:,} distinct URLs "
        f"({1 - distinct / rows:.1%} duplicates): {seconds:.0f} s, {rows / seconds:,.0f} rows/s, "
        f"{measured.processor_seconds:.0f} s of the processors, "
        f"peak memory of all processes {peak:.2f} GiB, {verdict} the limit of "
        f"{arguments.limit_gib:g} GiB; {totals['shards']} shards."
    )


if __name__ == "__main__":
    main()
