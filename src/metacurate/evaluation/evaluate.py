"""One data set's evaluation of one model: what to do with it, the result as JSON and as rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metacurate.errors import UserError
from metacurate.evaluation import datasets
from metacurate.evaluation.zero_shot import LoadedModel, classify, retrieve

TASKS = ("classification", "retrieval")


def evaluate(
    loaded: LoadedModel,
    data: str,
    *,
    task: str | None = None,
    class_names: str | None = None,
    templates: str | None = None,
    groups: str | None = None,
) -> dict[str, Any]:
    """Evaluate a model on a data set (see :mod:`metacurate.evaluation.datasets`).

    ``task`` is "classification" or "retrieval"; if not given, clip-benchmark's
    ``dataset_type.txt`` tells, else it is classification. ``groups``: a JSON file {class name:
    group}. Raises UserError for data or options that do not fit.
    """
    if task is None:
        kind = Path(data) / "dataset_type.txt"
        is_retrieval = kind.is_file() and kind.read_text().strip() == "retrieval"
        task = "retrieval" if is_retrieval else "classification"
    if task not in TASKS:
        raise UserError(f"the task must be one of {', '.join(TASKS)}, not {task!r}")
    if task == "retrieval":
        return {"data": data, "task": task, **retrieve(loaded, data)}
    texts = datasets.class_texts(data, class_names, templates)
    table = _read_groups(groups) if groups is not None else None
    return {"data": data, "task": task, **classify(loaded, data, texts, groups=table)}


def _read_groups(path: str) -> dict[str, str]:
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no usable JSON file: {error}") from None
    if not (isinstance(table, dict) and all(isinstance(v, str) for v in table.values())):
        raise UserError(f"{path} must hold an object of class names and groups")
    return table


def estimates(result: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    """All values with an interval in a result, with their names."""
    found: list[tuple[str, dict[str, Any]]] = []
    for name, value in result.items():
        if isinstance(value, dict):
            if {"value", "low", "high"} <= value.keys():
                found.append((f"{prefix}{name}", value))
            else:
                found += estimates(value, f"{prefix}{name} ".removeprefix("groups "))
    return found
