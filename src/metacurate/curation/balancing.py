"""Balancing, defined here; ``kernels.balancing`` is its compiled twin.

Keep probabilities, thresholds, expected sizes and deterministic draws, on arrays.

An entry with count ``c`` keeps each of its pairs with probability ``p = min(1, t / c)``; a text is
kept iff the draw of at least one of its matched entries succeeds, and a pair iff at least one of
its texts is (MetaCLIP, arXiv 2309.16671, section 3.3 and algorithm 1). Draws are independent: a
pair with matches E is kept with probability ``1 - prod(1 - p_e for e in E)``, given to within
1e-12 of its value, however small.

The draw for (seed, epoch, uid, text position, entry) is the published counter-based generator
Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011):

* key = (seed, 0),
* counter = (uid bytes 0-7, uid bytes 8-15, text position * 2**32 + entry id, epoch), the uid's
  halves read as little-endian numbers,
* the first output word's upper 53 bits times 2**-53 are a number in [0, 1); the draw succeeds iff
  it is less than ``p``.

Where one text of a pair is chosen first (as MetaCLIP's loaders do since v1.2), it is number
``floor(u * n)`` of the n texts that match an entry, with u the draw for text position 2**32 - 1 and
entry 2**32 - 2, which no real text has; only this text can be kept, by the same draws as always.
The pair's probability is then the mean over these texts of each one's.

So a draw does not depend on workers, order, engine or restarts, and ``numpy.random.Philox`` gives
the same numbers.

Matches are in CSR form: pair ``i`` has the texts ``pair_offsets[i]`` up to ``pair_offsets[i + 1]``,
text ``j`` the entry ids ``entry_ids[text_offsets[j]:text_offsets[j + 1]]``.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.arguments import number, shown, whole
from metacurate.arrays import offsets_of
from metacurate.curation.settings import (
    ANY,
    BELOW,
    NEAREST,
    ONE,
    P_RULES,
    TEXT_CHOICES,
    check_choice,
    check_p,
    check_t,
)
from metacurate.errors import ArgumentError
from metacurate.kernels import balancing as kernel

Counts = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]
EntryIds = npt.NDArray[np.uint32]
Probabilities = npt.NDArray[np.float64]
SIZE_TOLERANCE = 1e-6


def count_entries(entry_ids: EntryIds, entries: int) -> Counts:
    """Count how often each entry occurs in the matches of some texts.

    Args:
        entry_ids: uint32[matches], the ids of all texts one after another, each id at most once per
            text (as ``Matcher.match`` returns them).
        entries: The number of metadata entries; every id is below it.

    Returns:
        uint64[entries], the number of texts that match each entry.

    Raises:
        ValueError: An id is no whole number from 0 to ``entries - 1``.
    """
    counts = np.zeros(whole("entries", entries, 0), np.uint64)
    add_counts(counts, entry_ids)
    return counts


def add_counts(counts: Counts, entry_ids: EntryIds) -> None:
    """Add to ``counts`` (uint64[entries]) what ``count_entries`` gives for some more texts."""
    kernel.add_counts(counts, _entry_ids(entry_ids, counts.size))


def _whole_numbers(name: str, values: Any) -> npt.NDArray[Any]:
    """A list of whole numbers as an array of one dimension; ArgumentError if it is none."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ArgumentError(
            f"{{{name}}} must be a list of whole numbers (one dimension), not {{dtype}}{{shape}}",
            dtype=array.dtype,
            shape=list(array.shape),
        )
    return array


def _entry_ids(values: Any, entries: int) -> EntryIds:
    """Entry ids that the kernels can take: each is below ``entries``."""
    array = _whole_numbers("entry_ids", values)
    if array.size:
        wrong = [int(i) for i in (array.min(), array.max()) if not 0 <= i < entries]
        if wrong:
            raise ArgumentError(
                "{entry_ids}: entry {wrong} is none of the {number} entries",
                wrong=wrong[0],
                number=entries,
            )
    return np.ascontiguousarray(array, np.uint32)


