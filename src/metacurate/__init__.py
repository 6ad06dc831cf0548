"""metacurate: open, fast, reproducible metadata-curated language-image data.

The entry points: :func:`curate` does it all; :class:`Matcher`, :func:`balance` and
:func:`solve_threshold` are its parts, on arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Matcher", "balance", "curate", "load_metadata", "solve_threshold"]

if TYPE_CHECKING:
    from metacurate.balancing import balance, solve_threshold
    from metacurate.curation import curate
    from metacurate.matching.matcher import Matcher
    from metacurate.metadata.store import load_metadata

_HOMES = {
    "Matcher": "metacurate.matching.matcher",
    "balance": "metacurate.balancing",
    "curate": "metacurate.curation",
    "load_metadata": "metacurate.metadata.store",
    "solve_threshold": "metacurate.balancing",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command's ``--help`` need not wait for Numba and Arrow."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metacurate' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
