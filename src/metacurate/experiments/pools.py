"""Arms with a smaller pool: a share of the pool's pairs, drawn by uid.

A pair is in the smaller pool if its draw of the seed is below the share: the draws are those of
balancing, at a text position that no text has. So of two shares with one seed the smaller pool is
part of the larger one, and each seed has another draw of the pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metacurate.curation.balancing import draw
from metacurate.errors import UserError
from metacurate.experiments.config import PoolSection
from metacurate.experiments.scoring import BATCH_ROWS, open_section, plain_schema, write_units
from metacurate.pool.open import Unit
from metacurate.pool.read import read_unit
from metacurate.runtime.storage import Folder
from metacurate.training.select import FREE_POSITION, POOL_ENTRY


def write_share(section: PoolSection, share: float, seed: int, folder: Folder, name: str) -> int:
    """Write a share of the pool's rows, as they are, to ``name`` in ``folder``; returns how many.

    Rows without a uid are in no share. Raises UserError if none is left.
    """
    pool = open_section(section)

    def drawn(unit: Unit) -> Iterator[pa.RecordBatch]:
        read = read_unit(unit, all_columns=True, skipped=Counter(), batch_rows=BATCH_ROWS)
        for batch in read:
            assert batch.columns is not None
            chosen = pa.array(chosen_uids(batch.uids, share, seed))
            yield batch.columns.filter(chosen).replace_schema_metadata(None)

    pairs = write_units(pool.units, plain_schema(pool.schema), folder, name, drawn)
    if not pairs:
        raise UserError(f"pool_fraction = {share:g} leaves no pair of the pool; take a larger one")
    return pairs


def chosen_uids(uids: pa.FixedSizeBinaryArray, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which uids are in a share of a pool, bool[n]; null ones are not."""
    values = uids.to_pylist()
    drawn = [1.0 if uid is None else draw(seed, uid, FREE_POSITION, POOL_ENTRY) for uid in values]
    return np.array(drawn, np.float64) < share
