"""Some columns of the Parquet files that this project wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.errors import UserError
from metacurate.pool.files import fingerprint, one_line, open_source
from metacurate.pool.find import find
from metacurate.pool.formats.table import format_of
from metacurate.runtime.storage import Folder


def parquet_files(inputs: Sequence[str]) -> list[str]:
    """The Parquet files that the inputs name, sorted; UserError if there are other pool files.

    Of the output folder of `metacurate curate` those of the subset.
    """
    files = find([_subset(given) for given in inputs]).files
    for file in files:
        if format_of(file) != ("parquet", None):
            raise UserError(f"{file} is not Parquet; give a pool that metacurate wrote")
    return list(files)


def fingerprint_all(files: Sequence[str]) -> str:
    """SHA-256 over the fingerprints of the files, in order."""
    digest = hashlib.sha256()
    for file in files:
        with open_source(file) as source:
            digest.update(fingerprint(source).encode())
    return digest.hexdigest()


def parquet_tables(address: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """A file's row groups with these columns, one at a time; UserError if it cannot give them."""
    with open_source(address) as source:
        try:
            parquet = pq.ParquetFile(source.arrow)
            missing = [c for c in columns if c not in parquet.schema_arrow.names]
        except Exception as error:
            source.raise_unless_damage(error)
            raise UserError(f"{address} is damaged: {one_line(error)}") from None
        if missing:
            raise UserError(f"{address} has no column {', '.join(missing)}")
        for group in range(parquet.num_row_groups):
            try:
                table = parquet.read_row_group(group, list(columns))
            except Exception as error:
                source.raise_unless_damage(error)
                raise UserError(f"{address} is damaged: {one_line(error)}") from None
            yield table


def _subset(given: str) -> str:
    folder = Folder(given)
    return folder.address("curated") if folder.list("curated") else given
