"""The compiled choice of an image's texts is what a plain loop chooses."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacurate.kernels.merging import KEYS, _hash, choose_texts

# Equal, of equal length, one the start of another, and longer than there are keys for.
LONG = "x" * (4 * KEYS)
TEXTS = st.sampled_from(["", "a", "b", "abcd", "abce", "abcde", LONG, LONG + "y", "y" + LONG, "é"])
IMAGES = st.lists(st.lists(st.lists(TEXTS, max_size=6), min_size=1, max_size=4), max_size=6)


def plain(images: list[list[list[str]]], most: int) -> tuple[list[list[str]], int, int]:
    """The texts of each image, and how many came before or were over the limit."""
    chosen, repeated, over = [], 0, 0
    for image in images:
        texts = [text for row in image for text in row]
        distinct = list(dict.fromkeys(texts))
        repeated += len(texts) - len(distinct)
        chosen.append(distinct[:most] if most else distinct)
        over += len(distinct) - len(chosen[-1])
    return chosen, repeated, over


def choose(
    images: list[list[list[str]]], most: int, keys: np.ndarray, order: np.ndarray
) -> tuple[list[list[str]], int, int]:
    """The same by the kernel, from rows that lie in any order."""
    rows = [row for image in images for row in image]
    stored = [rows[i] for i in np.argsort(order)]
    texts = pa.array([text for row in stored for text in row], pa.string())
    lists = np.cumsum([0, *map(len, stored)], dtype=np.int32)
    starts = np.cumsum([0, *map(len, images)], dtype=np.int64)
    chosen, counts = np.zeros(len(texts), np.int64), np.zeros(len(images), np.int64)
    _, offsets, data = texts.buffers()
    kept, repeated, over = choose_texts(
        np.frombuffer(data or b"", np.uint8), np.frombuffer(offsets, np.int32, len(texts) + 1),
        lists, order, starts, most, keys, chosen, counts,
    )  # fmt: skip
    values = texts.take(pa.array(chosen[:kept])).to_pylist()
    ends = np.cumsum([0, *counts])
    return [values[a:b] for a, b in itertools.pairwise(ends)], repeated, over


@settings(max_examples=100)
@given(
    IMAGES,
    st.integers(0, 3),
    # With keys of 0 all texts have one hash: only their bytes tell them apart.
    st.sampled_from([0, 1, 0x9E3779B97F4A7C15]),
    st.randoms(use_true_random=False),
)
def test_choose_texts(images: list[list[list[str]]], most: int, key: int, random: object) -> None:
    order = np.arange(sum(map(len, images)), dtype=np.int64)
    random.shuffle(order)  # type: ignore[attr-defined]
    keys = np.arange(KEYS, dtype=np.uint64) * np.uint64(key)
    assert choose(images, most, keys, order) == plain(images, most)


@pytest.mark.parametrize("size", [1, 3, 4 * KEYS, 4 * KEYS + 1, 40 * KEYS])
def test_a_crowd_of_texts(size: int) -> None:
    """Many texts of one image that differ in their last characters alone."""
    texts = [f"{'x' * size}{n % 3000}" for n in range(6000)]
    keys = np.random.default_rng(0).integers(0, 2**64, KEYS, np.uint64)
    images = [[texts[:4000], texts[4000:]]]
    assert choose(images, 1000, keys, np.arange(2)) == plain(images, 1000)


def test_nobody_makes_many_texts_with_one_hash() -> None:
    """A word of each text that is larger by what the rest is smaller."""
    texts = b"".join(
        (5_000_000 + n).to_bytes(4, "little") + (9_000_000 - n).to_bytes(3, "big")
        for n in range(500)
    )
    data = np.frombuffer(texts, np.uint8)
    keys = np.random.default_rng(1).integers(0, 2**64, KEYS, np.uint64)
    assert len({_hash(data, at, at + 7, keys) for at in range(0, len(texts), 7)}) == 500
