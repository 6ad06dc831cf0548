"""A few hostile bytes never cost more memory than a batch: each file is read under a limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metacurate.formats.files import open_source
from metacurate.formats.pages import longest_value, pages

LIMIT = 2 << 30
READ = """
import json, resource, sys
from collections import Counter
from metacurate.pool.open import open_pool
from metacurate.pool.read import read_columns, read_unit
from metacurate.pool.schema import PoolConfig
pool = open_pool([sys.argv[1]], PoolConfig())
most = int(sys.argv[3])
limit = int(sys.argv[2]) + int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
results = []
for read in (lambda s: read_unit(pool.units[0], all_columns=True, skipped=s),
             lambda s: read_columns(pool.units[0], skipped=s)):
    skipped, rows, batches = Counter(), 0, 0
    for batch in read(skipped):
        rows += batch[1].num_rows if isinstance(batch, tuple) else batch.rows
        batches += 1
        if batches == most:
            break
    results.append((rows, dict(skipped)))
print(json.dumps(results))
"""


def read_under_limit(path: Path, batches: int = 0) -> list[Any]:
    """Rows and losses of both ways of reading, in a process of its own with little memory."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), str(LIMIT), str(batches)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def one_value(value: str, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [value])


def urls(rows: int) -> pa.Array:
    return pa.array([f"http://a/{i}" for i in range(rows)])


def write(path: Path, columns: dict[str, Any], **options: Any) -> None:
    options = {"compression": "zstd", "dictionary_pagesize_limit": 64 << 20, **options}
    pq.write_table(pa.table(columns), path, **options)
    assert path.stat().st_size < 2 << 20


def test_long_values_in_a_dictionary(tmp_path: Path) -> None:
    """16 MiB of text for 20,000 rows: 320 GB when decoded at once."""
    path = tmp_path / "a.parquet"
    write(path, {"url": urls(20_000), "caption": one_value("x" * (16 << 20), 20_000)})
    for rows, skipped in read_under_limit(path, batches=2):
        assert 0 < rows <= 2 * 16
        assert not skipped
    write(path, {"url": urls(20_000), "caption": one_value("x" * ((16 << 20) + 1), 20_000)})
    (rows, skipped), _ = read_under_limit(path, batches=2)
    assert skipped == {"oversized_text": rows, "no_text": rows}


@pytest.mark.parametrize("nested", [False, True])
def test_carried_values_in_a_dictionary(tmp_path: Path, nested: bool) -> None:
    """48 KiB for each of 65,536 rows: 3 GB a batch."""
    path, rows = tmp_path / "a.parquet", 65_536
    column: Any = one_value("y" * 48_000, rows)
    if nested:
        column = pa.ListArray.from_arrays(pa.array(range(rows + 1), pa.int32()), column)
    write(path, {"url": urls(rows), "caption": ["a dog"] * rows, "more": column})
    for got, skipped in read_under_limit(path, batches=3):
        assert 3 * 4_000 < got < rows
        assert not skipped


def test_values_of_a_fixed_width(tmp_path: Path) -> None:
    path, rows = tmp_path / "a.parquet", 65_536
    column = pa.array([b"z" * 48_000], pa.binary(48_000)).take(pa.array([0] * 300))
    write(path, {"url": urls(300), "caption": ["a dog"] * 300, "more": column})
    assert [got for got, _ in read_under_limit(path)] == [300, 300]
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), column[:1])
    write(path, {"url": urls(rows), "caption": ["a dog"] * rows, "more": column})
    assert all(0 < got < rows for got, _ in read_under_limit(path, batches=2))


def test_a_page_that_is_too_large(tmp_path: Path) -> None:
    """A caption of 300 MB costs its row group; another column's costs that column."""
    path = tmp_path / "a.parquet"
    schema = pa.schema([("url", pa.string()), ("caption", pa.string()), ("more", pa.string())])
    long = "x" * 300_000_000
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False,
                          write_statistics=False) as writer:  # fmt: skip
        for group, (caption, more) in enumerate([("a", "b"), (long, "b"), ("a", long)]):
            rows = [[f"http://a/{group}"], [caption], [more]]
            writer.write_table(pa.table(rows, schema=schema))
    del long
    (pairs, skipped), (rows, lost) = read_under_limit(path)
    assert (pairs, skipped) == (2, {"oversized_row": 1, "unreadable_value": 1})
    assert (rows, lost) == (2, skipped)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "zstd", "gzip", "brotli", "lz4"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_page_headers(tmp_path: Path, version: str, codec: str, dictionary: bool) -> None:
    """The sizes and numbers of values add up to those that the file's footer tells."""
    texts = [f"text {i % 1000} " * (i % 7) or None for i in range(30_000)]
    table = pa.table({"a": texts, "b": range(30_000), "c": [[t, t] for t in texts]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, compression=codec, use_dictionary=dictionary, row_group_size=9_000,
                   data_page_size=5_000, data_page_version=version,
                   write_page_checksum=True)  # fmt: skip
    metadata = pq.read_metadata(path)
    with open_source(str(path)) as source:
        for group in range(metadata.num_row_groups):
            for column in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(column)
                found = list(pages(source.read_at, chunk))
                assert sum(p.values for p in found if not p.is_dictionary) == chunk.num_values
                assert [p.is_dictionary for p in found[:2]] == [dictionary, False]
                total = sum(page.size for page in found)
                if dictionary and column != 1:
                    longest = max(len(text or "") for text in texts)
                    assert longest_value(source.read_at, chunk, found[0]) == longest
                headers = chunk.total_uncompressed_size - total
                assert 0 < headers < 400 * len(found)
