"""Values that the tasks of a process share: each is made once, however many threads ask for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from threading import RLock
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Value = TypeVar("Value")


def kept(most: int) -> Callable[[Callable[Given, Value]], Callable[Given, Value]]:
    """``functools.lru_cache(most)``; who asks for a value that is being made waits for it."""

    def decorate(make: Callable[Given, Value]) -> Callable[Given, Value]:
        lock, cached = RLock(), lru_cache(most)(make)

        @wraps(make)
        def value(*args: Given.args, **kwargs: Given.kwargs) -> Value:
            with lock:
                return cached(*args, **kwargs)  # type: ignore[arg-type]  # all are hashable

        return value

    return decorate
