"""The turns of hosts for all tasks of a run on a cluster: what keeps them, and what asks it.

A ``Keeper`` lives in an object that the tasks share (``runtime.engine.Shared``); with several of
them each has the hosts of one hash. ``KeptTurns`` is a task's side. Messages go in batches: what
comes up while an answer is on its way goes with the next call, so that a busy keeper gets fewer and
larger ones.

Whatever is lost, hosts are asked less and never more. A task starts no request unless its keeper
answered a call of the last ``SLACK`` seconds, and a request takes ``timeout`` seconds at most. So
the turns of a task that was not heard of for both together are free again, and a keeper that took
the place of a lost one gives no turn for as long, or for as long as a host may have asked for
(``max_wait``) if that is longer.
"""

from __future__ import annotations

import asyncio
import uuid
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from metacurate.errors import UserError
from metacurate.images.turns import HostTurns, Turn
from metacurate.runtime.engine import Shared, SharedLostError

# Seconds. A call with nothing to tell is answered after BEAT.
BEAT = 5.0
SLACK = 15.0
# From one call to the next: times the number of keepers, so that a task makes 50 calls a second at
# most; and when a turn is given back for which others wait.
BATCH = 0.02
QUICK = 0.005
TRY_AGAIN = 0.5
# Turns of busy hosts that a task waits for at a time; the keeper remembers them.
MAX_QUEUED = 1024


@dataclass(frozen=True)
class Limits:
    """What a keeper holds to, in seconds but for the first.

    ``per_host``, ``delay``: see ``HostTurns``; ``timeout``: a request takes no longer;
    ``max_wait``: nor does a pause; ``slack`` and ``beat`` as above.
    """

    per_host: int
    delay: float
    timeout: float
    max_wait: float
    slack: float = SLACK
    beat: float = BEAT

    @property
    def lease(self) -> float:
        """Seconds after which a task that was not heard of asks nobody any more."""
        return self.slack + self.beat + self.timeout

    @property
    def silence(self) -> float:
        """Seconds for which a keeper that knows nothing of its hosts gives no turn."""
        return self.slack + self.beat + max(self.timeout, self.max_wait, self.delay)


class Message(NamedTuple):
    """What a task tells a keeper: host names, one for each turn.

    ``asks``: wanted; ``started``: requests begun; ``pauses``: hosts with the seconds they asked
    for; ``ended``: given back; ``closing``: it needs no more, and holds none.
    """

    asks: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    pauses: tuple[tuple[str, float], ...] = ()
    ended: tuple[str, ...] = ()
    closing: bool = False


@dataclass(eq=False)
class _Session:
    """A task, as far as the keeper knows it: the turns it holds, and grants not yet told."""

    heard: float
    held: Counter[str] = field(default_factory=Counter)
    granted: list[str] = field(default_factory=list)
    parked: asyncio.Future[None] | None = None
    gone: bool = False

    def wake(self) -> None:
        """Let the call that waits for grants be answered."""
        if self.parked is not None and not self.parked.done():
            self.parked.set_result(None)


class Keeper:
    """Keeps the turns of some hosts; its methods are called in one event loop."""

    def __init__(self, limits: Limits, restarted: bool = False) -> None:
        self._limits = limits
        self._restarted = restarted
        self._sessions: dict[str, _Session] = {}
        self._turns: HostTurns[_Session] | None = None

    async def exchange(
        self, name: str, first: bool, said: Message
    ) -> list[tuple[str, bool]] | None:
        """Take a message; answer with the hosts of the turns given, and if others wait for them.

        At once if there are any; else after ``beat`` seconds, or when the next call of the session
        comes. None if the session is not known although it was answered before (not ``first``):
        what it held is void.
        """
        turns, now = self._hosts(), asyncio.get_running_loop().time()
        for host, seconds in said.pauses:
            turns.pause(host, seconds)
        session = self._sessions.get(name)
        if session is None:
            if not first:
                return None
            session = self._sessions[name] = _Session(now)
        session.heard = now
        session.wake()
        for host in said.started:
            if session.held[host]:
                turns.started(host)
        for host in said.ended:
            if session.held[host]:
                self._take_back(session, host)
        for host in said.asks:
            turns.ask(host, session)
        if said.closing:
            self._end(name)
        elif not session.granted:
            session.parked = asyncio.get_running_loop().create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.beat):
                    await session.parked
        granted, session.granted = session.granted, []
        return [(host, turns.is_wanted(host)) for host in granted]

    def _hosts(self) -> HostTurns[_Session]:
        if self._turns is None:
            loop, limits = asyncio.get_running_loop(), self._limits
            quiet_until = loop.time() + limits.silence if self._restarted else 0.0
            self._turns = HostTurns(limits.per_host, limits.delay, _grant, loop, quiet_until)
            loop.call_later(limits.beat, self._expire)
        return self._turns

    def _take_back(self, session: _Session, host: str) -> None:
        _count_down(session.held, host)
        self._hosts().give_back(host)

    def _end(self, name: str) -> None:
        """Forget a session; its turns are free. Its place in queues is skipped when it comes up."""
        session = self._sessions.pop(name)
        session.gone = True
        for host in list(session.held.elements()):
            self._hosts().started(host)
            self._take_back(session, host)
        session.granted.clear()
        session.wake()

    def _expire(self) -> None:
        loop = asyncio.get_running_loop()
        for name, session in list(self._sessions.items()):
            if loop.time() - session.heard > self._limits.lease:
                self._end(name)
        loop.call_later(self._limits.beat, self._expire)


