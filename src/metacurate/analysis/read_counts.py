"""Entry counts from files: data cards, ``{entry: count}`` objects, arrays, and official indexes.

Of MetaCLIP's scripts: ``entry_count.npy`` (or the folder that it is in), an inverted index
(``N_inverted.npy``: rows of entry and text), a subset (the folder ``subset_T`` beside them), and
Meta CLIP 2's ``N.npz`` with an array a language.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.analysis.official_subset import (
    is_inverted,
    kept_counts,
    subset_threshold,
)
from metacurate.curation.balancing import Counts
from metacurate.curation.layout import DATACARD_FILE
from metacurate.errors import ArgumentError, UserError, first_line
from metacurate.formats.npy import parse_array
from metacurate.metadata.store import Block, Metadata
from metacurate.runtime.inputs import open_input
from metacurate.runtime.storage import Folder

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK"
MAX_NPZ_BYTES = 4 << 30  # of its arrays: 32 bits of entries have no more in all languages
OFFICIAL_COUNTS = "entry_count.npy"


@dataclass(frozen=True)
class Card:
    """Entry counts by name: before balancing, after it if known, and the threshold if known.

    ``shares``: the numbers are shares of all matches, as published data cards have them, no counts.
    With several languages an entry's name has its language before it (``zh: 猫``), ``t`` is that of
    the reference language and ``languages`` has a card for each.
    """

    name: str
    counts: Mapping[str, float]
    kept: Mapping[str, float] | None
    t: float | None
    languages: dict[str, Card] = field(default_factory=dict)
    shares: bool = False

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
    def balanced(self) -> Mapping[str, float]:
        """The counts after balancing, else those there are."""
        return self.counts if self.kept is None else self.kept


@dataclass(frozen=True)
class Numbered:
    """Counts by the entries' numbers in some metadata: of each language, of one list under None.

    ``whole``: an array has all entries of its list; else those above its end have no match.
    ``kept``: the counts after balancing by ``t`` of one list, if they are known.
    """

    of: dict[str | None, Counts]
    whole: bool = True
    kept: Counts | None = None
    t: float | None = None


def read_card(address: str, metadata: Metadata | None = None) -> Card:
    """Read a data card (a file, or a run's folder), or a JSON object of entries and counts.

    ``metadata`` name the entries of counts that are an array. Raises UserError if there is no such
    file, it is neither, or it needs the metadata and there are none.
    """
    found = read_file(address)
    if isinstance(found, Card):
        return found
    if metadata is None:
        raise ArgumentError(
            "{file} has counts without the entries' names; give the run's folder or its data card, "
            "or {metadata} with the entries",
            file=address,
        )
    card = _named(in_order(found, metadata, address), metadata, address)
    if found.kept is None:
        return card
    kept = in_order(Numbered({None: found.kept}, whole=False), metadata, address)
    return replace(card, kept=_named(kept, metadata, address).counts, t=found.t)


def _named(counts: Counts, metadata: Metadata, address: str) -> Card:
    """Counts in the metadata's order as a card; only of entries that match."""
    cards: dict[str | None, Card] = {}
    for block in metadata.blocks:
        there = block.first + np.flatnonzero(counts[block.first : block.stop])
        names = metadata.entries.take(there).to_pylist()
        own = dict(zip(names, counts[there].tolist(), strict=True))
        cards[block.language] = Card(address, own, None, None)
    if not metadata.languages:
        return cards[None]
    by_name = {f"{code}: {n}": k for code, card in cards.items() for n, k in card.counts.items()}
    return Card(address, by_name, None, None, {str(code): card for code, card in cards.items()})


def read_file(address: str) -> Card | Numbered:
    """What a file has: counts by name, or arrays of them in some metadata's order."""
    if (t := subset_threshold(address)) is not None:
        # Of several lists there are no subsets.
        before = read_file(address.rstrip("/").rpartition("/")[0] or ".")
        if not isinstance(before, Numbered):
            raise UserError(f"there is no {OFFICIAL_COUNTS} in the folder that {address} is in")
        return replace(before, kept=kept_counts(address), t=t)
    content, found = _read(address)
    if content[:6] == NPY_MAGIC:
        return _numbered(parse_array(content, found), found)
    if content[:2] == ZIP_MAGIC:
        return Numbered({
            language: _numbered(array, f"{found}: {language}").of[None]
            for language, array in _load_languages(content, found).items()
        })  # fmt: skip
    return _card(address, _parse(content, found))


def _load_languages(content: bytes, found: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an ``.npz`` file by their names, which are languages."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as members:
            if sum(member.file_size for member in members.infolist()) > MAX_NPZ_BYTES:
                raise UserError(f"{found} has arrays of over 4 GiB: it holds no counts")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            loaded = {name: arrays[name] for name in arrays.files}
    except UserError:
        raise
    except Exception as error:  # of many kinds, as of ``formats.npy``
        raise UserError(f"{found} is a damaged .npz file: {first_line(error)}") from None
    if not loaded or not all(isinstance(array, np.ndarray) for array in loaded.values()):
        raise UserError(f"{found} holds no counts: it has no arrays by language")
    return loaded


def _numbered(array: npt.NDArray[Any], found: str) -> Numbered:
    if array.dtype.kind in "iu" and not (array.size and array.min() < 0):
        if array.ndim == 1:
            return Numbered({None: array.astype(np.uint64)})
        if is_inverted(array):
            return Numbered({None: np.bincount(array[:, 0]).astype(np.uint64)}, whole=False)
    raise UserError(f"{found} holds no counts, but {array.dtype}{list(array.shape)}")


def _card(address: str, value: Any) -> Card:
    if not isinstance(value, dict):
        raise UserError(f"{address} is no data card and no JSON object of entries and counts")
    if "entry_counts" not in value:
        shares = _are_shares(value)
        return Card(address, value if shares else _checked(value, address), None, None, {}, shares)
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
            own = None if facts["t"] is None else float(facts["t"])  # it matches nothing
            had = None if kept is None else _checked(kept[language], address)
            cards[language] = Card(language, _checked(counts[language], address), had, own)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{address} is no data card: its languages do not fit its counts") from None

    def named(part: Callable[[Card], Mapping[str, float]]) -> dict[str, float]:
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


def in_order(found: Card | Numbered, metadata: Metadata, address: str) -> Counts:
    """Counts of a file in the metadata's order, as of ``read_counts``."""
    if isinstance(found, Numbered):
        return _numbered_in_order(found, metadata, address)
    _refuse_shares(found, address)
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


def _numbered_in_order(found: Numbered, metadata: Metadata, address: str) -> Counts:
    """Arrays one after the other; those of all languages may also be one array."""
    if set(found.of) == {None}:
        sizes: dict[str | None, tuple[int, int]] = {None: (0, len(metadata))}
    else:
        sizes = {block.language: (block.first, block.stop) for block in metadata.blocks}
    if unknown := [str(language) for language in found.of if language not in sizes]:
        raise UserError(
            f"{address} counts the languages {', '.join(unknown[:5])}, which the metadata do not "
            "have"
        )
    counts = np.zeros(len(metadata), np.uint64)
    for language, own in found.of.items():
        first, stop = sizes[language]
        if own.size > stop - first or (found.whole and own.size < stop - first):
            where = "" if language is None else f" of {language}"
            raise UserError(
                f"{address} counts {own.size:,} entries{where}, but the metadata has "
                f"{stop - first:,}"
            )
        counts[first : first + own.size] = own
    return counts


def _refuse_shares(card: Card, address: str) -> None:
    if card.shares:
        raise UserError(
            f"{address} has shares of all matches and no counts: it can be compared (metacurate "
            "diff), but no threshold follows from it"
        )


def read_counted(address: str) -> tuple[Counts, tuple[Block, ...]]:
    """The counts that a file has, with the blocks of its languages; one block for one list.

    Of counts by name only entries that match are sure to be there, in no particular order.
    """
    found = read_file(address)
    if isinstance(found, Numbered):
        stops = list(accumulate(own.size for own in found.of.values()))
        starts = [0, *stops]
        return np.concatenate(list(found.of.values())), tuple(
            Block(language, first, stop)
            for language, first, stop in zip(found.of, starts, stops, strict=False)
        )
    _refuse_shares(found, address)
    counts = np.array(list(found.counts.values()), np.uint64)
    if not found.languages:
        return counts, (Block(None, 0, counts.size),)
    stops = list(accumulate(len(card.counts) for card in found.languages.values()))
    return counts, tuple(
        Block(language, first, stop)
        for language, first, stop in zip(found.languages, [0, *stops], stops, strict=False)
    )


def file_of(address: str) -> str:
    """The address of the file that is read: a run's folder stands for its data card."""
    for name in (DATACARD_FILE, OFFICIAL_COUNTS):
        if Folder(address).exists(name):
            return Folder(address).address(name)
    return address


def _read(address: str) -> tuple[bytes, str]:
    """A file's content and its address (``file_of``)."""
    address = file_of(address)
    advice = f"; name a file, or the folder of a finished run ({DATACARD_FILE})"
    with open_input(address, advice=advice) as file:
        return file.read(), address


def _parse(content: bytes, address: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{address} is no JSON: {error}") from None


def _are_shares(value: dict[str, Any]) -> bool:
    """Whether these are shares of a whole: numbers from 0 to 1, not all of them whole."""
    kinds = {type(share) for share in value.values()}
    return float in kinds and kinds <= {int, float} and all(0 <= n <= 1 for n in value.values())


def _checked(value: Any, address: str) -> dict[str, int]:
    if not isinstance(value, dict) or not all(
        type(count) is int and 0 <= count < 2**63 for count in value.values()
    ):
        raise UserError(f"{address}: the counts must be an object of entries and whole numbers")
    return value
