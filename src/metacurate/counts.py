"""Counts by reason: as plain JSON, and in words."""

from __future__ import annotations

from collections.abc import Mapping


def counted(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts that are not zero, by plain names (also of an enumeration's members), sorted."""
    return {str(name): number for name, number in sorted(counts.items()) if number}


def in_words(counts: Mapping[str, int]) -> str:
    """The counts that are not zero, for a message: ``3 no_text, 1,200 no_url``."""
    return ", ".join(f"{number:,} {name}" for name, number in counted(counts).items())
