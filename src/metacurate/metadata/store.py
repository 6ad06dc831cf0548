"""Metadata: the ordered entries to match texts with, loaded, checked and saved.

An entry's position is its id (uint32). Files are a JSON array of strings (the public format), a
JSON object ``{entry: source}``, or Parquet with the column ``entry`` and, as far as known,
``source``, ``score`` and ``lang``; a folder has such a file for each language.

Metadata of several languages (Meta CLIP 2, arXiv 2507.22062) hold an entry once a language, and the
entries of a language stand together: its *block* of ids. A text is matched with the block of its
own language alone.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from metacurate.arguments import listed
from metacurate.arrays import ArrowArray, ArrowStream, exported
from metacurate.errors import UserError
from metacurate.formats.types import is_string, storage
from metacurate.metadata import wordnet
from metacurate.pool.convert import stored
from metacurate.runtime.arrowfiles import open_parquet
from metacurate.runtime.inputs import open_input
from metacurate.runtime.storage import (
    Folder,
    as_address,
    at_store,
    create_file,
    is_local,
    local_path,
    open_file,
)
from metacurate.texts.languages import OTHER
from metacurate.wikipedia.wikis import group_of

BUILT_IN = "wordnet"
MAX_ENTRIES = 2**32 - 1  # ids are uint32
MAX_LANGUAGES = 1024
MAX_FILE_BYTES = 4 * 2**30  # beyond, a file is hardly metadata; 2 million entries take 40 MB
PIECE_BYTES = 16 * 2**20
GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
ENTRY = "entry"
LANGUAGE_SUFFIXES = ("json", "json.gz", "parquet")
OPTIONAL_COLUMNS = {"source": pa.string(), "score": pa.float64(), "lang": pa.string()}
ROWS_PER_GROUP = 262_144
_SHOWN = 5
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class Block:
    """The ids of one language's entries: from ``first`` up to ``stop``.

    ``language`` is None where the metadata are one list for all texts.
    """

    language: str | None
    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


@dataclass(frozen=True, eq=False)
class Metadata:
    """Checked entries: unique, not empty, valid UTF-8. Build it with ``make_metadata``.

    Attributes:
        entries: Arrow large_string[n] without nulls; an entry's position is its id.
        source: Arrow string[n], where each entry comes from, null where unknown; or None.
        score: Arrow float64[n], what its source ranks it by (a count, mutual information, page
            views), null where unknown; or None.
        lang: Arrow string[n], the entry's language, null where unknown; or None.
        blocks: Where each language's entries stand, in their order; one block without a language
            if the metadata are one list (``lang`` names one language at most).
    """

    entries: pa.LargeStringArray
    source: pa.StringArray | None = None
    score: pa.DoubleArray | None = None
    lang: pa.StringArray | None = None
    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        if not self.blocks:
            object.__setattr__(self, "blocks", (Block(None, 0, len(self.entries)),))

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages, in the order of their blocks; none if the metadata are one list."""
        return tuple(block.language for block in self.blocks if block.language is not None)

    def block_of(self, language: str) -> Block | None:
        """The block of a language, if it has one."""
        return next((block for block in self.blocks if block.language == language), None)

    @cached_property
    def fingerprint(self) -> str:
        """Hex BLAKE2b (128 bits) of the number of entries, their lengths and their UTF-8 bytes.

        Numbers are little-endian uint64. It depends on nothing else: not on the file's format, nor
        on the other columns; with several languages also on each one's name and number of entries.
        """
        offsets, data = _buffers(self.entries)
        digest = hashlib.blake2b(digest_size=16)
        digest.update(len(self.entries).to_bytes(8, "little"))
        digest.update(np.diff(offsets).astype("<u8").tobytes())
        digest.update(data)
        for block in self.blocks:
            if block.language is not None:
                digest.update(len(block).to_bytes(8, "little"))
                digest.update(json.dumps(block.language).encode())
        return digest.hexdigest()


def _buffers(array: pa.LargeStringArray) -> tuple[np.ndarray, memoryview]:
    """An array's offsets (int64[n + 1], as they are) and the bytes between the first and last."""
    _, offset_buffer, data = array.buffers()
    offsets = np.zeros(1, np.int64)
    if len(array):
        offsets = np.frombuffer(offset_buffer, np.int64, len(array) + 1, array.offset * 8)
    view = memoryview(data) if data is not None else memoryview(b"")
    return offsets, view[offsets[0] : offsets[-1]]


