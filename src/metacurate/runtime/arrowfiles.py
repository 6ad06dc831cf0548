"""Arrow's readers on the files that a run reads again: no thread of Arrow's ever needs Python.

Arrow reads a Python file in threads of its own and lets go of it, and of its bytes, there: some
time after the reader has given its last rows. A thread that is late (on a busy machine) finds the
interpreter being taken down, and aborts the process. So Arrow opens files of this machine itself,
and reads others in the thread that asks.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq


def _opened(file: IO[bytes]) -> pa.NativeFile | IO[bytes]:
    """The same file opened by Arrow, if it lies on this machine."""
    if isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO):
        name: Any = file.name
        if isinstance(name, str):  # else a descriptor
            return pa.OSFile(name)
    return file


def open_parquet(file: IO[bytes]) -> pq.ParquetFile:
    """A Parquet file; to be read with ``use_threads=False``."""
    return pq.ParquetFile(_opened(file), pre_buffer=False)


def read_parquet(file: IO[bytes], columns: Sequence[str] | None = None) -> pa.Table:
    """A whole Parquet file, or those of these columns that it has."""
    source = _opened(file)
    parquet = pq.ParquetFile(source, pre_buffer=False)
    names = None if columns is None else list(columns)
    return parquet.read(names, use_threads=isinstance(source, pa.NativeFile))


def open_ipc(file: IO[bytes], columns: Sequence[int] | None = None) -> pa.RecordBatchFileReader:
    """A file of Arrow's IPC format, or these of its columns: nothing else is read.

    Of another machine's file Arrow's threads read the footer.
    """
    options = pa.ipc.IpcReadOptions(use_threads=False, included_fields=columns)
    return pa.ipc.open_file(_opened(file), options=options)
