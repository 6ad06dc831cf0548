"""The command that scores a model without training it on the task."""

from __future__ import annotations

from typing import Annotated

import typer

from metacurate.cli.options import AsJson, show
from metacurate.cli.root import app
from metacurate.cli.training import Threads
from metacurate.printable import printable


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
        str | None,
        typer.Option(
            help="classification, retrieval, or your own (MODULE:FUNCTION); found by "
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

    from metacurate.cli.tables import Grid
    from metacurate.evaluation.evaluate import estimates, evaluate
    from metacurate.evaluation.zero_shot import load_model
    from metacurate.runtime.progress import meter, note
    from metacurate.runtime.storage import Folder

    if threads is not None:
        torch.set_num_threads(threads)
    loaded = load_model(checkpoint, model, batch_size=batch_size)
    results = []
    with meter("eval", len(data), "images", parts="data sets") as progress:
        for place in data:
            result = evaluate(
                loaded, place, task=task, class_names=class_names, templates=templates,
                groups=groups, progress=progress,
            )  # fmt: skip
            if repeated := result.get("repeated_class_names"):
                shown = printable(", ".join(repeated), 200)
                note(f"{place}: class names given more than once (the first class counts): {shown}")
            results.append(result)
            progress.advance()
    table = Grid("zero-shot evaluation", "data", "metric", ">%", ">95% interval", ">n")
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
