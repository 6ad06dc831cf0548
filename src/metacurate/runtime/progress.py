"""Progress and notes: a bar on a terminal or in a notebook, lines in the log, a caller's function.

Both go to the logger ``metacurate``; the command line shows what it gets on standard error.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LOG_INTERVAL_SECONDS = 30.0
LOGGER = logging.getLogger("metacurate")


@dataclass(frozen=True)
class Progress:
    """How far a stage is: what the function ``progress`` of a run is called with.

    Attributes:
        stage: Its name (``match``).
        done: Finished parts.
        total: All of its parts.
        parts: What they are (``shards``).
        items: What was done in them since the stage started, in ``unit``.
        unit: ``texts``, ``rows``, ``bytes``.
        seconds: Since the stage started.
    """

    stage: str
    done: int
    total: int
    parts: str
    items: int
    unit: str
    seconds: float


Listener = Callable[[Progress], object]
# Of the run that this thread is in; notes of runs within a run are for debugging.
_LISTENER: ContextVar[Listener | None] = ContextVar("_LISTENER", default=None)
_NOTE_LEVEL: ContextVar[int] = ContextVar("_NOTE_LEVEL", default=logging.INFO)


class Meter:
    """Counts finished shards and items (rows, texts, bytes) and shows both with their rate."""

    def __init__(
        self, label: str, total: int, unit: str, parts: str, bar: Bar | None, level: int
    ) -> None:
        self._label, self._total, self._unit, self._parts = label, total, unit, parts
        self._bar, self._level = bar, level
        self._listener = _LISTENER.get()
        self._detail = ""
        self._shards = 0
        self._items = 0
        self._start = self._last_log = time.monotonic()
        self._task = bar.add_task(label, total=total, rate="") if bar is not None else None

    def advance(self, items: int = 0, shards: int = 1) -> None:
        """Report finished work: ``items`` of the unit in ``shards`` shards."""
        self._shards += shards
        self._items += items
        now = time.monotonic()
        seconds = now - self._start
        rate = f"{self._items / max(seconds, 1e-9):,.0f} {self._unit}/s{self._detail}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=shards, rate=rate)
        elif now - self._last_log >= LOG_INTERVAL_SECONDS:
            self._last_log = now
            told = f"{self._label}: {self._shards}/{self._total} {self._parts}, {rate}"
            LOGGER.log(self._level, "%s", told)
        if self._listener is not None:
            self._listener(
                Progress(
                    self._label, self._shards, self._total, self._parts, self._items, self._unit,
                    seconds,
                )
            )  # fmt: skip

    def tell(self, detail: str) -> None:
        """Show a detail (the loss, say) behind the rate from now on."""
        self._detail = f", {detail}"


@contextmanager
def meter(
    label: str, total: int, unit: str, *, parts: str = "shards", show: bool = True
) -> Iterator[Meter]:
    """Show progress over ``total`` shards (or other ``parts``) while the block runs.

    ``unit`` names the items that ``Meter.advance`` counts (for example ``"texts"``). What is not
    shown is logged for debugging.
    """
    # Late: notes need none of it, and the command line sets them up before all else.
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)
    live = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    if not (show and live):
        yield Meter(label, total, unit, parts, None, logging.INFO if show else logging.DEBUG)
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("{task.fields[rate]}"),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True) as bar:
        yield Meter(label, total, unit, parts, bar, logging.INFO)


@contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Tell a function of all progress in this block; None leaves it to the function of before."""
    if listener is None:
        yield
        return
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


@contextmanager
def quiet() -> Iterator[None]:
    """Log the notes of runs within another run for debugging only."""
    token = _NOTE_LEVEL.set(logging.DEBUG)
    try:
        yield
    finally:
        _NOTE_LEVEL.reset(token)


def note(message: str) -> None:
    """Log a line about the run."""
    LOGGER.log(_NOTE_LEVEL.get(), "%s", message)


def is_noting() -> bool:
    """Whether anybody reads notes: some take time to make."""
    return LOGGER.isEnabledFor(_NOTE_LEVEL.get())


class _StandardError(logging.Handler):
    """Prints messages as they are on what is standard error at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        print(self.format(record), file=sys.stderr, flush=True)


@contextmanager
def on_standard_error() -> Iterator[None]:
    """Show notes and lines of progress on standard error while the block runs."""
    handler, level, propagate = _StandardError(), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate


@contextmanager
def reporting(show: bool, listener: Listener | None) -> Iterator[None]:
    """Report a run: to a function, and with ``show`` to people who have set up no logging."""
    with ExitStack() as stack:
        stack.enter_context(listening(listener))
        if show and not LOGGER.hasHandlers():
            stack.enter_context(on_standard_error())
        yield
