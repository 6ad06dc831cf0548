"""Matching of texts against metadata: the public API."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.arguments import listed, whole
from metacurate.arrays import ArrowArray, ArrowStream, exported
from metacurate.curation.matching.spacing import V1, check_rule, is_wide
from metacurate.kernels import matching as kernel
from metacurate.kernels import matching_wide as wide_kernel
from metacurate.kernels.cache import is_stored
from metacurate.pool.convert import stored
from metacurate.runtime.made import write_array

Texts: TypeAlias = Sequence[str | None] | ArrowArray | ArrowStream
"""Strings, or an array or column of Arrow, pandas, Polars or any library that exports Arrow."""
Tables: TypeAlias = tuple[npt.NDArray[np.uint64], ...]

_TABLE_NAMES = ("vocabulary", "edges", "filter", "blob", "starts")
_WIDE_NAMES = (
    "wide_pages", "wide_classes", "wide_cells", "wide_ids", "wide_fails", "wide_links",
    "wide_triggers", "wide_contexts", "wide_credit",
)  # fmt: skip
SAVED_FILE = "matcher.json"
"""What ``Matcher.save`` writes last: the rule and the sizes."""

# Below this many bytes a text batch is not worth a thread of its own.
_MIN_BYTES_PER_THREAD = 65_536


class Matcher:
    """Finds the metadata entries that occur in texts.

    By the rule ``v1`` entry ``e`` matches iff ``" " + e + " "`` is a sub-string of the spaced text
    (see ``spacing.spaced`` and docs/semantics.md): case sensitive, all matches, overlapping ones
    too. By the rule ``worldwide`` (Meta CLIP 2) a side of an entry that ends in a character of a
    script without spaces, or in punctuation, needs no space; ``worldwide+kana`` counts kana among
    these. The results are exactly those of ``reference.match_text``.

    A matcher is immutable: threads may share it.
    """

    def __init__(
        self,
        entries: Texts,
        *,
        rule: str = V1,
        _hash_mask: np.uint64 = kernel.NO_HASH_MASK,
        _credit: tuple[int, int] = wide_kernel.CREDIT,
    ) -> None:
        """Build the tables.

        Args:
            entries: Strings, or an array or column of strings (``Metadata.entries``); an entry's
                position is its id, a uint32.

        Raises:
            ValueError: An entry is null, empty, no string, no valid Unicode or there twice; or the
                entries are a single string, or a set, which has no order.
        """
        array = as_large_string(listed("entries", exported(entries)), "entry")
        if array.null_count:
            raise ValueError(f"entry {array.is_null().index(True).as_py()} is null")
        offsets, _, data = _parts(array)
        if (empty := np.flatnonzero(np.diff(offsets) == 0)).size:
            raise ValueError(f"entry {empty[0]} is empty")
        self._rule = check_rule(rule)
        self._entries = len(array)
        ids = np.arange(len(array), dtype=np.uint32)
        self._wide: Tables | None = None
        if self._rule != V1:
            lefts, rights = _needs_space(array, 0, rule), _needs_space(array, -1, rule)
            inside = ~(lefts & rights)
            self._wide = _wide_tables(array, lefts, rights, np.flatnonzero(inside), _credit)
            array, ids = array.filter(pa.array(~inside)), ids[~inside]
            offsets, _, data = _parts(array)
        self._tables: Tables = kernel.build_tables(data.copy(), offsets, ids, _hash_mask)
        self._max_depth = _max_depth(array)
        # Tests weaken the hash with a mask to force collisions.
        self._hash_mask = _hash_mask

    def __repr__(self) -> str:
        """The number of entries and the rule."""
        return f"Matcher({self._entries:,} entries, rule={self._rule!r})"

    def __len__(self) -> int:
        """The number of entries."""
        return self._entries

    @property
    def rule(self) -> str:
        """The matching rule."""
        return self._rule

    @property
    def nbytes(self) -> int:
        """The size of the tables in bytes."""
        return sum(table.nbytes for table in (*self._tables, *(self._wide or ())))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the tables as ``.npy`` files for ``load``; the folder is made if needed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in zip(
            (*_TABLE_NAMES, *_WIDE_NAMES), (*self._tables, *(self._wide or ())), strict=False
        ):
            with (folder / f"{name}.npy").open("wb") as file:
                write_array(file, table)
        sizes = {"rule": self._rule, "entries": self._entries, "max_depth": self._max_depth}
        (folder / SAVED_FILE).write_text(json.dumps(sizes), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Matcher:
        """Map saved tables into memory: processes on one machine share it.

        The files must be those that ``save`` wrote; OSError or ValueError if they cannot be read.
        """
        matcher, folder = cls.__new__(cls), Path(folder)
        sizes = json.loads((folder / SAVED_FILE).read_text(encoding="utf-8"))

        def load(names: Sequence[str]) -> Tables:
            paths = [folder / f"{name}.npy" for name in names]
            mapped = (np.load(path, mmap_mode="c", allow_pickle=False) for path in paths)
            return tuple(np.asarray(table) for table in mapped)

        matcher._rule = check_rule(sizes["rule"])
        matcher._tables = load(_TABLE_NAMES)
        matcher._wide = None if matcher._rule == V1 else load(_WIDE_NAMES)
        matcher._entries, matcher._max_depth = int(sizes["entries"]), int(sizes["max_depth"])
        matcher._hash_mask = kernel.NO_HASH_MASK
        return matcher

    def match(
        self, texts: Texts, *, threads: int = 1
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Match texts.

        The ids of text ``i`` are ``entry_ids[offsets[i]:offsets[i + 1]]``, sorted and unique.

        Args:
            texts: n strings or None, or an array or column of strings of Arrow, pandas, Polars or
                any library that exports Arrow (read without a Python object per text; Arrow's in
                place). None and null match nothing.
            threads: Over how many threads large inputs are split; the kernel holds no GIL. The
                result is the same for any number.

        Returns:
            CSR arrays: ``offsets`` int64[n + 1] and ``entry_ids`` uint32[matches].

        Raises:
            ValueError: A text is no string or no valid Unicode (a lone surrogate); or the texts are
                a single string (give a list of one), or a set, which has no order.
        """
        array = as_large_string(listed("texts", exported(texts)), "text")
        threads = whole("threads", threads, 1)
        offsets, valid, data = _parts(array)
        address, size = data.ctypes.data, data.size

        def match_range(
            start: int, stop: int
        ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
            return kernel.match_texts(
                address,
                size,
                offsets[start : stop + 1],
                valid[start:stop],
                *self._tables,
                self._wide,
                self._hash_mask,
                self._max_depth,
            )

        total = int(offsets[-1] - offsets[0])
        parts = max(1, min(threads, total // _MIN_BYTES_PER_THREAD))
        if parts == 1:
            return match_range(0, len(array))
        cuts = np.searchsorted(offsets, offsets[0] + np.arange(1, parts) * (total // parts))
        bounds = [0, *cuts.tolist(), len(array)]
        with ThreadPoolExecutor(parts) as pool:
            results = list(pool.map(match_range, bounds[:-1], bounds[1:]))
        starts = np.cumsum([0, *(ids.size for _, ids in results)])
        row_offsets = np.empty(len(array) + 1, dtype=np.int64)
        row_offsets[0] = 0
        for (part, _), at, start in zip(results, bounds, starts, strict=False):
            np.add(part[1:], start, out=row_offsets[at + 1 : at + part.size])
        return row_offsets, np.concatenate([ids for _, ids in results])


def is_compiled() -> bool:
    """Whether an earlier process has compiled the kernel."""
    return is_stored(kernel.match_texts)


def as_large_string(strings: Any, what: str) -> pa.LargeStringArray:
    """Strings as one Arrow array; the bytes are not copied if they are Arrow's already.

    ``what`` names the strings in the message of the ValueError that is raised for what is no string
    or no valid Unicode.
    """
    if isinstance(strings, pa.ChunkedArray):
        chunks = [as_large_string(chunk, what) for chunk in strings.chunks]
        if len(chunks) == 1:
            return chunks[0]
        return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_string())
    if not isinstance(strings, pa.Array):
        try:
            return pa.array(strings, pa.large_string())
        except (UnicodeEncodeError, pa.ArrowException) as error:
            for position, string in enumerate(strings):
                if not isinstance(string, str | None):
                    raise ValueError(f"{what} {position} is no string: {string!r}") from None
                if string is not None and not string.isascii() and _has_surrogate(string):
                    raise ValueError(f"{what} {position} is no valid Unicode") from None
            raise ValueError(f"{what}s: {error}") from None
    strings = stored(strings)
    if pa.types.is_string(strings.type) or pa.types.is_null(strings.type):
        strings = strings.cast(pa.large_string())
    if not pa.types.is_large_string(strings.type):
        raise ValueError(f"{what}s must be strings, not {strings.type}")
    return strings


def _has_surrogate(string: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in string)


def _parts(array: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets (int64[n+1]), validity (uint8[n], or empty if all valid) and bytes of an array.

    The first two are writable copies: Numba compiles again for read-only arrays.
    """
    _, offsets_buffer, data_buffer = array.buffers()
    offsets = np.zeros(1, dtype=np.int64)
    if offsets_buffer is not None and len(array):
        offsets = np.frombuffer(offsets_buffer, np.int64)[array.offset :][: len(array) + 1].copy()
    valid = np.empty(0, dtype=np.uint8)
    if array.null_count:
        valid = np.array(array.is_valid().cast(pa.uint8()))
    return offsets, valid, np.frombuffer(data_buffer or b"", np.uint8)


def _needs_space(array: pa.LargeStringArray, place: int, rule: str) -> npt.NDArray[np.bool_]:
    """Whether each entry needs a space beside its first (``place`` 0) or last (-1) character."""
    stop = 1 if place == 0 else None
    ends = pc.utf8_slice_codeunits(array, place, stop).dictionary_encode()
    needed = np.array([not is_wide(end, rule) for end in ends.dictionary.to_pylist()], np.bool_)
    return needed[np.asarray(ends.indices)]


def _wide_tables(
    array: pa.LargeStringArray,
    lefts: npt.NDArray[np.bool_],
    rights: npt.NDArray[np.bool_],
    chosen: npt.NDArray[np.intp],
    credit: tuple[int, int],
) -> Tables:
    """The tables of the chosen entries, which need spaces where ``lefts`` and ``rights`` say so."""
    spaces = pa.array(["", " "], pa.large_string())
    left, right = (spaces.take(pa.array(side[chosen].astype(np.int8))) for side in (lefts, rights))
    sided = pc.binary_join_element_wise(
        left, array.take(pa.array(chosen)), right, pa.scalar("", pa.large_string())
    )
    if len(sided.unique()) != len(sided):
        raise ValueError("an entry is there twice")
    order = pc.sort_indices(sided)
    offsets, _, data = _parts(sided.take(order))
    ids = chosen[np.asarray(order)].astype(np.uint32)
    return wide_kernel.build_wide_tables(
        data.copy(), offsets, ids, np.array(credit, dtype=np.int64)
    )


def _max_depth(array: pa.LargeStringArray) -> int:
    """The most tokens that an entry has."""
    return int(pc.max(pc.count_substring(array, " ")).as_py() or 0) + 1 if len(array) else 1
