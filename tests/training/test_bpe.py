"""Tokenizing texts of any length: open_clip's ids, in bounded time and memory."""

from __future__ import annotations

import random
import time

import pytest

pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from metacurate.training import bpe
from metacurate.training.openclip import ModelConfig, OpenClipTokenizer, open_clip


def test_long_words_are_merged_as_open_clip_merges_them() -> None:
    theirs, drawn = open_clip().SimpleTokenizer(), random.Random(5)
    for letters in ("abcdefghijklmnopqrstuvwxyz", "ab", "a", "=-_*", "ðŁĺĢ", "æĪĳçļĦä¸Ģ"):
        for length in (2, 3, 20, 65, 200):
            for _ in range(20):
                word = "".join(drawn.choices(letters, k=length))
                assert bpe.merged(word, theirs.bpe_ranks) == theirs.bpe(word).split(" ")


def test_a_merge_makes_what_only_later_ranks_merge() -> None:
    """Why pairs may be merged one by one."""
    ranks = open_clip().SimpleTokenizer().bpe_ranks
    made = {first + second: rank for (first, second), rank in ranks.items()}
    assert len(made) == len(ranks)
    assert all(made.get(part, -1) < rank for pair, rank in ranks.items() for part in pair)


def test_a_caption_of_one_endless_word_takes_seconds() -> None:
    word = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=100_000))
    start = time.process_time()
    tokens = OpenClipTokenizer(ModelConfig("ViT-B-32"))([f"a cat {word}"])
    assert tokens[0, 1:3].tolist() == [320, 2368]  # "a", "cat"
    assert tokens[0, -1] == 49407
    assert time.process_time() - start < 30  # minutes without


def test_the_words_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe, "KEPT_WORDS", 50)
    tokenizer = open_clip().SimpleTokenizer()
    bpe.bound(tokenizer)
    theirs = open_clip().SimpleTokenizer()
    for number in range(300):
        word = "".join(random.Random(number).choices("abcdefgh", k=9))
        assert tokenizer(word).tolist() == theirs(word).tolist()
        assert len(tokenizer.cache) <= 51
