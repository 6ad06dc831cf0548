"""Tables on the terminal whose numbers are never broken, however narrow it is."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2  # between columns
NARROW = 12  # what a column of text needs at least


class Grid:
    """Rows under headings; where they do not fit side by side, one block of lines a row.

    Names of columns that begin with ``>`` are of numbers: right-aligned and never broken; with
    ``=``, of text that is never broken.
    """

    def __init__(self, title: str, *columns: str) -> None:
        self._title = title or None
        self._names = [name.lstrip(">=") for name in columns]
        self._right = [name.startswith(">") for name in columns]
        self._whole = [name.startswith((">", "=")) for name in columns]
        self._rows: list[list[Text]] = []

    def add_row(self, *cells: str | Text) -> None:
        """Add a row with a cell a column."""
        self._rows.append([Text(cell) if isinstance(cell, str) else cell for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [self._least_width(column) for column in range(len(self._names))]
        fits = sum(widths) + GAP * (len(widths) - 1) <= options.max_width
        yield self._table(widths) if fits else self._blocks()

    def _least_width(self, column: int) -> int:
        heading = max((len(word) for word in self._names[column].split()), default=0)
        widest = max((row[column].cell_len for row in self._rows), default=0)
        return max(heading, widest if self._whole[column] else min(widest, NARROW))

    def _table(self, widths: list[int]) -> Table:
        table = Table(title=self._title, title_justify="left", box=None, padding=(0, GAP, 0, 0))
        # The last column's gap would be counted too, and cost numbers their last digit.
        table.pad_edge = False
        for name, width, right in zip(self._names, widths, self._right, strict=True):
            table.add_column(
                name, justify="right" if right else "left", overflow="fold", min_width=width
            )
        for row in self._rows:
            table.add_row(*row)
        return table

    def _blocks(self) -> Table:
        table = Table(
            title=self._title, title_justify="left", box=None, padding=(0, GAP, 0, 0),
            show_header=False, pad_edge=False,
        )  # fmt: skip
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")
        for number, row in enumerate(self._rows):
            if number:
                table.add_row()
            for name, cell in zip(self._names, row, strict=True):
                table.add_row(name, cell)
        return table
