"""Text rules: whitespace, lengths, characters."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metacurate.texts.rules import TextRules, clean, drop_reason, letter_share


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  a \n\t b  ", "a b"),
        ("a\u00a0b\u3000c\u2028d", "a b c d"),
        ("a\0b\x1bc\x85d", "a b c d"),
        ("cut \ud83d", "cut \ufffd"),
        ("😀 e\u0301", "😀 e\u0301"),
        (" \n ", ""),
    ],
)
def test_clean(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.parametrize(
    ("text", "rules", "reason"),
    [
        ("", TextRules(), "empty text"),
        ("a", TextRules(), None),
        ("ab", TextRules(min_length=3), "text too short"),
        ("abc", TextRules(min_length=3, max_length=3), None),
        ("abcd", TextRules(max_length=3), "text too long"),
        ("1 2 a", TextRules(min_letters=0.5), "text with few letters"),
        ("日本 1", TextRules(min_letters=0.6), None),
        ("ab 12", TextRules(min_letters=0.5), None),
        ("ab 12", TextRules(min_letters=0.51), "text with few letters"),
        ("हिन्दी", TextRules(min_letters=1.0), None),
        ("IMG_1234.JPG", TextRules(drop_file_names=True), "text is a file name"),
        ("a photo.jpg", TextRules(drop_file_names=True), None),
        ("IMG_1234.JPG", TextRules(), None),
        ("https://a.example/x", TextRules(drop_urls=True), "text is a URL"),
        ("www.a.example", TextRules(drop_urls=True), "text is a URL"),
        ("see www.a.example", TextRules(drop_urls=True), None),
    ],
)
def test_rules(text: str, rules: TextRules, reason: str | None) -> None:
    assert drop_reason(text, rules) == reason


@given(
    st.builds(
        TextRules,
        min_length=st.integers(1, 3),
        max_length=st.integers(3, 6),
        min_letters=st.sampled_from([-1.0, 0.0, 0.01, 0.5, 1.0]),
        drop_file_names=st.booleans(),
        drop_urls=st.booleans(),
    ),
    st.sampled_from([5, 9]),
)
@example(TextRules(), 5)
def test_only_lengths_says_whether_anything_else_decides(rules: TextRules, length: int) -> None:
    """Texts of one length that fit each of the other rules, and one that fits all."""
    texts = ["a" * length, "1" * length, f"{'x' * (length - 4)}.jpg", f"www.{'x' * (length - 4)}"]
    reasons = {drop_reason(text, TextRules(1, 100, *vars_of(rules))) for text in texts}
    assert (reasons == {None}) == rules.only_lengths
    if rules.only_lengths:
        assert len({drop_reason(text, rules) for text in texts}) == 1


def vars_of(rules: TextRules) -> tuple[float, bool, bool]:
    return rules.min_letters, rules.drop_file_names, rules.drop_urls


def test_letter_share() -> None:
    assert letter_share("ab 12") == 0.5
    assert letter_share(" ") == 0.0
