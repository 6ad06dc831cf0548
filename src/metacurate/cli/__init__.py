"""The ``metacurate`` command: one thin function per command, no logic."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

import typer

from metacurate.errors import UserError

app = typer.Typer(
    name="metacurate",
    help="Open, fast, reproducible metadata-curated language-image data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

MACHINE_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EACCES: "permission denied: check the owner and mode",
    errno.EPERM: "permission denied: check the owner and mode",
    errno.EROFS: "the file system is read-only: choose another place",
}


@app.callback()
def _root() -> None:
    """Open, fast, reproducible metadata-curated language-image data."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one line on standard error and exit code 2."""
    try:
        app(arguments)
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("stopped; run the same command again to resume", file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        advice = MACHINE_ERRORS.get(error.errno or 0)
        if advice is None:
            raise
        where = f" ({error.filename})" if error.filename else ""
        fail(f"{advice}{where}, then run the same command again: it resumes")


def fail(message: str) -> None:
    """Print one line on standard error and exit with code 2."""
    print(f"metacurate: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


from metacurate.cli import curate, train  # noqa: E402, F401  (commands register themselves)
