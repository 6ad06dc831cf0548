"""Parquet files of entries, written piece by piece, with what is known of how they were made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.metadata.store import ENTRY, OPTIONAL_COLUMNS, ROWS_PER_GROUP, Metadata
from metacurate.runtime.storage import create_file

SCHEMA = pa.schema([(ENTRY, pa.large_string()), *OPTIONAL_COLUMNS.items()])
ABOUT = b"metacurate"
"""The key of a file's own metadata: JSON, a list of what builds the entries come from."""


def write_entries(
    file: IO[bytes],
    pieces: Iterable[pa.Table],
    about: Sequence[Mapping[str, Any]] = (),
    columns: Sequence[str] = tuple(SCHEMA.names),
) -> None:
    """Write tables of ``SCHEMA`` one after the other, each in row groups of its own."""
    said = json.dumps(list(about), ensure_ascii=False, sort_keys=True).encode()
    schema = pa.schema([SCHEMA.field(name) for name in columns], metadata={ABOUT: said})
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for piece in pieces:
            table = piece.select(list(columns)).replace_schema_metadata(schema.metadata)
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)


def write_built(metadata: Metadata, address: str, about: Mapping[str, Any]) -> None:
    """Write metadata that was built, with what is known of the build."""
    columns = [metadata.entries, *(getattr(metadata, name) for name in OPTIONAL_COLUMNS)]
    with create_file(address) as file:
        write_entries(file, [pa.table(columns, schema=SCHEMA)], [about])


def read_about(schema: pa.Schema) -> list[dict[str, Any]]:
    """What a file says of the builds that its entries come from; nothing if it does not."""
    try:
        said = json.loads((schema.metadata or {}).get(ABOUT, b"[]"))
    except ValueError:
        return []
    return [about for about in said if isinstance(about, dict)] if isinstance(said, list) else []