def _offsets(name: str, values: Any, end: int, into: str) -> Offsets:
    """Offsets that the kernels can take: not decreasing, from 0 or more, up to at most ``end``."""
    array = _whole_numbers(name, values)
    if not array.size or array[0] < 0 or array[-1] > end or np.any(array[1:] < array[:-1]):
        raise ArgumentError(
            f"{{{name}}} must be rising positions from 0 to at most {{end}} (the number of "
            f"{into}), one more than there are lists",
            end=end,
        )
    return np.ascontiguousarray(array, np.int64)


def check_counts(values: Any) -> Counts:
    """Entry counts as uint64[entries]; ArgumentError if they are none."""
    array = _whole_numbers("counts", values)
    if array.size and (array.min() < 0 or float(array.sum(dtype=np.float64)) >= 2**63):
        raise ArgumentError("{counts} must be numbers from 0 on, with a sum below 2**63")
    return array.astype(np.uint64, copy=False)


def _probabilities(values: Any) -> Probabilities:
    """Keep probabilities in the kernels' type; they check the values of those that they use."""
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind != "f":
        raise ArgumentError(
            "{keep_probs} must be a list of floats (one dimension), not {dtype}{shape}",
            dtype=array.dtype,
            shape=list(array.shape),
        )
    return np.ascontiguousarray(array, np.float64)


def keep_probabilities(counts: Counts, t: float | npt.NDArray[np.float64]) -> Probabilities:
    """The probability with which each entry keeps a pair: ``min(1, t / count)``.

    Source: MetaCLIP (arXiv 2309.16671), algorithm 1.

    Args:
        counts: uint64[entries], the entry counts of the pool.
        t: The threshold, in matches; ``math.inf`` keeps everything. Or float64[entries], each
            entry's own (that of its language).

    Returns:
        float64[entries] in (0, 1]; 1 for tail entries and for entries that match nothing.

    Raises:
        ValueError: ``t`` is not positive (or no number), or a count is negative or no whole number.
    """
    values = check_counts(counts).astype(np.float64)
    if not isinstance(t, np.ndarray) or not t.ndim:
        t = check_t(float(t) if isinstance(t, np.ndarray) else t)
    elif t.shape != values.shape or t.dtype.kind not in "iuf" or not np.all(t > 0):
        raise ArgumentError(
            "{t} must be a positive number, or one for each of the {entries} entries",
            entries=values.size,
        )
    return np.divide(t, values, out=np.ones(values.size), where=values > t)


def tail_proportion(counts: Counts, t: float) -> float:
    """The share of all counts that the tail holds (entries with a count below ``t``).

    This is the p of Meta CLIP 2 (arXiv 2507.22062).

    Args:
        counts: uint64[entries], the entry counts of the pool.
        t: The threshold, in matches.

    Returns:
        A share in [0, 1], correctly rounded; 0 if all counts are zero.
    """
    counts, t = check_counts(counts), number("t", t)
    total = int(counts.sum())
    return int(counts[counts < t].sum()) / total if total else 0.0


def solve_threshold(counts: Counts, p: float, *, rule: str = BELOW) -> float:
    """The ``t`` whose tail holds about the share ``p`` of all counts.

    The tail proportion is a step function of t, so ``p`` is seldom met. The rule ``below`` takes
    the largest t whose tail holds at most ``p``; for a ``p`` that ``tail_proportion`` gives for
    some count, that count is returned. The rule ``nearest`` is Meta CLIP 2's (arXiv 2507.22062):
    the counts above 0 in ascending order have running shares, each with its own count in it, and t
    is the first count whose share is nearest to ``p``.

    Args:
        counts: uint64[entries], the entry counts of the pool (of one language).
        p: The tail proportion, in [0, 1]: 0.06 is what t = 20,000 gives on MetaCLIP's own pool.
        rule: ``below`` or ``nearest``.

    Returns:
        One of the counts, or infinity if the tail may hold everything (``below``) or all are 0.

    Raises:
        ValueError: ``p`` lies outside of [0, 1], or the rule is none.
    """
    counts, p = check_counts(counts), check_p(p)
    if check_choice("rule", rule, P_RULES) == NEAREST:
        return _nearest_threshold(counts, p)
    values, entries = np.unique(counts[counts > 0], return_counts=True)
    sums = np.cumsum(values * entries.astype(np.uint64))
    if not sums.size:
        return math.inf
    # Shares are compared as ``tail_proportion`` rounds them: p * total would be rounded otherwise.
    total = int(sums[-1])
    first_over = bisect_right(sums, p, key=lambda below: int(below) / total)
    return float(values[first_over]) if first_over < values.size else math.inf


