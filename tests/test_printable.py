"""Foreign text made safe to show."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metacurate.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a plain caption, with émojis 🐱 and 漢字", "a plain caption, with émojis 🐱 and 漢字"),
        ("two\nlines\r\n\tand", "two\\nlines\\r\\n\\tand"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("\x7f\x00", "\\x7f\\x00"),
        ("\u202egnp.tac\u202c", "\\u202egnp.tac\\u202c"),
        ("\u2066isolate\u2069", "\\u2066isolate\\u2069"),
        ("\u2028\u2029\ufeff", "\\u2028\\u2029\\ufeff"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("👩\u200d🚀", "👩\u200d🚀"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_text_is_cut_and_its_length_told() -> None:
    assert printable("ab" * 500_000, 10) == "ababababab… (1,000,000 characters)"
    assert printable("a" * 10, 10) == "a" * 10


@given(st.text(st.characters(), max_size=50), st.integers(1, 60))
def test_nothing_invisible_is_left(text: str, limit: int) -> None:
    shown = printable(text, limit)
    kinds = {unicodedata.category(c) for c in shown if c not in "\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()
