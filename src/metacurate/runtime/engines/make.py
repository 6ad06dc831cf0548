"""The engine of a given name."""

from __future__ import annotations

from contextlib import AbstractContextManager

from metacurate.errors import UserError
from metacurate.runtime.engine import Engine
from metacurate.runtime.storage import LOCK, Folder, is_local, local_path

ENGINES = ("local", "ray")


def make_engine(
    name: str, folder: Folder, *, workers: int | None = None, address: str | None = None
) -> AbstractContextManager[Engine]:
    """The engine of that name for a run in ``folder``, to use in a ``with`` block.

    ``workers``: as many as there are cores if None. ``address``: of a Ray cluster. Raises UserError
    for an unknown name, for an address without Ray, and if Ray cannot be used.
    """
    if name not in ENGINES:
        raise UserError(f"there is no engine {name!r}; use {' or '.join(ENGINES)}")
    if name == "ray":
        from metacurate.runtime.engines.ray import RayEngine

        local = is_local(folder.url)
        return RayEngine(address, workers, local_path(folder.address(LOCK)) if local else None)
    if address is not None:
        raise UserError("--address is that of a Ray cluster; give --engine ray too")
    from metacurate.runtime.engines.local import LocalEngine

    return LocalEngine(workers)
