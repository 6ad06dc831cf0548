"""Files and folders, local or on any fsspec filesystem, with all-or-nothing writes.

A file appears under its final name only when it is complete: locally by a rename in the same
folder once its bytes are on the disk, on object stores by one upload of a finished temporary file.
A run that is killed, or whose machine loses power, therefore leaves whole files or none.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from inspect import signature
from pathlib import Path
from typing import IO, Any, TypedDict, TypeVar

import orjson
import xxhash

from metacurate.arguments import listed, shown
from metacurate.errors import ArgumentError, UserError
from metacurate.needs import MissingPackageError, needs, needs_package
from metacurate.runtime.cores import waiting
from metacurate.runtime.scratch import scratch_folder

Address = str | os.PathLike[str]
"""A local path or the address of any fsspec filesystem."""

# Where a run's unfinished files are, so that a killed run's can be told from the user's own.
SCRATCH = "state/tmp"
TEMPORARY_NAME = r"\.tmp-.+\.[0-9a-f]{32}"
PIECE_BYTES = 1 << 20
LOCAL = ("file://", "local://")
# Keys may be members of a StrEnum: reasons.
JSON_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
# To an object store at a time, from a process: it answers slowly, but many at once.
CONNECTIONS = 64
READ_AHEAD = 32
Name = TypeVar("Name")
Content = TypeVar("Content")


def is_local(url: str) -> bool:
    """True for plain paths and ``file://`` addresses (``local://``: fsspec's other name)."""
    return "://" not in url or url.startswith(LOCAL)


def as_address(given: Any, name: str = "path") -> str:
    """A path (a string or any ``os.PathLike`` of one) or address as text, with ``~`` expanded.

    ``name`` is the argument's in the ArgumentError that anything else raises.
    """
    address = os.fspath(given) if isinstance(given, str | os.PathLike) else given
    if not isinstance(address, str) or not address or "\0" in address:
        raise ArgumentError(
            f"{{{name}}} must be a path or an address, not {{value}}", value=shown(given)
        )
    if is_local(address):
        for protocol in LOCAL:
            address = address.removeprefix(protocol)
        return os.path.expanduser(address)
    return address


def as_addresses(given: Any, name: str = "paths") -> list[str]:
    """One path or address, or a list of them (see ``as_address``)."""
    if isinstance(given, str | os.PathLike):
        return [as_address(given, name)]
    return [as_address(one, name) for one in listed(name, given, "paths")]


def pinned(address: str) -> str:
    """An address that stays that of the same place when the process changes its folder."""
    return os.path.abspath(as_address(address)) if is_local(address) else address


def split_address(address: Address) -> tuple[str, str]:
    """The folder of a file's address, and the file's name."""
    parent, slash, name = as_address(address).rpartition("/")
    return (parent or "/") if slash else ".", name


def local_path(url: str) -> Path:
    """The path of a local address."""
    return Path(as_address(url))


def resolve(address: str) -> tuple[Any, str]:
    """The fsspec filesystem of an address and the path there; UserError if it cannot be used."""
    import fsspec  # takes a tenth of a second, and is not needed for files of this machine

    address = as_address(address)
    if is_local(address):  # a name of this machine may have "::" in it
        return fsspec.filesystem("file"), os.path.abspath(address)
    # No listings from a cache: other processes write to the same folders.
    options: dict[str, Any] = {"use_listings_cache": False}
    if address.startswith(("s3://", "s3a://")):
        options["config_kwargs"] = {"max_pool_connections": CONNECTIONS}
    try:
        with _needed_for(address):
            _check_chain(address)
            return fsspec.core.url_to_fs(address, **options)
    except MissingPackageError:
        raise
    except (ImportError, ValueError) as error:  # a part of a package's own, a protocol unknown
        raise UserError(f"{address}: {' '.join(str(error).split())}") from None


def _check_chain(address: str) -> None:
    """ValueError if what stands before a ``::`` is no filesystem that reads another one."""
    import fsspec

    for link in address.split("::")[:-1]:
        protocol = link.partition("://")[0]
        kinds = fsspec.get_filesystem_class(protocol).__mro__
        takes = {name for kind in kinds for name in signature(kind.__init__).parameters}
        if not takes & {"fo", "target_protocol"}:
            raise ValueError(
                f"{protocol}:// cannot be chained with '::' to another address; rename what has "
                "'::' in its name"
            )


EXTRA_OF_PROTOCOL = {"hf": "hf", "http": "http", "https": "http", "s3": "s3", "s3a": "s3"}
"""The extra with which the fsspec package of a protocol comes; others are the user's to install."""


def _needed_for(address: str) -> AbstractContextManager[None]:
    """Where the package for an address is imported."""
    protocol = address.rsplit("::", maxsplit=1)[-1].partition("://")[0]
    what = address.replace("{", "{{").replace("}", "}}")
    if extra := EXTRA_OF_PROTOCOL.get(protocol):
        return needs(extra, what)
    from fsspec.registry import known_implementations

    module = known_implementations.get(protocol, {}).get("class", "").partition(".")[0]
    return needs_package(module, what) if module not in ("", "fsspec") else nullcontext()


