"""Commands for metadata: build it from its sources, look at it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from metacurate.cli.help import App
from metacurate.cli.options import AsJson, ConfigFile, Options, runs, show, summary_table
from metacurate.cli.root import app
from metacurate.cli.tables import Grid

if TYPE_CHECKING:
    from metacurate.metadata.build import BuildTotals

metadata_app = App(help="Build metadata (the entries to match texts with), look at it.")
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
    wiki: Annotated[
        str,
        typer.Option(
            help="The Wikipedia's code (en, zh, zh_yue): of page view files, of the language's "
            "rules, and written as the entries' language."
        ),
    ] = "en",
    wordnet: Annotated[
        str | None,
        typer.Option(
            metavar="WORDNET",
            help="English: 'wordnet' (3.0, built in, the default), a folder of WordNet files "
            "(data.noun, ...), 'nltk', or 'wn:LEXICON' (wn:oewn:2024). Other languages: a .tab "
            "file of Open Multilingual WordNet, an .xml file of WN-LMF, a folder of these or of "
            "wn.db, or 'wn:LEXICON'.",
            show_default=False,
        ),
    ] = None,
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
            help="Use only this source (numbers, wordnet, unigrams, bigrams, titles, or your own: "
            "MODULE:FUNCTION); repeat for several.",
            show_default="all whose inputs are given",
        ),
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            metavar="v1|worldwide",
            help="How words are found, and which limits the options below have: MetaCLIP's, or "
            "Meta CLIP 2's.",
            show_default="v1 for en, worldwide for others",
        ),
    ] = None,
    segmenter: Annotated[
        str | None,
        typer.Option(
            help="What finds words in a language without spaces: icu, mecab (ja), jieba (zh), "
            "pythainlp (th), laonlp (lo), khmer-nltk (km), none, or your own: MODULE:FACTORY.",
            show_default="icu for bo, dz, ja, ryu, km, lo, my, th, zh; none for others",
        ),
    ] = None,
    min_count: Annotated[
        int | None,
        typer.Option(min=1, help="Unigrams: least occurrences.", show_default="100; worldwide: 1"),
    ] = None,
    max_unigrams: Annotated[
        int | None,
        typer.Option(
            min=1, help="Unigrams: take at most so many.", show_default="all; worldwide: 251465"
        ),
    ] = None,
    unigram_share: Annotated[
        float | None,
        typer.Option(
            help="Unigrams: take at most this share of all distinct words.",
            show_default="all; worldwide: 0.1",
        ),
    ] = None,
    min_pmi: Annotated[
        float | None,
        typer.Option(
            help="Bigrams: least pointwise mutual information (base 2, token counts).",
            show_default="30; worldwide: none",
        ),
    ] = None,
    min_bigram_count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Bigrams: least occurrences.",
            show_default="1; worldwide: those of the rarest unigram taken",
        ),
    ] = None,
    best_bigrams: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Bigrams: take at most this many, with the highest PMI (and no least PMI that is "
            "not given).",
            show_default="all; worldwide: 100646",
        ),
    ] = None,
    bigram_share: Annotated[
        float | None,
        typer.Option(
            help="Bigrams: take at most this share of the number of unigrams taken.",
            show_default="all; worldwide: 0.4",
        ),
    ] = None,
    min_views: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Titles: least page views, summed over all files.",
            show_default="70; worldwide: 1",
        ),
    ] = None,
    max_titles: Annotated[
        int | None,
        typer.Option(
            min=1, help="Titles: take at most so many.", show_default="all; worldwide: 61235"
        ),
    ] = None,
    title_share: Annotated[
        float | None,
        typer.Option(
            help="Titles: take at most this share of all distinct titles.",
            show_default="all; worldwide: 0.76",
        ),
    ] = None,
    title_rule: Annotated[
        str,
        typer.Option(
            metavar="articles|official",
            help="Titles: articles of the dump with the views of all sites and redirects, or as "
            "MetaCLIP's own script counts: the desktop site alone, titles as they were asked for, "
            "without colon, hours with at least 50 views.",
        ),
    ] = "articles",
    min_hourly_views: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Titles: only hours with at least so many views of a title count.",
            show_default="1; official: 50",
        ),
    ] = None,
    max_entries: Annotated[
        int | None,
        typer.Option(min=1, help="Keep at most so many entries, the first.", show_default="all"),
    ] = None,
    lowercase: Annotated[
        bool,
        typer.Option(
            "--lowercase", help="Lower-case words before counting (matching is case sensitive)."
        ),
    ] = False,
    *,
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Build metadata from WordNet, Wikipedia dumps and page views by the papers' rules.

    Sources come in the order numbers, WordNet, unigrams, bigrams, titles, without repeats. A run
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
        rules=rules,
        min_count=min_count,
        max_unigrams=max_unigrams,
        unigram_share=unigram_share,
        min_pmi=min_pmi,
        min_bigram_count=min_bigram_count,
        best_bigrams=best_bigrams,
        bigram_share=bigram_share,
        min_views=min_views,
        max_titles=max_titles,
        title_share=title_share,
        title_rule=title_rule,
        min_hourly_views=min_hourly_views,
        max_entries=max_entries,
        lowercase=lowercase,
        wiki=wiki,
        segmenter=segmenter,
    )
    totals = build_metadata(settings, out, **options)
    for note in totals["notes"]:
        print(f"note: {note}", file=sys.stderr)
    show(totals, _size_table(out, totals), as_json=as_json)


def _size_table(out: str, totals: BuildTotals) -> Grid:
    english = totals["rules"] == "v1"
    table = Grid(out, "source", ">found", ">new entries", ">paper" if english else ">most")
    for source, sizes in totals["sizes"].items():
        most = sizes["paper" if english else "limit"]
        shown = "" if most is None else f"{most:,}"
        table.add_row(source, f"{sizes['found']:,}", f"{sizes['added']:,}", shown)
    total = f"{totals['paper_entries']:,}" if english else ""
    table.add_row("all", "", f"{totals['entries']:,}", total)
    return table


@metadata_app.command("merge")
def merge_command(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES_OR_FOLDERS",
            help="Metadata of one language or several: JSON arrays, {entry: source} objects, "
            "Parquet, or folders of these. The language is in Parquet's column lang, or the "
            "file's name (zh_yue.json), or said before it (en=metadata.json).",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="A .parquet file for all languages, or a folder for a file a language.",
        ),
    ],
    language_map: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="JSON {label: language}: changes to the shipped map of identifiers' labels. "
            "Languages that no label maps to become 'other'.",
        ),
    ] = None,
    one_list: Annotated[
        bool,
        typer.Option(
            "--one-list", help="One list without languages, in which an entry is there once."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Join metadata of languages and of the groups they are in (zh_yue and zh_classical are zh).

    Entries of a language are put together in the order of the files, without repeats.

    Example: [bold]metacurate metadata merge en=metadata.json worldwide/ --out all.parquet[/bold]
    """
    from metacurate.metadata.merge import merge_metadata

    totals = merge_metadata(inputs, out, language_map=language_map, one_list=one_list)
    table = Grid(out, "language", ">entries")
    for language, entries in totals["languages"].items():
        table.add_row(language, f"{entries:,}")
    table.add_row("all", f"{totals['entries']:,}")
    if totals["other"]:
        known = ", ".join(totals["other"])
        print(f"note: no identifier's label maps to {known}: they are in 'other'", file=sys.stderr)
    show(totals, table, as_json=as_json)


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
