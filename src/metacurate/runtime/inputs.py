"""Files that the user named: opened and read in one way, with one message each."""

from __future__ import annotations

import io
import tomllib
from typing import IO, Any

from metacurate.errors import UserError, first_line
from metacurate.runtime.storage import Address, as_address, open_file


def open_input(address: Address, what: str = "file", advice: str = "") -> IO[bytes]:
    """Open a file that the user named; UserError if there is none, or if it may not be read.

    The message calls it ``what`` and ends with ``advice`` (which begins with ``; ``).
    """
    address = as_address(address)
    try:
        return open_file(address)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no {what} {address}{advice}") from None
    except IsADirectoryError:
        raise UserError(f"{address} is a folder, no {what}{advice}") from None
    except PermissionError as error:
        said = error.strerror or first_line(error)
        raise UserError(f"the {what} {address} cannot be read: {said}") from None


def read_text(address: Address, what: str = "file") -> str:
    """A small text file in UTF-8, without a byte order mark; UserError if it is none."""
    try:
        with open_input(address, what) as file:
            return str(file.read(), "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"the {what} {as_address(address)} is no UTF-8 text: {error}") from None


def lines_of(text: str) -> list[str]:
    """The lines of a text file, without their ends, which are those that files have.

    ``str.splitlines`` also parts at what else Unicode calls the end of a line or a paragraph, which
    may be within a URL or a name.
    """
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]


def read_toml(address: Address) -> dict[str, Any]:
    """A configuration file in TOML; UserError if it is none."""
    text = read_text(address, "configuration file")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{as_address(address)} is no valid TOML: {error}") from None
