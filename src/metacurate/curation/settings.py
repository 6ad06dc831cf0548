"""How to balance: the threshold, or what it is solved from, and the seed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from metacurate.arguments import number, whole
from metacurate.errors import ArgumentError


@dataclass(frozen=True)
class Balance:
    """How to balance: exactly one of the threshold, the tail proportion and the target size.

    ``expect_survival`` is the share of the kept pairs whose images are expected to survive the
    download: the threshold is then so much larger that the aim is met by those that do.
    """

    t: float | None = None
    p: float | None = None
    target_size: int | None = None
    seed: int = 0
    expect_survival: float = 1.0

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.t, self.p, self.target_size)) != 1:
            raise ArgumentError("give exactly one of {t}, {p} and {target_size}")
        # NumPy's numbers become Python's, which a manifest can hold.
        if self.t is not None:
            self._set("t", check_t(self.t))
        if self.p is not None:
            self._set("p", check_p(self.p))
        if self.target_size is not None:
            self._set("target_size", whole("target_size", self.target_size, 1))
        if not 0 < (survival := number("expect_survival", self.expect_survival)) <= 1:
            raise ArgumentError(
                "{expect_survival} must lie above 0 and up to 1, not {value:g}", value=survival
            )
        self._set("expect_survival", survival)
        self._set("seed", whole("seed", self.seed, 0, 2**64))

    def _set(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; an infinite threshold is the string "inf"."""
        values = {k: v for k, v in asdict(self).items() if v is not None}
        return {k: "inf" if v == math.inf else v for k, v in values.items()}


def check_t(t: float) -> float:
    """A threshold as a float; ArgumentError if it is none."""
    if not (value := number("t", t)) > 0:
        raise ArgumentError("{t} must be positive (inf: no balancing), not {value:g}", value=value)
    return value


def check_p(p: float) -> float:
    """A tail proportion as a float; ArgumentError if it is none."""
    if not 0 <= (value := number("p", p)) <= 1:
        raise ArgumentError("{p} must lie between 0 and 1, not {value:g}", value=value)
    return value


def json_number(t: float) -> float | str:
    """A threshold as JSON has it: infinity is the string "inf"."""
    return "inf" if math.isinf(t) else t
