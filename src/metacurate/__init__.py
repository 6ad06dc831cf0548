"""metacurate: open, fast, reproducible metadata-curated language-image data.

``curate`` does it all; the other names are its parts, on arrays (docs/python-api.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Matcher",
    "Metadata",
    "PoolConfig",
    "UserError",
    "balance",
    "count_entries",
    "curate",
    "keep_probabilities",
    "load_metadata",
    "make_metadata",
    "solve_threshold",
    "solve_threshold_for_size",
    "tail_proportion",
]

if TYPE_CHECKING:
    from metacurate.balancing import (
        balance,
        count_entries,
        keep_probabilities,
        solve_threshold,
        solve_threshold_for_size,
        tail_proportion,
    )
    from metacurate.curation import curate
    from metacurate.errors import UserError
    from metacurate.matching.matcher import Matcher
    from metacurate.metadata.store import Metadata, load_metadata, make_metadata
    from metacurate.pool.schema import PoolConfig

_HOMES = {
    "Matcher": "metacurate.matching.matcher",
    "Metadata": "metacurate.metadata.store",
    "PoolConfig": "metacurate.pool.schema",
    "UserError": "metacurate.errors",
    "balance": "metacurate.balancing",
    "count_entries": "metacurate.balancing",
    "curate": "metacurate.curation",
    "keep_probabilities": "metacurate.balancing",
    "load_metadata": "metacurate.metadata.store",
    "make_metadata": "metacurate.metadata.store",
    "solve_threshold": "metacurate.balancing",
    "solve_threshold_for_size": "metacurate.balancing",
    "tail_proportion": "metacurate.balancing",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command's ``--help`` need not wait for Numba and Arrow."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metacurate' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