def make_metadata(
    entries: Sequence[str] | ArrowArray | ArrowStream,
    *,
    source: Any = None,
    score: Any = None,
    lang: Any = None,
    origin: str = "metadata",
) -> Metadata:
    """Check entries and make them metadata.

    Args:
        entries: 1 to 2**32 - 1 strings, or an array or column of strings of Arrow, pandas, Polars
            or any library that exports Arrow.
        source: As many strings or None, in a sequence or an Arrow array.
        score: As many numbers or None, in a sequence or an Arrow array.
        lang: As many strings or None, in a sequence or an Arrow array. With two languages or more
            the entries are ordered by language (in the order in which each first appears), an
            entry may be there once a language, and those without a language are ``other``.
        origin: What the entries are called in messages.

    Raises:
        UserError: Entries are repeated, empty, no strings or no valid Unicode (the first few are
            named with their positions, from 0), or a further column does not fit; or the entries
            are a single string, or a set, which has no order.
    """
    given = listed("entries", exported(entries))
    problems = _Problems()
    if isinstance(given, pa.Array | pa.ChunkedArray):
        array = _from_arrow(given, origin, problems)
    else:
        array = _from_sequence(given, problems)
    _find_empty(array, problems)
    lang = _optional("lang", lang, len(array), origin)
    lang, blocks, order = _by_language(lang, origin)
    _find_repeated(array, blocks, order, problems)
    if problems.found:
        raise UserError(
            f"{origin} is not usable: {'; '.join(problems.found)} (positions count from 0); "
            "remove or correct these entries"
        )
    if not 0 < len(array) <= MAX_ENTRIES:
        raise UserError(f"{origin} has {len(array):,} entries; it must have 1 to {MAX_ENTRIES:,}")
    source = _optional("source", source, len(array), origin)
    score = _optional("score", score, len(array), origin)
    if order is not None:
        array, source, score = (_in_order(column, order) for column in (array, source, score))
    return Metadata(array, source, score, lang, blocks)


def _by_language(
    lang: pa.StringArray | None, origin: str
) -> tuple[pa.StringArray | None, tuple[Block, ...], np.ndarray | None]:
    """The languages with each one's entries together, their blocks, and the order if it changed.

    Fewer than two languages make one list: no blocks, the column as it is.
    """
    if lang is None or len(pc.unique(lang.drop_null())) < 2:
        return lang, (), None
    encoded = lang.fill_null(OTHER).dictionary_encode()
    if len(encoded.dictionary) > MAX_LANGUAGES:
        raise UserError(
            f"{origin} has entries in {len(encoded.dictionary):,} languages; it may have up to "
            f"{MAX_LANGUAGES:,}: is the column lang a language?"
        )
    codes = np.asarray(encoded.indices)
    stops = np.cumsum(np.bincount(codes, minlength=len(encoded.dictionary))).tolist()
    blocks = tuple(
        Block(name, first, stop)
        for name, first, stop in zip(
            encoded.dictionary.to_pylist(), [0, *stops], stops, strict=False
        )
    )
    if np.all(codes[1:] >= codes[:-1]):
        return encoded.dictionary_decode(), blocks, None
    order = np.argsort(codes, kind="stable")
    return encoded.take(pa.array(order)).dictionary_decode(), blocks, order


def _in_order(column: Any, order: np.ndarray) -> Any:
    return None if column is None else column.take(pa.array(order))


