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


@app.command("export")
def export_command(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A folder of train, of open_clip's layout or of transformers; a file or tag.",
        ),
    ],
    to: Annotated[
        str, typer.Option(metavar="open_clip|transformers", help="Whose files are written.")
    ],
    out: Out,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="open_clip's name of the architecture (file or tag)."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint as open_clip's hub layout or as a CLIPModel of transformers.

    Both can be read again, by eval and export too: so a checkpoint goes there and back.

    Example: [bold]metacurate export model/ --to transformers --out model-hf/[/bold]

    Example, back: [bold]metacurate export model-hf/ --to open_clip --out model-oc/[/bold]
    """
    from metacurate.library import export

    totals = export(checkpoint, out, to=to, model=model, overwrite=overwrite)
    show(totals, summary_table("export", totals_rows(totals)), as_json=as_json)
