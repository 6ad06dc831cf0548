"""A command that is given again after one of its inputs is gone names the input that is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

from cluster_chain import chain, write_inputs
from conftest import Command
from curation_pools import fails

WARC, TAR, SHARD = "in/crawl/00001.warc.gz", "in/tars/00001.tar", "out/extract/pool/part-000001"
READ = {
    "extract": WARC,
    "language": f"{SHARD}.parquet",
    "dedup": f"{SHARD}.parquet",
    "ingest": TAR,
    "filter": TAR,
    "reshard": TAR,
    "curated": f"{SHARD}.parquet",
}


def test_an_input_that_is_gone_is_named(metacurate: Command, tmp_path: Path) -> None:
    write_inputs(tmp_path / "in")
    commands = chain(*(str(tmp_path / name) for name in ("in", "out", "out")))
    for name in READ:
        run = metacurate(*commands[name], "--workers", 1)
        assert run.returncode == 0, run.stderr
    for name, path in READ.items():
        shutil.move(tmp_path / path, tmp_path / "away")
        again = metacurate(*commands[name], "--workers", 1)
        fails(again, "other settings", Path(path).stem, "is now not set")
        shutil.move(tmp_path / "away", tmp_path / path)
