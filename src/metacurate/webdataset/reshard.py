"""Copy the kept samples of WebDataset tars into new tars, member by member, byte for byte.

Two stages: ``locate`` reads the rows of the curated pool and sorts the places of their members by
tar; ``copy`` walks through each tar once, in order. Tars are opened by the names found in their
folder: a name in a row is only ever compared with those.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import IO, TypedDict, Unpack, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.arrays import ranges_to_indices, uid_halves
from metacurate.counts import counted
from metacurate.errors import ArgumentError, UserError, first_line
from metacurate.pool.columns import Needs
from metacurate.pool.open import Unit, open_pool
from metacurate.pool.read import read_columns
from metacurate.pool.schema import PoolConfig
from metacurate.pool.uid import key_uids
from metacurate.runtime.manifest import (
    Stage,
    Statistics,
    add_statistics,
    discard,
    finished,
    shard_name,
)
from metacurate.runtime.run import RunOptions, open_run
from metacurate.runtime.slices import read_slices, slice_sizes, write_slices
from metacurate.runtime.stage import redo, run_stage
from metacurate.runtime.storage import Folder
from metacurate.webdataset.files import find_tars, open_tar
from metacurate.webdataset.headers import END_OF_TAR, is_member
from metacurate.webdataset.ingest import MEMBERS_TYPE, fingerprint
from metacurate.webdataset.reasons import NotCopied

COPY = Stage("copy", (), files=r"\d{5,}\.tar")
LOCATE = Stage("locate", ("places",), (COPY,))

COPY_BYTES = 1 << 20
COLUMNS = ("tar", "key", "members")
# One element a member: ``sample`` is the offset of its sample's first member, ``key`` is 64 bits
# of the key's hash.
PLACE_DTYPE = np.dtype([("sample", "<u8"), ("offset", "<u8"), ("length", "<u8"), ("key", "<u8")])


@dataclass(frozen=True)
class _LocateTask:
    unit: Unit
    tars: tuple[str, ...]
    out: str
    position: int


@dataclass(frozen=True)
class _CopyTask:
    """Output tar ``position``: the kept samples of the tars ``first`` to ``end - 1``."""

    folder: str
    tars: tuple[str, ...]
    places: int
    first: int
    end: int
    out: str
    position: int


class ReshardTotals(TypedDict):
    """``rows`` read, ``tars`` written, ``samples`` and ``bytes`` copied; ``dropped``: by reason
    (``reasons.NotCopied``, and those of the pool).
    """

    rows: int
    tars: int
    samples: int
    bytes: int
    dropped: dict[str, int]


def reshard(
    curated: Sequence[str],
    tars: str,
    out: str,
    *,
    samples_per_tar: int = 10_000,
    **options: Unpack[RunOptions],
) -> ReshardTotals:
    """Write ``OUT/NNNNN.tar`` with the samples of ``tars`` that the curated pool keeps.

    ``curated`` are tables with the columns of ``pool ingest``. Samples keep the
    order of their tars; consecutive tars go into one until it has ``samples_per_tar`` (a tar is
    never split).
    """
    with open_run(out, inputs=[*curated, tars], preload=__name__, **options) as run:
        folder = run.folder
        found = find_tars(tars)
        names = tuple(found.names)
        pool = open_pool(curated, PoolConfig(), Needs("unused", "unused", "unused", others=COLUMNS))
        pool.require_all()
        units = pool.units
        # Both stages have one configuration: the places are gone when the tars are written, so that
        # a change redoes them too.
        config = {
            "curated": list(curated),
            "curated_fingerprint": hashlib.sha256(
                "".join(pool.fingerprints.values()).encode()
            ).hexdigest(),
            "tars": tars,
            "tars_fingerprint": fingerprint(found),
            "samples_per_tar": samples_per_tar,
        }
        redo(run, COPY, config, LOCATE)
        totals = cast(ReshardTotals | None, finished(folder, COPY, config))
        if totals is None:
            locating = [_LocateTask(unit, names, out, n) for n, unit in enumerate(units)]
            located = run_stage(run, LOCATE, config, locating, _locate, unit="rows")
            if located["rows"] and not located["located"]:
                raise ArgumentError(
                    "no row of {first} names a tar of {folder}; check {tars}",
                    first=curated[0],
                    folder=tars,
                )
            copying = [
                _CopyTask(tars, names, len(units), first, end, out, n)
                for n, (first, end) in enumerate(
                    _plan(folder, len(units), len(names), samples_per_tar)
                )
            ]
            totals = run_stage(
                run, COPY, config, copying, _copy, unit="samples",
                totals=lambda shards: _totals(located, shards),
            )  # fmt: skip
        discard(folder, ["places"])
        return totals


def _totals(located: Statistics, copied: Sequence[Statistics]) -> ReshardTotals:
    summed = add_statistics(copied)
    return {
        "rows": located["rows"],
        "tars": len(copied),
        "samples": summed.get("samples", 0),
        "bytes": summed.get("bytes", 0),
        "dropped": add_statistics([located["dropped"], summed.get("dropped", {})]),
    }


def _place_file(position: int) -> str:
    return f"places/{shard_name(position)}.bin"


def _locate(task: _LocateTask) -> Statistics:
    tars = pa.array(task.tars)
    dropped: Counter[str] = Counter()
    rows = located = 0
    numbers, places = [], [np.zeros(0, PLACE_DTYPE)]
    unit = replace(task.unit, columns=task.unit.columns.only(COLUMNS))
    skipped: Counter[str] = Counter()
    for _, table in read_columns(unit, skipped=skipped):
        rows += table.num_rows
        try:
            members = table.column("members").cast(MEMBERS_TYPE)
            columns = [table.column("tar"), table.column("key").cast(pa.large_string()), members]
            batch = pa.Table.from_arrays(columns, list(COLUMNS)).combine_chunks()
        except pa.ArrowException as error:
            raise UserError(
                f"{unit.url}: the columns {', '.join(COLUMNS)} are not those that "
                f"`metacurate pool ingest` writes ({first_line(error)})"
            ) from None
        tar = pc.index_in(batch.column("tar"), value_set=tars).fill_null(-1).to_numpy()
        usable = (tar >= 0) & batch.column("key").is_valid().to_numpy()
        usable &= pc.fill_null(pc.list_value_length(batch.column("members")), 0).to_numpy() > 0
        dropped[NotCopied.UNKNOWN] += int(np.count_nonzero(~usable))
        located += int(np.count_nonzero(usable))
        if usable.any():
            found, tar_of = _places(batch.filter(pa.array(usable)), tar[usable])
            places.append(found)
            numbers.append(tar_of)
    number = np.concatenate([*numbers, np.zeros(0, np.int64)])
    place = np.concatenate(places)
    order = np.lexsort((place["offset"], place["sample"], number))
    write_slices(
        Folder(task.out), _place_file(task.position), place[order], number[order], len(task.tars)
    )
    dropped.update(skipped)
    return {"rows": rows, "located": located, "dropped": counted(dropped)}


def _places(table: pa.Table, tar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The members' places and their tars' numbers, for rows that all have members."""
    lists = table.column("members").combine_chunks()
    offsets = lists.offsets.to_numpy()
    lengths = np.diff(offsets)
    values = lists.values
    places = np.zeros(int(lengths.sum()), PLACE_DTYPE)
    # A null or negative number becomes one that lies in no tar.
    for name in ("offset", "length"):
        numbers = pc.struct_field(values, name).fill_null(-1).to_numpy()
        places[name] = numbers[ranges_to_indices(offsets[:-1], lengths)].astype(np.uint64)
    keys = key_uids(table.column("key").combine_chunks())
    places["key"] = np.repeat(uid_halves(keys)[0], lengths)
    firsts = np.minimum.reduceat(places["offset"], np.cumsum(lengths) - lengths)
    places["sample"] = np.repeat(firsts, lengths)
    return places, np.repeat(tar, lengths)


