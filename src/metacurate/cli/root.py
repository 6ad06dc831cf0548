"""The command itself, with which each room's commands register."""

from __future__ import annotations

from typing import Annotated

import typer

from metacurate.cli.help import App
from metacurate.version import __version__

app = App(
    name="metacurate",
    help="Open, fast, reproducible metadata-curated language-image data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"metacurate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Open, fast, reproducible metadata-curated language-image data."""
    from metacurate.runtime.progress import on_standard_error

    context.with_resource(on_standard_error())
