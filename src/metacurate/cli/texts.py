"""The command ``metacurate pool language``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from metacurate.cli.options import (
    AsJson,
    ConfigFile,
    Options,
    PoolInputs,
    reads_pool,
    runs,
    show,
    summary_table,
)
from metacurate.cli.pool import pool_app

if TYPE_CHECKING:
    from metacurate.pool.schema import PoolConfig

SHOWN_LANGUAGES = 20


@pool_app.command("language")
@runs
@reads_pool
def language_command(
    pool: PoolInputs,
    out: Annotated[str, typer.Option("--out", "-o", metavar="POOL", help="Output folder.")],
    identifier: Annotated[
        str,
        typer.Option(
            help="Language identifier: pycld2, py3langid, eldc, lingua, fasttext:MODEL_FILE or "
            "module:factory."
        ),
    ] = "pycld2",
    min_lang_score: Annotated[
        float, typer.Option(help="Texts whose language has a lower score (0 to 1) are 'und'.")
    ] = 0.0,
    every: Annotated[
        bool, typer.Option("--all", help="Identify the texts that have a language too.")
    ] = False,
    *,
    pool_config: PoolConfig,
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Find the language of each text that has none; writes the pool with it to POOL/pool.

    A row has uid, url, texts (source, text, lang) and its other columns. A run that was stopped
    resumes when the same command is run again.

    Example: [bold]metacurate pool language pool/ --out pool-with-languages/[/bold]
    """
    from metacurate.pool.identify import LanguageConfig, identify_languages

    settings = LanguageConfig(identifier, min_lang_score, every)
    totals = identify_languages(pool, out, settings, pool_config, **options)
    languages = list(totals["languages"].items())
    more = sum(number for _, number in languages[SHOWN_LANGUAGES:])
    rows = [
        *((name, f"{totals[name]:,}") for name in ("rows", "texts", "identified")),
        ("had a language", f"{totals['kept']:,}"),
        ("undetermined", f"{totals['undetermined']:,}"),
        *((f"texts in {name}", f"{number:,}") for name, number in languages[:SHOWN_LANGUAGES]),
        *([("texts in other languages", f"{more:,}")] if more else []),
        *((f"skipped: {name}", f"{n:,}") for name, n in totals["skipped"].items()),
        *((f"bad file: {address}", reason) for address, reason in totals["bad_files"].items()),
        ("pool", f"{out}/pool/"),
    ]
    show({**totals, "out": out}, summary_table("Languages", rows), as_json=as_json)
