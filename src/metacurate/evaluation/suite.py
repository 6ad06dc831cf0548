"""A whole suite of data sets for one model: what lies below a folder, by each set's own metric."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import xxhash

from metacurate.needs import needs

with needs("train"):
    import torch

from metacurate.errors import ArgumentError, UserError
from metacurate.evaluation import published
from metacurate.evaluation.datasets import contents, files_digest
from metacurate.evaluation.names import NoNames, names_in, texts_of
from metacurate.evaluation.suites import SUITES, DataSet, folders_of, places_of
from metacurate.evaluation.zero_shot import LoadedModel, classify, retrieve
from metacurate.runtime.progress import Meter
from metacurate.runtime.storage import Folder

ABSENT = "there is no folder of it"
FORMAT = 1
"""Raised when the same images and texts come to give other values."""


def evaluate_suite(
    loaded: LoadedModel,
    suite: str,
    root: str,
    *,
    names_lang: str | None = None,
    out: str | None = None,
    progress: Meter | None = None,
) -> dict[str, Any]:
    """Evaluate a model on every data set of a suite that lies below ``root``.

    ``suite``: a key of ``suites.SUITES``. ``names_lang``: the language of the class names (see
    ``names.names_in``). ``out``: a JSON file that the report is written to after each data set;
    what it holds already of the same weights, files and texts is not done again. The report:

    - ``results``: by data set, its ``metric``, its ``value`` (an estimate, in [0, 1]), ``data``,
      ``texts`` (where they are from) and the whole ``result``;
    - ``missing``: by data set, why there is no value;
    - ``mean``: of the values there are, with its interval from those of the data sets; None
      without any;
    - ``weights``: the checksum of the model's weights; ``published``: figures of other models.

    Raises UserError for a suite, a folder, a language or a file ``out`` that does not fit.
    """
    if suite not in SUITES:
        raise ArgumentError(
            "there is no {suite} {value!r}; known are {known}", value=suite, known=", ".join(SUITES)
        )
    if not any(contents(root)):
        raise ArgumentError("there is no folder {place} with data sets ({root})", place=root)
    if names_lang is not None:
        names_in(names_lang)
    made_of = {
        "format": FORMAT, "suite": suite, "names_lang": names_lang, "weights": weights_of(loaded)
    }  # fmt: skip
    earlier = _earlier(out, made_of)
    folders = folders_of(root)
    if not any(folders.get(name) for s in SUITES[suite] for name in s.folders):
        raise ArgumentError(
            "below {place} is no folder of any data set of {suite} {name}: it may be called "
            "{example}",
            place=root, name=suite,
            example=", ".join(f"wds_{s.name.replace('/', '-')}" for s in SUITES[suite][:2])
            + f" or {SUITES[suite][0].short}",
        )  # fmt: skip
    results: dict[str, Any] = {}
    missing: dict[str, str] = {}
    report: dict[str, Any] = {}
    for data_set in SUITES[suite]:
        if progress is not None:
            progress.tell(data_set.title)
        try:
            results[data_set.name] = _evaluate(
                loaded, data_set, folders, names_lang, earlier.get(data_set.name), progress
            )
        except (NoNames, UserError) as reason:
            missing[data_set.name] = str(reason)
        report = {
            **made_of, "root": root, "of": len(SUITES[suite]), "results": results,
            "missing": missing, "mean": _mean(results), "published": published.as_json(),
        }  # fmt: skip
        if out is not None and data_set.name in results:
            _write(out, report, earlier)
        if progress is not None:
            progress.advance()
    if out is not None:
        _write(out, report, {})
    return report


def _evaluate(
    loaded: LoadedModel,
    data_set: DataSet,
    folders: dict[str, list[str]],
    language: str | None,
    earlier: Mapping[str, Any] | None,
    progress: Meter | None,
) -> dict[str, Any]:
    """One data set's part of the report; NoNames or UserError says why there is none."""
    if data_set.lacking:
        raise NoNames(f"it cannot be evaluated: {data_set.lacking}")
    places = places_of(data_set, folders)
    if not places:
        raise NoNames(ABSENT)
    data = places[0]
    texts, source = None, "captions"
    if data_set.task == "classification":
        texts, source = texts_of(data_set, data, language)
    elif language is not None:
        raise NoNames(f"there are no class names in {language} for it")
    files = files_digest(data, texts)
    if earlier is not None and earlier.get("files") == files:
        return dict(earlier)
    result: Mapping[str, Any]
    if texts is None:
        result = retrieve(loaded, data, progress=progress)
    else:
        result = classify(
            loaded, data, texts, macro_f1=data_set.metric == "f1_macro",
            group_field=data_set.field, progress=progress,
        )  # fmt: skip
    if data_set.metric not in result:
        raise NoNames(_without_metric(data_set, result))
    return {
        "title": data_set.title,
        "metric": data_set.metric,
        "value": result[data_set.metric],
        "data": data,
        "other_folders": places[1:],
        "texts": source,
        "files": files,
        "result": result,
    }


def _without_metric(data_set: DataSet, result: Mapping[str, Any]) -> str:
    if data_set.field is not None:
        return (
            f"it is reported by {data_set.metric}, and no image has its group (whole numbers in "
            "KEY.npy)"
        )
    return (
        f"it is reported by {data_set.metric}, which {result['classes']} classes and "
        f"{result['images']:,} images do not give"
    )


def weights_of(loaded: LoadedModel) -> str:
    """The checksum of a model's weights and of how it prepares images."""
    prepared = re.sub(r" at 0x[0-9a-f]+", "", repr(loaded.preprocess))  # functions' addresses
    total = xxhash.xxh3_128(prepared.encode())
    for name, value in sorted(loaded.model.state_dict().items()):
        plain = value.detach().cpu().contiguous()
        total.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        total.update(plain.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _earlier(out: str | None, made_of: Mapping[str, Any]) -> dict[str, Any]:
    """The results that a file holds already; UserError if it holds something else."""
    if out is None:
        return {}
    folder, name = _split(out)
    report = folder.read_json(name)
    if report is None:
        return {}
    if not isinstance(report, dict) or "results" not in report or "suite" not in report:
        raise ArgumentError("{file} holds no report of a suite; give {out} another name", file=out)
    other = [key for key, value in made_of.items() if report.get(key) != value]
    if other:
        raise ArgumentError(
            "{file} holds results of another evaluation (by {what}); give {out} another name, or "
            "remove it",
            file=out, what=", ".join(other),
        )  # fmt: skip
    return dict(report["results"])


def _write(out: str, report: Mapping[str, Any], earlier: Mapping[str, Any]) -> None:
    """Write a report with what is known from before and has not been come to yet."""
    folder, name = _split(out)
    waiting = {k: v for k, v in earlier.items() if k not in report["missing"]}
    folder.write_json(name, {**report, "results": {**waiting, **report["results"]}})


def _split(out: str) -> tuple[Folder, str]:
    folder, slash, name = out.rpartition("/")
    return Folder(folder or slash or "."), name


def _mean(results: Mapping[str, Any]) -> dict[str, float] | None:
    """The mean of the values; its interval takes the data sets' errors as independent, normal."""
    values = [result["value"] for result in results.values()]
    if not values:
        return None
    mean = sum(value["value"] for value in values) / len(values)
    spread = math.sqrt(sum(((v["high"] - v["low"]) / 2) ** 2 for v in values)) / len(values)
    return {"value": mean, "low": mean - spread, "high": mean + spread, "n": len(values)}
