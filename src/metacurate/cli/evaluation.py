"""The command that scores a model without training it on the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metacurate.cli.options import AsJson, show
from metacurate.cli.root import app
from metacurate.cli.training import Threads
from metacurate.errors import ArgumentError
from metacurate.printable import printable

if TYPE_CHECKING:
    from rich.console import Group


@app.command("eval")
def eval_command(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Folder of 'train' or 'export', a file, or a tag of open_clip's weights."
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            "-d",
            metavar="DIR",
            help="Folder with a folder a class, or WebDataset as clip-benchmark; repeatable.",
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="slip26|datacomp38|vtab",
            help="Evaluate on the data sets of a suite that lie below --root, each by its metric.",
        ),
    ] = None,
    root: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder with the suite's data sets, a folder each."),
    ] = None,
    names_lang: Annotated[
        str | None,
        typer.Option(
            metavar="LANG",
            help="With --suite: ImageNet's class names in a language (de, babel-it, cn).",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="open_clip's name of the architecture, for files and tags.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="classification, retrieval, xm3600, cvqa, or your own (MODULE:FUNCTION); found by "
            "dataset_type.txt."
        ),
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option(
            "--classnames",
            help="File with a class name a line (or .json: an array of names), or 'imagenet'.",
        ),
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option(help="File with a template a line ({c}: the name), or 'imagenet'."),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(help="JSON file {class name: group}; groups are also reported separately."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Also write the JSON here; a suite goes on from what it holds.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model zero-shot: accuracies or recalls with 95% bootstrap intervals.

    Example: [bold]metacurate eval model/ --data imagenet/val --classnames imagenet
    --templates imagenet[/bold]

    Example, published weights: [bold]metacurate eval metaclip_400m --model ViT-B-32-quickgelu
    --data cars/[/bold]

    Example, a suite: [bold]metacurate eval model/ --suite slip26 --root data/ --out
    slip26.json[/bold]
    """
    if suite is not None:
        _suite_alone(
            data=data, task=task, class_names=class_names, templates=templates, groups=groups
        )
        if root is None:
            raise ArgumentError("give {root} DIR with {suite}: the folder with its data sets")
    elif not data:
        raise ArgumentError("give {data} DIR, or {suite} NAME with {root} DIR")
    elif root is not None or names_lang is not None:
        raise ArgumentError("{root} and {names_lang} go with {suite}")
    from metacurate.library import evaluate, evaluate_suite
    from metacurate.runtime.run import check_writable
    from metacurate.runtime.storage import Folder, as_address, split_address

    if suite is not None and root is not None:
        found = evaluate_suite(
            checkpoint, suite, root, model=model, names_lang=names_lang, out=out,
            batch_size=batch_size, threads=threads, show_progress=True,
        )  # fmt: skip
        show(found, suite_tables(found), as_json=as_json)
        return
    file = None if out is None else as_address(out)
    if file is not None:
        read = [checkpoint, *(data or []), class_names, templates, groups]
        check_writable(file, inputs=read)
    report = evaluate(
        checkpoint, data or [], model=model, task=task, class_names=class_names,
        templates=templates, groups=groups, batch_size=batch_size, threads=threads,
        show_progress=True,
    )  # fmt: skip
    from metacurate.cli.tables import Grid
    from metacurate.evaluation.evaluate import estimates

    table = Grid("zero-shot evaluation", "data", "metric", ">%", ">95% interval", ">n")
    for result in report["results"]:
        for name, e in estimates(result):
            interval = f"{100 * e['low']:.1f} to {100 * e['high']:.1f}"
            label = name.replace("_", " ")
            table.add_row(result["data"], label, f"{100 * e['value']:.1f}", interval, str(e["n"]))
    if file is not None:
        folder, name = split_address(file)
        Folder(folder).write_json(name, report)
    show(report, table, as_json=as_json)


def _suite_alone(**options: Any) -> None:
    given = next((name for name, value in options.items() if value), None)
    if given is not None:
        raise ArgumentError("{" + given + "} does not go with {suite}, which knows its data sets")


def suite_tables(report: Mapping[str, Any]) -> Group:
    """What a suite's report says, for the terminal: values, their mean, what is missing, others."""
    from rich.console import Group

    from metacurate.cli.tables import Grid

    def interval(value: Mapping[str, float]) -> tuple[str, str]:
        return (
            f"{100 * value['value']:.1f}",
            f"{100 * value['low']:.1f} to {100 * value['high']:.1f}",
        )

    results, missing, mean = report["results"], report["missing"], report["mean"]
    values = Grid(report["suite"], "data set", "metric", ">%", ">95% interval", ">n", "texts of")
    for result in results.values():
        metric = result["metric"].replace("_", " ")
        value = result["value"]
        values.add_row(
            result["title"], metric, *interval(value), f"{value['n']:,}", result["texts"]
        )
    if mean is not None:
        which = f"mean of {mean['n']} of {report['of']}"
        values.add_row(which, "", *interval(mean), "", "")
    tables = [values]
    if missing:
        absent = Grid(f"missing: {len(missing)} of {report['of']}", "why", "data sets")
        for reason in dict.fromkeys(missing.values()):
            alike = [name for name in missing if missing[name] == reason]
            absent.add_row(printable(reason, 300), ", ".join(alike))
        tables.append(absent)
    models = report["published"]["models"]
    others = Grid(
        "published (" + "; ".join(report["published"]["sources"]) + ")",
        "model", "architecture", ">ImageNet %", ">mean of DataComp's 38 %",
    )  # fmt: skip
    for other in models:
        average = other["datacomp38"]
        others.add_row(
            other["model"], other["architecture"], f"{other['imagenet']:.1f}",
            "" if average is None else f"{average:.1f}",
        )  # fmt: skip
    return Group(*[part for table in (*tables, others) for part in (table, "")][:-1])
