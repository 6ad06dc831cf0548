"""Balancing agrees with its closed forms, with NumPy's own generator, and with chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from metacurate.curation import balancing
from metacurate.curation.balancing import (
    balance,
    count_entries,
    draw,
    keep_probabilities,
    solve_threshold,
    solve_threshold_for_size,
    tail_proportion,
)
from metacurate.kernels.balancing import pair_keep_probabilities

words = st.integers(0, 2**64 - 1)
count_arrays = st.lists(st.integers(0, 1000) | st.integers(0, 2**40), max_size=30).map(
    lambda values: np.array(values, np.uint64)
)


@settings(max_examples=300, deadline=None)
@given(
    words,
    words,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 2),
)
def test_draws_are_numpys_philox(seed: int, epoch: int, uid: bytes, text: int, entry: int) -> None:
    first, second = (int.from_bytes(half, "little") for half in (uid[:8], uid[8:]))
    counter = first | second << 64 | (text << 32 | entry) << 128 | epoch << 192
    # NumPy counts up before it generates.
    before = (counter - 1) % 2**256
    word = int(np.random.Philox(key=seed, counter=before).random_raw())
    assert draw(seed, uid, text, entry, epoch=epoch) == (word >> 11) * 2.0**-53


@given(count_arrays, st.floats(1e-3, 1e6) | st.just(math.inf))
def test_keep_probabilities(counts: np.ndarray, t: float) -> None:
    expected = [1.0 if c == 0 else min(1.0, t / float(c)) for c in counts]
    assert keep_probabilities(counts, t).tolist() == expected


@given(count_arrays, st.floats(0, 1))
@example(np.array([5, 5, 5], np.uint64), 0.0)
@example(np.array([1, 2, 3], np.uint64), 0.5)
@example(np.array([1, 2, 3], np.uint64), 1.0)
def test_threshold_for_a_tail_proportion_is_the_largest(counts: np.ndarray, p: float) -> None:
    t = solve_threshold(counts, p)
    assert tail_proportion(counts, t) <= p * (1 + 1e-12)
    if math.isfinite(t):
        assert t in counts
        assert tail_proportion(counts, t + 0.5) > p * (1 - 1e-12)


def test_threshold_examples() -> None:
    counts = np.array([100, 1, 2, 3, 0, 94], np.uint64)
    assert solve_threshold(counts, 0.03) == 94.0  # 6 of 200 counts lie below
    assert solve_threshold(counts, 0.029) == 3.0
    assert solve_threshold(counts, 1.0) == math.inf
    assert solve_threshold(np.zeros(3, np.uint64), 0.5) == math.inf
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        solve_threshold(counts, 1.5)
    with pytest.raises(ValueError, match="positive"):
        keep_probabilities(counts, 0)


def long_tailed_pairs(pairs: int, entries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and ids of random pairs whose entries follow Zipf's law."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, entries + 1)
    rows = [
        np.unique(rng.choice(entries, size=n, p=weights / weights.sum()))
        for n in rng.integers(1, 7, size=pairs)
    ]
    return np.cumsum([0, *map(len, rows)]), np.concatenate(rows).astype(np.uint32)


def test_count_of_an_unknown_entry() -> None:
    with pytest.raises(ValueError, match="entry 3 is none of the 3 entries"):
        count_entries(np.array([0, 3], np.uint32), 3)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.9999])
def test_threshold_for_a_target_size(share: float) -> None:
    offsets, ids = long_tailed_pairs(5000, 300, seed=1)
    counts = count_entries(ids, 300)
    passes = []

    def expected_size(t: float) -> float:
        passes.append(t)
        return math.fsum(pair_keep_probabilities(offsets, ids, keep_probabilities(counts, t)))

    target = share * 5000
    t = solve_threshold_for_size(counts, expected_size, target)
    assert expected_size(t) == pytest.approx(target, rel=balancing.SIZE_TOLERANCE * 1.01)
    assert len(passes) <= 20


@pytest.mark.parametrize("target", [-1, 0, 5000, 5001, math.nan])
def test_impossible_target_sizes(target: float) -> None:
    offsets, ids = long_tailed_pairs(5000, 300, seed=1)
    counts = count_entries(ids, 300)
    with pytest.raises(ValueError, match="target size"):
        solve_threshold_for_size(
            counts,
            lambda t: pair_keep_probabilities(offsets, ids, keep_probabilities(counts, t)).sum(),
            target,
        )


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_balance_equals_its_definition(data: st.DataObject) -> None:
    """Against a loop over pairs, texts and entries that uses only NumPy's generator."""
    entries = data.draw(st.integers(1, 6))
    texts = st.lists(st.integers(0, entries - 1), unique=True, max_size=4).map(sorted)
    pairs = data.draw(st.lists(st.lists(texts, max_size=3), max_size=6))
    uids = data.draw(st.lists(st.tuples(words, words), min_size=len(pairs), max_size=len(pairs)))
    seed, epoch = data.draw(words), data.draw(st.integers(0, 3))
    flat = [text for pair in pairs for text in pair]
    ids = np.array([e for text in flat for e in text], np.uint32)
    probs = keep_probabilities(count_entries(ids, entries), data.draw(st.floats(0.01, 5)))
    result = balance(
        np.array(uids, np.uint64).reshape(-1, 2),
        np.cumsum([0, *map(len, pairs)]),
        np.cumsum([0, *map(len, flat)]),
        ids,
        probs,
        seed=seed,
        epoch=epoch,
    )

    def succeeds(uid: tuple[int, int], position: int, entry: int) -> bool:
        counter = uid[0] | uid[1] << 64 | (position << 32 | entry) << 128 | epoch << 192
        word = int(np.random.Philox(key=seed, counter=(counter - 1) % 2**256).random_raw())
        return (word >> 11) * 2.0**-53 < probs[entry]

    kept = [
        [any(succeeds(uid, i, e) for e in text) for i, text in enumerate(pair)]
        for uid, pair in zip(uids, pairs, strict=True)
    ]
    assert result.texts.tolist() == [k for pair in kept for k in pair]
    assert result.pairs.tolist() == [any(pair) for pair in kept]
    closed = [1 - math.prod(1 - probs[e] for text in pair for e in text) for pair in pairs]
    assert result.keep_prob == pytest.approx(closed, abs=1e-12)


