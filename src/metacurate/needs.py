"""Packages that only some commands need: they come with extras, and one line says which is missing.

``curate`` and what looks at its output run with the packages that every installation has. An import
of any other stands within ``needs`` (or ``needs_package``), in the file that uses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from metacurate.errors import ArgumentError, first_line

EXTRAS = {
    "crawl": "reading web archives",
    "hf": "an address of the hub",
    "http": "a web address",
    "images": "work on images",
    "languages": "this language identifier",
    "metadata": "building metadata",
    "mlflow": "{log_to} mlflow",
    "ray": "{engine} ray",
    "report": "drawing a report or plot",
    "s3": "an S3 address",
    "safety": "this scorer",
    "train": "training or evaluation",
    "wandb": "{log_to} wandb",
    "worldwide": "this segmenter",
}
"""The extras of ``pyproject.toml`` for users, and what needs each, as messages say it."""


class MissingPackageError(ArgumentError, ImportError):
    """A package that was asked for is not installed; the message says how to install it."""


def how_to_install(extra: str) -> str:
    """How an extra is installed, while metacurate itself is on no index."""
    return f"pip install '.[{extra}]' in the folder of metacurate's sources"


@contextmanager
def needs(extra: str, what: str = "", *, otherwise: str = "") -> Iterator[None]:
    """A context for imports of packages that come with an extra; MissingPackageError names it.

    ``what`` needs them (a template as of ``ArgumentError``; else as ``EXTRAS`` says);
    ``otherwise``: what can be done instead, after the advice.
    """
    with _told(what or EXTRAS[extra], how_to_install(extra), otherwise):
        yield


@contextmanager
def needs_package(packages: str, what: str, *, otherwise: str = "") -> Iterator[None]:
    """As ``needs``, for packages of no extra, which a user asks for by name."""
    with _told(what, f"pip install {packages}", otherwise):
        yield


@contextmanager
def _told(what: str, advice: str, otherwise: str) -> Iterator[None]:
    try:
        yield
    except MissingPackageError:
        raise
    except ImportError as error:
        # fsspec raises its own error from the one that names the package.
        cause = error if error.name else error.__cause__
        package = (getattr(cause, "name", None) or "").partition(".")[0]
        if package == "metacurate":
            raise
        if isinstance(cause, ModuleNotFoundError) and package:
            lacking = f"the package {package}, which is not installed"
        else:
            lacking = f"a package that cannot be loaded ({first_line(error)})"
        raise MissingPackageError(
            what + " needs {lacking}: {advice}{otherwise}",
            lacking=lacking,
            advice=advice,
            otherwise=otherwise and f", {otherwise}",
        ) from error
