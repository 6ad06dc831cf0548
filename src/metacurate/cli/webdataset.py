"""The commands ``metacurate pool ingest``, ``pool reshard`` and ``pool uids``."""

from __future__ import annotations

from typing import Annotated

import typer

from metacurate.cli.options import (
    AsJson,
    ConfigFile,
    Options,
    runs,
    show,
    summary_table,
    totals_rows,
)
from metacurate.cli.pool import pool_app

Curated = Annotated[
    list[str],
    typer.Argument(
        metavar="CURATED...",
        help="Output folders of this program's commands, or files, folders or patterns of any pool "
        "format.",
        show_default=False,
    ),
]


@pool_app.command("ingest")
@runs
def ingest_command(
    tars: Annotated[
        str,
        typer.Argument(
            metavar="TARS",
            help="Folder of WebDataset shards (.tar, .tar.gz, .tgz), also in sub-folders.",
            show_default=False,
        ),
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="POOL", help="Output folder.")],
    *,
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Make a pool of WebDataset tars (img2dataset, DataComp), without copying the images.

    A row has the sample's uid, URL and texts, and where its files are in the tar: after curation,
    'pool reshard' copies the kept samples and 'pool uids' lists their uids.

    Example: [bold]metacurate pool ingest tars/ --out pool/[/bold]
    """
    from metacurate.webdataset.ingest import ingest

    totals = ingest(tars, out, **options)
    result = {**totals, "out": f"{out}/pool/"}
    show(result, summary_table("Ingested", totals_rows(result)), as_json=as_json)


@pool_app.command("reshard")
@runs
def reshard_command(
    curated: Curated,
    tars: Annotated[
        str, typer.Option(metavar="TARS", help="The folder of tars that was ingested.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="DIR", help="Folder for the new tars.")
    ],
    samples_per_tar: Annotated[
        int,
        typer.Option(min=1, help="Join consecutive tars until they hold this many kept samples."),
    ] = 10_000,
    *,
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Copy the samples that a curated pool keeps into new WebDataset tars, byte for byte.

    Of texts, a sample has just those that curation kept: its JSON is rewritten.

    Example: [bold]metacurate pool reshard curated/ --tars tars/ --out kept/[/bold]
    """
    from metacurate.webdataset.reshard import reshard

    totals = reshard(curated, tars, out, samples_per_tar=samples_per_tar, **options)
    result = {**totals, "out": out}
    show(result, summary_table("Resharded", totals_rows(result)), as_json=as_json)


@pool_app.command("uids")
@runs
def uids_command(
    curated: Curated,
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE.npy", help="Output file.")],
    *,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Write the sorted uids of a pool as DataComp's resharder takes them (.npy of dtype u8,u8).

    Example: [bold]metacurate pool uids curated/ --out uids.npy[/bold]
    """
    from metacurate.webdataset.uid_list import write_uid_list

    totals = write_uid_list(curated, out, **options)
    result = {**totals, "out": out}
    show(result, summary_table("Uids", totals_rows(result)), as_json=as_json)