def _count_down(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]


def _grant(session: _Session, host: str) -> bool:
    if session.gone:
        return False
    session.held[host] += 1
    session.granted.append(host)
    session.wake()
    return True


class KeptTurns:
    """A task's turns, asked of keepers; see ``turns.Turns``.

    ``places``: requests that the task makes at a time. Twice as many turns are held at most, so
    that the next request need not wait for an answer.
    """

    def __init__(self, keepers: Sequence[Shared], limits: Limits, places: int) -> None:
        self.limits = limits
        self.places = places
        self.keepers = len(keepers)
        self._lines = [_Line(keeper, self) for keeper in keepers]

    async def __aenter__(self) -> Self:
        for line in self._lines:
            line.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(line.close() for line in self._lines))

    async def take(self, host: str) -> Turn:
        """See ``Turns``."""
        return await self._lines[zlib.crc32(host.encode()) % len(self._lines)].take(host)

    @property
    def room(self) -> int:
        """How many turns more may be asked for."""
        return 2 * self.places - sum(line.in_hand for line in self._lines)

    def wake(self) -> None:
        """There is room again: lines that held asks back go on."""
        for line in self._lines:
            line.wake()


@dataclass(eq=False)
class _KeptTurn:
    line: _Line
    session: str
    host: str
    wanted: bool
    pause: float = 0.0
    begun: bool = False

    def start(self) -> bool:
        self.begun = self.line.start(self)
        return self.begun

    def end(self) -> None:
        self.line.end(self)


