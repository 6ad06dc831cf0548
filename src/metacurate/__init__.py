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
    "key_uid",
    "load_metadata",
    "make_metadata",
    "pair_keep_probabilities",
    "solve_threshold",
    "solve_threshold_for_size",
    "tail_proportion",
    "url_uid",
]

if TYPE_CHECKING:
    from metacurate.balancing import (
        balance,
        count_entries,
        keep_probabilities,
        pair_keep_probabilities,
        solve_threshold,
        solve_threshold_for_size,
        tail_proportion,
    )
    from metacurate.curation import curate
    from metacurate.errors import UserError
    from metacurate.matching.matcher import Matcher
    from metacurate.metadata.store import Metadata, load_metadata, make_metadata
    from metacurate.pool.schema import PoolConfig
    from metacurate.pool.uid import key_uid, url_uid

_HOMES = {
    "Matcher": "metacurate.matching.matcher",
    "Metadata": "metacurate.metadata.store",
    "PoolConfig": "metacurate.pool.schema",
    "UserError": "metacurate.errors",
    "balance": "metacurate.balancing",
    "count_entries": "metacurate.balancing",
    "curate": "metacurate.curation",
    "keep_probabilities": "metacurate.balancing",
    "key_uid": "metacurate.pool.uid",
    "load_metadata": "metacurate.metadata.store",
    "make_metadata": "metacurate.metadata.store",
    "pair_keep_probabilities": "metacurate.balancing",
    "solve_threshold": "metacurate.balancing",
    "solve_threshold_for_size": "metacurate.balancing",
    "tail_proportion": "metacurate.balancing",
    "url_uid": "metacurate.pool.uid",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command's ``--help`` need not wait for Numba and Arrow."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metacurate' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
