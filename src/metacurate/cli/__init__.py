"""The ``metacurate`` command: one thin function per command, no logic."""

from __future__ import annotations

import contextlib
import errno
import io
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import typer

from metacurate.beside import own_process
from metacurate.cli import (  # noqa: F401  (commands register themselves)
    analysis,
    commoncrawl,
    curation,
    dedup,
    evaluation,
    experiment,
    images,
    metadata,
    report,
    sharing,
    texts,
    training,
    webdataset,
)
from metacurate.cli.root import app
from metacurate.errors import ArgumentError, Stopped, UserError
from metacurate.printable import printable

MAX_MESSAGE = 4000  # characters

INTERRUPTED = 130  # what typer exits with on Ctrl-C
MACHINE_ERRORS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "a file is larger than may be written: raise the limit (ulimit -f)",
    errno.EACCES: "permission denied: check the owner and mode",
    errno.EPERM: "permission denied: check the owner and mode",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.EEXIST: "a file is where a folder should be: choose another place",
    errno.ENOTDIR: "a file is where a folder should be: choose another place",
    errno.EISDIR: "a folder is where a file should be: choose another place",
    errno.ENOENT: "no such file or folder: check the path",
    errno.ELOOP: "links lead in a circle: check the path",
    errno.ENAMETOOLONG: "a name is too long: choose another",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake ends in one line on standard error and exit code 2."""
    if arguments is None:
        own_process()
    _show_what_cannot_be_shown()
    if sys.platform == "win32":
        fail("metacurate runs on Linux and macOS; on Windows, run it in WSL (wsl --install)")
    try:
        app(arguments)
    except ArgumentError as error:
        fail(error.spelled(_options(sys.argv[1:] if arguments is None else arguments)))
    except UserError as error:
        fail(str(error))
    except Stopped as stop:
        print(stop.message, file=sys.stderr)
        raise SystemExit(128 + stop.number) from None
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("stopped; run the same command again to resume", file=sys.stderr)
        raise
    except OSError as error:
        advice = MACHINE_ERRORS.get(error.errno or 0)
        if advice is None and _is_of_network(error):
            advice = f"no server answers ({error.strerror or error}): check the address"
        if advice is None and error.filename is not None:
            advice = f"{error.strerror}: check the path"
        if advice is None:
            _fail_for_storage(error)
        where = f" ({error.filename})" if error.filename else ""
        fail(f"{advice}{where}, then run the same command again: it resumes")
    except Exception as error:
        _fail_for_storage(error)


def _show_what_cannot_be_shown() -> None:
    """Characters that the terminal's encoding lacks are shown by their numbers."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):  # what it leads to was exchanged: it stays as it is
                stream.reconfigure(errors="backslashreplace")


def _is_of_network(error: OSError) -> bool:
    import socket

    return isinstance(error, ConnectionError | TimeoutError | socket.gaierror)


def _options(arguments: Sequence[str]) -> Callable[[str], str]:
    """Gives the option by which the command that is run takes an argument of the library.

    It is the option whose parameter has the argument's name (or its singular: ``text_cols`` and
    ``--text-col``); of an argument without an option, such as the pool, its name in the usage line.
    What the command does not take (a key of a configuration file) keeps its name.
    """
    command = typer.main.get_command(app)
    for argument in arguments:
        if argument in (nested := getattr(command, "commands", {})):
            command = nested[argument]
    spellings: dict[str | None, str] = {}
    for parameter in command.params:
        long = [option for option in parameter.opts if option.startswith("--")]
        spellings[parameter.name] = long[0] if long else str(parameter.name).upper()

    def spell(name: str) -> str:
        return spellings.get(name) or spellings.get(name.removesuffix("s")) or name

    return spell


def _fail_for_storage(error: Exception) -> NoReturn:
    """End with one line if an object store caused the error, else raise it."""
    from metacurate.runtime.storage import storage_failure

    said = storage_failure(error)
    if said is None:
        raise error
    fail(
        f"the object store failed: {said}; check the address, the endpoint and the credentials, "
        "then run the same command again: it resumes"
    )


def fail(message: str) -> NoReturn:
    """Print one line on standard error and exit with code 2."""
    shown = printable(" ".join(message.split()), MAX_MESSAGE)
    print(f"metacurate: error: {shown}", file=sys.stderr)
    raise SystemExit(2)
