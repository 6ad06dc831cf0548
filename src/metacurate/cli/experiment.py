"""The command that compares ways to choose data."""

from __future__ import annotations

from typing import Annotated

import typer

from metacurate.cli.options import AsJson, Overwrite, show
from metacurate.cli.root import app
from metacurate.cli.training import Out, TomlFile


@app.command("experiment")
def experiment_command(
    config: TomlFile,
    out: Out,
    workers: Annotated[
        int, typer.Option(min=1, help="Training runs at a time; on a GPU they share it.")
    ] = 1,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare ways to choose pairs: the same model, budget and evaluation for each arm and seed.

    Writes DIR/results.json, results.md and plots. What is finished is not done again when the same
    command is given again. Paths in the file are relative to the working directory.

    Example: [bold]metacurate experiment --config examples/emoji_experiment/cpu.toml --out
    emoji/results/ --workers 2[/bold]
    """
    from metacurate.training.openclip import open_clip

    open_clip()
    from metacurate.cli.tables import Grid
    from metacurate.experiments.config import load_experiment_config
    from metacurate.experiments.results import table_rows
    from metacurate.experiments.run import experiment

    results = experiment(load_experiment_config(config), out, workers=workers, overwrite=overwrite)
    header, rows = table_rows(results)
    table = Grid("experiment", header[0], *(f">{name}" for name in header[1:]))
    for row in rows:
        table.add_row(*row)
    show(results, table, as_json=as_json)
