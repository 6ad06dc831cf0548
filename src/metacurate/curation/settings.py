"""How to balance: the threshold, or what it is solved from, and the seed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from metacurate.errors import UserError


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
            raise UserError("give exactly one of --t, --p and --target-size")
        if self.t is not None and not self.t > 0:
            raise UserError(f"--t must be positive (or inf for no balancing), not {self.t:g}")
        if self.p is not None and not 0 <= self.p <= 1:
            raise UserError(f"--p must lie between 0 and 1, not {self.p:g}")
        if self.target_size is not None and self.target_size < 1:
            raise UserError(f"--target-size must be positive, not {self.target_size}")
        if not 0 < self.expect_survival <= 1:
            raise UserError(
                f"--expect-survival must lie above 0 and up to 1, not {self.expect_survival:g}"
            )
        if not 0 <= self.seed < 2**64:
            raise UserError(f"--seed must lie between 0 and 2**64 - 1, not {self.seed}")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; an infinite threshold is the string "inf"."""
        values = {k: v for k, v in asdict(self).items() if v is not None}
        return {k: "inf" if v == math.inf else v for k, v in values.items()}


def json_number(t: float) -> float | str:
    """A threshold as JSON has it: infinity is the string "inf"."""
    return "inf" if math.isinf(t) else t
