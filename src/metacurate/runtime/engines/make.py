"""The engine of a given name."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from metacurate.arguments import whole
from metacurate.errors import ArgumentError
from metacurate.plugins import load_plugin
from metacurate.runtime.engine import Engine


def make_engine(
    name: str,
    witness: Path | None = None,
    *,
    workers: int | None = None,
    address: str | None = None,
    preload: str | None = None,
    compiled: bool = False,
) -> AbstractContextManager[Engine]:
    """The engine of that name, to use in a ``with`` block.

    ``name``: ``local``, ``ray``, or an engine of one's own (``metacurate.plugins``): a callable of
    ``workers``, ``address``, ``witness`` and ``preload`` that gives the context manager.
    ``workers``: as many as there are cores if None. ``address``: of a cluster. ``witness``: a file
    of the run's local folder, which every machine must see. ``preload``: a module that workers may
    import before they start. ``compiled``: whether tasks are nearly always in compiled code; few
    workers of the engine ``local`` are then threads. Raises UserError for an unknown name, for an
    address without a cluster, and if Ray cannot be used.
    """
    if workers is not None:
        workers = whole("workers", workers, 1)
    if compiled and name == "local" and address is None:
        from metacurate.runtime.engines.local import available_cores
        from metacurate.runtime.engines.threads import MOST_THREADS, ThreadEngine

        if 1 < (threads := workers or available_cores()) <= MOST_THREADS:
            return ThreadEngine(threads)
    return load_plugin("engine", name, ENGINES)(workers, address, witness, preload)


def _local(
    workers: int | None, address: str | None, _: Path | None, preload: str | None
) -> AbstractContextManager[Engine]:
    if address is not None:
        raise ArgumentError("{address} is that of a Ray cluster; give {engine} ray too")
    from metacurate.runtime.engines.local import LocalEngine

    return LocalEngine(workers, preload)


def _ray(
    workers: int | None, address: str | None, witness: Path | None, _: str | None
) -> AbstractContextManager[Engine]:
    from metacurate.runtime.engines.ray import RayEngine

    return RayEngine(address, workers, witness)


ENGINES = {"local": _local, "ray": _ray}
