"""Files of fixed-size records in numbered slices, any run of which is read alone.

The bridge between two stages that cut the same data differently: each shard of the first stage
writes one file with a slice for each shard of the second, which reads its slice of every file.
"""

from __future__ import annotations

import numpy as np

from metacurate.runtime.storage import Folder

_NUMBER = np.dtype("<u8")


def write_slices(
    folder: Folder, name: str, records: np.ndarray, numbers: np.ndarray, n: int
) -> None:
    """Write records whose slice numbers (rising, below ``n``) are given: bounds, then records."""
    bounds = np.searchsorted(numbers, np.arange(n + 1)).astype(_NUMBER)
    with folder.create(name) as file:
        file.write(bounds.tobytes())
        file.write(records.tobytes())


def read_slices(
    folder: Folder, name: str, dtype: np.dtype, first: int, end: int, n: int
) -> np.ndarray:
    """The records (``dtype``) of slices ``first`` to ``end - 1`` of a file with ``n`` slices."""
    return _read(folder, name, dtype, first, end, n)[1]


def read_each_slice(
    folder: Folder, name: str, dtype: np.dtype, first: int, end: int, n: int
) -> list[np.ndarray]:
    """The same, one array a slice."""
    bounds, records = _read(folder, name, dtype, first, end, n)
    return np.split(records, (bounds[1:-1] - bounds[0]).astype(np.int64))


def _read(
    folder: Folder, name: str, dtype: np.dtype, first: int, end: int, n: int
) -> tuple[np.ndarray, np.ndarray]:
    with folder.open(name) as file:
        file.seek(first * _NUMBER.itemsize)
        bounds = np.frombuffer(file.read((end - first + 1) * _NUMBER.itemsize), dtype=_NUMBER)
        start, stop = int(bounds[0]), int(bounds[-1])
        file.seek((n + 1) * _NUMBER.itemsize + start * dtype.itemsize)
        return bounds, np.frombuffer(file.read((stop - start) * dtype.itemsize), dtype=dtype)


def slice_sizes(folder: Folder, name: str, n: int) -> np.ndarray:
    """The number of records (int64[n]) in each slice of a file."""
    with folder.open(name) as file:
        bounds = np.frombuffer(file.read((n + 1) * _NUMBER.itemsize), dtype=_NUMBER)
    return np.diff(bounds.astype(np.int64))
