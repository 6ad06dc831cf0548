"""Commands that use what was curated: train, eval and experiment (extra ``train``)."""

from __future__ import annotations

from typing import Annotated

import typer

from metacurate.cli.options import AsJson, Overwrite, show, summary_table, totals_rows
from metacurate.cli.root import app
from metacurate.errors import Stopped

TomlFile = Annotated[
    str, typer.Option("--config", "-c", metavar="FILE", help="TOML file; see docs/training.md.")
]
Out = Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Output folder.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads a process; torch's choice if not given."),
]


@app.command("train")
def train_command(
    config: TomlFile,
    out: Out,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a CLIP model on curated pairs at a fixed budget of seen pairs.

    A run that was stopped resumes from its newest checkpoint when the same command is run again.
    The weights in DIR/final.pt load in open_clip.

    Example, one process: [bold]metacurate train --config vit-b-32.toml --out model/[/bold]

    Example, eight GPUs: [bold]torchrun --nproc-per-node 8 -m metacurate train --config
    vit-b-32.toml --out model/[/bold]
    """
    from metacurate.training.openclip import open_clip

    open_clip()
    import os

    from metacurate.training.config import load_train_config
    from metacurate.training.trainer import train

    first = os.environ.get("RANK", "0") == "0"
    try:
        totals = train(load_train_config(config), out, overwrite=overwrite)
    except Stopped as stop:
        if first:
            raise
        raise typer.Exit(128 + stop.number) from None  # the first rank says it for all
    if first:
        show(totals, summary_table("train", totals_rows(totals)), as_json=as_json)
