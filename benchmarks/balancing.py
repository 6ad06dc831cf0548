"""Draws per second on one core: every (pair, entry) drawn, and as balancing does it."""

from __future__ import annotations

import time

import numpy as np

from metacurate.curation.balancing import balance
from record import record, table

PAIRS, PER_PAIR, ENTRIES = 2_000_000, 5, 500_000


def main() -> None:
    rng = np.random.default_rng(0)
    uids = rng.integers(0, 2**64, size=(PAIRS, 2), dtype=np.uint64)
    ranks = rng.zipf(1.3, size=PAIRS * PER_PAIR) - 1
    ids = np.minimum(ranks, ENTRIES - 1).astype(np.uint32)
    pairs = np.arange(PAIRS + 1)
    rows = []
    for name, p in (("all draws fail (each is made)", 1e-12), ("p = 0.2 for every entry", 0.2)):
        probs = np.full(ENTRIES, p)
        balance(uids[:10], pairs[:11], pairs[:11] * PER_PAIR, ids, probs, seed=0)
        start = time.perf_counter()
        result = balance(uids, pairs, pairs * PER_PAIR, ids, probs, seed=0)
        seconds = time.perf_counter() - start
        rows.append(
            [
                name,
                f"{result.pairs.mean():.1%}",
                f"{PAIRS * PER_PAIR / seconds / 1e6:.1f}",
                f"{PAIRS / seconds / 1e6:.1f}",
            ]
        )
    record(
        "balancing",
        f"{PAIRS:,} pairs with {PER_PAIR} matches each, {ENTRIES:,} entries, one thread; draws "
        "and closed-form keep probabilities together.\n\n"
        + table(
            ["draws", "kept", "million (entry, pair) a second", "million pairs a second"], rows
        ),
    )


if __name__ == "__main__":
    main()
