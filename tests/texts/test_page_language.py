"""Short texts are of their page's language, but for English ones and other scripts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from metacurate.texts.language import load_identifier
from metacurate.texts.page_language import with_pages

GERMAN = ["ein kleiner Hund läuft bei Regen über die Straße", "Rotes Haus", "Foto", "Barn"]
ENGLISH = ["a small dog runs across the street in the rain", "Red barn", "Taxi", "Barn"]


def languages(
    pages: Sequence[Sequence[str]], stated: Sequence[str | None] | None = None
) -> list[list[str]]:
    texts = [text for page in pages for text in page]
    numbers = np.repeat(np.arange(len(pages)), [len(page) for page in pages])
    alone = load_identifier("eldc").identify(texts)[0]
    stated = stated or [None] * len(pages)
    found = iter(with_pages(texts, alone, numbers, stated, load_identifier("py3langid")))
    return [[next(found) for _ in page] for page in pages]


def test_short_texts_go_by_their_page() -> None:
    alone = load_identifier("eldc").identify(["Red barn", "Barn", "Taxi"])[0]
    assert "en" not in alone
    assert languages([ENGLISH, GERMAN]) == [["en"] * 4, ["de"] * 4]


def test_what_stays() -> None:
    longer = "une voiture rouge dans la rue de la grande ville"
    found = languages(
        [[*GERMAN, longer, "this is a house", "小さな犬が走っている", "12", "красный дом"]]
    )[0]
    assert found[:4] == ["de"] * 4
    assert found[4:] == ["fr", "en", "ja", "und", "ru"]


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("en-GB", "en"), ("EN_us", "en"), ("en", "en"), ("", None), ("x-klingon", None), (None, None),
     ("12", None), ("english", None)],
)  # fmt: skip
def test_what_the_page_says_counts_where_texts_say_little(
    tag: str | None, expected: str | None
) -> None:
    alone = load_identifier("eldc").identify(["Red barn"])[0][0]
    assert languages([["Red barn"]], [tag]) == [[expected or alone]]
    # A page with enough text knows better than its template.
    assert languages([GERMAN], [tag]) == [["de"] * 4]


def test_nothing() -> None:
    assert languages([]) == []
