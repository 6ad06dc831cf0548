"""Uids, lists and other libraries' columns as arrays."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# The two 64-bit halves (high, low) of uids, each uint64[rows]: their order is the uids' byte order.
Halves = tuple[np.ndarray, np.ndarray]

UID_LIST_DTYPE = np.dtype("u8,u8")
"""Of uids in a file: ``f0`` is the number of the first 16 hex digits, ``f1`` that of the others."""


@runtime_checkable
class ArrowStream(Protocol):
    """What Arrow, pandas, Polars, DuckDB and others export their tables as."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A stream of Arrow arrays (the Arrow PyCapsule interface)."""
        ...


@runtime_checkable
class ArrowArray(Protocol):
    """What Arrow and others export single arrays and batches as."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> tuple[object, object]:
        """An Arrow array and its schema (the Arrow PyCapsule interface)."""
        ...


def exported(values: Any) -> Any:
    """What a library exports by Arrow's interface, as an Arrow array; other values as they are."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, ArrowStream):
        return pa.chunked_array(values)
    return pa.array(values) if isinstance(values, ArrowArray) else values


def uid_halves(uids: pa.FixedSizeBinaryArray) -> Halves:
    """The halves of a column of 16-byte uids without nulls."""
    raw = np.frombuffer(uids.buffers()[1], dtype=">u8")
    pairs = raw[2 * uids.offset : 2 * (uids.offset + len(uids))].reshape(-1, 2)
    native = pairs.astype(np.uint64)
    return np.ascontiguousarray(native[:, 0]), np.ascontiguousarray(native[:, 1])


def ranges_to_indices(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The concatenation (int64) of ``arange(start, start + length)`` over all ranges."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    shift = starts.astype(np.int64) - (ends - lengths)
    return np.arange(total, dtype=np.int64) + np.repeat(shift, lengths)


def uid_order(halves: Halves) -> np.ndarray:
    """Stable row order (int64) by uid: rows of one uid stay in the order in which they came."""
    high, low = halves
    # The first bits of a uid with the row's number behind them: sorting numbers is much faster than
    # sorting positions by numbers, and of equal ones the earlier row comes first.
    row_bits = np.uint64(max(len(high) - 1, 0).bit_length())
    rows = (np.uint64(1) << row_bits) - np.uint64(1)
    keys = high & ~rows
    keys |= np.arange(len(high), dtype=np.uint64)
    keys.sort()
    order = (keys & rows).astype(np.int64)
    high, low = high[order], low[order]
    # Rows of one uid tie in all bits. Different uids that share the first ones may stand anyhow.
    tied = (keys[1:] ^ keys[:-1]) <= rows
    if np.any(tied & ((high[1:] != high[:-1]) | (low[1:] != low[:-1]))):
        return np.lexsort((halves[1], halves[0]))
    return order


def offsets_of(lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Where lists with these lengths start in their values, and the end: int64[n + 1]."""
    lengths = np.asarray(lengths)
    offsets = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def list_offsets(lengths: npt.ArrayLike) -> pa.Int32Array:
    """``offsets_of`` as Arrow's lists take them."""
    return pa.array(offsets_of(lengths), pa.int32())
