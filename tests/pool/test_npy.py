"""Arrays that others wrote."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from metacurate.analysis.read_counts import read_file
from metacurate.errors import UserError
from metacurate.formats.npy import parse_array


def content(header: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header.encode() + b"x" * 8


def shape(of: str) -> str:
    return f"{{'descr': '<u8', 'fortran_order': False, 'shape': ({of},)}}"


DAMAGED = {
    "nothing": b"",
    "a header alone": content(shape("3"))[:-8],
    "more than any memory": content(shape(f"{10**15}")),
    "more than a number": content(shape(f"{10**30}")),
    "a negative size": content(shape("-1")),
    "a truth": content(shape("True")),
    "no end": content("{'descr': ("),
    "deep": content("(" * 5000),
    "many signs": content("-" * 9000 + "1"),
    "objects": content(shape("1").replace("<u8", "|O")),
    "another version": content(shape("1"), b"\x09\x00"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_arrays_are_told_whatever_numpy_raises(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^that is a damaged \.npy file: \S"):
        parse_array(DAMAGED[name], "that")
    with zipfile.ZipFile(tmp_path / "0.npz", "w") as members:
        members.writestr("en.npy", DAMAGED[name])
    with pytest.raises(UserError, match=r"0\.npz(: en)? (is a damaged|holds no counts)"):
        read_file(str(tmp_path / "0.npz"))


def test_whole_arrays_are_read() -> None:
    file = io.BytesIO()
    np.save(file, np.arange(6, dtype=np.uint32).reshape(3, 2))
    assert parse_array(file.getvalue(), "that").tolist() == [[0, 1], [2, 3], [4, 5]]
