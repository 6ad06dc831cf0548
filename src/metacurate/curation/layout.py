"""The folder of a curation run: its files, its stages and their order.

``DIR/index/`` (matches), ``DIR/counts.npy`` (entry counts), ``DIR/curated/`` (the balanced subset),
``DIR/datacard.json``, ``DIR/metadata.parquet`` (the entries used), ``DIR/report.html`` with its
plots in ``DIR/report/``, ``DIR/README.md`` and ``DIR/croissant.json`` (how it is shared), and
``DIR/manifest.json``.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from metacurate.curation.balancing import Counts
from metacurate.errors import UserError
from metacurate.metadata.store import Block, Metadata, load_saved
from metacurate.runtime.engine import Engine
from metacurate.runtime.engines.local import LocalEngine
from metacurate.runtime.made import load_array
from metacurate.runtime.manifest import Stage, read_manifest, shard_name
from metacurate.runtime.run import Run
from metacurate.runtime.storage import Folder

METADATA_FILE = "metadata.parquet"
MATCHERS = "state/matcher"
LANGUAGES_FILE = "state/matcher/languages.json"
COUNTS_FILE = "counts.npy"
KEPT_COUNTS_FILE = "kept_counts.npy"
THRESHOLD_FILE = "threshold.json"
DATACARD_FILE = "datacard.json"
REPORT_FILE = "report.html"
README_FILE = "README.md"
CROISSANT_FILE = "croissant.json"
DISTRIBUTION_FOLDER = "distribution"
# Starting workers takes longer than a light pass over fewer matched pairs than this.
PAIRS_WORTH_WORKERS = 5_000_000
REPORT = Stage("report", (REPORT_FILE, "report"))
README = Stage("readme", (README_FILE, CROISSANT_FILE))
DISTRIBUTION = Stage("distribution", (DISTRIBUTION_FOLDER,))
CARD = Stage(
    "card",
    (KEPT_COUNTS_FILE, "state/kept_counts", DATACARD_FILE),
    (REPORT, README, DISTRIBUTION),
)
BALANCE = Stage("balance", ("curated", THRESHOLD_FILE), (CARD,), format=3)
COUNT = Stage("count", (COUNTS_FILE, "state/counts"), (BALANCE,), format=2)
MATCH = Stage("match", ("index", METADATA_FILE, MATCHERS), (COUNT,), format=2)


def light_engine(run: Run) -> Engine:
    """The engine for a light pass over a matched run's shards: this process if they hold little."""
    pairs = finished_section(run.folder, MATCH)["totals"]["pairs_matched"]
    return run.engine if pairs >= PAIRS_WORTH_WORKERS else LocalEngine(1)


def index_file_name(position: int) -> str:
    """The name of an index shard."""
    return f"index/{shard_name(position)}.arrow"


def matcher_address(folder: Folder, place: int) -> str:
    """Where the tables of the matcher of a block of entries lie."""
    return folder.address(f"{MATCHERS}/{shard_name(place)}")


def curated_file_name(position: int) -> str:
    """The name of a curated shard."""
    return f"curated/{shard_name(position)}.parquet"


def finished_section(folder: Folder, stage: Stage) -> dict[str, Any]:
    """The manifest section of a finished stage; UserError with the command to run if it is not."""
    section = read_manifest(folder)["stages"].get(stage.name)
    if section is None or section["state"] != "done":
        raise UserError(
            f"{folder.url} has no finished {stage.name} stage; "
            f"run 'metacurate {stage.name}' or 'metacurate curate' first"
        )
    return section


def matched_run(folder: Folder) -> tuple[int, int]:
    """The number of index shards and of entries of a folder whose match stage is done.

    Raises UserError if it is not.
    """
    section = finished_section(folder, MATCH)
    return section["planned"], section["config"]["metadata"]["entries"]


def run_blocks(folder: Folder) -> tuple[Block, ...]:
    """The blocks of a matched run's metadata (see ``Metadata.blocks``)."""
    metadata = finished_section(folder, MATCH)["config"]["metadata"]
    sizes = metadata.get("languages", [[None, metadata["entries"]]])
    stops = accumulate(size for _, size in sizes)
    return tuple(
        Block(language, stop - size, stop)
        for (language, size), stop in zip(sizes, stops, strict=True)
    )


def run_metadata(folder: Folder) -> Metadata:
    """The metadata that a run's texts were matched with; UserError if they are gone or others."""
    section = finished_section(folder, MATCH)
    return load_saved(folder.address(METADATA_FILE), section["config"]["metadata"]["fingerprint"])


def languages_of(folder: Folder) -> dict[str, dict[str, Any]]:
    """What is known so far of each language that a run found texts in: texts, matches, t and p.

    Empty with metadata of one list, and before the texts are matched.
    """
    stages = read_manifest(folder)["stages"]
    found: dict[str, dict[str, Any]] = {}
    for stage in (MATCH, BALANCE):
        totals = stages.get(stage.name, {}).get("totals", {})
        for language, facts in totals.get("languages", {}).items():
            if stage is MATCH or language in found:
                found.setdefault(language, {}).update(facts)
    return dict(sorted(found.items(), key=lambda item: -item[1]["match_counts"]))


def load_counts(folder: Folder) -> Counts:
    """The entry counts of a folder whose count stage is done, uint64[entries]."""
    return load_array(folder, COUNTS_FILE)
