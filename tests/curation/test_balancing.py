"""Balancing agrees with its closed forms, with NumPy's own generator, and with chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

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
    pair_keep_probabilities,
    solve_threshold,
    solve_threshold_for_size,
    tail_proportion,
)

words = st.integers(0, 2**64 - 1)
count_arrays = st.lists(st.integers(0, 1000) | st.integers(0, 2**40), max_size=30).map(
    lambda values: np.array(values, np.uint64)
)


@settings(max_examples=300)
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
    with pytest.raises(ValueError, match=r"^p must lie between 0 and 1"):
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


def exact_keep_probability(probabilities: list[float]) -> float:
    """1 - prod(1 - p), rounded once."""
    return float(1 - math.prod((1 - Fraction(float(p)) for p in probabilities), start=Fraction(1)))


tiny = st.floats(1e-300, 1e-9) | st.floats(1e-25, 1e-14)


@given(st.lists(tiny | st.floats(0, 1) | st.just(1.0), max_size=40))
@example([1e-20])
@example([1e-17] * 40)
@example([0.5, 1e-20])
@example([1 - 2**-53] * 3)
@example([1e-9, 1.0, 0.3])
@example([0.0])
def test_keep_probabilities_are_exact_however_small(probabilities: list[float]) -> None:
    found = pair_keep_probabilities(
        np.array([0, len(probabilities)]),
        np.arange(len(probabilities), dtype=np.uint32),
        np.array(probabilities, np.float64),
    )
    assert found[0] == pytest.approx(exact_keep_probability(probabilities), rel=1e-12, abs=0)
    assert found[0] <= 1


@pytest.mark.parametrize("p", [1e-18, 1e-9, 1e-5])
def test_keep_probabilities_of_very_many_matches(p: float) -> None:
    matches = 20_000
    found = pair_keep_probabilities(
        np.array([0, matches]), np.zeros(matches, np.uint32), np.array([p])
    )
    expected = float(1 - (1 - Fraction(p)) ** matches)
    assert found[0] == pytest.approx(expected, rel=1e-12, abs=0)


def exact_threshold(counts: np.ndarray, share: Fraction) -> float:
    """The largest count whose tail holds at most the share, in rational numbers."""
    values = [int(c) for c in counts if c]
    total, ways = sum(values), {*values, max(values) + 1}
    fits = [t for t in ways if sum(c for c in values if c < t) <= share * total]
    return math.inf if max(fits) > max(values) else float(max(fits))


def zipf_counts(seed: int, entries: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.minimum(rng.zipf(1.3, entries), 10**7).astype(np.uint64)


random_counts = st.lists(st.integers(1, 10**6) | st.integers(1, 12), min_size=1, max_size=60).map(
    lambda values: np.array(values, np.uint64)
)


@settings(max_examples=300)
@given(random_counts | st.integers(0, 2**32).map(zipf_counts))
@example(np.array([29, 71], np.uint64))
def test_threshold_to_proportion_and_back(counts: np.ndarray) -> None:
    total = int(counts.sum())
    for t in sorted(set(counts.tolist()))[:40]:
        share = Fraction(sum(c for c in counts.tolist() if c < t), total)
        assert tail_proportion(counts, t) == float(share)
        assert solve_threshold(counts, float(share)) == t == exact_threshold(counts, share)
        if share:  # a little less is too little for this threshold
            assert solve_threshold(counts, np.nextafter(float(share), 0)) < t
    assert solve_threshold(counts, tail_proportion(counts, math.inf)) == math.inf


def test_threshold_of_a_written_proportion() -> None:
    assert solve_threshold(np.array([29, 71]), 0.29) == 71
    for percent in range(1, 100):  # p * total is rounded to either side
        counts = np.array([percent, 100 - percent])
        assert solve_threshold(counts, percent / 100) == max(percent, 100 - percent)


def test_expected_size_may_be_tiny() -> None:
    offsets, ids = long_tailed_pairs(500, 50, seed=5)
    counts = count_entries(ids, 50) * np.uint64(10**12)
    passes = []

    def expected_size(t: float) -> float:
        passes.append(t)
        return math.fsum(pair_keep_probabilities(offsets, ids, keep_probabilities(counts, t)))

    for target in (1e-20, 1e-9, 1e-3, 1.0):
        t = solve_threshold_for_size(counts, expected_size, target)
        assert expected_size(t) == pytest.approx(target, rel=2e-6)
    assert len(passes) < 60


def test_a_size_that_is_rounded_to_nothing_halves_the_range() -> None:
    """Below some threshold nothing is left of the size: its logarithm cannot guide the search."""
    passes = []

    def expected_size(t: float) -> float:
        passes.append(t)
        return max(0.0, t - 3000)

    counts = np.array([10**6] * 4, np.uint64)
    t = solve_threshold_for_size(counts, expected_size, 5000.0)
    assert t == pytest.approx(8000, rel=1e-5)
    # The largest count, the least possible threshold, and the middle of their logarithms.
    assert passes[:3] == [10**6, 1250, pytest.approx(math.sqrt(1250 * 10**6))]
    assert len(passes) < 20


@pytest.mark.parametrize("counts", [[], [0, 0]])
def test_without_matches_no_size_can_be_met(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="below the 0 matched pairs, not 1"):
        solve_threshold_for_size(np.array(counts, np.uint64), lambda t: 1 / 0, 1)


def test_a_size_out_of_reach_is_told_with_all_digits() -> None:
    counts = np.array([10], np.uint64)
    with pytest.raises(ValueError, match="below the 10 matched pairs, not 9999999"):
        solve_threshold_for_size(counts, lambda t: min(t, 10.0), 9_999_999)


def test_the_least_threshold_is_taken_if_it_meets_the_size() -> None:
    passes = []

    def expected_size(t: float) -> float:  # no pair matches two entries
        passes.append(t)
        return float(np.minimum(counts, t).sum())

    counts = np.array([100, 0, 10, 40], np.uint64)
    assert solve_threshold_for_size(counts, expected_size, 60) == 25  # 25 + 10 + 25
    assert passes == [100, 25]


def test_a_jump_of_the_size_ends_the_search() -> None:
    counts = np.array([10**6], np.uint64)
    t = solve_threshold_for_size(counts, lambda t: 1.0 if t < 777 else 1e6, 500.0)
    assert t == pytest.approx(777, rel=1e-12)


COUNTS = np.array([2, 1, 4], np.uint64)
UIDS, PAIRS, TEXTS = np.zeros((2, 2), np.uint64), np.array([0, 1, 2]), np.array([0, 1, 3])
IDS, PROBABILITIES = np.array([0, 1, 2], np.uint32), np.array([1.0, 0.5, 0.25])


def balanced(**changed: object) -> balancing.Balanced:
    arguments = {
        "uids": UIDS, "pair_offsets": PAIRS, "text_offsets": TEXTS, "entry_ids": IDS,
        "keep_probs": PROBABILITIES, "seed": 0, "epoch": 0, **changed,
    }  # fmt: skip
    return balance(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: count_entries(np.array([0, 3], np.uint32), 3), "entry 3 is none of the 3 entries"),
        (lambda: count_entries(np.array([-200000000]), 3), "entry -200000000 is none of the 3"),
        (lambda: count_entries(np.array([-1, 0]), 3), "entry -1 is none"),
        (lambda: count_entries(np.array([2**32]), 3), "entry 4294967296 is none"),
        (lambda: count_entries(np.array([0.0, 1.0]), 3), "entry_ids must be a list of whole"),
        (lambda: count_entries(np.array([[0]]), 3), r"entry_ids must be .* not int64\[1, 1\]"),
        (lambda: count_entries(np.array(["0"]), 3), "entry_ids must be"),
        (lambda: count_entries(IDS, -1), "entries must be at least 0, not -1"),
        (lambda: count_entries(IDS, 1.5), "entries must be a whole number"),
        (lambda: count_entries(np.array([0]), 0), "entry 0 is none of the 0 entries"),
        (lambda: keep_probabilities(np.array([-1]), 1), "counts must be numbers from 0"),
        (lambda: keep_probabilities(np.array([1.5]), 1), "counts must be a list of whole"),
        (lambda: keep_probabilities(COUNTS, "1"), "t must be a number"),
        (lambda: keep_probabilities(COUNTS, math.nan), "t must be a number"),
        (lambda: tail_proportion(np.array([2**63, 2**63], np.uint64), 1), "sum below 2"),
        (lambda: tail_proportion(COUNTS, None), "t must be a number"),
        (lambda: solve_threshold(COUNTS, -0.1), "p must lie between 0 and 1"),
        (lambda: solve_threshold(np.array([-5, 10]), 0.5), "counts must be numbers from 0"),
        (lambda: solve_threshold_for_size(COUNTS, float, "3"), "target must be a number"),
        (lambda: balanced(uids=np.zeros((1, 2), np.uint64)), r"uids must be uint64\[2, 2\]"),
        (lambda: balanced(uids=np.zeros((2, 1), np.uint64)), r"uids must be uint64\[2, 2\]"),
        (lambda: balanced(uids=np.zeros(4, np.uint64)), r"uids must be uint64\[2, 2\]"),
        (lambda: balanced(uids=np.zeros((2, 2))), r"uids must be .* not float64\[2, 2\]"),
        (lambda: balanced(uids=np.zeros((2, 2), np.uint32)), "uids must be"),
        (lambda: balanced(pair_offsets=[0, 1, 3]), "pair_offsets must be rising .* at most 2"),
        (lambda: balanced(pair_offsets=[0, 2, 1]), "pair_offsets must be rising"),
        (lambda: balanced(pair_offsets=[-1, 1, 2]), "pair_offsets must be rising"),
        (lambda: balanced(pair_offsets=[]), "pair_offsets must be rising"),
        (lambda: balanced(pair_offsets=[0.0, 1.0, 2.0]), "pair_offsets must be a list of whole"),
        (lambda: balanced(text_offsets=[0, 1, 4]), "text_offsets must be rising .* at most 3"),
        (lambda: balanced(text_offsets=[0, 3, 1]), "text_offsets must be rising"),
        (lambda: balanced(entry_ids=[0, 1, 3]), "entry 3 is none of the 3 entries"),
        (lambda: balanced(entry_ids=[0, -1, 2]), "entry -1 is none"),
        (lambda: balanced(keep_probs=[1.0, 0.5, math.nan]), r"keep_probs must lie in \[0, 1\]"),
        (lambda: balanced(keep_probs=[1.0, 0.5, 1.1]), r"keep_probs must lie in \[0, 1\]"),
        (lambda: balanced(keep_probs=[1.0, -0.5, 0.1]), r"keep_probs must lie in \[0, 1\]"),
        (lambda: balanced(keep_probs=[1, 1, 1]), "keep_probs must be a list of floats"),
        (lambda: balanced(seed=-1), "seed must be from 0"),
        (lambda: balanced(seed=1.5), "seed must be a whole number"),
        (lambda: balanced(epoch=2**64), "epoch must be from 0"),
        (lambda: pair_keep_probabilities([0, 4], IDS, PROBABILITIES), "offsets must be rising"),
        (lambda: pair_keep_probabilities([0, 3], [0, 1, 9], PROBABILITIES), "entry 9 is none"),
        (lambda: draw(-1, bytes(16), 0, 0), "seed must be"),
        (lambda: draw(0, bytes(15), 0, 0), "uid must have 16 bytes"),
        (lambda: draw(0, bytes(16), 2**32, 0), "text_position must be"),
        (lambda: draw(0, bytes(16), 0, -1), "entry_id must be"),
        (lambda: draw(0, bytes(16), 0, 0, epoch=0.5), "epoch must be"),
    ],
)
def test_arrays_that_do_not_fit_are_told(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_arrays_of_other_kinds_that_fit() -> None:
    """Other widths, byte orders, strides, lists and read-only memory are the same numbers."""
    expected = balanced()
    spread = np.zeros(6, np.uint32)
    spread[::2] = IDS
    read_only = PROBABILITIES.copy()
    read_only.flags.writeable = False
    for found in (
        balanced(entry_ids=IDS.astype(np.int64), pair_offsets=PAIRS.astype(np.int32)),
        balanced(entry_ids=IDS.astype(">u4"), uids=UIDS.astype(">u8")),
        balanced(entry_ids=spread[::2], text_offsets=TEXTS.astype(np.uint8)),
        balanced(entry_ids=IDS.tolist(), keep_probs=read_only, pair_offsets=[0, 1, 2]),
    ):
        for name in ("texts", "pairs", "keep_prob"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert count_entries(np.array([]), 2).tolist() == [0, 0]
    assert count_entries(IDS.astype(np.int8), 3).tolist() == [1, 1, 1]
    assert keep_probabilities([2, 1, 4], 2).tolist() == [1.0, 1.0, 0.5]
    assert pair_keep_probabilities([1], IDS, PROBABILITIES).size == 0


def test_a_slice_of_the_pairs_is_balanced_like_the_whole() -> None:
    offsets, ids = long_tailed_pairs(100, 20, seed=9)
    uids = np.random.default_rng(1).integers(0, 2**64, (100, 2), dtype=np.uint64)
    probs = keep_probabilities(count_entries(ids, 20), 5)
    whole = balance(uids, np.arange(101), offsets, ids, probs, seed=3)
    part = balance(uids[40:60], np.arange(40, 61), offsets, ids, probs, seed=3)
    assert part.pairs.tolist() == whole.pairs[40:60].tolist()
    assert part.keep_prob.tolist() == whole.keep_prob[40:60].tolist()
    assert part.texts[40:60].tolist() == whole.texts[40:60].tolist()


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
    with pytest.raises(ValueError, match=r"^target must be"):
        solve_threshold_for_size(
            counts,
            lambda t: pair_keep_probabilities(offsets, ids, keep_probabilities(counts, t)).sum(),
            target,
        )


@settings(max_examples=200)
@given(st.data())
def test_balance_equals_its_definition(data: st.DataObject) -> None:
    """Against a loop over pairs, texts and entries that uses only NumPy's generator."""
    entries = data.draw(st.integers(1, 6))
    scale = data.draw(st.sampled_from([1, 1e-9, 1e-18]))  # of t: keep probabilities near 0
    texts = st.lists(st.integers(0, entries - 1), unique=True, max_size=4).map(sorted)
    pairs = data.draw(st.lists(st.lists(texts, max_size=3), max_size=6))
    uids = data.draw(st.lists(st.tuples(words, words), min_size=len(pairs), max_size=len(pairs)))
    seed, epoch = data.draw(words), data.draw(st.integers(0, 3))
    flat = [text for pair in pairs for text in pair]
    ids = np.array([e for text in flat for e in text], np.uint32)
    probs = keep_probabilities(count_entries(ids, entries), data.draw(st.floats(0.01, 5)) * scale)
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
    closed = [exact_keep_probability([probs[e] for t in pair for e in t]) for pair in pairs]
    assert result.keep_prob == pytest.approx(closed, rel=1e-12, abs=0)


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
