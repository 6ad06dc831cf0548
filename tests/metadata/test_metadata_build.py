"""Metadata from dumps: counts known by construction, resuming, workers, options, messages."""

from __future__ import annotations

import bz2
import gzip
import json
import math
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from conftest import Command, command_line
from metacurate.errors import UserError
from metacurate.metadata.build import BuildConfig, build_metadata
from metacurate.metadata.store import load_metadata
from metacurate.metadata.wordnet import shipped_entries
from wikipedia_dumps import SEGMENTS, maker

ARTICLES = maker.make_articles(SEGMENTS[:300], 400, seed=11)
TITLES = [article.title for article in ARTICLES]
# A redirect; a chain of three; a loop; a redirect to a page that is no article.
REDIRECTS = [
    ("Old name", TITLES[0]),
    ("Chain 1", "Chain 2"),
    ("Chain 2", "Chain 3"),
    ("Chain 3", TITLES[1]),
    ("Loop 1", "Loop 2"),
    ("Loop 2", "Loop 1"),
    ("To category", "Category:Things"),
    *((f"Former {title}", title) for title in TITLES[10:60]),
]
PAGES = maker.dump_pages(ARTICLES, REDIRECTS)
WORDS, BIGRAMS = maker.known_counts(ARTICLES)
TOKENS = sum(WORDS.values())
VIEWS = [
    *((title, 1 + number % 150) for number, title in enumerate(TITLES)),
    *((source, 30) for source, _ in REDIRECTS),
    ("Talk:Something", 500),
    ("No such article", 500),
]


def expected_views() -> Counter[str]:
    """Views by article, redirects followed one by one."""
    target = dict(REDIRECTS)
    views: Counter[str] = Counter()
    for title, count in VIEWS:
        for _ in range(5):
            title = target.get(title, title)  # noqa: PLW2901
        if title in TITLES:
            views[title] += 2 * count  # in the hourly and in the daily file
    return views


def write_inputs(folder: Path, files: int = 1) -> None:
    """A dump in so many multistream files and the views in both formats, with known content."""
    folder.mkdir(exist_ok=True)
    share = math.ceil(len(PAGES) / files)
    for number in range(files):
        part = PAGES[number * share : (number + 1) * share]
        name = f"enwiki-1-pages-articles-multistream{number + 1}.xml-p{number}p9.bz2"
        (folder / name).write_bytes(maker.multistream(part, 20))
    hourly = b"\n".join(maker.hourly_lines(VIEWS, random.Random(2))) + b"\nen broken\n"
    (folder / "pageviews-20240101-000000.gz").write_bytes(gzip.compress(hourly, mtime=0))
    daily = b"\n".join(maker.daily_lines(VIEWS)) + b"\n"
    (folder / "pageviews-20240101-user.bz2").write_bytes(bz2.compress(daily))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


def config_for(folder: Path, **changes: Any) -> BuildConfig:
    base = BuildConfig(
        dumps=(f"{folder}/enwiki-*",),
        pageviews=(f"{folder}/pageviews-*",),
        min_count=20,
        min_pmi=8.0,
        min_bigram_count=3,
        min_views=100,
        part_bytes=30_000,
        tokens_a_run=5_000,
        partitions=4,
    )
    return replace(base, **changes)


def build(config: BuildConfig, out: Path, workers: int = 1, overwrite: bool = False) -> Any:
    return build_metadata(config, str(out), workers=workers, overwrite=overwrite)


def scores(out: Path, source: str) -> dict[str, float]:
    rows = pq.read_table(out.with_suffix(".parquet")).to_pylist()
    return {row["entry"]: row["score"] for row in rows if row["source"] == source}


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def known_pmi(pair: tuple[str, str]) -> float:
    return math.log2(BIGRAMS[pair] * TOKENS / (WORDS[pair[0]] * WORDS[pair[1]]))


