"""Matching as its definition reads; ``kernels.matching`` is the compiled twin tested against it."""

from __future__ import annotations

from collections.abc import Sequence

from metacurate.curation.matching.spacing import spaced


def match_text(text: str, entries: Sequence[str]) -> list[int]:
    """The sorted ids of the entries that occur, between spaces, in the spaced text.

    An entry's id is its position in ``entries``. It scans entry by entry: for tests, not for pools.
    """
    haystack = spaced(text)
    return [entry_id for entry_id, entry in enumerate(entries) if f" {entry} " in haystack]
