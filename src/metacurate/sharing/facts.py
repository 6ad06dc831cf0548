"""What a card says of a finished run, from its manifest and data card: no pass over the data."""

from __future__ import annotations

import heapq
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.curation.layout import (
    BALANCE,
    DATACARD_FILE,
    MATCH,
    REPORT,
    curated_file_name,
    finished_section,
)
from metacurate.errors import UserError
from metacurate.pool.schema import PoolConfig
from metacurate.printable import printable
from metacurate.reporting.plots import PLOTS
from metacurate.runtime.made import open_made
from metacurate.runtime.manifest import digest, kept_files, read_manifest
from metacurate.runtime.storage import Folder, Written
from metacurate.texts.languages import load_language_map

TOP_ENTRIES = 20
_CODE = re.compile(r"([a-z]{2,3})(?:[-_].*)?")


@dataclass(frozen=True)
class TopEntry:
    """An entry with its matches before and after balancing; its language, if there are several."""

    entry: str
    language: str | None
    before: int
    after: int


@dataclass(frozen=True)
class Facts:
    """A run as its card tells it.

    ``card``: the data card. ``schema``: of the curated shards, which are ``shards`` many of
    ``bytes`` together, and of ``bytes_in_memory`` when read; ``checksum`` names their content.
    ``plots``: titles by file name. ``entries``: the file beside the card that has the entries.
    ``command``: the command that makes the same subset.
    """

    card: dict[str, Any]
    schema: pa.Schema
    shards: int
    bytes: int
    bytes_in_memory: int
    checksum: str
    plots: dict[str, str]
    entries: str
    command: str

    @property
    def languages(self) -> dict[str, dict[str, Any]]:
        """The facts of the languages with matches, most matches first; none of one list."""
        found = self.card.get("languages", {})
        ranked = sorted(found.items(), key=lambda item: (-item[1]["match_counts"], item[0]))
        return {name: own for name, own in ranked if own["match_counts"]}

    def top_entries(self, number: int = TOP_ENTRIES) -> list[TopEntry]:
        """The entries with most matches."""
        counts, kept = self.card["entry_counts"], self.card["entry_counts_kept"]
        several = "languages" in self.card
        found: list[TopEntry] = []
        for language in counts if several else (None,):
            before = counts if language is None else counts[language]
            after = kept if language is None else kept[language]
            found += [
                TopEntry(entry, language, count, after.get(entry, 0))
                for entry, count in heapq.nlargest(number, before.items(), key=itemgetter(1))
            ]
        return heapq.nlargest(number, found, key=attrgetter("before"))


def language_codes(names: Mapping[str, Any] | tuple[str, ...]) -> list[str]:
    """ISO 639 codes of languages (``zh`` of ``zh-TW``), sorted; names of other forms are left out.

    These are what a hub's list of languages knows.
    """
    found = (_CODE.fullmatch(name) for name in names)
    return sorted({match[1] for match in found if match})


def read_facts(folder: Folder, entries: str) -> Facts:
    """The facts of a finished run; UserError if it is not, or if a file is missing.

    ``entries``: the file beside the card that has the entries.
    """
    finished_section(folder, MATCH)
    balance = finished_section(folder, BALANCE)
    card = folder.read_json(DATACARD_FILE)
    if card is None:
        raise UserError(f"{folder.url} has no data card; run the command that made the run again")
    files = kept_files(folder, BALANCE.name, balance) or {}
    shards = {n: w for n, w in files.items() if n.startswith("curated/")}
    with open_made(folder, curated_file_name(0)) as file:
        schema = pq.read_schema(file)
    drawn = plot_files(folder)
    named = {f"report/{name}.png": title for name, title in PLOTS.items()}
    plots = {name: title for name, title in named.items() if name in drawn}
    return Facts(
        card, schema, len(shards), sum(w["bytes"] for w in shards.values()),
        balance["totals"]["bytes_in_memory"],
        digest({name: written["xxh3"] for name, written in sorted(shards.items())}),
        plots, entries,
        command_of(folder, entries),
    )  # fmt: skip


def plot_files(folder: Folder) -> dict[str, Written]:
    """The plots that the report wrote, if there is one, as its stage recorded them."""
    section = read_manifest(folder)["stages"].get(REPORT.name)
    files = kept_files(folder, REPORT.name, section) if section is not None else None
    return {
        n: w for n, w in (files or {}).items() if n.startswith("report/") and n.endswith(".png")
    }


def command_of(folder: Folder, entries: str) -> str:
    """The command that makes the same subset: with the pool and the folders in capitals.

    No path is in it: those of the maker's machine are nobody's business.
    """
    match = finished_section(folder, MATCH)["config"]
    settings = finished_section(folder, BALANCE)["config"]
    pool = PoolConfig.from_json(match["pool_config"])
    given: list[tuple[str, Any]] = [("metadata", entries), ("rule", match["rule"])]
    given += [("url-col", pool.url_col), ("key-col", pool.key_col), ("lang-col", pool.lang_col)]
    given += [("text-col", name) for name in pool.text_cols]
    for name, value in settings.items():
        if name == "t_of":
            given += [("t-of", f"{lang}={_number(t)}") for lang, t in value.items()]
        elif name != "format" and not (name == "expect_survival" and value == 1):
            given.append((name.replace("_", "-"), _number(value)))
    if "language_map" in match and match["language_map"] != load_language_map().fingerprint:
        given.append(("language-map", "MAP"))
    if "given" in read_manifest(folder)["stages"]["count"]["config"]:
        given.append(("counts", "COUNTS"))
    given.append(("out", "OUT"))
    words = [
        word
        for name, value in given
        if value is not None
        for word in (f"--{name}", shlex.quote(printable(str(value))))
    ]
    return " ".join(["metacurate curate POOL", *words])


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
