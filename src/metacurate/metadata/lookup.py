"""Looking up metadata entries by name."""

from __future__ import annotations

import difflib

import pyarrow as pa
import pyarrow.compute as pc

from metacurate.errors import UserError
from metacurate.metadata.store import Metadata
from metacurate.printable import printable

MAX_COMPARED = 20_000


def entry_id(metadata: Metadata, name: str) -> int:
    """The id of an entry; UserError with similar entries if there is none of that name."""
    place = metadata.entries.index(pa.scalar(name, pa.large_string())).as_py()
    if place >= 0:
        return int(place)
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
