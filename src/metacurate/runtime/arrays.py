"""Arrays as files of a run, and short names for settings."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.runtime.storage import Folder


def digest(*configs: Any) -> str:
    """A short name for settings: workers keep what they derived from a folder under it."""
    text = json.dumps(configs, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def save_array(folder: Folder, name: str, array: npt.NDArray[Any]) -> None:
    """Write an array as ``.npy``, whole or not at all."""
    with folder.create(name) as file:
        np.save(file, array, allow_pickle=False)


def load_array(folder: Folder, name: str) -> npt.NDArray[Any]:
    """Read an ``.npy`` file of ``save_array``; FileNotFoundError if there is none."""
    with folder.open(name) as file:
        return np.load(file, allow_pickle=False)
