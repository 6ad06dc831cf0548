"""Opening a pool: which files, which columns, which units of work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from metacurate.errors import ArgumentError, UserError
from metacurate.formats.features import agreed, with_features
from metacurate.formats.files import SAMPLE_AHEAD_BYTES, UnusableFile, fingerprint, open_source
from metacurate.formats.table import format_of, formats, known_suffixes
from metacurate.formats.types import common_schema
from metacurate.pool import columns
from metacurate.pool.columns import PAIRS, RESERVED, Needs, ResolvedColumns
from metacurate.pool.find import find, hint_for
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.engine import Engine
from metacurate.runtime.find import File

OPEN_FILES = 64  # looked at together: object stores answer slowly, but many requests at a time
FILES_ALONE = 256  # of more than these each OPEN_FILES are a task of the engine
LISTED_BAD_FILES = 5


@dataclass(frozen=True)
class Unit:
    """A unit of work: a file, or those of its pieces from the first up to the second number.

    ``rows``: how many it has, if that is known without reading.
    """

    url: str
    format: str
    pieces: tuple[int, int] | None
    columns: ResolvedColumns
    rows: int | None = None


@dataclass(frozen=True)
class Pool:
    """A pool's files, looked at but not read.

    ``units`` are in the order of their addresses and pieces. ``fingerprints`` has a hex digest
    of each usable file's content; ``bad_files`` has (address, reason) of the others. ``schema`` is
    that of ``PoolBatch.columns``, and says their features. ``rows`` is how many rows are known of
    without reading: those of Parquet files.
    """

    units: tuple[Unit, ...]
    fingerprints: dict[str, str]
    bad_files: list[tuple[str, str]]
    schema: pa.Schema
    rows: int
    ignored: int
    hint: str

    @property
    def fingerprint(self) -> str:
        """A hex digest of the usable files' addresses and contents."""
        return hashlib.sha256(json.dumps(self.fingerprints).encode()).hexdigest()

    def require_all(self) -> None:
        """UserError if a file cannot be used: for commands that must not leave any out."""
        for address, reason in self.bad_files:
            raise UserError(f"{address} {reason}; repair it or leave it out")

    def require_rows(self) -> None:
        """UserError if nothing can be read."""
        if not self.units:
            raise UserError("the pool has no rows; check the input files")

    def describe(self) -> str:
        """What is read from where, in a sentence for people."""
        kinds: dict[tuple[str, str], dict[str, int]] = {}
        for unit in self.units:
            files = kinds.setdefault((unit.format, unit.columns.describe()), {})
            files[unit.url] = files.get(unit.url, 0) + 1
        parts = [
            f"{_counted(len(files), f'{formats()[form].title} file')} "
            f"({_counted(sum(files.values()), 'unit')}): {what}"
            for (form, what), files in kinds.items()
        ]
        if not parts:
            parts.append("no rows")
        if self.bad_files:
            shown = [f"{address} {reason}" for address, reason in self.bad_files[:LISTED_BAD_FILES]]
            more = len(self.bad_files) - len(shown)
            shown += [f"and {more} more"] if more else []
            parts.append(
                f"{_counted(len(self.bad_files), 'file')} cannot be used: {', '.join(shown)}"
            )
        if self.ignored:
            parts.append(f"{_counted(self.ignored, 'file')} of other formats ignored{self.hint}")
        return "; ".join(parts)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class _Looked:
    """What a look at one file found: its columns or the reason why it cannot be used."""

    address: str
    form: str
    columns: ResolvedColumns | None
    reason: str = ""
    pieces: tuple[int, ...] | None = None  # rows of each
    fingerprint: str = ""
    advice: str = ""


@dataclass(frozen=True)
class _Looking:
    """Some files to look at, and for what."""

    addresses: tuple[str, ...]
    config: PoolConfig
    needs: Needs
    reserved: tuple[str, ...]


