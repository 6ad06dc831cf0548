"""The exceptions that end a command in one line, without a traceback, and what to say of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class UserError(Exception):
    """A problem that the user can fix (exit code 2); the message says what, where, what to do."""


class ArgumentError(UserError, ValueError):
    """An argument that cannot be used; the message names it, and the command line its option.

    ``template`` is a format string whose fields are the ``values`` given and else arguments' names:
    ``ArgumentError("{t} must be positive, not {value:.15g}", value=t)`` reads "t must be positive,
    not -1" in Python, and "--t must be positive, not -1" on the command line. (``.15g``: all digits
    that a user gave.)
    """

    def __init__(self, template: str, **values: Any) -> None:
        super().__init__(template)
        self.values = values  # in the instance's dictionary: a pickled copy has them too

    def spelled(self, spell: Callable[[str], str]) -> str:
        """The message with the arguments' names as ``spell`` gives them."""
        return str(self.args[0]).format_map(_Fields(self.values, spell))

    def __str__(self) -> str:
        return self.spelled(str)


class _Fields(dict[str, Any]):
    """The fields of a message: values, and the names of arguments in a caller's spelling."""

    def __init__(self, values: dict[str, Any], spell: Callable[[str], str]) -> None:
        super().__init__(values)
        self._spell = spell

    def __missing__(self, name: str) -> str:
        return self._spell(name)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or else its type's name."""
    lines = str(error).splitlines()  # the first may be a rule of asterisks
    told = (line.strip() for line in lines if any(map(str.isalnum, line)))
    return next(told, "") or type(error).__name__


class Stopped(Exception):
    """A run that ended at a good place because signal ``number`` asked it to (128 + number)."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message, number)
        self.message, self.number = message, number
