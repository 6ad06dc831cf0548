"""What ``mc.curate`` returns: the data card with its parts as attributes, and the subset itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from metacurate.curation.datacard import (
    BalancingFacts,
    DataCard,
    EntryCounts,
    FullDataCard,
    KeptFacts,
    LanguageFacts,
    MatchedFacts,
    MetadataFacts,
    PoolFacts,
)
from metacurate.curation.layout import BALANCE, DATACARD_FILE, curated_file_name, finished_section
from metacurate.curation.settings import threshold_text
from metacurate.printable import html_table
from metacurate.runtime.arrowfiles import read_parquet
from metacurate.runtime.made import open_made
from metacurate.runtime.storage import Folder, pinned

SHOWN_LANGUAGES = 12


def read_curated(folder: Folder) -> pa.Table:
    """The curated subset of a balanced run: all shards, in their order."""
    shards = finished_section(folder, BALANCE)["planned"]
    tables = []
    for position in range(shards):
        with open_made(folder, curated_file_name(position)) as file:
            tables.append(read_parquet(file))
    # A shard says which columns its URLs and texts are in; of all that says nothing if they differ.
    said = dict(tables[0].schema.metadata or {})
    for table in tables:
        said = {k: v for k, v in said.items() if (table.schema.metadata or {}).get(k) == v}
    return pa.concat_tables([table.replace_schema_metadata(said) for table in tables])


@dataclass(frozen=True)
class Subset:
    """A subset in memory, of a run whose folder is gone."""

    table: pa.Table
    card: FullDataCard


@dataclass(frozen=True, eq=False)
class Curated:
    """A curated subset: its data card, part by part, and its pairs.

    ``curated["kept"]`` is ``curated.kept``. It exports its pairs by Arrow's interface: it can be
    given to ``pyarrow.table``, ``polars.DataFrame``, or to ``curate`` again.

    Attributes:
        card: The data card as plain values, without its entry counts.
        out: The output folder; None if nothing was kept on disk.
    """

    card: DataCard
    out: str | None
    _subset: Subset | None = field(default=None, repr=False)
    _place: str | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.out is not None:
            object.__setattr__(self, "_place", pinned(self.out))

    @property
    def pool(self) -> PoolFacts:
        """What was read: ``pairs``, ``texts``, ``skipped`` by reason, ``bad_files``."""
        return self.card["pool"]

    @property
    def metadata(self) -> MetadataFacts:
        """The entries: how many, and how many of them matched."""
        return self.card["metadata"]

    @property
    def matched(self) -> MatchedFacts:
        """What matched: ``pairs``, ``texts``, ``match_counts``, and the ``rule``."""
        return self.card["matched"]

    @property
    def balancing(self) -> BalancingFacts:
        """The threshold ``t`` (the string "inf" for none), ``tail_proportion`` and ``seed``."""
        return self.card["balancing"]

    @property
    def kept(self) -> KeptFacts:
        """What was kept: ``pairs``, ``pairs_expected``, ``texts``, ``match_counts``."""
        return self.card["kept"]

    @property
    def tables(self) -> dict[str, dict[str, dict[str, int]]]:
        """Counts of head and tail, and by the source and language of entries."""
        return self.card["tables"]

    @property
    def languages(self) -> dict[str, LanguageFacts]:
        """The facts of each language; empty with metadata of one list."""
        return self.card.get("languages", {})

    @property
    def entry_counts(self) -> EntryCounts:
        """``{entry: count}`` before balancing, of entries that match; by language if several."""
        return self._full()["entry_counts"]

    @property
    def entry_counts_kept(self) -> EntryCounts:
        """``{entry: count}`` of the kept texts; by language if there are several."""
        return self._full()["entry_counts_kept"]

    def _full(self) -> FullDataCard:
        if self._subset is not None:
            return self._subset.card
        card: FullDataCard = self._folder().read_json(DATACARD_FILE)
        return card

    def _folder(self) -> Folder:
        assert self._place is not None
        return Folder(self._place)

    def to_arrow(self) -> pa.Table:
        """The kept pairs: the pool's columns, ``uid``, ``matched``, ``text_kept``, ``keep_prob``.

        ``matched``: the entry ids of each text; ``text_kept``: whether it is one that keeps the
        pair; ``keep_prob``: the pair's probability. All of it is read into memory.
        """
        return self._subset.table if self._subset is not None else read_curated(self._folder())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The subset, for other libraries."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __getitem__(self, name: str) -> Any:
        return self.card[name]  # type: ignore[literal-required]

    def __contains__(self, name: object) -> bool:
        return name in self.card

    def __iter__(self) -> Iterator[str]:
        return iter(self.card)

    def __repr__(self) -> str:
        """The sizes, the threshold and the folder."""
        pool, kept, t = self.pool["pairs"], self.kept["pairs"], threshold_text(self.balancing["t"])
        where = "" if self.out is None else f", out={self.out!r}"
        return f"Curated({kept:,} of {pool:,} pairs, t={t}{where})"

    def _repr_html_(self) -> str:
        """A table for notebooks."""
        where = "" if self.out is None else f" in {self.out}"
        return html_table(f"Curated{where}", facts(self.card))


def facts(card: DataCard) -> list[tuple[str, str]]:
    """A data card in a few rows, for people: names and values."""
    pool, matched, kept = card["pool"], card["matched"], card["kept"]
    balancing, entries = card["balancing"], card["metadata"]
    rows = [
        ("pool", f"{pool['pairs']:,} pairs, {pool['texts']:,} texts"),
        ("matched pairs", _share(matched["pairs"], pool["pairs"])),
        ("kept pairs", _share(kept["pairs"], pool["pairs"])),
        ("expected", f"{kept['pairs_expected']:,.1f} pairs"),
        ("matches", f"{matched['match_counts']:,} before, {kept['match_counts']:,} after"),
        ("entries matched", _share(entries["matched_entries"], entries["entries"])),
        ("threshold t", threshold_text(balancing["t"])),
        ("tail proportion p", f"{balancing['tail_proportion']:.2%}"),
        ("head entries", f"{card['tables']['part']['head']['entries']:,}"),
        ("seed", str(balancing["seed"])),
    ]
    if "languages" in card:
        rows += _language_rows(card["languages"])
    if matched["rule"] != "v1":
        rows.append(("matching rule", matched["rule"]))
    told = card.get("not_in_own_language", {})
    rows += [(f"texts of {reason.replace('_', ' ')}", f"{n:,}") for reason, n in told.items()]
    rows += [(f"skipped: {reason}", f"{n:,}") for reason, n in pool["skipped"].items()]
    rows += [(f"values lost: {reason}", f"{n:,}") for reason, n in kept["values_lost"].items()]
    rows += [(f"bad file: {address}", reason) for address, reason in pool["bad_files"].items()]
    return rows


def _share(part: int, whole: int) -> str:
    return f"{part:,}" + (f"  ({part / whole:.1%})" if whole else "")


def _language_rows(languages: Mapping[str, LanguageFacts]) -> list[tuple[str, str]]:
    """The languages with most matches, and what they keep."""
    found = sorted(languages.items(), key=lambda item: -item[1]["match_counts"])
    matched = [(name, own) for name, own in found if own["match_counts"]]
    rows = [("languages", f"{len(matched):,} with matches, of {len(found):,} with metadata")]
    for name, own in matched[:SHOWN_LANGUAGES]:
        t = threshold_text(own["t"])
        rows.append((
            f"language {name}",
            f"t {t}, p {own['tail_proportion']:.2%}, keeps {own['kept_texts']:,} of "
            f"{own['texts']:,} texts",
        ))  # fmt: skip
    if len(matched) > SHOWN_LANGUAGES:
        rows.append(("", f"and {len(matched) - SHOWN_LANGUAGES:,} more in the data card"))
    return rows
