"""The command ``metacurate pool extract``."""

from __future__ import annotations

from typing import Annotated, Any

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
from metacurate.cli.pool import drops_texts, pool_app


@pool_app.command("extract")
@runs
@drops_texts
def extract_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES...",
            help="WAT and WARC files (.wat.gz, .warc.gz; also plain, .zst, .lz4), folders, globs "
            "(local or s3://, gs://, ...), or @FILE with one of these a line.",
            show_default=False,
        ),
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="POOL", help="Output folder.")],
    lang: Annotated[
        list[str] | None,
        typer.Option(help="Keep only texts in this language (en); may be repeated."),
    ] = None,
    identifier: Annotated[
        str,
        typer.Option(
            help="Language identifier: eldc, pycld2, py3langid, lingua, fasttext:MODEL_FILE, "
            "module:factory, or none."
        ),
    ] = "eldc",
    page_language: Annotated[
        str,
        typer.Option(
            help="Identifier for the texts of a page together: texts of one to three words are in "
            "this language, unless they are English (py3langid is best); or none."
        ),
    ] = "none",
    min_lang_score: Annotated[
        float, typer.Option(help="Texts whose language has a lower score are 'und'.")
    ] = 0.0,
    snapshot: Annotated[
        str | None,
        typer.Option(help="The crawl's name.", show_default="as the files say (CC-MAIN-2023-14)"),
    ] = None,
    entities: Annotated[
        str,
        typer.Option(
            help="Character references (&amp;) in WATs: decode, keep, or auto: decode in "
            "files from before September 2019, which have them."
        ),
    ] = "auto",
    official_key: Annotated[
        bool,
        typer.Option(
            "--official-key",
            help="Add the column official_key, by which official MetaCLIP shards name images.",
        ),
    ] = False,
    max_record_mib: Annotated[
        int, typer.Option(min=1, help="Larger records and pages are dropped (MiB).")
    ] = 32,
    *,
    text_rules: dict[str, Any],
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Extract a pool from the web: images with alt, title and caption from WAT or WARC files.

    Writes one Parquet shard a file to POOL/pool: uid, url, texts (source, text, lang), page_url,
    snapshot, warc_file, record_offset. All that is dropped is counted by reason. A run that was
    stopped resumes when the same command is run again.

    Example: [bold]metacurate pool extract crawl/*.wat.gz --lang en --out pool/[/bold]
    """
    from metacurate.commoncrawl.extract import ExtractConfig
    from metacurate.library import extract
    from metacurate.texts.rules import TextRules

    settings = ExtractConfig(
        languages=tuple(sorted(set(lang or ()))),
        identifier=identifier,
        page_language=page_language,
        min_language_score=min_lang_score,
        rules=TextRules(**text_rules),
        snapshot=snapshot,
        max_record_bytes=max_record_mib << 20,
        entities=entities,
        official_key=official_key,
    )
    totals = extract(sources, out, settings, **options)
    show(totals, summary_table("pool extract", totals_rows(totals)), as_json=as_json)
