"""Opening a run: one way into the output folder of every stage.

``open_run`` resolves the output and the inputs, refuses an output that overlaps an input, takes the
folder's lock, removes what a killed run left unfinished and starts the engine.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypedDict

from filelock import FileLock, Timeout

from metacurate.errors import ArgumentError, UserError
from metacurate.runtime.engine import Engine
from metacurate.runtime.engines.make import make_engine
from metacurate.runtime.find import are_small, expand_lists
from metacurate.runtime.manifest import MANIFEST
from metacurate.runtime.progress import Listener, is_noting, note, reporting
from metacurate.runtime.remote_lock import LOCK, hold_remotely, is_conditional, is_held_remotely
from metacurate.runtime.storage import (
    SCRATCH,
    TEMPORARY_NAME,
    Address,
    Folder,
    as_address,
    is_local,
    local_path,
    resolve,
    under_way,
    unrecorded,
)
from metacurate.runtime.tracking import tracking

# Held by the process that runs in a local folder; the other file says which process that is.
HOLDER = ".lock-holder"
LOOK_SECONDS = 0.3
HUB = "hf://"
READ_ONLY = ("http://", "https://", HUB)
"""Stores that are read only: web servers, and Hugging Face's, where each file would be a commit."""
SMALL_BYTES, SMALL_FILES = 8 << 20, 64
"""Of so little a compiled stage is done before others would have started to help."""


@dataclass(frozen=True)
class Run:
    """Where and how stages run.

    Attributes:
        folder: The output folder; this process holds it (``open_run``).
        engine: Runs shard functions.
        overwrite: Whether results with other settings are removed; else they are a UserError.
        show_progress: Whether progress is shown on standard error or in a notebook.
        provisional: Names of files or sub-folders that go again if no stage begins.
    """

    folder: Folder
    engine: Engine
    overwrite: bool = False
    show_progress: bool = False
    provisional: list[str] = field(default_factory=list, compare=False)


class ReadOptions(TypedDict, total=False):
    """How what only reads a run goes: the same words for every function and command.

    ``engine``: ``"local"``, ``"ray"``, another engine's name or an engine; ``address``: of a Ray
    cluster; ``workers``: shards at a time, all cores if not given; ``show_progress``: show notes
    and progress on standard error or in a notebook, as the command does (where logging is set up,
    lines go to the logger ``metacurate`` alone); ``progress``: a function that is called with a
    ``Progress`` after each shard, in the thread of the call.
    """

    engine: str | Engine
    address: str | None
    workers: int | None
    show_progress: bool
    progress: Listener | None


class RunOptions(ReadOptions, total=False):
    """How any stage runs.

    As ``ReadOptions``, and ``overwrite``: redo what the output folder holds, finished or with other
    settings, instead of taking it or refusing; ``log_to``: log settings, numbers and totals to
    ``wandb:PROJECT`` or ``mlflow:EXPERIMENT`` (extras ``wandb`` and ``mlflow``), or to both.
    """

    overwrite: bool
    log_to: Sequence[str]


