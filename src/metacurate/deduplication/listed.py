"""A list of the pairs that alone are kept: of uids, keys or URLs, as several tools write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.arrays import UID_LIST_DTYPE, uid_halves, uid_order
from metacurate.errors import UserError
from metacurate.formats.files import fingerprint, open_source
from metacurate.formats.npy import parse_array
from metacurate.pool.uid import WHITESPACE, key_uids, url_uids
from metacurate.runtime.find import Wanted, find_files
from metacurate.runtime.inputs import open_input
from metacurate.runtime.kept import kept
from metacurate.runtime.made import open_made
from metacurate.runtime.storage import Folder, is_local, local_path

LISTED_FILE = "listed/uids.bin"
SUFFIXES = (".npy", ".json", ".txt")
_WANTED = Wanted(
    "list of pairs",
    "a list is .npy (uids), .json (keys) or .txt (keys or URLs)",
    lambda address: address.lower().endswith(SUFFIXES),
)

Uids = np.ndarray
"""Distinct uids in rising order, of ``UID_LIST_DTYPE``."""


def find_lists(inputs: Sequence[str]) -> dict[str, str]:
    """The files of lists that the inputs name, each with a fingerprint of its content."""
    found = {}
    for address in find_files(inputs, _WANTED).require_all():
        with open_source(address) as source:
            found[address] = fingerprint(source)
    return found


def write_listed(folder: Folder, addresses: Sequence[str]) -> tuple[int, int]:
    """Write the uids of all lists into a run's folder; how many they are, and how many are none.

    Memory: 16 bytes a uid, a few times over, and the content of a list of keys or URLs as strings.
    UserError for a file that is no list; a blank key, or a URL that is none, has no uid.
    """
    parts = [_read(address) for address in addresses]
    uids = np.concatenate([np.zeros(0, UID_LIST_DTYPE), *(found for found, _ in parts)])
    uids = uids[uid_order((uids["f0"], uids["f1"]))]
    fresh = np.ones(uids.size, np.bool_)
    fresh[1:] = uids[1:] != uids[:-1]
    uids = uids[fresh]
    with folder.create(LISTED_FILE) as file:
        file.write(uids.tobytes())
    return int(uids.size), sum(without for _, without in parts)


@kept(1)
def read_listed(folder: Folder, name: str) -> Uids:
    """What ``write_listed`` wrote; ``name`` says which lists these are (it is of the key alone)."""
    del name
    if is_local(folder.url):
        path = local_path(folder.address(LISTED_FILE))
        if not path.stat().st_size:
            return np.zeros(0, UID_LIST_DTYPE)
        return np.memmap(path, UID_LIST_DTYPE, mode="r")
    with open_made(folder, LISTED_FILE) as file:
        return np.frombuffer(file.read(), UID_LIST_DTYPE)


def is_listed(uids: pa.FixedSizeBinaryArray, listed: Uids) -> np.ndarray:
    """Whether each uid is in the list, bool[n]; a null is not."""
    found = np.zeros(len(uids), np.bool_)
    there = np.flatnonzero(uids.is_valid().to_numpy(zero_copy_only=False))
    high, low = uid_halves(uids.take(pa.array(there)))
    firsts, seconds = listed["f0"], listed["f1"]
    places = np.searchsorted(firsts, high)
    # Uids that share their first half follow one another; most have one of their own.
    open_ = np.arange(there.size)
    while open_.size:
        at = places[open_]
        inside = at < listed.size
        open_, at = open_[inside], at[inside]
        same = firsts[at] == high[open_]
        open_, at = open_[same], at[same]
        hit = seconds[at] == low[open_]
        found[there[open_[hit]]] = True
        open_ = open_[~hit & (seconds[at] < low[open_])]
        places[open_] += 1
    return found


def _read(address: str) -> tuple[Uids, int]:
    """A list's uids, and how many of its keys and URLs have none."""
    with open_input(address, "list") as file:
        content = file.read()
    lower = address.lower()
    if lower.endswith(".npy"):
        return _array(content, address), 0
    keys = _json(content, address) if lower.endswith(".json") else _lines(content, address)
    are_urls = ["://" in key for key in keys]
    values = pa.array(keys, pa.large_string())
    mask = pa.array(are_urls, pa.bool_())
    parts = [url_uids(values.filter(mask)), key_uids(values.filter(pc.invert(mask)))]
    uids = pa.concat_arrays([part.drop_null() for part in parts])
    found = np.empty(len(uids), UID_LIST_DTYPE)
    found["f0"], found["f1"] = uid_halves(uids) if len(uids) else (0, 0)
    return found, len(keys) - len(uids)


def _array(content: bytes, address: str) -> Uids:
    array = parse_array(content, f"the list {address}")
    if array.dtype != UID_LIST_DTYPE or array.ndim != 1:
        raise UserError(
            f"the list {address} holds no uids (u8,u8), but {array.dtype}{list(array.shape)}"
        )
    return array


def _json(content: bytes, address: str) -> list[str]:
    """The strings of an array, or the names of an object."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the list {address} is no JSON: {error}") from None
    keys: list[Any] = list(value) if isinstance(value, dict | list) else [None]
    try:
        "".join(keys).encode()
    except (TypeError, UnicodeEncodeError):
        raise UserError(
            f"the list {address} is no JSON array of keys, and no object with keys as names"
        ) from None
    return keys


def _lines(content: bytes, address: str) -> list[str]:
    try:
        # Not at what else Unicode calls the end of a line: it may be part of a key.
        lines = str(content, "utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"the list {address} is no UTF-8 text: {error}") from None
    return [key for line in lines if (key := line.strip(WHITESPACE))]