def _nearest_threshold(counts: Counts, p: float) -> float:
    values = np.sort(counts[counts > 0])
    if not values.size:
        return math.inf
    sums = np.cumsum(values)
    return float(values[int(np.argmin(np.abs(sums / sums[-1] - p)))])


def solve_threshold_for_size(
    counts: Counts, expected_size: Callable[[float], float], target: float
) -> float:
    """The ``t`` at which the expected number of kept pairs is ``target``.

    Args:
        counts: uint64[entries], the entry counts of the pool.
        expected_size: Gives the sum over all pairs of their keep probability at a threshold:
            continuous and increasing in t, up to the number of matched pairs. It is called about
            ten times, since each call is a pass over the index.
        target: The number of pairs, above 0 and below the number of matched pairs.

    Returns:
        A threshold with ``expected_size(t)`` within one part in a million of ``target``.

    Raises:
        ValueError: ``target`` is out of reach.
    """
    counts, target = check_counts(counts), number("target", target)
    high = float(counts.max(initial=0))
    most = expected_size(high) if high else 0.0
    if not 0 < target < most:
        raise ArgumentError(
            "{target} must be above 0 and below the {most:.0f} matched pairs, not {value:.15g}",
            most=most,
            value=target,
        )
    # An entry keeps min(count, t) pairs, so their sum bounds the size from above.
    low = threshold_with_sum(counts, target)
    f_low, f_high = _log_ratio(expected_size(low), target), _log_ratio(most, target)
    if abs(f_low) <= SIZE_TOLERANCE:
        return low
    # Regula falsi with the Illinois step on log(size) over log(t), which is nearly straight.
    x_low, x_high = math.log(low), math.log(high)
    side = 0
    while True:
        x = (x_low * f_high - x_high * f_low) / (f_high - f_low)
        if not x_low < x < x_high:
            x = (x_low + x_high) / 2
        t = math.exp(x)
        f = _log_ratio(expected_size(t), target)
        if abs(f) <= SIZE_TOLERANCE or x_high - x_low <= 1e-15 * max(1.0, abs(x_high)):
            return t
        if f > 0:
            x_high, f_high = x, f
            f_low *= 0.5 if side == 1 else 1.0
            side = 1
        else:
            x_low, f_low = x, f
            f_high *= 0.5 if side == -1 else 1.0
            side = -1


def _log_ratio(size: float, target: float) -> float:
    """log(size / target), also of sizes too small for a float (the next step halves the range)."""
    return math.log(size) - math.log(target) if size > 0 else -math.inf


def threshold_with_sum(counts: Counts, target: float) -> float:
    """The t at which the sum of min(count, t) over entries is ``target`` (at most their sum)."""
    values = np.sort(counts[counts > 0]).astype(np.float64)
    below = np.concatenate([[0.0], np.cumsum(values)])[:-1]
    sums = below + values * np.arange(values.size, 0, -1)  # at t = each value
    at = int(np.searchsorted(sums, target))
    return (target - below[at]) / (values.size - at)


@dataclass(frozen=True)
class Balanced:
    """What is kept, and how likely it was.

    Attributes:
        texts: bool[texts], the texts of which at least one entry's draw succeeded.
        pairs: bool[pairs], the pairs with at least one kept text.
        keep_prob: float64[pairs], each pair's probability to be kept, whatever the draws said.
    """

    texts: npt.NDArray[np.bool_]
    pairs: npt.NDArray[np.bool_]
    keep_prob: Probabilities


