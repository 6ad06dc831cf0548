"""Plans from counts alone, against values worked out by hand; and what a sweep may ask for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from metacurate.analysis.plan import Plan, Sweep, as_json, plan_counts
from metacurate.errors import UserError

# 111 matches in all; two entries are in no text.
COUNTS = np.array([100, 0, 8, 2, 1, 0], np.uint64)


def plan(
    t: float, p: float, parts: tuple[int, int], draws: float, most: float, asked: str = ""
) -> Plan:
    return Plan(t, asked, p, *parts, draws, (0.0, draws), (most, draws))


# t; tail share, entries in head and tail, sum of min(count, t), the largest of min(count, t).
AT = {
    1.0: (0.0, (4, 0), 4.0, 1.0),
    2.0: (1 / 111, (3, 1), 7.0, 2.0),
    8.0: (3 / 111, (2, 2), 19.0, 8.0),
    10.0: (11 / 111, (1, 3), 21.0, 10.0),
    100.0: (11 / 111, (1, 3), 111.0, 100.0),
    math.inf: (1.0, (0, 4), 111.0, 100.0),
}


@pytest.mark.parametrize("t", AT)
def test_a_threshold(t: float) -> None:
    assert plan_counts(COUNTS, Sweep(t=(t,))) == [plan(t, *AT[t])]


def test_what_is_solved_for_is_planned_too_and_all_are_sorted() -> None:
    plans = plan_counts(COUNTS, Sweep((10.0, 1.0), (11 / 111, 0.01), (19, 111)))
    # The largest t with at most that share in the tail: the next count above.
    assert plans == [
        plan(1.0, *AT[1.0]),
        plan(2.0, *AT[2.0], "p = 0.01"),
        plan(8.0, *AT[8.0], "19 pairs (t at least)"),
        plan(10.0, *AT[10.0]),
        plan(100.0, *AT[100.0], "111 pairs (t at least)"),
        plan(100.0, *AT[100.0], "p = 0.0990991"),
    ]


@pytest.mark.parametrize(
    ("sweep", "thresholds"),
    [
        (Sweep(), [1.0, 8.0, 10.0, 100.0, math.inf]),  # decades up to the largest; 6% below 8
        (Sweep(t=(5.0,)), [5.0]),
        (Sweep(p=(0.06,)), [8.0]),
        (Sweep(target_size=(4,)), [1.0]),
        (Sweep(t=(5.0,), target_size=(4,)), [1.0, 5.0]),
        (Sweep(p=(0.06,), target_size=(1,)), [0.25, 8.0]),
    ],
)
def test_what_is_asked_for(sweep: Sweep, thresholds: list[float]) -> None:
    assert [found.t for found in plan_counts(COUNTS, sweep)] == thresholds


def test_no_counts_at_all() -> None:
    plans = plan_counts(np.zeros(0, np.uint64), Sweep())
    assert [found.t for found in plans if not found.asked] == [1.0, math.inf]
    assert all((found.draws, found.pairs, found.texts) == (0, (0, 0), (0, 0)) for found in plans)


@pytest.mark.parametrize(
    "asked", [{"t": (-1.0,)}, {"t": (math.nan,)}, {"p": (-0.1,)}, {"p": (1.1,)},
              {"target_size": (0,)}, {"target_size": (1, -5)}],
)  # fmt: skip
def test_what_cannot_be_asked_for(asked: dict[str, Any]) -> None:
    (name,) = asked
    with pytest.raises(UserError, match=rf"^{name} "):
        Sweep(**asked)


def test_more_pairs_than_matches() -> None:
    with pytest.raises(UserError, match="there are only 111 matches, so no 112 pairs"):
        plan_counts(COUNTS, Sweep(target_size=(112,)))


def test_plain_values() -> None:
    found = as_json(plan_counts(COUNTS, Sweep(t=(2.0, math.inf))))
    assert [row["t"] for row in found] == [2.0, "inf"]
    expected = vars(plan(2.0, *AT[2.0]))
    assert found[0] == {name: value for name, value in expected.items() if name != "languages"}
