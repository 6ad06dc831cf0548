"""What a pool is: how it is read, and what a batch of its rows looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metacurate.arguments import listed

TEXTS_TYPE = pa.list_(
    pa.struct([("source", pa.string()), ("text", pa.string()), ("lang", pa.string())])
)
"""The type of a canonical pool's ``texts`` column."""

UID_TYPE = pa.binary(16)
"""The type of a pool's ``uid`` column: 128 bits that name a pair (see ``pool.uid``)."""


@dataclass(frozen=True)
class PoolConfig:
    """How to read a pool; plain values, so that it goes into a manifest.

    Columns that are not given are found by their names (docs/pools.md).

    Attributes:
        url_col: The column with the image URL.
        key_col: The column that names a pair instead of its URL.
        text_cols: The columns with texts (or one column's name); their order gives the text
            positions.
        lang_col: The column with the language of a row's texts: of all of them, or a list with one
            for each; before the ``lang`` within texts. It is looked for only where languages count.
        rows_per_unit: About how many rows of a Parquet file make one unit of work (whole row groups
            only); a text file is always one unit.
    """

    url_col: str | None = None
    key_col: str | None = None
    text_cols: tuple[str, ...] = ()
    lang_col: str | None = None
    rows_per_unit: int = 500_000

    def __post_init__(self) -> None:
        # One column may be given as it is: a string would be taken for its letters.
        texts = (self.text_cols,) if isinstance(self.text_cols, str) else self.text_cols
        object.__setattr__(self, "text_cols", tuple(listed("text_cols", texts)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> PoolConfig:
        """From a manifest's plain values."""
        return cls(**{**values, "text_cols": tuple(values["text_cols"])})


@dataclass(frozen=True)
class PoolBatch:
    """Some consecutive rows of a unit.

    ``first_row``: the row number in the unit of the first row. Numbers are the same whichever
    columns are read: rows of a text file that could not be parsed have none, rows of a damaged
    Parquet row group keep theirs.
    ``uids``: ``fixed_size_binary(16)``, n rows; null where a row has neither key nor URL.
    ``texts``: ``large_string``; the texts of all rows one after another, valid UTF-8; null where a
    text is null, undecodable or oversized.
    ``text_offsets``: int64[n + 1] into ``texts``; a text's place in its row is its text position.
    ``langs``: the language of each of ``texts``, ``dictionary<int32, large_string>``, null where it
    is not known; None when it was not asked for.
    ``columns``: the rows' own columns, in the pool's schema; None when only matching was asked for.
    """

    first_row: int
    uids: pa.FixedSizeBinaryArray
    texts: pa.LargeStringArray
    text_offsets: npt.NDArray[np.int64]
    columns: pa.RecordBatch | None
    langs: pa.DictionaryArray | None = None

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.uids)