def balance(
    uids: npt.NDArray[np.uint64],
    pair_offsets: Offsets,
    text_offsets: Offsets,
    entry_ids: EntryIds,
    keep_probs: Probabilities,
    *,
    seed: int,
    epoch: int = 0,
    choose_text: str = ANY,
) -> Balanced:
    """Draw which texts and pairs are kept, and give each pair's keep probability in closed form.

    Pair ``i`` has the texts ``pair_offsets[i]`` up to ``pair_offsets[i + 1]``; text ``j`` matches
    ``entry_ids[text_offsets[j]:text_offsets[j + 1]]``. A draw depends on nothing but the seed, the
    epoch, the pair's uid, the text's position in its pair and the entry id (docs/semantics.md).
    Source: MetaCLIP (arXiv 2309.16671), algorithm 1.

    Args:
        uids: uint64[pairs, 2], a uid's 16 bytes as two little-endian numbers.
        pair_offsets: int64[pairs + 1] into the texts.
        text_offsets: int64[texts + 1] into ``entry_ids``.
        entry_ids: uint32[matches].
        keep_probs: float64[entries], as ``keep_probabilities`` gives them.
        seed: The seed of all draws, in [0, 2**64).
        epoch: Counted up by a data loader that draws again for each epoch, in [0, 2**64).
        choose_text: ``any``: each of a pair's texts may keep it; ``one``: one of them, chosen
            first by a draw of its own.

    Raises:
        ValueError: The arrays do not fit together: an id beyond ``keep_probs``, offsets out of
            order or range, not a uid for each pair, a probability outside of [0, 1]; or the seed or
            epoch is out of range, or ``choose_text`` is neither.
    """
    check_choice("choose_text", choose_text, TEXT_CHOICES)
    keys = [np.uint64(whole(n, v, 0, 2**64)) for n, v in (("seed", seed), ("epoch", epoch))]
    keep_probs = _probabilities(keep_probs)
    entry_ids = _entry_ids(entry_ids, keep_probs.size)
    text_offsets = _offsets("text_offsets", text_offsets, entry_ids.size, "entry ids")
    texts = np.zeros(text_offsets.size - 1, dtype=np.bool_)
    pair_offsets = _offsets("pair_offsets", pair_offsets, texts.size, "texts")
    pairs = np.zeros(pair_offsets.size - 1, dtype=np.bool_)
    keep_prob = np.empty(pairs.size, np.float64)
    uids = _uids(uids, pairs.size)
    if not kernel.draw(
        *keys, uids, pair_offsets, text_offsets, entry_ids, keep_probs, texts, pairs, keep_prob
    ):
        raise _no_probabilities()
    if choose_text == ONE:
        keep_prob = _kept(pair_offsets, text_offsets, entry_ids, keep_probs, choose_text)
        chosen = np.zeros(texts.size, dtype=np.bool_)
        kernel.choose_texts(*keys, uids, pair_offsets, text_offsets, chosen)
        texts &= chosen
        pairs = np.diff(offsets_of(texts)[pair_offsets]) > 0
    return Balanced(texts, pairs, keep_prob)


def expected_sizes(
    pair_offsets: Offsets,
    text_offsets: Offsets,
    entry_ids: EntryIds,
    keep_probs: Probabilities,
    choose_text: str = ANY,
) -> tuple[float, float]:
    """The expected numbers of kept pairs and kept texts; arguments as of ``balance``."""
    keep_probs = _probabilities(keep_probs)
    pairs = _kept(pair_offsets, text_offsets, entry_ids, keep_probs, choose_text)
    if choose_text == ONE:
        return float(pairs.sum()), float(pairs.sum())  # of a kept pair one text is
    texts = _pair_keep_probabilities(text_offsets, entry_ids, keep_probs)
    return float(pairs.sum()), float(texts.sum())


def _kept(
    pair_offsets: Offsets,
    text_offsets: Offsets,
    entry_ids: EntryIds,
    keep_probs: Probabilities,
    choose_text: str,
) -> Probabilities:
    """Each pair's probability to be kept."""
    if choose_text == ANY:
        return _pair_keep_probabilities(text_offsets[pair_offsets], entry_ids, keep_probs)
    texts = _pair_keep_probabilities(text_offsets, entry_ids, keep_probs)
    matching = np.diff(text_offsets) > 0
    pair_of_text = np.repeat(np.arange(pair_offsets.size - 1), np.diff(pair_offsets))
    own = slice(pair_offsets[0], pair_offsets[-1])
    number = np.bincount(pair_of_text, matching[own], pair_offsets.size - 1)
    total = np.bincount(pair_of_text, texts[own], pair_offsets.size - 1)
    return np.divide(total, number, out=np.zeros(total.size), where=number > 0)


