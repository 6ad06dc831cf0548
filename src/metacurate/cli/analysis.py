"""Commands that look at distributions: inspect, diff and plan."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from metacurate.cli.curation import ChooseText, PRule, Reference, ThresholdOf, named_amounts
from metacurate.cli.help import App
from metacurate.cli.numbers import amount, whole_amount
from metacurate.cli.options import AsJson, ReadOptions, reads, show, summary_table
from metacurate.cli.root import app
from metacurate.cli.tables import Grid
from metacurate.curation.settings import threshold_text
from metacurate.printable import printable

if TYPE_CHECKING:
    from metacurate.analysis.plan import Plan

inspect_app = App(help="Look closely at a text, an entry or a pair.", no_args_is_help=True)
app.add_typer(inspect_app, name="inspect")

RunOption = Annotated[
    str, typer.Option("--run", metavar="DIR", help="The output folder of a finished run.")
]


def _foreign(text: str | None, limit: int = 80) -> Text:
    """Text from a pool or a metadata file for the terminal: no control codes, no markup."""
    return Text("–" if text is None else printable(text, limit))


Lang = Annotated[
    str | None, typer.Option(help="The language, with metadata of several.", show_default=False)
]


@inspect_app.command("text")
def inspect_text_command(
    text: Annotated[str, typer.Argument(help="The text, in quotation marks.")],
    run: Annotated[
        str | None, typer.Option("--run", metavar="DIR", help="A run to take the rest from.")
    ] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", "-m", metavar="M", help="Entries, without --run.")
    ] = None,
    counts: Annotated[
        str | None,
        typer.Option(
            metavar="C", help="Their counts: counts.npy, a data card, or JSON {entry: count}."
        ),
    ] = None,
    t: Annotated[
        float | None,
        typer.Option("--t", parser=amount, metavar="NUMBER", help="The threshold."),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="How entries match, without --run: v1, worldwide or worldwide+kana.",
            show_default="worldwide with several languages, else v1",
        ),
    ] = None,
    lang: Lang = None,
    as_json: AsJson = False,
) -> None:
    """Show which entries a text matches, each entry's p, and the probability that it is kept.

    Example: [bold]metacurate inspect text "a photo of a red panda" --run run/[/bold]
    """
    from metacurate.library import inspect_text

    found = inspect_text(text, run, metadata=metadata, counts=counts, t=t, rule=rule, lang=lang)
    table = Grid("", "entry", ">count", ">p", "part")
    for match in found["matches"]:
        table.add_row(
            _foreign(match["entry"]), f"{match['count']:,}", f"{match['p']:.4g}", match["part"]
        )
    rows: list[tuple[str, str | Text]] = [
        ("text", _foreign(text, 500)),
        ("threshold t", threshold_text(found["t"])),
        ("matches", f"{len(found['matches']):,}"),
        ("kept with probability", f"{found['keep_prob']:.6g}"),
    ]
    show(found, Group(summary_table("Text", rows), table), as_json=as_json)


@inspect_app.command("entry")
@reads
def inspect_entry_command(
    name: Annotated[str, typer.Argument(help="The entry as the metadata has it.")],
    run: RunOption,
    samples: Annotated[int, typer.Option(min=0, help="How many sample pairs.")] = 5,
    lang: Lang = None,
    *,
    options: ReadOptions,
    as_json: AsJson = False,
) -> None:
    """Show an entry's counts before and after balancing, its p, and some of its kept pairs.

    Example: [bold]metacurate inspect entry "red panda" --run run/[/bold]
    """
    from metacurate.library import inspect_entry

    found = inspect_entry(name, run, samples=samples, lang=lang, **options)
    rows: list[tuple[str, str | Text]] = [
        ("entry", _foreign(name)),
        ("id", f"{found['id']:,}"),
        *((key, _foreign(found[key])) for key in ("source", "lang") if found[key] is not None),
        *([("score", f"{found['score']:g}")] if found["score"] is not None else []),
        ("count before", f"{found['count']:,} (rank {found['rank']:,})"),
        ("count after", f"{found['count_kept']:,}"),
        ("threshold t", threshold_text(found["t"])),
        ("p", f"{found['p']:.6g}"),
        ("part", found["part"]),
    ]
    table = Grid("", "=uid", ">keep probability", "text")
    for sample in found["samples"]:
        table.add_row(
            sample["uid"],
            f"{sample['keep_prob']:.4g}",
            Text(printable(sample["text"], 200, sample["length"])),
        )
    parts = [summary_table("Entry", rows)] + [table] * bool(found["samples"])
    show(found, Group(*parts), as_json=as_json)


@inspect_app.command("uid")
@reads
def inspect_uid_command(
    uid: Annotated[str, typer.Argument(metavar="HEX", help="The pair's uid: 32 hex digits.")],
    run: RunOption,
    *,
    options: ReadOptions,
    as_json: AsJson = False,
) -> None:
    """Show a matched pair's texts, matches and draws, and whether it is kept.

    Example: [bold]metacurate inspect uid 00f1c2d3e4a5968778695a4b3c2d1e0f --run run/[/bold]
    """
    from metacurate.library import inspect_uid

    found = inspect_uid(uid, run, **options)
    parts: list[Any] = []
    for pair in found["pairs"]:
        rows: list[tuple[str, str | Text]] = [
            ("uid", found["uid"]),
            ("url", _foreign(pair["url"], 300)),
            ("where", f"unit {pair['shard']:,}, row {pair['row']:,}"),
            ("threshold t", threshold_text(found["t"])),
            ("seed", str(found["seed"])),
            ("kept with probability", f"{pair['keep_prob']:.6g}"),
            ("kept", "yes" if pair["kept"] else "no"),
        ]
        parts.append(summary_table("Pair", rows))
        for place, text in enumerate(pair["texts"]):
            fate = "kept" if text["kept"] else "not kept" if text["chosen"] else "not chosen"
            parts.append(Text(f"\nText {place}, {fate}: ") + _foreign(text["text"], 500))
            table = Grid("", "entry", ">count", ">p", ">draw", "draw < p")
            for match in text["matches"]:
                table.add_row(
                    _foreign(match["entry"]), f"{match['count']:,}", f"{match['p']:.4g}",
                    f"{match['draw']:.4f}", "yes" if match["success"] else "no",
                )  # fmt: skip
            if text["matches"]:
                parts.append(table)
    if found["note"]:
        parts.append(_foreign(found["note"], 500))
    show(found, Group(*parts), as_json=as_json)


@app.command("diff")
def diff_command(
    first: Annotated[str, typer.Argument(metavar="CARD_A", help="Data card, or a run's folder.")],
    second: Annotated[str, typer.Argument(metavar="CARD_B", help="The one to compare it with.")],
    metadata: Annotated[
        str | None,
        typer.Option(
            "--metadata", "-m", metavar="M", help="The entries, for counts without names (.npy)."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="How many entries to list.")] = 20,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write the comparison as a page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two distributions over entries: gained, lost, divergence, head and tail, movers.

    A card may also be a JSON object of entries and counts (or shares), or an array of counts.

    Example: [bold]metacurate diff run-1/ run-2/datacard.json --html diff.html[/bold]
    """
    from metacurate.library import diff

    found = diff(first, second, metadata=metadata, top=top, html=html)
    parts: list[Any] = []
    totals = Grid("Distributions", "", ">A", ">B")
    totals.add_row("threshold t", *(threshold_text(t) for t in found["t"]))
    for part in ("before", "after"):
        if part in found:
            totals.add_row(f"matches {part}", *(f"{n:,}" for n in found[part]["match_counts"]))
            totals.add_row(
                f"entries matched {part}", *(f"{n:,}" for n in found[part]["entries_matched"])
            )
    if "parts" in found:
        totals.add_row("head entries", *(f"{n:,}" for n in found["parts"]["head_entries"]))
        for part in ("before", "after"):
            shares = found["parts"][f"tail_proportion_{part}"]
            totals.add_row(f"tail's share {part}", *(f"{share:.2%}" for share in shares))
    parts.append(totals)
    rows: list[tuple[str, str | Text]] = []
    if "parts" in found:
        rows.append(("entries from tail to head", f"{found['parts']['tail_to_head']:,}"))
        rows.append(("entries from head to tail", f"{found['parts']['head_to_tail']:,}"))
    for part in ("before", "after"):
        if part in found:
            side = found[part]
            divergence = side["jensen_shannon_divergence"]
            rows += [
                (f"gained {part}", _listed(side["entries_gained"], side["gained"])),
                (f"lost {part}", _listed(side["entries_lost"], side["lost"])),
                (
                    f"Jensen-Shannon divergence {part}",
                    "–" if divergence is None else f"{divergence:.6f} bits",
                ),
            ]
    parts.append(summary_table("A to B", rows))
    if "languages" in found:
        parts.append(_compared_languages(found["languages"]))
    last = "after" if "after" in found else "before"
    movers = Grid(f"Largest changes of share ({last} balancing)", "entry", ">A", ">B", ">change")
    for mover in found[last]["movers"]:
        a, b = mover["shares"]
        movers.add_row(
            _foreign(mover["entry"]), *(f"{n:,}" for n in mover["counts"]), f"{b - a:+.4%}"
        )
    if found[last]["movers"]:
        parts.append(movers)
    show(found, Group(*parts), as_json=as_json)


