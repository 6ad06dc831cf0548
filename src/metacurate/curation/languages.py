"""Each text is matched with the entries of its own language: which block that is, and the matching.

Source: Meta CLIP 2 (arXiv 2507.22062). The labels that a pool's texts have go through a table
(``texts.languages``) to the languages of the metadata; a text of no language known to the metadata
is matched with the entries of ``other``, if there are any, and counted by the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metacurate.arrays import offsets_of, ranges_to_indices
from metacurate.curation.matching.matcher import Matcher
from metacurate.metadata.store import Block
from metacurate.printable import printable
from metacurate.texts.language import UNDETERMINED
from metacurate.texts.languages import OTHER, LanguageMap

NO_LANGUAGE: Final = "no_language"
UNKNOWN_LANGUAGE: Final = "unknown_language"
LANGUAGE_WITHOUT_METADATA: Final = "language_without_metadata"

MAX_UNKNOWN_LABELS = 100
MAX_LABEL_SHOWN = 40
OTHER_LABELS = "(other labels)"
"""Labels that no language is known of are listed up to a number a unit of the pool."""

Codes = npt.NDArray[np.int64]
Matches = tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]


@dataclass(frozen=True)
class Languages:
    """The metadata's languages (each one's block of entries), and what labels mean them."""

    blocks: tuple[Block, ...]
    table: LanguageMap

    @cached_property
    def _places(self) -> dict[str | None, int]:
        return {block.language: place for place, block in enumerate(self.blocks)}

    def place(self, label: str | None) -> tuple[int, str | None]:
        """The place of the block that texts with a label are matched with (-1: none has them).

        And why it is not that of their own language: a reason, or None.
        """
        if label is None or label.strip().lower() in ("", UNDETERMINED):
            reason = NO_LANGUAGE
        else:
            language = self.table.language(label)
            if language is None and label in self._places and label not in self.table.table:
                language = label  # the user's own language, of which the table knows nothing
            if language in self._places:
                return self._places[language], None
            reason = UNKNOWN_LANGUAGE if language is None else LANGUAGE_WITHOUT_METADATA
        return self._places.get(OTHER, -1), reason

    @property
    def unreached(self) -> tuple[str, ...]:
        """The languages whose entries no label leads to."""
        known = self.table.languages | {OTHER}
        named = [b.language for b in self.blocks if b.language and b.language not in known]
        # One of the user's own is reached by its name.
        return tuple(name for name in named if self.place(name)[1] is not None)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "blocks": [[block.language, block.first, block.stop] for block in self.blocks],
            "labels": dict(self.table.table),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Languages:
        """From what ``as_json`` gave."""
        return cls(
            tuple(Block(*block) for block in values["blocks"]), LanguageMap(values["labels"])
        )


class TextsByLanguage:
    """Counts texts and matches by language, and why texts are not with their own."""

    def __init__(self, languages: Languages) -> None:
        self._languages = languages
        blocks = len(languages.blocks)
        self._counts = {
            name: np.zeros(blocks, np.int64) for name in ("texts", "texts_matched", "match_counts")
        }
        self._reasons: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()

    def codes(self, texts: pa.LargeStringArray, langs: pa.DictionaryArray) -> Codes:
        """The place of each text's block, int64[texts]; -1 where it has none."""
        labels = [*langs.dictionary.to_pylist(), None]
        found = [self._languages.place(label) for label in labels]
        numbers = langs.indices.fill_null(len(labels) - 1).to_numpy(zero_copy_only=False)
        there = np.bincount(numbers[np.asarray(texts.is_valid())], minlength=len(labels))
        for label, (_, reason), n in zip(labels, found, there.tolist(), strict=True):
            if reason is not None and n:
                self._reasons[reason] += n
                if reason == UNKNOWN_LANGUAGE:
                    shown = printable(str(label), MAX_LABEL_SHOWN)
                    known = shown in self._unknown or len(self._unknown) < MAX_UNKNOWN_LABELS
                    self._unknown[shown if known else OTHER_LABELS] += n
        return np.array([place for place, _ in found], np.int64)[numbers]

    def add(self, codes: Codes, texts: pa.LargeStringArray, offsets: npt.NDArray[np.int64]) -> None:
        """Count some texts with their matches."""
        matches = np.diff(offsets)
        chosen = codes >= 0
        for name, weights in (
            ("texts", np.asarray(texts.is_valid())),
            ("texts_matched", matches > 0),
            ("match_counts", matches),
        ):
            counts = self._counts[name]
            counts += np.bincount(
                codes[chosen], weights[chosen].astype(np.float64), counts.size
            ).astype(np.int64)

    def totals(self) -> dict[str, Any]:
        """Plain JSON values: ``languages`` that texts are in, ``not_in_own_language`` by reason."""
        seen = np.flatnonzero(self._counts["texts"]).tolist()
        return {
            "languages": {
                str(self._languages.blocks[place].language): {
                    name: int(counts[place]) for name, counts in self._counts.items()
                }
                for place in seen
            },
            "not_in_own_language": dict(sorted(self._reasons.items())),
            "unknown_labels": dict(sorted(self._unknown.items())),
        }


def match_by_language(
    texts: pa.LargeStringArray,
    codes: Codes,
    blocks: Sequence[Block],
    matcher_of: Callable[[int], Matcher],
) -> Matches:
    """The matches of each text with the entries of its block, as ``Matcher.match`` gives them.

    ``codes`` int64[texts]: the place of each text's block, -1 for none. ``matcher_of`` gives the
    matcher of the block at a place. The entry ids are those of the whole metadata.
    """
    lengths = np.zeros(len(texts), np.int64)
    parts = []
    for place in np.unique(codes[codes >= 0]).tolist():
        own = np.flatnonzero(codes == place)
        chosen = texts if own.size == len(texts) else texts.take(pa.array(own))
        offsets, ids = matcher_of(place).match(chosen)
        lengths[own] = np.diff(offsets)
        parts.append((own, offsets, ids + np.uint32(blocks[place].first)))
    offsets = offsets_of(lengths)
    entry_ids = np.empty(offsets[-1], np.uint32)
    for own, starts, ids in parts:
        entry_ids[ranges_to_indices(offsets[own], np.diff(starts))] = ids
    return offsets, entry_ids
