"""How time and memory of a curation grow with the pool and with the metadata."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from data import entries, write_pool
from measure import run_metacurate
from record import record, table

T = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="the smallest pool")
    arguments = parser.parse_args()
    pools = [arguments.rows * factor for factor in (1, 10, 100)]
    sizes = [10_000, 100_000, 500_000, 2_000_000]
    with tempfile.TemporaryDirectory(prefix="metacurate-benchmark-") as scratch:
        folder = Path(scratch)
        names = entries(sizes[-1])
        for size in sizes:
            (folder / f"{size}.json").write_text(json.dumps(names[:size]))
        for rows in pools:
            write_pool(folder / f"pool-{rows}", rows)

        def run(rows: int, size: int) -> list[str]:
            measured = run_metacurate(
                "curate", folder / f"pool-{rows}", "--metadata", folder / f"{size}.json",
                "--t", T, "--workers", 2, "--no-report", "--out", folder / f"out-{rows}-{size}",
            )  # fmt: skip
            return [
                f"{rows:,}",
                f"{size:,}",
                f"{measured.seconds:.1f}",
                f"{rows / measured.seconds:,.0f}",
                f"{measured.peak_mib:,.0f}",
            ]

        run(pools[0], sizes[0])
        for path in folder.glob("out-*/manifest.json"):
            path.unlink()  # that run only compiled
        rows = [run(size, 500_000) for size in pools]
        rows += [run(pools[1], size) for size in sizes if size != 500_000]
    record(
        "growth",
        "Two workers, whole command (start-up included).\n\n"
        + table(["texts", "entries", "seconds", "texts/s", "peak MiB, all processes"], rows),
    )


if __name__ == "__main__":
    main()
