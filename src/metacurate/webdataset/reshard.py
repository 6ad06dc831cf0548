"""Copy the kept samples of WebDataset tars into new tars, member by member, byte for byte.

Two stages: ``locate`` reads the rows of the curated pool and sorts the places of their members by
tar; ``copy`` walks through each tar once, in order. Tars are opened by the names found in their
folder: a name in a row is only ever compared with those.

Of texts, a copy has what its row keeps (``kept_texts``): its JSON is rewritten for it.
"""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import groupby
from typing import IO, TypedDict, Unpack, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.arrays import offsets_of, ranges_to_indices, uid_halves
from metacurate.counts import counted
from metacurate.errors import ArgumentError, UserError, first_line
from metacurate.pool.columns import TEXTS_NAME, Needs
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
from metacurate.runtime.run import Run, RunOptions, open_run
from metacurate.runtime.slices import read_each_slice, read_slices, write_slices
from metacurate.runtime.stage import do_again, run_stage
from metacurate.runtime.storage import Folder, read_ahead
from metacurate.webdataset.facts import KEPT_NAME
from metacurate.webdataset.files import find_tars, open_tar
from metacurate.webdataset.headers import END_OF_TAR, Member, key_number, read_member
from metacurate.webdataset.ingest import MEMBERS_TYPE
from metacurate.webdataset.kept_texts import MATCHED_NAME, Kept, kept_texts, with_texts
from metacurate.webdataset.reasons import NotCopied

COPY = Stage("copy", (), files=r"\d{5,}\.tar", format=2)
LOCATE = Stage("locate", ("places",), (COPY,), format=2)

COPY_BYTES = 1 << 20
TARS_A_COUNT = 64
COLUMNS = ("tar", "key", "members")
# One element a member: ``sample`` is the offset of its sample's first member, ``key`` is 64 bits
# of the key's hash; the row's texts are ``size`` bytes at ``at`` in the texts of ``unit``.
PLACE_DTYPE = np.dtype(
    [("sample", "<u8"), ("offset", "<u8"), ("length", "<u8"), ("key", "<u8"),
     ("unit", "<u4"), ("size", "<u4"), ("at", "<u8")]
)  # fmt: skip


@dataclass(frozen=True)
class _LocateTask:
    unit: Unit
    tars: tuple[str, ...]
    out: str
    position: int


@dataclass(frozen=True)
class _CopyTask:
    """Output tar ``position``: the kept samples of ``tars``, the first of which is ``first`` of
    ``all_tars``."""

    folder: str
    tars: tuple[str, ...]
    all_tars: int
    places: int
    first: int
    out: str
    position: int


@dataclass(frozen=True)
class _CountTask:
    """How many kept samples the tars ``first`` to ``end - 1`` have."""

    folder: Folder
    places: int
    first: int
    end: int
    all_tars: int


class ReshardTotals(TypedDict):
    """``rows`` read, ``tars`` written, ``samples`` and ``bytes`` copied, of these samples
    ``with_other_texts`` than before; ``dropped``: by reason (``reasons.NotCopied``, and those of
    the pool).
    """

    rows: int
    tars: int
    samples: int
    with_other_texts: int
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
    never split). Where the curated pool has ``texts``, a sample has just those that it keeps
    (``text_kept``).
    """
    with open_run(out, inputs=[*curated, tars], preload=__name__, **options) as run:
        folder = run.folder
        found = find_tars(tars)
        names = tuple(found.names)
        needs = Needs(
            "unused", "unused", "unused", others=COLUMNS,
            advice="curate what 'metacurate pool ingest' makes of the tars",
        )  # fmt: skip
        pool = open_pool(curated, PoolConfig(), needs, reserved=(), engine=run.engine)
        pool.require_all()
        units = pool.units
        # Both stages have one configuration: the places are gone when the tars are written, so that
        # a change redoes them too.
        config = {
            "curated": list(curated),
            "curated_files": pool.fingerprints,
            "tars": tars,
            "tar_files": found.sizes,
            "samples_per_tar": samples_per_tar,
        }

        def work() -> ReshardTotals:
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
                    _CopyTask(tars, names[first:end], len(names), len(units), first, out, n)
                    for n, (first, end) in enumerate(
                        _plan(run, len(units), len(names), samples_per_tar)
                    )
                ]
                totals = run_stage(
                    run, COPY, config, copying, _copy, unit="samples",
                    totals=lambda shards: _totals(located, shards),
                )  # fmt: skip
            discard(folder, ["places"])
            return totals

        return do_again(run, [LOCATE], work)


def _totals(located: Statistics, copied: Sequence[Statistics]) -> ReshardTotals:
    summed = add_statistics(copied)
    return {
        "rows": located["rows"],
        "tars": len(copied),
        "samples": summed.get("samples", 0),
        "with_other_texts": summed.get("with_other_texts", 0),
        "bytes": summed.get("bytes", 0),
        "dropped": add_statistics([located["dropped"], summed.get("dropped", {})]),
    }


def _place_file(position: int) -> str:
    return f"places/{shard_name(position)}.bin"


def _texts_file(position: int) -> str:
    return f"places/{shard_name(position)}.texts"


def _locate(task: _LocateTask) -> Statistics:
    with Folder(task.out).create(_texts_file(task.position)) as texts:
        return _locate_rows(task, texts)


def _locate_rows(task: _LocateTask, texts: IO[bytes]) -> Statistics:
    tars = pa.array(task.tars)
    dropped: Counter[str] = Counter()
    rows = located = written = 0
    numbers, places = [], [np.zeros(0, PLACE_DTYPE)]
    names = (*COLUMNS, TEXTS_NAME, KEPT_NAME, MATCHED_NAME)
    unit = replace(task.unit, columns=task.unit.columns.only(names))
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
        kept = kept_texts(table.filter(pa.array(usable)))
        sizes = np.zeros(int(np.count_nonzero(usable)), np.int64)
        for i, row in enumerate(kept):
            if isinstance(row, NotCopied):
                dropped[row] += 1
                sizes[i] = -1
            elif row is not None:
                sizes[i] = texts.write(row.to_bytes())
        usable[usable] = sizes >= 0
        sizes = sizes[sizes >= 0]
        if usable.any():
            found, tar_of = _places(batch.filter(pa.array(usable)), tar[usable], sizes)
            found["unit"], found["at"] = task.position, found["at"] + written
            written += int(sizes.sum())
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


def _places(table: pa.Table, tar: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The members' places and their tars' numbers, for rows that all have members.

    ``sizes``: bytes of each row's texts.
    """
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
    places["size"] = np.repeat(sizes, lengths)
    places["at"] = np.repeat(offsets_of(sizes)[:-1], lengths)
    return places, np.repeat(tar, lengths)