class _Line:
    """A task's talk with one keeper.

    Under one session's name until a call is lost or the keeper does not know it: then under a new
    one, with turns that were not begun asked for again.
    """

    def __init__(self, keeper: Shared, owner: KeptTurns) -> None:
        self._keeper, self._owner = keeper, owner
        self._waiting: defaultdict[str, deque[asyncio.Future[Turn]]] = defaultdict(deque)
        self._pauses: list[tuple[str, float]] = []
        self._begin()

    def _begin(self) -> None:
        self._session, self._first = uuid.uuid4().hex, True
        self._started: list[str] = []
        self._ended: list[str] = []
        # By host: turns asked for or held; those to ask for when it has one less of them.
        self._out: Counter[str] = Counter()
        self._later: Counter[str] = Counter()
        # Turns held, or asked for in a call without an answer; and those that wait for their hosts.
        self.in_hand = 0
        self._queued = 0
        self._to_ask = deque(host for host, w in self._waiting.items() for _ in w)

    def open(self) -> None:
        """Begin to talk, in the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._news, self._urgent = asyncio.Event(), asyncio.Event()
        self._error: BaseException | None = None
        self._heard = self._loop.time()
        self._talk = self._loop.create_task(self._run())
        self._talk.add_done_callback(self._stopped)

    async def close(self) -> None:
        """Give all back and say so."""
        self._talk.cancel()
        await asyncio.wait([self._talk])
        with suppress(SharedLostError, UserError, TimeoutError):
            async with asyncio.timeout(self._owner.limits.beat):
                await self._call(
                    self._session, self._first, Message(pauses=(*self._pauses,), closing=True)
                )

    async def take(self, host: str) -> Turn:
        """Wait for a turn of a host."""
        if self._error is not None:
            raise self._error
        waiter: asyncio.Future[Turn] = self._loop.create_future()
        self._waiting[host].append(waiter)
        self._to_ask.append(host)
        self._news.set()
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                waiter.result().end()
            raise

    def start(self, turn: _KeptTurn) -> bool:
        """Whether a turn's request may begin."""
        late = self._loop.time() - self._heard > self._owner.limits.slack
        if turn.session != self._session or late:
            return False
        if self._owner.limits.delay:
            self._started.append(turn.host)
            self._news.set()
        return True

    def end(self, turn: _KeptTurn) -> None:
        """A turn is given back."""
        host = turn.host
        if turn.pause:
            self._pauses.append((host, turn.pause))
        if turn.session == self._session:
            if not turn.begun and self._owner.limits.delay:
                self._started.append(host)
            self._ended.append(host)
            self.in_hand -= 1
            _count_down(self._out, host)
            if self._later[host]:
                _count_down(self._later, host)
                self._to_ask.appendleft(host)
            if turn.wanted:
                self._urgent.set()
            self._owner.wake()
        self._news.set()

    def wake(self) -> None:
        """Asks may have been held back for lack of room."""
        if self._to_ask:
            self._news.set()

    async def _run(self) -> None:
        """Call the keeper: with news at once, and with one call always under way to hear of turns.

        Two at a time at most: the keeper answers the first one when the second one comes.
        """
        apart, last = BATCH * self._owner.keepers, 0.0
        calls: set[asyncio.Task[None]] = set()
        news: asyncio.Task[object] | None = None
        try:
            while True:
                if len(calls) < 2 and (self._news.is_set() or not calls):
                    await asyncio.sleep(max(0.0, last + QUICK - self._loop.time()))
                    with suppress(TimeoutError):
                        async with asyncio.timeout_at(last + apart):
                            await self._urgent.wait()
                    last = self._loop.time()
                    self._news.clear()
                    self._urgent.clear()
                    message = self._message()
                    if not calls or any(message):
                        calls.add(self._loop.create_task(self._converse(message)))
                waits: set[asyncio.Task[None] | asyncio.Task[object]] = {*calls}
                if len(calls) < 2:
                    news = news or self._loop.create_task(self._news.wait())
                    waits.add(news)
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                if news is not None and news.done():
                    news = None
                for call in [call for call in calls if call.done()]:
                    calls.discard(call)
                    call.result()
        finally:
            for task in (*calls, *([news] if news else ())):
                task.cancel()

    def _message(self) -> Message:
        per_host, room = self._owner.limits.per_host, self._owner.room
        asks: list[str] = []
        while self._to_ask and len(asks) < room and self._queued + len(asks) < MAX_QUEUED:
            host = self._to_ask.popleft()
            if self._out[host] >= per_host:
                self._later[host] += 1
                continue
            self._out[host] += 1
            asks.append(host)
        self.in_hand += len(asks)
        message = Message((*asks,), (*self._started,), (*self._pauses,), (*self._ended,))
        self._started, self._pauses, self._ended = [], [], []
        return message

    async def _converse(self, message: Message) -> None:
        session, first, asked = self._session, self._first, self._loop.time()
        try:
            granted = await self._call(session, first, message)
        except SharedLostError:
            self._pauses += message.pauses
            self._renew(session)
            await asyncio.sleep(TRY_AGAIN)
            return
        if session != self._session:
            return
        if granted is None:
            self._renew(session)
            return
        self._first = False
        self._heard = max(self._heard, asked)
        # Those not given at once wait for their hosts.
        self._queued += len(message.asks) - len(granted)
        self.in_hand += len(granted) - len(message.asks)
        for host, wanted in granted:
            self._give(_KeptTurn(self, session, host, wanted))
        self._owner.wake()

    async def _call(
        self, session: str, first: bool, message: Message
    ) -> list[tuple[str, bool]] | None:
        granted: list[tuple[str, bool]] | None = await self._keeper.call(
            "exchange", session, first, message
        )
        return granted

    def _give(self, turn: _KeptTurn) -> None:
        waiting = self._waiting[turn.host]
        while waiting:
            waiter = waiting.popleft()
            if not waiter.done():
                waiter.set_result(turn)
                break
        else:
            turn.end()
        if not waiting:
            del self._waiting[turn.host]

    def _renew(self, session: str) -> None:
        if session == self._session:
            self._begin()
            self._news.set()

    def _stopped(self, talk: asyncio.Task[None]) -> None:
        """The talk ended by an error: whoever waits for a turn gets it."""
        if not talk.cancelled() and (error := talk.exception()) is not None:
            self._error = error
            for waiter in (w for waiting in self._waiting.values() for w in waiting):
                if not waiter.done():
                    waiter.set_exception(error)
