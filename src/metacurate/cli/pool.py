"""Commands that make pools: from web archives to images on disk."""

from __future__ import annotations

import typer

from metacurate.cli.root import app

pool_app = typer.Typer(
    name="pool",
    help="Make pools of image-text pairs.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(pool_app)
