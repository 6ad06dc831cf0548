"""Options that several commands share, and how results are shown."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_type_hints

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from metacurate.errors import UserError
from metacurate.printable import printable

if TYPE_CHECKING:
    from metacurate.pool.schema import PoolConfig
    from metacurate.runtime.run import Run

# Of the command that runs.
_CONTEXT: ContextVar[typer.Context] = ContextVar("_CONTEXT")
MAX_SHOWN = 2000  # characters of a value or a message


def _defaults_from_file(context: typer.Context, address: str | None) -> str | None:
    """Make a TOML file's values the defaults of the command's options."""
    if address is None:
        return None
    from metacurate.runtime.inputs import read_toml

    values = read_toml(address)
    parameters = {option: p for p in context.command.params for option in p.opts}
    unknown = [key for key in values if f"--{key}" not in parameters]
    if unknown:
        known = ", ".join(sorted(name[2:] for name in parameters if name.startswith("--")))
        raise UserError(f"{address} sets unknown options: {', '.join(unknown)}; known are {known}")
    defaults = {}
    for key, value in values.items():
        parameter = parameters[f"--{key}"]
        is_flag = getattr(parameter, "is_flag", False)
        if is_flag != isinstance(value, bool):
            wanted = "true or false" if is_flag else "a value"
            raise UserError(f"{address}: {key} takes {wanted}, not {json.dumps(value)}")
        many = getattr(parameter, "multiple", False) and not isinstance(value, list)
        defaults[str(parameter.name)] = [value] if many else value
    context.default_map = {**(context.default_map or {}), **defaults}
    return address


def only_given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of which one excludes the others: those of the command line win over a file's."""
    found = {name: _CONTEXT.get().get_parameter_source(name) for name in values}
    sources = {name: source.name if source else "" for name, source in found.items()}
    if "COMMANDLINE" not in sources.values():
        return dict(values)
    return {n: None if sources[n] == "DEFAULT_MAP" else value for n, value in values.items()}


ConfigFile = Annotated[
    str | None,
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
    typer.Option(min=1, help="Shards at a time; all cores if not given.", show_default=False),
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
    typer.Option("--overwrite", help="Redo what the output folder holds, with these settings."),
]
LogTo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER",
        help="Log numbers to wandb:PROJECT or mlflow:EXPERIMENT (extras wandb, mlflow); "
        "repeatable.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on standard output.")
]


PoolInputs = Annotated[
    list[str],
    typer.Argument(
        metavar="POOL...",
        help="Files, folders, patterns or @LIST (local or s3://, gs://, ...): Parquet, CSV, TSV, "
        "JSON, Arrow; text formats also compressed.",
        show_default=False,
    ),
]
UrlCol = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="Column with the image URL.", show_default="found by its name"
    ),
]
TextCol = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN",
        help="Column with a text; repeat for several texts a pair.",
        show_default="found by name",
    ),
]
KeyCol = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column that names a pair instead of its URL (DataComp's uid, an id).",
    ),
]
LangCol = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column with the language of a row's texts, or a list of one for each.",
        show_default="within texts, else found by its name",
    ),
]
RowsPerUnit = Annotated[
    int, typer.Option(min=1, help="About how many rows of a Parquet file make one unit of work.")
]


class ReadOptions(TypedDict):
    """What ``reads`` hands to a command; the words of ``runtime.run.ReadOptions``."""

    engine: str
    address: str | None
    workers: int | None
    show_progress: bool


class Options(ReadOptions):
    """What ``runs`` hands to a command; the words of ``runtime.run.RunOptions``."""

    overwrite: bool
    log_to: list[str]


_RUN_OPTIONS: dict[str, tuple[Any, Any]] = {
    "workers": (Workers, None),
    "engine": (EngineName, "local"),
    "address": (Address, None),
    "overwrite": (Overwrite, False),
    "log_to": (LogTo, None),
}
_OF_WRITING = ("overwrite", "log_to")


_POOL_OPTIONS: dict[str, tuple[Any, Any]] = {
    "url_col": (UrlCol, None),
    "text_col": (TextCol, None),
    "key_col": (KeyCol, None),
    "lang_col": (LangCol, None),
    "rows_per_unit": (RowsPerUnit, 500_000),
}


def runs(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of every run; it gets them as its argument ``options``."""
    return with_options(command, "options", _RUN_OPTIONS, _run_options)


def reads(command: Callable[..., None]) -> Callable[..., None]:
    """As ``runs``, for a command that only reads a run: without those of writing one."""
    wanted = {name: option for name, option in _RUN_OPTIONS.items() if name not in _OF_WRITING}
    return with_options(command, "options", wanted, _run_options)


def reads_pool(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say how a pool is read, as its argument ``pool_config``."""
    return with_options(command, "pool_config", _POOL_OPTIONS, _pool_config)


def _run_options(**given: Any) -> dict[str, Any]:
    if "log_to" in given:
        given["log_to"] = given["log_to"] or []
    return {**given, "show_progress": True}


def _pool_config(
    url_col: str | None,
    text_col: list[str] | None,
    key_col: str | None,
    lang_col: str | None,
    rows_per_unit: int,
) -> PoolConfig:
    from metacurate.pool.schema import PoolConfig

    return PoolConfig(url_col, key_col, tuple(text_col or ()), lang_col, rows_per_unit)


# What the decorators make: no options themselves, and their types may not be imported yet.
_MADE = ("options", "pool_config", "text_rules")


def with_options(
    command: Callable[..., None],
    argument: str,
    options: Mapping[str, tuple[Any, Any]],
    make: Callable[..., Any],
) -> Callable[..., None]:
    """The command with options in the place of an argument, which ``make`` makes of them."""
    signature = inspect.signature(command)
    for name in _MADE:
        command.__annotations__.pop(name, None)
    hints = get_type_hints(command, include_extras=True)
    own = [
        p.replace(annotation=hints.get(p.name, p.annotation), kind=p.KEYWORD_ONLY)
        for p in signature.parameters.values()
        if p.name not in (argument, "_context")
    ]
    # Before --json and --config, which come last everywhere.
    place = next((i for i, p in enumerate(own) if p.name in ("as_json", "config")), len(own))
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in options.items()
    ]

    @wraps(command)
    def with_given(_context: typer.Context, **given: Any) -> None:
        _CONTEXT.set(_context)
        if "_context" in signature.parameters:
            given["_context"] = _context
        made = make(**{name: given.pop(name) for name in options})
        command(**given, **{argument: made})

    context = inspect.Parameter(
        "_context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context
    )
    parameters = [context, *own[:place], *added, *own[place:]]
    with_given.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_given.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_given


@contextmanager
def open_run(
    out: str,
    *,
    inputs: Sequence[str] = (),
    preload: str | None = None,
    existing: bool = False,
    compiled: bool = False,
    **options: Any,
) -> Iterator[Run]:
    """``runtime.run.open_run``, imported late: the engine starts its processes meanwhile."""
    from metacurate.runtime import run

    with run.open_run(
        out, inputs=inputs, preload=preload, existing=existing, compiled=compiled, **options
    ) as opened:
        yield opened


def show(result: Mapping[str, Any], table: RenderableType, *, as_json: bool) -> None:
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


def totals_rows(totals: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A stage's totals as rows of a table: numbers, and named numbers one a row."""
    rows = []
    for name, value in totals.items():
        label = name.replace("_", " ")
        if isinstance(value, Mapping):
            rows += [(f"{label}: {key}", _shown(number)) for key, number in value.items()]
        else:
            rows.append((label, _shown(value)))
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
