"""Progress on standard error: a bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LOG_INTERVAL_SECONDS = 30.0


class Meter:
    """Counts finished shards and items (rows, texts, bytes) and shows both with their rate."""

    def __init__(
        self, label: str, total: int, unit: str, parts: str, bar: Progress | None, log: bool
    ) -> None:
        self._label, self._total, self._unit, self._parts = label, total, unit, parts
        self._bar, self._log = bar, log
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
        rate = f"{self._items / max(now - self._start, 1e-9):,.0f} {self._unit}/s{self._detail}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=shards, rate=rate)
        elif self._log and now - self._last_log >= LOG_INTERVAL_SECONDS:
            self._last_log = now
            print(
                f"{self._label}: {self._shards}/{self._total} {self._parts}, {rate}",
                file=sys.stderr,
                flush=True,
            )

    def tell(self, detail: str) -> None:
        """Show a detail (the loss, say) behind the rate from now on."""
        self._detail = f", {detail}"


@contextmanager
def meter(
    label: str, total: int, unit: str, *, parts: str = "shards", show: bool = True
) -> Iterator[Meter]:
    """Show progress over ``total`` shards (or other ``parts``) while the block runs.

    ``unit`` names the items that ``Meter.advance`` counts (for example ``"texts"``).
    """
    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield Meter(label, total, unit, parts, None, show)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Meter(label, total, unit, parts, bar, False)


def note(message: str) -> None:
    """Print a line about the run on standard error."""
    print(message, file=sys.stderr, flush=True)
