"""Child processes that decode hostile images: one that kills its process harms no other image.

The children, and the kernel's bounds on their processor time and memory, are those of
``runtime.isolate``, which says why no library serves.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from PIL import Image

from metacurate.images.process import ImageConfig, ProcessedImage, Rejected, process_image
from metacurate.runtime.isolate import Isolated, Item, Lost, Result

CPU_SECONDS_PER_IMAGE = 20.0
MAX_MEMORY_BYTES = 4 << 30

LOST_REASONS = {Lost.TOOK_TOO_LONG: "decoder_timed_out", Lost.CRASHED: "decoder_died"}

Job = tuple[bytes, ImageConfig]


def process_job(job: Job) -> ProcessedImage | Rejected:
    """``process_image`` as a child runs it."""
    # Sizes are checked against the configured limit before decoding, so Pillow's own is not needed.
    Image.MAX_IMAGE_PIXELS = None
    return process_image(*job)


def isolated(function: Callable[[Item], Result]) -> Isolated[Item, Result]:
    """A child process for a function that decodes an image, with the bounds for one."""
    return Isolated(function, cpu_seconds=CPU_SECONDS_PER_IMAGE, memory_bytes=MAX_MEMORY_BYTES)


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
