"""Writing the cards of a finished run into its folder: ``README.md`` and ``croissant.json``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from metacurate.arguments import listed
from metacurate.curation.balancing import keep_probabilities
from metacurate.curation.layout import (
    CROISSANT_FILE,
    DATACARD_FILE,
    DISTRIBUTION,
    DISTRIBUTION_FOLDER,
    KEPT_COUNTS_FILE,
    METADATA_FILE,
    README,
    README_FILE,
    load_counts,
    run_metadata,
)
from metacurate.curation.thresholds import run_thresholds
from metacurate.errors import ArgumentError
from metacurate.runtime.made import load_array, open_made
from metacurate.runtime.manifest import (
    Stage,
    Statistics,
    begin,
    finish,
    plan,
    read_manifest,
    reopen,
)
from metacurate.runtime.progress import note
from metacurate.runtime.run import Run, open_run
from metacurate.runtime.storage import Folder, recorded, unrecorded
from metacurate.sharing import croissant, readme
from metacurate.sharing.config import CardConfig
from metacurate.sharing.facts import plot_files, read_facts

COUNTS_PARQUET = "distribution.parquet"
JSON_FORMAT = "application/json"
# The last line of a card that nobody has changed: a checksum of all before it.
MARK_START = b"\n<!-- metacurate card "
_MARK = re.compile(MARK_START + rb"([0-9a-f]{32}) -->\n\Z")
MAX_CARD_BYTES = 64 * 2**20


class CardTotals(TypedDict):
    """What was written, by names in the run's folder."""

    readme: str
    croissant: str
    rows: int


def write_card(
    folder: str | PathLike[str],
    *,
    name: str | None = None,
    license: str | None = None,
    languages: Sequence[str] = (),
    repo: str | None = None,
    distribution_only: bool = False,
    overwrite: bool = False,
) -> CardTotals:
    """Write the dataset card and the Croissant description of a finished run into its folder.

    ``README.md`` and ``croissant.json`` describe the kept pairs, so that
    ``datasets.load_dataset(folder)`` reads them. With ``distribution_only`` they lie in
    ``folder/distribution``, with the counts of the entries and the plots, and nothing of the pairs:
    a folder to publish by itself. Nothing is sent anywhere (``push`` does that). What is not given
    stays as it was said before.

    Args:
        folder: The output folder of ``curate``.
        name: The data set's name in words.
        license: An identifier of the hub (``cc-by-4.0``, ``other``, ...), or a web address.
        languages: ISO 639 codes; those of the metadata if they have several and none is given.
        repo: Where it will be published on Hugging Face's hub, as ``USER/NAME``.
        distribution_only: See above.
        overwrite: Whether a card that was changed by hand is replaced.

    Raises:
        UserError: The run is not finished or in use, what is given cannot be, or ``README.md`` was
            not written by this function, or changed since.
    """
    given: dict[str, Any] = {
        "name": name, "license": license, "languages": tuple(listed("languages", languages)),
        "repo": repo,
    }  # fmt: skip
    given = {field: value for field, value in given.items() if value not in (None, ())}
    CardConfig(**given)  # what cannot be is told before the folder is opened
    with open_run(folder, existing=True, workers=1, overwrite=overwrite) as run:
        stage = DISTRIBUTION if distribution_only else README
        config = replace(_said(run.folder, stage), **given)
        return write_card_of(run, config, distribution_only=distribution_only)


def _said(folder: Folder, stage: Stage) -> CardConfig:
    """What was said of the run when its card was written last."""
    section = read_manifest(folder)["stages"].get(stage.name)
    return CardConfig(**(section["config"]["said"] if section is not None else {}))


def write_card_of(
    run: Run, config: CardConfig | None = None, *, distribution_only: bool = False
) -> CardTotals:
    """``write_card`` of a run that the caller holds; ``config``: as it was said before, if None."""
    stage = DISTRIBUTION if distribution_only else README
    prefix = f"{DISTRIBUTION_FOLDER}/" if distribution_only else ""
    folder, name = run.folder, prefix + README_FILE
    if foreign := _foreign(folder, stage, name):
        if not run.overwrite:
            raise ArgumentError(
                "{file} was not written by this command, or changed since; use {overwrite} to "
                "replace it",
                file=folder.address(foreign),
            )
        folder.remove(foreign)
    if config is None:
        config = _said(folder, stage)
    plots = {n: w["xxh3"] for n, w in plot_files(folder).items()}
    write = _write_distribution if distribution_only else _write_pairs
    if not folder.exists(name):
        reopen(folder, stage)
    return _once(run, stage, {"said": config.as_json(), "plots": plots}, write, config)


def renew_card(run: Run) -> None:
    """Write the card of a run that has just been made, or its report; one changed by hand stays."""
    if foreign := _foreign(run.folder, README, README_FILE):
        if run.show_progress:
            note(f"{run.folder.address(foreign)} is not this program's, or was changed: it stays")
        return
    write_card_of(run)


def _once(
    run: Run,
    stage: Stage,
    config: dict[str, Any],
    write: Callable[[Folder, CardConfig], int],
    said: CardConfig,
) -> CardTotals:
    """Run a stage that has no shards: what it writes is small, and comes of other stages' facts."""
    done: Statistics | None = begin(
        run.folder, stage, config, overwrite=run.overwrite, replace=True
    )
    if done is None:
        plan(run.folder, stage, 1)
        with recorded() as written:
            rows = write(run.folder, said)
        named = ((run.folder.name_of(address), found) for address, found in written.items())
        files = {name: found for name, found in named if name is not None}
        done = finish(run.folder, stage, {"rows": rows}, (), files)
    prefix = f"{DISTRIBUTION_FOLDER}/" if stage is DISTRIBUTION else ""
    return {
        "readme": prefix + README_FILE,
        "croissant": prefix + CROISSANT_FILE,
        "rows": done["rows"],
    }


