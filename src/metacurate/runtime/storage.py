"""Files and folders, local or on any fsspec filesystem, with all-or-nothing writes.

A file appears under its final name only when it is complete: locally by a rename in the same
folder once its bytes are on the disk, on object stores by one upload of a finished temporary file.
A run that is killed, or whose machine loses power, therefore leaves whole files or none.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec
import orjson

from metacurate.errors import UserError

TEMPORARY_PREFIX = ".tmp-"
# Held by the process that runs in a local folder; says which process that is.
LOCK = ".lock"
# To an object store at a time, from a process: it answers slowly, but many at once.
CONNECTIONS = 64


def is_local(url: str) -> bool:
    """True for plain paths and ``file://`` addresses."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    """The path of a local address."""
    return Path(url.removeprefix("file://"))


def resolve(address: str) -> tuple[Any, str]:
    """The fsspec filesystem of an address and the path there; UserError if it cannot be used."""
    # No listings from a cache: other processes write to the same folders.
    options: dict[str, Any] = {"use_listings_cache": False}
    if address.startswith(("s3://", "s3a://")):
        options["config_kwargs"] = {"max_pool_connections": CONNECTIONS}
    try:
        return fsspec.core.url_to_fs(address, **options)
    except (ImportError, ValueError) as error:  # a package not installed, a protocol unknown
        extra = "; pip install 'metacurate[s3]'" if address.startswith("s3://") else ""
        raise UserError(f"{address}: {' '.join(str(error).split())}{extra}") from None


def storage_failure(error: BaseException) -> str | None:
    """What an object store said if it caused this error (no access, no answer); else None."""
    cause: BaseException | None = error
    while cause is not None:
        homes = {kind.__module__.partition(".")[0] for kind in type(cause).__mro__}
        if homes & STORAGE_PACKAGES:
            return " ".join(str(error).split())
        cause = cause.__cause__
    return None


# Clients of object stores; their errors are most often about addresses, credentials or the network.
STORAGE_PACKAGES = {"aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "s3fs"}


@dataclass(frozen=True)
class Folder:
    """A folder with one run's output; its files go by relative names with ``/`` between parts."""

    url: str

    def address(self, name: str) -> str:
        """The full address of a file in this folder."""
        return f"{self.url.rstrip('/')}/{name}"

    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """A binary file to write that gets its name only if the block ends without an error."""
        address = self.address(name)
        if is_local(address):
            final = local_path(address)
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary = final.with_name(f"{TEMPORARY_PREFIX}{final.name}.{uuid.uuid4().hex}")
            try:
                with temporary.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(final)
            finally:
                temporary.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix="metacurate-") as scratch:
            spooled = Path(scratch) / "file"
            with spooled.open("wb") as file:
                yield file
            filesystem, path = resolve(address)
            filesystem.put_file(str(spooled), path)

    def write_json(self, name: str, value: Any) -> None:
        """Write plain values as indented JSON, keys in the given order."""
        with self.create(name) as file:
            file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def read_json(self, name: str) -> Any:
        """Read a JSON file; None if there is no such file."""
        try:
            with self.open(name) as file:
                return orjson.loads(file.read())
        except FileNotFoundError:
            return None
        except orjson.JSONDecodeError as error:
            raise UserError(
                f"{self.address(name)} is damaged ({error}); remove {self.url} or use another --out"
            ) from None

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading (FileNotFoundError if there is none)."""
        address = self.address(name)
        if is_local(address):
            return local_path(address).open("rb")
        filesystem, path = resolve(address)
        return filesystem.open(path, "rb")

    def exists(self, name: str) -> bool:
        """Whether a file of that name is there."""
        address = self.address(name)
        if is_local(address):
            return local_path(address).exists()
        filesystem, path = resolve(address)
        return bool(filesystem.exists(path))

    def list(self, name: str = "") -> list[str]:
        """The sorted names (relative to this folder) of the files directly in a sub-folder."""
        address = self.address(name) if name else self.url
        if is_local(address):
            path = local_path(address)
            if not path.is_dir():
                return []
            found = [p.name for p in path.iterdir() if p.is_file()]
        else:
            filesystem, remote = resolve(address)
            try:
                listing = filesystem.ls(remote, detail=True)
            except FileNotFoundError:
                return []
            found = [
                entry["name"].rsplit("/", 1)[-1] for entry in listing if entry["type"] == "file"
            ]
        prefix = f"{name}/" if name else ""
        return sorted(prefix + n for n in found if not n.startswith(TEMPORARY_PREFIX))

    def remove(self, name: str) -> None:
        """Remove a file or a whole sub-folder; nothing happens if there is none."""
        filesystem, path = resolve(self.address(name))
        if filesystem.exists(path):
            filesystem.rm(path, recursive=True)