@contextmanager
def open_run(
    out: Address,
    *,
    inputs: Sequence[Address] = (),
    engine: str | Engine = "local",
    address: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    log_to: Sequence[str] = (),
    show_progress: bool = False,
    progress: Listener | None = None,
    preload: str | None = None,
    existing: bool = False,
    compiled: bool = False,
    held: int | None = 0,
) -> Iterator[Run]:
    """A run in the folder ``out``, which is this process's alone for the time of the block.

    Args:
        out: The output folder, a local path or any fsspec address.
        inputs: Files, folders, patterns and lists that the run reads (``find``); none may overlap
            ``out``.
        engine: The name of an engine, or one that is running (it then stays open).
        address: Of a Ray cluster.
        workers: Shards at a time; if None all cores, or this process alone if the run is
            ``compiled``, local, and its inputs small.
        overwrite: See ``Run``.
        log_to: See ``RunOptions``.
        show_progress: See ``Run``.
        progress: See ``RunOptions``.
        preload: A module that local workers import before they start.
        existing: Whether the folder must be there already: this goes on with another's run.
        compiled: Whether its tasks are nearly always in compiled code (see ``make_engine``), and a
            second is enough for inputs of ``SMALL_BYTES``.
        held: The bytes of a pool in memory that the run reads as well; None if nobody knows.

    Raises:
        UserError: ``out`` overlaps an input, is in use, or cannot be written; no such engine.
    """
    folder = Folder(as_address(out, "out"))
    try:
        folder.url.encode()
    except UnicodeEncodeError:
        raise ArgumentError(
            "{out} {value} is not UTF-8; choose another", value=folder.url
        ) from None
    _refuse_read_only(folder.url, "out")
    if existing:
        require(folder)
    sources = [as_address(given, "inputs") for given in inputs]
    for given in expand_lists(sources):
        refuse_overlap(folder.url, given)
    with ExitStack() as stack:
        stack.enter_context(reporting(show_progress, progress))
        if is_noting() and not is_local(folder.url) and not is_conditional(folder):
            note(
                f"{folder.url}: this store cannot refuse a second lock in one step: see to it that "
                "no two runs start in one folder at the same moment"
            )
        stack.enter_context(unrecorded())
        stack.enter_context(hold(folder))
        stack.enter_context(under_way(folder.url))
        if log_to:
            stack.enter_context(tracking(log_to, out=folder.url))
        if isinstance(engine, str):
            witness = local_path(folder.address(HOLDER)) if is_local(folder.url) else None
            if compiled and workers is None and engine == "local":
                workers = 1 if _are_small(sources, held) else None
            engine = stack.enter_context(
                make_engine(
                    engine, witness, workers=workers, address=address, preload=preload,
                    compiled=compiled,
                )
            )  # fmt: skip
        run = Run(folder, engine, overwrite, show_progress)
        stack.callback(_remove_provisional, run)
        yield run


def _are_small(sources: Sequence[str], held: int | None) -> bool:
    """Whether it is known that files and a pool in memory are no more than ``SMALL_BYTES``."""
    if held is None or held > SMALL_BYTES:
        return False
    return are_small(sources, SMALL_BYTES, SMALL_FILES) if sources else held > 0


def check_writable(address: str, name: str = "out", inputs: Sequence[object] = ()) -> None:
    """ArgumentError if no file can be written there: what is written last is asked for first.

    ``name`` is the argument's. ``inputs``: none that is a file's path or address may be replaced.
    Nothing is made.
    """
    files = [as_address(each) for each in inputs if isinstance(each, str | os.PathLike) and each]
    if _canonical(address) in map(_canonical, files):
        raise ArgumentError(
            f"{{{name}}} {{value}} is read too: it would be lost; choose another file",
            value=address,
        )
    _refuse_read_only(address, name)
    if not is_local(address):
        resolve(address)  # says which package is missing
        return
    path = local_path(address)
    if path.is_dir():
        raise ArgumentError(f"{{{name}}} {{value}} is a folder; name a file", value=address)
    place = next(parent for parent in path.absolute().parents if parent.exists())
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise ArgumentError(
            f"{{{name}}} {{value}}: nothing can be written to {{place}}; choose another place",
            value=address,
            place=str(place),
        )


def _refuse_read_only(address: str, name: str) -> None:
    if address.startswith(READ_ONLY):
        publish = ", and publish what 'metacurate card' names" * address.startswith(HUB)
        raise ArgumentError(
            f"{{{name}}} {{value}} cannot be written to; choose a folder or an object "
            "store{publish}",
            value=address,
            publish=publish,
        )


def _remove_provisional(run: Run) -> None:
    if run.provisional and not run.folder.exists(MANIFEST):
        for name in run.provisional:
            run.folder.remove(name)


@contextmanager
def read_run(
    folder: Address,
    *,
    engine: str | Engine = "local",
    address: str | None = None,
    workers: int | None = None,
    show_progress: bool = False,
    progress: Listener | None = None,
) -> Iterator[Run]:
    """A run that is only read: it is not held, and nothing may be written. Else as ``open_run``."""
    opened = Folder(as_address(folder))
    require(opened)
    with ExitStack() as stack:
        stack.enter_context(reporting(show_progress, progress))
        if isinstance(engine, str):
            engine = stack.enter_context(make_engine(engine, workers=workers, address=address))
        yield Run(opened, engine, show_progress=show_progress)


def require(folder: Folder) -> None:
    """Raise UserError if a local folder is not there."""
    if is_local(folder.url) and not local_path(folder.url).is_dir():
        raise UserError(f"there is no folder {folder.url}; give the output folder of a run")


