"""The licences of all that users install: those that an Apache-2.0 project may build on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]

# Licences without conditions on the code that uses them; MPL-2.0 has some on its own files only.
ALLOWED = frozenset({
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python",
    "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib",
})  # fmt: skip
# How packages without a licence expression name them, in their classifiers and fields.
NAMES = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Apache2": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
# Nvidia's, under its own terms: PyTorch's builds for CUDA bring it, those for the CPU do not.
OF_CUDA = ("cuda-", "nvidia-")


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met with allowed licences."""

    def one(found: re.Match[str]) -> str:
        word = found[0]
        return word.lower() if word in ("AND", "OR") else str(word.split()[0] in ALLOWED)

    terms = re.sub(r"[\w.+-]+(?: WITH [\w.+-]+)?", one, expression)
    assert re.fullmatch(r"(True|False|and|or|[() ])*", terms), terms
    return bool(terms.strip()) and bool(eval(terms))


def licence(metadata: Message) -> str:
    """A package's licence as an SPDX expression, as far as it says; else what it says."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [c.split(" :: ") for c in metadata.get_all("Classifier", [])]
    # "License :: OSI Approved" alone says nothing; several are a choice.
    said = [c[-1] for c in classifiers if c[0] == "License" and c[1:] != ["OSI Approved"]]
    said = said or [str(metadata.get("License") or "").strip()]
    return " OR ".join(NAMES.get(name, name) for name in said)


def installed(requirements: list[str]) -> Iterator[tuple[str, Distribution | None]]:
    """What the requirements need, and what these need, with its distribution if it is there."""
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in requirements]
    while waiting:
        wanted, of_extra = waiting.pop()
        if wanted.marker and not wanted.marker.evaluate({"extra": of_extra}):
            continue
        if wanted.name == "metacurate":
            lines = (line for e in wanted.extras for line in PROJECT["optional-dependencies"][e])
            waiting += [(Requirement(line), "") for line in lines]
            continue
        for extra in ("", *sorted(wanted.extras)):
            if (wanted.name.lower(), extra) in seen:
                continue
            seen.add((wanted.name.lower(), extra))
            try:
                found = distribution(wanted.name)
            except PackageNotFoundError:
                yield wanted.name, None
                continue
            yield wanted.name, found
            waiting += [(Requirement(line), extra) for line in found.requires or ()]


def test_licences_of_dependencies() -> None:
    core = dict(installed(PROJECT["dependencies"]))
    assert [name for name, found in core.items() if found is None] == []
    everything = core | dict(installed(["metacurate[all]"]))
    assert len(everything) > len(core) > 10
    refused = {
        name: said
        for name, found in everything.items()
        if found is not None and not name.startswith(OF_CUDA)
        if not is_allowed(said := licence(found.metadata))
    }
    assert refused == {}


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("Apache-2.0 AND AGPL-3.0-or-later", False),
        ("MPL-2.0 AND (GPL-2.0-only OR MIT)", True),
        ("Apache-2.0 WITH LLVM-exception AND BSD-2-Clause", True),
        ("", False),
    ],
)
def test_expressions(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) is allowed


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("License-Expression", "MIT"), ("Classifier", "License :: Other")], "MIT"),
        ([("License", "x"), ("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
        ([("License", "Apache 2.0"), ("Classifier", "License :: OSI Approved")], "Apache-2.0"),
        ([("License", "GPL-3.0-only")], "GPL-3.0-only"),
        ([], ""),
    ],
)
def test_what_a_package_says(fields: list[tuple[str, str]], expected: str) -> None:
    metadata = Message()
    for name, value in fields:
        metadata[name] = value
    assert licence(metadata) == expected
