"""The engine of a given name."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from metacurate.errors import UserError
from metacurate.runtime.engine import Engine

ENGINES = ("local", "ray")


def make_engine(
    name: str,
    witness: Path | None = None,
    *,
    workers: int | None = None,
    address: str | None = None,
    preload: str | None = None,
) -> AbstractContextManager[Engine]:
    """The engine of that name, to use in a ``with`` block.

    ``workers``: as many as there are cores if None. ``address``: of a Ray cluster. ``witness``: a
    file of the run's local folder, which every machine must see. ``preload``: a module that local
    workers import before they start. Raises UserError for an unknown name, for an address without
    Ray, and if Ray cannot be used.
    """
    if name not in ENGINES:
        raise UserError(f"there is no engine {name!r}; use {' or '.join(ENGINES)}")
    if name == "ray":
        from metacurate.runtime.engines.ray import RayEngine

        return RayEngine(address, workers, witness)
    if address is not None:
        raise UserError("--address is that of a Ray cluster; give --engine ray too")
    from metacurate.runtime.engines.local import LocalEngine

    return LocalEngine(workers, preload)