class _Problems:
    """What is wrong with the entries: a phrase for each kind of problem."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def note(
        self, kind: str, positions: Sequence[int] | np.ndarray, describe: Callable[[int], str]
    ) -> None:
        """Record a kind of problem at some positions; ``describe`` shows one of them."""
        if not len(positions):
            return
        shown = ", ".join(f"{p} ({describe(p)})" for p in map(int, positions[:_SHOWN]))
        more = f", and {len(positions) - _SHOWN:,} more" if len(positions) > _SHOWN else ""
        self.found.append(f"{len(positions):,} {kind} at {shown}{more}")


def _short(value: Any) -> str:
    text = ascii(value) if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False)
    text = text.encode(errors="backslashreplace").decode()
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _from_sequence(values: Sequence[Any], problems: _Problems) -> pa.LargeStringArray:
    """Strings to Arrow; what is no string or has lone surrogates is noted and becomes null."""
    try:
        if all(kind is str for kind in set(map(type, values))):
            return pa.array(values, pa.large_string())
    except UnicodeEncodeError:
        pass
    other = [p for p, value in enumerate(values) if not isinstance(value, str)]
    surrogates = [p for p, v in enumerate(values) if isinstance(v, str) and not _encodable(v)]
    problems.note("no string", other, lambda p: _short(values[p]))
    problems.note("with lone surrogates", surrogates, lambda p: _short(values[p]))
    unusable = {*other, *surrogates}
    clean = [None if p in unusable else value for p, value in enumerate(values)]
    return pa.array(clean, pa.large_string())


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_arrow(
    values: pa.Array | pa.ChunkedArray, origin: str, problems: _Problems
) -> pa.LargeStringArray:
    """Any Arrow strings to one large_string array; nulls and invalid UTF-8 are noted."""
    if not is_string(storage(values.type)):
        raise UserError(f"{origin}: the entries must be strings, but are of type {values.type}")
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    empty = pa.array([], pa.large_string())
    array = pa.concat_arrays([empty, *(stored(c).cast(pa.large_string()) for c in chunks)])
    problems.note("no string", _positions(array.is_null()), lambda p: "null")
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        raw = array.cast(pa.large_binary()).to_pylist()
        valid = [None if bytes_ is None else _decoded(bytes_) for bytes_ in raw]
        invalid = [p for p, b in enumerate(raw) if b is not None and valid[p] is None]
        problems.note("no valid UTF-8", invalid, lambda p: _short(raw[p]))
        array = pa.array(valid, pa.large_string())
    return array


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _positions(mask: pa.BooleanArray) -> np.ndarray:
    """Where a mask without nulls is true."""
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False))


def _find_empty(array: pa.LargeStringArray, problems: _Problems) -> None:
    empty = pc.equal(pc.binary_length(array), 0).fill_null(False)
    problems.note("empty", _positions(empty), lambda p: '""')


def _find_repeated(
    array: pa.LargeStringArray,
    blocks: Sequence[Block],
    order: np.ndarray | None,
    problems: _Problems,
) -> None:
    """Note what is there twice in a language (``order``: where the blocks' entries stand)."""
    ordered = array if order is None else array.take(pa.array(order))
    original: dict[int, int] = {}
    for block in blocks or [Block(None, 0, len(array))]:
        for place, first in _repeated(ordered.slice(block.first, len(block))):
            there, before = place + block.first, first + block.first
            original[int(there if order is None else order[there])] = int(
                before if order is None else order[before]
            )
    problems.note(
        "repeated", sorted(original), lambda p: f"{_short(array[p].as_py())}, as at {original[p]}"
    )


def _repeated(array: pa.LargeStringArray) -> Iterator[tuple[int, int]]:
    """The positions of what is there again, each with that of its first appearance."""
    if _all_differ(array.drop_null()):
        return
    encoded = array.dictionary_encode()
    # Values are numbered in the order of their first appearance; -1 stands for null.
    number = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    _, first, inverse = np.unique(number, return_index=True, return_inverse=True)
    before = first[inverse]
    places = np.flatnonzero((before != np.arange(len(array))) & (number >= 0))
    yield from zip(places.tolist(), before[places].tolist(), strict=True)


def _all_differ(array: pa.LargeStringArray) -> bool:
    """Whether no string is there twice."""
    # Only strings of one length can be equal. A table of those takes the memory that the one before
    # it took; one of half a million strings takes longer to get its memory than to be filled.
    longest = np.iinfo(np.uint16).max  # or longer
    lengths = np.minimum(np.asarray(pc.binary_length(array)), longest).astype(np.uint16)
    order = np.argsort(lengths, kind="stable")
    ordered = array.take(pa.array(order))
    starts = [0, *(np.flatnonzero(np.diff(lengths[order])) + 1).tolist(), len(array)]
    return all(
        len(ordered.slice(start, stop - start).unique()) == stop - start
        for start, stop in pairwise(starts)
    )


def _optional(name: str, values: Any, length: int, origin: str) -> Any:
    """A further column in its type; None stays None."""
    if values is None:
        return None
    kind = OPTIONAL_COLUMNS[name]
    try:
        if isinstance(values, pa.Array | pa.ChunkedArray):
            array = values.cast(kind)
            if isinstance(array, pa.ChunkedArray):
                array = array.combine_chunks()
        else:
            array = pa.array(values, kind)
        array.validate(full=True)
    except (pa.ArrowException, TypeError, UnicodeEncodeError) as error:
        raise UserError(f"{origin}: the column {name} is not of type {kind} ({error})") from None
    if len(array) != length:
        raise UserError(f"{origin}: the column {name} has {len(array):,} values, not {length:,}")
    return array


def load_metadata(source: str | os.PathLike[str]) -> Metadata:
    """Load metadata.

    Args:
        source: ``"wordnet"`` (86,554 synset names that come with the package), or the path or
            fsspec address of a JSON array of strings or object ``{entry: source}`` (plain or gzip),
            or of a Parquet file with the column ``entry`` and, where known, ``source``, ``score``
            and ``lang``. Gzip and Parquet are known by their content, not by their names. Or a
            folder with such a file for each language, named by its code (``zh.json``,
            ``th.parquet``); files of one group (``zh_yue.json``: the code up to the first ``_``)
            are joined in the order of their names, and what is there already is left out.

    Raises:
        UserError: There is no such file, it has another form or is larger than 4 GiB, or its
            entries are not valid (see ``make_metadata``).
    """
    source = as_address(source, "source")
    if source == BUILT_IN:
        return make_metadata(wordnet.shipped_entries(), origin="the built-in WordNet metadata")
    return _load_folder(source) if is_folder(source) else _load_file(source)


def as_metadata(
    given: str | os.PathLike[str] | Metadata | Sequence[str] | ArrowArray | ArrowStream,
) -> Metadata:
    """Metadata as a caller gives them: by an address, loaded already, or a list of entries."""
    if isinstance(given, str | os.PathLike):
        return load_metadata(given)
    return given if isinstance(given, Metadata) else make_metadata(given)


def is_folder(source: str) -> bool:
    """Whether an address is that of a folder."""
    try:
        if is_local(source):
            return local_path(source).is_dir()
        with at_store(source) as (filesystem, path):
            return bool(filesystem.isdir(path))
    except (OSError, ValueError, ImportError):
        return False  # reading it as a file says what is wrong


def _load_file(source: str) -> Metadata:
    content = _read(source)
    if content[:4] == PARQUET_MAGIC:
        return _from_parquet(content, source)
    try:
        # RecursionError: a deeply nested file; the limit on integers' digits is a ValueError too.
        values = json.loads(content, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{source} is neither JSON (an array of strings, or an object of entries and their "
            f"sources) nor Parquet: {error}"
        ) from None
    if isinstance(values, _Pairs):
        # Pairs, not a dict: an entry that is there twice is to be noticed.
        return make_metadata(
            [entry for entry, _ in values], source=[said for _, said in values], origin=source
        )
    if not isinstance(values, list):
        raise UserError(
            f"{source} must hold a JSON array of strings, but holds {_JSON_KINDS[type(values)]}"
        )
    return make_metadata(values, origin=source)


class _Pairs(list[tuple[str, Any]]):
    """The members of a JSON object, in its order."""


def language_files(source: str) -> dict[str, str]:
    """The addresses of a folder's files by their languages' codes, in the order of these.

    A file's code is its name up to the first ``.``. Of several forms of one the Parquet file
    counts: it knows most. UserError if there are none.
    """
    folder = Folder(source)
    found: dict[str, str] = {}
    for name in folder.list():
        code, _, suffix = name.partition(".")
        if suffix in LANGUAGE_SUFFIXES and code:
            found[code] = folder.address(name)  # "parquet" comes last
    if not found:
        raise UserError(
            f"the folder {source} has no file of a language's metadata (such as en.json, "
            "zh.parquet)"
        )
    return dict(sorted(found.items()))


def _load_folder(source: str) -> Metadata:
    # Wikipedia's zh_yue and zh_classical are of the group zh.
    groups: dict[str, list[str]] = {}
    for code, file in language_files(source).items():
        groups.setdefault(group_of(code), []).append(file)
    parts: list[pa.Table] = []
    for language, files in groups.items():
        parts.append(join_metadata([_of_one_language(file) for file in files], language))
    table = pa.concat_tables(parts)
    columns = {name: table[name] for name in OPTIONAL_COLUMNS}
    return make_metadata(table[ENTRY], **columns, origin=source)


def _of_one_language(source: str) -> Metadata:
    """A file of a folder, whose language its name says: one of several would be taken for that."""
    metadata = _load_file(source)
    if metadata.languages:
        raise UserError(
            f"{source} has entries of {len(metadata.languages):,} languages, but the file of a "
            "folder is of the one that its name says: give this file itself, or join both with "
            "'metacurate metadata merge'"
        )
    return metadata


def join_metadata(parts: Sequence[Metadata], language: str) -> pa.Table:
    """One language's entries with all columns: those of the first part, then what is new."""

    def columns(part: Metadata) -> dict[str, pa.Array]:
        had = {name: getattr(part, name) for name in OPTIONAL_COLUMNS}
        had["lang"] = pa.repeat(pa.scalar(language, pa.string()), len(part))
        return {
            ENTRY: part.entries,
            **{
                n: pa.nulls(len(part), OPTIONAL_COLUMNS[n]) if v is None else v
                for n, v in had.items()
            },
        }

    table = pa.concat_tables([pa.table(columns(part)) for part in parts])
    if len(parts) > 1:
        codes = table[ENTRY].combine_chunks().dictionary_encode().indices
        _, first = np.unique(np.asarray(codes), return_index=True)
        table = table.take(pa.array(np.sort(first)))
    return table


def load_language(address: str, language: str | None) -> pa.LargeStringArray:
    """The entries of one language of metadata that ``save_parquet`` wrote, without the others'.

    None: all entries.
    """
    try:
        with open_file(address) as file:
            table = _of_language(open_parquet(file), language)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{address} is damaged: {error}; start again") from None
    return table[ENTRY].cast(pa.large_string()).combine_chunks()


def _of_language(file: pq.ParquetFile, language: str | None) -> pa.Table:
    groups = range(file.num_row_groups)
    if language is None:
        return file.read_row_groups(groups, [ENTRY], use_threads=False)
    place = file.schema_arrow.get_field_index("lang")
    told = [file.metadata.row_group(group).column(place).statistics for group in groups]
    mine = [
        group
        for group, of in zip(groups, told, strict=True)
        if of is None or not of.has_min_max or of.min <= language <= of.max
    ]
    table = file.read_row_groups(mine, [ENTRY, "lang"], use_threads=False)
    return table.filter(pc.equal(table["lang"], language))


_JSON_KINDS = {
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def _read(source: str) -> bytes:
    """The content of a file, unpacked if it is gzip."""
    try:
        advice = f"; give {BUILT_IN!r}, or a JSON or Parquet file"
        with open_input(source, "metadata file", advice) as file:
            content = _read_bounded(file, source)
        if content[:2] == GZIP_MAGIC:
            with gzip.open(io.BytesIO(content)) as unpacked:
                content = _read_bounded(unpacked, source)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"the metadata file {source} cannot be read: {error}") from None
    return content


def _read_bounded(file: IO[bytes] | gzip.GzipFile, source: str) -> bytes:
    pieces, size = [], 0
    while piece := file.read(PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_FILE_BYTES:
            raise UserError(
                f"{source} is larger than {MAX_FILE_BYTES:,} bytes: this is no metadata"
            )
    return b"".join(pieces)


def load_saved(address: str, fingerprint: str) -> Metadata:
    """Metadata that ``save_parquet`` wrote: what has their fingerprint needs no other check.

    UserError if the file is gone, damaged or another.
    """
    table = _read_parquet(_read(address), address)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    entries = columns.pop(ENTRY).cast(pa.large_string())
    lang, blocks, _ = _by_language(columns.pop("lang", None), address)
    metadata = Metadata(entries, **columns, lang=lang, blocks=blocks)
    if metadata.fingerprint != fingerprint:
        raise UserError(f"{address} is damaged, or not what the run wrote; start again")
    return metadata


def _from_parquet(content: bytes, source: str) -> Metadata:
    table = _read_parquet(content, source)
    columns = {name: table[name] for name in table.column_names if name != ENTRY}
    return make_metadata(table[ENTRY], **columns, origin=source)


def _read_parquet(content: bytes, source: str) -> pa.Table:
    try:
        file = open_parquet(io.BytesIO(content))
        names = file.schema_arrow.names
        if ENTRY not in names:
            raise UserError(
                f"{source} has no column {ENTRY!r} (it has {', '.join(names) or 'none'})"
            )
        wanted = [name for name in OPTIONAL_COLUMNS if name in names]
        return file.read([ENTRY, *wanted], use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{source} is a damaged Parquet file: {error}") from None


def save_json(metadata: Metadata, address: str | os.PathLike[str]) -> None:
    """Write the entries as a JSON array in UTF-8, one entry a line; the other columns are lost."""
    text = json.dumps(metadata.entries.to_pylist(), ensure_ascii=False, separators=(",\n", ":"))
    with create_file(as_address(address, "address")) as file:
        file.write(text.encode() + b"\n")


def save_parquet(metadata: Metadata, address: str | os.PathLike[str]) -> None:
    """Write the entries and the other columns that there are as Parquet.

    A language begins with a new row group, so that it can be read alone.
    """
    columns: dict[str, Any] = {ENTRY: metadata.entries}
    for name in OPTIONAL_COLUMNS:
        if (values := getattr(metadata, name)) is not None:
            columns[name] = values
    table = pa.table(columns)
    with (
        create_file(as_address(address, "address")) as file,
        # No entry is there twice: a dictionary of them is in vain.
        pq.ParquetWriter(
            file, table.schema, compression="zstd", use_dictionary=[*columns][1:]
        ) as writer,
    ):
        for block in metadata.blocks:
            writer.write_table(table.slice(block.first, len(block)), ROWS_PER_GROUP)
