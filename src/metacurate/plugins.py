"""What users add: functions and classes found by entry point, or as ``module:name``."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from metacurate.errors import UserError, first_line
from metacurate.needs import MissingPackageError

Made = TypeVar("Made", bound=Callable)

_GROUPS = {
    "engine": "engines",
    "evaluation task": "tasks",
    "format": "formats",
    "language identifier": "identifiers",
    "metadata source": "metadata_sources",
    "scorer": "scorers",
    "segmenter": "segmenters",
    "text rule": "text_rules",
}
GROUPS = {what: f"metacurate.{group}" for what, group in _GROUPS.items()}
"""What can be added by a package of one's own, and its group of entry points."""


def load_plugin(
    what: str, name: str, shipped: Mapping[str, Made], *, also: Iterable[str] = ()
) -> Made:
    """The callable of that name: one that is shipped, an entry point, or ``module:name``.

    ``what`` is a key of ``GROUPS``; ``also``: names that the caller knows by itself. Modules are
    looked for in the current folder too, as for ``python -m``. UserError if there is none, naming
    those there are, or if it cannot be imported.
    """
    if name in shipped:
        return shipped[name]
    module, colon, attribute = name.partition(":")
    points = entry_points(group=GROUPS[what])
    if name in points.names:
        point = points[name]
    elif colon and module and attribute:
        point = EntryPoint(name, name, GROUPS[what])
    else:
        known = [*sorted({*shipped, *points.names, *also}), "MODULE:NAME"]
        raise UserError(f"there is no {what} {name!r}; known are {', '.join(known)}")
    found = _load(what, point)
    if not callable(found):
        raise UserError(f"the {what} {name!r} cannot be called: it must be a function or a class")
    return found


def plugin_names(what: str) -> set[str]:
    """The names of what packages add of one kind."""
    return set(entry_points(group=GROUPS[what]).names)


def load_all(what: str) -> dict[str, Any]:
    """All that packages add of one kind, by name. UserError if one cannot be imported."""
    return {point.name: _load(what, point) for point in entry_points(group=GROUPS[what])}


def _load(what: str, point: EntryPoint) -> Any:
    sys.path.insert(0, "")
    try:
        return functools.reduce(
            getattr, point.attr.split("."), importlib.import_module(point.module)
        )
    except MissingPackageError:
        raise
    except Exception as error:
        raise UserError(
            f"the {what} {point.name!r} cannot be loaded: {first_line(error)}"
        ) from None
    finally:
        sys.path.remove("")
