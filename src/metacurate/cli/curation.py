"""Commands that curate: curate, its stages one by one, and status."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metacurate.cli.numbers import amount, whole_amount
from metacurate.cli.options import (
    AsJson,
    ConfigFile,
    Options,
    PoolInputs,
    only_given,
    open_run,
    reads_pool,
    runs,
    show,
    summary_table,
    totals_rows,
)
from metacurate.cli.root import app
from metacurate.errors import UserError

if TYPE_CHECKING:
    from metacurate.curation.datacard import DataCard
    from metacurate.curation.settings import Balance
    from metacurate.pool.schema import PoolConfig

PIPELINE = "metacurate.pipeline"
"""What local workers import before they start."""

MetadataSource = Annotated[
    str,
    typer.Option(
        "--metadata",
        "-m",
        metavar="M",
        help="'wordnet' (built in), a JSON or Parquet file of entries, or a folder with one for "
        "each language (en.json, zh.parquet).",
    ),
]
Out = Annotated[str, typer.Option("--out", "-o", metavar="DIR", help="Output folder.")]
RunFolder = Annotated[str, typer.Argument(metavar="DIR", help="The output folder of a run.")]
LanguageMapFile = Annotated[
    str | None,
    typer.Option(
        "--language-map",
        metavar="FILE",
        help="JSON {label: language} that changes which metadata language a label means.",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        "--t",
        parser=amount,
        metavar="NUMBER",
        help="Threshold: entries with more matches keep about t pairs (20000, 20k). inf: no "
        "balancing.",
    ),
]
TailProportion = Annotated[
    float | None,
    typer.Option(
        "--p",
        parser=amount,
        metavar="NUMBER",
        help="Solve t so that tail entries hold this share of all matches (0.06).",
    ),
]
TargetSize = Annotated[
    int | None,
    typer.Option(
        parser=whole_amount,
        metavar="NUMBER",
        help="Solve t so that this many pairs are expected to be kept (1000000, 1M).",
    ),
]
GivenCounts = Annotated[
    str | None,
    typer.Option(
        "--counts",
        metavar="FILE",
        help="Balance by these entry counts instead of the pool's own: a run's folder, a data "
        "card, counts.npy, or JSON {entry: count}.",
    ),
]
ExpectSurvival = Annotated[
    float,
    typer.Option(
        help="Share of the images that will survive the download: t is made so much larger that "
        "the target is met after it."
    ),
]
PRule = Annotated[
    str | None,
    typer.Option(
        metavar="nearest|below|same",
        help="How t follows from a tail proportion: nearest (Meta CLIP 2's) or below; same: every "
        "language has --t itself.",
        show_default="nearest with several languages, else below",
    ),
]
Reference = Annotated[
    str,
    typer.Option(
        metavar="LANG",
        help="The language that has --t; the others' thresholds follow from its tail.",
    ),
]
ThresholdOf = Annotated[
    list[str] | None,
    typer.Option(
        "--t-of", metavar="LANG=NUMBER", help="A language's own threshold (ja=5000); repeatable."
    ),
]
ChooseText = Annotated[
    str,
    typer.Option(
        metavar="any|one",
        help="any: each text of a pair may keep it (MetaCLIP). one: one of them, chosen first, as "
        "its later data loaders do.",
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="How entries match: v1 (between spaces), worldwide (Meta CLIP 2's, all languages) or "
        "worldwide+kana.",
        show_default="worldwide with several languages, else v1",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the draws.")]


def _balance_settings(
    t: float | None,
    p: float | None,
    target_size: int | None,
    seed: int,
    expect_survival: float,
    p_rule: str | None,
    reference: str,
    t_of: list[str] | None,
    choose_text: str,
) -> Balance:
    from metacurate.curation.settings import Balance

    aim = only_given({"t": t, "p": p, "target_size": target_size})
    return Balance(
        **aim, seed=seed, expect_survival=expect_survival, p_rule=p_rule, reference=reference,
        t_of=named_amounts(t_of), choose_text=choose_text,
    )  # fmt: skip


def named_amounts(values: list[str] | None) -> tuple[tuple[str, float], ...]:
    """What ``--t-of`` is given: languages and their thresholds."""
    found = []
    for value in values or ():
        name, mark, number = value.rpartition("=")
        if not (name and mark):
            raise UserError(f"--t-of takes a language and its threshold, as ja=5000, not {value!r}")
        found.append((name, amount(number)))
    return tuple(found)


@app.command("curate")
@runs
@reads_pool
def curate_command(
    pool: PoolInputs,
    out: Out,
    metadata: MetadataSource = "wordnet",
    t: Threshold = None,
    p: TailProportion = None,
    target_size: TargetSize = None,
    counts: GivenCounts = None,
    rule: Rule = None,
    seed: Seed = 0,
    expect_survival: ExpectSurvival = 1.0,
    p_rule: PRule = None,
    reference: Reference = "en",
    t_of: ThresholdOf = None,
    choose_text: ChooseText = "any",
    language_map: LanguageMapFile = None,
    report: Annotated[
        bool,
        typer.Option(
            help="Write DIR/report.html too, if the extra report is installed (metacurate report "
            "does it later)."
        ),
    ] = True,
    *,
    pool_config: PoolConfig,
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Curate a pool: match, count, balance, write the subset, its data card, report and README.md.

    A run that was stopped resumes when the same command is run again.

    Example: [bold]metacurate curate pool/ --metadata wordnet --t 20000 --out curated/[/bold]
    """
    from metacurate.curation.matching.spacing import check_rule

    settings = _balance_settings(
        t, p, target_size, seed, expect_survival, p_rule, reference, t_of, choose_text
    )
    start = time.monotonic()
    if rule is not None:
        check_rule(rule)
    with open_run(out, inputs=pool, preload=PIPELINE, compiled=True, **options) as run:
        from metacurate.curation.layout import REPORT
        from metacurate.metadata.store import load_metadata
        from metacurate.pipeline import curate_run, given_counts
        from metacurate.runtime.manifest import finished
        from metacurate.texts.languages import as_language_map

        entries, table = load_metadata(metadata), as_language_map(language_map)
        card = curate_run(
            run, pool, entries, pool_config, settings,
            rule=rule, language_map=table, counts=given_counts(counts, entries), report=report,
        )  # fmt: skip
        has_report = report and finished(run.folder, REPORT) is not None
    _show_card(card, out, time.monotonic() - start, as_json, has_report)


