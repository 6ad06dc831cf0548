"""Accuracies and recalls with bootstrap confidence intervals, on arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
LEVEL = 0.95

Hits = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]


class PlainEstimate(TypedDict):
    """An ``Estimate`` in JSON."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Estimate:
    """A value with the bounds of its 95% percentile bootstrap interval, and its sample size."""

    value: float
    low: float
    high: float
    n: int

    def as_json(self) -> PlainEstimate:
        """Plain values."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def mean_estimate(hits: Hits | npt.NDArray[np.float64], *, seed: int = 0) -> Estimate:
    """The mean of hits, or of a few different values.

    Resampling n of n values gives multinomial counts of each: no resamples are drawn.
    """
    n = hits.size
    value = float(hits.mean()) if n else float("nan")
    if not n:
        return Estimate(value, value, value, 0)
    values, counts = np.unique(hits.astype(np.float64), return_counts=True)
    resampled = np.random.default_rng(seed).multinomial(n, counts / n, RESAMPLES)
    return Estimate(value, *_bounds(resampled @ values / n), n)


def class_mean_estimate(hits: Hits, labels: Labels, *, seed: int = 0) -> Estimate:
    """The mean over classes of the share of hits in each class; images are resampled.

    Classes are those of ``labels``; a resample's mean is over the classes that it has.
    """
    classes, labels = np.unique(labels, return_inverse=True)

    def statistic(weights: npt.NDArray[np.int64]) -> float:
        sizes = np.bincount(labels, weights, classes.size)
        correct = np.bincount(labels, weights * hits, classes.size)
        return float((correct[sizes > 0] / sizes[sizes > 0]).mean())

    return bootstrap(statistic, hits.size, seed=seed)


def macro_f1_estimate(predicted: Labels, labels: Labels, *, seed: int = 0) -> Estimate:
    """The mean over classes of F1 (WILDS's ``F1-macro_all``); images are resampled.

    Classes are those of ``labels``, in a resample those that it has. A class's F1 is twice its
    right images over those that are of it plus those taken for it.
    """
    _, places = np.unique(np.concatenate([labels, predicted]), return_inverse=True)
    own, taken = places[: labels.size], places[labels.size :]
    kinds = int(places.max()) + 1 if places.size else 0

    def statistic(weights: npt.NDArray[np.int64]) -> float:
        sizes = np.bincount(own, weights, kinds)
        right = np.bincount(own, weights * (own == taken), kinds)
        both = sizes + np.bincount(taken, weights, kinds)
        return float((2 * right[sizes > 0] / both[sizes > 0]).mean())

    return bootstrap(statistic, labels.size, seed=seed)


def worst_group_estimate(hits: Hits, groups: Labels, *, seed: int = 0) -> Estimate:
    """The smallest of the groups' shares of hits (WILDS's worst group); images are resampled.

    In a resample it is the smallest of the groups that it has, so that the interval of many small
    groups lies rather low.
    """
    kinds, groups = np.unique(groups, return_inverse=True)

    def statistic(weights: npt.NDArray[np.int64]) -> float:
        sizes = np.bincount(groups, weights, kinds.size)
        right = np.bincount(groups, weights * hits, kinds.size)
        return float((right[sizes > 0] / sizes[sizes > 0]).min())

    return bootstrap(statistic, hits.size, seed=seed)


def mean_of_shares_estimate(
    right: npt.NDArray[np.float64], of: npt.NDArray[np.float64], *, seed: int = 0
) -> Estimate:
    """The mean of several shares of the same images (both recalls, those of languages).

    ``right`` and ``of``, float64[shares, images]: how many items of an image (itself, its captions)
    a share counts as right, and has; ``of`` is positive somewhere in each row. Images are
    resampled; a share that a resample has nothing of is left out of its mean.
    """

    def statistic(weights: npt.NDArray[np.int64]) -> float:
        sizes = of @ weights
        held = sizes > 0
        return float(((right @ weights)[held] / sizes[held]).mean()) if held.any() else math.nan

    return bootstrap(statistic, right.shape[1], seed=seed)


def roc_auc_estimate(scores: npt.NDArray[np.float64], positive: Hits, *, seed: int = 0) -> Estimate:
    """The area under the ROC curve: how often a positive image's score is above a negative one's.

    Ties count half. There must be images of both kinds; a resample without is left out.
    """
    _, place = np.unique(scores, return_inverse=True)

    def statistic(weights: npt.NDArray[np.int64]) -> float:
        rising = np.bincount(place, weights * positive)
        falling = np.bincount(place, weights * ~positive)
        pairs = float(rising.sum() * falling.sum())
        below = np.cumsum(falling) - falling / 2
        return float((rising * below).sum() / pairs) if pairs else float("nan")

    return bootstrap(statistic, scores.size, seed=seed)


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], float], n: int, *, seed: int = 0
) -> Estimate:
    """A statistic of n items given how often each is taken (int64[n]); NaN if it has none then."""
    if not n:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    generator = np.random.default_rng(seed)
    values = [
        statistic(np.bincount(generator.integers(n, size=n), minlength=n)) for _ in range(RESAMPLES)
    ]
    return Estimate(statistic(np.ones(n, np.int64)), *_bounds(np.array(values)), n)


def _bounds(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def clustered_mean_estimate(hits: Hits, groups: Labels, *, seed: int = 0) -> Estimate:
    """The share of hits where items of one group (the captions of an image) go together."""
    _, groups = np.unique(groups, return_inverse=True)
    sizes = np.bincount(groups).astype(np.float64)
    sums = np.bincount(groups, hits)

    def statistic(weights: npt.NDArray[np.int64]) -> float:
        return float((weights * sums).sum() / (weights * sizes).sum())

    estimate = bootstrap(statistic, sizes.size, seed=seed)
    return Estimate(estimate.value, estimate.low, estimate.high, hits.size)
