"""Commands that make pools: from web archives to images on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from metacurate.cli.help import App
from metacurate.cli.options import with_options
from metacurate.cli.root import app

pool_app = App(
    name="pool",
    help="Make pools of image-text pairs.",
    no_args_is_help=True,
)
app.add_typer(pool_app)

_TEXT_OPTIONS: dict[str, tuple[Any, Any]] = {
    "min_length": (
        Annotated[int | None, typer.Option(min=1, help="Drop texts with fewer characters.")],
        None,
    ),
    "max_length": (
        Annotated[int | None, typer.Option(min=1, help="Drop texts with more characters.")],
        None,
    ),
    "min_letters": (
        Annotated[
            float | None,
            typer.Option(
                min=0,
                max=1,
                help="Drop texts with a smaller share of letters in their characters, without "
                "spaces.",
            ),
        ],
        None,
    ),
    "drop_file_names": (
        Annotated[
            bool,
            typer.Option(
                "--drop-file-names", help="Drop texts that are only a file name (IMG_1234.jpg)."
            ),
        ],
        False,
    ),
    "drop_urls": (
        Annotated[bool, typer.Option("--drop-urls", help="Drop texts that are only a URL.")],
        False,
    ),
    "text_rule": (
        Annotated[
            list[str] | None,
            typer.Option(
                metavar="MODULE:FUNCTION",
                help="A text rule of your own: the reason to drop a text, or None; may be "
                "repeated.",
            ),
        ],
        None,
    ),
}


def drops_texts(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that drop texts; it gets those given as ``text_rules``.

    That is a dictionary for ``TextRules``, empty if none is given.
    """
    return with_options(command, "text_rules", _TEXT_OPTIONS, _given_rules)


def _given_rules(text_rule: list[str] | None, **given: Any) -> dict[str, Any]:
    rules = {name: value for name, value in given.items() if value}
    return {**rules, "own": tuple(text_rule)} if text_rule else rules
