"""What the stages of a run share: the folder and the engine."""

from __future__ import annotations

from dataclasses import dataclass

from metacurate.runtime.engine import Engine
from metacurate.runtime.storage import Folder


@dataclass(frozen=True)
class Run:
    """Where and how stages run.

    Attributes:
        folder: The output folder; the caller holds it (``stage.exclusive``).
        engine: Runs shard functions.
        overwrite: Whether results with other settings are removed; else they are a UserError.
        show_progress: Whether progress goes to standard error.
    """

    folder: Folder
    engine: Engine
    overwrite: bool = False
    show_progress: bool = True
