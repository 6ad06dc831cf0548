"""Looking up metadata entries by name."""

from __future__ import annotations

import difflib

import numpy as np
import pyarrow.compute as pc

from metacurate.errors import ArgumentError, UserError
from metacurate.metadata.store import Metadata
from metacurate.printable import printable

MAX_COMPARED = 20_000


def entry_id(metadata: Metadata, name: str, lang: str | None = None) -> int:
    """The id of an entry (of a language, which may be left out where one alone has it).

    UserError with similar entries if there is none of that name, or with the languages that have
    it.
    """
    if lang is not None and metadata.block_of(lang) is None:
        raise ArgumentError(
            "{lang}: the metadata have no language {asked}; they have {known}",
            asked=repr(printable(lang, 20)),
            known=", ".join(metadata.languages[:20]) or "none: they are one list",
        )
    places = np.flatnonzero(pc.equal(metadata.entries, name).to_numpy(zero_copy_only=False))
    there = [
        (int(place), block.language)
        for place in places
        for block in metadata.blocks
        if block.first <= place < block.stop
    ]
    found = [each for each in there if lang in (None, each[1])]
    if len(found) > 1:
        raise ArgumentError(
            "several languages have the entry {entry} ({having}); choose with {lang}",
            entry=repr(printable(name, 60)),
            having=", ".join(str(other) for _, other in found[:20]),
        )
    if found:
        return found[0][0]
    if there:
        raise ArgumentError(
            "{lang}: the metadata of {asked} has no entry {entry}; {having} has it",
            asked=str(lang),
            entry=repr(printable(name, 60)),
            having=", ".join(str(other) for _, other in there[:20]),
        )
    near = similar_entries(metadata, name)
    hint = f"; did you mean {', '.join(repr(printable(n, 60)) for n in near)}?" if near else ""
    raise UserError(f"the metadata has no entry {printable(name, 60)!r}{hint}")


def similar_entries(metadata: Metadata, name: str, number: int = 3) -> list[str]:
    """Entries spelled alike: the same but for capitals, else near in spelling."""
    folded = pc.utf8_lower(metadata.entries)
    same = metadata.entries.filter(pc.equal(folded, name.lower()))
    if len(same):
        return same.slice(0, number).to_pylist()
    lengths = pc.utf8_length(metadata.entries)
    first = pc.starts_with(folded, name[:1].lower())
    alike = pc.and_(first, pc.less_equal(pc.abs(pc.subtract(lengths, len(name))), 2))
    candidates = metadata.entries.filter(alike).slice(0, MAX_COMPARED).to_pylist()
    return difflib.get_close_matches(name, candidates, number)
