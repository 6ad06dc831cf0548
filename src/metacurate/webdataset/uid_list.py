"""The uids of a pool as a sorted numpy file, as DataComp's resharder takes it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict, Unpack

import numpy as np

from metacurate.arrays import UID_LIST_DTYPE, uid_halves, uid_order
from metacurate.counts import counted
from metacurate.errors import ArgumentError
from metacurate.formats import reasons
from metacurate.pool.columns import Needs
from metacurate.pool.memory import GIVEN, AnyPool, Given
from metacurate.pool.open import Unit, open_pool
from metacurate.pool.read import read_uids
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.made import open_made
from metacurate.runtime.manifest import (
    DETAILS,
    MANIFEST,
    Stage,
    Statistics,
    add_statistics,
    has_begun,
    read_manifest,
    shard_name,
)
from metacurate.runtime.merge import MergeTask, merge_many
from metacurate.runtime.progress import note
from metacurate.runtime.run import Run, RunOptions, check_writable, open_run
from metacurate.runtime.scratch import scratch_folder
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder, is_local, local_path, split_address

PART_UIDS = 1 << 22
# More parts than these are merged by tasks of so many first.
MOST_PARTS = 1024
PARTS_PER_MERGE = 128
UIDS = Stage("uids", ("parts",))


@dataclass(frozen=True)
class _PartTask:
    """A unit of the pool whose uids become sorted parts in the work folder."""

    folder: Folder
    position: int
    unit: Unit


class UidListTotals(TypedDict):
    """``uids`` written; ``repeated``: rows with the uid of another row; ``skipped``: by reason."""

    files: int
    rows: int
    uids: int
    repeated: int
    skipped: dict[str, int]


def write_uid_list(curated: AnyPool, out: str, **options: Unpack[RunOptions]) -> UidListTotals:
    """Write the distinct uids of a pool (paths of any format, or a table) in rising order.

    ``out`` is a ``.npy`` file of ``UID_LIST_DTYPE``, shape (uids,). A row's uid is that of
    docs/pools.md; rows without one are counted in ``skipped``. Memory: some 16-byte uids a few
    million at a time; the rest waits sorted in the folder ``OUT.work``, from which a stopped run
    resumes. UserError if a file cannot be used.
    """
    parent, name = split_address(out)
    target = Folder(parent)
    if not name.endswith(".npy"):
        raise ArgumentError("{out} {value} must end in .npy", value=out)
    check_writable(out)
    given = Given.of(curated, "curated")
    with open_run(f"{out}.work", preload=__name__, **options) as run:
        there = not run.overwrite and target.exists(name)
        if there and UIDS.name not in read_manifest(run.folder)["stages"]:
            raise _is_there(out)  # before the pool, which takes longer to look at
        pool = open_pool(given.files(run), PoolConfig(), Needs(texts="unused"), engine=run.engine)
        pool.require_all()
        config = {"files": pool.fingerprints}
        # A list that this command has written already, before it was killed, is its own.
        if there and not has_begun(run.folder, UIDS, config):
            raise _is_there(out)
        tasks = [_PartTask(run.folder, n, unit) for n, unit in enumerate(pool.units)]

        def totals(shards: list[Statistics]) -> UidListTotals:
            names = [_part(n, k) for n, s in enumerate(shards) for k in range(s["parts"])]
            count = _write_merged(run.folder, _few(run, names), target, name)
            summed = add_statistics(shards)
            rows, skipped = summed.get("rows", 0), summed.get("skipped", {})
            return {
                "files": len(pool.fingerprints),
                "rows": rows,
                "uids": count,
                "repeated": rows - skipped.get(reasons.NO_URL, 0) - count,
                "skipped": counted(skipped),
            }

        result = run_stage(
            run,
            UIDS,
            config,
            tasks,
            _write_parts,
            unit="rows",
            totals=totals,
            replace=True,
        )
        for scratch in ("parts", "state", DETAILS, MANIFEST, GIVEN):
            run.folder.remove(scratch)
    if not result["uids"]:
        note(f"{out} is empty: no row of the input has a uid")
    return result


def _is_there(out: str) -> ArgumentError:
    return ArgumentError("{file} is there already; use {overwrite} or another {out}", file=out)


def _part(position: int, number: int) -> str:
    return f"parts/{shard_name(position)}-{number:04d}.bin"


def _write_parts(task: _PartTask) -> Statistics:
    """Sorted parts of about ``PART_UIDS`` uids of one unit."""
    skipped: Counter[str] = Counter()
    waiting: list[np.ndarray] = []
    rows = waiting_rows = parts = 0

    def flush() -> None:
        nonlocal waiting_rows, parts
        with task.folder.create(_part(task.position, parts)) as file:
            file.write(_sorted_unique(np.concatenate(waiting)).tobytes())
        parts += 1
        waiting.clear()
        waiting_rows = 0

    for uids in read_uids(task.unit, skipped=skipped):
        rows += len(uids)
        named = uids.drop_null()
        halves = np.empty(len(named), dtype=UID_LIST_DTYPE)
        halves["f0"], halves["f1"] = uid_halves(named)
        waiting_rows += len(halves)
        waiting.append(halves)
        if waiting_rows >= PART_UIDS:
            flush()
    if waiting_rows:
        flush()
    return {"rows": rows, "parts": parts, "skipped": counted(skipped)}


def _few(run: Run, names: list[str]) -> list[str]:
    """Parts few enough for one process to map; more of them are merged in tasks first."""
    return merge_many(
        run, names, _merge_parts,
        lambda level, position: f"state/merged/{level}-{shard_name(position)}.bin",
        most=MOST_PARTS, at_a_time=PARTS_PER_MERGE,
    )  # fmt: skip


def _merge_parts(task: MergeTask) -> None:
    with scratch_folder() as scratch, task.folder.create(task.merged) as file:
        _merge_into(file, task.folder, task.parts, scratch)


def _merge_into(file: IO[bytes], folder: Folder, parts: Sequence[str], scratch: Path) -> int:
    """Write the distinct uids of sorted parts; how many they are."""
    mapped = [_mapped(folder, part, scratch / f"{n}") for n, part in enumerate(parts)]
    count = 0
    for piece in _merge(mapped):
        file.write(piece.tobytes())
        count += len(piece)
    return count


def _write_merged(folder: Folder, parts: Sequence[str], target: Folder, name: str) -> int:
    """Merge the sorted parts into the list; returns how many uids it has."""
    with scratch_folder() as scratch:
        merged = scratch / "merged"
        with merged.open("wb") as file:
            count = _merge_into(file, folder, parts, scratch)
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
