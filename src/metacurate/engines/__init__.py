"""Engines run shard functions: ``map_shards`` over tasks, results in the order they finish.

An engine knows nothing of what a shard function does. A shard function is a module-level function
of one picklable task (a frozen dataclass) and returns a small picklable result; it writes its
output files atomically itself, so running one twice is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """What every engine offers."""

    def map_shards(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """Yield ``(task position, result)`` as tasks finish; retries tasks whose worker died."""
        ...
