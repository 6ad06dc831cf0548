"""Finding files: which ones the inputs of a command name, and how large they are.

An input is a file, a folder (searched through), a pattern (``*``, ``?``, ``[...]``) or ``@LIST``, a
file of inputs, one a line; each is a local path or the address of any fsspec filesystem. A room
says what it takes by a ``Wanted``.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from glob import iglob
from typing import Any

from metacurate.errors import UserError, first_line
from metacurate.runtime.inputs import open_input
from metacurate.runtime.storage import (
    CONNECTIONS,
    at_store,
    errors_named,
    is_local,
    local_path,
    resolve,
    storage_failure,
)

LIST = "@"
MISSING = (404, 410)
HIDDEN = (".", "__MACOSX")
"""How names begin that are the system's business: ``.DS_Store``, ``._x.jpg``."""


@dataclass(frozen=True, order=True)
class File:
    """A file by its address, its size in bytes, and what prevents its being opened, if anything.

    The address stays relative if the input is.
    """

    address: str
    size: int = 0
    fault: str = ""

    @property
    def shown(self) -> str:
        """The address for a message: what is not UTF-8 in it is escaped."""
        return self.address.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Wanted:
    """Which files a room takes.

    ``what``: one of them, and ``kinds``: what they are, for messages; ``takes``: whether a file is
    one, by its address; ``shy``: whether it is left alone beside others of its folder; ``hint``:
    what reads the files that are not taken (in brackets, with a space before); ``hidden``: how the
    names of files and folders begin that are not looked at.
    """

    what: str
    kinds: str
    takes: Callable[[str], bool]
    shy: Callable[[str], bool] = lambda _: False
    hint: Callable[[Collection[str]], str] = lambda _: ""
    hidden: tuple[str, ...] = HIDDEN


@dataclass(frozen=True)
class Found:
    """The files that the inputs name, without repeats, in the order of their addresses.

    ``unusable``: those that have the name of a wanted one but cannot be opened; ``others``: the
    addresses of those beside them that are not wanted.
    """

    files: tuple[File, ...]
    unusable: tuple[File, ...] = ()
    others: frozenset[str] = field(default_factory=frozenset)

    def require_all(self) -> list[str]:
        """The files' addresses; UserError if one cannot be opened."""
        for file in self.unusable:
            raise UserError(f"{file.shown} {file.fault}")
        return [file.address for file in self.files]


def find_files(inputs: Sequence[str], wanted: Wanted) -> Found:
    """All files that the inputs name. UserError if one of them names nothing that is wanted."""
    files: set[File] = set()
    unusable: set[File] = set()
    others: set[str] = set()
    for given, candidates, is_file in _looked_up(list(expand_lists(inputs)), wanted.hidden):
        taken = [file for file in candidates if wanted.takes(file.address)]
        taken = [file for file in taken if not wanted.shy(file.address)] or taken
        rest = {file.address for file in candidates} - {file.address for file in taken}
        if not taken:
            hint = wanted.hint(rest)
            if is_file and given.startswith(("http://", "https://")):
                hint = hint or " (the address of a web server's folder ends in '/')"
            problem = f"{given} is no" if is_file else f"{given}: no"
            found = "" if is_file else " found"
            raise UserError(f"{problem} {wanted.what}{found}{hint}; {wanted.kinds}")
        usable = [file for file in taken if not file.fault]
        if not usable:
            first = min(taken)
            raise UserError(f"{first.shown} {first.fault}")
        files.update(usable)
        unusable.update(file for file in taken if file.fault)
        others |= rest
    if not files:
        raise UserError("no input was given; name files, folders or patterns")
    others -= {file.address for file in files}
    return Found(tuple(sorted(files)), tuple(sorted(unusable)), frozenset(others))


