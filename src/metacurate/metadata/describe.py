"""What metadata consists of, in a few facts."""

from __future__ import annotations

from collections import Counter
from typing import TypedDict

import pyarrow as pa

from metacurate.metadata.store import Metadata


class Description(TypedDict):
    """Size, fingerprint, entries by source and language, and the first and last entries."""

    entries: int
    fingerprint: str
    sources: dict[str, int]
    languages: dict[str, int]
    first: list[str]
    last: list[str]


def describe(metadata: Metadata, shown: int) -> Description:
    """What metadata consists of, with the first and last ``shown`` entries."""
    return {
        "entries": len(metadata),
        "fingerprint": metadata.fingerprint,
        "sources": _counts(metadata.source),
        "languages": _counts(metadata.lang),
        "first": metadata.entries.slice(0, shown).to_pylist(),
        "last": metadata.entries.slice(max(0, len(metadata) - shown)).to_pylist() if shown else [],
    }


def _counts(column: pa.StringArray | None) -> dict[str, int]:
    """How often each value occurs, in order of first appearance; nulls as ``unknown``."""
    if column is None:
        return {}
    return dict(Counter(column.fill_null("unknown").to_pylist()))
