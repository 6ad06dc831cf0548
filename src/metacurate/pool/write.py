"""Any pool's rows in the one layout that the tools write: ``uid``, ``url``, ``texts``, the rest."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pat

from metacurate.formats.features import features_of, with_features
from metacurate.formats.types import is_list
from metacurate.pool.columns import PAIRS_WITH_LANGS_IF_THERE, RESERVED, ResolvedColumns
from metacurate.pool.open import Pool, open_pool
from metacurate.pool.read import SOURCE, member
from metacurate.pool.schema import TEXTS_TYPE, UID_TYPE, PoolBatch, PoolConfig
from metacurate.runtime.progress import is_noting, note
from metacurate.runtime.run import Run

CANONICAL = ("uid", "url", "texts")


def open_to_rewrite(run: Run, inputs: Sequence[str], pool_config: PoolConfig) -> Pool:
    """Open a pool whose rows are written in that layout, and say what is read from where.

    UserError if it has no rows.
    """
    pool = open_pool(
        inputs,
        pool_config,
        PAIRS_WITH_LANGS_IF_THERE,
        reserved=(*RESERVED, *CANONICAL),
        engine=run.engine,
    )
    if is_noting():
        note(pool.describe())
    pool.require_rows()
    return pool


def canonical_schema(pool: Pool) -> pa.Schema:
    """``uid``, ``url`` and ``texts``, then the pool's other columns.

    Columns that were read as URL or text are those already, under the canonical names.
    """
    read = {name for unit in pool.units for name in (unit.columns.url, *unit.columns.texts)}
    carried = [f for f in pool.schema if f.name not in read and f.name not in CANONICAL]
    schema = pa.schema(
        [
            pa.field("uid", UID_TYPE),
            pa.field("url", pa.string()),
            pa.field("texts", TEXTS_TYPE),
            *(f.remove_metadata() for f in carried),
        ]
    )
    return with_features(schema, features_of(pool.schema))


def canonical_batch(
    batch: PoolBatch, columns: ResolvedColumns, schema: pa.Schema
) -> pa.RecordBatch:
    """A batch (read with all its columns) in that schema; the rows and texts stay as they are.

    A text's source comes from the column if it has it; otherwise it is the column's name. Its
    language is that of the batch. Null texts stay in the lists.
    """
    rows = batch.columns
    assert rows is not None
    if columns.url is None:
        urls = pa.nulls(batch.rows, pa.string())
    else:
        urls = _as_string(rows.column(columns.url))
    texts = canonical_texts(batch, columns)
    others = [rows.column(name) for name in schema.names[len(CANONICAL) :]]
    return pa.RecordBatch.from_arrays([batch.uids, urls, texts, *others], schema=schema)


def canonical_texts(batch: PoolBatch, columns: ResolvedColumns) -> pa.ListArray:
    """Each row's texts as ``TEXTS_TYPE``, of a batch read with all its columns."""
    values = _text_structs(batch, columns)
    offsets = batch.text_offsets - batch.text_offsets[0]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=TEXTS_TYPE)


def leaf_columns(schema: pa.Schema, but: Collection[str | None]) -> list[str]:
    """The Parquet columns (paths of leaves) of a schema, but for the fields and paths named.

    For what is waste in some: a dictionary of what does not repeat (it is tried for each row group,
    then given up), the least and the greatest of hashes, URLs and texts.
    """
    empty = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), empty)
    leaves = pq.read_metadata(pa.BufferReader(empty.getvalue())).schema
    paths = [leaves.column(i).path for i in range(len(leaves))]
    return [path for path in paths if not {path, path.partition(".")[0]} & set(but)]


def _text_structs(batch: PoolBatch, columns: ResolvedColumns) -> pa.StructArray:
    rows = batch.columns
    assert rows is not None
    texts = batch.texts.cast(pa.string())
    count = len(texts)
    sources = None
    langs = pa.nulls(count, pa.string()) if batch.langs is None else _as_string(batch.langs)
    if len(columns.texts) == 1:
        column = rows.column(columns.texts[0])
        flat = column.flatten() if is_list(column.type) else column
        if len(flat) == count and is_list(flat.type):
            sources = _as_string(member(flat, SOURCE))
        elif len(flat) == count and pat.is_struct(flat.type):
            names = [field.name for field in flat.type]
            sources = _as_string(pc.struct_field(flat, "source")) if "source" in names else None
        lengths = np.diff(batch.text_offsets)
    else:
        lengths = np.stack([_lengths(rows.column(name)) for name in columns.texts], axis=1).ravel()
    if sources is None:
        codes = np.repeat(np.tile(np.arange(len(columns.texts)), batch.rows), lengths)
        sources = pa.array(columns.texts, pa.string()).take(pa.array(codes))
    return pa.StructArray.from_arrays([sources, texts, langs], fields=list(TEXTS_TYPE.value_type))


def _lengths(column: pa.Array) -> np.ndarray:
    if not is_list(column.type):
        return np.ones(len(column), dtype=np.int64)
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)


def _as_string(column: pa.Array) -> pa.StringArray:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:  # bytes that are not UTF-8
        values = [None if v is None else v.decode("utf-8", "replace") for v in column.to_pylist()]
        return pa.array(values, pa.string())
