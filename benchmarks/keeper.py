"""How many hosts' turns a second one keeper gives to tasks on a Ray of this machine.

``python benchmarks/keeper.py --tasks 8 --places 128 --request 0.05 --hosts 100000``
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from functools import partial

from metacurate.images.keeper import Keeper, KeptTurns, Limits
from metacurate.runtime.engine import Shared
from metacurate.runtime.engines.ray import RayEngine


@dataclass(frozen=True)
class Load:
    """A task that asks hosts in turn; a request is a sleep."""

    number: int
    keepers: tuple[Shared, ...]
    limits: Limits
    places: int
    request: float
    hosts: int
    seconds: float


def take_turns(load: Load) -> int:
    """How many turns a task had."""

    async def run() -> int:
        done = 0
        places = asyncio.Semaphore(load.places)
        end = time.monotonic() + load.seconds
        async with KeptTurns(load.keepers, load.limits, load.places) as turns:

            async def ask(first: int) -> None:
                nonlocal done
                host = first
                while time.monotonic() < end:
                    host = (host * 7919 + 104_729) % load.hosts
                    turn = await turns.take(f"host{host}.example")
                    async with places:
                        if turn.start():
                            await asyncio.sleep(load.request)
                            done += time.monotonic() < end
                    turn.end()

            first = load.number * 1_000_003
            await asyncio.gather(*(ask(first + n) for n in range(3 * load.places)))
        return done

    return asyncio.run(run())


def main() -> None:
    """Print the rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--places", type=int, default=128)
    parser.add_argument("--request", type=float, default=0.05)
    parser.add_argument("--hosts", type=int, default=100_000)
    parser.add_argument("--per-host", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    limits = Limits(given.per_host, delay=0.0, timeout=30.0, max_wait=60.0)
    with (
        RayEngine(workers=given.tasks) as engine,
        engine.share(partial(Keeper, limits), 1_000_000) as keepers,
    ):
        loads = [
            Load(n, keepers, limits, given.places, given.request, given.hosts, given.seconds)
            for n in range(given.tasks)
        ]
        turns = sum(done for _, done in engine.map_shards(take_turns, loads))
    most = given.tasks * given.places / given.request
    print(f"{turns / given.seconds:,.0f} turns a second, of at most {most:,.0f}")


if __name__ == "__main__":
    main()
