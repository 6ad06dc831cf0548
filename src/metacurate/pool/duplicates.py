"""Duplicate images, exact and perceptual, marked across all shards in bounded memory.

Two images are exact duplicates if the downloaded bytes are the same (SHA-256), perceptual ones if
their difference hashes are equal. The hashes are spread over files on disk by their first bits, so
that equal ones meet in one file and one file fits in memory; there they are sorted. The first image
in the order of the shards stays unmarked; the others name it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from metacurate.errors import UserError
from metacurate.pool.tars import SUCCESS, list_shards
from metacurate.progress import meter
from metacurate.stage import Stage, Statistics, begin, exclusive, finish
from metacurate.storage import Folder

DUPLICATES = Stage("duplicates", ("duplicates",))
KEY_BYTES = 24
IMAGES_PER_PARTITION = 2_000_000
KINDS = ("exact", "perceptual")
HASH_WORDS = {"exact": 4, "perceptual": 1}
HASH_COLUMNS = {"exact": "sha256", "perceptual": "dhash"}
# The difference hash of a picture without any rise in brightness, as every blank one: says nothing.
BLANK_HASH = "0" * 16

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("exact_duplicate_of", pa.string()),
        ("perceptual_duplicate_of", pa.string()),
    ]
)
"""Of ``duplicates/NNNNN.parquet``: a row for each image of a shard, null where it is the first."""


def duplicates_name(stem: str) -> str:
    """The name of a shard's duplicate marks."""
    return f"duplicates/{stem}.parquet"


def mark_duplicates(
    tars: str, *, overwrite: bool = False, show_progress: bool = True
) -> Statistics:
    """Mark a folder's duplicate images in ``duplicates/NNNNN.parquet`` (see ``SCHEMA``).

    Needs the shards' Parquet files with ``status``, ``key`` and ``sha256`` (and ``dhash``, else no
    perceptual duplicates are found). Returns ``images``, ``exact_duplicates``,
    ``perceptual_duplicates`` (those that are not exact ones already).
    """
    folder = Folder(tars)
    with exclusive(folder):
        stems = list_shards(folder)
        missing = [s for s in stems if not folder.exists(f"{s}.parquet")]
        if missing:
            raise UserError(
                f"{folder.address(missing[0])}.parquet is missing: no hashes to compare"
            )
        sizes = {s: _size(folder, f"{s}.parquet") for s in stems}
        totals = begin(folder, DUPLICATES, {"input": sizes}, shards=1, overwrite=overwrite)
        if totals is not None:
            return totals
        with tempfile.TemporaryDirectory(prefix="metacurate-") as scratch:
            totals = _mark(folder, stems, Path(scratch), show_progress)
        return finish(folder, DUPLICATES, totals)


def _size(folder: Folder, name: str) -> int:
    with folder.open(name) as file:
        return file.seek(0, 2)


