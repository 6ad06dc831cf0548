"""Stopping at the end of a step when SIGTERM (preemption) or SIGINT (Ctrl-C) asks for it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from metacurate.training.distributed import Ranks

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Ranks tell one another about signals this often: to do so they wait for their devices, and
# torchrun kills its processes 30 seconds after it was told to stop.
SECONDS_BETWEEN_TALKS = 5.0
MAX_STEPS_BETWEEN_TALKS = 100


class StopRequest:
    """Whether, and by which signal, this run was asked to stop."""

    def __init__(self, here: Ranks) -> None:
        self._here = here
        self._number = 0
        self._talk_at = 1
        self._last_step, self._last_time = 0, time.perf_counter()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """The signals' handler. A second Ctrl-C ends the process at once, but not under torchrun:
        it passes on the terminal's Ctrl-C, which its processes had from the terminal already."""
        if self._number and number == signal.SIGINT and self._here.world_size == 1:
            raise KeyboardInterrupt
        self._number = self._number or number

    def wanted(self, step: int) -> int:
        """The signal that asked any rank to stop, or 0; the same on all ranks after ``step``."""
        here = self._here
        if here.world_size == 1:
            return self._number
        if step < self._talk_at:
            return 0
        now = time.perf_counter()
        pace = (now - self._last_time) / max(step - self._last_step, 1)
        self._last_step, self._last_time = step, now
        answers = here.gather((self._number, pace))
        steps = int(SECONDS_BETWEEN_TALKS / max(answers[0][1], 1e-9))
        self._talk_at = step + min(max(steps, 1), MAX_STEPS_BETWEEN_TALKS)
        return max(number for number, _ in answers)


@contextmanager
def stop_requests(here: Ranks) -> Iterator[StopRequest]:
    """Take the signals as requests while the block runs (only possible in the main thread)."""
    request = StopRequest(here)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {
        number: signal.signal(number, request.receive)
        for number in SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def outlive_the_groups_signal() -> None:
    """In a loader's worker: a signal to the whole process group is for the process that trains.

    It ends its workers itself, by the signal that nothing can ignore.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
