"""Files that a run made, read again later: missing or damaged ones are one line that says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from metacurate.errors import UserError, first_line
from metacurate.runtime.storage import Folder


@contextmanager
def open_made(folder: Folder, name: str) -> Iterator[IO[bytes]]:
    """Open a file of a run; UserError if it is missing, or if the block finds it damaged."""
    try:
        file = folder.open(name)
    except FileNotFoundError:
        raise UserError(
            f"{folder.address(name)} is missing; give the command that made the run again"
        ) from None
    with file:
        try:
            yield file
        except (pa.ArrowException, EOFError, ValueError) as error:
            raise damaged(folder, name, first_line(error)) from None
        except OSError as error:
            if error.errno is not None:  # the machine's, no damage
                raise
            raise damaged(folder, name, first_line(error)) from None


def damaged(folder: Folder, name: str, reason: str) -> UserError:
    """The error for a file of a run with other content than was written."""
    return UserError(
        f"{folder.address(name)} is damaged ({reason}); 'metacurate status {folder.url} --verify' "
        "finds all that is, and the command that made the run then makes it again"
    )


def save_array(folder: Folder, name: str, array: npt.NDArray[Any]) -> None:
    """Write an array as ``.npy``, whole or not at all."""
    with folder.create(name) as file:
        write_array(file, array)


def write_array(file: IO[bytes], array: npt.NDArray[Any]) -> None:
    """Write an array as ``.npy``; OSError says so if the disk is full, which NumPy's own hides."""
    array = np.ascontiguousarray(array)
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(file, header)
    file.write(array.reshape(-1).view(np.uint8).data)


def load_array(folder: Folder, name: str) -> npt.NDArray[Any]:
    """Read an ``.npy`` file of ``save_array``; UserError if it is missing or damaged."""
    with open_made(folder, name) as file:
        return np.load(file, allow_pickle=False)
