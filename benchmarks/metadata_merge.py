"""How long ``metadata merge`` takes, and how much memory, for many languages.

Makes a folder with a Parquet file a language (300 by default) and merges it into one file, then
into one list without languages; peak memory is that of the process so far:

    python benchmarks/metadata_merge.py --entries 20000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import metacurate as mc
from metacurate.texts.languages import load_language_map


def make(folder: Path, languages: int, entries: int) -> None:
    """Write the files; a third of a language's entries are in others too."""
    for place, language in enumerate(sorted(load_language_map().languages)[:languages]):
        first = place % 50 * (entries // 3)
        names = [
            f"entry {n:x} {language if n % 3 else ''}".strip()
            for n in range(first, first + entries)
        ]
        table = pa.table(
            {
                "entry": pa.array(names, pa.large_string()),
                "source": ["unigrams"] * entries,
                "score": [float(n) for n in range(entries)],
                "lang": [language] * entries,
            }
        )
        pq.write_table(table, folder / f"{language}.parquet", compression="zstd")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--languages", type=int, default=300)
    parser.add_argument("--entries", type=int, default=20_000, help="of each language")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        make(folder / "in", options.languages, options.entries)
        for one_list in (False, True):
            start = time.perf_counter()
            out = folder / f"{one_list}.parquet"
            totals = mc.merge_metadata(folder / "in", out, one_list=one_list)
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            print(
                f"{'one list' if one_list else 'by language'}: {totals['entries']:,} entries of "
                f"{len(totals['languages'])} languages in {seconds:.1f} s, peak {peak:,} MiB"
            )


if __name__ == "__main__":
    main()