def open_file(address: Address) -> IO[bytes]:
    """Open a file by its address for reading (FileNotFoundError if there is none)."""
    address = as_address(address)
    if is_local(address):
        return Path(address).open("rb")
    with at_store(address) as (filesystem, path):
        return filesystem.open(path, "rb")


@contextmanager
def at_store(address: str) -> Iterator[tuple[Any, str]]:
    """``resolve``; errors of the block are noted with the address (``errors_named``)."""
    with errors_named(address):
        yield resolve(address)


@contextmanager
def errors_named(address: str) -> Iterator[None]:
    """Note on errors which address they are of: clients of object stores often do not say it."""
    try:
        yield
    except Exception as error:
        if not getattr(error, "__notes__", ()):
            error.add_note(address)
        raise


def storage_failure(error: BaseException) -> str | None:
    """What an object store said if it caused this error (no access, no answer); else None.

    It begins with the address, where that is known (``errors_named``) and not said. Also if its
    client raised it: an address that it does not take, or a server that serves no ranges of bytes,
    is a ValueError.
    """
    cause: BaseException | None = error
    named = ""
    while cause is not None:
        named = named or getattr(cause, "__notes__", [""])[0]
        homes = {kind.__module__.partition(".")[0] for kind in type(cause).__mro__}
        if isinstance(cause, ValueError):
            homes.add(_raised_in(cause))
        if homes & STORAGE_PACKAGES:
            said = " ".join(str(error).split())
            return said if named in said else f"{named}: {said}"
        cause = cause.__cause__
    return None


def _raised_in(error: BaseException) -> str:
    """The package whose code raised an error."""
    place, name = error.__traceback__, ""
    while place is not None:
        name = place.tb_frame.f_globals.get("__name__", "")
        place = place.tb_next
    return name.partition(".")[0]


# Clients of object stores; their errors are most often about addresses, credentials or the network.
STORAGE_PACKAGES = {
    *("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs"),
    *("httpcore", "httpx", "httpx2", "huggingface_hub", "requests", "urllib3"),
}


def read_ahead(folder: Folder, read: Callable[[Name], Content], names: Iterable[Name]
) -> Iterator[Content]:  # fmt: skip
    """What ``read`` gives for each name, in their order.

    Of an object store, which answers slowly but many at once, ``READ_AHEAD`` are asked for at a
    time; no more than so many results wait.
    """
    if is_local(folder.url):
        yield from map(read, names)
        return
    threads = ThreadPoolExecutor(READ_AHEAD)
    asked: deque[Future[Content]] = deque()
    try:
        for name in names:
            asked.append(threads.submit(read, name))
            if len(asked) == READ_AHEAD:
                yield asked.popleft().result()
        while asked:
            yield asked.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


class Written(TypedDict):
    """What a file had when it was written: its size, and its XXH3 checksum of 128 bits in hex."""

    bytes: int
    xxh3: str


