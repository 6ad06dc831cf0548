"""The compiled search for near hashes finds what a plain search finds."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from metacurate.kernels.hamming import first_within

# Few base values with few bits flipped: near, at the limit, and far ones.
BASES = st.sampled_from([0, 2**64 - 1, 0x0123456789ABCDEF])
FLIPS = st.lists(st.integers(0, 63), max_size=4)
HASHES = st.builds(lambda base, flips: base ^ sum(1 << f for f in set(flips)), BASES, FLIPS)


def plain(groups: list[list[int]], distance: int) -> list[int]:
    """For each hash the first one before it in its group that is near; -1 for none."""
    found = []
    for group in groups:
        first = len(found)
        for i, one in enumerate(group):
            near = [j for j in range(i) if (one ^ group[j]).bit_count() <= distance]
            found.append(first + near[0] if near else -1)
    return found


@settings(max_examples=300)
@given(st.lists(st.lists(HASHES, max_size=8), max_size=5), st.integers(0, 5))
def test_first_within(groups: list[list[int]], distance: int) -> None:
    hashes = np.array([one for group in groups for one in group], np.uint64)
    starts = np.cumsum([0, *(len(group) for group in groups)])
    assert first_within(hashes, starts, distance).tolist() == plain(groups, distance)
