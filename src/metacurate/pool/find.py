"""A pool's files: which ones the inputs name."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metacurate.errors import UserError
from metacurate.formats.table import format_of, is_shy, known_suffixes
from metacurate.runtime.storage import Folder, is_local, local_path, resolve


@dataclass(frozen=True)
class Found:
    """The pool files that the inputs name (sorted), and how many other files lay beside them."""

    files: tuple[str, ...]
    ignored: int


def find(inputs: Sequence[str]) -> Found:
    """All pool files that the inputs (files, folders, globs; local or fsspec addresses) name.

    Folders are searched through; names that begin with ``.`` or ``_`` are left out. Of the output
    folder of ``metacurate curate`` the subset is taken. Addresses stay relative if the input is.
    UserError if an input names nothing.
    """
    files: set[str] = set()
    others: set[str] = set()
    for given in map(_subset, inputs):
        candidates, chosen = _candidates(given)
        known = {c for c in candidates if format_of(c) is not None}
        known = {c for c in known if not is_shy(c)} or known
        if not known:
            if chosen and candidates:
                raise UserError(f"{given} is of no known format; a pool is {known_suffixes()}")
            raise UserError(f"{given}: no pool file found; a pool is {known_suffixes()}")
        files |= known
        others |= candidates - known
    if not files:
        raise UserError("no input was given; name the pool's files, folders or globs")
    return Found(tuple(sorted(files)), len(others - files))


def _subset(given: str) -> str:
    folder = Folder(given)
    is_run = "::" not in given and folder.exists("manifest.json") and folder.list("curated")
    return folder.address("curated") if is_run else given


def _candidates(given: str) -> tuple[set[str], bool]:
    """The files that one input names, and whether it names a single file itself."""
    if "::" in given:  # a chained fsspec address: the file itself, with all its parts
        return {given}, True
    filesystem, path = resolve(given)
    if filesystem.isfile(path):
        return {os.path.normpath(local_path(given)) if is_local(given) else given}, True
    found: list[str] = []
    if filesystem.isdir(path):
        found = _below(filesystem, path)
    elif any(character in given for character in "*?["):
        for name, entry in filesystem.glob(path, detail=True).items():
            if _is_hidden(name.rsplit("/", 1)[-1]):
                continue
            found += _below(filesystem, name) if entry["type"] == "directory" else [name]
    if not is_local(given):
        return {filesystem.unstrip_protocol(name) for name in found}, False
    if local_path(given).is_absolute():
        return set(found), False
    return {os.path.relpath(name) for name in found}, False


def _below(filesystem: Any, folder: str) -> list[str]:
    start = len(folder.rstrip("/")) + 1
    return [
        name
        for name in filesystem.find(folder)
        if not any(_is_hidden(part) for part in name[start:].split("/"))
    ]


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "_"))
