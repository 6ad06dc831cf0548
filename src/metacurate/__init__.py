"""metacurate: open, fast, reproducible metadata-curated language-image data.

``curate`` does it all; the other names are its parts, on arrays (docs/python-api.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metacurate.curation.balancing import (
        balance,
        count_entries,
        keep_probabilities,
        pair_keep_probabilities,
        solve_threshold,
        solve_threshold_for_size,
        tail_proportion,
    )
    from metacurate.curation.matching.matcher import Matcher
    from metacurate.errors import UserError
    from metacurate.metadata.merge import merge_metadata
    from metacurate.metadata.store import Metadata, load_metadata, make_metadata
    from metacurate.pipeline import curate
    from metacurate.pool.schema import PoolConfig
    from metacurate.pool.uid import key_uid, url_uid
    from metacurate.sharing.card import write_card

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
    "merge_metadata",
    "pair_keep_probabilities",
    "solve_threshold",
    "solve_threshold_for_size",
    "tail_proportion",
    "url_uid",
    "write_card",
]
_HOMES = {
    "Matcher": "metacurate.curation.matching.matcher",
    "Metadata": "metacurate.metadata.store",
    "PoolConfig": "metacurate.pool.schema",
    "UserError": "metacurate.errors",
    "balance": "metacurate.curation.balancing",
    "count_entries": "metacurate.curation.balancing",
    "curate": "metacurate.pipeline",
    "keep_probabilities": "metacurate.curation.balancing",
    "key_uid": "metacurate.pool.uid",
    "load_metadata": "metacurate.metadata.store",
    "make_metadata": "metacurate.metadata.store",
    "merge_metadata": "metacurate.metadata.merge",
    "pair_keep_probabilities": "metacurate.curation.balancing",
    "solve_threshold": "metacurate.curation.balancing",
    "solve_threshold_for_size": "metacurate.curation.balancing",
    "tail_proportion": "metacurate.curation.balancing",
    "url_uid": "metacurate.pool.uid",
    "write_card": "metacurate.sharing.card",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command's ``--help`` need not wait for Numba and Arrow."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metacurate' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
