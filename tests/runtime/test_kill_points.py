"""A seeded few of the points of ``tests/kill_points.py``: every command, killed and given again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from kill_points import Commands, Sweep, cluster, commands
from killed_runs import Warm

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
SEED = 13
POINTS = 2


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Commands, Warm]]:
    with commands(tmp_path_factory.mktemp("killed")) as found:
        yield found


def test_killed_on_this_machine(known: tuple[Commands, Warm]) -> None:
    """In one test, since each command reads what earlier ones made."""
    made, run = known
    for name in made.words:
        expected, events = made.make(name)
        sweep = Sweep(made, run, name, expected, events, made.local(name))
        for kill in sweep.points(POINTS, random.Random(f"{SEED} {name}")):
            sweep.check(kill)


@pytest.mark.usefixtures("known")
def test_killed_on_ray(known: tuple[Commands, Warm]) -> None:
    """The command with a worker, and a worker alone."""
    pytest.importorskip("ray", reason="needs the extra metacurate[ray]")
    made, run = known
    rng = random.Random(SEED)
    name = rng.choice(["extract", "dedup", "build", "curated", "download"])
    expected, events = made.make(name)
    with cluster() as address:
        sweep = Sweep(made, run, name, expected, events, ["--engine", "ray", "--address", address])
        for kill in sweep.points(2, rng):
            sweep.check(kill)
