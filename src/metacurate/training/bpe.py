"""open_clip's tokenizer on texts of any length: the same ids in bounded time and memory.

Its own merging takes time with the square of a word's length, and texts of the web have words of
100,000 letters (languages that put no spaces, data in place of a caption): one such caption would
hold a run up for minutes or hours. It also keeps every word that it has ever seen.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Any

LONG_WORD = 64
"""Characters from which on a word is merged here, and not kept."""
KEPT_WORDS = 200_000

Ranks = Mapping[tuple[str, str], int]


def bound(tokenizer: Any) -> None:
    """Give an ``open_clip.SimpleTokenizer`` the merging of this module for long words."""
    special = dict(tokenizer.cache)
    own: Callable[[str], str] = tokenizer.bpe

    def bpe(word: str) -> str:
        if len(word) >= LONG_WORD:
            return " ".join(merged(word, tokenizer.bpe_ranks))
        if len(tokenizer.cache) > KEPT_WORDS:
            tokenizer.cache = dict(special)
        return own(word)

    tokenizer.bpe = bpe


def merged(word: str, ranks: Ranks) -> list[str]:
    """A word's tokens by byte-pair encoding, in n log n steps.

    The definition merges all pairs of the lowest rank from left to right, then those of the next
    one. Taking single pairs by rank and place is the same: a merge makes what only later ranks
    merge further (CLIP's vocabulary was learned in this order).
    """
    parts = [*word[:-1], word[-1] + "</w>"]
    end = len(parts)
    before, after = list(range(-1, end - 1)), list(range(1, end + 1))
    waiting: list[tuple[int, int]] = []

    def rank(place: int) -> int | None:
        """The rank of the pair that begins at a place, if there is one."""
        if place < 0 or after[place] >= end:
            return None
        return ranks.get((parts[place], parts[after[place]]))

    def wait(place: int) -> None:
        if (found := rank(place)) is not None:
            heapq.heappush(waiting, (found, place))

    for place in range(end - 1):
        wait(place)
    while waiting:
        found, place = heapq.heappop(waiting)
        if rank(place) != found:
            continue  # one of the two has been merged since
        gone = after[place]
        parts[place] += parts[gone]
        parts[gone] = ""  # in no pair: no rank is of an empty part
        after[place] = after[gone]
        if after[place] < end:
            before[after[place]] = place
        wait(before[place])
        wait(place)
    return [part for part in parts if part]
