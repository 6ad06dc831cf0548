"""The official scripts' rules, written down plainly, against what metacurate draws and solves."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest

import metacurate as mc
from conftest import REPOSITORY
from metacurate.curation.settings import Balance
from metacurate.curation.thresholds import given_thresholds
from metacurate.metadata.store import Block


@pytest.fixture(scope="module")
def rules() -> ModuleType:
    """``benchmarks/official_rules.py``, whose figures docs/from-the-official-scripts.md has."""
    folder = str(REPOSITORY / "benchmarks")
    spec = importlib.util.spec_from_file_location("official_rules", f"{folder}/official_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


def texts_with_matches(texts: int) -> tuple[np.ndarray, np.ndarray]:
    """A long tail: the offsets and entries of each text, two texts a pair."""
    rng = np.random.default_rng(1)
    lists = [np.unique(rng.zipf(1.4, size=rng.integers(0, 6)) % 40) for _ in range(texts)]
    offsets = np.concatenate([[0], np.cumsum([each.size for each in lists])])
    return offsets, np.concatenate(lists).astype(np.uint32)


@pytest.mark.parametrize("t", [3, 40, 10_000])
def test_sizes_agree_within_chance(rules: ModuleType, t: int) -> None:
    """Over 300 draws: the mean number of kept pairs and of kept texts, and each text's share."""
    runs, texts = 300, 1000
    offsets, ids = texts_with_matches(texts)
    pairs = np.arange(0, texts + 1, 2)
    matches = np.stack([ids.astype(np.int64), np.repeat(np.arange(texts), np.diff(offsets))], 1)
    counts = mc.count_entries(ids, 40)
    ours = mc.keep_probabilities(counts, t)
    theirs = rules.official_probabilities(counts, t)
    assert np.array_equal(theirs[counts > 0], ours[counts > 0])
    uids = np.random.default_rng(2).integers(0, 2**64, (texts // 2, 2), np.uint64)
    random = np.random.default_rng(3)
    shares = np.zeros((2, texts))
    sizes = np.zeros((2, 2, runs))
    for seed in range(runs):
        drawn = rules.official_draws(matches, theirs, random)
        shares[0, drawn] += 1 / runs
        sizes[0, :, seed] = drawn.size, np.unique(drawn // 2).size
        balanced = mc.balance(uids, pairs, offsets, ids, ours, seed=seed)
        shares[1] += balanced.texts / runs
        sizes[1, :, seed] = balanced.texts.sum(), balanced.pairs.sum()
    for official, own in zip(*sizes, strict=True):  # of texts, of pairs
        error = np.sqrt((official.var() + own.var()) / runs)
        assert abs(official.mean() - own.mean()) <= 4 * error
    exact = mc.pair_keep_probabilities(offsets, ids, ours)
    error = np.sqrt(exact * (1 - exact) / runs)
    assert np.all(np.abs(shares - exact) <= 5 * error + 1e-9)
    # The demonstration's capped sum is a bound of it, and not it.
    capped = rules.capped_sums(matches, theirs, texts)
    assert np.all(capped >= exact - 1e-12)
    assert (t == 10_000) == np.allclose(capped, exact)


def test_probabilities_by_language_are_those_of_the_files() -> None:
    """``per_lang_prob/T_LANG.npy``: float32, by the tail proportion of English at T."""
    rng = np.random.default_rng(4)
    by_language = {
        name: (rng.pareto(0.8, size) * 20).astype(np.uint64)
        for name, size in (("de", 500), ("en", 900), ("zh", 300))
    }
    t_en = 170
    p = float(by_language["en"][by_language["en"] < t_en].sum() / by_language["en"].sum())
    blocks, first = [], 0
    for name, counts in by_language.items():
        blocks.append(Block(name, first, first + counts.size))
        first += counts.size
    every = np.concatenate(list(by_language.values()))
    solved = given_thresholds(Balance(t_en), every, tuple(blocks))
    ours = mc.keep_probabilities(every, solved.by_entry)
    for block, counts in zip(blocks, by_language.values(), strict=True):
        ordered = np.sort(counts)
        nearest = np.abs(np.cumsum(ordered) / counts.sum() - p).argmin()
        t = t_en if block.language == "en" else ordered[nearest]
        official = (t / np.maximum(counts, t)).astype(np.float32)
        own = ours[block.first : block.stop]
        assert np.array_equal(own.astype(np.float32), official), block.language
        assert 0 < np.count_nonzero(official < 1) < official.size
