"""The report command."""

from __future__ import annotations

from typing import Annotated

import typer

from metacurate.cli.numbers import amount
from metacurate.cli.options import AsJson, ReadOptions, reads, show, summary_table
from metacurate.cli.root import app


@app.command("report")
@reads
def report_command(
    run_folder: Annotated[str, typer.Argument(metavar="DIR", help="The output folder of a run.")],
    t: Annotated[
        list[float] | None,
        typer.Option(
            "--t",
            parser=amount,
            metavar="NUMBER",
            help="A further threshold for the cumulative curve; repeatable (inf: none).",
        ),
    ] = None,
    entry: Annotated[
        list[str] | None, typer.Option(help="An entry to show sample pairs of; repeatable.")
    ] = None,
    head: Annotated[int, typer.Option(min=0, help="How many of the most common entries.")] = 50,
    tail: Annotated[int, typer.Option(min=0, help="How many tail entries.")] = 30,
    unmatched: Annotated[
        int, typer.Option(min=0, help="How many of the entries never matched.")
    ] = 60,
    samples: Annotated[int, typer.Option(min=0, help="Sample pairs per entry.")] = 4,
    tars: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="WebDataset shards to take thumbnails from."),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    *,
    options: ReadOptions,
    as_json: AsJson = False,
) -> None:
    """Write DIR/report.html, a page on what a run kept and why, and its plots (DIR/report).

    The page needs no network and no other file. The same command with the same settings resumes a
    pass that was stopped; with other settings it starts over.

    Example: [bold]metacurate report run/ --t 5000 --t 100000 --entry "sea otter" --open[/bold]
    """
    from metacurate.curation.layout import REPORT_FILE
    from metacurate.library import report
    from metacurate.reporting.build import PLOT_FOLDER, ReportConfig
    from metacurate.runtime.storage import Folder, is_local, local_path

    folder = Folder(run_folder)
    config = ReportConfig(tuple(t or ()), tuple(entry or ()), head, tail, unmatched, samples, tars)
    totals = report(run_folder, config, **options)
    page = folder.address(REPORT_FILE)
    rows = [
        ("pool", f"{totals['pairs']:,} pairs"),
        ("matched", f"{totals['pairs_matched']:,} pairs"),
        ("kept", f"{totals['pairs_kept']:,} pairs"),
        ("sample pairs", f"{totals['sample_pairs']:,} ({totals['thumbnails']:,} thumbnails)"),
        ("page", f"{page} ({totals['page_bytes'] / 1e6:.1f} MB)"),
        ("plots", f"{folder.address(PLOT_FOLDER)}/ ({totals['plots']} as SVG and PNG)"),
    ]
    show({**totals, "page": page}, summary_table("Report", rows), as_json=as_json)
    if open_page and is_local(page):
        typer.launch(local_path(page).resolve().as_uri())
