"""The command ``metacurate pool dedup``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
from metacurate.cli.pool import drops_texts, pool_app

if TYPE_CHECKING:
    from metacurate.pool.schema import PoolConfig


@pool_app.command("dedup")
@runs
@reads_pool
@drops_texts
def dedup_command(
    pool: PoolInputs,
    out: Annotated[str, typer.Option("--out", "-o", metavar="POOL", help="Output folder.")],
    blocklist: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Drop these: one domain (its subdomains too) or image URL a line.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Keep only these: uids (.npy), keys (.json) or keys and URLs (.txt); a folder of "
            "them, or repeated.",
        ),
    ] = None,
    max_texts: Annotated[
        int, typer.Option(min=0, help="Distinct texts an image keeps at most; 0: all.")
    ] = 1_000,
    dedup_texts: Annotated[
        int | None,
        typer.Option(
            "--dedup-texts",
            metavar="N",
            min=1,
            help="Drop texts that more than N images share (10: as ALIGN did).",
        ),
    ] = None,
    keep_repeats: Annotated[
        bool,
        typer.Option(
            "--keep-repeats",
            help="With --dedup-texts: the first N images (by uid) keep such a text.",
        ),
    ] = False,
    shard_rows: Annotated[
        int, typer.Option(min=1, help="About how many rows make one output shard.")
    ] = 500_000,
    *,
    pool_config: PoolConfig,
    text_rules: dict[str, Any],
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Make one row of all rows with the same image URL (or key); filter texts and domains.

    The row keeps the columns of its first row and the distinct texts of all of them. Exact, over
    the whole pool, in bounded memory. A run that was stopped resumes when the same command is run
    again.

    Example: [bold]metacurate pool dedup pool/ --blocklist bad.txt --dedup-texts 10 --out
    clean/[/bold]
    """
    from metacurate.deduplication.blocklist import Blocklist, read_blocklist
    from metacurate.deduplication.dedup import DedupConfig, dedup
    from metacurate.errors import UserError
    from metacurate.texts.rules import TextRules

    if keep_repeats and dedup_texts is None:
        raise UserError("--keep-repeats needs --dedup-texts N")
    rules = TextRules(**{"max_length": 2**31, **text_rules}) if text_rules else None
    settings = DedupConfig(
        text_rules=rules,
        blocklist=read_blocklist(blocklist) if blocklist else Blocklist(),
        only=tuple(only or ()),
        max_texts=max_texts,
        max_images_per_text=dedup_texts or 0,
        keep_repeats=keep_repeats,
        shard_rows=shard_rows,
    )
    totals = dedup(pool, out, settings, pool_config, **options)
    rows = [
        ("rows read", f"{totals['rows']:,}"),
        ("pairs", f"{totals['pairs']:,}  ({totals['pairs'] / max(totals['rows'], 1):.1%})"),
        *((f"dropped: {name}", f"{n:,}") for name, n in totals["dropped"].items()),
        ("texts read", f"{totals['texts_read']:,}"),
        ("texts", f"{totals['texts']:,}"),
        *((f"texts dropped: {name}", f"{n:,}") for name, n in totals["texts_dropped"].items()),
        *((f"skipped: {name}", f"{n:,}") for name, n in totals["skipped"].items()),
        *((f"bad file: {address}", reason) for address, reason in totals["bad_files"].items()),
        ("pool", f"{out}/pool/ ({totals['shards']:,} shards)"),
    ]
    show({**totals, "out": out}, summary_table("Deduplicated", rows), as_json=as_json)
