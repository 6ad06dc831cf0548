"""All entries of a run with their counts, small enough to lie within its page.

JSON, compressed (raw deflate) and in base64: the page unpacks it when its search is first used.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metacurate.curation.balancing import Counts
from metacurate.curation.subset import smallest_hashes
from metacurate.printable import printable

MAX_ENTRIES = 1_000_000
"""So many entries are held; of more, the most common and a sample of the others."""
ENTRY_CHARACTERS = 120
VALUE_CHARACTERS = 40


def held_entries(counts: Counts, most: int | None = None) -> npt.NDArray[np.int64]:
    """The ids of the entries that the page can find, sorted: all, if they are not too many.

    Of more than ``most`` (MAX_ENTRIES): two thirds the most common, the rest chosen by hash.
    """
    most = MAX_ENTRIES if most is None else most
    if counts.size <= most:
        return np.arange(counts.size)
    order = np.argsort(counts, kind="stable")[::-1]
    top = most * 2 // 3
    rest = smallest_hashes(np.sort(order[top:]), most - top)
    return np.sort(np.concatenate([order[:top], rest]))


def packed_entries(
    ids: npt.NDArray[np.int64],
    entries: pa.Array,
    counts: Counts,
    kept: Counts,
    thresholds: npt.NDArray[np.float64],
    further: Mapping[str, pa.Array],
    sampled: Sequence[int],
) -> str:
    """The entries ``ids`` by name, as the script of the page unpacks them; plain base64.

    ``thresholds`` float64[entries] is each entry's own. ``further`` has a column of values for each
    of some names. ``sampled``: ids of the entries whose sample pairs are on the page.
    """
    taken = pa.array(ids)
    names = [printable(name, ENTRY_CHARACTERS) for name in entries.take(taken).to_pylist()]
    # By name: neighbours alike compress well, and the page needs no sorting for this order.
    order = sorted(range(len(names)), key=names.__getitem__)
    ids = ids[order]
    own, place = np.unique(thresholds[ids], return_inverse=True)
    shown = set(sampled)
    packed: dict[str, Any] = {
        # No name has a line's end: printable() writes them out.
        "names": "\n".join(names[i] for i in order),
        "counts": counts[ids].tolist(),
        "kept": kept[ids].tolist(),
        "thresholds": [_finite(t) for t in own.tolist()],
        "threshold": place.tolist() if own.size > 1 else [],
        "further": [_column(values.take(pa.array(ids))) for values in further.values()],
        "sampled": [[i, int(e)] for i, e in enumerate(ids.tolist()) if e in shown],
    }
    text = json.dumps(packed, separators=(",", ":"), allow_nan=False)
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)  # 9: a hundredth smaller, two seconds
    content = deflate.compress(text.encode()) + deflate.flush()
    return base64.b64encode(content).decode()


def _column(values: pa.Array) -> dict[str, Any]:
    coded = values.cast(pa.string()).fill_null("").dictionary_encode()
    return {
        "values": [printable(value, VALUE_CHARACTERS) for value in coded.dictionary.to_pylist()],
        "of": coded.indices.to_pylist(),
    }


def _finite(t: float) -> float:
    """JSON has no infinity: with t above all counts everything is tail, as at infinity."""
    return t if math.isfinite(t) else float(2**64)
