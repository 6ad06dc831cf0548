"""Engines run shard functions: ``map_shards`` over tasks, results in the order they finish.

An engine knows nothing of what a shard function does. A shard function is a module-level function
of one picklable task (a frozen dataclass) and returns a small picklable result; it writes its
output files atomically itself, so running one twice is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

from metacurate.errors import ArgumentError, UserError

# A worker may die (out of memory, kill -9): its task is tried again. A task that was under way at
# this many deaths stops the run.
MAX_DEATHS_PER_TASK = 3
LOOK_SECONDS = 1.0
Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """What every engine offers."""

    def map_shards(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """Yield ``(task position, result)`` as tasks finish; retries tasks whose worker died."""
        ...


class SharedLostError(Exception):
    """An object that tasks share is gone; it comes back without what it knew."""


class Shared(Protocol):
    """An object that all tasks of a run can call, wherever they run; can be pickled."""

    async def call(self, method: str, *arguments: Any) -> Any:
        """The result of an asynchronous method; arguments and result are plain and small.

        Raises SharedLostError if the call may or may not have been heard.
        """
        ...


@runtime_checkable
class SharingEngine(Engine, Protocol):
    """An engine for tasks that mostly wait and must agree with each other while they run."""

    def share(
        self, make: Callable[[bool], object], tasks_each: int
    ) -> AbstractContextManager[tuple[Shared, ...]]:
        """Objects that live as long as the block, one for each ``tasks_each`` tasks at a time.

        ``make``: a module-level function (or a ``partial`` of one) that makes the object; it is
        told whether it replaces one that was lost with all that it knew.
        """
        ...

    def overlapping(self, tasks: int) -> Engine:
        """The same engine with so many tasks at a time on each core."""
        ...


@runtime_checkable
class GpuEngine(Engine, Protocol):
    """An engine that gives tasks GPUs of their own."""

    def with_gpus(self, each: float) -> Engine:
        """The same engine; each task has so many GPUs (below 1: it shares one with others).

        Raises UserError if no machine has them.
        """
        ...


def as_they_finish(
    submit: Callable[[int], Future[Result]],
    positions: Iterable[int],
    at_once: int,
    under_way: dict[Future[Result], int],
) -> Iterator[tuple[int, Result]]:
    """Yield ``(position, result)`` as tasks finish, of which so many are submitted at a time.

    The others wait here: memory is bounded. ``under_way`` says at each moment which are submitted,
    and has those still that were when one failed.
    """
    waiting = iter(positions)
    while True:
        while len(under_way) < at_once:
            upcoming = next(waiting, None)
            if upcoming is None:
                break
            under_way[submit(upcoming)] = upcoming
        if not under_way:
            return
        # A Ctrl-C in the instant before it waits would be seen only when a task ends.
        finished, _ = wait(under_way, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
        for future in finished:
            result = future.result()
            yield under_way.pop(future), result


def died_too_often(position: int) -> UserError:
    """The error for a task whose workers die again and again."""
    return ArgumentError(
        "a worker process died {deaths} times while shard {position} was under way (out of "
        "memory?); run the same command again with fewer {workers} or more memory: it resumes",
        deaths=MAX_DEATHS_PER_TASK,
        position=position,
    )