@contextmanager
def hold(folder: Folder) -> Iterator[None]:
    """Hold a run's folder for this process; UserError naming the holder if another one has it.

    The lock is the kernel's (it ends with the process, kill -9 included); on object stores it is
    an object (``remote_lock``). Where the block leaves no manifest, it leaves nothing: the lock and
    the folders made for it are removed.
    """
    if not is_local(folder.url):
        with hold_remotely(folder):
            yield
        return
    path = local_path(folder.url)
    # A folder with a lock was made by a run that was killed.
    made = [
        p for p in (path, *path.parents) if not p.exists() or (p == path and (p / LOCK).exists())
    ]
    path.mkdir(parents=True, exist_ok=True)
    # Who looks whether it is held (``is_held``) has it for an instant.
    lock, holder = FileLock(path / LOCK, timeout=LOOK_SECONDS, thread_local=False), path / HOLDER
    try:
        lock.acquire()
    except Timeout:
        raise _in_use(folder) from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        _remove_unfinished(folder)
        yield
    finally:
        holder.unlink(missing_ok=True)
        if (path / MANIFEST).exists():
            _remove_unfinished(folder)
        else:
            (path / LOCK).unlink(missing_ok=True)
            for folder_made in made:
                if any(folder_made.iterdir()):
                    break
                folder_made.rmdir()
        lock.release()


def _in_use(folder: Folder) -> UserError:
    try:
        who = local_path(folder.address(HOLDER)).read_text()
    except OSError:
        who = ""
    return UserError(
        f"{folder.url} is in use by {who or 'another process'}; "
        "wait for it to end or use another output folder"
    )


@contextmanager
def hold_if_writable(folder: Folder) -> Iterator[bool]:
    """As ``hold``, and True; False, and not held, where this user may write nothing.

    UserError if another process has it.
    """
    path = local_path(folder.url) if is_local(folder.url) else None
    places = (path, path / LOCK) if path else ()
    if all(os.access(place, os.W_OK) for place in places if place.exists()):
        with hold(folder):
            yield True
        return
    if is_held(folder):
        raise _in_use(folder)
    yield False


def is_held(folder: Folder) -> bool:
    """Whether a process holds a run's folder."""
    if not is_local(folder.url):
        return is_held_remotely(folder)
    # Open for reading, and shared: who looks may be another user, or at the same time as others.
    try:
        with (local_path(folder.url) / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks, or another user's run that is not to be read
        return (local_path(folder.url) / HOLDER).exists()
    return False


def _remove_unfinished(folder: Folder) -> None:
    """Remove what a killed run was writing: only files that go by this program's names.

    They are in its own sub-folder, but for a first manifest, which makes the folder a run's.
    """
    first = rf"\.tmp-{re.escape(MANIFEST)}\.[0-9a-f]{{32}}"
    for name, pattern in ((SCRATCH, TEMPORARY_NAME), ("", first)):
        place = local_path(folder.address(name) if name else folder.url)
        for path in place.iterdir() if place.is_dir() else ():
            if re.fullmatch(pattern, path.name) and path.is_file():
                path.unlink()


def refuse_overlap(out: str, given: str) -> None:
    """Raise UserError if an output folder overlaps an input, under whatever spelling or link.

    An output in an input folder would be read as input by the next run; an input in an output
    folder might be replaced. Only a file that lies directly in the output folder is allowed.
    """
    wild = min((given.find(c) for c in "*?[" if c in given), default=-1)
    root = given if wild < 0 else given[:wild].rpartition("/")[0] or "."
    target, source = _canonical(out), _canonical(root)
    if target != source and not target.startswith(source.rstrip("/") + "/"):
        inside = source.startswith(target.rstrip("/") + "/")
        directly = source.rpartition("/")[0] == target.rstrip("/")
        if not inside or (directly and wild < 0 and Folder(target).is_file(source)):
            return
    raise UserError(f"the output {out} overlaps the input {given}; choose another output folder")


def _canonical(address: str) -> str:
    """One spelling of an address: links, ``.``, ``..`` and repeated slashes resolved."""
    if is_local(address):
        return os.path.realpath(local_path(address))
    scheme, _, rest = address.partition("://")
    path = posixpath.normpath("/" + rest.lstrip("/"))
    return {"s3a": "s3"}.get(scheme, scheme) + ":/" + path
