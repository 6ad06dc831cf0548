"""Limits on a text's length and characters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.errors import UserError


@dataclass(frozen=True)
class TextLimits:
    """Which texts to keep; None: no limit. Letters are Unicode's (with combining marks)."""

    min_chars: int | None = None
    max_chars: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    min_letter_share: float | None = None

    def __post_init__(self) -> None:
        for what, low, high in (
            ("chars", self.min_chars, self.max_chars),
            ("words", self.min_words, self.max_words),
        ):
            if low is not None and high is not None and low > high:
                raise UserError(f"--min-{what} {low} is over --max-{what} {high}: no text is left")
        if self.min_letter_share is not None and not 0 <= self.min_letter_share <= 1:
            raise UserError(f"--min-letter-share must lie in 0 to 1, not {self.min_letter_share}")

    def reasons(self, texts: pa.Array) -> list[tuple[str, np.ndarray]]:
        """``(reason, mask of the texts that break this limit)`` for strings without nulls."""
        found: list[tuple[str, np.ndarray]] = []
        if self.min_chars is not None or self.max_chars is not None or self.min_letter_share:
            chars = pc.utf8_length(texts).to_numpy()
            found += _outside("chars", chars, self.min_chars, self.max_chars)
            if self.min_letter_share:
                letters = pc.utf8_length(pc.replace_substring_regex(texts, r"[^\p{L}\p{M}]+", ""))
                few = letters.to_numpy() < self.min_letter_share * chars
                found.append(("too_few_letters", few))
        if self.min_words is not None or self.max_words is not None:
            words = pc.count_substring_regex(texts, r"\S+").to_numpy()
            found += _outside("words", words, self.min_words, self.max_words)
        return found


def _outside(
    what: str, size: np.ndarray, low: int | None, high: int | None
) -> list[tuple[str, np.ndarray]]:
    found = []
    if low is not None:
        found.append((f"too_few_{what}", size < low))
    if high is not None:
        found.append((f"too_many_{what}", size > high))
    return found
