"""Class names and templates of the suites' data sets, from the package clip-benchmark.

Its files are read as data; its code is not imported, so that its own requirements need not be
installed (``pip install --no-deps clip-benchmark``).
"""

from __future__ import annotations

import functools
import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from metacurate.errors import ArgumentError, UserError
from metacurate.evaluation.datasets import (
    CLASS_NAMES_FILES,
    TEMPLATES_FILE,
    ClassificationText,
    name_of,
    plain_class_folders,
    read_class_names,
    read_templates,
)
from metacurate.evaluation.suites import DataSet

PACKAGE = "clip-benchmark"
ADVICE = f"install the package {PACKAGE} (pip install --no-deps {PACKAGE})"
IMAGENET1K = "imagenet1k"
BABEL = "babel-"
TRANSLATED = ("ar", "cn", "it", "jp")
"""Languages in which clip-benchmark has names of all of ImageNet's classes."""
NO_NAMES = re.compile(r"n\d{8}|[\W\d_]*")
"""Folders' names that name no class."""


class NoNames(Exception):
    """Why a data set has no class names."""


def installed() -> bool:
    """Whether clip-benchmark's files are there."""
    try:
        distribution(PACKAGE)
    except PackageNotFoundError:
        return False
    return True


@functools.lru_cache(maxsize=8)
def _table(file: str) -> dict[str, Any]:
    """A JSON file of clip-benchmark's data sets; UserError if it is not there."""
    try:
        path = distribution(PACKAGE).locate_file(f"clip_benchmark/datasets/{file}")
        table: dict[str, Any] = json.loads(Path(str(path)).read_text(encoding="utf-8"))
    except PackageNotFoundError:
        raise UserError(f"class names come from a package: {ADVICE}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{PACKAGE}'s {file} cannot be read: {error}; {ADVICE}") from None
    return table


def texts_of(data_set: DataSet, data: str, language: str | None) -> tuple[ClassificationText, str]:
    """A data set's class names and templates, and where they are from.

    Of more or fewer classes than were published it is another task, which is said there too.

    Names: those beside the data; else clip-benchmark's, where they are in the order of the data's
    classes; else the folders' own names. Templates: those beside the data, else clip-benchmark's,
    which are ImageNet's where it has none of the data set. With a language: ``names_in``. Raises
    NoNames if there are none.
    """
    folders = [name_of(folder) for folder in plain_class_folders(data)]
    if language is not None:
        if data_set.names != IMAGENET1K:
            raise NoNames(f"there are no class names in {language} for it")
        if folders and len(folders) != len(_table("en_classnames.json")[IMAGENET1K]):
            raise NoNames(f"it has {len(folders):,} class folders, not ImageNet's 1,000")
        return names_in(language), f"{PACKAGE} ({language})"
    sources = ["the folder"]
    classes = read_class_names(data)
    if classes is None:
        classes, source = _without_file(data_set, folders)
        sources = [source]
    if folders and len(folders) != len(classes):
        raise NoNames(f"it has {len(folders):,} class folders, but {len(classes):,} class names")
    templates = read_templates(data)
    if templates is not None:
        sources.append("the folder")
    elif not installed():
        raise NoNames(f"there are no templates: put {TEMPLATES_FILE} beside the data, or {ADVICE}")
    else:
        templates, own = _templates(data_set)
        sources.append(PACKAGE if own else f"{PACKAGE}'s templates of ImageNet")
    if data_set.classes not in (0, len(classes)):
        sources.append(f"{len(classes):,} classes instead of {data_set.classes:,}")
    return ClassificationText(classes, templates), ", ".join(dict.fromkeys(sources))


def _templates(data_set: DataSet) -> tuple[tuple[str, ...], bool]:
    """clip-benchmark's templates, and whether they are the data set's own."""
    table = _table("en_zeroshot_classification_templates.json")
    keys = (data_set.name, data_set.short, data_set.names)
    own = next((key for key in keys if key in table), None)
    return tuple(table[own or IMAGENET1K]), own is not None


def _without_file(data_set: DataSet, folders: list[str]) -> tuple[tuple[tuple[str, ...], ...], str]:
    if folders:
        ordered = bool(data_set.order) and all(
            re.fullmatch(data_set.order, folder) for folder in folders
        )
    else:
        ordered = data_set.tars
    if data_set.names and ordered and installed():
        return tuple((name,) for name in _table("en_classnames.json")[data_set.names]), PACKAGE
    if folders and not ordered and not any(NO_NAMES.fullmatch(folder) for folder in folders):
        return tuple((folder.replace("_", " "),) for folder in folders), "the folders' names"
    advice = f", or {ADVICE}" if data_set.names and ordered else ""
    raise NoNames(f"there are no class names: put {CLASS_NAMES_FILES[0]} beside the data{advice}")


def names_in(language: str) -> ClassificationText:
    """ImageNet's class names and templates in a language.

    ``ar``, ``cn``, ``it`` and ``jp`` are clip-benchmark's translations of all classes; other codes
    (and ``babel-it``) are Babel-ImageNet's, which has names of some classes only: its images are
    those of these classes, told from these classes alone. ArgumentError if there is no such
    language.
    """
    code = language.lower()
    if code in TRANSLATED:
        names = _table(f"{code}_classnames.json")[IMAGENET1K]
        templates = _table(f"{code}_zeroshot_classification_templates.json")[IMAGENET1K]
        return ClassificationText(tuple((name,) for name in names), tuple(templates))
    babel, prompts = _table("babel_imagenet.json"), _table("nllb_dist13b_prompts.json")
    key = code.removeprefix(BABEL).upper()
    if key not in babel or key not in prompts:
        known = sorted({*TRANSLATED, *(k.lower() for k in babel if k in prompts)})
        raise ArgumentError(
            "{names_lang} {language!r}: there are no class names in it; known are {known}, and "
            "{babel} with one of them for Babel-ImageNet's names where both are known",
            language=language,
            known=", ".join(known),
            babel=BABEL,
        )
    numbers, names = babel[key]
    return ClassificationText(
        tuple((name,) for name in names), tuple(prompts[key]), tuple(map(int, numbers))
    )
