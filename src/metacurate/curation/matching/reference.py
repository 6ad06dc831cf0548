"""Matching as its definition reads; ``kernels.matching`` is the compiled twin tested against it."""

from __future__ import annotations

from collections.abc import Sequence

from metacurate.curation.matching.spacing import V1, sided, spaced_by


def match_text(text: str, entries: Sequence[str], rule: str = V1) -> list[int]:
    """The sorted ids of the entries that occur in the spaced text, by a rule of ``spacing.RULES``.

    An entry's id is its position in ``entries``. It scans entry by entry: for tests, not for pools.
    """
    haystack = spaced_by(rule, text)
    return [number for number, entry in enumerate(entries) if sided(rule, entry) in haystack]
