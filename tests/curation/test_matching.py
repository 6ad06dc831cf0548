"""The fast kernel gives exactly the results of the reference, whatever the strings."""

from __future__ import annotations

import errno
import lzma
import random
import resource
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metacurate.curation.matching.matcher import Matcher, _max_depth
from metacurate.curation.matching.reference import match_text
from metacurate.curation.matching.spacing import spaced

# Few distinct pieces make matches, shared prefixes and runs of separators likely.
PIECES = [
    "a",
    "b",
    "st",
    "st.",
    "john",
    "the",
    "é",
    "日本",
    "\u2028",
    "\x00",
    "😀",
    "x" * 17,
    "y" * 40,
]
SEPARATORS = [" ", "  ", ",", ".", ";", ":", "?", "!", "`", "\t", "\n", "\r", "-", "'"]
pieced = st.lists(st.sampled_from(PIECES + SEPARATORS * 2), max_size=40).map("".join)
strings = pieced | st.text(max_size=80)
metadata = st.lists(strings.filter(bool) | st.sampled_from(PIECES), unique=True, max_size=30)


def as_lists(result: tuple[np.ndarray, np.ndarray]) -> list[list[int]]:
    offsets, ids = result
    assert offsets.dtype == np.int64
    assert ids.dtype == np.uint32
    return [ids[a:b].tolist() for a, b in pairwise(offsets)]


def expected(texts: Sequence[str | None], entries: Sequence[str]) -> list[list[int]]:
    return [[] if text is None else match_text(text, entries) for text in texts]


@settings(max_examples=400)
@given(metadata, st.lists(st.none() | strings, max_size=20))
@example(["st. john", "st .  john", "john"], ["st. john", "st .  john", "meet st. john!"])
@example(["a", "a b", "a b c", "b c", "a b d"], ["a b c", "x a b", "a  b", "a b d a b c"])
@example([" ", "  ", " a", "a ", " a "], ["", " ", "  ", "a", " a", "a,", ",a", "a ,", "\ta\n"])
@example([".", ", ", "..", " . "], [".", "a.", "...", ". .", "a, b"])
@example(["a"], ["", None, "b a"])
@example([], ["nothing to find"])
def test_kernel_equals_reference(entries: list[str], texts: list[str | None]) -> None:
    assert as_lists(Matcher(entries).match(texts)) == expected(texts, entries)


@settings(max_examples=100)
@given(metadata, st.lists(strings, max_size=10), st.sampled_from([0, 1, 3, 0x10001]))
def test_collisions_of_a_weak_hash_change_nothing(
    entries: list[str], texts: list[str], mask: int
) -> None:
    matcher = Matcher(entries, _hash_mask=np.uint64(mask))
    assert as_lists(matcher.match(texts)) == expected(texts, entries)


