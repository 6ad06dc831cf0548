"""metacurate: open, fast, reproducible metadata-curated language-image data.

``curate`` does it all. Every command has its function; the parts of curation also work on arrays
(docs/python-api.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metacurate.analysis.plan import Plan, Sweep
    from metacurate.commoncrawl.extract import ExtractConfig, ExtractTotals
    from metacurate.curation.balancing import (
        balance,
        count_entries,
        keep_probabilities,
        pair_keep_probabilities,
        solve_threshold,
        solve_threshold_for_size,
        tail_proportion,
    )
    from metacurate.curation.curated import Curated
    from metacurate.curation.datacard import DataCard
    from metacurate.curation.matching.matcher import Matcher
    from metacurate.deduplication.blocklist import Blocklist, read_blocklist
    from metacurate.deduplication.dedup import DedupConfig, DedupTotals
    from metacurate.errors import UserError
    from metacurate.experiments.config import ExperimentConfig
    from metacurate.experiments.results import Results
    from metacurate.images.download import DownloadConfig, DownloadTotals
    from metacurate.images.duplicates import DuplicatesTotals
    from metacurate.images.fetch import FetchConfig
    from metacurate.images.filter import FilterConfig, FilterTotals, Rule
    from metacurate.images.process import ImageConfig
    from metacurate.images.survival import Survival
    from metacurate.images.urltable import ColumnNames
    from metacurate.library import (
        Evaluation,
        Status,
        balance_run,
        build_metadata,
        count,
        dedup,
        describe_metadata,
        diff,
        download,
        duplicates,
        evaluate,
        evaluate_suite,
        experiment,
        export,
        extract,
        filter,
        identify_languages,
        ingest,
        inspect_entry,
        inspect_text,
        inspect_uid,
        match,
        plan,
        report,
        reshard,
        status,
        survival,
        train,
        uids,
    )
    from metacurate.metadata.build import BuildConfig, BuildTotals
    from metacurate.metadata.describe import Description
    from metacurate.metadata.merge import merge_metadata
    from metacurate.metadata.store import Metadata, load_metadata, make_metadata
    from metacurate.pipeline import curate
    from metacurate.pool.identify import LanguageConfig, LanguageTotals
    from metacurate.pool.schema import PoolConfig
    from metacurate.pool.uid import key_uid, url_uid
    from metacurate.pool.written import WrittenPool
    from metacurate.reporting.build import ReportConfig, ReportTotals
    from metacurate.runtime.progress import Progress
    from metacurate.runtime.run import ReadOptions, RunOptions
    from metacurate.sharing.card import write_card
    from metacurate.sharing.push import push
    from metacurate.texts.rules import TextRules
    from metacurate.training.config import TrainConfig
    from metacurate.version import __version__
    from metacurate.webdataset.ingest import IngestTotals
    from metacurate.webdataset.reshard import ReshardTotals
    from metacurate.webdataset.uid_list import UidListTotals

__all__ = [
    "Blocklist",
    "BuildConfig",
    "BuildTotals",
    "ColumnNames",
    "Curated",
    "DataCard",
    "DedupConfig",
    "DedupTotals",
    "Description",
    "DownloadConfig",
    "DownloadTotals",
    "DuplicatesTotals",
    "Evaluation",
    "ExperimentConfig",
    "ExtractConfig",
    "ExtractTotals",
    "FetchConfig",
    "FilterConfig",
    "FilterTotals",
    "ImageConfig",
    "IngestTotals",
    "LanguageConfig",
    "LanguageTotals",
    "Matcher",
    "Metadata",
    "Plan",
    "PoolConfig",
    "Progress",
    "ReadOptions",
    "ReportConfig",
    "ReportTotals",
    "ReshardTotals",
    "Results",
    "Rule",
    "RunOptions",
    "Status",
    "Survival",
    "Sweep",
    "TextRules",
    "TrainConfig",
    "UidListTotals",
    "UserError",
    "WrittenPool",
    "__version__",
    "balance",
    "balance_run",
    "build_metadata",
    "count",
    "count_entries",
    "curate",
    "dedup",
    "describe_metadata",
    "diff",
    "download",
    "duplicates",
    "evaluate",
    "evaluate_suite",
    "experiment",
    "export",
    "extract",
    "filter",
    "identify_languages",
    "ingest",
    "inspect_entry",
    "inspect_text",
    "inspect_uid",
    "keep_probabilities",
    "key_uid",
    "load_metadata",
    "make_metadata",
    "match",
    "merge_metadata",
    "pair_keep_probabilities",
    "plan",
    "push",
    "read_blocklist",
    "report",
    "reshard",
    "solve_threshold",
    "solve_threshold_for_size",
    "status",
    "survival",
    "tail_proportion",
    "train",
    "uids",
    "url_uid",
    "write_card",
]
_NAMES = {
    "analysis.plan": ("Plan", "Sweep"),
    "commoncrawl.extract": ("ExtractConfig", "ExtractTotals"),
    "curation.balancing": (
        *("balance", "count_entries", "keep_probabilities", "pair_keep_probabilities"),
        *("solve_threshold", "solve_threshold_for_size", "tail_proportion"),
    ),
    "curation.curated": ("Curated",),
    "curation.datacard": ("DataCard",),
    "curation.matching.matcher": ("Matcher",),
    "deduplication.blocklist": ("Blocklist", "read_blocklist"),
    "deduplication.dedup": ("DedupConfig", "DedupTotals"),
    "errors": ("UserError",),
    "experiments.config": ("ExperimentConfig",),
    "experiments.results": ("Results",),
    "images.download": ("DownloadConfig", "DownloadTotals"),
    "images.duplicates": ("DuplicatesTotals",),
    "images.fetch": ("FetchConfig",),
    "images.filter": ("FilterConfig", "FilterTotals", "Rule"),
    "images.process": ("ImageConfig",),
    "images.survival": ("Survival",),
    "images.urltable": ("ColumnNames",),
    "library": (
        *("Evaluation", "Status"),
        *("balance_run", "build_metadata", "count", "dedup", "describe_metadata", "diff"),
        *("download", "duplicates", "evaluate", "evaluate_suite", "experiment", "export"),
        *("extract", "filter", "identify_languages", "ingest"),
        *("inspect_entry", "inspect_text", "inspect_uid"),
        *("match", "plan", "report", "reshard", "status", "survival", "train", "uids"),
    ),
    "metadata.build": ("BuildConfig", "BuildTotals"),
    "metadata.describe": ("Description",),
    "metadata.merge": ("merge_metadata",),
    "metadata.store": ("Metadata", "load_metadata", "make_metadata"),
    "pipeline": ("curate",),
    "pool.identify": ("LanguageConfig", "LanguageTotals"),
    "pool.schema": ("PoolConfig",),
    "pool.uid": ("key_uid", "url_uid"),
    "pool.written": ("WrittenPool",),
    "reporting.build": ("ReportConfig", "ReportTotals"),
    "runtime.progress": ("Progress",),
    "runtime.run": ("ReadOptions", "RunOptions"),
    "sharing.card": ("write_card",),
    "sharing.push": ("push",),
    "texts.rules": ("TextRules",),
    "training.config": ("TrainConfig",),
    "version": ("__version__",),
    "webdataset.ingest": ("IngestTotals",),
    "webdataset.reshard": ("ReshardTotals",),
    "webdataset.uid_list": ("UidListTotals",),
}
_HOMES = {name: f"metacurate.{home}" for home, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import on first use: the command's ``--help`` need not wait for Numba and Arrow."""
    if name not in _HOMES:
        raise AttributeError(f"module 'metacurate' has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    """The names of the API, whether they are imported yet or not."""
    return sorted({*_HOMES, *(name for name in globals() if name.startswith("__"))})
