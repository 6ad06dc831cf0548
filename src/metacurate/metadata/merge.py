"""Metadata of many languages from files of one or several, joined by groups of Wikipedias.

A language is a group of Wikipedias: the code up to the first ``_`` (``zh_yue`` is of ``zh``). A
group that no language identifier knows becomes the language ``other``. Within a language entries
stand in the order of the files; what an earlier file has is not repeated. One language is held at
a time.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from metacurate.errors import ArgumentError, UserError
from metacurate.metadata.entryfile import SCHEMA, read_about, write_entries
from metacurate.metadata.store import (
    ENTRY,
    OPTIONAL_COLUMNS,
    PARQUET_MAGIC,
    Metadata,
    is_folder,
    join_metadata,
    language_files,
    load_metadata,
    make_metadata,
)
from metacurate.runtime.arrowfiles import open_parquet
from metacurate.runtime.inputs import open_input
from metacurate.runtime.manifest import Statistics
from metacurate.runtime.run import check_writable, refuse_overlap
from metacurate.runtime.storage import (
    Folder,
    as_address,
    as_addresses,
    create_file,
    split_address,
)
from metacurate.texts.languages import OTHER, load_language_map
from metacurate.wikipedia.wikis import group_of

PARQUET = ".parquet"
_CODE = re.compile(r"(?:[a-z]{2,3}|simple|other)(?:[_-][A-Za-z0-9]{1,12}){0,3}")
_NAMED = re.compile(rf"({_CODE.pattern})=(.+)", re.DOTALL)


@dataclass(frozen=True)
class _Part:
    """The entries of one code in one file.

    Of Parquet: ``groups``, the row groups that hold some; ``value``, what stands beside them in the
    column ``lang``.
    """

    address: str
    code: str
    groups: tuple[int, ...] | None = None
    value: str | None = None


@dataclass
class _Plan:
    """Which files' entries make which language, and what is known of their making."""

    known: frozenset[str]
    languages: dict[str, list[_Part]] = field(default_factory=dict)
    about: list[dict[str, Any]] = field(default_factory=list)

    def code(self, text: str) -> str | None:
        """A language's code, its parts joined by ``_``; None if it is none."""
        if _CODE.fullmatch(text) or text in self.known:
            return text.replace("-", "_")
        return None


def merge_metadata(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    language_map: str | os.PathLike[str] | None = None,
    one_list: bool = False,
) -> Statistics:
    """Join metadata of several languages, or files of them, into one file or folder.

    Args:
        sources: Files and folders of files, in order: JSON arrays of entries, JSON objects
            ``{entry: source}``, Parquet with the columns ``entry`` and, as far as known,
            ``source``, ``score``, ``lang``. The language of what has no ``lang`` is the file's
            name (``zh_yue.json``), or is said before it: ``en=metadata.json``. Of a folder's files
            ``zh.json`` and ``zh.parquet`` the second is taken.
        out: A ``.parquet`` file, with the languages one after the other in the order of their
            codes, each in row groups of its own; or a folder, for a file a language.
        language_map: As of ``texts.languages.load_language_map``: groups that are
            none of its languages become ``other``.
        one_list: Whether to make one list without languages, in which an entry is there once.

    Returns:
        ``entries``, ``repeated`` (left out, since an earlier file of the same language has them),
        ``languages`` with the entries of each, ``other`` with those of each group in it.

    Raises:
        UserError: There is no such file, it is damaged, its entries are not valid or its language
            is not known; or the output holds other files or overlaps an input.
    """
    given = as_addresses(sources, "sources")
    out = as_address(out, "out")
    if one_list and not out.endswith(PARQUET):
        raise ArgumentError("{out} must name a .parquet file for one list, not {value}", value=out)
    if out.endswith(PARQUET):
        check_writable(out)
    plan = _plan(given, load_language_map(language_map).languages)
    for address in given:
        refuse_overlap(out, _address(address)[1])
    counted = _Counts()
    if one_list:
        keep = _first_occurrences(plan)
        with create_file(out) as file:
            columns = [name for name in SCHEMA.names if name != "lang"]
            write_entries(file, _kept(plan, keep, counted), plan.about, columns)
    elif out.endswith(PARQUET):
        with create_file(out) as file:
            pieces = (counted.add(*merged) for merged in _merged(plan))
            write_entries(file, pieces, plan.about)
    else:
        folder = Folder(out)
        if folder.list():
            raise ArgumentError("{out} {value} holds files already: give a new folder", value=out)
        for language, table, repeated in _merged(plan):
            with folder.create(f"{language}{PARQUET}") as file:
                write_entries(file, [counted.add(language, table, repeated)], plan.about)
    return counted.totals(plan)


class _Counts:
    """What was merged."""

    def __init__(self) -> None:
        self.entries: dict[str, int] = {}
        self.repeated = 0

    def add(self, language: str, table: pa.Table, repeated: int) -> pa.Table:
        self.entries[language] = table.num_rows
        self.repeated += repeated
        return table

    def totals(self, plan: _Plan) -> Statistics:
        groups = Counter(group_of(part.code) for part in plan.languages.get(OTHER, ()))
        return {
            "entries": sum(self.entries.values()),
            "repeated": self.repeated,
            "languages": self.entries,
            "other": sorted(groups),
        }