def test_long_tokens_are_verified_against_their_bytes() -> None:
    # With a hash of nothing, these differ only in bytes that no comparison word holds.
    entries = ["z" * 30 + str(digit) + "z" * 30 for digit in range(5)]
    matcher = Matcher(entries, _hash_mask=np.uint64(0))
    texts = [*entries, "z" * 61, " ".join(reversed(entries))]
    assert as_lists(matcher.match(texts)) == [[0], [1], [2], [3], [4], [], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("length", [*range(70), 127, 128, 129, 200])
def test_every_alignment_of_token_and_block_ends(length: int) -> None:
    token = "k" * max(1, length)
    texts = [f"{'p' * n} {token},{token}" for n in range(0, 66, 3)]
    assert as_lists(Matcher([token, "q"]).match(texts)) == [[0]] * len(texts)
    # The last text of an array with not a byte behind it.
    data = token.encode()
    array = pa.LargeStringArray.from_buffers(
        1, pa.py_buffer(np.array([0, len(data)], np.int64)), pa.py_buffer(data)
    )
    assert as_lists(Matcher([token]).match(array)) == [[0]]


def test_text_of_ten_megabytes() -> None:
    rng = random.Random(5)
    entries = ["of", "of the", "needle in", "in a haystack", "of of of", "absent here"]
    words = [rng.choice(["of", "the", "hay", "hay,", "a"]) for _ in range(3_000_000)]
    words[2_000_000:2_000_000] = ["needle", "in", "a", "haystack"]
    text = " ".join(words)
    assert len(text) > 10_000_000
    assert as_lists(Matcher(entries).match([text, "of"])) == [match_text(text, entries), [0]]


@pytest.mark.parametrize("filler", [" ", ".", "a ", "a,", "\n"])
def test_megabytes_of_one_character(filler: str) -> None:
    text = filler * 2_000_000
    entries = ["a", "a a", ".", " ", "  ", ".  .", "a ,", "b"]
    assert as_lists(Matcher(entries).match([text])) == [match_text(text, entries)]


def test_more_matches_than_any_first_guess() -> None:
    entries = [f"w{i}" for i in range(5000)]
    text = " ".join(reversed(entries))
    assert as_lists(Matcher(entries).match([text, "", text])) == [
        list(range(5000)),
        [],
        list(range(5000)),
    ]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_arrow_arrays_sliced_chunked_and_with_nulls(kind: pa.DataType) -> None:
    texts = ["a b", None, "b", "", "a", None, "x"]
    array = pa.array(texts, kind)
    matcher = Matcher(["a", "b", "x"])
    assert as_lists(matcher.match(array.slice(1, 4))) == [[], [1], [], [0]]
    chunked = pa.chunked_array([array.slice(0, 3), array.slice(3)])
    assert as_lists(matcher.match(chunked)) == [[0, 1], [], [1], [], [0], [], [2]]
    assert as_lists(matcher.match(pa.chunked_array([], kind))) == []
    assert as_lists(matcher.match(array.dictionary_encode() if kind == pa.string() else array)) == [
        [0, 1], [], [1], [], [0], [], [2],
    ]  # fmt: skip


def test_threads_give_the_same_arrays() -> None:
    rng = random.Random(7)
    words = [f"word{i}" for i in range(300)] + ["a", "of"]
    entries = [*words, *(f"{a} {b}" for a, b in pairwise(words))]
    texts = [" ".join(rng.choices(words, k=rng.randrange(30))) for _ in range(20_000)]
    matcher = Matcher(entries)
    one = matcher.match(texts)
    for threads in (2, 3, 8):
        many = matcher.match(texts, threads=threads)
        assert np.array_equal(one[0], many[0])
        assert np.array_equal(one[1], many[1])
    assert as_lists(one)[:200] == expected(texts[:200], entries)


def test_saved_tables_match_the_same(tmp_path: Path) -> None:
    entries = ["a", "a b", "z" * 30, "é è"]
    texts = ["a b", "z" * 30 + " é è", ""]
    built = Matcher(entries)
    built.save(tmp_path)
    loaded = Matcher.load(tmp_path)
    assert len(loaded) == len(built) == 4
    assert as_lists(loaded.match(texts)) == as_lists(built.match(texts)) == [[0, 1], [2, 3], []]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["a", None], "entry 1 is null"),
        (["a", ""], "entry 1 is empty"),
        (["a", "b", "a"], "twice"),
        (["a", 3], "entry 1 is no string: 3"),
        (["\ud800"], "entry 0 is no valid Unicode"),
        (pa.array([1, 2]), "must be strings"),
    ],
)
def test_bad_entries_are_named(entries: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Matcher(entries)  # type: ignore[arg-type]


def test_bad_texts_are_named() -> None:
    with pytest.raises(ValueError, match="text 1 is no valid Unicode"):
        Matcher(["a"]).match(["a", "b\udfff"])


def test_spacing_by_hand() -> None:
    assert spaced("a,b\tc") == " a , b c "
    assert spaced("") == "  "
    assert spaced("St. John's `x`?") == " St .  John's  ` x `  ?  "


def test_pyahocorasick_finds_the_same_in_real_sentences(real_sentences: list[str]) -> None:
    """An independent matcher over the whole WordNet metadata and 100,000 real sentences."""
    import ahocorasick

    packed = Path(__file__).parents[2] / "src/metacurate/data/wordnet.txt.xz"
    entries = lzma.decompress(packed.read_bytes()).decode().splitlines()
    automaton = ahocorasick.Automaton()
    for entry_id, entry in enumerate(entries):
        automaton.add_word(f" {entry} ", entry_id)
    automaton.make_automaton()
    found = [sorted({i for _, i in automaton.iter(spaced(text))}) for text in real_sentences]
    assert sum(map(len, found)) > 100_000
    assert as_lists(Matcher(entries).match(real_sentences, threads=2)) == found


def test_the_text_that_is_no_unicode_is_named() -> None:
    with pytest.raises(ValueError, match="text 2 is no valid Unicode"):
        Matcher(["dog"]).match(["é", "a dog", "\ud800"])


def test_tables_that_cannot_be_written_are_told_by_the_system(tmp_path: Path) -> None:
    """A limit stands for a full disk, of which NumPy says no number."""
    matcher = Matcher([f"entry {i}" for i in range(5000)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as full:
            matcher.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full.value.errno == errno.EFBIG


def test_tables_are_saved_into_a_folder_that_is_made(tmp_path: Path) -> None:
    Matcher(["dog", "hot dog"]).save(tmp_path / "a" / "b")
    _, ids = Matcher.load(tmp_path / "a" / "b").match(["a hot dog"])
    assert sorted(ids.tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("entries", "tokens"), [([], 1), (["a"], 1), (["a b"], 2), (["a", "a b c", "x y"], 3)]
)
def test_the_deepest_entry(entries: list[str], tokens: int) -> None:
    assert _max_depth(pa.array(entries, pa.large_string())) == tokens
