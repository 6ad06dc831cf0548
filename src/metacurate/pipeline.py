"""The stages put together: a pool and metadata in, a balanced, documented subset out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from typing import Unpack

from metacurate.analysis.read_counts import read_counts
from metacurate.arrays import ArrowArray, ArrowStream
from metacurate.curation import balancing
from metacurate.curation.balance import balance
from metacurate.curation.balancing import Counts
from metacurate.curation.count import count
from metacurate.curation.curated import Curated, Subset, read_curated
from metacurate.curation.datacard import DataCard, write_datacard
from metacurate.curation.layout import DATACARD_FILE, MATCH, REPORT
from metacurate.curation.match import match, needs_of
from metacurate.curation.matching.matcher import is_compiled
from metacurate.curation.matching.spacing import check_rule
from metacurate.curation.settings import ANY, REFERENCE, Balance
from metacurate.errors import ArgumentError, UserError
from metacurate.metadata.store import Metadata, as_metadata
from metacurate.needs import MissingPackageError
from metacurate.pool.memory import POOL_FILE, AnyPool, Given
from metacurate.pool.open import open_pool
from metacurate.pool.schema import PoolConfig
from metacurate.runtime.manifest import Statistics, finished
from metacurate.runtime.progress import is_noting, note
from metacurate.runtime.run import Run, RunOptions, open_run
from metacurate.runtime.scratch import scratch_folder
from metacurate.runtime.stage import do_again
from metacurate.runtime.storage import as_address
from metacurate.sharing.card import renew_card
from metacurate.texts.languages import LanguageMap, as_language_map


def curate(
    pool: AnyPool,
    metadata: str | PathLike[str] | Metadata | Sequence[str] | ArrowArray | ArrowStream,
    out: str | PathLike[str] | None = None,
    *,
    t: float | None = None,
    p: float | None = None,
    target_size: int | None = None,
    counts: str | PathLike[str] | Counts | None = None,
    rule: str | None = None,
    seed: int = 0,
    expect_survival: float = 1.0,
    p_rule: str | None = None,
    reference: str = REFERENCE,
    t_of: Mapping[str, float] | None = None,
    choose_text: str = ANY,
    language_map: str | PathLike[str] | LanguageMap | None = None,
    pool_config: PoolConfig | None = None,
    report: bool = True,
    **options: Unpack[RunOptions],
) -> Curated:
    """Curate a pool: match, count, balance, data card, report and dataset card; it resumes.

    Source: MetaCLIP (arXiv 2309.16671), algorithm 1. Give exactly one of ``t``, ``p`` and
    ``target_size``. The same input, settings and seed give the same files, whatever the number of
    workers and however often the run was stopped.

    With metadata of several languages each text is matched with those of its own, and each language
    has its own threshold (Meta CLIP 2, arXiv 2507.22062; docs/worldwide.md).

    Args:
        pool: Files, folders, patterns or ``@LIST``s, as local paths or fsspec addresses
            (docs/pools.md); or a table in memory: anything that exports Arrow (``pyarrow``, pandas,
            Polars, DuckDB), a data set of Hugging Face's ``datasets``, or an iterable of tables or
            batches, which is run through once. Its columns are found as those of a file are.
        metadata: ``"wordnet"``, a JSON or Parquet file of entries, a folder with one for each
            language, a list of entries, or loaded ``Metadata``.
        out: The output folder; the subset is ``out/curated/*.parquet``. A table in memory is
            written to ``out/.given/pool.parquet``, which the stages read. None: the work is done in
            a temporary folder that is deleted, and the subset is in memory (``Curated.to_arrow``).
        t: The threshold, in matches per entry; ``math.inf`` keeps every matched pair. With several
            languages that of the reference language, from which those of the others follow.
        p: The tail proportion, in [0, 1], that the threshold (of each language) is solved from.
        target_size: The expected number of kept pairs that the threshold is solved from.
        counts: The entry counts to balance by, instead of the pool's own: uint64[entries], or a
            file (a run's folder or data card, ``counts.npy``, JSON ``{entry: count}``), such as
            those of a larger pool that this one is a part of.
        rule: How entries match: ``v1`` (between spaces), ``worldwide`` (Meta CLIP 2's, for all
            languages) or ``worldwide+kana`` (docs/semantics.md). ``worldwide`` if the metadata have
            several languages and ``v1`` if not, unless given.
        seed: The seed of the draws, in [0, 2**64).
        expect_survival: The share of the kept pairs, in (0, 1], whose images are expected to
            survive the download; the threshold is raised to make up for the others.
        p_rule: How a threshold follows from a tail proportion: ``nearest`` (Meta CLIP 2's, unless
            given with several languages) or ``below`` (see ``solve_threshold``); ``same``: every
            language has ``t`` itself.
        reference: The language that has ``t`` itself.
        t_of: Languages with thresholds of their own, which follow from nothing.
        choose_text: ``any``: each text of a pair may keep it (MetaCLIP); ``one``: one of them,
            chosen at random first, as its later data loaders do.
        language_map: Which metadata language a label of a text means: a JSON file
            ``{label: language}`` that changes the shipped table, or a loaded one.
        pool_config: Which columns hold the URL, the key and the texts; found by name if not given.
        report: Whether to write the page ``out/report.html`` too (with the extra ``report``; a
            note says so if it is not installed).
        options: How it runs (``RunOptions``): ``engine``, ``address``, ``workers``, ``overwrite``,
            ``show_progress``, ``progress``.

    Returns:
        The data card, its parts as attributes, and the subset (``Curated``).

    Raises:
        UserError: What the caller can fix: settings, the pool, the metadata, an output folder that
            holds another run or is in use. The message says what, where and what to do.
    """
    settings = Balance(
        t, p, target_size, seed, expect_survival,
        p_rule=p_rule, reference=reference, t_of=tuple((t_of or {}).items()),
        choose_text=choose_text,
    )  # fmt: skip
    if rule is not None:
        check_rule(rule)
    table = as_language_map(language_map)
    given = Given.of(pool)
    metadata = as_metadata(metadata)
    with ExitStack() as stack:
        if out is None:
            place = str(stack.enter_context(scratch_folder()))
            report = False
        else:
            place = as_address(out, "out")
        with open_run(
            place, inputs=given.paths, preload=__name__, compiled=True, held=given.held, **options
        ) as run:
            card = curate_run(
                run,
                given.files(run),
                metadata,
                pool_config or PoolConfig(),
                settings,
                rule=rule,
                language_map=table,
                counts=given_counts(counts, metadata),
                report=report,
            )
        if out is not None:
            return Curated(card, place)
        full = run.folder.read_json(DATACARD_FILE)
        if given.batches is not None:  # the name of a file that is gone says nothing
            for each in (card, full):
                (fingerprint,) = each["pool"]["fingerprints"].values()
                each["pool"]["fingerprints"] = {POOL_FILE: fingerprint}
        return Curated(card, None, Subset(read_curated(run.folder), full))


def given_counts(counts: str | PathLike[str] | Counts | None, metadata: Metadata) -> Counts | None:
    """Counts of a file, or as they are given; ArgumentError if they are none of the entries."""
    if counts is None:
        return None
    if isinstance(counts, str | PathLike):
        return read_counts(as_address(counts, "counts"), metadata)
    return balancing.check_counts(counts)


def _nothing_matched(matched: Statistics) -> UserError:
    skipped = "; ".join(f"{reason}: {n:,}" for reason, n in matched["skipped"].items())
    return ArgumentError(
        "none of the pool's {texts:,} texts matches a metadata entry{skipped}; check {text_cols} "
        "and {metadata}",
        texts=matched["texts"],
        skipped=f" ({skipped})" if skipped else "",
    )


def curate_run(
    run: Run,
    inputs: Sequence[str],
    metadata: Metadata,
    pool_config: PoolConfig,
    settings: Balance,
    *,
    rule: str | None,
    language_map: LanguageMap | None,
    counts: Counts | None,
    report: bool,
) -> DataCard:
    """``curate`` with its parts given: the caller holds the folder and the engine."""
    settings.check_languages(metadata.languages)
    pool = open_pool(inputs, pool_config, needs_of(metadata), engine=run.engine)
    if is_noting():
        note(pool.describe())
        if not is_compiled():
            note("compiling the kernels: once after an installation, some 20 seconds of work")
    pool.require_rows()

    def stages() -> DataCard:
        matched = match(run, pool, pool_config, metadata, rule, language_map)
        if not matched["pairs_matched"]:
            raise _nothing_matched(matched)
        count(run, counts)
        balance(run, settings, pool)
        return write_datacard(run)

    card = do_again(run, [MATCH], stages)
    if report and finished(run.folder, REPORT) is None:
        _write_report(run)
    renew_card(run)
    return card


def _write_report(run: Run) -> None:
    """Write the report, or say what is not installed that it needs: the subset is there anyway."""
    try:
        from metacurate.reporting.build import write_report
    except MissingPackageError as missing:
        note(f"no report was written: {missing}")
    else:
        write_report(run)
