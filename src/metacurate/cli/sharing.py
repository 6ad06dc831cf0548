"""The command ``metacurate card``."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from metacurate.cli.options import AsJson, show, summary_table
from metacurate.cli.root import app


@app.command("card")
def card_command(
    run_folder: Annotated[str, typer.Argument(metavar="DIR", help="The output folder of a run.")],
    name: Annotated[
        str | None,
        typer.Option(help="The data set's name.", show_default="Curated image-text pairs"),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Its licence, as the hub names it (cc-by-4.0, other), or a web address.",
        ),
    ] = None,
    languages: Annotated[
        list[str] | None,
        typer.Option(
            "--language",
            metavar="CODE",
            help="A language of the texts (en, zh); repeatable.",
            show_default="those of the metadata, if they have several",
        ),
    ] = None,
    repo: Annotated[
        str | None,
        typer.Option(metavar="USER/NAME", help="Where it will be on Hugging Face's hub."),
    ] = None,
    distribution_only: Annotated[
        bool,
        typer.Option(
            "--distribution-only",
            help="Write DIR/distribution: entries, counts and plots, nothing of the pairs.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a card that was changed by hand.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the dataset card of a run (DIR/README.md, and croissant.json) to share it with.

    Every curate writes one; this adds what it cannot know. Nothing is sent anywhere.

    Example: [bold]metacurate card run/ --name "My pairs" --license cc-by-4.0[/bold]
    """
    from metacurate.runtime.storage import Folder
    from metacurate.sharing.card import write_card
    from metacurate.sharing.config import DEFAULT_NAME

    totals = write_card(
        run_folder,
        name=DEFAULT_NAME if name is None else name,
        license=license,
        languages=languages or (),
        repo=repo,
        distribution_only=distribution_only,
        overwrite=overwrite,
    )
    folder = Folder(run_folder)
    written = {key: folder.address(str(totals[key])) for key in ("readme", "croissant")}
    place = f"{run_folder.rstrip('/')}/distribution" if distribution_only else run_folder
    upload = ["hf", "upload", repo or "USER/NAME", place, ".", "--repo-type", "dataset"]
    for pattern in () if distribution_only else SHARED:
        upload += ["--include", pattern]
    rows = [
        ("entries" if distribution_only else "pairs", f"{totals['rows']:,}"),
        ("card", written["readme"]),
        ("Croissant", written["croissant"]),
        ("to publish", shlex.join(upload)),
    ]
    show({**totals, **written, "upload": upload}, summary_table("Card", rows), as_json=as_json)


SHARED = (
    "README.md", "croissant.json", "curated/*", "metadata.parquet", "datacard.json", "report/*.png",
)  # fmt: skip
"""What is published of a run: not its index, nor the report, which shows texts."""
