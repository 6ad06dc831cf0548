"""Commands around images: pool download, duplicates, filter and survival."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

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

TOO_FEW_IMAGES = 3

if TYPE_CHECKING:
    from metacurate.images.download import DownloadTotals

Tars = Annotated[
    str, typer.Argument(metavar="TARS", help="Folder of tar shards.", show_default=False)
]
Out = Annotated[str, typer.Option("--out", "-o", metavar="TARS", help="Output folder.")]


@pool_app.command()
@runs
def download(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CURATED",
            help="A curated folder, or a file, folder or pattern of any pool format with URLs.",
            show_default=False,
        ),
    ],
    out: Out,
    url_col: Annotated[
        str | None, typer.Option(help="Column with the image URL.", show_default="by its name")
    ] = None,
    text_col: Annotated[
        list[str] | None,
        typer.Option(
            help="Column with the text; repeat if curation had several, in the same order.",
            show_default="by its name",
        ),
    ] = None,
    sha256_col: Annotated[
        str | None,
        typer.Option(
            help="Column with the expected SHA-256 of the original bytes; others are refused.",
            show_default="none",
        ),
    ] = None,
    resize: Annotated[
        str,
        typer.Option(
            help="none, keep_ratio (shorter side), keep_ratio_largest (longer side), center_crop "
            "or border (padded with white to a square)."
        ),
    ] = "keep_ratio",
    image_size: Annotated[int, typer.Option(help="Side in pixels to resize to.")] = 512,
    upscale: Annotated[bool, typer.Option("--upscale", help="Enlarge smaller images too.")] = False,
    quality: Annotated[int, typer.Option(help="JPEG quality.")] = 95,
    min_size: Annotated[
        int, typer.Option(help="Drop images whose shorter side is below this.")
    ] = 0,
    max_aspect: Annotated[
        float, typer.Option(help="Drop images more elongated than this; 0: keep all.")
    ] = 0.0,
    max_pixels: Annotated[
        int, typer.Option(help="Never decode an image with more pixels.")
    ] = 50_000_000,
    accept_truncated: Annotated[
        bool,
        typer.Option("--accept-truncated", help="Keep what there is of images that are cut off."),
    ] = False,
    max_bytes: Annotated[int, typer.Option(help="Never read more of an answer.")] = 20_971_520,
    samples_per_shard: Annotated[int, typer.Option(help="URLs in a shard.")] = 10_000,
    sample: Annotated[
        int,
        typer.Option(help="Download only this many rows, spread evenly over all; 0: all rows."),
    ] = 0,
    sample_offset: Annotated[
        float, typer.Option(help="Which even sample: a number from 0 to below 1.")
    ] = 0.5,
    concurrency: Annotated[
        int, typer.Option(help="Requests at a time; on a cluster, for each shard under way.")
    ] = 128,
    per_host: Annotated[int, typer.Option(help="Of these, to one host.")] = 4,
    host_delay: Annotated[
        float, typer.Option(help="Seconds between the starts of requests to one host.")
    ] = 0.0,
    connect_timeout: Annotated[float, typer.Option(help="Seconds to connect.")] = 10.0,
    timeout: Annotated[float, typer.Option(help="Seconds for a request, to its last byte.")] = 30.0,
    retries: Annotated[
        int, typer.Option(min=0, help="Further attempts after failures that may pass.")
    ] = 2,
    backoff: Annotated[
        float, typer.Option(help="Seconds before the first further attempt; then doubled.")
    ] = 1.0,
    max_wait: Annotated[
        float, typer.Option(help="Give up a URL whose Retry-After is over this many seconds.")
    ] = 60.0,
    max_redirects: Annotated[int, typer.Option(min=0, help="Redirects to follow.")] = 5,
    user_agent: Annotated[
        str | None,
        typer.Option(help="User-Agent; say who you are.", show_default="metacurate/VERSION"),
    ] = None,
    robots_directives: Annotated[
        str,
        typer.Option(
            help="X-Robots-Tag values that forbid the use, with commas between; '' for none."
        ),
    ] = "noai,noimageai,noindex,noimageindex",
    allow_network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR",
            help="A private network to connect to as well (10.1.0.0/16); repeat for several.",
        ),
    ] = None,
    min_success: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of the URLs that must give an image; else the exit code is 3.",
            show_default="one image",
        ),
    ] = None,
    *,
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Download the images of a curated set into WebDataset tar shards.

    Each shard is NNNNN.tar (KEY.jpg, KEY.txt, KEY.json), NNNNN.parquet (all rows, with the reason
    of each failure) and NNNNN_stats.json, as img2dataset makes them. Only public addresses are
    connected to. The same command again resumes; docs/images.md explains reasons and limits.

    Example: metacurate pool download curated/ --out tars --min-size 64 --max-aspect 3
    """
    from metacurate.images import download as stage
    from metacurate.images.fetch import FetchConfig
    from metacurate.images.process import ImageConfig
    from metacurate.images.urltable import ColumnNames

    directives = tuple(word.strip().lower() for word in robots_directives.split(","))
    fetch = FetchConfig(
        concurrency=concurrency,
        per_host=per_host,
        host_delay=host_delay,
        connect_timeout=connect_timeout,
        timeout=timeout,
        retries=retries,
        backoff=backoff,
        max_wait=max_wait,
        max_bytes=max_bytes,
        max_redirects=max_redirects,
        user_agent=user_agent or FetchConfig.user_agent,
        robots_directives=tuple(word for word in directives if word),
        allow_networks=tuple(allow_network or ()),
    )
    images = ImageConfig(
        resize, image_size, upscale, quality, min_size, max_aspect, max_pixels, accept_truncated
    )
    settings = stage.DownloadConfig(
        columns=ColumnNames(url_col, tuple(text_col or ()), sha256_col),
        images=images,
        fetch=fetch,
        samples_per_shard=samples_per_shard,
        sample=sample,
        sample_offset=sample_offset,
    )
    totals = stage.download(source, out, settings, **options)
    show(totals, summary_table(f"Images in {out}", totals_rows(totals)), as_json=as_json)
    _require_success(totals, min_success)


