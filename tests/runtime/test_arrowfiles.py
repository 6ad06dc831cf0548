"""Files that Arrow reads for a run: its own threads never come to Python, which may be ending."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metacurate.runtime.arrowfiles import open_ipc, open_parquet, read_parquet

ROWS = pa.table({name: list(range(1000)) for name in "abc"})


class Noted(io.BytesIO):
    """A file of another machine: who reads it?"""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.readers: set[int] = set()

    def read(self, size: int | None = -1) -> bytes:
        self.readers.add(threading.get_ident())
        return super().read(size)


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(ROWS, file, row_group_size=100)
    return file.getvalue()


def ipc() -> bytes:
    file = io.BytesIO()
    with pa.ipc.new_file(file, ROWS.schema) as writer:
        writer.write_table(ROWS, 100)
    return file.getvalue()


def in_batches(file: IO[bytes]) -> pa.Table:
    return pa.Table.from_batches(open_parquet(file).iter_batches(70, use_threads=False))


def in_groups(file: IO[bytes]) -> pa.Table:
    parquet = open_parquet(file)
    return parquet.read_row_groups(range(parquet.num_row_groups), use_threads=False)


READS: dict[str, Callable[[Any], pa.Table]] = {
    "table": read_parquet, "batches": in_batches, "groups": in_groups
}  # fmt: skip


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_parquet_of_another_machine_is_read_by_the_thread_that_asks(read):
    file = Noted(parquet())
    assert read(file) == ROWS
    assert file.readers == {threading.get_ident()}


@pytest.mark.parametrize(
    ("read", "content"),
    [*((read, parquet) for read in READS.values()), (lambda f: open_ipc(f).read_all(), ipc)],
    ids=[*READS, "ipc"],
)
def test_a_file_of_this_machine_is_opened_by_arrow(tmp_path, read, content):
    (tmp_path / "file").write_bytes(content())
    with (tmp_path / "file").open("rb") as file:
        assert read(file) == ROWS
        assert file.tell() == 0


def test_columns_that_are_not_there_are_left_out(tmp_path):
    assert read_parquet(io.BytesIO(parquet()), ["c", "d", "a"]) == ROWS.select(["c", "a"])
