"""What a caller gives, checked: numbers (also as people write them) and lists of strings.

Each check takes the argument's name first and raises ``ArgumentError`` about it.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Iterable, Mapping, Set
from fractions import Fraction
from typing import Any

from metacurate.errors import ArgumentError

_SHOWN = 60  # characters of a value
# 20,000 and 20_000; an exponent of at most two digits bounds the size of a whole number.
_NUMBER = re.compile(
    r"(?P<digits>[+-]?(?:\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*)?(?:\.\d*)?(?:e[+-]?\d{1,2})?)"
    r"(?P<suffix>[kmb]?)",
    re.IGNORECASE | re.ASCII,
)
_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_FORMS = "20000, 20,000, 20k, 1.5M, 2e4"


def shown(value: Any) -> str:
    """A value for a message: short, and with its quotes if it is a string."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def parse_number(value: Any, name: str = "value") -> float:
    """A number, or text that says one: ``20,000``, ``20k``, ``1.5M``, ``2B``, ``2e4``, ``inf``.

    A comma parts groups of three digits; k, M and B stand for 10**3, 10**6 and 10**9 in either
    case. ``name`` is the argument's name in the ArgumentError that other values raise.
    """
    if isinstance(value, str):
        if (text := value.strip().lower()) in ("inf", "+inf", "infinity"):
            return math.inf
        return float(_exact(name, value, text))
    return number(name, value)


def parse_whole(value: Any, name: str = "value") -> int:
    """A whole number, or text that says one as ``parse_number`` reads it (``1.5k`` is 1,500)."""
    if isinstance(value, str):
        read = _exact(name, value, value.strip().lower())
        if read.denominator != 1:
            raise ArgumentError(f"{{{name}}} must be a whole number, not {{value}}", value=value)
        return int(read)
    return whole(name, value)


def _exact(name: str, value: str, text: str) -> Fraction:
    match = _NUMBER.fullmatch(text) if len(text) <= _SHOWN else None
    if match is None or not any(c.isdigit() for c in match["digits"].partition("e")[0]):
        raise ArgumentError(
            f"{{{name}}} must be a number (written as {_FORMS}), not {{value}}", value=shown(value)
        )
    return Fraction(match["digits"].replace(",", "").replace("_", "")) * _SUFFIXES[match["suffix"]]


def number(name: str, value: Any) -> float:
    """A number (Python's or NumPy's, no truth value) as a float; it may be infinite, not NaN."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        if is_number and not math.isnan(read := float(value)):
            return read
    except OverflowError:  # a whole number beyond all floats
        pass
    raise ArgumentError(f"{{{name}}} must be a number, not {{value}}", value=shown(value))


def whole(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """A whole number (Python's or NumPy's, no truth value) from ``low`` to below ``high``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ArgumentError(f"{{{name}}} must be a whole number, not {{value}}", value=shown(value))
    read = int(value)
    if (low is not None and read < low) or (high is not None and read >= high):
        bounds = f"at least {low}" if high is None else f"from {low} to {_written(high - 1)}"
        raise ArgumentError(f"{{{name}}} must be {bounds}, not {{value}}", value=read)
    return read


def string(name: str, value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ArgumentError(f"{{{name}}} must be a string, not {{value}}", value=shown(value))
    return value


def _written(number: int) -> str:
    """A bound as people write it: 2**64 - 1."""
    power = (number + 1).bit_length() - 1
    return f"2**{power} - 1" if power >= 16 and number + 1 == 1 << power else str(number)


def listed(name: str, values: Any, what: str = "strings") -> Any:
    """``values`` if it is a list of some kind, in an order; a list of its items if it runs once.

    A single string would be taken for its letters, and a set has another order in each process.
    """
    if isinstance(values, str | bytes):
        raise ArgumentError(
            f"{{{name}}} must be a list of {what}, not the single {{kind}} {{value}}: "
            "put it in a list",
            kind="string" if isinstance(values, str) else "bytes object",
            value=shown(values),
        )  # fmt: skip
    if isinstance(values, Set | Mapping):
        raise ArgumentError(
            f"{{{name}}} must be a list of {what}, not a {{kind}}, which has no fixed order: "
            "sort it into a list",
            kind=type(values).__name__,
        )
    if not isinstance(values, Iterable):
        raise ArgumentError(
            f"{{{name}}} must be a list of {what}, not {{value}}", value=shown(values)
        )
    return values if hasattr(values, "__len__") else list(values)