def test_keep_rates_over_many_seeds_agree_with_the_closed_form() -> None:
    """Chi-square over 2,000 pairs and 2,000 seeds; false-alarm rate 1e-6 a test."""
    entries, seeds, t = 200, 2000, 12.0
    offsets, ids = long_tailed_pairs(2000, entries, seed=3)
    counts = count_entries(ids, entries)
    probs = keep_probabilities(counts, t)
    rng = np.random.default_rng(11)
    uids = rng.integers(0, 2**64, size=(offsets.size - 1, 2), dtype=np.uint64)
    one_text_each = np.arange(offsets.size)
    kept = np.zeros(offsets.size - 1)
    entry_keeps = np.zeros(entries)
    for seed in range(seeds):
        result = balance(uids, one_text_each, offsets, ids, probs, seed=seed)
        kept += result.pairs
        if seed < 50:
            entry_keeps += count_entries(ids[np.repeat(result.pairs, np.diff(offsets))], entries)
    q = result.keep_prob
    drawn = (q * seeds > 5) & ((1 - q) * seeds > 5)
    assert drawn.sum() > 1000
    chi_square = ((kept - seeds * q)[drawn] ** 2 / (seeds * q * (1 - q))[drawn]).sum()
    assert 5e-7 < stats.chi2.sf(chi_square, drawn.sum()) < 1 - 5e-7
    assert (kept[q == 1] == seeds).all()
    # A tail entry keeps all its pairs; a head entry t by its own draws, plus what others keep.
    tail = counts < t
    assert (entry_keeps[tail] == 50 * counts[tail]).all()
    assert (entry_keeps[~tail] / 50 > 0.9 * t).all()


def test_a_head_entry_alone_ends_near_t() -> None:
    """One entry, 100,000 pairs: a binomial test with false-alarm rate 1e-6."""
    n, t = 100_000, 1000.0
    ids = np.zeros(n, np.uint32)
    uids = np.stack([np.arange(n, dtype=np.uint64), np.zeros(n, np.uint64)], axis=1)
    each = np.arange(n + 1)
    probs = keep_probabilities(count_entries(ids, 1), t)
    kept = int(balance(uids, each, each, ids, probs, seed=0).pairs.sum())
    assert stats.binomtest(kept, n, t / n).pvalue > 1e-6


def test_infinite_t_keeps_every_matched_pair() -> None:
    offsets, ids = long_tailed_pairs(100, 10, seed=2)
    offsets = np.append(offsets, offsets[-1])  # one pair without a match
    uids = np.zeros((101, 2), np.uint64)
    probs = keep_probabilities(count_entries(ids, 10), math.inf)
    result = balance(uids, np.arange(102), offsets, ids, probs, seed=0)
    assert result.pairs.tolist() == [True] * 100 + [False]
    assert result.keep_prob.tolist() == [1.0] * 100 + [0.0]