def is_changed_by_hand(folder: Folder, *, distribution_only: bool = False) -> bool:
    """Whether there is a card that is someone's own, or was changed."""
    stage = DISTRIBUTION if distribution_only else README
    prefix = f"{DISTRIBUTION_FOLDER}/" if distribution_only else ""
    return _foreign(folder, stage, prefix + README_FILE) is not None


def _foreign(folder: Folder, stage: Stage, readme_name: str) -> str | None:
    """The name of a file that a card would replace and that is someone's own."""
    if stage.name not in read_manifest(folder)["stages"]:
        return next(iter(stage.present(folder)), None)
    if not folder.exists(readme_name):
        return None
    with folder.open(readme_name) as file:
        content = file.read(MAX_CARD_BYTES)
    mark = _MARK.search(content)
    own = mark is not None and mark[1].decode() == _checksum(content[: mark.start()])
    return None if own else readme_name


def _checksum(content: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(content)


def _write_readme(folder: Folder, name: str, text: str) -> None:
    """A card may be changed by hand: it is not among the files that ``status`` compares."""
    content = text.rstrip("\n").encode()
    with unrecorded(), folder.create(name) as file:
        file.write(content + f"\n<!-- metacurate card {_checksum(content)} -->\n".encode())


def _write_pairs(folder: Folder, config: CardConfig) -> int:
    # The data card is left out: it names the pool's files, and its checksum would depend on where
    # they are.
    facts = read_facts(folder, METADATA_FILE)
    with open_made(folder, METADATA_FILE) as file:
        entries = pq.read_schema(file)
    pairs = facts.card["kept"]["pairs"]
    folder.write_json(CROISSANT_FILE, croissant.description(
        config.name, f"{pairs:,} image-text pairs, balanced over metadata entries",
        license_=config.license, repo=config.repo,
        languages=readme.card_languages(facts, config),
        distribution=[
            croissant.file_set("curated", readme.PAIRS_FILES, "The kept pairs"),
            croissant.file_object(folder, METADATA_FILE, croissant.FORMAT, "The entries"),
        ],
        records=[
            croissant.record_set("pairs", "A row for each kept pair", facts.schema,
                                 {"fileSet": {"@id": "curated"}}),
            croissant.record_set("entries", "A row for each entry; row numbers are entry ids",
                                 entries, {"fileObject": {"@id": METADATA_FILE}}),
        ],
    ))  # fmt: skip
    _write_readme(folder, README_FILE, readme.pairs_card(facts, config))
    return int(pairs)


def _write_distribution(run_folder: Folder, config: CardConfig) -> int:
    facts = read_facts(run_folder, COUNTS_PARQUET)
    folder = Folder(run_folder.address(DISTRIBUTION_FOLDER))
    counts = distribution_table(run_folder)
    with folder.create(COUNTS_PARQUET) as file:
        pq.write_table(counts, file, compression="zstd")
    folder.write_json(DATACARD_FILE, without_pool(facts.card))
    for name in facts.plots:
        with run_folder.open(name) as source, folder.create(name) as copy:
            copy.write(source.read())
    folder.write_json(CROISSANT_FILE, croissant.description(
        config.name, f"Counts of {counts.num_rows:,} metadata entries in a pool's texts",
        license_=config.license, repo=config.repo,
        languages=readme.card_languages(facts, config),
        distribution=[
            croissant.file_object(folder, COUNTS_PARQUET, croissant.FORMAT, "The counts"),
            croissant.file_object(folder, DATACARD_FILE, JSON_FORMAT, "The figures of the run"),
        ],
        records=[croissant.record_set("entries", "A row for each entry", counts.schema,
                                      {"fileObject": {"@id": COUNTS_PARQUET}})],
    ))  # fmt: skip
    card = readme.distribution_card(
        facts, config, counts, COUNTS_PARQUET, folder.size(COUNTS_PARQUET)
    )
    _write_readme(folder, README_FILE, card)
    return counts.num_rows


def distribution_table(folder: Folder) -> pa.Table:
    """A row for each entry of a run's metadata, in its order.

    ``entry``, ``lang`` and ``source`` (where known), ``count`` and ``kept_count`` (uint64), and
    ``keep_prob`` (float64).
    """
    metadata = run_metadata(folder)
    counts = load_counts(folder)
    columns: dict[str, Any] = {"entry": metadata.entries}
    for name in ("lang", "source"):
        if (values := getattr(metadata, name)) is not None:
            columns[name] = values
    columns["count"] = pa.array(counts)
    columns["kept_count"] = pa.array(load_array(folder, KEPT_COUNTS_FILE))
    columns["keep_prob"] = pa.array(keep_probabilities(counts, run_thresholds(folder).by_entry))
    return pa.table(columns).combine_chunks()


def without_pool(card: dict[str, Any]) -> dict[str, Any]:
    """A data card without the names of the pool's files and what was said of them."""
    pool = card["pool"]
    numbered = {str(n): print_ for n, print_ in enumerate(pool["fingerprints"].values(), 1)}
    unread = {str(n): "could not be read" for n in range(1, len(pool["bad_files"]) + 1)}
    return {**card, "pool": {**pool, "fingerprints": numbered, "bad_files": unread}}
