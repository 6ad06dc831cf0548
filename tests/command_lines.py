"""Command lines in files that other programs run: are they ones that metacurate takes?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typer.main import get_command

from metacurate.cli import app


def check(words: Sequence[str]) -> dict[str, Any]:
    """The values of a command's parameters; its usage error if it would not run."""
    command: Any = get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    return command.make_context("metacurate", rest).params
