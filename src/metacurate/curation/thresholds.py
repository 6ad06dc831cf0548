"""The threshold of each language, from that of the reference language or from a tail proportion.

Source: Meta CLIP 2 (arXiv 2507.22062): the reference language (English) has t; its
tail proportion p, the share of its counts that entries with counts below t hold, is that of all;
and each other language has the t whose tail proportion is nearest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.curation import balancing
from metacurate.curation.balancing import Counts
from metacurate.curation.layout import BALANCE, THRESHOLD_FILE, finished_section, run_blocks
from metacurate.curation.settings import BELOW, NEAREST, SAME, Balance, json_number
from metacurate.errors import ArgumentError
from metacurate.metadata.store import Block
from metacurate.runtime.storage import Folder

# Thresholds by language jump where a language's nearest count changes, so that a size may lie in a
# gap: the search ends when it is closed in to this share of t.
T_TOLERANCE = 1e-6
LEAST_T = 1e-6


@dataclass(frozen=True)
class Thresholds:
    """The threshold of each block of entries, in the order of the blocks; one for one list."""

    blocks: tuple[Block, ...]
    t: tuple[float, ...]
    reference: int = 0
    """The place of the reference language's block."""

    @property
    def of_reference(self) -> float:
        """The threshold of the reference language, or that of the one list."""
        return self.t[self.reference]

    @property
    def by_entry(self) -> npt.NDArray[np.float64]:
        """Each entry's threshold, float64[entries]."""
        return np.repeat(np.array(self.t), [len(block) for block in self.blocks])

    def with_survival(self, share: float) -> Thresholds:
        """Thresholds at which so many more are kept that this share of them are as many."""
        return replace(self, t=tuple(t / share for t in self.t))

    def saved(self) -> dict[str, Any]:
        """What ``read_thresholds`` reads: plain JSON values."""
        return {"t": [json_number(t) for t in self.t], "place": self.reference}

    def t_of(self, place: int, counts: Counts) -> float | str | None:
        """The threshold of a block as JSON has it; None for a language without a match."""
        block = self.blocks[place]
        matched = block.language is None or counts[block.first : block.stop].any()
        return json_number(self.t[place]) if matched else None

    def as_json(self, counts: Counts) -> dict[str, Any]:
        """Plain JSON values: ``t`` and ``p`` (tail proportion), and those by language, if several.

        A language without a match has none of either.
        """
        found: dict[str, Any] = {
            "t": json_number(self.of_reference),
            "p": tail_proportion_of(self.blocks[self.reference], counts, self.of_reference),
        }
        if self.blocks[0].language is not None:
            found["languages"] = {
                str(block.language): {
                    "t": self.t_of(place, counts),
                    "p": tail_proportion_of(block, counts, self.t[place]),
                }
                for place, block in enumerate(self.blocks)
            }
        return found


def run_thresholds(folder: Folder) -> Thresholds:
    """The thresholds of a balanced run."""
    finished_section(folder, BALANCE)
    solved = read_thresholds(folder, run_blocks(folder))
    assert solved is not None
    return solved


def read_thresholds(folder: Folder, blocks: tuple[Block, ...]) -> Thresholds | None:
    """The thresholds that a run has solved for its blocks of entries; None if it has not yet."""
    saved = folder.read_json(THRESHOLD_FILE)
    if saved is None:
        return None
    return Thresholds(blocks, tuple(map(float, saved["t"])), saved["place"])


def tail_proportion_of(block: Block, counts: Counts, t: float) -> float:
    """The share of a block's counts that its tail holds."""
    return balancing.tail_proportion(counts[block.first : block.stop], t)


def solve_thresholds(
    settings: Balance,
    counts: Counts,
    blocks: Sequence[Block],
    expected_size: Callable[[Thresholds], float],
) -> Thresholds:
    """The thresholds that the settings ask for, with the expected loss of images made up for.

    ``counts`` uint64[entries] over all ``blocks``. ``expected_size`` gives the expected number of
    kept pairs at some thresholds: each call is a pass over the index, needed for a target size.
    """
    aim = _aim(settings, counts, tuple(blocks))
    if settings.target_size is None:
        # Of t / R pairs kept for an entry, t are there after a share R of all images survived.
        t = settings.t if settings.t is not None else settings.p
        assert t is not None
        return aim(t).with_survival(settings.expect_survival)
    wanted = settings.target_size / settings.expect_survival
    try:
        if blocks[0].language is None:
            t = balancing.solve_threshold_for_size(counts, lambda t: expected_size(aim(t)), wanted)
            return aim(t)
        return _at_size(aim, float(counts.max(initial=0)), expected_size, wanted)
    except ArgumentError as error:
        raise ArgumentError(
            "{target_size}: {said}; use {t} inf to keep all", said=str(error)
        ) from None


def given_thresholds(settings: Balance, counts: Counts, blocks: Sequence[Block]) -> Thresholds:
    """The thresholds of settings that need no pass over an index: t or p is given."""

    def no_size(_: Thresholds) -> float:
        raise AssertionError("a target size needs an index")

    return solve_thresholds(settings, counts, blocks, no_size)


def _aim(
    settings: Balance, counts: Counts, blocks: tuple[Block, ...]
) -> Callable[[float], Thresholds]:
    """All thresholds as a function of the one number that is given or sought."""
    languages = [str(block.language) for block in blocks if block.language is not None]
    settings.check_languages(languages)
    if not languages:
        if settings.p is not None:
            rule = settings.p_rule or BELOW
            return lambda p: Thresholds(blocks, (balancing.solve_threshold(counts, p, rule=rule),))
        return lambda t: Thresholds(blocks, (t,))
    own = [counts[block.first : block.stop] for block in blocks]
    rule = settings.p_rule or NEAREST
    fixed = dict(settings.t_of)
    reference = languages.index(settings.reference) if settings.reference in languages else -1
    by_reference, follows = settings.p is None, settings.follows_reference
    if follows and not own[reference].any():
        raise settings.no_reference("matches nothing in the language", languages)

    def aim(value: float) -> Thresholds:
        p = balancing.tail_proportion(own[reference], value) if follows else value
        thresholds = []
        for place, language in enumerate(languages):
            if language in fixed:
                thresholds.append(fixed[language])
            elif by_reference and (place == reference or rule == SAME or math.isinf(value)):
                thresholds.append(value)
            else:
                thresholds.append(balancing.solve_threshold(own[place], p, rule=rule))
        return Thresholds(blocks, tuple(thresholds), max(reference, 0))

    return aim


def _at_size(
    aim: Callable[[float], Thresholds],
    highest: float,
    expected_size: Callable[[Thresholds], float],
    target: float,
) -> Thresholds:
    """The thresholds with the expected size nearest below or at a target, by halving log(t)."""
    # Above all counts: at the highest itself the reference language's tail lacks that entry, so
    # the other languages are not kept whole yet.
    low, high = LEAST_T, 2 * highest
    least, most = expected_size(aim(low)), expected_size(aim(high)) if high else 0.0
    if not least <= target < most:
        raise ArgumentError(
            "{target} must be from {least:.0f} up to below the {most:.0f} matched pairs, not "
            "{value:.15g}",
            least=math.ceil(least),
            most=most,
            value=target,
        )
    while high > low * (1 + T_TOLERANCE):
        middle = math.sqrt(low * high)
        size = expected_size(aim(middle))
        if abs(size / target - 1) <= balancing.SIZE_TOLERANCE:
            return aim(middle)
        low, high = (middle, high) if size < target else (low, middle)
    return aim(low)
