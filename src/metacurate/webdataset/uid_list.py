"""The uids of a pool as a sorted numpy file, as DataComp's resharder takes it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from metacurate.arrays import uid_halves
from metacurate.dedup.merging import uid_order
from metacurate.errors import UserError
from metacurate.pool import reasons
from metacurate.pool.columns import Needs
from metacurate.pool.open import Unit, open_pool
from metacurate.pool.read import read_uids
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.manifest import Statistics
from metacurate.runtime.progress import meter
from metacurate.runtime.storage import TEMPORARY_PREFIX, Folder

UID_LIST_DTYPE = np.dtype("u8,u8")
"""``f0`` is the number of the uid's first 16 hex digits, ``f1`` that of the last 16."""

PART_UIDS = 1 << 22


def write_uid_list(
    curated: Sequence[str], out: str, *, overwrite: bool = False, show_progress: bool = True
) -> Statistics:
    """Write the distinct uids of a pool (files, folders or globs, of any format) in rising order.

    ``out`` is a ``.npy`` file of ``UID_LIST_DTYPE``, shape (uids,). A row's uid is that of
    docs/pools.md; rows without one are counted in ``skipped``. Memory: some 16-byte uids a few
    million at a time; the rest waits sorted on disk. UserError if a file cannot be used.
    """
    path = Path(out)
    folder, name = Folder(str(path.parent)), path.name
    if not name.endswith(".npy"):
        raise UserError(f"--out {out} must end in .npy")
    if folder.exists(name) and not overwrite:
        raise UserError(f"{out} is there already; use --overwrite or another --out")
    pool = open_pool(curated, PoolConfig(), Needs(texts="unused"))
    pool.require_all()
    skipped: Counter[str] = Counter()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=path.parent) as scratch:
        parts, rows = _write_parts(pool.units, Path(scratch), skipped, show_progress)
        merged = Path(scratch) / "merged"
        with merged.open("wb") as file:
            count = 0
            for piece in _merge(parts):
                file.write(piece.tobytes())
                count += len(piece)
        with folder.create(name) as target, merged.open("rb") as file:
            header = {"descr": UID_LIST_DTYPE.descr, "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_1_0(target, header)
            while piece_bytes := file.read(1 << 20):
                target.write(piece_bytes)
    return {
        "files": len(pool.fingerprints),
        "rows": rows,
        "uids": count,
        "repeated": rows - skipped[reasons.NO_URL] - count,
        "skipped": {reason: n for reason, n in sorted(skipped.items()) if n},
    }


def _write_parts(
    units: Sequence[Unit], scratch: Path, skipped: Counter[str], show_progress: bool
) -> tuple[list[np.ndarray], int]:
    """Sorted parts of about ``PART_UIDS`` uids on disk (memory-mapped), and the number of rows."""
    parts: list[np.ndarray] = []
    waiting: list[np.ndarray] = []
    rows = waiting_rows = 0

    def flush() -> None:
        nonlocal waiting_rows
        path = scratch / f"{len(parts)}.bin"
        _sorted_unique(np.concatenate(waiting)).tofile(path)
        parts.append(np.memmap(path, dtype=UID_LIST_DTYPE, mode="r"))
        waiting.clear()
        waiting_rows = 0

    with meter("uids", len(units), "uids", show=show_progress) as progress:
        for unit in units:
            before = rows
            for uids in read_uids(unit, skipped=skipped):
                rows += len(uids)
                named = uids.drop_null()
                halves = np.empty(len(named), dtype=UID_LIST_DTYPE)
                halves["f0"], halves["f1"] = uid_halves(named)
                waiting_rows += len(halves)
                waiting.append(halves)
                if waiting_rows >= PART_UIDS:
                    flush()
            progress.advance(items=rows - before)
        if waiting_rows:
            flush()
    return parts, rows


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