def test_every_source_has_the_known_entries_and_scores(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    totals = build(config_for(inputs, sources=("unigrams", "bigrams", "titles")), out)
    assert totals["stages"]["dump"]["tokens"] == TOKENS
    assert totals["stages"]["dump"]["articles"] == len(ARTICLES)
    assert totals["stages"]["dump"]["redirects"] == len(REDIRECTS)
    assert totals["stages"]["words"]["words"] == len(WORDS)
    assert totals["stages"]["words"]["distinct_bigrams"] == len(BIGRAMS)

    unigrams = {word: float(count) for word, count in WORDS.items() if count >= 20}
    assert scores(out, "unigrams") == unigrams
    bigrams = {
        " ".join(pair): known_pmi(pair)
        for pair, count in BIGRAMS.items()
        if count >= 3 and known_pmi(pair) >= 8
    }
    assert len(bigrams) > 20
    assert scores(out, "bigrams") == pytest.approx(bigrams, abs=1e-8)
    titles = {t: float(views) for t, views in expected_views().items() if views >= 100}
    assert len(titles) > 100
    assert scores(out, "titles") == titles
    assert totals["stages"]["articles"]["redirects_to_redirects"] == 4
    assert maker.POISON not in out.read_text()

    # Best first within a source, sources in order.
    rows = pq.read_table(out.with_suffix(".parquet")).to_pylist()
    order = ["unigrams", "bigrams", "titles"]
    keys = [(order.index(row["source"]), -row["score"]) for row in rows]
    assert keys == sorted(keys)
    assert {row["lang"] for row in rows} == {"en"}
    assert json.loads(out.read_text()) == [row["entry"] for row in rows]


def test_sources_are_merged_in_order_without_repeats(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    totals = build(config_for(inputs), out)
    names = shipped_entries()
    entries = load_metadata(str(out)).entries.to_pylist()
    assert entries[:100] == [str(number) for number in range(100)]
    assert entries[100 : 100 + len(names)] == names
    sizes = totals["sizes"]
    # The paper's 86,654 names of WordNet are these two.
    assert [sizes[source]["added"] for source in ("numbers", "wordnet")] == [100, 86_554]
    assert [sizes[source]["paper"] for source in ("numbers", "wordnet")] == [100, 86_554]
    frequent = {word for word, count in WORDS.items() if count >= 20}
    assert sizes["unigrams"]["found"] == len(frequent)
    assert sizes["unigrams"]["added"] == len(frequent - set(names)) < len(frequent)
    assert totals["entries"] == len(entries) == sum(size["added"] for size in sizes.values())
    assert load_metadata(str(out.with_suffix(".parquet"))).fingerprint == totals["fingerprint"]


def test_output_does_not_depend_on_workers_or_restarts(inputs: Path, tmp_path: Path) -> None:
    build(config_for(inputs), tmp_path / "one" / "m.json", workers=1)
    build(config_for(inputs), tmp_path / "two" / "m.json", workers=2)
    one, two = files_below(tmp_path / "one"), files_below(tmp_path / "two")
    assert one == two
    assert len(one) > 50
    again = build(config_for(inputs), tmp_path / "one" / "m.json")
    assert again["entries"] > 0
    assert files_below(tmp_path / "one") == two


def test_result_does_not_depend_on_parts_runs_or_partitions(inputs: Path, tmp_path: Path) -> None:
    first = build(config_for(inputs), tmp_path / "a.json")
    for number, changes in enumerate(
        ({"partitions": 1}, {"part_bytes": 1 << 30}, {"tokens_a_run": 1 << 20, "partitions": 7})
    ):
        other = build(config_for(inputs, **changes), tmp_path / f"{number}.json")
        assert other["fingerprint"] == first["fingerprint"]
        assert other["sizes"] == first["sizes"]
        assert (tmp_path / f"{number}.parquet").read_bytes() == (
            tmp_path / "a.parquet"
        ).read_bytes()


def test_multistream_and_single_stream_dumps_agree(inputs: Path, tmp_path: Path) -> None:
    first = build(config_for(inputs), tmp_path / "a.json")
    for name, pack in (("d.xml", bytes), ("d.xml.bz2", bz2.compress), ("d.xml.gz", gzip.compress)):
        path = tmp_path / name
        path.write_bytes(pack(maker.single_stream(PAGES)))
        other = build(config_for(inputs, dumps=(str(path),)), tmp_path / f"{name}.json")
        assert other["fingerprint"] == first["fingerprint"]


COMMAND = ["metadata", "build"]


def command(inputs: Path, out: Path, *more: str) -> list[str]:
    return [
        *COMMAND, "--wikipedia", f"{inputs}/enwiki-*", "--pageviews", f"{inputs}/pageviews-*",
        "--out", str(out), "--min-count", "20", "--min-pmi", "8", "--min-bigram-count", "3", *more,
    ]  # fmt: skip


def test_killed_run_resumes_to_the_same_bytes(tmp_path: Path, metacurate: Command) -> None:
    write_inputs(tmp_path / "in", files=8)
    reference = tmp_path / "reference" / "m.json"
    assert metacurate(*command(tmp_path / "in", reference, "--workers", "1")).returncode == 0
    expected = files_below(reference.parent)

    out = tmp_path / "killed" / "m.json"
    killed = 0
    for wanted in (2, 5, 7):
        process = subprocess.Popen(
            command_line(*command(tmp_path / "in", out, "--workers", "2")), start_new_session=True
        )
        state = out.parent / "m.build" / "state" / "dump"
        while process.poll() is None:
            if state.is_dir() and len(list(state.glob("part-*.json"))) >= wanted:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.001)
        process.wait()
    assert killed >= 2
    assert metacurate(*command(tmp_path / "in", out, "--workers", "2")).returncode == 0
    left = {name: data for name, data in files_below(out.parent).items() if ".tmp-" not in name}
    assert left == expected


def test_damaged_inputs_are_counted_not_fatal(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in")
    dump = next((tmp_path / "in").glob("enwiki-*"))
    dump.write_bytes(dump.read_bytes()[:-3000])
    views = tmp_path / "in" / "pageviews-20240101-000000.gz"
    views.write_bytes(views.read_bytes()[:-100])
    totals = build(config_for(tmp_path / "in"), tmp_path / "m.json")
    assert totals["stages"]["dump"]["losses"]["truncated_streams"] == 1
    assert totals["stages"]["views"]["losses"]["truncated_streams"] == 1
    assert totals["entries"] > len(shipped_entries())
    assert "not usable in the dump files: 1 truncated_streams" in totals["notes"]


def test_best_bigrams_and_lowercase(inputs: Path, tmp_path: Path) -> None:
    sources = ("unigrams", "bigrams")
    config = config_for(inputs, sources=sources, best_bigrams=15, min_bigram_count=5)
    build(config, tmp_path / "m.json")
    ranked = sorted(
        ((-known_pmi(p), -c, " ".join(p)) for p, c in BIGRAMS.items() if c >= 5),
        key=lambda row: (round(row[0], 9), row[1], row[2]),
    )[:15]
    assert list(scores(tmp_path / "m.json", "bigrams")) == [row[2] for row in ranked]

    build(config_for(inputs, sources=sources, lowercase=True), tmp_path / "lower.json")
    lower: Counter[str] = Counter()
    for word, count in WORDS.items():
        lower[word.lower()] += count
    expected = {word: float(count) for word, count in lower.items() if count >= 20}
    assert scores(tmp_path / "lower.json", "unigrams") == expected


def test_page_views_without_a_dump(inputs: Path, tmp_path: Path) -> None:
    config = config_for(inputs, dumps=(), sources=("titles",))
    totals = build(config, tmp_path / "m.json")
    found = scores(tmp_path / "m.json", "titles")
    assert found["No such article"] == 1000
    assert "Talk:Something" not in found
    assert found[TITLES[99]] == 200
    assert list(totals["sizes"]) == ["titles"]


def test_a_source_may_be_added_later(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.json"
    build(config_for(inputs, pageviews=()), out)
    words = tmp_path / "m.build" / "dump" / "part-000000-words-0000.arrow"
    written = words.stat().st_mtime_ns
    with pytest.raises(UserError, match="overwrite"):
        build(config_for(inputs), out)
    later = build(config_for(inputs), out, overwrite=True)
    assert words.stat().st_mtime_ns == written
    assert later["fingerprint"] == build(config_for(inputs), tmp_path / "n.json")["fingerprint"]


def test_overwrite_builds_finished_metadata_again(inputs: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "m.json", config_for(inputs, sources=("unigrams", "titles"))
    totals = build(config, out)
    before = files_below(tmp_path)
    harmed = tmp_path / "m.build" / "words" / "part-000000.parquet"
    harmed.write_bytes(harmed.read_bytes()[:-1] + b"x")
    views = tmp_path / "m.build" / "views" / "part-000000-views-0000.arrow"
    written = views.stat().st_mtime_ns  # whole seconds and a number of a file come again
    assert build(config, out) == totals
    assert files_below(tmp_path) != before
    assert build(config, out, overwrite=True) == totals
    assert files_below(tmp_path) == before
    assert views.stat().st_mtime_ns != written


def test_threshold_that_no_bigram_can_reach_is_noted(inputs: Path, tmp_path: Path) -> None:
    config = config_for(inputs, sources=("unigrams", "bigrams"), min_pmi=30.0, min_bigram_count=1)
    totals = build(config, tmp_path / "m.json")
    assert totals["sizes"]["bigrams"]["found"] == 0
    (note,) = totals["notes"]
    assert "can reach a PMI of 30" in note
    assert f"{math.log2(TOKENS):.2f}" in note


def test_repeated_articles_are_noted(tmp_path: Path) -> None:
    for name in ("a.xml", "b.xml"):
        (tmp_path / name).write_bytes(maker.single_stream(PAGES[:30]))
    config = config_for(tmp_path, dumps=(f"{tmp_path}/*.xml",), pageviews=(), min_pmi=1.0)
    totals = build(config, tmp_path / "m.json")
    repeated = sum(1 for page in PAGES[:30] if b"<ns>0</ns>" in page)
    assert totals["notes"][-1].startswith(f"{repeated} articles are in the dump files more than")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "m.txt"], "must name a .json file"),
        (["--wikipedia", "nothing-*.bz2"], "no file or folder matches nothing-"),
        (
            ["--source", "films"],
            "no metadata source 'films'; known are bigrams, numbers, titles",
        ),
        (["--source", "titles"], "nothing to build from"),
        (["--wordnet", "nowhere"], "nowhere"),
        (["--wordnet", "wn:no-such:1"], "no lexicon no-such:1|pip install wn"),
    ],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path,
    options: list[str],
    message: str,
    metacurate: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    default = [] if "--out" in options else ["--out", "m.json"]
    done = metacurate(*COMMAND, *default, *options)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert re.search(message, line)


def test_build_and_info_commands(inputs: Path, tmp_path: Path, metacurate: Command) -> None:
    out = tmp_path / "m.json"
    done = metacurate(*command(inputs, out, "--json"))
    totals = json.loads(done.stdout)
    info = metacurate("metadata", "info", out.with_suffix(".parquet"), "--entries", 2, "--json")
    facts = json.loads(info.stdout)
    assert facts["entries"] == totals["entries"]
    assert facts["fingerprint"] == totals["fingerprint"]
    assert facts["sources"] == {s: size["added"] for s, size in totals["sizes"].items()}
    assert facts["first"] == ["0", "1"]
    table = metacurate(*command(inputs, out))
    assert "251,465" in table.stdout
