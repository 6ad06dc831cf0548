"""Which candidates of a source become entries: the figures of MetaCLIP and of Meta CLIP 2.

Candidates are ranked (occurrences, mutual information, views) and taken from the top: those that
reach the least score, at most so many, at most such a share of what there is.
"""

from __future__ import annotations

from dataclasses import dataclass

from metacurate.arguments import number, whole
from metacurate.errors import ArgumentError

V1, WORLDWIDE = "v1", "worldwide"


@dataclass(frozen=True)
class Limits:
    """What makes a candidate an entry.

    Attributes:
        min_count: Unigrams: least occurrences.
        max_unigrams: Unigrams: the most to take; None for all.
        unigram_share: Unigrams: the most as a share of all distinct words; None for all.
        min_pmi: Bigrams: least mutual information; None for any.
        min_bigram_count: Bigrams: least occurrences; None: as many as the rarest unigram taken
            has, and at least 2.
        best_bigrams: Bigrams: the most to take; None for all.
        bigram_share: Bigrams: the most as a share of the unigrams taken; None for all.
        min_views: Titles: least page views.
        max_titles: Titles: the most to take; None for all.
        title_share: Titles: the most as a share of all distinct titles; None for all.
        colons: Titles: whether they may hold a colon.
    """

    min_count: int
    max_unigrams: int | None
    unigram_share: float | None
    min_pmi: float | None
    min_bigram_count: int | None
    best_bigrams: int | None
    bigram_share: float | None
    min_views: int
    max_titles: int | None
    title_share: float | None
    colons: bool


LIMITS = {
    V1: Limits(100, None, None, 30.0, 1, None, None, 70, None, None, colons=True),
    WORLDWIDE: Limits(1, 251_465, 0.1, None, None, 100_646, 0.4, 1, 61_235, 0.76, colons=False),
}
"""By rule. ``v1`` is English metadata's (arXiv 2309.16671), ``worldwide`` Meta CLIP 2's."""


def most(limit: int | None, share: float | None, of: int) -> int | None:
    """How many may be taken: the smaller of a limit and a share of a number, rounded down."""
    shares = [] if share is None else [int(share * of + 1e-9)]
    return min(([] if limit is None else [limit]) + shares, default=None)


def check_limits(limits: Limits) -> Limits:
    """The limits; ArgumentError if one is out of range."""
    for name in ("min_count", "min_views", "min_bigram_count"):
        if (value := getattr(limits, name)) is not None:
            whole(name, value, 1)
    for name in ("max_unigrams", "best_bigrams", "max_titles"):
        if (value := getattr(limits, name)) is not None:
            whole(name, value, 1)
    for name in ("unigram_share", "bigram_share", "title_share"):
        value = getattr(limits, name)
        if value is not None and not 0 <= number(name, value) <= 1e9:
            raise ArgumentError(f"{{{name}}} must be at least 0, not {{value}}", value=value)
    return limits
