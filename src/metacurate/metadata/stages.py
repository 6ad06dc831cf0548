"""The stages that turn dumps into scored words, bigrams and titles.

``dump``: each part of a dump to partitioned runs of words and bigrams, article titles and
redirects. ``words``: each partition of words summed up, and its bigrams with their left word's
count. ``bigrams``: the right word's count joined, PMI taken. ``articles``: each partition of titles
made unique, redirects to redirects found. ``views``: each page view file to runs of views by title.
``resolved``: views of a redirect given to its target. ``titles``: views summed by article.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from metacurate.counts import counted
from metacurate.runtime.manifest import Stage, Statistics, shard_name
from metacurate.runtime.storage import Folder
from metacurate.wikipedia.dumpfile import Part, read_lines
from metacurate.wikipedia.ngrams import RunCounter, pmi
from metacurate.wikipedia.pages import read_pages
from metacurate.wikipedia.pageviews import (
    MAX_LINE_BYTES,
    ViewRule,
    is_article_title,
    read_views,
)
from metacurate.wikipedia.reasons import NOT_ASKED_FOR
from metacurate.wikipedia.shuffle import (
    hash_column,
    hash_texts,
    look_up,
    read_runs,
    read_table,
    sum_by,
    write_run,
    write_table,
)
from metacurate.wikipedia.tokens import TokenRule
from metacurate.wikipedia.wikitext import Wiki, plain_text

METADATA = Stage("metadata", ())
TITLES = Stage("titles", ("titles",), (METADATA,))
RESOLVED = Stage("resolved", ("resolved",), (TITLES,))
VIEWS = Stage("views", ("views",), (RESOLVED,))
ARTICLES = Stage("articles", ("articles",), (RESOLVED,))
BIGRAMS = Stage("bigrams", ("bigrams",), (METADATA,))
WORDS = Stage("words", ("words",), (BIGRAMS,))
# Each stage once: METADATA is reached through ARTICLES.
DUMP = Stage(
    "dump", ("dump",), (Stage("words", ("words",), (Stage("bigrams", ("bigrams",)),)), ARTICLES)
)

TITLES_A_RUN = 1_000_000
DUMP_ARTICLES, BY_NAME, ANY_TITLE = "dump", "names", "any"


@dataclass(frozen=True)
class DumpTask:
    """One part of a dump. ``count``: "nothing", "words" or "bigrams" (and words)."""

    folder: Folder
    position: int
    part: Part
    partitions: int
    count: str
    lowercase: bool
    max_page_bytes: int
    tokens_a_run: int
    rule: TokenRule | None
    wiki: Wiki


@dataclass(frozen=True)
class ViewsTask:
    """One page view file."""

    folder: Folder
    position: int
    part: Part
    partitions: int
    rule: ViewRule


@dataclass(frozen=True)
class PartitionTask:
    """One partition of what an earlier stage left."""

    folder: Folder
    partition: int
    partitions: int


@dataclass(frozen=True)
class PmiTask(PartitionTask):
    """One partition of bigrams: all tokens, the least count, the least PMI, the most to keep.

    ``joiner`` stands between the two words; ``longest`` is the most characters of an entry."""

    tokens: int
    min_count: int
    min_pmi: float | None
    best: int | None
    joiner: str = " "
    longest: int | None = None


@dataclass(frozen=True)
class TitlesTask(PartitionTask):
    """One partition of titles.

    ``articles``: ``dump`` if article titles and redirects are known, ``names`` if titles with the
    prefix of another namespace are left out, ``any``. ``colons``: whether titles may hold one.
    """

    articles: str
    colons: bool


def run_names(folder: Folder, stage: str, kind: str) -> list[str]:
    """The run files of a kind that a stage left, in order."""
    return [name for name in folder.list(stage) if f"-{kind}-" in name]


def read_dump(task: DumpTask) -> Statistics:
    """Count the words of a part's articles; list its article titles and redirects."""
    stem = f"dump/{shard_name(task.position)}"
    losses: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    counter = RunCounter(
        task.folder,
        stem,
        task.partitions,
        lowercase=task.lowercase,
        bigrams=task.count == "bigrams",
        tokens_a_run=task.tokens_a_run,
        rule=task.rule,
    )
    articles: list[str] = []
    redirects: list[tuple[str, str]] = []
    for page in read_pages(task.part, task.max_page_bytes, losses):
        seen["pages"] += 1
        if page.namespace != 0:
            seen["other_namespaces"] += 1
        elif page.redirect is not None:
            redirects.append((page.title, page.redirect))
        else:
            articles.append(page.title)
            if task.count != "nothing":
                text = plain_text(page.text, task.wiki)
                seen["wikitext_characters"] += len(page.text)
                seen["text_characters"] += len(text)
                counter.add(text)
    counter.spill()
    sources = [source for source, _ in redirects]
    targets = [target for _, target in redirects]
    for kind, columns in (
        ("articles", {"title": articles}),
        ("redirects", {"source": sources, "target": targets}),
        ("targets", {"target": targets}),
    ):
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        key = next(iter(columns.values()))
        name = f"{stem}-{kind}-0000.arrow"
        write_run(task.folder, name, table, hash_texts(key), task.partitions)
    losses.update(counter.losses)
    return {
        "pages": seen["pages"],
        "articles": len(articles),
        "redirects": len(redirects),
        "other_namespaces": seen["other_namespaces"],
        "wikitext_characters": seen["wikitext_characters"],
        "text_characters": seen["text_characters"],
        "tokens": counter.words,
        "losses": counted(losses),
    }


