"""The engine of a given name."""

from __future__ import annotations

from contextlib import AbstractContextManager

from metacurate.errors import UserError
from metacurate.plugins import load_plugin
from metacurate.runtime.engine import Engine
from metacurate.runtime.storage import LOCK, Folder, is_local, local_path


def make_engine(
    name: str, folder: Folder, *, workers: int | None = None, address: str | None = None
) -> AbstractContextManager[Engine]:
    """The engine of that name for a run in ``folder``, to use in a ``with`` block.

    ``name``: ``local``, ``ray``, or an engine of one's own (``metacurate.plugins``): a callable of
    ``folder``, ``workers`` and ``address`` that gives the context manager.
    ``workers``: as many as there are cores if None. ``address``: of a cluster. Raises UserError for
    an unknown name, for an address without a cluster, and if Ray cannot be used.
    """
    return load_plugin("engine", name, ENGINES)(folder, workers, address)


def _local(folder: Folder, workers: int | None, address: str | None) -> AbstractContextManager:
    if address is not None:
        raise UserError("--address is that of a Ray cluster; give --engine ray too")
    from metacurate.runtime.engines.local import LocalEngine

    return LocalEngine(workers)


def _ray(folder: Folder, workers: int | None, address: str | None) -> AbstractContextManager:
    from metacurate.runtime.engines.ray import RayEngine

    local = is_local(folder.url)
    return RayEngine(address, workers, local_path(folder.address(LOCK)) if local else None)


ENGINES = {"local": _local, "ray": _ray}
