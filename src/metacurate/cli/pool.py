"""The ``metacurate pool`` commands: making, cleaning and downloading pools."""

from __future__ import annotations

import typer

from metacurate.cli import app as root

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
root.add_typer(app, name="pool", help="Make, clean and download pools of image-text pairs.")