def _plan(run: Run, files: int, tars: int, samples_per_tar: int) -> list[tuple[int, int]]:
    """Which tars (first, end) make up each output tar."""
    tasks = [
        _CountTask(run.folder, files, first, min(first + TARS_A_COUNT, tars), tars)
        for first in range(0, tars, TARS_A_COUNT)
    ]
    found = dict(run.engine.map_shards(_count_samples, tasks))
    groups: list[tuple[int, int]] = []
    first, samples = 0, 0
    for tar, number in enumerate(n for position in range(len(tasks)) for n in found[position]):
        samples += number
        if number and samples >= samples_per_tar:
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


def _count_samples(task: _CountTask) -> list[int]:
    """How many distinct samples each tar has."""
    found: list[list[np.ndarray]] = [[np.zeros(0, np.uint64)] for _ in range(task.first, task.end)]
    names = map(_place_file, range(task.places))
    tars = (task.first, task.end, task.all_tars)
    for slices in read_ahead(
        task.folder, lambda name: read_each_slice(task.folder, name, PLACE_DTYPE, *tars), names
    ):
        for samples, places in zip(found, slices, strict=True):
            samples.append(np.unique(places["sample"]))
    return [len(np.unique(np.concatenate(samples))) for samples in found]


def _copy(task: _CopyTask) -> Statistics:
    out, source = Folder(task.out), Folder(task.folder)
    dropped: Counter[str] = Counter()
    samples = size = others = 0
    with out.create(f"{task.position:05d}.tar") as target:
        for tar, name in enumerate(task.tars, task.first):
            places = _read_places(out, task.places, tar, task.all_tars)
            if not len(places):
                continue
            with open_tar(source.open(name)) as file, ExitStack() as opened:
                texts = _Texts(out, opened)
                for sample in _verified(file, places, dropped):
                    samples += 1
                    files = with_texts(file, sample.key, sample.members, texts.read(sample.texts))
                    others += files.changed
                    for part in files.parts:
                        if isinstance(part, bytes):
                            size += target.write(part)
                        else:
                            size += part.length
                            _copy_range(file, part.offset, part.length, target)
        target.write(END_OF_TAR)
        # tar's records are 20 blocks: the end mark is followed by zeros up to a whole one.
        total = size + len(END_OF_TAR)
        target.write(bytes(-total % tarfile.RECORDSIZE))
    return {
        "samples": samples,
        "with_other_texts": others,
        "bytes": size,
        "dropped": counted(dropped),
    }


@dataclass(frozen=True)
class _Found:
    """A sample of a tar; ``texts``: where those of its rows are, as (unit, place, size)."""

    key: str
    members: list[Member]
    texts: list[tuple[int, int, int]]


class _Texts:
    """The texts of the located rows; the units' files stay open."""

    def __init__(self, folder: Folder, opened: ExitStack) -> None:
        self._folder, self._opened = folder, opened
        self._files: dict[int, IO[bytes]] = {}

    def read(self, places: Sequence[tuple[int, int, int]]) -> Kept | None:
        """The texts of a sample's rows together; None if no row says any."""
        rows = []
        for unit, at, size in places:
            if unit not in self._files:
                file = self._folder.open(_texts_file(unit))
                self._files[unit] = self._opened.enter_context(file)
            self._files[unit].seek(at)
            rows.append(Kept.from_bytes(self._files[unit].read(size)))
        return Kept.joined(rows) if rows else None


def _verified(file: IO[bytes], places: np.ndarray, dropped: Counter[str]) -> Iterator[_Found]:
    """The samples of a tar whose members are all where the pool says."""
    end = file.seek(0, 2)
    for _, group in groupby(places.tolist(), key=lambda place: place[0]):
        rows = list(group)
        reached = 0
        found, name = list[Member](), ""
        # Several rows may name one sample.
        for offset, length, key in dict.fromkeys(row[1:4] for row in rows):
            inside = reached <= offset and 0 < length <= end - offset
            member = read_member(file, offset, length) if inside else None
            if member is None or key_number(member[0]) != key:
                dropped[NotCopied.NOT_AT_ITS_PLACE] += 1
                break
            reached = offset + length
            name = member[0]
            found.append(member[1])
        else:
            texts = [(unit, at, size) for *_, unit, size, at in rows if size]
            yield _Found(name, found, list(dict.fromkeys(texts)))


def _copy_range(file: IO[bytes], offset: int, length: int, target: IO[bytes]) -> None:
    file.seek(offset)
    while length:
        piece = file.read(min(length, COPY_BYTES))
        if not piece:
            raise UserError(f"{getattr(file, 'name', 'a tar')} became shorter while it was read")
        target.write(piece)
        length -= len(piece)