@app.command("plan")
@reads
def plan_command(
    run: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="A counted run: exact expected sizes.")
    ] = None,
    counts: Annotated[
        str | None,
        typer.Option(
            metavar="C",
            help="Counts alone (counts.npy, a data card, JSON {entry: count}): bounds.",
        ),
    ] = None,
    t: Annotated[
        list[float] | None,
        typer.Option(
            "--t", parser=amount, metavar="NUMBER", help="A threshold (20000, 20k); repeatable."
        ),
    ] = None,
    p: Annotated[
        list[float] | None,
        typer.Option("--p", parser=amount, metavar="NUMBER", help="A tail proportion; repeatable."),
    ] = None,
    target_size: Annotated[
        list[int] | None,
        typer.Option(
            parser=whole_amount, metavar="NUMBER", help="Expected pairs to be kept; repeatable."
        ),
    ] = None,
    p_rule: PRule = None,
    reference: Reference = "en",
    t_of: ThresholdOf = None,
    choose_text: ChooseText = "any",
    *,
    options: ReadOptions,
    as_json: AsJson = False,
) -> None:
    """Show what balancing would keep for a sweep of thresholds, without reading the pool.

    From a run's folder the expected sizes are exact (a pass over its index); from counts alone they
    are bounds. With no threshold given, decades of t and p = 0.06 are shown.

    Example: [bold]metacurate plan run/ --t 10000 --t 20000 --t 35000 --target-size 1000000[/bold]
    """
    from metacurate.analysis import plan as planning
    from metacurate.library import plan as plan_sizes

    sweep = planning.Sweep(
        tuple(t or ()), tuple(p or ()), tuple(target_size or ()),
        p_rule, reference, named_amounts(t_of), choose_text,
    )  # fmt: skip
    plans = plan_sizes(run, sweep, counts=counts, **options)
    sizes = (
        (">pairs expected", ">texts expected")
        if run is not None
        else (">pairs, at most", ">texts expected between")
    )
    asked = ["asked"] * any(plan.asked for plan in plans)
    table = Grid("Plan", ">t", *asked, ">p", ">head entries", ">tail entries", ">draws", *sizes)
    for plan in plans:
        least, most = plan.texts
        texts = f"{most:,.0f}" if least == most else f"{least:,.0f} and {most:,.0f}"
        table.add_row(
            threshold_text(plan.t), *[plan.asked] * len(asked), f"{plan.p:.2%}",
            f"{plan.head_entries:,}", f"{plan.tail_entries:,}", f"{plan.draws:,.0f}",
            f"{plan.pairs[1]:,.0f}", texts,
        )  # fmt: skip
    parts = [table, *(_language_table(plan) for plan in plans if plan.languages)]
    found = {"exact": run is not None, "plans": planning.as_json(plans)}
    show(found, Group(*parts), as_json=as_json)