def sum_words(task: PmiTask) -> Statistics:
    """Sum a partition's words; join their counts to the bigrams that begin with them.

    Bigrams that cannot reach the least PMI whatever their right word's count (it is at least the
    bigram's own) are left out here.
    """
    words = sum_by(
        read_runs(task.folder, run_names(task.folder, "dump", "words"), task.partition),
        ["word"],
        "count",
    )
    write_table(task.folder, f"words/{shard_name(task.partition)}.parquet", words)
    runs = run_names(task.folder, "dump", "bigrams")
    bigrams = sum_by(read_runs(task.folder, runs, task.partition), ["left", "right"], "count")
    distinct = bigrams.num_rows
    bigrams = bigrams.filter(pc.greater_equal(bigrams["count"], task.min_count))
    left_count = look_up(bigrams["left"], words["word"], words["count"])
    bigrams = bigrams.append_column("left_count", left_count)
    if task.min_pmi is not None:
        limit = task.tokens / 2**task.min_pmi * (1 + 1e-6)
        bigrams = bigrams.filter(pc.less_equal(bigrams["left_count"], limit))
    name = f"words/{shard_name(task.partition)}-bigrams-0000.arrow"
    write_run(task.folder, name, bigrams, hash_column(bigrams["right"]), task.partitions)
    return {"words": words.num_rows, "distinct_bigrams": distinct, "candidates": bigrams.num_rows}


def score_bigrams(task: PmiTask) -> Statistics:
    """Take the PMI of a partition's bigrams; keep those that reach the least (or the best)."""
    runs = run_names(task.folder, "words", "bigrams")
    schema = pa.schema(
        [("left", pa.string()), ("right", pa.string())]
        + [(name, pa.uint64()) for name in ("count", "left_count")]
    )
    table = pa.concat_tables([schema.empty_table(), *read_runs(task.folder, runs, task.partition)])
    table = table.filter(pc.greater_equal(table["count"], task.min_count))
    words = read_table(task.folder, f"words/{shard_name(task.partition)}.parquet")
    right_count = look_up(table["right"], words["word"], words["count"])
    score = pmi(
        table["count"].to_numpy(),
        table["left_count"].to_numpy(),
        right_count.to_numpy(zero_copy_only=False),
        task.tokens,
    )
    found = pa.table(
        {
            "entry": pc.binary_join_element_wise(table["left"], table["right"], task.joiner),
            "score": pa.array(score, pa.float64()),
            "count": table["count"],
        }
    )
    too_long = 0
    if task.min_pmi is not None:
        found = found.filter(pc.greater_equal(found["score"], task.min_pmi))
    if task.longest is not None:
        fits = pc.less_equal(pc.utf8_length(found["entry"]), task.longest)
        found = found.filter(fits)
        too_long = len(fits) - found.num_rows
    found = best_first(found, ["score", "count"], task.best)
    write_table(task.folder, f"bigrams/{shard_name(task.partition)}.parquet", found)
    return {"candidates": table.num_rows, "too_long": too_long, "bigrams": found.num_rows}


def best_first(table: pa.Table, columns: Iterable[str], best: int | None = None) -> pa.Table:
    """Sort by columns, highest first, then by entry; keep the first ``best`` rows."""
    order = [*((column, "descending") for column in columns), ("entry", "ascending")]
    return table.sort_by(order).slice(0, best)


