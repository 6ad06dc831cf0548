"""Commands that use what was curated: train, eval and experiment (extra ``metacurate[train]``)."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from metacurate.cli import app
from metacurate.cli.options import AsJson, Overwrite, show, summary_table
from metacurate.errors import Stopped

TomlFile = Annotated[
    str, typer.Option("--config", "-c", metavar="FILE", help="TOML file; see docs/training.md.")
]
Out = Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Output folder.")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, help="CPU threads a process; torch's choice if not given."),
]


@app.command("train")
def train_command(
    config: TomlFile,
    out: Out,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a CLIP model on curated pairs at a fixed budget of seen pairs.

    A run that was stopped goes on from its newest checkpoint when the same command is given again.
    The weights in DIR/final.pt load in open_clip.

    Example, one process: [bold]metacurate train --config vit-b-32.toml --out model/[/bold]

    Example, eight GPUs: [bold]torchrun --nproc-per-node 8 -m metacurate train --config
    vit-b-32.toml --out model/[/bold]
    """
    from metacurate.training.openclip import open_clip

    open_clip()
    import os

    from metacurate.training.config import load_train_config
    from metacurate.training.trainer import train

    first = os.environ.get("RANK", "0") == "0"
    try:
        totals = train(load_train_config(config), out, overwrite=overwrite)
    except Stopped as stop:
        if first:
            raise
        raise typer.Exit(128 + stop.number) from None  # the first rank says it for all
    if first:
        show(totals, summary_table("train", _rows(totals)), as_json=as_json)


def _rows(totals: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in totals.items():
        if isinstance(value, dict):
            text = ", ".join(f"{k} {v:,}" for k, v in value.items()) or "none"
        elif isinstance(value, float):
            text = f"{value:,.4g}"
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        rows.append((name.replace("_", " "), text))
    return rows


@app.command("eval")
def eval_command(
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="Folder of 'metacurate train', a checkpoint file, or a tag of open_clip's weights."
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            "-d",
            metavar="DIR",
            help="Folder with a folder a class, or WebDataset as clip-benchmark; repeatable.",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="open_clip's name of the architecture, for files and tags.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="classification or retrieval; found by dataset_type.txt.")
    ] = None,
    classnames: Annotated[
        str | None, typer.Option(help="File with a class name a line, or 'imagenet'.")
    ] = None,
    templates: Annotated[
        str | None,
        typer.Option(help="File with a template a line ({c}: the name), or 'imagenet'."),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(help="JSON file {class name: group}; groups are also reported apart."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Also write the JSON here.")
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
    """
    from metacurate.training.openclip import open_clip

    open_clip()
    import torch
    from rich.table import Table

    from metacurate.evaluation.evaluate import estimates, evaluate
    from metacurate.evaluation.zero_shot import load_model
    from metacurate.progress import meter
    from metacurate.storage import Folder

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_model(checkpoint, model, batch_size=batch_size)
    results = []
    with meter("eval", len(data), "images", parts="data sets") as progress:
        for place in data:
            result = evaluate(
                loaded, place, task=task, class_names=classnames, templates=templates,
                groups=groups, progress=progress,
            )  # fmt: skip
            results.append(result)
            progress.advance()
    table = Table(title="zero-shot evaluation", title_justify="left", box=None)
    for column in ("data", "metric", "%", "95% interval", "n"):
        table.add_column(column, justify="left" if column in ("data", "metric") else "right")
    for result in results:
        for name, e in estimates(result):
            interval = f"{100 * e['low']:.1f} to {100 * e['high']:.1f}"
            label = name.replace("_", " ")
            table.add_row(result["data"], label, f"{100 * e['value']:.1f}", interval, str(e["n"]))
    report = {"checkpoint": checkpoint, "model": model, "results": results}
    if out is not None:
        folder, slash, name = out.rpartition("/")
        Folder(folder or slash or ".").write_json(name, report)
    show(report, table, as_json=as_json)


@app.command("experiment")
def experiment_command(
    config: TomlFile,
    out: Out,
    workers: Annotated[
        int, typer.Option(min=1, help="Training runs at a time; on a GPU they share it.")
    ] = 1,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare ways to choose pairs: the same model, budget and evaluation for each arm and seed.

    Writes DIR/results.json, results.md and plots. What is finished is not done again when the same
    command is given again. Paths in the file are meant from the working directory.

    Example: [bold]metacurate experiment --config examples/emoji_experiment/cpu.toml --out
    emoji/results/ --workers 2[/bold]
    """
    from metacurate.training.openclip import open_clip

    open_clip()
    from rich.table import Table

    from metacurate.experiment import experiment, load_experiment_config, table_rows

    results = experiment(load_experiment_config(config), out, workers=workers, overwrite=overwrite)
    header, rows = table_rows(results)
    table = Table(title="experiment", title_justify="left", box=None)
    for position, column in enumerate(header):
        table.add_column(column, justify="left" if position == 0 else "right")
    for row in rows:
        table.add_row(*row)
    show(results, table, as_json=as_json)
