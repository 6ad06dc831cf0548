"""The lock of a run's folder on an object store: an object with an owner that shows signs of life.

The lock is created on the condition that there is none, and its owner writes it again every
``BEAT_SECONDS``. Who finds a lock watches it for up to ``WATCH_SECONDS`` (its content: no two
machines need to agree on the time); one that shows no sign of life is taken over, and at once if
its owner was a process of this machine that is gone. The owner notices at the next beat if its lock
was taken, and stops.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from metacurate.errors import ArgumentError, Stopped
from metacurate.runtime.progress import note
from metacurate.runtime.storage import Folder, errors_named, resolve

LOCK = ".lock"
BEAT_SECONDS = 15.0
WATCH_SECONDS = 45.0
SETTLE_SECONDS = 1.0
"""After taking over a lock: time in which another process that took it over too shows."""

# Stores that create an object only if there is none, in one step, through fsspec.
CONDITIONAL = ("s3", "s3a", "gs", "gcs")


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, and which of its beats this is."""

    host: str
    process: int
    token: str
    beat: int

    @property
    def owner(self) -> str:
        """The holder in words."""
        return f"process {self.process} on {self.host}" if self.host else "an unknown process"

    def is_gone(self) -> bool:
        """Whether it was a process of this machine that has ended."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False
        return False


def is_conditional(folder: Folder) -> bool:
    """Whether the store can refuse to create a lock that is there already, in one step."""
    return folder.url.partition("://")[0] in CONDITIONAL


class _Lock:
    """The lock object of a folder."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder.url
        self._filesystem, self._path = resolve(folder.address(LOCK))

    def create(self, holder: Holder) -> bool:
        """Create the lock; False if there is one."""
        content = json.dumps(asdict(holder)).encode()
        try:
            with errors_named(self._folder):
                self._filesystem.pipe_file(self._path, content, mode="create")
        except FileExistsError:
            return False
        return True

    def write(self, holder: Holder) -> None:
        self._filesystem.pipe_file(self._path, json.dumps(asdict(holder)).encode())

    def read(self) -> Holder | None:
        """Who holds the lock; None if there is none."""
        try:
            with errors_named(self._folder):
                content = self._filesystem.cat_file(self._path)
        except FileNotFoundError:
            return None
        try:
            return Holder(**json.loads(content))
        except (ValueError, TypeError):
            return Holder("", 0, "", 0)

    def age(self) -> float:
        """Seconds since the lock was written, by this machine's clock; 0 if it is not known."""
        with suppress(OSError, NotImplementedError):
            with errors_named(self._folder):
                written = self._filesystem.modified(self._path)
            if written.tzinfo is None:
                written = written.replace(tzinfo=UTC)
            return (datetime.now(UTC) - written).total_seconds()
        return 0.0

    def remove(self) -> None:
        with suppress(FileNotFoundError), errors_named(self._folder):
            self._filesystem.rm_file(self._path)


def is_held_remotely(folder: Folder) -> bool:
    """Whether a lock is there that was written not long ago, by this machine's clock."""
    lock = _Lock(folder)
    return lock.read() is not None and lock.age() < WATCH_SECONDS


@contextmanager
def hold_remotely(folder: Folder) -> Iterator[None]:
    """Hold a folder on an object store; ArgumentError naming the holder if another one does."""
    lock = _Lock(folder)
    holder = Holder(socket.gethostname(), os.getpid(), uuid.uuid4().hex, 0)
    while not lock.create(holder):
        found = lock.read()
        if found is None:
            continue  # it ended in between
        if _is_alive(lock, found):
            raise _in_use(folder, found.owner)
        lock.remove()
        if lock.create(holder):
            note(f"{folder.url}: {found.owner} shows no sign of life; its lock is taken over")
            time.sleep(SETTLE_SECONDS)
            break
    now = lock.read()
    if now is None or now.token != holder.token:
        raise _in_use(folder, now.owner if now else "another process")
    heart = _Heart(lock, holder)
    heart.start()
    try:
        _abort_uploads(folder)
        yield
    except KeyboardInterrupt:
        if heart.lost is not None:
            raise Stopped(f"{folder.url} was taken over by {heart.lost}", 15) from None
        raise
    finally:
        heart.stop()
        if heart.lost is None:
            lock.remove()


def _in_use(folder: Folder, owner: str) -> ArgumentError:
    return ArgumentError(
        "{folder} is in use by {who}; wait for it to end or use another {out}",
        folder=folder.url,
        who=owner,
    )


def _is_alive(lock: _Lock, found: Holder) -> bool:
    """Whether a lock's owner shows a sign of life."""
    if found.is_gone():
        return False
    note(f"the folder is locked by {found.owner}: watching for a sign of life, "
         f"up to {WATCH_SECONDS:.0f} s")  # fmt: skip
    end = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_SECONDS / 10))
        now = lock.read()
        if now is None:
            return False
        if now != found:
            return True
    return False


class _Heart:
    """Writes the lock again and again in a thread of its own, as long as it is the holder's."""

    def __init__(self, lock: _Lock, holder: Holder) -> None:
        self.lost: str | None = None
        self._lock, self._holder = lock, holder
        self._stopped = threading.Event()
        self._run = threading.get_ident()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _interrupt(self) -> None:
        """End the run's thread as Ctrl-C does, also where that signal is ignored (nohup)."""
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self._run), ctypes.py_object(KeyboardInterrupt)
        )

    def _beat(self) -> None:
        beat = 0
        while not self._stopped.wait(BEAT_SECONDS):
            beat += 1
            # A store that does not answer is the run's to report; the next beat may succeed.
            with suppress(Exception):
                now = self._lock.read()
                if now is not None and now.token != self._holder.token:
                    self.lost = now.owner
                    self._interrupt()
                    return
                self._lock.write(replace(self._holder, beat=beat))


def _abort_uploads(folder: Folder) -> None:
    """Give up what killed runs had half uploaded below the folder: S3 would keep and charge it."""
    scheme, _, rest = folder.url.partition("://")
    if scheme not in ("s3", "s3a"):
        return
    filesystem, _ = resolve(folder.url)
    bucket, _, prefix = rest.strip("/").partition("/")
    prefix = f"{prefix}/" if prefix else ""
    listed: dict[str, Any] = {"IsTruncated": True}
    after: dict[str, str] = {}
    # Stores that do not list uploads have none to give up.
    with suppress(OSError):
        while listed.get("IsTruncated"):  # a list has 1,000 at most
            listed = filesystem.call_s3(
                "list_multipart_uploads", Bucket=bucket, Prefix=prefix, **after
            )
            marks = ("KeyMarker", "UploadIdMarker")
            after = {mark: listed[f"Next{mark}"] for mark in marks if f"Next{mark}" in listed}
            for upload in listed.get("Uploads", ()):
                filesystem.call_s3(
                    "abort_multipart_upload",
                    Bucket=bucket,
                    Key=upload["Key"],
                    UploadId=upload["UploadId"],
                )
