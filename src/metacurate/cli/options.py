"""Options that several commands share, and how results are shown."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from metacurate.errors import UserError
from metacurate.printable import printable

MAX_SHOWN = 2000  # characters of a value or a message


def _defaults_from_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make a TOML file's values the defaults of the command's options."""
    if path is None:
        return None
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid TOML: {error}") from None
    names = {option: p.name for p in context.command.params for option in p.opts}
    unknown = [key for key in values if f"--{key}" not in names]
    if unknown:
        raise UserError(
            f"{path} sets unknown options: {', '.join(unknown)}; "
            f"known are {', '.join(sorted(name[2:] for name in names if name.startswith('--')))}"
        )
    defaults = {str(names[f"--{key}"]): value for key, value in values.items()}
    context.default_map = {**(context.default_map or {}), **defaults}
    return path


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file with options by their long names (t = 20000, text-col = ['caption']); "
        "options given on the command line win.",
        is_eager=True,
        callback=_defaults_from_file,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Worker processes; all cores if not given.", show_default=False),
]
EngineName = Annotated[
    str, typer.Option("--engine", metavar="local|ray", help="What runs the shards.")
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Ray cluster to run on (or 'auto'); without one Ray starts on this machine.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Redo what the output folder holds with other settings."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on standard output.")
]


def show(result: dict[str, Any], table: RenderableType, *, as_json: bool) -> None:
    """Print a result: as JSON for machines, else as a table.

    The JSON is ASCII: no text from a pool can reach the terminal as a control code.
    """
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        Console().print(table)


def summary_table(title: str, rows: Sequence[tuple[str, str | Text]]) -> Table:
    """A two-column table of names and values.

    Plain strings are shown as they are but for control characters; they are no markup.
    """
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column(justify="left")
    table.add_column(justify="left", overflow="fold")
    for name, value in rows:
        shown = Text(printable(value, MAX_SHOWN)) if isinstance(value, str) else value
        table.add_row(Text(printable(name, MAX_SHOWN)), shown)
    return table