def _plan(folder: Folder, files: int, tars: int, samples_per_tar: int) -> list[tuple[int, int]]:
    """Which tars (first, end) make up each output tar."""
    members = np.zeros(tars, np.int64)
    for position in range(files):
        members += slice_sizes(folder, _place_file(position), tars)
    groups: list[tuple[int, int]] = []
    first, samples = 0, 0
    for tar in range(tars):
        if members[tar] == 0:
            continue
        samples += _count_samples(folder, files, tar, tars)
        if samples >= samples_per_tar:
            groups.append((first, tar + 1))
            first, samples = tar + 1, 0
    if samples:
        groups.append((first, tars))
    return groups


def _read_places(folder: Folder, files: int, tar: int, tars: int) -> np.ndarray:
    """A tar's distinct places in the order of their samples and offsets."""
    parts = [
        read_slices(folder, _place_file(position), PLACE_DTYPE, tar, tar + 1, tars)
        for position in range(files)
    ]
    return np.unique(np.concatenate(parts))


def _count_samples(folder: Folder, files: int, tar: int, tars: int) -> int:
    return len(np.unique(_read_places(folder, files, tar, tars)["sample"]))


def _copy(task: _CopyTask) -> Statistics:
    out, source = Folder(task.out), Folder(task.folder)
    dropped: Counter[str] = Counter()
    samples = size = 0
    with out.create(f"{task.position:05d}.tar") as target:
        for tar in range(task.first, task.end):
            places = _read_places(out, task.places, tar, len(task.tars))
            if not len(places):
                continue
            with open_tar(source.open(task.tars[tar])) as file:
                for members in _verified(file, places, dropped):
                    samples += 1
                    for offset, length in members:
                        size += length
                        _copy_range(file, offset, length, target)
        target.write(END_OF_TAR)
        # tar's records are 20 blocks: the end mark is followed by zeros up to a whole one.
        total = size + len(END_OF_TAR)
        target.write(bytes(-total % tarfile.RECORDSIZE))
    return {
        "samples": samples,
        "bytes": size,
        "dropped": counted(dropped),
    }


def _verified(
    file: IO[bytes], places: np.ndarray, dropped: Counter[str]
) -> Iterator[list[tuple[int, int]]]:
    """The samples of a tar whose members are all where the pool says, as (offset, length) lists."""
    end = file.seek(0, 2)
    for _, group in groupby(places.tolist(), key=lambda place: place[0]):
        members = list(group)
        reached = 0
        for _, offset, length, key in members:
            inside = reached <= offset and 0 < length <= end - offset
            if not (inside and is_member(file, key, offset, length)):
                dropped[NotCopied.NOT_AT_ITS_PLACE] += 1
                break
            reached = offset + length
        else:
            yield [(offset, length) for _, offset, length, _ in members]


def _copy_range(file: IO[bytes], offset: int, length: int, target: IO[bytes]) -> None:
    file.seek(offset)
    while length:
        piece = file.read(min(length, COPY_BYTES))
        if not piece:
            raise UserError(f"{getattr(file, 'name', 'a tar')} became shorter while it was read")
        target.write(piece)
        length -= len(piece)
