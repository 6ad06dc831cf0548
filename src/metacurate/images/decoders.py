"""Worker processes that decode hostile images: one that kills its process harms no other image."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Self

from PIL import Image

from metacurate.images.process import ImageConfig, ProcessedImage, Rejected, process_image


def _start_worker() -> None:
    # Sizes are checked against the configured limit before decoding, so Pillow's own is not needed.
    Image.MAX_IMAGE_PIXELS = None
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: multiprocessing.process.BaseProcess) -> None:
    # An idle worker would outlive a parent that was killed: it waits on a pipe it also holds open.
    parent.join()
    os._exit(1)


class Decoders:
    """A pool of decoding processes for use in one event loop; a context manager."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = self._new_pool(workers)
        self._single: ProcessPoolExecutor | None = None
        self._suspects = asyncio.Lock()

    @staticmethod
    def _new_pool(workers: int) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(workers, context, initializer=_start_worker)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for pool in (self._pool, self._single):
            if pool is not None:
                pool.shutdown(wait=error is None, cancel_futures=True)

    async def process(self, body: bytes, config: ImageConfig) -> ProcessedImage | Rejected:
        """``process_image`` in a worker; an image whose worker dies is rejected, not retried."""
        loop = asyncio.get_running_loop()
        pool = self._pool
        try:
            return await loop.run_in_executor(pool, process_image, body, config)
        except BrokenProcessPool:
            # Some image under way killed its worker, and the pool with it. Each of these images is
            # tried once more, one after the other: only the culprit dies again.
            async with self._suspects:
                if self._pool is pool:
                    self._pool = self._new_pool(self._workers)
                    pool.shutdown(wait=False)
                if self._single is None:
                    self._single = self._new_pool(1)
                try:
                    return await loop.run_in_executor(self._single, process_image, body, config)
                except BrokenProcessPool:
                    self._single.shutdown(wait=False)
                    self._single = None
                    return Rejected("decoder_died")
