"""A subset of MetaCLIP's NumPy steps: how many matches each entry has left in it.

``INDEX/subset_T/G/N.npy`` has the numbers of the texts that were kept of shard N (of a tar, counted
from 0), ``INDEX/G/N_inverted.npy`` the entries that each of its texts matches, and
``INDEX/entry_count.npy`` the counts of all.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from metacurate.curation.balancing import Counts
from metacurate.errors import UserError
from metacurate.formats.npy import parse_array
from metacurate.runtime.inputs import open_input
from metacurate.runtime.storage import Folder

_FOLDER = re.compile(r"subset_(\d+|inf)")
GROUPS = 100  # of the official layout: a shard is in the folder of its number modulo this
_SHARD = re.compile(r"(\d+)\.npy")
MAX_INDEXED = 1 << 28
"""The most entries of an inverted index: more would need GiB for their counts."""


def subset_threshold(address: str) -> float | None:
    """The threshold that a subset's folder has in its name; None of any other address."""
    found = _FOLDER.fullmatch(address.rstrip("/").rpartition("/")[2])
    return None if found is None or Folder(address).is_file() else float(found[1])


def kept_counts(address: str) -> Counts:
    """The matches of each entry in the kept texts, uint64[last entry that is left + 1].

    Reads a shard at a time. UserError for a folder without shards, and for files that do not belong
    together.
    """
    folder, index = Folder(address), Folder(address.rstrip("/").rpartition("/")[0] or ".")
    total = np.zeros(0, np.uint64)
    names = _shards(folder)
    if not names:
        raise UserError(f"{address} has no files of kept texts (G/N.npy)")
    for name in names:
        subset = load_array(folder.address(name))
        inverted = load_array(index.address(name.removesuffix(".npy") + "_inverted.npy"))
        if not (subset.ndim == 1 and subset.dtype.kind in "iu"):
            raise UserError(f"{folder.address(name)} holds no numbers of texts")
        found = _counts_of(inverted, subset, folder.address(name))
        if found.size > total.size:
            total = np.concatenate([total, np.zeros(found.size - total.size, np.uint64)])
        total[: found.size] += found
    return total


def _counts_of(inverted: npt.NDArray[np.generic], subset: npt.NDArray[np.generic], name: str
               ) -> Counts:  # fmt: skip
    if not is_inverted(inverted):
        raise UserError(f"the _inverted.npy beside {name} holds no entries and texts")
    kept = np.isin(inverted[:, 1], subset)
    if np.unique(inverted[kept, 1]).size != np.unique(subset).size:
        raise UserError(
            f"{name} keeps texts that match nothing in the _inverted.npy of its shard: the two are "
            "not of one run"
        )
    return np.bincount(inverted[kept, 0]).astype(np.uint64)


def is_inverted(array: npt.NDArray[np.generic]) -> bool:
    """Whether an array has rows of an entry and a text."""
    return (
        array.dtype.kind in "iu"
        and array.ndim == 2
        and array.shape[1] == 2
        and array.dtype.itemsize <= 4
        and not (array.size and array.min() < 0)
        and int(array[:, 0].max(initial=0)) < MAX_INDEXED
    )


def load_array(address: str) -> npt.NDArray[np.generic]:
    """An ``.npy`` file; UserError if there is none, or it is damaged."""
    with open_input(address, "file of the index") as file:
        return parse_array(file.read(), address)


def _shards(folder: Folder) -> list[str]:
    """The subset's files by their numbers: in folders of a group's number, or in one folder."""
    found = {}
    for group in ("", *map(str, range(GROUPS))):
        for name in folder.list(group):
            if (shard := _SHARD.fullmatch(name.rpartition("/")[2])) is not None:
                found[int(shard[1])] = f"{group}/{shard[0]}" if group else shard[0]
    return [found[number] for number in sorted(found)]