def expand_lists(inputs: Sequence[str]) -> Iterator[str]:
    """The inputs, with those of an ``@LIST`` in its place. UserError if it cannot be read.

    A list may be compressed, as its suffix tells.
    """
    for given in inputs:
        if not given.startswith(LIST):
            yield given
            continue
        from fsspec.compression import compr
        from fsspec.utils import infer_compression

        address = given.removeprefix(LIST)
        try:
            with open_input(address, "list of inputs") as stored:
                method = infer_compression(address)
                with compr[method](stored, mode="rb") as lines:
                    for line in lines:
                        if text := line.decode("utf-8-sig").strip():
                            yield text
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise UserError(
                f"the list of inputs {address} cannot be read: {first_line(error)}"
            ) from None


def are_small(inputs: Sequence[str], most_bytes: int, most_files: int) -> bool:
    """Whether there are inputs, all local, and they hold no more than that.

    It stops looking at the first file that is too much.
    """
    left = most_files
    for given in expand_lists(inputs):
        if not is_local(given):
            return False
        path = str(local_path(given))
        is_name = os.path.lexists(path)
        if "**" in path and not is_name:
            return False  # at any depth: only looking all of it up would tell
        named = [path] if is_name else list(iglob(path))
        for file in (file for name in named for file in _files_of(name)):
            most_bytes, left = most_bytes - file.size, left - 1
            if most_bytes < 0 or left < 0:
                return False
    return left < most_files


def _files_of(path: str) -> Iterator[File]:
    if not os.path.isdir(path):
        yield _local_file(path)
        return
    for _, file in _walk(path, HIDDEN):
        yield file


def files_below(folder: str, hidden: tuple[str, ...] = HIDDEN) -> dict[str, File]:
    """The files of a folder and those below it, by their names in it (``/`` between parts), sorted.

    Names that begin as ``hidden`` says are left out; links to folders are not followed. UserError
    if there is no such folder, or if a local one cannot be read.
    """
    if is_local(folder):
        if not local_path(folder).is_dir():
            raise UserError(f"there is no folder {folder}")
        found = dict(_walk(str(local_path(folder)), hidden))
    else:
        with at_store(folder) as (filesystem, path):
            entries = _with_sizes(filesystem, filesystem.find(path, detail=True))
        start = len(path.rstrip("/")) + 1
        found = {}
        for place, entry in entries.items():
            name = place[start:]
            if name and not any(part.startswith(hidden) for part in name.split("/")):
                found[name] = _listed_file(filesystem.unstrip_protocol(place), entry)
    return dict(sorted(found.items()))


def _walk(root: str, hidden: tuple[str, ...]) -> Iterator[tuple[str, File]]:
    def refuse(error: OSError) -> None:
        raise UserError(f"the folder {error.filename} cannot be read: {error.strerror}") from None

    for folder, inner, files in os.walk(root, onerror=refuse):
        linked = [name for name in inner if os.path.islink(os.path.join(folder, name))]
        inner[:] = [name for name in inner if not name.startswith(hidden)]
        for name in [*files, *linked]:
            if not name.startswith(hidden):
                path = os.path.join(folder, name)
                yield os.path.relpath(path, root).replace(os.sep, "/"), _local_file(path)


def _looked_up(
    inputs: Sequence[str], hidden: tuple[str, ...]
) -> Iterator[tuple[str, list[File], bool]]:
    """Each input with what it names (``_candidates``), in their order.

    Remote ones are looked up together: a list may name 100,000 files, each of which is a question
    to a store that answers slowly.
    """

    def at_their_store(given: str) -> tuple[list[File], bool]:
        with errors_named(given):
            return _candidates(given, hidden)

    remote = [given for given in inputs if not is_local(given)]
    threads = ThreadPoolExecutor(CONNECTIONS)
    try:
        answers = threads.map(at_their_store, remote)
        for given in inputs:
            yield given, *(_candidates(given, hidden) if is_local(given) else next(answers))
    finally:
        threads.shutdown(cancel_futures=True)  # one that cannot be used ends the rest


