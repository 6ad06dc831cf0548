"""Duplicate images, marked across all shards in bounded memory; ``kernels.hamming`` compares.

Two images are exact duplicates if the downloaded bytes are the same (SHA-256), perceptual ones if
their 64-bit difference hashes differ in at most a few bits. Hashes are spread over files on disk so
that those to compare meet in one file, and one file fits in memory: equal SHA-256 by their bits;
difference hashes d bits apart by each of d + 1 bands of their bits, of which one must be equal. Of
the images to which an image is a duplicate it names the first one in the order of the shards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from metacurate.errors import ArgumentError, UserError
from metacurate.kernels.hamming import first_within
from metacurate.runtime.arrowfiles import read_parquet
from metacurate.runtime.find import files_below
from metacurate.runtime.manifest import Stage, Statistics
from metacurate.runtime.progress import meter
from metacurate.runtime.run import RunOptions, open_run
from metacurate.runtime.scratch import scratch_folder
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder
from metacurate.webdataset.shards import SUCCESS, list_shards

DUPLICATES = Stage("duplicates", ("duplicates",))
KEY_BYTES = 24
IMAGES_PER_PARTITION = 2_000_000
KINDS = ("exact", "perceptual")
HASH_WORDS = {"exact": 4, "perceptual": 1}
HASH_COLUMNS = {"exact": "sha256", "perceptual": "dhash"}
MAX_DISTANCE = 5
# Difference hashes with fewer bits set (or fewer not set) are of blank pictures and smooth shades:
# they say too little to call two pictures the same.
INFORMATIVE_BITS = 4
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("exact_duplicate_of", pa.string()),
        ("perceptual_duplicate_of", pa.string()),
    ]
)


def duplicates_name(stem: str) -> str:
    """The name of a shard's duplicate marks."""
    return f"duplicates/{stem}.parquet"


class DuplicatesTotals(TypedDict):
    """``images`` compared; ``perceptual_duplicates`` are those that are not exact ones already."""

    images: int
    exact_duplicates: int
    perceptual_duplicates: int


def mark_duplicates(
    tars: str, *, max_distance: int = 3, **options: Unpack[RunOptions]
) -> DuplicatesTotals:
    """Mark a folder's duplicate images in ``duplicates/NNNNN.parquet`` (see ``SCHEMA``).

    ``max_distance``: differing bits (0 to 5) up to which two difference hashes are of one picture.
    Needs the shards' Parquet files with ``status``, ``key`` and ``sha256`` (and ``dhash``, else no
    perceptual duplicates are found).
    """
    if not 0 <= max_distance <= MAX_DISTANCE:
        raise ArgumentError(
            "{max_distance} must be from 0 to {most}, not {value}",
            most=MAX_DISTANCE,
            value=max_distance,
        )
    with open_run(tars, existing=True, **options) as run:
        stems = list(list_shards(run.folder))
        files = files_below(run.folder.url)
        missing = [s for s in stems if f"{s}.parquet" not in files]
        if missing:
            raise UserError(
                f"{run.folder.address(missing[0])}.parquet is missing: no hashes to compare"
            )
        recorded = {
            "input": {s: files[f"{s}.parquet"].size for s in stems},
            "max_distance": max_distance,
        }
        task = _MarkTask(run.folder, tuple(stems), max_distance, run.show_progress)
        totals = run_stage(run, DUPLICATES, recorded, [task], _mark, unit="images", alone=True)
        return cast(DuplicatesTotals, totals)


@dataclass(frozen=True)
class _MarkTask:
    folder: Folder
    stems: tuple[str, ...]
    max_distance: int
    show_progress: bool


def _mark(task: _MarkTask) -> Statistics:
    with scratch_folder() as scratch:
        return _mark_all(task, scratch)