def list_articles(task: PartitionTask) -> Statistics:
    """Make a partition's article titles unique; find the redirects that redirects lead to."""
    titles = _rows(task, "articles", ["title"])
    unique = pc.unique(titles["title"])
    write_table(
        task.folder, f"articles/{shard_name(task.partition)}.parquet", pa.table({"title": unique})
    )
    redirects = _rows(task, "redirects", ["source", "target"])
    targets = _rows(task, "targets", ["target"])
    double = redirects.filter(pc.is_in(redirects["source"], value_set=targets["target"]))
    write_table(task.folder, f"articles/{shard_name(task.partition)}-double.parquet", double)
    return {
        "articles": len(unique),
        "repeated_articles": titles.num_rows - len(unique),
        "redirects": redirects.num_rows,
        "redirects_to_redirects": double.num_rows,
    }


def _rows(task: PartitionTask, kind: str, columns: list[str]) -> pa.Table:
    empty = pa.schema([(column, pa.string()) for column in columns]).empty_table()
    names = run_names(task.folder, "dump", kind)
    return pa.concat_tables([empty, *read_runs(task.folder, names, task.partition)])


def count_views(task: ViewsTask) -> Statistics:
    """Sum a page view file's views by title, in bounded memory."""
    losses: Counter[str] = Counter()
    views: Counter[str] = Counter()
    runs = total = lines = 0

    def spill() -> None:
        nonlocal runs
        table = pa.table(
            {
                "title": pa.array(views.keys(), pa.string()),
                "views": pa.array(views.values(), pa.uint64()),
            }
        )
        name = f"views/{shard_name(task.position)}-views-{runs:04d}.arrow"
        write_run(task.folder, name, table, hash_texts(views), task.partitions)
        views.clear()
        runs += 1

    for title, count in read_views(
        read_lines(task.part, losses, MAX_LINE_BYTES), task.rule, losses
    ):
        views[title] += count
        total += count
        lines += 1
        if len(views) >= TITLES_A_RUN:
            spill()
    spill()
    others = {reason: losses.pop(reason, 0) for reason in NOT_ASKED_FOR}
    return {"views": total, "lines": lines, **others, "losses": counted(losses)}


def resolve_redirects(task: TitlesTask) -> Statistics:
    """Give the views of a partition's redirects to the pages that they lead to."""
    names = run_names(task.folder, "views", "views")
    views = sum_by(read_runs(task.folder, names, task.partition), ["title"], "views")
    titles = views["title"].to_pylist()
    moved = 0
    if task.articles == DUMP_ARTICLES:
        redirects = _rows(task, "redirects", ["source", "target"])
        targets = look_up(views["title"], redirects["source"], redirects["target"]).to_pylist()
        double: dict[str, str] = {}
        for partition in range(task.partitions):
            table = read_table(task.folder, f"articles/{shard_name(partition)}-double.parquet")
            double.update(zip(*(table[c].to_pylist() for c in table.column_names), strict=True))
        for row, target in enumerate(targets):
            if target is not None:
                titles[row] = _follow(target, double)
                moved += 1
    table = pa.table({"title": pa.array(titles, pa.string()), "views": views["views"]})
    name = f"resolved/{shard_name(task.partition)}-views-0000.arrow"
    write_run(task.folder, name, table, hash_texts(titles), task.partitions)
    return {"titles": len(titles), "redirects": moved}


def _follow(title: str, double: dict[str, str]) -> str:
    passed = {title}
    while (following := double.get(title)) is not None and following not in passed:
        title = following
        passed.add(title)
    return title


def sum_titles(task: TitlesTask) -> Statistics:
    """Sum the views of a partition's titles; keep articles."""
    names = run_names(task.folder, "resolved", "views")
    views = sum_by(read_runs(task.folder, names, task.partition), ["title"], "views")
    titles = views
    if task.articles == DUMP_ARTICLES:
        articles = read_table(task.folder, f"articles/{shard_name(task.partition)}.parquet")
        titles = views.filter(pc.is_in(views["title"], value_set=articles["title"]))
    elif task.articles == BY_NAME:
        kept = [is_article_title(t) for t in views["title"].to_pylist()]
        titles = views.filter(pa.array(kept, pa.bool_()))
    with_colon = 0
    if not task.colons:
        plain = pc.invert(pc.match_substring(titles["title"], ":"))
        with_colon = titles.num_rows - int(pc.sum(plain).as_py() or 0)
        titles = titles.filter(plain)
    titles = titles.rename_columns(["entry", "score"])
    write_table(task.folder, f"titles/{shard_name(task.partition)}.parquet", titles)
    of_articles = int(pc.sum(titles["score"]).as_py() or 0)
    return {
        "titles": titles.num_rows,
        "with_colon": with_colon,
        "views": of_articles,
        "views_of_other_titles": int(pc.sum(views["views"]).as_py() or 0) - of_articles,
    }