def _compared_languages(languages: dict[str, Any]) -> Grid:
    table = Grid("By language", "language", ">matches A", ">matches B", ">t A", ">t B",
                 ">gained", ">lost", ">divergence")  # fmt: skip
    ranked = sorted(languages.items(), key=lambda item: -sum(item[1]["match_counts"]))
    for language, own in ranked:
        if sum(own["match_counts"]):
            divergence = own["jensen_shannon_divergence"]
            table.add_row(
                printable(language, 20), *(f"{n:,}" for n in own["match_counts"]),
                *map(threshold_text, own["t"]),
                f"{own['entries_gained']:,}", f"{own['entries_lost']:,}",
                "–" if divergence is None else f"{divergence:.6f}",
            )  # fmt: skip
    return table


def _language_table(plan: Plan) -> Grid:
    asked = f" ({plan.asked})" if plan.asked else ""
    title = f"By language at t = {threshold_text(plan.t)}{asked}"
    table = Grid(title, "language", ">t", ">p", ">head entries", ">tail entries", ">draws")
    ranked = sorted(plan.languages, key=lambda own: (-own.draws, own.language))
    for own in ranked:
        if own.draws:
            table.add_row(
                printable(own.language, 20), threshold_text(own.t), f"{own.p:.2%}",
                f"{own.head_entries:,}", f"{own.tail_entries:,}", f"{own.draws:,.0f}",
            )  # fmt: skip
    return table


def _listed(number: int, entries: dict[str, int]) -> Text:
    """A number of entries with a few of their names."""
    names = [printable(entry, 40) for entry in list(entries)[:5]]
    more = ", ..." if number > len(names) else ""
    return Text(f"{number:,}" + (f" ({', '.join(names)}{more})" if names else ""))
