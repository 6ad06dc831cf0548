"""Numbers of options, on the command line and in a configuration: ``20000``, ``20,000``, ``20k``.

For ``typer.Option(parser=...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer

from metacurate.arguments import parse_number, parse_whole
from metacurate.errors import ArgumentError

N = TypeVar("N", int, float)


def amount(value: Any) -> float:
    """A number, ``inf`` too."""
    return _parsed(parse_number, value)


def whole_amount(value: Any) -> int:
    """A whole number."""
    return _parsed(parse_whole, value)


def _parsed(parse: Callable[[Any], N], value: Any) -> N:
    try:
        return parse(value)
    except ArgumentError as error:  # the option is named by who asks
        raise typer.BadParameter(error.spelled(lambda _: "it")) from None
