"""Arrays that others wrote as ``.npy`` files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.errors import UserError, first_line


def parse_array(content: bytes, name: str) -> npt.NDArray[Any]:
    """The array of an ``.npy`` file's content; UserError, which calls it ``name``, if damaged."""
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
        return array
    # NumPy raises many kinds for a file that is none of its own: MemoryError for a shape that no
    # memory holds, TokenError and RecursionError for a header that is no Python.
    except Exception as error:
        raise UserError(f"{name} is a damaged .npy file: {first_line(error)}") from None