def _plan(given: list[str], known: frozenset[str]) -> _Plan:
    """The parts of each language, in the order of the files."""
    plan = _Plan(known)
    for address in given:
        code, path = _address(address)
        folder = is_folder(path)
        if folder and code is not None:
            raise UserError(f"{path} is a folder: its files' names say their languages")
        for file in language_files(path).values() if folder else [path]:
            for part in _parts(file, code, plan):
                group = group_of(part.code)
                plan.languages.setdefault(group if group in known else OTHER, []).append(part)
    plan.languages = dict(sorted(plan.languages.items()))
    return plan


def _address(given: str) -> tuple[str | None, str]:
    """What is said of a file's language, and its address."""
    named = _NAMED.fullmatch(given)
    return (named[1].replace("-", "_"), as_address(named[2])) if named else (None, given)


def _parts(path: str, code: str | None, plan: _Plan) -> Iterator[_Part]:
    """The parts of a file, one for each language in it."""
    groups = _languages_of_groups(path, plan)
    if groups is None:
        yield _Part(path, code or _code_of_name(path, plan))
        return
    found: dict[str | None, list[int]] = {}
    for number, languages in enumerate(groups):
        for language in languages:
            found.setdefault(language, []).append(number)
    if not found:
        raise UserError(f"{path} has no entries")
    for language, numbers in found.items():
        # What is said before the file goes for all that is in it.
        own = code or (_code_of_name(path, plan) if language is None else plan.code(language))
        if own is None:
            raise UserError(f"{path}: {language!r} in the column lang is no code of a language")
        yield _Part(path, own, tuple(numbers), language)


def _code_of_name(path: str, plan: _Plan) -> str:
    code = plan.code(split_address(path)[1].partition(".")[0])
    if code is None:
        raise UserError(
            f"{path} does not say its language: name it by the language's code (zh_yue.json), or "
            f"give en={path}"
        )
    return code


def _languages_of_groups(path: str, plan: _Plan) -> list[list[str | None]] | None:
    """The values of ``lang`` in each row group, in order; None if the file is no Parquet."""
    try:
        with open_input(path, "metadata file") as file:
            if file.read(4) != PARQUET_MAGIC:
                return None
            file.seek(0)
            parquet = open_parquet(file)
            plan.about += [a for a in read_about(parquet.schema_arrow) if a not in plan.about]
            count = parquet.num_row_groups
            if "lang" not in parquet.schema_arrow.names:
                return [[None]] * count
            found = (parquet.read_row_group(n, ["lang"], use_threads=False) for n in range(count))
            return [_distinct(group["lang"]) for group in found]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} is a damaged Parquet file: {error}") from None


def _distinct(column: pa.ChunkedArray) -> list[str | None]:
    return pc.unique(column.cast(pa.string())).to_pylist()


def _read(part: _Part) -> Metadata:
    """The entries of a part, checked; UserError if they are not valid."""
    if part.groups is None:
        return load_metadata(part.address)
    try:
        with open_input(part.address, "metadata file") as file:
            parquet = open_parquet(file)
            there = parquet.schema_arrow.names
            if ENTRY not in there:
                raise UserError(f"{part.address} has no column {ENTRY!r}")
            names = [ENTRY, *(name for name in OPTIONAL_COLUMNS if name in there)]
            table = parquet.read_row_groups(list(part.groups), names, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{part.address} is a damaged Parquet file: {error}") from None
    if "lang" in there:
        lang = table["lang"]
        mine = pc.is_null(lang) if part.value is None else pc.equal(lang, part.value)
        table = table.filter(mine)
    columns = {name: table[name] for name in names if name not in (ENTRY, "lang")}
    return make_metadata(table[ENTRY], **columns, origin=f"{part.address} ({part.code})")


def _merged(plan: _Plan) -> Iterator[tuple[str, pa.Table, int]]:
    """Each language, its entries, and how many were left out since they are there already."""
    for language, parts in plan.languages.items():
        read = [_read(part) for part in parts]
        table = join_metadata(read, language).cast(SCHEMA)
        yield language, table, sum(map(len, read)) - table.num_rows


def _first_occurrences(plan: _Plan) -> np.ndarray:
    """Of all languages' entries in their order, which are there for the first time: bool[n].

    Entries are told apart by 128 bits of a hash, of which 17 bytes an entry are held.
    """
    digests = [
        np.frombuffer(b"".join(map(_digest, table[ENTRY].to_pylist())), "<u8").reshape(-1, 2)
        for _, table, _ in _merged(plan)
    ]
    first_bytes = [(digest[:, 1] >> np.uint64(56)).astype(np.uint8) for digest in digests]
    starts = np.cumsum([0, *map(len, digests)])
    keep = np.ones(starts[-1], np.bool_)
    for byte in range(256):  # equal ones are in the same part, and a part is quickly sorted
        rows = [np.flatnonzero(first == byte) for first in first_bytes]
        part = np.concatenate([d[mine] for d, mine in zip(digests, rows, strict=True)])
        places = np.concatenate([s + mine for s, mine in zip(starts, rows, strict=False)])
        order = np.lexsort((part[:, 0], part[:, 1]))  # stable: of equal ones the first stays first
        part = part[order]
        keep[places[order[1:][(part[1:] == part[:-1]).all(axis=1)]]] = False
    return keep


def _digest(entry: str) -> bytes:
    return xxhash.xxh3_128_digest(entry.encode())


def _kept(plan: _Plan, keep: np.ndarray, counts: _Counts) -> Iterator[pa.Table]:
    start = 0
    for language, table, repeated in _merged(plan):
        mine = table.filter(pa.array(keep[start : start + table.num_rows]))
        start += table.num_rows
        yield counts.add(language, mine, repeated + table.num_rows - mine.num_rows)