def _mark(folder: Folder, stems: list[str], scratch: Path, show_progress: bool) -> Statistics:
    images = 0
    rows = sum(_read(folder, s, ["key"]).num_rows for s in stems)
    spread = _Spread(scratch, max(1, -(-rows // IMAGES_PER_PARTITION)))
    with meter("duplicates", len(stems), "images", show=show_progress) as progress:
        for number, stem in enumerate(stems):
            hashed = _hashes(folder, stem)
            images += hashed.num_rows
            keys = _keys(hashed["key"], folder.address(f"{stem}.parquet"))
            for kind in KINDS:
                spread.add(kind, number, keys, hashed[HASH_COLUMNS[kind]])
            progress.advance(items=hashed.num_rows)
    for kind in KINDS:
        spread.find(kind, len(stems))
    counts = dict.fromkeys(KINDS, 0)
    for number, stem in enumerate(stems):
        keys = _hashes(folder, stem)["key"]
        marks = {kind: spread.marks(kind, number, len(stems)) for kind in KINDS}
        columns = [[marks[kind].get(i) for i in range(len(keys))] for kind in KINDS]
        exact, perceptual = columns
        counts["exact"] += sum(m is not None for m in exact)
        counts["perceptual"] += sum(
            p is not None and e is None for e, p in zip(exact, perceptual, strict=True)
        )
        with folder.create(duplicates_name(stem)) as file:
            pq.write_table(pa.table([keys, *columns], schema=SCHEMA), file, compression="zstd")
    return {"images": images, **{f"{kind}_duplicates": counts[kind] for kind in KINDS}}


def _read(folder: Folder, stem: str, columns: list[str]) -> pa.Table:
    name = f"{stem}.parquet"
    try:
        with folder.open(name) as file:
            parquet = pq.ParquetFile(file)
            there = [c for c in columns if c in parquet.schema_arrow.names]
            return parquet.read(columns=there)
    except pa.ArrowInvalid as error:
        raise UserError(
            f"{folder.address(name)} is not a readable Parquet file ({error})"
        ) from None


def _hashes(folder: Folder, stem: str) -> pa.Table:
    """Key and hashes of the shard's images."""
    table = _read(folder, stem, ["key", "status", "sha256", "dhash"])
    for name in ("key", "status", "sha256"):
        if name not in table.column_names:
            raise UserError(f"{folder.address(stem)}.parquet has no column {name!r}")
    table = table.filter(pc.equal(table["status"], SUCCESS))
    if "dhash" not in table.column_names:
        table = table.append_column("dhash", pa.nulls(table.num_rows, pa.string()))
    return table


def _keys(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.bytes_]:
    encoded = [key.encode() for key in column.to_pylist()]
    if any(len(key) > KEY_BYTES for key in encoded):
        raise UserError(f"{name} has keys of more than {KEY_BYTES} bytes")
    return np.array(encoded, f"S{KEY_BYTES}")


@dataclass(frozen=True)
class _Spread:
    """Hashes spread over ``partitions`` files by value, then marks spread by shard."""

    scratch: Path
    partitions: int
    loaded: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)

    def add(
        self, kind: str, shard: int, keys: npt.NDArray[np.bytes_], hashes: pa.ChunkedArray
    ) -> None:
        """Append a shard's hashes (hex strings; null and blank ones take no part)."""
        values = hashes.to_pylist()
        rows = [row for row, value in enumerate(values) if value and value != BLANK_HASH]
        digests = [bytes.fromhex(values[row]) for row in rows]
        records = np.zeros(len(rows), _record(kind))
        words = np.frombuffer(b"".join(digests), "<u8").reshape(len(rows), HASH_WORDS[kind])
        records["hash"] = words
        records["shard"], records["row"] = shard, rows
        records["key"] = keys[rows]
        # Difference hashes are far from uniform: mix their bits before taking some.
        mixed = (words[:, 0] * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        self._append(kind, "hash", records, mixed % np.uint64(self.partitions))

    def _append(
        self, kind: str, what: str, records: np.ndarray, partitions: npt.NDArray[Any]
    ) -> None:
        for partition in np.unique(partitions):
            with self._file(kind, what, int(partition)).open("ab") as file:
                file.write(records[partitions == partition].tobytes())

    def _file(self, kind: str, what: str, partition: int) -> Path:
        return self.scratch / f"{kind}-{what}-{partition}"

    def find(self, kind: str, shards: int) -> None:
        """Find equal hashes; the marks go to files by shard."""
        for partition in range(self.partitions):
            path = self._file(kind, "hash", partition)
            if not path.exists():
                continue
            records = np.fromfile(path, _record(kind))
            path.unlink()
            words = records["hash"].T
            records = records[np.lexsort((records["row"], records["shard"], *words))]
            first = np.ones(len(records), bool)
            first[1:] = (records["hash"][1:] != records["hash"][:-1]).any(axis=1)
            leader = records["key"][first][np.cumsum(first) - 1]
            marks = np.zeros(int((~first).sum()), MARK)
            for name in ("shard", "row"):
                marks[name] = records[name][~first]
            marks["of"] = leader[~first]
            self._append(kind, "mark", marks, self._bucket(marks["shard"], shards))

    def _bucket(self, shard: npt.NDArray[np.uint32], shards: int) -> npt.NDArray[np.int64]:
        return shard.astype(np.int64) * self.partitions // shards

    def marks(self, kind: str, shard: int, shards: int) -> dict[int, str]:
        """The marks of one shard: the row among the shard's images, and the key of the first."""
        bucket = int(self._bucket(np.array([shard], np.uint32), shards)[0])
        if kind not in self.loaded or self.loaded[kind][0] != bucket:
            path = self._file(kind, "mark", bucket)
            marks = np.fromfile(path, MARK) if path.exists() else np.zeros(0, MARK)
            self.loaded[kind] = (bucket, marks[np.argsort(marks["shard"], kind="stable")])
        marks = self.loaded[kind][1]
        low, high = np.searchsorted(marks["shard"], [shard, shard + 1])
        marks = marks[low:high]
        rows, leaders = marks["row"].tolist(), marks["of"].tolist()
        return {row: leader.decode() for row, leader in zip(rows, leaders, strict=True)}


def _record(kind: str) -> np.dtype:
    digest = ("hash", "<u8", (HASH_WORDS[kind],))
    return np.dtype([digest, ("shard", "<u4"), ("row", "<u4"), ("key", f"S{KEY_BYTES}")])


MARK = np.dtype([("shard", "<u4"), ("row", "<u4"), ("of", f"S{KEY_BYTES}")])
