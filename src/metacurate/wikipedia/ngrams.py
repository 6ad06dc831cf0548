"""Words of plain text, counts of words and of pairs of neighbours, and their mutual information.

What follows is the rule of English metadata; ``tokens`` has Meta CLIP 2's, for all languages.

**Word**: a letter or digit, then letters, digits and combining marks (Unicode); single hyphens,
apostrophes (' and \u2019) and zero-width joiners and non-joiners inside a word belong to it:
``don't``, ``T-shirt``, ``1990s``. This is what a caption's token looks like to the matcher (which
puts spaces around ``, . ; : ? ! ```) once outer quotes and brackets are taken off. Underscores and
all other characters part words.

**Bigram**: two words with nothing but white space of the same line between them. Any punctuation,
symbol, line break or dropped piece of markup parts them: the matcher finds a two-word entry only
where a single space is between its words, so other neighbours could never match.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from array import array
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pyarrow as pa

from metacurate.runtime.storage import Folder
from metacurate.wikipedia.reasons import Loss
from metacurate.wikipedia.shuffle import hash_texts, write_run
from metacurate.wikipedia.tokens import MAX_ENTRY, TokenRule, is_word

# A longer word is noise (or an attack); it parts its neighbours like punctuation.
MAX_WORD = 64
_NO_WORD = 0
# A run in memory: 4 bytes a token, the vocabulary, and at worst (no bigram occurs twice) some 130
# bytes a bigram while it is spilled.
TOKENS_A_RUN = 4_000_000


@cache
def _pattern() -> re.Pattern[str]:
    """Finds words (group 1) and, as empty group 1, everything that parts neighbours."""
    codes = (c for c in range(0x110000) if unicodedata.category(chr(c)).startswith("M"))
    marks = ""
    for _, same_run in itertools.groupby(enumerate(codes), lambda pair: pair[1] - pair[0]):
        run = [code for _, code in same_run]
        marks += f"\\U{run[0]:08x}-\\U{run[-1]:08x}"
    # Zero-width (non-)joiners shape the letters beside them, in Persian and Sinhala for example.
    word = rf"[^\W_]+(?:[{marks}]+[^\W_]*|['\u2019\-\u200c\u200d][^\W_]+)*"
    line_break = r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]"
    return re.compile(rf"({word})|\S|{line_break}")


def tokens(text: str) -> list[str]:
    """The words of a text in order, with an empty string wherever neighbours are parted."""
    return _pattern().findall(text)


class RunCounter:
    """Counts words and bigrams of texts and spills them to disk as partitioned runs.

    Run ``k`` is ``{stem}-words-{k}.arrow`` (word, count) and ``{stem}-bigrams-{k}.arrow`` (left,
    right, count), the latter partitioned by the left word. ``rule``: how texts are split; None for
    the rule of English metadata.
    """

    def __init__(
        self,
        folder: Folder,
        stem: str,
        partitions: int,
        *,
        lowercase: bool,
        bigrams: bool,
        tokens_a_run: int = TOKENS_A_RUN,
        rule: TokenRule | None = None,
    ) -> None:
        self._split = tokens if rule is None else rule.splitter()
        self._is_word = None if rule is None else is_word
        self._longest = MAX_WORD if rule is None else MAX_ENTRY
        self._folder, self._stem, self._partitions = folder, stem, partitions
        self._lowercase, self._bigrams, self._tokens_a_run = lowercase, bigrams, tokens_a_run
        self.runs = 0
        self.losses: Counter[str] = Counter()
        self.words = 0
        self._reset()

    def _reset(self) -> None:
        self._ids = array("I")
        self._vocabulary: defaultdict[str, int] = defaultdict(
            itertools.count(_NO_WORD + 1).__next__
        )
        self._vocabulary[""] = _NO_WORD

    def add(self, text: str) -> None:
        """Count a text."""
        found = self._split(text.lower() if self._lowercase else text)
        self._ids.extend(map(self._vocabulary.__getitem__, found))
        self._ids.append(_NO_WORD)
        if len(self._ids) >= self._tokens_a_run:
            self.spill()

    def spill(self) -> None:
        """Write what is counted as a run and start afresh; nothing is written if there is none."""
        ids = np.frombuffer(self._ids, np.uint32)
        vocabulary = list(self._vocabulary)
        too_long = np.fromiter((len(word) > self._longest for word in vocabulary), bool)
        if too_long.any():
            self.losses[Loss.LONG_WORDS] += int(too_long[ids].sum())
        no_word = too_long
        if self._is_word is not None:
            no_word = too_long | ~np.fromiter(map(self._is_word, vocabulary), bool)
        ids = np.where(no_word[ids], np.uint32(_NO_WORD), ids)
        counts = np.bincount(ids, minlength=len(vocabulary)).astype(np.uint64)
        counts[_NO_WORD] = 0
        self.words += int(counts.sum())
        used = np.flatnonzero(counts)
        if used.size:
            texts = pa.array(vocabulary, pa.string())
            hashes = hash_texts(vocabulary)
            self._write("words", {"word": texts.take(pa.array(used))}, counts[used], hashes[used])
            if self._bigrams:
                self._spill_bigrams(ids, texts, hashes)
            self.runs += 1
        self._reset()

    def _spill_bigrams(self, ids: np.ndarray, texts: pa.Array, hashes: np.ndarray) -> None:
        left, right = ids[:-1], ids[1:]
        neighbours = (left != _NO_WORD) & (right != _NO_WORD)
        pairs = left[neighbours].astype(np.uint64) << np.uint64(32) | right[neighbours]
        pairs, counts = np.unique(pairs, return_counts=True)
        left = (pairs >> np.uint64(32)).astype(np.uint32)
        right = (pairs & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        columns = {"left": texts.take(pa.array(left)), "right": texts.take(pa.array(right))}
        self._write("bigrams", columns, counts.astype(np.uint64), hashes[left])

    def _write(
        self, kind: str, columns: dict[str, pa.Array], counts: np.ndarray, hashes: np.ndarray
    ) -> None:
        table = pa.table({**columns, "count": pa.array(counts)})
        name = f"{self._stem}-{kind}-{self.runs:04d}.arrow"
        write_run(self._folder, name, table, hashes, self._partitions)


def pmi(both: np.ndarray, left: np.ndarray, right: np.ndarray, total: int) -> np.ndarray:
    """Pointwise mutual information of bigrams, base 2, over token counts: float64.

    log2(count(w1, w2) * N / (count(w1) * count(w2))) with N the number of tokens; the usual
    collocation measure. Rounded to 9 decimals so that no platform's logarithm shows.
    """
    value = np.log2(both) + np.log2(float(total)) - np.log2(left) - np.log2(right)
    return np.round(value, 9)
