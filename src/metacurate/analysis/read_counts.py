"""Entry counts from files: data cards, ``{entry: count}`` objects and ``.npy`` arrays."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np

from metacurate.curation.balancing import Counts
from metacurate.curation.layout import DATACARD_FILE
from metacurate.errors import UserError
from metacurate.metadata.store import Block, Metadata
from metacurate.runtime.inputs import open_input
from metacurate.runtime.storage import Folder

NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Card:
    """Entry counts by name: before balancing, after it if known, and the threshold if known.

    With several languages an entry's name has its language before it (``zh: 猫``), ``t`` is that of
    the reference language and ``languages`` has a card for each.
    """

    name: str
    counts: dict[str, int]
    kept: dict[str, int] | None
    t: float | None
    languages: dict[str, Card] = field(default_factory=dict)

    @property
    def threshold_of(self) -> dict[str, float]:
        """The threshold of each entry that is there, by its name; none if it is not known."""
        cards = {f"{language}: ": card for language, card in self.languages.items()} or {"": self}
        return {
            f"{before}{entry}": card.t
            for before, card in cards.items()
            if card.t is not None
            for entry in card.counts
        }

    @property
    def balanced(self) -> dict[str, int]:
        """The counts after balancing, else those there are."""
        return self.counts if self.kept is None else self.kept


def read_card(address: str) -> Card:
    """Read a data card (a file, or a run's folder), or a JSON object of entries and counts.

    Raises UserError if there is no such file or it is neither.
    """
    found = read_file(address)
    if isinstance(found, Card):
        return found
    raise UserError(
        f"{address} has counts without the entries' names; give the run's folder or its data card"
    )


def read_file(address: str) -> Card | Counts:
    """What a file has: counts by name, or an array of them in some metadata's order (``.npy``)."""
    content, found = _read(address)
    if content[:6] == NPY_MAGIC:
        return _array(content, found)
    return _card(address, _parse(content, found))


def _array(content: bytes, found: str) -> Counts:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{found} is a damaged .npy file: {error}") from None
    if array.ndim != 1 or array.dtype.kind not in "iu" or (array.size and array.min() < 0):
        raise UserError(f"{found} holds no counts, but {array.dtype}{list(array.shape)}")
    return array.astype(np.uint64)


def _card(address: str, value: Any) -> Card:
    if not isinstance(value, dict):
        raise UserError(f"{address} is no data card and no JSON object of entries and counts")
    if "entry_counts" not in value:
        return Card(address, _checked(value, address), None, None)
    kept = value.get("entry_counts_kept")
    try:
        t = float(value["balancing"]["t"])
    except (KeyError, TypeError, ValueError):
        t = math.nan
    if not t > 0:
        raise UserError(f"{address} is no data card: it has no threshold balancing.t")
    languages = value.get("languages")
    if isinstance(languages, dict):
        return _by_language(address, value["entry_counts"], kept, languages, t)
    counts = _checked(value["entry_counts"], address)
    return Card(address, counts, None if kept is None else _checked(kept, address), t)


def _by_language(address: str, counts: Any, kept: Any, languages: dict[str, Any], t: float) -> Card:
    """A card of several languages: ``{language: {entry: count}}`` and each one's threshold."""
    cards: dict[str, Card] = {}
    try:
        for language, facts in languages.items():
            own = math.inf if facts["t"] is None else float(facts["t"])
            had = None if kept is None else _checked(kept[language], address)
            cards[language] = Card(language, _checked(counts[language], address), had, own)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{address} is no data card: its languages do not fit its counts") from None

    def named(part: Callable[[Card], dict[str, int]]) -> dict[str, int]:
        return {
            f"{language}: {entry}": number
            for language, card in cards.items()
            for entry, number in part(card).items()
        }

    return Card(
        address,
        named(lambda card: card.counts),
        None if kept is None else named(lambda card: card.kept or {}),
        t,
        cards,
    )


def read_counts(address: str, metadata: Metadata | None = None) -> Counts:
    """Read the counts of all entries (before balancing), uint64[entries].

    With ``metadata`` they are in its order, and UserError is raised if they do not fit it; without,
    as of ``read_counted``.
    """
    if metadata is None:
        return read_counted(address)[0]
    return in_order(read_file(address), metadata, address)


def in_order(found: Card | Counts, metadata: Metadata, address: str) -> Counts:
    """Counts of a file in the metadata's order, as of ``read_counts``."""
    if not isinstance(found, Card):
        if found.size != len(metadata):
            raise UserError(
                f"{address} counts {found.size:,} entries, but the metadata has {len(metadata):,}"
            )
        return found
    if set(found.languages) != set(metadata.languages):
        raise UserError(
            f"{address} counts the languages {', '.join(found.languages) or '(one list)'}, but the "
            f"metadata have {', '.join(metadata.languages) or '(one list)'}"
        )
    counts = np.zeros(len(metadata), np.uint64)
    for block in metadata.blocks:
        named = (found if block.language is None else found.languages[block.language]).counts
        entries = metadata.entries.slice(block.first, len(block)).to_pylist()
        places = {entry: block.first + place for place, entry in enumerate(entries)}
        if unknown := sum(entry not in places for entry in named):
            raise UserError(f"{address} counts {unknown:,} entries that the metadata does not have")
        for entry, count in named.items():
            counts[places[entry]] = count
    return counts


def read_counted(address: str) -> tuple[Counts, tuple[Block, ...]]:
    """The counts that a file has, with the blocks of its languages; one block for one list.

    Of counts by name only entries that match are sure to be there, in no particular order.
    """
    found = read_file(address)
    if not isinstance(found, Card):
        return found, (Block(None, 0, found.size),)
    counts = np.array(list(found.counts.values()), np.uint64)
    if not found.languages:
        return counts, (Block(None, 0, counts.size),)
    stops = list(accumulate(len(card.counts) for card in found.languages.values()))
    return counts, tuple(
        Block(language, first, stop)
        for language, first, stop in zip(found.languages, [0, *stops], stops, strict=False)
    )


def _read(address: str) -> tuple[bytes, str]:
    """A file's content and its address; a run's folder stands for its data card."""
    if Folder(address).exists(DATACARD_FILE):
        address = Folder(address).address(DATACARD_FILE)
    advice = f"; name a file, or the folder of a finished run ({DATACARD_FILE})"
    with open_input(address, advice=advice) as file:
        return file.read(), address


def _parse(content: bytes, address: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{address} is no JSON: {error}") from None


def _checked(value: Any, address: str) -> dict[str, int]:
    if not isinstance(value, dict) or not all(
        type(count) is int and 0 <= count < 2**63 for count in value.values()
    ):
        raise UserError(f"{address}: the counts must be an object of entries and whole numbers")
    return value