@app.command("match")
@runs
@reads_pool
def match_command(
    pool: PoolInputs,
    out: Out,
    metadata: MetadataSource = "wordnet",
    rule: Rule = None,
    language_map: LanguageMapFile = None,
    *,
    pool_config: PoolConfig,
    options: Options,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Match all texts of a pool against the metadata; writes DIR/index.

    Example: [bold]metacurate match pool/ --metadata wordnet --out run/[/bold]
    """
    from metacurate.library import match

    totals = match(
        pool, metadata, out,
        rule=rule, language_map=language_map, pool_config=pool_config, **options,
    )  # fmt: skip
    show(totals, summary_table("match", totals_rows(totals)), as_json=as_json)


@app.command("count")
@runs
def count_command(
    run_folder: RunFolder,
    *,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Count how often each entry matches; writes DIR/counts.npy.

    Example: [bold]metacurate count run/[/bold]
    """
    from metacurate.library import count

    totals = count(run_folder, **options)
    show(totals, summary_table("count", totals_rows(totals)), as_json=as_json)


@app.command("balance")
@runs
def balance_command(
    run_folder: RunFolder,
    t: Threshold = None,
    p: TailProportion = None,
    target_size: TargetSize = None,
    counts: GivenCounts = None,
    seed: Seed = 0,
    expect_survival: ExpectSurvival = 1.0,
    p_rule: PRule = None,
    reference: Reference = "en",
    t_of: ThresholdOf = None,
    choose_text: ChooseText = "any",
    *,
    options: Options,
    as_json: AsJson = False,
) -> None:
    """Balance a matched and counted pool; writes DIR/curated, the data card and README.md.

    Example: [bold]metacurate balance run/ --target-size 1000000[/bold]
    """
    from metacurate.library import balance_run

    start = time.monotonic()
    aim = only_given({"t": t, "p": p, "target_size": target_size})
    card = balance_run(
        run_folder, **aim, counts=counts, seed=seed, expect_survival=expect_survival,
        p_rule=p_rule, reference=reference, t_of=dict(named_amounts(t_of)),
        choose_text=choose_text, **options,
    ).card  # fmt: skip
    _show_card(card, run_folder, time.monotonic() - start, as_json, has_report=False)


@app.command("status")
def status_command(
    run_folder: RunFolder,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Compare the checksums of all files of finished stages; exit code 1 if one "
            "differs.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show how far the stages in an output folder are, and whether their files are whole.

    What --verify finds damaged, the command that made the run makes again when it is given again.

    Example: [bold]metacurate status run/ --verify[/bold]
    """
    from metacurate.library import status

    found = status(run_folder, verify=verify)
    wrong = found.get("damaged", {})
    rows = [(name, _progress(stage)) for name, stage in found["stages"].items()]
    if training := found.get("training"):
        rows += _training(training)
    rows += _arms(found.get("runs", []))
    languages = found.get("languages", {})
    for language, facts in list(languages.items())[:SHOWN_LANGUAGES]:
        told = f"{facts['texts']:,} texts, {facts['match_counts']:,} matches"
        if facts.get("t") is not None:
            told += f", t {facts['t']:,.6g}" if facts["t"] != "inf" else ", t inf"
        rows.append((f"language {language}", told))
    if len(languages) > SHOWN_LANGUAGES:
        rows.append(("", f"and {len(languages) - SHOWN_LANGUAGES:,} more (--json)"))
    rows += [(f"damaged: {name}", reason) for name, reason in wrong.items()]
    if verify and not wrong:
        rows.append(("files", "all as they were written"))
    show(found, summary_table(run_folder, rows), as_json=as_json)
    if wrong:
        raise typer.Exit(1)


SHOWN_LANGUAGES = 12


def _progress(stage: Mapping[str, Any]) -> str:
    """How far a stage is, in words."""
    state, rate, left = stage["state"], stage["shards_per_minute"], stage["seconds_left"]
    age = stage["age_seconds"]
    told = [state]
    if stage["shards"]:
        told.append(f"{stage['shards_done']:,} of {stage['shards']:,} {stage['parts']}")
    if state == "running" and rate is not None:
        told.append(f"{_rounded(rate)} a minute")
    if left is not None:
        told.append(f"some {span(left)} left")
    if age is not None:
        newest = "the newest " if state == "running" and stage["shards_done"] else ""
        begun = "begun " if state in ("running", "stopped") and not stage["shards_done"] else ""
        told.append(f"{newest}{begun}{span(age)} ago")
    if state == "stopped":
        told.append("the same command again resumes")
    return ", ".join(told)


def _training(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How far a training run is, in rows."""
    seen = f"{training['seen_pairs']:,} of {training['budget']:,}"
    if training["pairs_per_second"] is not None:
        seen += f", {_rounded(training['pairs_per_second'])} a second"
    rows = [("seen pairs", seen)]
    if training["loss"] is not None:
        rows.append(("loss", f"{training['loss']:.4g}"))
    saved = training["checkpoint"]
    rows.append(("last checkpoint", "none yet" if saved is None else f"step {saved:,}"))
    return rows


def _arms(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """How far an experiment is: a row an arm, its seeds by their state."""
    rows: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        told = str(run["seed"])
        if run["state"] in ("running", "stopped"):
            told += f" ({_progress(run['train'])})"
        rows.setdefault(run["arm"], {}).setdefault(run["state"], []).append(told)
    return [
        (
            f"arm {arm}",
            "; ".join(
                f"{state}: seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}"
                for state, seeds in states.items()
            ),
        )
        for arm, states in rows.items()
    ]


def _rounded(rate: float) -> str:
    """A rate with three digits, or all of those before the point."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def span(seconds: float) -> str:
    """A time in the largest unit of which there are at least two: ``90 s``, ``5 min``, ``3 h``."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def _show_card(card: DataCard, out: str, seconds: float, as_json: bool, has_report: bool) -> None:
    from metacurate.curation.curated import facts

    rows = facts(card)
    rows += [
        ("time", f"{seconds:.1f} s"),
        ("subset", f"{out}/curated/"),
        ("data card", f"{out}/datacard.json"),
        ("report", f"{out}/report.html" if has_report else "metacurate report writes it"),
    ]
    show({**card, "out": out}, summary_table("Curated", rows), as_json=as_json)
