"""The uids of a pool as a sorted numpy file, as DataComp's resharder takes it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from metacurate.arrays import uid_halves, uid_order
from metacurate.errors import ArgumentError, UserError
from metacurate.pool.parquet import fingerprint_all, parquet_files, parquet_tables
from metacurate.pool.schema import UID_TYPE
from metacurate.pool.uid import key_uids
from metacurate.runtime.made import open_made
from metacurate.runtime.manifest import MANIFEST, Stage, Statistics, add_statistics, shard_name
from metacurate.runtime.run import RunOptions, open_run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder, is_local, local_path, split_address

UID_LIST_DTYPE = np.dtype("u8,u8")
"""``f0`` is the number of the uid's first 16 hex digits, ``f1`` that of the last 16."""

PART_UIDS = 1 << 22
UIDS = Stage("uids", ("parts",))


@dataclass(frozen=True)
class _PartTask:
    """A file whose uids become sorted parts in the work folder."""

    folder: Folder
    position: int
    file: str


def write_uid_list(curated: Sequence[str], out: str, **options: Unpack[RunOptions]) -> Statistics:
    """Write the distinct uids of a pool (Parquet files or folders) in rising order.

    ``out`` is a ``.npy`` file of ``UID_LIST_DTYPE``, shape (uids,). A column of strings (DataComp's
    metadata) is read as ``pool.uid.key_uid`` reads keys. Memory: some 16-byte uids a few million at
    a time; the rest waits sorted in the folder ``OUT.work``, from which a stopped run resumes.
    UserError if there is no such column.
    """
    parent, name = split_address(out)
    target = Folder(parent)
    if not name.endswith(".npy"):
        raise ArgumentError("{out} {value} must end in .npy", value=out)
    if target.exists(name) and not options.get("overwrite"):
        raise UserError(f"{out} is there already; use --overwrite or another --out")
    with open_run(f"{out}.work", preload=__name__, **options) as run:
        files = parquet_files(curated)
        tasks = [_PartTask(run.folder, n, file) for n, file in enumerate(files)]

        def totals(shards: list[Statistics]) -> Statistics:
            names = [_part(n, k) for n, s in enumerate(shards) for k in range(s["parts"])]
            count = _write_merged(run.folder, names, target, name)
            rows = add_statistics(shards)["rows"]
            return {"files": len(files), "rows": rows, "uids": count, "repeated": rows - count}

        config = {"files": fingerprint_all(files)}
        result = run_stage(
            run,
            UIDS,
            config,
            tasks,
            _write_parts,
            unit="rows",
            parts="files",
            totals=totals,
            replace=True,
        )
        for scratch in ("parts", "state", MANIFEST):
            run.folder.remove(scratch)
    return result


def _part(position: int, number: int) -> str:
    return f"parts/{shard_name(position)}-{number:04d}.bin"


def _write_parts(task: _PartTask) -> Statistics:
    """Sorted parts of about ``PART_UIDS`` uids of one file."""
    waiting: list[np.ndarray] = []
    rows = waiting_rows = parts = 0

    def flush() -> None:
        nonlocal waiting_rows, parts
        with task.folder.create(_part(task.position, parts)) as file:
            file.write(_sorted_unique(np.concatenate(waiting)).tobytes())
        parts += 1
        waiting.clear()
        waiting_rows = 0

    for table in parquet_tables(task.file, ["uid"]):
        uids = _uids(task.file, table.column("uid"))
        rows += len(uids)
        waiting_rows += len(uids)
        waiting.append(uids)
        if waiting_rows >= PART_UIDS:
            flush()
    if waiting_rows:
        flush()
    return {"rows": rows, "parts": parts}


def _write_merged(folder: Folder, parts: Sequence[str], target: Folder, name: str) -> int:
    """Merge the sorted parts into the list; returns how many uids it has."""
    with tempfile.TemporaryDirectory(prefix="metacurate-") as scratch:
        mapped = [_mapped(folder, part, Path(scratch) / f"{n}") for n, part in enumerate(parts)]
        merged = Path(scratch) / "merged"
        count = 0
        with merged.open("wb") as file:
            for piece in _merge(mapped):
                file.write(piece.tobytes())
                count += len(piece)
        with target.create(name) as file, merged.open("rb") as source:
            header = {"descr": UID_LIST_DTYPE.descr, "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(file, header)
            shutil.copyfileobj(source, file)
    return count


def _mapped(folder: Folder, name: str, copy: Path) -> np.ndarray:
    """A part as a memory-mapped array; one in an object store is copied first."""
    if is_local(folder.url):
        return np.memmap(local_path(folder.address(name)), dtype=UID_LIST_DTYPE, mode="r")
    with open_made(folder, name) as source, copy.open("wb") as file:
        shutil.copyfileobj(source, file)
    return np.memmap(copy, dtype=UID_LIST_DTYPE, mode="r")


def _uids(file: str, column: pa.ChunkedArray) -> np.ndarray:
    """A column's uids in ``UID_LIST_DTYPE``."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pat.is_string(array.type) or pat.is_large_string(array.type):
        array = key_uids(array.cast(pa.large_string()))
    if array.type != UID_TYPE or array.null_count:
        raise UserError(
            f"{file}: the column 'uid' must hold 16 bytes or a text in each row, not {array.type}"
            + (" with nulls" if array.null_count else "")
        )
    uids = np.empty(len(array), dtype=UID_LIST_DTYPE)
    uids["f0"], uids["f1"] = uid_halves(array)
    return uids


def _sorted_unique(uids: np.ndarray) -> np.ndarray:
    ordered = uids[uid_order((uids["f0"], uids["f1"]))]
    keep = np.ones(len(ordered), dtype=bool)
    keep[1:] = ordered[1:] != ordered[:-1]
    return ordered[keep]


def _merge(parts: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The distinct uids of sorted parts in rising order, about ``PART_UIDS`` at a time.

    Cut by the first half: all uids that share one lie in one piece.
    """
    step = max(1, PART_UIDS // max(1, len(parts)))
    samples = np.sort(np.concatenate([np.zeros(0, np.uint64), *(p["f0"][::step] for p in parts)]))
    bounds = np.unique(samples[:: max(1, len(parts))])
    cuts = [[*np.searchsorted(p["f0"], bounds[1:]).tolist(), len(p)] for p in parts]
    starts = [0] * len(parts)
    for piece in range(len(bounds)):
        ends = [cut[piece] for cut in cuts]
        yield _sorted_unique(
            np.concatenate([p[a:b] for p, a, b in zip(parts, starts, ends, strict=True)])
        )
        starts = ends
