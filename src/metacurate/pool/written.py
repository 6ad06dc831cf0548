"""What functions that write a pool return: its totals, and the pool itself as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

import pyarrow as pa

from metacurate.printable import html_table
from metacurate.runtime.arrowfiles import read_parquet
from metacurate.runtime.made import open_made
from metacurate.runtime.storage import Folder, pinned

POOL_FOLDER = "pool"
Totals = TypeVar("Totals", bound=Mapping[str, Any])


def read_written(folder: Folder) -> pa.Table:
    """The pool in a run's folder: all shards, in their order. UserError if one is damaged."""
    tables = []
    for name in folder.list(POOL_FOLDER):
        if name.endswith(".parquet"):
            with open_made(folder, name) as file:
                tables.append(read_parquet(file))
    return pa.concat_tables(tables)


@dataclass(frozen=True, eq=False)
class WrittenPool(Generic[Totals]):
    """A pool that was written: the totals of the command, and its rows.

    ``pool["rows"]`` is ``pool.totals["rows"]``. It exports its rows by Arrow's interface: it can be
    given to ``pyarrow.table``, ``polars.DataFrame``, ``mc.curate`` and all that take a table.

    Attributes:
        totals: What the command says of it (``DedupTotals``, ``LanguageTotals``).
        out: The output folder; None if nothing was kept on disk.
    """

    totals: Totals
    out: str | None
    _table: pa.Table | None = field(default=None, repr=False)
    _place: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.out is not None:
            object.__setattr__(self, "_place", pinned(self.out))

    def to_arrow(self) -> pa.Table:
        """The rows: ``uid``, ``url``, ``texts``, then the pool's other columns; all in memory."""
        return self._table if self._place is None else read_written(Folder(self._place))

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The rows, for other libraries."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __getitem__(self, name: str) -> Any:
        return cast(Mapping[str, Any], self.totals)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.totals)

    def __contains__(self, name: object) -> bool:
        return name in self.totals

    def __repr__(self) -> str:
        """The numbers of the totals, and the folder."""
        told = [f"{name}={n:,}" for name, n in self.totals.items() if isinstance(n, int) and n]
        told += [] if self.out is None else [f"out={self.out!r}"]
        return f"WrittenPool({', '.join(told)})"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        where = "" if self.out is None else f" in {self.out}"
        return html_table(f"Pool{where}", self._told())

    def _told(self) -> Iterator[tuple[str, str]]:
        for name, value in self.totals.items():
            label = name.replace("_", " ")
            if isinstance(value, Mapping):
                for part, number in value.items():
                    yield f"{label}: {part}", _number(number)
            else:
                yield label, _number(value)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)
