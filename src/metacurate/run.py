"""What the stages of a curation run share: the folder's layout, the stages' order, their settings.

``DIR/index/`` (matches), ``DIR/counts.npy`` (entry counts), ``DIR/curated/`` (the balanced subset),
``DIR/datacard.json``, ``DIR/metadata.parquet`` (the entries used), ``DIR/report.html`` with its
plots in ``DIR/report/``, and ``DIR/manifest.json``.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.balancing import Counts
from metacurate.engines import Engine
from metacurate.engines.local import LocalEngine
from metacurate.errors import UserError
from metacurate.stage import Stage, read_manifest, shard_name
from metacurate.storage import Folder

METADATA_FILE = "metadata.parquet"
COUNTS_FILE = "counts.npy"
KEPT_COUNTS_FILE = "kept_counts.npy"
THRESHOLD_FILE = "threshold.json"
DATACARD_FILE = "datacard.json"
REPORT_FILE = "report.html"

# Starting workers takes longer than a light pass over fewer matched pairs than this.
PAIRS_WORTH_WORKERS = 5_000_000

REPORT = Stage("report", (REPORT_FILE, "report"))
CARD = Stage("card", (KEPT_COUNTS_FILE, "state/kept_counts", DATACARD_FILE), (REPORT,))
BALANCE = Stage("balance", ("curated", THRESHOLD_FILE), (CARD,))
COUNT = Stage("count", (COUNTS_FILE, "state/counts"), (BALANCE,))
MATCH = Stage("match", ("index", METADATA_FILE, "state/matcher"), (COUNT,))


@dataclass(frozen=True)
class Balance:
    """How to balance: exactly one of the threshold, the tail proportion and the target size.

    ``expect_survival`` is the share of the kept pairs whose images are expected to survive the
    download: the threshold is then so much larger that the aim is met by those that do.
    """

    t: float | None = None
    p: float | None = None
    target_size: int | None = None
    seed: int = 0
    expect_survival: float = 1.0

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.t, self.p, self.target_size)) != 1:
            raise UserError("give exactly one of --t, --p and --target-size")
        if self.t is not None and not self.t > 0:
            raise UserError(f"--t must be positive (or inf for no balancing), not {self.t:g}")
        if self.p is not None and not 0 <= self.p <= 1:
            raise UserError(f"--p must lie between 0 and 1, not {self.p:g}")
        if self.target_size is not None and self.target_size < 1:
            raise UserError(f"--target-size must be positive, not {self.target_size}")
        if not 0 < self.expect_survival <= 1:
            raise UserError(
                f"--expect-survival must lie above 0 and up to 1, not {self.expect_survival:g}"
            )
        if not 0 <= self.seed < 2**64:
            raise UserError(f"--seed must lie between 0 and 2**64 - 1, not {self.seed}")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values; an infinite threshold is the string "inf"."""
        values = {k: v for k, v in asdict(self).items() if v is not None}
        return {k: "inf" if v == math.inf else v for k, v in values.items()}


@dataclass(frozen=True)
class Run:
    """Where and how stages run.

    Attributes:
        folder: The output folder; the caller holds it (``stage.exclusive``).
        engine: Runs shard functions.
        overwrite: Whether results with other settings are removed; else they are a UserError.
        show_progress: Whether progress goes to standard error.
    """

    folder: Folder
    engine: Engine
    overwrite: bool = False
    show_progress: bool = True


def light_engine(run: Run) -> Engine:
    """The engine for a light pass over a matched run's shards: this process if they hold little."""
    pairs = finished_section(run.folder, MATCH)["totals"]["pairs_matched"]
    return run.engine if pairs >= PAIRS_WORTH_WORKERS else LocalEngine(1)


def index_file_name(position: int) -> str:
    """The name of an index shard."""
    return f"index/{shard_name(position)}.arrow"


def finished_section(folder: Folder, stage: Stage) -> dict[str, Any]:
    """The manifest section of a finished stage; UserError with the command to run if it is not."""
    section = read_manifest(folder)["stages"].get(stage.name)
    if section is None or section["state"] != "done":
        raise UserError(
            f"{folder.url} has no finished {stage.name} stage; "
            f"run 'metacurate {stage.name}' or 'metacurate curate' first"
        )
    return section


def digest(*configs: Any) -> str:
    """A short name for settings: workers keep what they derived from a folder under it."""
    text = json.dumps(configs, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def matched_run(folder: Folder) -> tuple[int, int]:
    """The number of index shards and of entries of a folder whose match stage is done.

    Raises UserError if it is not.
    """
    section = finished_section(folder, MATCH)
    return section["planned"], section["config"]["metadata"]["entries"]


def save_array(folder: Folder, name: str, array: npt.NDArray[Any]) -> None:
    """Write an array as ``.npy``, whole or not at all."""
    with folder.create(name) as file:
        np.save(file, array, allow_pickle=False)


def load_array(folder: Folder, name: str) -> npt.NDArray[Any]:
    """Read an ``.npy`` file of ``save_array``; FileNotFoundError if there is none."""
    with folder.open(name) as file:
        return np.load(file, allow_pickle=False)


def load_counts(folder: Folder) -> Counts:
    """The entry counts of a folder whose count stage is done, uint64[entries]."""
    return load_array(folder, COUNTS_FILE)


def json_number(t: float) -> float | str:
    """A threshold as JSON has it: infinity is the string "inf"."""
    return "inf" if math.isinf(t) else t
