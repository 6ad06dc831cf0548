"""A pool's files: which ones the inputs name."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from metacurate.formats.table import format_of, is_shy, known_suffixes
from metacurate.runtime.find import Found, Wanted, expand_lists, find_files
from metacurate.runtime.storage import Folder, is_local, resolve

TARS = (".tar", ".tar.gz", ".tgz")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


def find(inputs: Sequence[str]) -> Found:
    """All pool files that the inputs name (``runtime.find``). UserError if one names nothing.

    Names that begin with ``.`` or ``_`` are left out. Of the output folder of ``metacurate curate``
    the subset is taken.
    """
    wanted = Wanted(
        "pool file",
        f"a pool is {known_suffixes()}",
        lambda address: format_of(address) is not None,
        is_shy,
        hint_for,
        (".", "_"),
    )
    return find_files([subset_of(given) for given in expand_lists(inputs)], wanted)


def subset_of(given: str) -> str:
    """The curated shards of the output folder of ``metacurate curate``; else what is given."""
    if not is_local(given):
        resolve(given)  # refused by the name that was given
        if "::" in given:
            return given
    folder = Folder(given)
    is_run = folder.exists("manifest.json") and folder.list("curated")
    return folder.address("curated") if is_run else given


def hint_for(others: Collection[str]) -> str:
    """What reads files that are no tables, in brackets."""
    names = [name.lower() for name in others]
    if any(name.endswith(TARS) for name in names):
        return " ('metacurate pool ingest' makes a pool of WebDataset tars)"
    if any(name.endswith(IMAGES) for name in names):
        return (
            " (images with their texts become a pool as WebDataset tars: pack them, then "
            "'metacurate pool ingest')"
        )
    return ""
