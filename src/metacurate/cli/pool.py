"""Commands that make pools: from web archives to images on disk."""

from __future__ import annotations

from typing import Annotated

import typer

from metacurate.cli.root import app

pool_app = typer.Typer(
    name="pool",
    help="Make pools of image-text pairs.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(pool_app)

TextRule = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="A text rule of your own: the reason to drop a text, or None; may be repeated.",
    ),
]