def _candidates(given: str, hidden: tuple[str, ...]) -> tuple[list[File], bool]:
    """The files that one input names, and whether it names a single file itself."""
    if is_local(given) and os.path.lexists(path := local_path(given)):
        if path.is_dir():
            found = files_below(given, hidden).values()
            return [replace(file, address=_spelled(file.address, given)) for file in found], False
        return [_local_file(os.path.normpath(path))], True  # also a pipe, a link to nothing
    filesystem, inner = resolve(given)
    if not is_local(given):
        try:
            entry = filesystem.info(inner)
        except FileNotFoundError as error:
            # fsspec calls a server that does not answer, or refuses, a file that is not there.
            cause = error.__cause__
            said = storage_failure(cause) if cause is not None else None
            if said is not None and getattr(cause, "status", None) not in MISSING:
                raise UserError(f"{given} cannot be read: {said}; check the address") from None
            entry = None
        # A web server calls everything a file; the address of its list of files ends in a slash.
        is_folder = entry is not None and (entry["type"] == "directory" or given.endswith("/"))
        if entry is not None and ("::" in given or not is_folder):
            return [_remote_file(given, entry)], True
        if entry is not None:
            return list(files_below(given, hidden).values()), False
    if not any(character in given for character in "*?["):
        raise UserError(f"there is no file or folder {given}")
    matches = filesystem.glob(inner, detail=True)
    matches = {n: e for n, e in matches.items() if not n.rsplit("/", 1)[-1].startswith(hidden)}
    matches = matches if is_local(given) else _with_sizes(filesystem, matches)
    if not matches:
        raise UserError(f"no file or folder matches {given}")
    named: list[File] = []
    for name, entry in matches.items():
        address = _spelled(name, given) if is_local(given) else filesystem.unstrip_protocol(name)
        if entry["type"] == "directory":
            named += files_below(address, hidden).values()
        else:
            named.append(_local_file(address) if is_local(given) else _listed_file(address, entry))
    return named, False


def _with_sizes(filesystem: Any, entries: dict[str, Any]) -> dict[str, Any]:
    """Listed files with the sizes that the list does not tell: a web server's is one of names."""
    unknown = [name for name, entry in entries.items() if entry.get("size") is None]
    unknown = [name for name in unknown if entries[name]["type"] != "directory"]
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        return entries | dict(zip(unknown, threads.map(filesystem.info, unknown), strict=True))


def _spelled(path: str, given: str) -> str:
    """A local path as an input is written: absolute, or relative to the current folder."""
    return path if local_path(given).is_absolute() else os.path.relpath(path)


def _listed_file(address: str, entry: Mapping[str, Any]) -> File:
    """A remote file by its name in a list, where marks of addresses are plain characters."""
    marks = ("::", "?versionId=") if address.startswith(("s3://", "s3a://")) else ("::",)
    for mark in marks:
        if mark in address:
            return File(address, fault=f"has a name with {mark}, a mark of addresses; rename it")
    return _remote_file(address, entry)


def _remote_file(address: str, entry: Mapping[str, Any]) -> File:
    if entry.get("size") is None:
        return File(address, fault="has no size that its storage tells; copy it here")
    return File(address, int(entry["size"]))


def _local_file(path: str) -> File:
    """A local file, looked at before it is opened, which might wait for ever."""
    try:
        path.encode()
        found = os.stat(path)
    except UnicodeEncodeError:
        return File(path, fault="has a name that is not UTF-8; rename it")
    except FileNotFoundError:
        return File(path, fault="is a link to nothing")
    except OSError as error:
        return File(path, fault=f"cannot be read ({error.strerror})")
    if stat.S_ISREG(found.st_mode):
        return File(path, found.st_size)
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    kind = kinds.get(stat.S_IFMT(found.st_mode), "a device")
    return File(path, fault=f"is {kind}, no file; copy its content to a file")
