"""Turns shared by several tasks: never more than the limit, whatever is lost; and no turn is lost.

Tasks and keeper run in one event loop here, with the same messages as on a cluster.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from metacurate.images.keeper import Keeper, KeptTurns, Limits
from metacurate.images.turns import LocalTurns, Turns
from metacurate.runtime.engine import Shared, SharedLostError

LIMITS = Limits(per_host=3, delay=0.0, timeout=0.2, max_wait=0.2, slack=0.2, beat=0.05)


@dataclass
class Line:
    """A keeper as its tasks reach it: with some delay, and not at all while it is ``down``."""

    keeper: Keeper
    down: bool = False
    calls: int = 0
    tell: Callable[[], None] = field(default=lambda: None)

    async def call(self, method: str, *arguments: Any) -> Any:
        self.calls += 1
        await asyncio.sleep(0.001)
        if self.down:
            raise SharedLostError
        answer = await getattr(self.keeper, method)(*arguments)
        if self.down:
            raise SharedLostError
        return answer


class Web:
    """Hosts that see who asks them."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.starts: list[float] = []

    async def ask(self, turns: Turns, host: str, seconds: float, pause: float = 0.0) -> None:
        """One request, as the fetcher makes it."""
        while True:
            turn = await turns.take(host)
            try:
                if turn.start():
                    self.starts.append(time.monotonic())
                    self.now[host] += 1
                    self.most[host] = max(self.most[host], self.now[host])
                    try:
                        await asyncio.sleep(seconds)
                    finally:
                        self.now[host] -= 1
                    self.answered[host] += 1
                    turn.pause = pause
                    return
            finally:
                turn.end()


def tasks_of(lines: Sequence[Shared], number: int, places: int = 8) -> list[KeptTurns]:
    return [KeptTurns(lines, LIMITS, places) for _ in range(number)]


@pytest.mark.parametrize("keepers", [1, 3])
def test_tasks_together_keep_to_the_limit_and_all_are_served(keepers: int) -> None:
    """Two busy hosts with more waiting URLs than are told, and many quiet ones."""

    async def go() -> None:
        web, lines = Web(), [Line(Keeper(LIMITS)) for _ in range(keepers)]
        hosts = [f"h{n}" for n in range(30)] + ["busy", "cdn"] * 60
        random.Random(5).shuffle(hosts)
        async with asyncio.timeout(8), AsyncExitStack() as stack:
            tasks = tasks_of(lines, 4)
            for task in tasks:
                await stack.enter_async_context(task)
            await asyncio.gather(*(web.ask(t, h, 0.002) for t in tasks for h in hosts))
        assert web.answered == {h: 4 * n for h, n in Counter(hosts).items()}
        assert max(web.most.values()) == LIMITS.per_host
        # Not a call for each of 2 x 600 messages.
        assert sum(line.calls for line in lines) < 400

    asyncio.run(go())


@pytest.mark.parametrize("shared", [False, True])
def test_starts_are_apart_and_a_pause_holds_for_all(shared: bool) -> None:
    limits = replace(LIMITS, delay=0.1)

    async def go() -> None:
        web = Web()
        turns: list[Turns] = [LocalTurns(limits.per_host, limits.delay)]
        if shared:
            line = Line(Keeper(limits))
            turns = [KeptTurns([line], limits, 8) for _ in range(2)]
        async with asyncio.timeout(8), AsyncExitStack() as stack:
            for each in turns:
                await stack.enter_async_context(each)
            await asyncio.gather(*(web.ask(turns[n % len(turns)], "h", 0.15) for n in range(4)))
            apart = [b - a for a, b in zip(web.starts, web.starts[1:], strict=False)]
            assert min(apart) > 0.098
            await web.ask(turns[0], "h", 0.0, pause=0.3)
            told = time.monotonic()
            await web.ask(turns[-1], "h", 0.0)
            assert web.starts[-1] - told > 0.25

    asyncio.run(go())


def test_turns_of_a_task_that_is_gone_are_free_after_its_lease() -> None:
    async def go() -> None:
        web, line = Web(), Line(Keeper(LIMITS))
        async with asyncio.timeout(8):
            dead, alive = tasks_of([line], 2)
            await dead.__aenter__()
            for _ in range(LIMITS.per_host):
                assert (await dead.take("h")).start()
            died = time.monotonic()
            for each in dead._lines:  # it says nothing any more, and gives nothing back
                each._talk.cancel()
            async with alive:
                await web.ask(alive, "other", 0.0)
                assert time.monotonic() - died < 0.2
                await web.ask(alive, "h", 0.0)
        assert time.monotonic() - died > LIMITS.slack + LIMITS.timeout

    asyncio.run(go())


def test_a_new_keeper_waits_until_nobody_asks_by_the_old_ones_leave() -> None:
    async def go() -> None:
        web, line = Web(), Line(Keeper(LIMITS))
        async with asyncio.timeout(10), AsyncExitStack() as stack:
            tasks = tasks_of([line], 3)
            for task in tasks:
                await stack.enter_async_context(task)
            asked = [
                asyncio.ensure_future(web.ask(t, h, LIMITS.timeout))
                for t in tasks
                for h in ["h"] * 4 + ["g"] * 2
            ]
            await asyncio.sleep(0.15)
            assert web.now == {"h": 3, "g": 3}
            line.down, line.keeper = True, Keeper(LIMITS, restarted=True)
            await asyncio.sleep(0.05)
            line.down, back = False, time.monotonic()
            started = len(web.starts)
            await asyncio.gather(*asked)
        assert web.answered == {"h": 12, "g": 6}
        assert max(web.most.values()) == LIMITS.per_host
        assert web.starts[started] - back > LIMITS.slack + LIMITS.timeout

    asyncio.run(go())


def test_a_task_that_is_cut_off_begins_nothing_and_asks_again() -> None:
    async def go() -> None:
        line = Line(Keeper(LIMITS))
        async with asyncio.timeout(8), KeptTurns([line], LIMITS, 8) as task:
            held = await task.take("h")
            line.down = True
            await asyncio.sleep(LIMITS.slack + 0.2)
            assert not held.start()
            held.end()
            line.down = False
            # What the keeper thought it had given before it was cut off comes free in time.
            turns = [await task.take("h") for _ in range(LIMITS.per_host)]
            assert all(turn.start() for turn in turns)
            for turn in turns:
                turn.end()

    asyncio.run(go())


def test_who_is_cancelled_leaves_its_turn_to_others() -> None:
    async def go(turns: Turns) -> None:
        async with asyncio.timeout(5), turns:
            held = [await turns.take("h") for _ in range(LIMITS.per_host)]
            waiting = [asyncio.ensure_future(turns.take("h")) for _ in range(3)]
            await asyncio.sleep(0.05)
            waiting[0].cancel()
            for turn in held:
                turn.end()
            waiting[1].cancel()
            (await waiting[2]).end()
            for _ in range(LIMITS.per_host):
                await turns.take("h")

    asyncio.run(go(LocalTurns(LIMITS.per_host, 0.0)))
    asyncio.run(go(KeptTurns([Line(Keeper(LIMITS))], LIMITS, 8)))
