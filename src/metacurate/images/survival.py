"""How much of a set survives its download (and filters): the rate to plan a larger target with."""

from __future__ import annotations

import math
from dataclasses import dataclass

from metacurate.errors import UserError
from metacurate.runtime.storage import Folder, read_ahead
from metacurate.webdataset.shards import list_shards, statistics_name

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Survival:
    """``rate`` of ``count`` rows with an image at the end; ``low`` to ``high``: 95% interval."""

    rate: float
    count: int
    low: float
    high: float


def survival_rate(tars: str) -> Survival:
    """The rate of a folder made by ``pool download`` or ``pool filter`` (or img2dataset).

    Rows of the input count, so a filter's folder gives the rate through download and filters. The
    interval (Wilson's) is for a random sample of independent rows; rows of one host are not quite.
    UserError if a shard has no statistics.
    """
    folder = Folder(tars)
    count = successes = 0
    stems = list(list_shards(folder))
    found = read_ahead(folder, folder.read_json, map(statistics_name, stems))
    for stem, statistics in zip(stems, found, strict=True):
        if statistics is None:
            raise UserError(
                f"{folder.address(statistics_name(stem))} is missing: the shard is not complete"
            )
        count += statistics["count"]
        successes += statistics["successes"]
    if count == 0:
        raise UserError(f"{tars} has no rows to take a rate from")
    return wilson(successes, count)


def wilson(successes: int, count: int, z: float = Z_95) -> Survival:
    """The proportion with Wilson's score interval for z standard deviations."""
    rate = successes / count
    shrink = 1 + z * z / count
    centre = (rate + z * z / (2 * count)) / shrink
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count)) / shrink
    return Survival(rate, count, max(0.0, centre - half), min(1.0, centre + half))
