"""Engines run shard functions: ``map_shards`` over tasks, results in the order they finish.

An engine knows nothing of what a shard function does. A shard function is a module-level function
of one picklable task (a frozen dataclass) and returns a small picklable result; it writes its
output files atomically itself, so running one twice is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from metacurate.errors import ArgumentError, UserError

# A worker may die (out of memory, kill -9): its task is tried again. A task that was under way at
# this many deaths stops the run.
MAX_DEATHS_PER_TASK = 3
Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """What every engine offers."""

    def map_shards(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """Yield ``(task position, result)`` as tasks finish; retries tasks whose worker died."""
        ...


def died_too_often(position: int) -> UserError:
    """The error for a task whose workers die again and again."""
    return ArgumentError(
        "a worker process died {deaths} times while shard {position} was under way (out of "
        "memory?); run the same command again with fewer {workers} or more memory: it resumes",
        deaths=MAX_DEATHS_PER_TASK,
        position=position,
    )