def checksum(file: IO[bytes]) -> str:
    """The checksum of the rest of a file."""
    digest = xxhash.xxh3_128()
    while piece := file.read(PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


_RECORD: ContextVar[dict[str, Written] | None] = ContextVar("_RECORD", default=None)


@contextmanager
def recorded() -> Iterator[dict[str, Written]]:
    """Collects the addresses, sizes and checksums of the files that this thread creates."""
    files: dict[str, Written] = {}
    token = _RECORD.set(files)
    try:
        yield files
    finally:
        _RECORD.reset(token)


@contextmanager
def unrecorded() -> Iterator[None]:
    """Files of a run within a run are recorded by that run alone."""
    token = _RECORD.set(None)
    try:
        yield
    finally:
        _RECORD.reset(token)


# Errors of a disk, a quota or a file that is full.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def _told_by_the_disk() -> Iterator[None]:
    """A full disk is told as such: torch.save calls it a position that it did not expect."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in _FULL:
                if cause is error:
                    raise
                raise OSError(cause.errno, cause.strerror) from error
            cause = cause.__cause__ or cause.__context__
        raise


_RUN: ContextVar[str | None] = ContextVar("_RUN", default=None)


@contextmanager
def under_way(run: str) -> Iterator[None]:
    """Unfinished files that this thread writes outside a run's folder are in this run's folder.

    The next run there finds those that a killed one leaves.
    """
    token = _RUN.set(run if is_local(run) else None)
    try:
        yield
    finally:
        _RUN.reset(token)


def _record(address: str, path: Path) -> None:
    if (files := _RECORD.get()) is not None:
        with path.open("rb") as file:
            files[address] = {"bytes": path.stat().st_size, "xxh3": checksum(file)}


def _time_of(entry: Mapping[str, Any]) -> float | None:
    """When a file of a listing was written: stores say it under names of their own."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = entry.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


@dataclass(frozen=True)
class Folder:
    """A folder with one run's output; its files go by relative names with ``/`` between parts."""

    url: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", as_address(self.url))

    def address(self, name: str) -> str:
        """The full address of a file in this folder."""
        return f"{self.url.rstrip('/')}/{name}"

    def name_of(self, address: str) -> str | None:
        """The name of a file of this folder; None for the address of another file."""
        start = self.address("")
        return address.removeprefix(start) if address.startswith(start) else None

    def _temporary(self, final: Path) -> Path:
        """Where a file is written first: in a run's scratch folder, else beside itself."""
        name = f".tmp-{final.name}.{uuid.uuid4().hex}"
        run = _RUN.get()
        if local_path(self.address("manifest.json")).exists():
            run = self.url
        elif run is not None and local_path(run) in final.parents:
            run = None  # it has no manifest yet, and is removed if it gets none
        if run is not None:
            scratch = local_path(Folder(run).address(SCRATCH))
            scratch.mkdir(parents=True, exist_ok=True)
            if scratch.stat().st_dev == final.parent.stat().st_dev:
                return scratch / name
        return final.with_name(name)

    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """A binary file to write that gets its name only if the block ends without an error.

        OSError if the disk is full, whatever a library that writes raises then.
        """
        address = self.address(name)
        if is_local(address):
            final = local_path(address)
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._temporary(final)
            try:
                with _told_by_the_disk(), temporary.open("wb") as file:
                    yield file
                    file.flush()
                    with waiting():
                        os.fsync(file.fileno())
                _record(address, temporary)
                temporary.replace(final)
            finally:
                temporary.unlink(missing_ok=True)
            return
        with scratch_folder() as scratch:
            spooled = scratch / "file"
            with _told_by_the_disk(), spooled.open("wb") as file:
                yield file
            _record(address, spooled)
            with at_store(address) as (filesystem, path), waiting():
                filesystem.put_file(str(spooled), path)

    def write_json(self, name: str, value: Any) -> None:
        """Write plain values as indented JSON, keys in the given order."""
        with self.create(name) as file:
            file.write(orjson.dumps(value, option=JSON_OPTIONS))

    def read_json(self, name: str) -> Any:
        """Read a JSON file; None if there is no such file."""
        try:
            with self.open(name) as file:
                return orjson.loads(file.read())
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError as error:
            raise UserError(
                f"{self.address(name)} is damaged ({error}); remove {self.url} or use another "
                "output folder"
            ) from None

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading (FileNotFoundError if there is none)."""
        return open_file(self.address(name))

    def size(self, name: str) -> int:
        """The size of a file (FileNotFoundError if there is none)."""
        with at_store(self.address(name)) as (filesystem, path):
            return int(filesystem.size(path))

    def exists(self, name: str) -> bool:
        """Whether a file of that name is there."""
        address = self.address(name)
        if is_local(address):
            return local_path(address).exists()
        with at_store(address) as (filesystem, path):
            return bool(filesystem.exists(path))

    def is_file(self, name: str = "") -> bool:
        """Whether that is a file."""
        with at_store(self.address(name) if name else self.url) as (filesystem, path):
            return bool(filesystem.isfile(path))

    def list(self, name: str = "") -> list[str]:
        """The sorted names (relative to this folder) of the files directly in a sub-folder."""
        return sorted(self.sizes(name))

    def sizes(self, name: str = "") -> dict[str, int]:
        """The sizes of the files directly in a sub-folder, by their names in this folder."""
        return {file: size for file, (size, _) in self._files(name).items()}

    def times(self, name: str = "") -> dict[str, float]:
        """When the files directly in a sub-folder were written, in seconds since 1970.

        By their names in this folder; those of which the store does not say it are left out.
        """
        return {file: at for file, (_, at) in self._files(name).items() if at is not None}

    def _files(self, name: str) -> dict[str, tuple[int, float | None]]:
        address = self.address(name) if name else self.url
        prefix = f"{name}/" if name else ""
        found: dict[str, tuple[int, float | None]]
        if is_local(address):
            try:
                with os.scandir(local_path(address)) as entries:
                    stats = {e.name: e.stat() for e in entries if e.is_file()}
            except (FileNotFoundError, NotADirectoryError):
                return {}
            found = {file: (stat.st_size, stat.st_mtime) for file, stat in stats.items()}
        else:
            try:
                with at_store(address) as (filesystem, remote):
                    listing = filesystem.ls(remote, detail=True)
            except FileNotFoundError:
                return {}
            found = {
                entry["name"].rsplit("/", 1)[-1]: (entry["size"], _time_of(entry))
                for entry in listing
                if entry["type"] == "file"
            }
        return {
            prefix + file: facts for file, facts in found.items() if not file.startswith(".tmp-")
        }

    def remove(self, name: str) -> None:
        """Remove a file or a whole sub-folder; nothing happens if there is none."""
        address = self.address(name)
        if is_local(address):
            path = local_path(address)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            return
        with at_store(address) as (filesystem, remote):
            if filesystem.exists(remote):
                filesystem.rm(remote, recursive=True)


def create_file(address: Address) -> AbstractContextManager[IO[bytes]]:
    """A file to write by its address, as ``Folder.create``."""
    folder, name = split_address(address)
    return Folder(folder).create(name)