def _uids(values: Any, pairs: int) -> npt.NDArray[np.uint64]:
    """Uids that the kernel can take: two 64-bit words for each pair."""
    array = np.asarray(values)
    if array.shape != (pairs, 2) or array.dtype.kind != "u" or array.dtype.itemsize != 8:
        raise ArgumentError(
            "{uids} must be uint64[{pairs}, 2], two words for each of the pairs that pair_offsets "
            "part, not {dtype}{shape}",
            pairs=pairs,
            dtype=array.dtype,
            shape=list(array.shape),
        )
    return np.ascontiguousarray(array, np.uint64)


def draw(seed: int, uid: bytes, text_position: int, entry_id: int, *, epoch: int = 0) -> float:
    """One draw: a number in [0, 1) for the (pair, text, entry).

    ``uid`` has 16 bytes, ``text_position`` and ``entry_id`` are below 2**32, ``seed`` and ``epoch``
    below 2**64. It is what ``balance`` draws; the entry keeps the text iff it is below p. Other
    values raise ValueError.
    """
    if len(uid) != 16:
        raise ArgumentError("{uid} must have 16 bytes, not {value}", value=shown(uid))
    for name, value, bits in (
        ("seed", seed, 64), ("epoch", epoch, 64), ("text_position", text_position, 32),
        ("entry_id", entry_id, 32),
    ):  # fmt: skip
        whole(name, value, 0, 2**bits)
    first, second = np.frombuffer(uid, "<u8")
    word = text_position << 32 | entry_id
    return float(kernel.uniform(np.uint64(seed), np.uint64(epoch), first, second, np.uint64(word)))


def chosen_texts(
    seed: int, uid: bytes, matches: Sequence[int], choose_text: str, *, epoch: int = 0
) -> list[bool]:
    """Which of a pair's texts may keep it, as ``balance`` chooses.

    ``matches``: how many entries each text matches; the other arguments as of ``draw``.
    """
    matching = [place for place, number in enumerate(matches) if number]
    if check_choice("choose_text", choose_text, TEXT_CHOICES) == ONE and matching:
        u = draw(seed, uid, 2**32 - 1, 2**32 - 2, epoch=epoch)
        matching = [matching[int(u * len(matching))]]
    return [place in matching for place in range(len(matches))]


def pair_keep_probabilities(
    offsets: Offsets, entry_ids: EntryIds, keep_probs: Probabilities
) -> Probabilities:
    """Each pair's probability to be kept: ``1 - prod(1 - p)`` over all matches of all its texts.

    Args:
        offsets: int64[pairs + 1] into ``entry_ids``: ``text_offsets[pair_offsets]``.
        entry_ids: uint32[matches].
        keep_probs: float64[entries], as ``keep_probabilities`` gives them.

    Returns:
        float64[pairs]; 0 for a pair without matches.

    Raises:
        ValueError: The arrays do not fit together, or a probability lies outside of [0, 1].
    """
    keep_probs = _probabilities(keep_probs)
    entry_ids = _entry_ids(entry_ids, keep_probs.size)
    offsets = _offsets("offsets", offsets, entry_ids.size, "entry ids")
    return _pair_keep_probabilities(offsets, entry_ids, keep_probs)


def _pair_keep_probabilities(
    offsets: Offsets, entry_ids: EntryIds, keep_probs: Probabilities
) -> Probabilities:
    probabilities = np.empty(offsets.size - 1, np.float64)
    if not kernel.pair_keep_probabilities(offsets, entry_ids, keep_probs, probabilities):
        raise _no_probabilities()
    return probabilities


def _no_probabilities() -> ArgumentError:
    return ArgumentError("{keep_probs} must lie in [0, 1]")
