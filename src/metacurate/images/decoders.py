"""Child processes that decode hostile images: one that kills its process harms no other image.

The children, and the kernel's bounds on their processor time and memory, are those of
``runtime.isolate``, which says why no library serves.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from metacurate.images.decode import FORMATS, UndecodableImage, decode
from metacurate.images.process import ImageConfig, ProcessedImage, Rejected, process_image
from metacurate.images.reasons import BadImage
from metacurate.needs import needs
from metacurate.runtime.isolate import Isolated, Item, Lost, Result

with needs("images"):
    from PIL import Image

CPU_SECONDS_PER_IMAGE = 20.0
MAX_MEMORY_BYTES = 4 << 30

LOST_REASONS = {Lost.TOOK_TOO_LONG: BadImage.DECODER_TIMED_OUT, Lost.CRASHED: BadImage.DECODER_DIED}

Job = tuple[bytes, ImageConfig]


def process_job(job: Job) -> ProcessedImage | Rejected:
    """``process_image`` as a child runs it."""
    # Sizes are checked against the configured limit before decoding, so Pillow's own is not needed.
    Image.MAX_IMAGE_PIXELS = None
    return process_image(*job)


def isolated(function: Callable[[Item], Result]) -> Isolated[Item, Result]:
    """A child process for a function that decodes an image, with the bounds for one."""
    return Isolated(function, cpu_seconds=CPU_SECONDS_PER_IMAGE, memory_bytes=MAX_MEMORY_BYTES)


@dataclass(frozen=True)
class _Stored:
    """A stored image to decode, and how (see ``decode``)."""

    body: bytes
    formats: tuple[str, ...]
    at_least: int


def _pixels(stored: _Stored) -> np.ndarray | str:
    """uint8[height, width, 3], or the reason why the image cannot be used."""
    try:
        picture = decode(stored.body, formats=stored.formats, at_least=stored.at_least)
    except UndecodableImage as reason:
        return str(reason)
    return np.asarray(picture.image)


# Children of this process that wait for an image.
_idle: list[Isolated[_Stored, np.ndarray | str]] = []
os.register_at_fork(after_in_child=_idle.clear)


@atexit.register
def end_idle() -> None:
    """End the children of this process that wait for an image."""
    while _idle:
        _idle.pop().close()


def decode_isolated(
    body: bytes, *, formats: tuple[str, ...] = FORMATS, at_least: int = 0
) -> Image.Image:
    """``decode`` to RGB in a child process; raises UndecodableImage, whatever the decoder does.

    Threads may call this at the same time: each call under way has a child of its own.
    """
    try:
        child = _idle.pop()
    except IndexError:
        child = isolated(_pixels)
    found = child.map([_Stored(body, formats, at_least)])[0]
    _idle.append(child)
    if isinstance(found, Lost):
        raise UndecodableImage(LOST_REASONS[found])
    if isinstance(found, str):
        raise UndecodableImage(found)
    return Image.fromarray(found)


class Decoders:
    """Decoding processes for use in one event loop; a context manager."""

    def __init__(
        self, workers: int, function: Callable[[Job], ProcessedImage | Rejected] = process_job
    ) -> None:
        self._threads = ThreadPoolExecutor(workers, "decoder")
        self._children = [isolated(function) for _ in range(workers)]
        self._idle: queue.SimpleQueue[Isolated[Job, ProcessedImage | Rejected]]
        self._idle = queue.SimpleQueue()
        for child in self._children:
            self._idle.put(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            for child in self._children:
                child.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in self._children:
            child.close()

    async def process(self, body: bytes, config: ImageConfig) -> ProcessedImage | Rejected:
        """``process_image`` in a child; an image that ends its child is rejected, not retried."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._in_a_child, (body, config))

    def _in_a_child(self, job: Job) -> ProcessedImage | Rejected:
        child = self._idle.get()
        try:
            result = child.map([job])[0]
        finally:
            self._idle.put(child)
        if isinstance(result, Lost):
            return Rejected(LOST_REASONS[result])
        return result
