"""Commands for metadata: build it from its sources, look at it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from metacurate.cli.options import AsJson, ConfigFile, Options, runs, show, summary_table
from metacurate.cli.root import app
from metacurate.cli.tables import Grid

if TYPE_CHECKING:
    from metacurate.metadata.build import BuildTotals

metadata_app = typer.Typer(help="Build metadata (the entries to match texts with), look at it.")
app.add_typer(metadata_app, name="metadata", no_args_is_help=True)


@metadata_app.command("build")
@runs
def build_command(
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.json",
            help="The JSON file to write; FILE.parquet (with source and score) and the work folder "
            "FILE.build are put beside it.",
        ),
    ],
    wordnet: Annotated[
        str,
        typer.Option(
            help="'wordnet' (3.0, built in), a folder of WordNet files (data.noun, ...), 'nltk', "
            "or 'wn:LEXICON' (wn:oewn:2024)."
        ),
    ] = "wordnet",
    dumps: Annotated[
        list[str] | None,
        typer.Option(
            "--wikipedia",
            metavar="DUMPS",
            help="Wikipedia pages-articles dumps (.xml.bz2, .xml.gz or .xml); a quoted pattern, "
            "or repeat the option. Multistream dumps are read in parallel.",
        ),
    ] = None,
    pageviews: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILES",
            help="Wikimedia page view dumps, hourly or daily (.gz, .bz2); a quoted pattern, or "
            "repeat the option. Views are summed over all files.",
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="Use only this source (wordnet, unigrams, bigrams, titles, or your own: "
            "MODULE:FUNCTION); repeat for several.",
            show_default="all whose inputs are given",
        ),
    ] = None,
    min_count: Annotated[int, typer.Option(min=1, help="Unigrams: least occurrences.")] = 100,
    min_pmi: Annotated[
        float,
        typer.Option(help="Bigrams: least pointwise mutual information (base 2, token counts)."),
    ] = 30.0,
    min_bigram_count: Annotated[int, typer.Option(min=1, help="Bigrams: least occurrences.")] = 1,
    best_bigrams: Annotated[
        int | None,
        typer.Option(
            min=1, help="Bigrams: take this many with the highest PMI instead of --min-pmi."
        ),
    ] = None,
    min_views: Annotated[
        int, typer.Option(min=1, help="Titles: least page views, summed over all files.")
    ] = 70,
    lowercase: Annotated[
        bool,
        typer.Option(
            "--lowercase", help="Lower-case words before counting (matching is case sensitive)."
        ),
    ] = False,
    wiki: Annotated[
        str, typer.Option(help="The wiki's code in page view files and the entries' language.")
    ] = "en",
    *,
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Build metadata from WordNet, Wikipedia dumps and page views by the paper's rules.

    Sources come in the order WordNet synsets, unigrams, bigrams, titles, without repeats. A run
    that was stopped resumes when the same command is run again.

    Example: [bold]metacurate metadata build --wikipedia 'enwiki-*-multistream.xml.bz2'
    --pageviews 'pageviews-*.gz' --out metadata.json[/bold]
    """
    from metacurate.metadata.build import SOURCES, BuildConfig, build_metadata

    settings = BuildConfig(
        wordnet=wordnet,
        dumps=tuple(dumps or ()),
        pageviews=tuple(pageviews or ()),
        sources=tuple(source or SOURCES),
        min_count=min_count,
        min_pmi=min_pmi,
        best_bigrams=best_bigrams,
        min_bigram_count=min_bigram_count,
        min_views=min_views,
        lowercase=lowercase,
        wiki=wiki,
    )
    totals = build_metadata(settings, out, **options)
    for note in totals["notes"]:
        print(f"note: {note}", file=sys.stderr)
    show(totals, _size_table(out, totals), as_json=as_json)


def _size_table(out: str, totals: BuildTotals) -> Grid:
    table = Grid(out, "source", ">found", ">new entries", ">paper")
    for source, sizes in totals["sizes"].items():
        table.add_row(source, *(f"{sizes[k]:,}" for k in ("found", "added", "paper")))
    table.add_row("all", "", f"{totals['entries']:,}", f"{totals['paper_entries']:,}")
    return table


@metadata_app.command("info")
def info_command(
    metadata: Annotated[
        str,
        typer.Argument(
            metavar="M", help="'wordnet' (built in), or a JSON array or Parquet file of entries."
        ),
    ],
    entries: Annotated[
        int, typer.Option(min=0, help="How many of the first and last entries to show.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Check metadata and show its size, fingerprint, sources and some entries.

    Repeated, empty or invalid entries are an error that names them.

    Example: [bold]metacurate metadata info metadata.json[/bold]
    """
    from metacurate.metadata.describe import describe
    from metacurate.metadata.store import load_metadata

    facts = describe(load_metadata(metadata), entries)
    rows = [("entries", f"{facts['entries']:,}"), ("fingerprint", facts["fingerprint"])]
    for column in ("sources", "languages"):
        rows += [(f"{column}: {name}", f"{count:,}") for name, count in facts[column].items()]
    rows += [("first", ", ".join(facts["first"])), ("last", ", ".join(facts["last"]))]
    show(facts, summary_table(metadata, rows), as_json=as_json)
