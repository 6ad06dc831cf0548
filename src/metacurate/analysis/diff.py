"""Comparing two distributions over metadata entries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.analysis.read_counts import Card
from metacurate.curation.settings import json_number
from metacurate.errors import UserError

LISTED_ENTRIES = 20


@dataclass(frozen=True)
class _Aligned:
    """Two sides' counts over the union of their entries, in the entries' order."""

    entries: list[str]
    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]


def compare(first: Card, second: Card, listed: int = LISTED_ENTRIES) -> dict[str, Any]:
    """What sets two data cards apart, as plain JSON values.

    ``before`` and ``after`` (balancing; after only if both cards know it) each have the totals, the
    entries gained (matched only in the second) and lost, the Jensen-Shannon divergence, and the
    ``listed`` entries whose share of all counts changed most. ``parts`` has, if both thresholds are
    known, how many entries changed between head and tail and each side's tail proportion.
    ``languages`` has, with several, each one's totals. UserError if one card has several alone.
    """
    found: dict[str, Any] = {
        "first": first.name,
        "second": second.name,
        "t": [None if card.t is None else json_number(card.t) for card in (first, second)],
        "before": _compare_counts(first.counts, second.counts, listed),
    }
    if first.kept is not None and second.kept is not None:
        found["after"] = _compare_counts(first.kept, second.kept, listed)
    if first.t is not None and second.t is not None:
        found["parts"] = _compare_parts(first, second)
    if first.languages or second.languages:
        found["languages"] = _compare_languages(first, second)
    return found


def _compare_languages(first: Card, second: Card) -> dict[str, dict[str, Any]]:
    """Each language's counts before balancing and thresholds, side by side."""
    if not (first.languages and second.languages):
        one, other = (first, second) if second.languages else (second, first)
        raise UserError(
            f"{one.name} counts the entries of one list, {other.name} those of several languages: "
            "they cannot be compared"
        )
    nothing = Card("", {}, None, None)
    found = {}
    for language in dict.fromkeys([*first.languages, *second.languages]):
        own = [card.languages.get(language, nothing) for card in (first, second)]
        compared = _compare_counts(own[0].counts, own[1].counts, 0)
        found[language] = {
            "t": [None if card.t is None else json_number(card.t) for card in own],
            **{k: compared[k] for k in _LANGUAGE_FACTS},
        }
    return found


_LANGUAGE_FACTS = (
    "match_counts", "entries_matched", "entries_gained", "entries_lost",
    "jensen_shannon_divergence",
)  # fmt: skip


def _aligned(first: Mapping[str, float], second: Mapping[str, float]) -> _Aligned:
    entries = sorted({*first, *second})
    return _Aligned(
        entries,
        np.array([first.get(entry, 0) for entry in entries], np.float64),
        np.array([second.get(entry, 0) for entry in entries], np.float64),
    )


def _compare_counts(
    first: Mapping[str, float], second: Mapping[str, float], listed: int
) -> dict[str, Any]:
    both = _aligned(first, second)
    gained = np.flatnonzero((both.first == 0) & (both.second > 0))
    lost = np.flatnonzero((both.first > 0) & (both.second == 0))
    p, q = _shares(both.first), _shares(both.second)
    # Ties by name: the entries are sorted.
    movers = np.argsort(-np.abs(q - p), kind="stable")[:listed]
    return {
        "match_counts": [_plain(math.fsum(side.values())) for side in (first, second)],
        "entries_matched": [int(np.count_nonzero(side)) for side in (both.first, both.second)],
        "entries_gained": gained.size,
        "entries_lost": lost.size,
        "gained": _largest(both.entries, both.second, gained, listed),
        "lost": _largest(both.entries, both.first, lost, listed),
        "jensen_shannon_divergence": jensen_shannon_divergence(both.first, both.second),
        "movers": [
            {
                "entry": both.entries[i],
                "counts": [_plain(both.first[i]), _plain(both.second[i])],
                "shares": [float(p[i]), float(q[i])],
            }
            for i in movers.tolist()
            if p[i] != q[i]
        ],
    }


def _plain(number: float) -> float:
    """A count as a whole number; a share as it is."""
    return int(number) if number == int(number) else float(number)


def _shares(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    total = counts.sum()
    return counts / total if total else counts


def _largest(
    entries: list[str],
    counts: npt.NDArray[np.float64],
    places: npt.NDArray[np.int64],
    listed: int,
) -> dict[str, float]:
    order = places[np.argsort(-counts[places], kind="stable")][:listed]
    return {entries[i]: _plain(counts[i]) for i in order.tolist()}


def jensen_shannon_divergence(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]
) -> float | None:
    """The divergence in bits of two count vectors: 0 if proportional, 1 if disjoint.

    ``H((p + q) / 2) - (H(p) + H(q)) / 2`` (Lin, 1991); None if one side has no counts.
    """
    p, q = _shares(first), _shares(second)
    if not (p.any() and q.any()):
        return None
    middle = (p + q) / 2
    divergence = 0.0
    for side in (p, q):
        there = side > 0
        divergence += 0.5 * math.fsum(side[there] * np.log2(side[there] / middle[there]))
    return min(max(divergence, 0.0), 1.0)


def _compare_parts(first: Card, second: Card) -> dict[str, Any]:
    both = _aligned(first.counts, second.counts)
    head_first = both.first >= _in_their_order(first.threshold_of, both.entries)
    head_second = both.second >= _in_their_order(second.threshold_of, both.entries)
    kept = _aligned(first.balanced, second.balanced)
    return {
        "head_entries": [int(head_first.sum()), int(head_second.sum())],
        "tail_to_head": int((~head_first & head_second).sum()),
        "head_to_tail": int((head_first & ~head_second).sum()),
        "tail_proportion_before": [
            _tail_share(both.first, head_first), _tail_share(both.second, head_second),
        ],
        "tail_proportion_after": [
            _tail_share(_in_order(kept, both.entries, kept.first), head_first),
            _tail_share(_in_order(kept, both.entries, kept.second), head_second),
        ],
    }  # fmt: skip


def _in_order(
    aligned: _Aligned, entries: list[str], counts: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    values = dict(zip(aligned.entries, counts.tolist(), strict=True))
    return np.array([values.get(entry, 0.0) for entry in entries])


def _in_their_order(thresholds: dict[str, float], entries: list[str]) -> npt.NDArray[np.float64]:
    """The thresholds of entries; infinite for those that the side does not have (they are tail)."""
    return np.array([thresholds.get(entry, math.inf) for entry in entries])


def _tail_share(counts: npt.NDArray[np.float64], head: npt.NDArray[np.bool_]) -> float:
    total = counts.sum()
    return float(counts[~head].sum() / total) if total else 0.0
