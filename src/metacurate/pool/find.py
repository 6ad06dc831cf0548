"""A pool's files: which ones the inputs name."""

from __future__ import annotations

import os.path
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metacurate.errors import UserError
from metacurate.formats.table import format_of, is_shy, known_suffixes
from metacurate.runtime.storage import Folder, is_local, local_path, resolve

TARS = (".tar", ".tar.gz", ".tgz")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


@dataclass(frozen=True)
class Found:
    """The pool files that the inputs name (sorted), and how many other files lay beside them.

    ``unusable``: (address, reason) of what has a pool file's name but is none; ``hint``: what reads
    the others.
    """

    files: tuple[str, ...]
    ignored: int
    unusable: tuple[tuple[str, str], ...]
    hint: str


def find(inputs: Sequence[str]) -> Found:
    """All pool files that the inputs (files, folders, globs; local or fsspec addresses) name.

    Folders are searched through; names that begin with ``.`` or ``_`` are left out. Of the output
    folder of ``metacurate curate`` the subset is taken. Addresses stay relative if the input is.
    UserError if an input names nothing.
    """
    files: set[str] = set()
    others: set[str] = set()
    unusable: dict[str, str] = {}
    for given in map(_subset, inputs):
        candidates, chosen = _candidates(given)
        known = {c for c in candidates if format_of(c) is not None}
        known = {c for c in known if not is_shy(c)} or known
        hint = _hint(candidates - known)
        if not known and chosen and candidates:
            raise UserError(f"{given} is of no known format{hint}; a pool is {known_suffixes()}")
        bad = {c: reason for c in known if (reason := _why_not(c))}
        if bad and len(bad) == len(known):
            address, reason = min(bad.items())
            raise UserError(f"{_shown(address)} {reason}")
        if not known:
            raise UserError(f"{given}: no pool file found{hint}; a pool is {known_suffixes()}")
        unusable |= {_shown(address): reason for address, reason in bad.items()}
        files |= known - bad.keys()
        others |= candidates - known
    if not files:
        raise UserError("no input was given; name the pool's files, folders or globs")
    others -= files
    return Found(tuple(sorted(files)), len(others), tuple(sorted(unusable.items())), _hint(others))


def _hint(others: set[str]) -> str:
    """What reads files that are no tables, in brackets."""
    names = [name.lower() for name in others]
    if any(name.endswith(TARS) for name in names):
        return " ('metacurate pool ingest' makes a pool of WebDataset tars)"
    if any(name.endswith(IMAGES) for name in names):
        return (
            " (images with their texts become a pool as WebDataset tars: pack them, then "
            "'metacurate pool ingest')"
        )
    return ""


def _why_not(address: str) -> str | None:
    """What is wrong with a file before it is opened, which might wait for ever; None if nothing."""
    try:
        address.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8; rename it"
    if "::" in address or not is_local(address):
        return None
    try:
        mode = local_path(address).stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if local_path(address).is_symlink() else None
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if stat.S_ISREG(mode):
        return None
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return f"is {kinds.get(stat.S_IFMT(mode), 'a device')}, no file; copy its content to a file"


def _shown(address: str) -> str:
    return address.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


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
    if is_local(given) and not filesystem.isdir(path) and os.path.lexists(local_path(given)):
        return {given}, True  # a pipe, a link to nothing
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
