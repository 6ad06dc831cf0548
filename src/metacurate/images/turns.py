"""Whose turn it is to ask a host: few requests at a time, pauses between them, in order of asking.

``HostTurns`` is the one definition, without waiting of its own. ``LocalTurns`` serves one event
loop with it; ``keeper`` serves the tasks of a cluster.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

MAX_REMEMBERED_HOSTS = 100_000
Waiter = TypeVar("Waiter")


class Clock(Protocol):
    """What is needed of an event loop."""

    def time(self) -> float:
        """Seconds on a clock that only advances."""
        ...

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> object:
        """Call back after so many seconds."""
        ...


@dataclass(slots=True)
class _Host(Generic[Waiter]):
    """A host name's turns: how many are out, from when on the next one may be, and who waits.

    ``starting``: a turn is out whose request has not begun; ``timed``: a call back is due.
    """

    not_before: float
    held: int = 0
    starting: bool = False
    timed: bool = False
    waiting: deque[Waiter] = field(default_factory=deque)


class HostTurns(Generic[Waiter]):
    """The turns of hosts: at most ``per_host`` at a time, starts ``delay`` seconds apart.

    Args:
        per_host: Turns of one host name that are out at a time.
        delay: Seconds from one request's start (``started``) to the next turn.
        grant: Called with a waiter and a host when its turn has come; False if nobody waits any
            more, and the turn goes to the next one.
        clock: An event loop.
        quiet_until: No turn is given before this time.
    """

    def __init__(
        self,
        per_host: int,
        delay: float,
        grant: Callable[[Waiter, str], bool],
        clock: Clock,
        quiet_until: float = 0.0,
    ) -> None:
        self._per_host, self._delay, self._grant, self._clock = per_host, delay, grant, clock
        self._quiet_until = quiet_until
        self._hosts: dict[str, _Host[Waiter]] = {}
        self._tidy_at = MAX_REMEMBERED_HOSTS

    def ask(self, name: str, waiter: Waiter) -> None:
        """Put a waiter in the host's queue."""
        host = self._host(name)
        host.waiting.append(waiter)
        self._dispatch(name, host)

    def take_now(self, name: str) -> bool:
        """Take a turn if there is one and nobody waits for it."""
        host = self._host(name)
        if host.waiting or host.held >= self._per_host or host.starting:
            return False
        if host.not_before and host.not_before > self._clock.time():
            return False
        host.held += 1
        host.starting = self._delay > 0
        return True

    def started(self, name: str) -> None:
        """The request of the turn that was given last begins now."""
        if self._delay:
            host = self._hosts[name]
            host.starting = False
            host.not_before = max(host.not_before, self._clock.time() + self._delay)
            self._dispatch(name, host)

    def pause(self, name: str, seconds: float) -> None:
        """Give no turn of the host for so long."""
        host = self._host(name)
        host.not_before = max(host.not_before, self._clock.time() + seconds)

    def give_back(self, name: str) -> None:
        """A turn has ended; one that never started is ``started`` first."""
        host = self._hosts[name]
        host.held -= 1
        if host.waiting:
            self._dispatch(name, host)
        elif len(self._hosts) > self._tidy_at:
            self._forget_idle()

    def is_wanted(self, name: str) -> bool:
        """Whether anyone waits for the host."""
        return bool(self._hosts[name].waiting) if name in self._hosts else False

    def _host(self, name: str) -> _Host[Waiter]:
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(self._quiet_until)
        return host

    def _dispatch(self, name: str, host: _Host[Waiter]) -> None:
        while host.waiting and host.held < self._per_host and not host.starting:
            wait = host.not_before - self._clock.time()
            if wait > 0:
                if not host.timed:
                    host.timed = True
                    self._clock.call_later(wait, self._due, name, host)
                return
            host.held += 1
            host.starting = self._delay > 0
            if not self._grant(host.waiting.popleft(), name):
                host.held -= 1
                host.starting = False

    def _due(self, name: str, host: _Host[Waiter]) -> None:
        host.timed = False
        self._dispatch(name, host)

    def _forget_idle(self) -> None:
        now = self._clock.time()
        kept = {
            name: host
            for name, host in self._hosts.items()
            if host.held or host.waiting or host.timed or host.not_before > now
        }
        self._hosts = kept
        self._tidy_at = max(MAX_REMEMBERED_HOSTS, 2 * len(kept))


class Turn(Protocol):
    """A host's turn, to be ended in any case. ``pause``: what the host asked for, in seconds."""

    pause: float

    def start(self) -> bool:
        """The request begins now; False if the turn has lapsed, and it must not."""
        ...

    def end(self) -> None:
        """Give the turn back."""
        ...


class Turns(Protocol):
    """Where a fetcher takes its turns from; an async context manager."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def take(self, host: str) -> Turn:
        """Wait for a turn of a host name."""
        ...


class LocalTurns:
    """The turns of one process, for use in one event loop."""

    def __init__(self, per_host: int, delay: float) -> None:
        self._limits = (per_host, delay)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.hosts: HostTurns[asyncio.Future[None]] = HostTurns(*self._limits, _wake, self._loop)
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def take(self, host: str) -> Turn:
        """See ``Turns``."""
        turn = _LocalTurn(self.hosts, host)
        if self.hosts.take_now(host):
            return turn
        waiter: asyncio.Future[None] = self._loop.create_future()
        self.hosts.ask(host, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                turn.end()
            raise
        return turn


def _wake(waiter: asyncio.Future[None], _: str) -> bool:
    if waiter.done():
        return False
    waiter.set_result(None)
    return True


@dataclass(slots=True)
class _LocalTurn:
    hosts: HostTurns[asyncio.Future[None]]
    name: str
    pause: float = 0.0
    begun: bool = False

    def start(self) -> bool:
        self.begun = True
        self.hosts.started(self.name)
        return True

    def end(self) -> None:
        if not self.begun:
            self.hosts.started(self.name)
        if self.pause:
            self.hosts.pause(self.name, self.pause)
        self.hosts.give_back(self.name)
