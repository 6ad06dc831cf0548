"""Compiled twin of ``curation.balancing``, which says what these loops compute."""

from __future__ import annotations

import numpy as np

from metacurate.kernels.cache import njit
from metacurate.kernels.intrinsics import multiply

_MULTIPLIER_0 = np.uint64(0xD2E7470EE14C6C93)
_MULTIPLIER_1 = np.uint64(0xCA5A826395121157)
_WEYL_0 = np.uint64(0x9E3779B97F4A7C15)
_WEYL_1 = np.uint64(0xBB67AE8584CAA73B)
# Text position 2**32 - 1, entry 2**32 - 2.
_CHOICE = np.uint64(0xFFFFFFFFFFFFFFFE)
_U11, _U32 = np.uint64(11), np.uint64(32)


@njit()
def add_counts(counts, entry_ids):  # type: ignore[no-untyped-def]
    for position in range(len(entry_ids)):
        counts[entry_ids[position]] += np.uint64(1)


@njit(inline="always")
def _either(a, b):  # type: ignore[no-untyped-def]
    """The probability of one of two events.

    1 - prod(1 - p) is made of it, without a subtraction from 1 of what is near 1: all terms are
    positive, so no digits of a small result are lost.
    """
    return 1.0 if b == 1.0 else a + (1.0 - a) * b


@njit()
def pair_keep_probabilities(offsets, entry_ids, keep_probs, probabilities):  # type: ignore[no-untyped-def]
    """False if a probability is none."""
    for pair in range(offsets.size - 1):
        any_kept = 0.0
        for k in range(offsets[pair], offsets[pair + 1]):
            p = keep_probs[entry_ids[k]]
            if not 0.0 <= p <= 1.0:
                return False
            any_kept = _either(any_kept, p)
        probabilities[pair] = any_kept
    return True


@njit(inline="always")
def uniform(seed, epoch, uid_first, uid_second, word):  # type: ignore[no-untyped-def]
    """Philox4x64-10 as ``curation.balancing`` says."""
    c0, c1, c2, c3 = uid_first, uid_second, word, epoch
    k0, k1 = seed, np.uint64(0)
    for _ in range(10):
        high_0, low_0 = multiply(_MULTIPLIER_0, c0)
        high_1, low_1 = multiply(_MULTIPLIER_1, c2)
        c0, c1, c2, c3 = high_1 ^ c1 ^ k0, low_1, high_0 ^ c3 ^ k1, low_0
        k0 += _WEYL_0
        k1 += _WEYL_1
    return np.float64(c0 >> _U11) * 2.0**-53


@njit()
def draw(  # type: ignore[no-untyped-def]
    seed, epoch, uids, pair_offsets, text_offsets, entry_ids, keep_probs, texts, pairs,
    probabilities,
):  # fmt: skip
    """Fill what is kept, and ``pair_keep_probabilities``; False if a probability is none."""
    for pair in range(pairs.size):
        any_kept = 0.0
        for text in range(pair_offsets[pair], pair_offsets[pair + 1]):
            position = np.uint64(text - pair_offsets[pair]) << _U32
            kept = False
            for k in range(text_offsets[text], text_offsets[text + 1]):
                entry = entry_ids[k]
                p = keep_probs[entry]
                if not 0.0 <= p <= 1.0:
                    return False
                any_kept = _either(any_kept, p)
                # Nothing below 1 fails against p = 1: no draw needed.
                kept = kept or (
                    p == 1.0
                    or uniform(
                        seed, epoch, uids[pair, 0], uids[pair, 1], position | np.uint64(entry)
                    )
                    < p
                )
            texts[text] = kept
            pairs[pair] |= kept
        probabilities[pair] = any_kept
    return True


@njit()
def choose_texts(seed, epoch, uids, pair_offsets, text_offsets, chosen):  # type: ignore[no-untyped-def]
    for pair in range(pair_offsets.size - 1):
        matching = 0
        for text in range(pair_offsets[pair], pair_offsets[pair + 1]):
            matching += text_offsets[text + 1] > text_offsets[text]
        u = uniform(seed, epoch, uids[pair, 0], uids[pair, 1], _CHOICE)
        number = int(u * matching)
        for text in range(pair_offsets[pair], pair_offsets[pair + 1]):
            if text_offsets[text + 1] > text_offsets[text]:
                if number == 0:
                    chosen[text] = True
                    break
                number -= 1
