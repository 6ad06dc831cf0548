"""One data set's evaluation of one model: what to do with it, the result as JSON and as rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from metacurate.counts import in_words
from metacurate.errors import UserError
from metacurate.evaluation import datasets
from metacurate.evaluation.multilingual import cvqa, xm3600
from metacurate.evaluation.zero_shot import LoadedModel, classify, retrieve
from metacurate.plugins import load_plugin
from metacurate.runtime.inputs import read_text
from metacurate.runtime.progress import Meter
from metacurate.runtime.storage import Folder

Task = Callable[..., Mapping[str, Any]]
TASKS: dict[str, Task] = {
    "classification": classify, "retrieval": retrieve, "xm3600": xm3600, "cvqa": cvqa,
}  # fmt: skip
CLASSIFICATION = "classification"
TYPE_FILE = "dataset_type.txt"


def evaluate(
    loaded: LoadedModel,
    data: str,
    *,
    task: str | None = None,
    class_names: str | None = None,
    templates: str | None = None,
    groups: str | None = None,
    progress: Meter | None = None,
) -> dict[str, Any]:
    """Evaluate a model on a data set (see ``metacurate.evaluation.datasets``).

    ``task`` is "classification", "retrieval", "xm3600", "cvqa" or a task of one's own
    (``metacurate.plugins``), a callable of ``loaded``, ``data`` and ``progress`` that gives a
    dictionary; if not given, clip-benchmark's ``dataset_type.txt`` tells, and without that file it
    is classification. ``groups``: a JSON file {class name: group}. ``progress`` is told of the
    images. Raises UserError for data or options that do not fit.
    """
    if task is None:
        file = Folder(data).address(TYPE_FILE)
        task = read_text(file).strip().lower() if Folder(file).is_file() else CLASSIFICATION
        if task not in TASKS:
            known = ", ".join(TASKS)
            raise UserError(f"{file} names the task {task!r}; only {known} are known")
    if task != CLASSIFICATION:
        run = load_plugin("evaluation task", task, TASKS)
        return {"data": data, "task": task, **run(loaded, data, progress=progress)}
    texts = datasets.class_texts(data, class_names, templates)
    table = _groups_of(texts, groups) if groups is not None else None
    result = classify(loaded, data, texts, groups=table, progress=progress)
    return {"data": data, "task": task, **result}


def check(data: str, class_names: str | None, templates: str | None, groups: str | None) -> None:
    """UserError if a data set for classification, or a file about it, cannot be found."""
    texts = datasets.class_texts(data, class_names, templates)
    if groups is not None:
        _groups_of(texts, groups)
    skipped: Counter[str] = Counter()
    if next(datasets.examples(data, skipped), None) is None:
        raise UserError(f"{data} has no usable image ({in_words(skipped)})")


def _groups_of(texts: datasets.ClassificationText, path: str) -> dict[str, str]:
    """``read_groups``; UserError if no class has a group."""
    table = read_groups(path)
    if table.keys().isdisjoint(texts.class_names):
        raise UserError(
            f"{path} has a group of none of the classes ({texts.class_names[0]!r}, ...)"
        )
    return table


def read_groups(path: str) -> dict[str, str]:
    """The group of each class, by the class's name; UserError if the file has none."""
    try:
        table = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is no usable JSON file: {error}") from None
    if not (isinstance(table, dict) and all(isinstance(v, str) for v in table.values())):
        raise UserError(f"{path} must hold an object of class names and groups")
    return table


def estimates(result: Mapping[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """All values with an interval in a result, with their names."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, value in result.items():
        if isinstance(value, dict):
            if {"value", "low", "high"} <= value.keys():
                found.append((f"{prefix}{name}", value))
            else:
                found += estimates(value, f"{prefix}{name} ".removeprefix("groups "))
    return found