def _mark_all(task: _MarkTask, scratch: Path) -> Statistics:
    folder, stems = task.folder, task.stems
    images = 0
    rows = sum(_read(folder, s, ["key"]).num_rows for s in stems)
    spread = _Spread(
        scratch, max(1, -(-rows // IMAGES_PER_PARTITION)), len(stems), task.max_distance
    )
    with meter("duplicates", len(stems), "images", show=task.show_progress) as progress:
        for number, stem in enumerate(stems):
            hashed = _hashes(folder, stem)
            images += hashed.num_rows
            keys = _keys(hashed["key"], folder.address(f"{stem}.parquet"))
            for kind in KINDS:
                spread.add(kind, number, keys, hashed[HASH_COLUMNS[kind]])
            progress.advance(items=hashed.num_rows)
    for kind in KINDS:
        spread.find(kind)
    counts = dict.fromkeys(KINDS, 0)
    for number, stem in enumerate(stems):
        keys = _hashes(folder, stem)["key"]
        marks = {kind: spread.marks(kind, number) for kind in KINDS}
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
            return read_parquet(file, columns)
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
    shards: int
    max_distance: int
    loaded: dict[str, tuple[int, np.ndarray]] = field(default_factory=dict)

    def add(
        self, kind: str, shard: int, keys: npt.NDArray[np.bytes_], hashes: pa.ChunkedArray
    ) -> None:
        """Append a shard's hashes (hex strings; null ones take no part)."""
        values = hashes.to_pylist()
        rows = [row for row, value in enumerate(values) if value]
        joined = b"".join(bytes.fromhex(values[row]) for row in rows)
        records = np.zeros(len(rows), _record(kind))
        records["hash"] = np.frombuffer(joined, ">u8").reshape(len(rows), HASH_WORDS[kind])
        records["shard"], records["row"] = shard, rows
        records["key"] = keys[rows]
        if kind == "exact":
            self._append(kind, "hash", records, _mixed(records["hash"][:, 0]) % self.partitions)
            return
        bits = np.unpackbits(records["hash"].view(np.uint8), axis=1).sum(axis=1)
        informative = (bits >= INFORMATIVE_BITS) & (bits <= 64 - INFORMATIVE_BITS)
        records = records[informative]
        for band in range(self.max_distance + 1):
            records["band"] = band
            values = self._band(records["hash"][:, 0], band)
            self._append(kind, "hash", records, _mixed(values) % self.partitions)

    def _band(self, hashes: npt.NDArray[np.uint64], band: int) -> npt.NDArray[np.uint64]:
        """One of ``max_distance`` + 1 bands of the bits, as equal in width as can be."""
        low, high = (64 * b // (self.max_distance + 1) for b in (band, band + 1))
        return (hashes >> np.uint64(low)) & np.uint64(2 ** (high - low) - 1)

    def _append(
        self, kind: str, what: str, records: np.ndarray, partitions: npt.NDArray[Any]
    ) -> None:
        for partition in np.unique(partitions):
            with self._file(kind, what, int(partition)).open("ab") as file:
                file.write(records[partitions == partition].tobytes())

    def _file(self, kind: str, what: str, partition: int) -> Path:
        return self.scratch / f"{kind}-{what}-{partition}"

    def find(self, kind: str) -> None:
        """Find duplicates; the marks go to files by shard."""
        for partition in range(self.partitions):
            path = self._file(kind, "hash", partition)
            if not path.exists():
                continue
            records = np.fromfile(path, _record(kind))
            path.unlink()
            groups = records["hash"]
            if kind == "perceptual":
                values = np.zeros(len(records), np.uint64)
                for band in range(self.max_distance + 1):
                    chosen = records["band"] == band
                    values[chosen] = self._band(records["hash"][chosen, 0], band)
                groups = np.stack([records["band"].astype(np.uint64), values], axis=1)
            order = np.lexsort((records["row"], records["shard"], *groups.T))
            records, groups = records[order], groups[order]
            changes = (groups[1:] != groups[:-1]).any(axis=1)
            starts = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(records)]])
            # In a group of equal SHA-256 every image is at no distance from the first.
            compared = np.zeros(len(records), np.uint64)
            if kind == "perceptual":
                compared = np.ascontiguousarray(records["hash"][:, 0])
            leader = first_within(compared, starts, self.max_distance)
            marked = leader >= 0
            marks = np.zeros(int(marked.sum()), MARK)
            for name in ("shard", "row"):
                marks[name] = records[name][marked]
                marks[f"of_{name}"] = records[name][leader[marked]]
            marks["of"] = records["key"][leader[marked]]
            self._append(kind, "mark", marks, self._bucket(marks["shard"]))

    def _bucket(self, shard: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        return shard.astype(np.int64) * self.partitions // self.shards

    def marks(self, kind: str, shard: int) -> dict[int, str]:
        """The marks of one shard: the row among the shard's images, and the key of the first."""
        bucket = int(self._bucket(np.array([shard], np.uint32))[0])
        if kind not in self.loaded or self.loaded[kind][0] != bucket:
            path = self._file(kind, "mark", bucket)
            marks = np.fromfile(path, MARK) if path.exists() else np.zeros(0, MARK)
            # Of the marks of one image, found by several bands, the earliest comes first.
            order = ("of_row", "of_shard", "row", "shard")
            marks = marks[np.lexsort([marks[name] for name in order])]
            self.loaded[kind] = (bucket, marks)
        marks = self.loaded[kind][1]
        low, high = np.searchsorted(marks["shard"], [shard, shard + 1])
        found: dict[int, str] = {}
        for row, leader in zip(
            marks["row"][low:high].tolist(), marks["of"][low:high].tolist(), strict=True
        ):
            found.setdefault(row, leader.decode())
        return found


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    # Difference hashes are far from uniform: mix their bits before taking some.
    return (values * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)


def _record(kind: str) -> np.dtype:
    digest = ("hash", "<u8", (HASH_WORDS[kind],))
    return np.dtype(
        [digest, ("band", "u1"), ("shard", "<u4"), ("row", "<u4"), ("key", f"S{KEY_BYTES}")]
    )


MARK = np.dtype(
    [
        *[(name, "<u4") for name in ("shard", "row", "of_shard", "of_row")],
        ("of", f"S{KEY_BYTES}"),
    ]
)
