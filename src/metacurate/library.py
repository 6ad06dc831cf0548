"""The commands as functions: paths and settings in, totals out (docs/python-api.md).

Each imports its room when it is called, and what starts worker processes does so first: the imports
go on meanwhile. Settings are the rooms' frozen dataclasses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar, Unpack

from metacurate.arguments import listed, string, whole
from metacurate.errors import ArgumentError
from metacurate.runtime.progress import Listener, meter, note, reporting
from metacurate.runtime.run import (
    ReadOptions,
    RunOptions,
    check_writable,
    hold_if_writable,
    is_held,
    open_run,
    read_run,
)
from metacurate.runtime.scratch import scratch_folder
from metacurate.runtime.storage import Folder, as_address, as_addresses

if TYPE_CHECKING:
    from metacurate.analysis.plan import Plan, Sweep
    from metacurate.commoncrawl.extract import ExtractConfig, ExtractTotals
    from metacurate.curation.balancing import Counts
    from metacurate.curation.curated import Curated
    from metacurate.curation.datacard import DataCard
    from metacurate.deduplication.dedup import DedupConfig, DedupTotals
    from metacurate.experiments.config import ExperimentConfig
    from metacurate.experiments.results import Results
    from metacurate.images.download import DownloadConfig, DownloadTotals
    from metacurate.images.duplicates import DuplicatesTotals
    from metacurate.images.filter import FilterConfig, FilterTotals
    from metacurate.images.survival import Survival
    from metacurate.metadata.build import BuildConfig, BuildTotals
    from metacurate.metadata.describe import Description
    from metacurate.metadata.store import Metadata
    from metacurate.pool.identify import LanguageConfig, LanguageTotals
    from metacurate.pool.memory import AnyPool
    from metacurate.pool.schema import PoolConfig
    from metacurate.pool.written import WrittenPool
    from metacurate.reporting.build import ReportConfig, ReportTotals
    from metacurate.runtime.manifest import Statistics
    from metacurate.texts.languages import LanguageMap
    from metacurate.training.config import TrainConfig
    from metacurate.training.export import ExportTotals
    from metacurate.training.trainer import TrainTotals
    from metacurate.webdataset.ingest import IngestTotals
    from metacurate.webdataset.reshard import ReshardTotals
    from metacurate.webdataset.uid_list import UidListTotals

PIPELINE = "metacurate.pipeline"
"""What local workers of curation import before they start."""

Path: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = Path | Sequence[Path]
Config = TypeVar("Config")
Totals = TypeVar("Totals", bound=Mapping[str, Any])


def _checked(config: Config) -> Config:
    """Settings whose lists are tuples; ArgumentError for a string in the place of a list."""
    changed: dict[str, Any] = {}
    for each in fields(config):  # type: ignore[arg-type]
        value = getattr(config, each.name)
        if str(each.type).startswith("tuple["):
            changed[each.name] = tuple(listed(each.name, value))
        elif is_dataclass(value) and not isinstance(value, type):
            changed[each.name] = _checked(value)
    return replace(config, **changed)  # type: ignore[type-var]


# Pools.


def _written(out: Path | None, work: Callable[[str], Totals]) -> WrittenPool[Totals]:
    """The pool that ``work`` writes into a folder; without one it is read into memory."""
    from metacurate.pool.written import WrittenPool, read_written

    if out is not None:
        place = as_address(out, "out")
        return WrittenPool(work(place), place)
    with scratch_folder() as scratch:
        return WrittenPool(work(str(scratch)), None, read_written(Folder(str(scratch))))


def extract(
    sources: Paths, out: Path, config: ExtractConfig | None = None, **options: Unpack[RunOptions]
) -> ExtractTotals:
    """Extract a pool from WAT and WARC files: images with their texts (``pool extract``).

    Args:
        sources: Files, folders, patterns or ``@LIST``s.
        out: The output folder; the pool is ``out/pool/*.parquet``.
        config: Languages, identifier, text rules (``ExtractConfig``).
        options: How it runs (``RunOptions``).

    Raises:
        UserError: What the caller can fix; no source is an archive.
    """
    from metacurate.commoncrawl.extract import ExtractConfig, extract_pool, report_bad_files

    places = as_addresses(sources, "sources")
    settings = _checked(config or ExtractConfig())
    totals = extract_pool(places, as_address(out, "out"), settings, **options)
    report_bad_files(totals)
    return totals


def dedup(
    pool: AnyPool,
    out: Path | None = None,
    config: DedupConfig | None = None,
    *,
    pool_config: PoolConfig | None = None,
    **options: Unpack[RunOptions],
) -> WrittenPool[DedupTotals]:
    """Make one row of all rows with the same image URL or key (``pool dedup``).

    Args:
        pool: Files, folders, patterns or ``@LIST``s; or a table in memory, as of ``curate``.
        out: The output folder; the pool is ``out/pool/*.parquet``. None: nothing stays on disk, the
            pool is in memory (``WrittenPool.to_arrow``).
        config: What else to drop (``DedupConfig``).
        pool_config: Which columns hold what; found by name if not given.
        options: How it runs (``RunOptions``).
    """
    from metacurate.deduplication.dedup import DedupConfig
    from metacurate.deduplication.dedup import dedup as run
    from metacurate.pool.schema import PoolConfig

    settings = _checked(config or DedupConfig())
    columns = pool_config or PoolConfig()
    return _written(out, lambda place: run(pool, place, settings, columns, **options))


def identify_languages(
    pool: AnyPool,
    out: Path | None = None,
    config: LanguageConfig | None = None,
    *,
    pool_config: PoolConfig | None = None,
    **options: Unpack[RunOptions],
) -> WrittenPool[LanguageTotals]:
    """Find the language of each text that has none (``pool language``).

    Args:
        pool: As of ``dedup``.
        out: As of ``dedup``.
        config: The identifier and its least score (``LanguageConfig``).
        pool_config: Which columns hold what; found by name if not given.
        options: How it runs (``RunOptions``).
    """
    from metacurate.pool.identify import LanguageConfig
    from metacurate.pool.identify import identify_languages as run
    from metacurate.pool.schema import PoolConfig

    settings, columns = config or LanguageConfig(), pool_config or PoolConfig()
    return _written(out, lambda place: run(pool, place, settings, columns, **options))


def ingest(tars: Path, out: Path, **options: Unpack[RunOptions]) -> IngestTotals:
    """Make a pool of a folder of WebDataset tars, without their images (``pool ingest``).

    Args:
        tars: The folder of tars.
        out: The output folder; the pool is ``out/pool/*.parquet``.
        options: How it runs (``RunOptions``).
    """
    from metacurate.webdataset.ingest import ingest as run

    return run(as_address(tars, "tars"), as_address(out, "out"), **options)


def reshard(
    curated: Paths,
    tars: Path,
    out: Path,
    *,
    samples_per_tar: int = 10_000,
    **options: Unpack[RunOptions],
) -> ReshardTotals:
    """Copy the samples that a curated pool keeps into new tars (``pool reshard``).

    Args:
        curated: Output folders of this package, or files, folders or patterns.
        tars: The folder of tars that was ingested.
        out: The folder for the new tars.
        samples_per_tar: Consecutive tars are joined until they have so many samples.
        options: How it runs (``RunOptions``).
    """
    from metacurate.webdataset.reshard import reshard as run

    return run(
        as_addresses(curated, "curated"), as_address(tars, "tars"), as_address(out, "out"),
        samples_per_tar=samples_per_tar, **options,
    )  # fmt: skip


def uids(curated: AnyPool, out: Path, **options: Unpack[RunOptions]) -> UidListTotals:
    """Write a pool's sorted uids as DataComp's resharder takes them (``pool uids``).

    Args:
        curated: Output folders of this package, files, folders or patterns; or a table in memory
            (what ``curate`` returns, say).
        out: A ``.npy`` file, of dtype ``u8,u8``, shape (uids,).
        options: How it runs (``RunOptions``).
    """
    from metacurate.webdataset.uid_list import write_uid_list

    return write_uid_list(curated, as_address(out, "out"), **options)


# Images.


def download(
    source: AnyPool, out: Path, config: DownloadConfig | None = None, **options: Unpack[RunOptions]
) -> DownloadTotals:
    """Download the images of a curated set into WebDataset tars (``pool download``).

    Args:
        source: Curated folders, or files, folders or patterns of any pool format with URLs; or a
            table in memory (what ``curate`` returns, say).
        out: The folder for the tars.
        config: Columns, images, limits of requests (``DownloadConfig``).
        options: How it runs (``RunOptions``).
    """
    from metacurate.images.download import DownloadConfig
    from metacurate.images.download import download as run

    settings = _checked(config or DownloadConfig())
    return run(source, as_address(out, "out"), settings, **options)


def duplicates(
    tars: Path, *, max_distance: int = 3, **options: Unpack[RunOptions]
) -> DuplicatesTotals:
    """Mark duplicate images, exact and perceptual, in a folder of tars (``pool duplicates``).

    Args:
        tars: The folder of tars; ``tars/duplicates/*.parquet`` is written.
        max_distance: Differing bits of 64, 0 to 5, up to which two hashes are of one picture.
        options: How it runs (``RunOptions``).
    """
    from metacurate.images.duplicates import mark_duplicates

    return mark_duplicates(as_address(tars, "tars"), max_distance=max_distance, **options)


def filter(
    tars: Path,
    out: Path,
    config: FilterConfig | None = None,
    *,
    gpus_per_task: float = 0,
    **options: Unpack[RunOptions],
) -> FilterTotals:
    """Score images and drop or blur some, into new tars (``pool filter``).

    Args:
        tars: The folder of tars.
        out: The folder for the new tars.
        config: Scorers and rules (``FilterConfig``).
        gpus_per_task: GPUs of each task on Ray, for scorers that use them; 0.5: two tasks share
            one.
        options: How it runs (``RunOptions``).
    """
    from metacurate.images.filter import FilterConfig, filter_images

    settings = _checked(config or FilterConfig())
    return filter_images(
        as_address(tars, "tars"), as_address(out, "out"), settings,
        gpus_per_task=gpus_per_task, **options,
    )  # fmt: skip


def survival(tars: Path) -> Survival:
    """The share of rows that still have an image, with its interval (``pool survival``).

    Args:
        tars: A folder made by ``download`` or ``filter``, or by img2dataset.
    """
    from metacurate.images.survival import survival_rate

    return survival_rate(as_address(tars, "tars"))


# Metadata.


def build_metadata(
    out: Path, config: BuildConfig | None = None, **options: Unpack[RunOptions]
) -> BuildTotals:
    """Build metadata from WordNet, Wikipedia dumps and page views (``metadata build``).

    Args:
        out: The ``.json`` file to write; a ``.parquet`` file with sources and scores lies beside.
        config: Inputs and limits (``BuildConfig``).
        options: How it runs (``RunOptions``).
    """
    from metacurate.metadata.build import BuildConfig
    from metacurate.metadata.build import build_metadata as run

    return run(_checked(config or BuildConfig()), as_address(out, "out"), **options)


def describe_metadata(
    metadata: Path | Metadata | Sequence[str], *, entries: int = 5
) -> Description:
    """The size, fingerprint, sources and some entries of metadata (``metadata info``).

    Args:
        metadata: As of ``curate``.
        entries: How many of the first and last entries to give.
    """
    from metacurate.metadata.describe import describe
    from metacurate.metadata.store import as_metadata

    return describe(as_metadata(metadata), entries)


# Curation, stage by stage.


def match(
    pool: AnyPool,
    metadata: Path | Metadata | Sequence[str],
    out: Path,
    *,
    rule: str | None = None,
    language_map: Path | LanguageMap | None = None,
    pool_config: PoolConfig | None = None,
    **options: Unpack[RunOptions],
) -> Statistics:
    """Match all texts of a pool with the metadata (``match``): the first stage of ``curate``.

    Args:
        pool: As of ``curate``.
        metadata: As of ``curate``.
        out: The output folder; the matches are ``out/index``.
        rule: As of ``curate``.
        language_map: As of ``curate``.
        pool_config: Which columns hold what; found by name if not given.
        options: How it runs (``RunOptions``).

    Returns:
        The totals: ``pairs``, ``texts``, ``pairs_matched``, ``texts_matched``, ``match_counts``,
        ``skipped`` by reason.
    """
    from metacurate.curation.matching.spacing import check_rule

    if rule is not None:
        check_rule(rule)
    from metacurate.pool.memory import Given

    given = Given.of(pool)
    with open_run(
        as_address(out, "out"),
        inputs=given.paths,
        preload=PIPELINE,
        compiled=True,
        held=given.held,
        **options,
    ) as run:
        from metacurate.curation.layout import MATCH
        from metacurate.curation.match import match as stage
        from metacurate.curation.match import needs_of
        from metacurate.metadata.store import as_metadata
        from metacurate.pool.open import open_pool
        from metacurate.pool.schema import PoolConfig
        from metacurate.runtime.stage import do_again
        from metacurate.texts.languages import as_language_map

        entries, columns = as_metadata(metadata), pool_config or PoolConfig()
        table = as_language_map(language_map)
        opened = open_pool(given.files(run), columns, needs_of(entries), engine=run.engine)
        opened.require_rows()

        def work() -> Statistics:
            return stage(run, opened, columns, entries, rule, table)

        return do_again(run, [MATCH], work)


def count(run: Path, **options: Unpack[RunOptions]) -> Statistics:
    """Count how often each entry matches (``count``): the second stage of ``curate``.

    Args:
        run: The output folder of ``match``; ``run/counts.npy`` is written, uint64[entries].
        options: How it runs (``RunOptions``).

    Returns:
        The totals: ``match_counts``.
    """
    with open_run(
        as_address(run, "run"), existing=True, preload=PIPELINE, compiled=True, **options
    ) as opened:
        from metacurate.curation.count import count as stage
        from metacurate.curation.layout import COUNT, finished_section
        from metacurate.runtime.stage import do_again

        do_again(opened, [COUNT], lambda: stage(opened))
        totals: Statistics = finished_section(opened.folder, COUNT)["totals"]
        return totals


def balance_run(
    run: Path,
    *,
    t: float | None = None,
    p: float | None = None,
    target_size: int | None = None,
    counts: Path | Counts | None = None,
    seed: int = 0,
    expect_survival: float = 1.0,
    p_rule: str | None = None,
    reference: str = "en",
    t_of: Mapping[str, float] | None = None,
    choose_text: str = "any",
    **options: Unpack[RunOptions],
) -> Curated:
    """Balance a matched and counted pool (``balance``): the last stages of ``curate``.

    ``balance`` is the same on arrays. All arguments but the first are those of ``curate``.

    Args:
        run: The output folder of ``count`` or ``curate``.
        t: See ``curate``, also for the others.
        p: See there.
        target_size: See there.
        counts: See there.
        seed: See there.
        expect_survival: See there.
        p_rule: See there.
        reference: See there.
        t_of: See there.
        choose_text: See there.
        options: How it runs (``RunOptions``).
    """
    from metacurate.curation.settings import Balance

    settings = Balance(
        t, p, target_size, seed, expect_survival, p_rule=p_rule, reference=reference,
        t_of=tuple((t_of or {}).items()), choose_text=choose_text,
    )  # fmt: skip
    with open_run(
        as_address(run, "run"), existing=True, preload=PIPELINE, compiled=True, **options
    ) as opened:
        from metacurate.curation.balance import balance
        from metacurate.curation.count import count as count_stage
        from metacurate.curation.curated import Curated
        from metacurate.curation.datacard import write_datacard
        from metacurate.curation.layout import BALANCE, run_metadata
        from metacurate.pipeline import given_counts
        from metacurate.runtime.stage import do_again
        from metacurate.sharing.card import renew_card

        if counts is not None:
            entries = run_metadata(opened.folder)
            count_stage(opened, given_counts(counts, entries))

        def work() -> DataCard:
            balance(opened, settings)
            return write_datacard(opened)

        card = do_again(opened, [BALANCE], work)
        renew_card(opened)
        return Curated(card, opened.folder.url)


class Status(TypedDict, total=False):
    """How far a run is.

    ``stages``: the state (``done``, ``running``, ``stopped``, ``stale``), ``shards``,
    ``shards_done``, ``age_seconds`` (since it ended, or since its newest shard),
    ``shards_per_minute`` and ``seconds_left`` of each, None where unknown, and what its ``parts``
    are called; ``training``, of a training run: ``seen_pairs`` of ``budget``,
    ``pairs_per_second``, ``checkpoint`` (the newest one's step) and ``loss``; ``runs``, of an
    experiment: ``arm``, ``seed``, ``state`` (also ``to do``), and these of each run;
    ``languages``: what is known of each language, with several;
    ``damaged``: with ``verify``, files and what is wrong with them.
    """

    stages: dict[str, dict[str, Any]]
    training: dict[str, Any]
    runs: list[dict[str, Any]]
    languages: dict[str, dict[str, Any]]
    damaged: dict[str, str]


def status(run: Path, *, verify: bool = False) -> Status:
    """How far the stages in an output folder are, and whether their files are whole (``status``).

    Args:
        run: The output folder of any command.
        verify: Whether to compare the checksums of all files of finished stages. Those that are
            damaged are marked, so that they are made again, unless the run may only be read.
    """
    from dataclasses import asdict

    from metacurate.curation.layout import languages_of
    from metacurate.runtime import manifest

    folder = Folder(as_address(run, "run"))
    stages = manifest.status(folder, held=is_held(folder))
    found: Status = {"stages": {}}
    verified = manifest.verify
    if "train" in stages:
        from metacurate.training.layout import training_progress

        stages["train"], training = training_progress(folder, stages["train"])
        found["training"] = asdict(training)
    if "experiment" in stages:
        from metacurate.experiments.record import ARMS, runs_progress
        from metacurate.experiments.record import verify as verify_runs

        verified = verify_runs
        stages["experiment"], runs = runs_progress(folder, stages["experiment"])
        found["runs"] = [asdict(each) for each in runs]
        del stages[ARMS.name]  # a record, no work
    found["stages"] = {name: asdict(state) for name, state in stages.items()}
    if languages := languages_of(folder):
        found["languages"] = languages
    if verify:
        with hold_if_writable(folder) as writable:
            found["damaged"] = verified(folder, mark=writable)
    return found


def report(
    run: Path, config: ReportConfig | None = None, **options: Unpack[ReadOptions]
) -> ReportTotals:
    """Write ``run/report.html``, a page on what a run kept and why (``report``).

    Args:
        run: The output folder of ``curate``.
        config: What the page shows (``ReportConfig``).
        options: How it runs (``ReadOptions``).
    """
    from metacurate.curation.layout import BALANCE, finished_section
    from metacurate.reporting.build import ReportConfig, write_report

    with open_run(
        as_address(run, "run"),
        existing=True,
        preload="metacurate.reporting.scan",
        compiled=True,
        **options,
    ) as opened:
        from metacurate.sharing.card import renew_card

        finished_section(opened.folder, BALANCE)
        totals = write_report(opened, _checked(config or ReportConfig()))
        renew_card(opened)
        return totals


# Distributions.


def plan(
    run: Path | None = None,
    sweep: Sweep | None = None,
    *,
    counts: Path | Counts | None = None,
    **options: Unpack[ReadOptions],
) -> list[Plan]:
    """What balancing would keep for a sweep of thresholds (``plan``).

    Args:
        run: A counted run: the expected sizes are exact.
        sweep: The thresholds, tail proportions or sizes (``Sweep``); decades of t if not given.
        counts: Instead of a run entry counts alone, uint64[entries] or a file of them (as of
            ``curate``): the expected sizes are bounds.
        options: How it runs (``ReadOptions``).

    Returns:
        A plan a threshold, sorted by t.
    """
    from metacurate.analysis import plan as planning
    from metacurate.analysis.read_counts import read_counted
    from metacurate.curation.balancing import check_counts

    wanted = _checked(sweep or planning.Sweep())
    if (run is None) == (counts is None):
        raise ArgumentError("give either a run's folder or {counts}")
    if run is not None:
        with read_run(as_address(run, "run"), **options) as opened:
            return planning.plan_run(opened, wanted)
    if isinstance(counts, str | os.PathLike):
        numbers, blocks = read_counted(as_address(counts, "counts"))
        return planning.plan_counts(numbers, wanted, blocks)
    return planning.plan_counts(check_counts(counts), wanted)


def diff(
    first: Path,
    second: Path,
    *,
    metadata: Path | Metadata | Sequence[str] | None = None,
    top: int = 20,
    html: Path | None = None,
) -> dict[str, Any]:
    """Compare two distributions over entries (``diff``).

    Args:
        first: A run's folder, a data card, or a file of counts or shares (as of ``curate``).
        second: The one to compare it with.
        metadata: The entries, as of ``curate``: what has counts without names needs them.
        top: How many entries to list of each kind.
        html: Where to write the comparison as a page, if it is wanted.

    Returns:
        Plain values: ``before`` and ``after`` (balancing) with what was gained and lost, the
        Jensen-Shannon divergence and the largest movers; ``parts``; ``languages``.
    """
    from metacurate.analysis.diff import compare
    from metacurate.analysis.read_counts import file_of, read_card
    from metacurate.metadata.store import as_metadata

    sides = as_address(first, "first"), as_address(second, "second")
    page = None if html is None else as_address(html, "html")
    if page is not None:
        check_writable(page, "html", [*map(file_of, sides), metadata])
    entries = None if metadata is None else as_metadata(metadata)
    cards = read_card(sides[0], entries), read_card(sides[1], entries)
    found = compare(*cards, whole("top", top, 0))
    if page is not None:
        from metacurate.reporting.comparison import render_comparison
        from metacurate.runtime.storage import create_file

        with create_file(page) as file:
            file.write(render_comparison(*cards, found).encode())
    return found


def inspect_text(
    text: str,
    run: Path | None = None,
    *,
    metadata: Path | Metadata | Sequence[str] | None = None,
    counts: Path | Counts | None = None,
    t: float | None = None,
    rule: str | None = None,
    lang: str | None = None,
) -> dict[str, Any]:
    """Which entries a text matches, and the probability that it is kept (``inspect text``).

    Args:
        text: The text.
        run: The output folder of ``curate``, to take the rest from.
        metadata: Without a run: the entries, as of ``curate``.
        counts: Without a run: their counts, as of ``curate``.
        t: Without a run: the threshold.
        rule: Without a run: how entries match, as of ``curate``.
        lang: The text's language, with metadata of several.
    """
    from metacurate.analysis.inspect import Distribution, run_distribution
    from metacurate.analysis.inspect import inspect_text as inspect
    from metacurate.curation.match import rule_for
    from metacurate.curation.settings import Balance
    from metacurate.curation.thresholds import given_thresholds
    from metacurate.metadata.store import as_metadata
    from metacurate.pipeline import given_counts

    if run is not None and metadata is None and counts is None and t is None and rule is None:
        distribution = run_distribution(Folder(as_address(run, "run")))
    elif run is None and metadata is not None and counts is not None and t is not None:
        entries = as_metadata(metadata)
        numbers = given_counts(counts, entries)
        assert numbers is not None
        thresholds = given_thresholds(Balance(t), numbers, entries.blocks)
        distribution = Distribution(entries, numbers, thresholds, rule_for(entries, rule))
    else:
        raise ArgumentError(
            "give either {run} alone, or all of {metadata}, {counts} and {t} (and {rule})"
        )
    return inspect(string("text", text), distribution, lang)


def inspect_entry(
    entry: str,
    run: Path,
    *,
    samples: int = 5,
    lang: str | None = None,
    **options: Unpack[ReadOptions],
) -> dict[str, Any]:
    """An entry's counts before and after balancing, and some of its pairs (``inspect entry``).

    Args:
        entry: The entry as the metadata has it.
        run: The output folder of ``curate``.
        samples: How many sample pairs.
        lang: The language, with metadata of several.
        options: How it runs (``ReadOptions``).
    """
    from metacurate.analysis.inspect import inspect_entry as inspect

    wanted = whole("samples", samples, 0)
    with read_run(as_address(run, "run"), **options) as opened:
        return inspect(opened, string("entry", entry), wanted, lang)


def inspect_uid(uid: str, run: Path, **options: Unpack[ReadOptions]) -> dict[str, Any]:
    """A matched pair's texts, matches and draws, and whether it is kept (``inspect uid``).

    Args:
        uid: The pair's uid: 32 hex digits.
        run: The output folder of ``curate``.
        options: How it runs (``ReadOptions``).
    """
    from metacurate.analysis.inspect import inspect_uid as inspect

    with read_run(as_address(run, "run"), **options) as opened:
        return inspect(opened, string("uid", uid))


# Models.


def train(
    config: Path | TrainConfig,
    out: Path,
    *,
    overwrite: bool = False,
    show_progress: bool = False,
    progress: Listener | None = None,
) -> TrainTotals:
    """Train a CLIP model at a fixed budget of seen pairs (``train``; extra ``train``).

    Args:
        config: A TOML file (docs/training.md) or what is read from one (``TrainConfig``).
        out: The output folder; ``out/final.pt`` loads in open_clip.
        overwrite: As of ``RunOptions``, with ``show_progress`` and ``progress``.
        show_progress: See there.
        progress: See there.
    """
    _need_open_clip()
    from metacurate.training.config import load_train_config
    from metacurate.training.trainer import train as run

    is_path = isinstance(config, str | os.PathLike)
    settings = load_train_config(as_address(config, "config")) if is_path else config
    with reporting(show_progress, progress):
        return run(
            settings, as_address(out, "out"),  # type: ignore[arg-type]
            overwrite=overwrite, show_progress=show_progress,
        )  # fmt: skip


def experiment(
    config: Path | ExperimentConfig,
    out: Path,
    *,
    workers: int = 1,
    overwrite: bool = False,
    show_progress: bool = False,
    progress: Listener | None = None,
) -> Results:
    """Compare ways to choose pairs by models trained on them (``experiment``; extra ``train``).

    Args:
        config: A TOML file (docs/experiments.md) or what is read from one (``ExperimentConfig``).
        out: The output folder.
        workers: Training runs at a time.
        overwrite: As of ``RunOptions``, with ``show_progress`` and ``progress``.
        show_progress: See there.
        progress: See there.
    """
    _need_open_clip()
    from metacurate.experiments.config import load_experiment_config
    from metacurate.experiments.run import experiment as run

    is_path = isinstance(config, str | os.PathLike)
    settings = load_experiment_config(as_address(config, "config")) if is_path else config
    with reporting(show_progress, progress):
        return run(
            settings, as_address(out, "out"),  # type: ignore[arg-type]
            workers=workers, overwrite=overwrite, show_progress=show_progress,
        )  # fmt: skip


def export(
    checkpoint: Path,
    out: Path,
    *,
    to: str,
    model: str | None = None,
    overwrite: bool = False,
) -> ExportTotals:
    """Write a checkpoint in open_clip's or transformers' layout (``export``; extra ``train``).

    Args:
        checkpoint: A folder of ``train``, of open_clip's layout or of a ``CLIPModel`` of
            transformers, a checkpoint file, or a tag of open_clip's weights.
        out: The folder for the files.
        to: ``open_clip`` or ``transformers``.
        model: open_clip's name of the architecture, for files and tags.
        overwrite: See ``Run``.
    """
    _need_open_clip()
    from metacurate.training.export import export as run

    return run(
        as_address(checkpoint, "checkpoint"), as_address(out, "out"),
        to=to, model=model, overwrite=overwrite,
    )  # fmt: skip


class Evaluation(TypedDict):
    """The results of a model, one a data set: values, each with its 95% interval."""

    checkpoint: str
    model: str | None
    results: list[dict[str, Any]]


def evaluate(
    checkpoint: Path,
    data: Paths,
    *,
    model: str | None = None,
    task: str | None = None,
    class_names: Path | None = None,
    templates: Path | None = None,
    groups: Path | None = None,
    batch_size: int = 256,
    threads: int | None = None,
    show_progress: bool = False,
    progress: Listener | None = None,
) -> Evaluation:
    """Evaluate a model zero-shot (``eval``; extra ``train``).

    Args:
        checkpoint: A folder of ``train`` or of ``export``, a checkpoint file, or a tag of
            open_clip's weights.
        data: Folders with a folder a class, or WebDataset as clip-benchmark has it.
        model: open_clip's name of the architecture, for files and tags.
        task: ``classification``, ``retrieval`` or your own (``module:function``); found by
            ``dataset_type.txt`` if not given.
        class_names: A file with a class name a line, or ``imagenet``.
        templates: A file with a template a line, or ``imagenet``.
        groups: A JSON file ``{class name: group}``.
        batch_size: Images at a time.
        threads: CPU threads; torch's choice if not given.
        show_progress: As of ``RunOptions``.
        progress: As of ``RunOptions``.
    """
    _need_open_clip()
    from metacurate.needs import needs

    with needs("train"):
        import torch

    from metacurate.evaluation.evaluate import evaluate as run
    from metacurate.evaluation.zero_shot import load_model
    from metacurate.printable import printable

    if threads is not None:
        torch.set_num_threads(threads)
    given = as_address(checkpoint, "checkpoint")
    places = as_addresses(data, "data")
    files = {
        name: None if value is None else as_address(value, name)
        for name, value in (
            ("class_names", class_names), ("templates", templates), ("groups", groups),
        )
    }  # fmt: skip
    results = []
    with reporting(show_progress, progress):
        loaded = load_model(given, model, batch_size=batch_size)
        with meter("eval", len(places), "images", parts="data sets", show=show_progress) as bar:
            for place in places:
                result = run(loaded, place, task=task, progress=bar, **files)
                if repeated := result.get("repeated_class_names"):
                    named = printable(", ".join(repeated), 200)
                    note(
                        f"{place}: class names given more than once (the first class counts): "
                        f"{named}"
                    )
                results.append(result)
                bar.advance()
    return {"checkpoint": given, "model": model, "results": results}


def evaluate_suite(
    checkpoint: Path,
    suite: str,
    root: Path,
    *,
    model: str | None = None,
    names_lang: str | None = None,
    out: Path | None = None,
    batch_size: int = 256,
    threads: int | None = None,
    show_progress: bool = False,
    progress: Listener | None = None,
) -> dict[str, Any]:
    """Evaluate a model on the data sets of a suite, each by its metric (``eval --suite``).

    Args:
        checkpoint: A folder of ``train`` or of ``export``, a checkpoint file, or a tag of
            open_clip's weights.
        suite: ``slip26``, ``datacomp38`` or ``vtab`` (docs/evaluation.md).
        root: The folder with the data sets' folders; those that are not there are named.
        model: open_clip's name of the architecture, for files and tags.
        names_lang: The language of the class names.
        out: A JSON file that the report is written to after each data set; what it holds of the
            same weights, files and texts is not done again.
        batch_size: Images at a time.
        threads: CPU threads; torch's choice if not given.
        show_progress: As of ``RunOptions``.
        progress: As of ``RunOptions``.

    Returns:
        What ``metacurate.evaluation.suite.evaluate_suite`` says, with ``checkpoint`` and ``model``.
    """
    _need_open_clip()
    from metacurate.needs import needs

    with needs("train"):
        import torch

    from metacurate.evaluation.suite import evaluate_suite as run
    from metacurate.evaluation.suites import SUITES
    from metacurate.evaluation.zero_shot import load_model

    if threads is not None:
        torch.set_num_threads(threads)
    given = as_address(checkpoint, "checkpoint")
    file = None if out is None else as_address(out, "out")
    if file is not None:
        check_writable(file)
    with reporting(show_progress, progress):
        loaded = load_model(given, model, batch_size=batch_size)
        sets = len(SUITES.get(suite, ()))
        with meter("eval", sets, "images", parts="data sets", show=show_progress) as bar:
            found = run(
                loaded, suite, as_address(root, "root"), names_lang=names_lang, out=file,
                progress=bar,
            )  # fmt: skip
    return {"checkpoint": given, "model": model, **found}


def _need_open_clip() -> None:
    """UserError with the command to install what training and evaluation need."""
    from metacurate.training.openclip import open_clip

    open_clip()
