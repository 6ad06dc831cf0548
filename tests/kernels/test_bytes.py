"""The longest of the strings of a Parquet dictionary page."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from metacurate.kernels.bytes import longest_string


def strings(*sizes: int) -> bytes:
    return b"".join(struct.pack("<I", size) + b"\xff" * size for size in sizes)


@pytest.mark.parametrize(
    ("data", "longest"),
    [
        (b"", 0),
        (strings(0), 0),
        (strings(3, 70_000, 258), 70_000),
        (strings(3) + struct.pack("<I", 2**32 - 1), 2**32 - 1),
        (strings(3) + b"\1\0\0", -1),
    ],
    ids=["none", "empty", "several", "bytes missing", "half a length"],
)
def test_longest_string(data: bytes, longest: int) -> None:
    assert longest_string(np.frombuffer(data, np.uint8)) == longest