def open_pool(
    inputs: Sequence[str],
    config: PoolConfig,
    needs: Needs = PAIRS,
    reserved: Sequence[str] = RESERVED,
    engine: Engine | None = None,
) -> Pool:
    """Find the files that the inputs name and look at each: format, columns, size, fingerprint.

    ``inputs``: see ``runtime.find``. A file that cannot be used is
    listed in ``Pool.bad_files``. Raises UserError if an input names no file, if no file can be
    used, or if it is not clear which column holds the URL or the text. ``needs``: which columns
    there must be. ``reserved``: names under which no columns of the pool's own are carried.
    ``engine``: looks at the files if there are many; without one this process does.
    """
    found = find(inputs)
    looked = _look_at_all(found.files, _Looking((), config, needs, tuple(reserved)), engine)
    usable = [(file, file.columns) for file in looked if file.columns is not None]
    bad = [(file.address, file.reason) for file in looked if file.columns is None]
    bad = sorted([*bad, *((file.shown, file.fault) for file in found.unusable)])
    if not usable:
        address, reason = bad[0]
        advice = next((file.advice for file in looked if file.address == address), "")
        raise ArgumentError(
            "{file} {reason}{others}" + (advice and f"; {advice}"),
            file=address,
            reason=reason,
            others=f" (nor can the {len(bad) - 1} other files be used)" if len(bad) > 1 else "",
        )
    # One for all files that are alike: there may be a million.
    kinds = {id(resolved): resolved for _, resolved in usable}.values()
    schema = with_features(
        common_schema([resolved.carried for resolved in kinds]),
        agreed([(resolved.carried, resolved.features) for resolved in kinds]),
    )
    units: list[Unit] = []
    agreeing: dict[int, ResolvedColumns] = {}
    for file, resolved in usable:
        common = agreeing.get(id(resolved))
        if common is None:
            common = agreeing[id(resolved)] = replace(resolved, carried=schema)
        for pieces in _ranges(file, config.rows_per_unit):
            rows = None if pieces is None else sum((file.pieces or ())[slice(*pieces)])
            units.append(Unit(file.address, file.form, pieces, common, rows))
    return Pool(
        units=tuple(units),
        fingerprints={file.address: file.fingerprint for file, _ in usable},
        bad_files=bad,
        schema=schema,
        rows=sum(sum(file.pieces or ()) for file, _ in usable),
        ignored=len(found.others),
        hint=hint_for(found.others),
    )


def _look_at_all(files: Sequence[File], looking: _Looking, engine: Engine | None) -> list[_Looked]:
    """What a look at each file finds, in their order."""
    addresses = [file.address for file in files]
    size = OPEN_FILES if engine is not None and len(files) > FILES_ALONE else len(files)
    tasks = [
        replace(looking, addresses=tuple(addresses[first : first + size]))
        for first in range(0, len(addresses), size)
    ]
    if engine is None or len(tasks) == 1:
        found = dict(enumerate(map(_look_at_some, tasks)))
    else:
        found = dict(engine.map_shards(_look_at_some, tasks))
    return _shared([file for n in range(len(tasks)) for file in found[n]])


def _look_at_some(task: _Looking) -> list[_Looked]:
    def look(address: str) -> _Looked:
        return _look_at(address, task.config, task.needs, task.reserved)

    with ThreadPoolExecutor(OPEN_FILES) as threads:
        return _shared(threads.map(look, task.addresses))


def _shared(files: Iterable[_Looked]) -> list[_Looked]:
    """The same, with one object for equal columns of consecutive files."""
    shared: list[_Looked] = []
    last: ResolvedColumns | None = None
    for file in files:
        own = file.columns
        if own is not last and own is not None and last is not None and last.is_same(own):
            file = replace(file, columns=last)  # noqa: PLW2901
        last = file.columns or last
        shared.append(file)
    return shared


def _ranges(file: _Looked, rows_per_unit: int) -> list[tuple[int, int] | None]:
    if file.pieces is None:
        return [None]
    ranges: list[tuple[int, int] | None] = []
    first = rows = 0
    for piece, size in enumerate(file.pieces):
        rows += size
        if rows >= rows_per_unit or (rows and piece == len(file.pieces) - 1):
            ranges.append((first, piece + 1))
            first, rows = piece + 1, 0
    return ranges


def _look_at(address: str, config: PoolConfig, needs: Needs, reserved: Sequence[str]) -> _Looked:
    known = format_of(address)
    if known is None:
        raise UserError(f"{address} is of no known format; a pool is {known_suffixes()}")
    form, compression = known
    try:
        with open_source(address, SAMPLE_AHEAD_BYTES) as source:
            if source.size() == 0:
                raise UnusableFile("is empty")
            look = formats()[form].look(source, compression)
            resolved = columns.resolve(address, look.schema, config, needs)
            resolved = resolved.described_by(look, address, reserved)
            return _Looked(address, form, resolved, "", look.pieces, fingerprint(source))
    except FileNotFoundError:
        raise UserError(f"{address}: no such file") from None
    except UnusableFile as error:
        return _Looked(address, form, None, str(error), advice=error.advice)
