"""A dataset card as Hugging Face's hub reads it: YAML in front, then the figures in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from metacurate.sharing.columns import hub_features
from metacurate.sharing.config import CardConfig
from metacurate.sharing.facts import Facts, language_codes
from metacurate.sharing.quoting import code, markdown, table, yaml

LANGUAGE_ROWS = 400
SKIPPED_ROWS = 40
TASKS = ["zero-shot-image-classification", "image-to-text", "text-to-image"]
TAGS = ["image-text", "clip", "metaclip", "metadata-curation", "metacurate"]
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B",
          "1B<n<10B", "10B<n<100B", "100B<n<1T", "n>1T")  # fmt: skip
PAIRS_FILES = "curated/*.parquet"
_CITATION = """\
@inproceedings{xu2024demystifying,
  title = {Demystifying {CLIP} Data},
  author = {Xu, Hu and Xie, Saining and Tan, Xiaoqing Ellen and Huang, Po-Yao and Howes, Russell and
            Sharma, Vasu and Li, Shang-Wen and Ghosh, Gargi and Zettlemoyer, Luke and
            Feichtenhofer, Christoph},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  url = {https://arxiv.org/abs/2309.16671}
}"""


def size_category(rows: int) -> str:
    """The hub's name for a number of rows."""
    place = sum(rows >= 10**power for power in range(3, 13))
    return _SIZES[place]


def front_matter(
    config: CardConfig,
    languages: list[str],
    rows: int,
    features: list[dict[str, Any]] | None,
    files: str,
    size: int,
    memory: int,
    *,
    tasks: bool,
) -> str:
    """The YAML of a card with one split, with its fences.

    ``size``: of the files, and ``memory``: of the rows in Arrow's memory, in bytes; ``datasets``
    compares number and sizes if it is told to verify.
    """
    info: dict[str, Any] = {} if features is None else {"features": features}
    info["splits"] = [{"name": "train", "num_bytes": memory, "num_examples": rows}]
    info |= {"download_size": size, "dataset_size": memory}
    found: dict[str, Any] = {
        "pretty_name": config.name,
        **config.license_fields,
        "language": languages,
        "size_categories": [size_category(rows)],
        "task_categories": TASKS if tasks else [],
        "tags": TAGS,
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": files}]}],
        "dataset_info": info,
    }
    return f"---\n{yaml({name: value for name, value in found.items() if value != []})}---\n"


def card_languages(facts: Facts, config: CardConfig) -> list[str]:
    """The codes of the languages that the card names: those given, or those with kept texts."""
    if config.languages:
        return sorted(set(config.languages))
    return language_codes({n: own for n, own in facts.languages.items() if own["kept_texts"]})


def pairs_card(facts: Facts, config: CardConfig) -> str:
    """The card of the kept pairs."""
    kept = facts.card["kept"]
    front = front_matter(
        config, card_languages(facts, config), kept["pairs"], hub_features(facts.schema),
        PAIRS_FILES, facts.bytes, facts.bytes_in_memory, tasks=True,
    )  # fmt: skip
    where = config.repo or "DIR"
    body = [
        f"# {markdown(config.name, 200)}",
        "",
        f"{kept['pairs']:,} image-text pairs that [metacurate](https://arxiv.org/abs/2309.16671) "
        f"kept of a pool of {facts.card['pool']['pairs']:,}: those whose texts mention an entry of "
        "a list (the metadata), balanced over its entries. Images are named by their addresses.",
        "",
        *_load(where),
        "## Columns",
        "",
        *_columns(facts),
        "",
        *_figures(facts),
        *_entries(facts),
        *_languages(facts),
        *_plots(facts),
        *_made(facts),
        *_license(config),
    ]
    return front + "\n".join(["", *body, ""])


def distribution_card(
    facts: Facts, config: CardConfig, counts: pa.Table, files: str, size: int
) -> str:
    """The card of the distribution alone: entries and counts, nothing of the pairs."""
    rows = counts.num_rows
    languages = card_languages(facts, config)
    front = front_matter(
        config,
        languages,
        rows,
        hub_features(counts.schema),
        files,
        size,
        counts.nbytes,
        tasks=False,
    )
    where = config.repo or "DIR/distribution"
    body = [
        f"# {markdown(config.name, 200)}: the distribution",
        "",
        f"How often each of {rows:,} metadata entries occurs in the texts of a pool of "
        f"{facts.card['pool']['pairs']:,} image-text pairs, before and after balancing as of "
        "[MetaCLIP](https://arxiv.org/abs/2309.16671). The pairs themselves are not published: "
        "there is no image, address or text of theirs here.",
        "",
        *_load(where),
        "`distribution.parquet` has a row for each entry: `entry` (with `lang` and `source` where "
        "they are known), `count` and `kept_count` (its matches before and after balancing), and "
        "`keep_prob` (with which probability one match of it keeps a pair). `datacard.json` has "
        "the counts with the figures below; `metacurate curate` takes it to balance another pool "
        "by these counts.",
        "",
        *_figures(facts),
        *_entries(facts),
        *_languages(facts),
        *_plots(facts),
        *_made(facts),
        *_license(config),
    ]
    return front + "\n".join(["", *body, ""])


def _load(where: str) -> list[str]:
    return [
        "```python",
        "from datasets import load_dataset",
        "",
        f'data = load_dataset("{where}", split="train")',
        "```",
        "",
    ]


_ADDED = {
    "uid": "the pair: 128 bits of the hash of its address or key",
    "matched": "the entries of each text, as row numbers (from 0) of `metadata.parquet`",
    "text_kept": "which of the texts kept the pair",
    "keep_prob": "the probability with which the pair was kept",
}


def _columns(facts: Facts) -> list[str]:
    lines = ["| column | type | what |", "| --- | --- | --- |"]
    for field in facts.schema:
        what = _ADDED.get(field.name, "of the pool")
        lines.append(f"| {code(field.name)} | {code(str(field.type), 200)} | {what} |")
    return lines


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _t(t: float | str | None) -> str:
    if t is None:
        return "–"
    return "infinite" if t == "inf" else f"{float(t):,.6g}"


def _figures(facts: Facts) -> list[str]:
    card = facts.card
    pool, matched, kept = card["pool"], card["matched"], card["kept"]
    pairs = pool["pairs"]
    steps = [
        ["pool", f"{pairs:,}", "", f"{pool['texts']:,}", ""],
        ["matched", f"{matched['pairs']:,}", _share(matched["pairs"], pairs),
         f"{matched['texts']:,}", f"{matched['match_counts']:,}"],
        ["kept", f"{kept['pairs']:,}", _share(kept["pairs"], pairs),
         f"{kept['texts']:,}", f"{kept['match_counts']:,}"],
    ]  # fmt: skip
    balancing, entries = card["balancing"], card["metadata"]
    of_reference = f" ({code(str(balancing['settings'].get('reference', 'en')))})"
    reference = of_reference if "languages" in card else ""
    facts_rows = [
        ["threshold t" + reference, _t(balancing["t"])],
        ["tail proportion p" + reference, f"{balancing['tail_proportion']:.2%}"],
        ["pairs expected", f"{kept['pairs_expected']:,.1f}"],
        ["entries", f"{entries['entries']:,}"],
        ["entries that match", f"{entries['matched_entries']:,}"],
    ]
    parts = [
        [name, f"{part['entries']:,}", f"{part['matched_entries']:,}", f"{part['match_counts']:,}",
         _share(part["match_counts"], matched["match_counts"]), f"{part['kept_match_counts']:,}",
         _share(part["kept_match_counts"], kept["match_counts"])]
        for name, part in card["tables"]["part"].items()
    ]  # fmt: skip
    return [
        "## Figures",
        "",
        *table(["", "pairs", "of the pool", "texts", "matches"], steps),
        "",
        *table(["", "value"], facts_rows),
        "",
        *table(["part", "entries", "that match", "matches before", "share", "after", "share"],
               parts),
        "",
        *_skipped(pool["skipped"]),
    ]  # fmt: skip


def _skipped(skipped: Mapping[str, int]) -> list[str]:
    if not skipped:
        return []
    told = [f"{markdown(reason.replace('_', ' '))} ({n:,})" for reason, n in skipped.items()]
    return [f"Skipped, or of no use: {', '.join(told[:SKIPPED_ROWS])}.", ""]


def _entries(facts: Facts) -> list[str]:
    several = "languages" in facts.card
    rows = [
        [
            code(top.entry) + (f" ({markdown(top.language or '')})" if several else ""),
            f"{top.before:,}",
            f"{top.after:,}",
        ]
        for top in facts.top_entries()
    ]
    title = "## Entries with most matches"
    return [title, "", *table(["entry", "matches before", "after"], rows), ""] if rows else []


def _languages(facts: Facts) -> list[str]:
    found = facts.languages
    if not found:
        return []
    rows = [
        [code(name), f"{own['texts']:,}", f"{own['match_counts']:,}", _t(own["t"]),
         f"{own['tail_proportion']:.2%}", f"{own['head_entries']:,}", f"{own['kept_texts']:,}"]
        for name, own in list(found.items())[:LANGUAGE_ROWS]
    ]  # fmt: skip
    more = f" (the first {LANGUAGE_ROWS} of {len(found):,})" * (len(found) > LANGUAGE_ROWS)
    columns = ["language", "texts", "matches", "t", "p", "head entries", "kept texts"]
    return [f"## Languages{more}", "", *table(columns, rows), ""]


def _plots(facts: Facts) -> list[str]:
    if not facts.plots:
        return []
    lines = ["## Distribution", ""]
    for name, title in facts.plots.items():
        lines += [f"![{title}]({name})", ""]
    return lines


def _made(facts: Facts) -> list[str]:
    card = facts.card
    fingerprints = card["pool"]["fingerprints"]
    rows = [
        ["metacurate", str(card["metacurate"])],
        ["pool", f"{len(fingerprints):,} files; fingerprints in `datacard.json`"],
        ["metadata", f"`{facts.entries}`, fingerprint {code(card['metadata']['fingerprint'])}"],
        ["matching rule", code(card["matched"]["rule"])],
        ["seed", str(card["balancing"]["seed"])],
        ["subset", f"{facts.shards:,} files, checksum {code(facts.checksum)}"],
    ]
    return [
        "## How it was made",
        "",
        "```sh",
        facts.command,
        "```",
        "",
        *table(["", "what"], rows, numbers=False),
        "",
        "The same pool, metadata, settings and seed give the same bytes, on any number of workers.",
        "",
    ]


def _license(config: CardConfig) -> list[str]:
    said = "No licence is stated." if config.license is None else (
        f"Licence of this data set: {markdown(config.license, 200)}."
    )  # fmt: skip
    return [
        "## Licence and citation",
        "",
        f"{said} Images and texts on the web are their authors'.",
        "",
        "```bibtex",
        _CITATION,
        "```",
    ]
