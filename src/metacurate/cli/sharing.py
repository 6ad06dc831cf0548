"""The command ``metacurate card``."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

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
    push: Annotated[
        bool,
        typer.Option("--push", help="Upload what is for others to --repo (extra hf)."),
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="With --push: a new data set is private.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="With --push: list what would be sent, and send nothing."),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a card that was changed by hand, or what another card there describes.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the dataset card of a run (DIR/README.md, and croissant.json) to share it with.

    Every curate writes one; this adds what it cannot know. Nothing is sent anywhere without --push:
    then card, pairs, entries, plots and the figures are, but neither the index nor the report.

    Example: [bold]metacurate card run/ --name "My pairs" --license cc-by-4.0[/bold]
    """
    from metacurate.errors import UserError
    from metacurate.runtime.storage import Folder
    from metacurate.sharing.card import is_changed_by_hand, write_card
    from metacurate.sharing.push import push as send

    if (dry_run or private) and not push:
        raise UserError(f"--{'dry-run' if dry_run else 'private'} needs --push")
    folder = Folder(run_folder)
    said = bool(name or license or languages)
    found: dict[str, Any] = {}
    rows: list[tuple[str, str]] = []
    # A card that was changed by hand is sent as it is, unless something new is said.
    if not push or said or not is_changed_by_hand(folder, distribution_only=distribution_only):
        totals = write_card(
            run_folder,
            name=name,
            license=license,
            languages=languages or (),
            repo=repo,
            distribution_only=distribution_only,
            overwrite=overwrite,
        )
        written = {key: folder.address(str(totals[key])) for key in ("readme", "croissant")}
        found = {**totals, **written}
        rows = [
            ("entries" if distribution_only else "pairs", f"{totals['rows']:,}"),
            ("card", written["readme"]),
            ("Croissant", written["croissant"]),
        ]
    if push:
        sent = send(
            run_folder, repo, distribution_only=distribution_only, private=private,
            dry_run=dry_run, overwrite=overwrite,
        )  # fmt: skip
        found["push"] = sent
        rows += [(f"to {sent['repo']}", f"{n}  ({size:,} bytes)")
                 for n, size in sent["files"].items()]  # fmt: skip
        rows += [("removed there", name) for name in sent["removed"]]
        rows.append(("sent", sent["url"] or "nothing (--dry-run)"))
    else:
        words = ["metacurate", "card", run_folder, "--repo", repo or "USER/NAME", "--push"]
        words += ["--distribution-only"] if distribution_only else []
        rows.append(("to publish", shlex.join(words)))
    show(found, summary_table("Card", rows), as_json=as_json)