def _require_success(totals: DownloadTotals, share: float | None) -> None:
    """Warn, and end with an exit code of its own, if too few URLs gave an image."""
    count, successes = totals["count"], totals["successes"]
    wanted = min(1, count) if share is None else share * count
    if successes >= wanted:
        return
    failures = {k: n for k, n in totals["status_dict"].items() if k != "success"}
    reason, times = max(failures.items(), key=lambda item: item[1])
    print(
        f"metacurate: warning: {successes:,} of {count:,} URLs gave an image "
        f"(most often: {reason}, {times:,} times); is the network reachable?",
        file=sys.stderr,
    )
    raise typer.Exit(TOO_FEW_IMAGES)


@pool_app.command()
@runs
def duplicates(
    tars: Tars,
    max_distance: Annotated[
        int,
        typer.Option(help="Differing bits of 64 up to which two hashes are of one picture; 0-5."),
    ] = 3,
    *,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Mark duplicate images, exact and perceptual, across all shards of a folder.

    Writes duplicates/NNNNN.parquet into the folder: for each image the key of the first one with
    the same bytes, and of the first one that looks the same. pool filter can drop them.

    Example: metacurate pool duplicates tars
    """
    from metacurate.images.duplicates import mark_duplicates

    totals = mark_duplicates(tars, max_distance=max_distance, **options)
    show(totals, summary_table(f"Duplicates in {tars}", totals_rows(totals)), as_json=as_json)


@pool_app.command(name="filter")
@runs
def filter_(
    tars: Tars,
    out: Out,
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            help="unsafe, faces, clip-score:MODEL (a folder of metacurate train, or "
            "ARCHITECTURE@CHECKPOINT), an entry point of metacurate.scorers, or MODULE:FUNCTION; "
            "repeat for several."
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="What an image must meet to stay, such as 'unsafe<0.5'; repeat for several.",
        ),
    ] = None,
    blur: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Blur these boxes in the images: face_boxes of scorer faces."
        ),
    ] = None,
    drop_duplicates: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="exact, or perceptual (both kinds); needs pool duplicates before."
        ),
    ] = None,
    quality: Annotated[int, typer.Option(help="JPEG quality of blurred images.")] = 95,
    gpus_per_task: Annotated[
        float,
        typer.Option(
            help="GPUs of each task on Ray, for scorers that use them; 0.5: two tasks share one."
        ),
    ] = 0.0,
    *,
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Score images and drop or blur some: new tar shards with the scores in JSON and Parquet.

    The scorers unsafe and faces need the extra safety and nothing at run time; clip-score (the
    cosine of image and text by a CLIP model) needs the extra train.

    Example: metacurate pool filter tars --out safe --scorer unsafe --keep 'unsafe<0.5'
    --scorer faces --blur face_boxes
    """
    from metacurate.images.filter import FilterConfig, Rule, filter_images

    settings = FilterConfig(
        scorers=tuple(scorer or ()),
        keep=tuple(Rule.parse(text) for text in keep or ()),
        blur=blur,
        drop_duplicates=drop_duplicates,
        quality=quality,
    )
    totals = filter_images(tars, out, settings, gpus_per_task=gpus_per_task, **options)
    show(totals, summary_table(f"Images in {out}", totals_rows(totals)), as_json=as_json)


@pool_app.command()
def survival(tars: Tars, as_json: AsJson = False) -> None:
    """The share of rows that still have an image: plan a larger curated set with it.

    Example: metacurate pool download curated/ --out probe --sample 10000, then
    metacurate pool survival probe
    """
    from metacurate.images.survival import survival_rate

    found = asdict(survival_rate(tars))
    rows = [
        ("survival rate", f"{found['rate']:.4f}"),
        ("95% interval", f"{found['low']:.4f} to {found['high']:.4f}"),
        ("rows", f"{found['count']:,}"),
    ]
    show(found, summary_table(f"Survival in {tars}", rows), as_json=as_json)
