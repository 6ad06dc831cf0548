"""The report: what the page says, that it is safe, the same every time, and how it looks."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
import shlex
import tarfile
import warnings
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markupsafe import Markup
from PIL import Image
from scipy.spatial.distance import jensenshannon
from typer.testing import CliRunner

from chromium import Browser
from hostile_pool import DANGEROUS_CHARACTERS, ENTRIES, make_hostile_run
from metacurate.cli import app
from metacurate.curation.balance import balance
from metacurate.curation.count import count
from metacurate.curation.datacard import write_datacard
from metacurate.curation.match import match
from metacurate.curation.settings import Balance
from metacurate.curation.subset import merge_samples
from metacurate.errors import UserError
from metacurate.images.decoders import isolated, process_job
from metacurate.metadata.store import load_metadata, make_metadata
from metacurate.pipeline import curate
from metacurate.pool.open import open_pool
from metacurate.pool.schema import PoolConfig
from metacurate.reporting import build, charts, entry_index, rejected, scan
from metacurate.reporting.build import ReportConfig, write_report
from metacurate.reporting.charts import short_number
from metacurate.reporting.html import Column, Figure, Table, marked, templates
from metacurate.reporting.provenance import pool_name
from metacurate.reporting.thumbnails import thumbnail
from metacurate.runtime.engines.local import LocalEngine
from metacurate.runtime.run import Run
from metacurate.runtime.storage import Folder

POOL = Path(__file__).parents[2] / "examples" / "emoji"


def report(folder: Path, config: ReportConfig | None = None, workers: int = 1) -> str:
    """Write a run's report; returns the page."""
    run = Run(Folder(str(folder)), LocalEngine(workers))
    write_report(run, config)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def emoji_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emoji") / "run"
    curate(str(POOL), "wordnet", str(folder), t=10, report=False, workers=1)
    return folder


@pytest.fixture(scope="module")
def emoji_page(emoji_run: Path) -> str:
    return report(emoji_run, ReportConfig(entries=("cat",)))


@pytest.fixture(scope="module")
def emoji_file(emoji_page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page by itself: it must not need what lies beside it."""
    page = tmp_path_factory.mktemp("page") / "emoji.html"
    page.write_text(emoji_page, encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hostile_run(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def hostile_file(hostile_run: Path) -> Path:
    report(hostile_run, ReportConfig(samples=8))
    return hostile_run / "report.html"


HOSTILE_LANGUAGE = "\u202e<b onclick=x>de</b>"
WORDS = {
    "en": ["dog", "cat", "a"],
    "zh": ["狗", "猫", "<i>的</i>"],
    HOSTILE_LANGUAGE: ["hund", "a"],
}


@pytest.fixture(scope="module")
def language_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by language, one of which has a hostile name."""
    folder = tmp_path_factory.mktemp("languages")
    rng = random.Random(1)
    rows: dict[str, list[str]] = {"url": [], "text": [], "lang": []}
    for i in range(600):
        language = rng.choice(list(WORDS))
        words = rng.choices(WORDS[language], [9, 3, 1][: len(WORDS[language])], k=3)
        rows["url"].append(f"https://a.example/{i}.png")
        rows["text"].append(" ".join(words))
        rows["lang"].append(language)
    pq.write_table(pa.table(rows), folder / "pool.parquet")
    entries = [(word, language) for language, words in WORDS.items() for word in words]
    metadata = make_metadata([e for e, _ in entries], lang=[name for _, name in entries])
    curate(folder / "pool.parquet", metadata, folder / "run", t=40, report=False, workers=1)
    return folder / "run"


@pytest.fixture(scope="module")
def language_file(language_run: Path) -> Path:
    report(language_run, ReportConfig(entries=("zh:猫",)))
    return language_run / "report.html"


HOSTILE_NAME = "<b onclick=x>\u202e.json"


@pytest.fixture(scope="module")
def comparison_file(hostile_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The hostile run compared with a card that has a hostile name."""
    folder = tmp_path_factory.mktemp("comparison")
    (folder / HOSTILE_NAME).write_text(json.dumps(OTHER_COUNTS))
    compared = [str(hostile_run), str(folder / HOSTILE_NAME)]
    page = folder / "diff.html"
    done = CliRunner().invoke(app, ["diff", *compared, "--html", str(page)])
    assert done.exit_code == 0, done.output
    return page


class Elements(HTMLParser):
    """The page's elements and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


# What the page says.


def test_funnel_and_figures_are_the_runs(emoji_run: Path, emoji_page: str) -> None:
    card = json.loads((emoji_run / "datacard.json").read_text(encoding="utf-8"))
    text = re.sub(r"\s+", " ", Elements(emoji_page).text)
    kept, pairs = card["kept"]["pairs"], card["pool"]["pairs"]
    assert f"{kept:,} of {pairs:,} pairs kept at t = 10" in text
    assert f"matched{card['matched']['pairs']:,}" in text
    assert f"{card['tables']['part']['head']['entries']:,} head entries hold 95.0%" in text
    unmatched = card["metadata"]["entries"] - card["metadata"]["matched_entries"]
    assert f"{unmatched:,} of {card['metadata']['entries']:,} entries" in text
    top = max(card["entry_counts"], key=card["entry_counts"].get)
    assert f"{top}{card['entry_counts'][top]:,}{card['entry_counts_kept'][top]:,}" in text


def test_text_tables_count_the_texts_of_the_kept_pairs(emoji_run: Path, emoji_page: str) -> None:
    expected: dict[str, list[int]] = {}
    for shard in sorted((emoji_run / "curated").iterdir()):
        for row in pq.read_table(shard).to_pylist():
            for text, kept in zip(row["texts"], row["text_kept"], strict=True):
                numbers = expected.setdefault(text["source"], [0, 0])
                numbers[0] += 1
                numbers[1] += kept
    text = Elements(emoji_page).text
    assert len(expected) == 6
    for source, (texts, kept) in expected.items():
        assert f"{source}{texts:,}{kept:,}" in text


def scanned(folder: Path) -> list[dict[str, Any]]:
    """What the tasks of the pass over the shards found."""
    states = sorted((folder / "state/report").iterdir())
    return [json.loads(state.read_text())["statistics"] for state in states]


def test_samples_are_kept_texts_with_the_smallest_hashes(emoji_run: Path, emoji_page: str) -> None:
    states = scanned(emoji_run)
    entries = pq.read_table(emoji_run / "metadata.parquet")["entry"].to_pylist()
    cat = str(entries.index("cat"))
    kept = set()
    for shard in (emoji_run / "curated").iterdir():
        for row in pq.read_table(shard).to_pylist():
            for place, matched in enumerate(row["matched"]):
                if row["text_kept"][place] and int(cat) in matched:
                    kept.add((row["uid"].hex(), place, row["texts"][place]["text"]))
    found = [sample for state in states for sample in state["samples"][cat]]
    assert len(found) > 4
    assert {(s["uid"], s["position"], s["text"]) for s in found} <= kept
    for state in states:
        orders = [sample["order"] for sample in state["samples"][cat]]
        assert orders == sorted(orders)
    best = sorted(found, key=lambda sample: sample["order"])[0]
    assert best["url"] in emoji_page


def test_languages_have_a_table_and_charts(language_run: Path, language_file: Path) -> None:
    page = language_file.read_text(encoding="utf-8")
    card = json.loads((language_run / "datacard.json").read_text())
    text = Elements(page).text
    assert "3 of 3 with matches" in text
    for language in ("en", "zh"):
        facts = card["languages"][language]
        numbers = (f"{facts['texts']:,}", f"{facts['match_counts']:,}", short_number(facts["t"]))
        assert re.search(rf"\b{language}\s*3\s*" + r"\s*".join(numbers), text)
    tags = [tag for tag, _ in Elements(page).found]
    assert tags.count("figure") == 4 + 2 * 2  # English has those of the page
    assert "b" not in {tag for tag, attributes in Elements(page).found if "onclick" in attributes}
    assert not set(page) & set(DANGEROUS_CHARACTERS)
    assert "猫 (zh)" in text
    assert f"t = {card['languages']['en']['t']:g} (en)" in text


def test_matches_per_text(emoji_run: Path, emoji_page: str) -> None:
    states = scanned(emoji_run)
    after = np.sum([state["matches_after"] for state in states], axis=0)
    expected = np.zeros_like(after)
    for shard in (emoji_run / "curated").iterdir():
        for row in pq.read_table(shard, columns=["matched", "text_kept"]).to_pylist():
            for matched, kept in zip(row["matched"], row["text_kept"], strict=True):
                expected[min(len(matched), scan.MAX_MATCHES)] += kept
    assert after.tolist() == expected.tolist()
    card = json.loads((emoji_run / "datacard.json").read_text(encoding="utf-8"))
    before = np.sum([state["matches_before"] for state in states], axis=0)
    assert before[1:].sum() == card["matched"]["texts"]


def test_plots_are_written_as_svg_and_png(emoji_run: Path, emoji_page: str) -> None:
    for name in ("cumulative", "ranks", "histogram", "matches"):
        assert (emoji_run / f"report/{name}.svg").read_text().lstrip().startswith("<?xml")
        with Image.open(emoji_run / f"report/{name}.png") as picture:
            assert picture.width > 600


# Comparing two runs.

OTHER_COUNTS = {"cat": 9, "dog": 1, "emu": 4}


def test_the_comparison_page(hostile_run: Path, comparison_file: Path, tmp_path: Path) -> None:
    page = comparison_file.read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", Elements(page).text)
    counts = json.loads((hostile_run / "datacard.json").read_text())["entry_counts"]
    assert f"matches before{sum(counts.values()):,}14" in text
    both = set(counts) & set(OTHER_COUNTS)
    assert f"Gained before balancing: {len(OTHER_COUNTS) - len(both)}" in text
    assert f"Lost before balancing: {len(counts) - len(both)}" in text
    a, b = counts["dog"] / sum(counts.values()), 1 / 14
    assert f"dog{counts['dog']}1{a:.3%}{b:.3%}{b - a:+.3%}" in text
    divergence = jensenshannon(*(
        [side.get(entry, 0) for entry in sorted({*counts, *OTHER_COUNTS})]
        for side in (counts, OTHER_COUNTS)
    ), base=2) ** 2  # fmt: skip
    assert f"{divergence:.4f} bits apart" in text
    again = tmp_path / "again.html"
    compared = [str(hostile_run), str(comparison_file.parent / HOSTILE_NAME)]
    assert CliRunner().invoke(app, ["diff", *compared, "--html", str(again)]).exit_code == 0
    assert again.read_bytes() == comparison_file.read_bytes()


# The charts' values.


def test_a_charts_values_stand_where_they_are_drawn() -> None:
    counts = np.array([400, 30, 7, 7, 1, 0], np.uint64)
    kept = np.array([21, 12, 7, 7, 1, 0], np.uint64)
    ranks = charts.rank_chart(counts, kept, 20.0)
    assert [row for _, row in ranks.rows] == [
        ("1", "400", "21"), ("2", "30", "12"), ("3", "7", "7"), ("4", "7", "7"), ("5", "1", "1")
    ]  # fmt: skip
    # On a logarithmic axis 1 to 2 is as far as 2 to 4.
    x = [place for place, _ in ranks.rows]
    assert x[1] - x[0] == pytest.approx(x[3] - x[1], abs=0.02)
    # The places are those of the curve's points in the SVG.
    svg = charts.inline_svg(ranks.figure, "ranks", "Ranks")
    points = {
        round(float(number), 2)
        for path in re.findall(r' d="(M[^"]*)"', svg)
        for number in re.findall(r"[ML] ([\d.]+) ", path)
    }
    assert all(any(abs(place - point) < 0.02 for point in points) for place in x)
    cumulative = charts.cumulative_chart(counts, 20.0, [])
    assert cumulative.columns == ("entries", "t = ∞", "t = 20")
    assert [row for _, row in cumulative.rows][-1] == ("5", "445", "55")
    histogram = charts.histogram_chart(counts, kept, 20.0)
    assert ("1", "1", "1") in [row for _, row in histogram.rows]
    assert sum(int(row[1]) for _, row in histogram.rows) == 5
    assert sum(int(row[2]) for _, row in histogram.rows) == 5


def test_values_are_shown_under_the_pointer(chromium: Browser, emoji_file: Path) -> None:
    chromium.open(emoji_file, 1280, 800)
    figure = "document.querySelector('figure:has(svg[aria-label^=\"Matched\"])')"
    chromium.evaluate(f"{figure}.scrollIntoView({{behavior: 'instant', block: 'center'}})")
    left, top, width, height, across = chromium.evaluate(
        f"(() => {{ const s = {figure}.querySelector('svg'), r = s.getBoundingClientRect();"
        " return [r.left, r.top, r.width, r.height, s.viewBox.baseVal.width]; })()"
    )
    row = chromium.evaluate(
        f"(() => {{ const row = {figure}.querySelectorAll('tr[data-x]')[3];"
        " return [row.dataset.x, ...[...row.cells].map((c) => c.textContent)]; })()"
    )
    x = left + float(row[0]) / across * width + 2
    chromium.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=top + height / 2)
    shown = chromium.evaluate(f"{figure}.querySelector('.tip').innerText")
    assert shown.split("\n") == [
        f"matched entries: {row[1]}", f"texts before: {row[2]}", f"texts after: {row[3]}"
    ]  # fmt: skip
    assert row[1] == "4"
    chromium.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
    assert chromium.evaluate(f"{figure}.querySelector('.tip').hidden")


# What was not kept.

MASK = 2**64 - 1


def splitmix(value: int) -> int:
    """The finaliser of SplitMix64, by its definition."""
    z = (value + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def uid_order(uid: bytes) -> int:
    low, high = (int.from_bytes(uid[i : i + 8], "little") for i in (0, 8))
    return splitmix(low ^ splitmix((high + splitmix(0)) & MASK))


def smallest(pairs: dict[bytes, str], size: int) -> list[str]:
    """Texts of the pairs with the smallest hashes, each once."""
    ordered = sorted(pairs, key=uid_order)
    return list(dict.fromkeys(pairs[uid] for uid in ordered))[:size]


@pytest.fixture(scope="module")
def lossy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of all fates in three files; some texts repeat, some pairs have several texts."""
    folder = tmp_path_factory.mktemp("lossy")
    rng = random.Random(3)
    (folder / "pool").mkdir()
    for part in range(3):
        rows: dict[str, list[Any]] = {"url": [], "a": [], "b": []}
        for i in range(400):
            words = rng.choices(["cat", "dog", "emu", "owl", "zzz"], [60, 20, 3, 1, 16], k=2)
            rows["url"].append(None if i % 50 == 7 else f"https://a.example/{part}/{i}.png")
            rows["a"].append(None if i % 11 == 0 else f"{words[0]} {i % 90}")
            rows["b"].append(None if i % 11 == 0 or i % 3 else f"{words[1]} {i}")
        pq.write_table(pa.table(rows), folder / f"pool/{part}.parquet")
    curate(
        folder / "pool", ["cat", "dog", "emu", "owl"], folder / "run", t=20, report=False,
        pool_config=PoolConfig(text_cols=("a", "b")), workers=1,
    )  # fmt: skip
    return folder / "run"


def test_what_is_not_kept(lossy_run: Path) -> None:
    """Counted by hand from the pool, the index and the curated shards."""
    kept: set[bytes] = set()
    for shard in (lossy_run / "curated").iterdir():
        kept |= set(pq.read_table(shard)["uid"].to_pylist())
    dropped: dict[bytes, str] = {}
    unmatched: dict[bytes, str] = {}
    textless: dict[bytes, str] = {}
    lost, alone = np.zeros((2, 4), np.int64)
    for place, name in enumerate(sorted((lossy_run.parent / "pool").iterdir())):
        rows = pq.read_table(name).to_pylist()
        with pa.ipc.open_file(lossy_run / f"index/part-{place:06d}.arrow") as file:
            index = {row["row"]: row for row in file.read_all().to_pylist()}
        for number, row in enumerate(rows):
            if row["url"] is None:
                continue
            uid = hashlib.blake2b(row["url"].encode(), digest_size=16).digest()
            texts = [row["a"], row["b"]]
            if number not in index:
                fate = unmatched if row["a"] or row["b"] else textless
                fate[uid] = row["a"] or row["b"] or uid.hex()
                continue
            uid, matched = index[number]["uid"], index[number]["matched"]
            if uid not in kept:
                first = next(i for i, ids in enumerate(matched) if ids)
                dropped[uid] = texts[first]
                own = {i for ids in matched for i in ids}
                lost[list(own)] += 1
                if len(own) == 1:
                    alone[list(own)] += 1
    page = Elements(report(lossy_run, ReportConfig(samples=5)))
    states = scanned(lossy_run)
    assert sum(state["dropped"] for state in states) == len(dropped) > 100
    words = re.sub(r"\s+", " ", page.text)
    assert f"matched, but dropped by balancing{len(dropped):,}" in words
    for entry, number, only in zip(("cat", "dog"), lost, alone, strict=False):
        assert f"{entry}{number:,}{only:,}" in words
    # Samples: the smallest hashes of the uids, whatever the order of the files.
    merged = {
        reason: rejected.merge_rejected([state["rejected"][reason] for state in states], 5)
        for reason in rejected.REASONS
    }
    assert [s["text"] for s in merged["dropped"]] == smallest(dropped, 5)
    assert [s["text"] for s in merged["no_match"]] == smallest(unmatched, 5)
    assert [s["uid"] for s in merged["no_text"]] == smallest(textless, 5)
    for sample in [*merged["dropped"], *merged["no_match"]]:
        assert sample["text"] in page.text
    for sample in merged["no_text"]:
        assert sample["uid"] in page.text


def test_a_large_pool_is_read_in_part(lossy_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejected, "MAX_POOL_PAIRS", 500)
    page = report(lossy_run, ReportConfig(samples=3))
    assert "from 1 of the pool's 3 units of work" in re.sub(r"\s+", " ", Elements(page).text)
    with_samples = [s for s in scanned(lossy_run) if any(s["rejected"].values())]
    assert len(with_samples) == 1


def test_without_its_pool_a_run_has_no_samples_of_what_is_not_kept(lossy_run: Path) -> None:
    pool = lossy_run.parent / "pool"
    pool.rename(pool.with_name("gone"))
    try:
        page = report(lossy_run, ReportConfig(samples=2))
    finally:
        pool.with_name("gone").rename(pool)
    assert "There are none: the pool cannot be read any more." in Elements(page).text
    assert "matched, but dropped by balancing" in page
    changed = pool / "0.parquet"
    before = changed.read_bytes()
    try:
        pq.write_table(pq.read_table(changed).slice(1), changed)
        page = report(lossy_run, ReportConfig(samples=1))
    finally:
        changed.write_bytes(before)
    assert "There are none: the pool has changed since it was matched." in Elements(page).text


# The same bytes, whatever the way.


def contents(folder: Path) -> dict[str, str]:
    files = [folder / "report.html", *(folder / "report").iterdir()]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_same_bytes_with_workers_and_after_an_interruption(
    emoji_run: Path, emoji_page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ReportConfig(entries=("cat",))
    first = contents(emoji_run)
    report(emoji_run, ReportConfig(head=3, tail=3, samples=1))  # another report in between
    assert contents(emoji_run) != first
    other = (emoji_run / "report.html").read_bytes()

    seen: list[range] = []
    real = scan.scan_shards

    def stops_at_the_third(task: scan.ScanTask) -> dict[str, object]:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(task.shards)
        return real(task)

    with monkeypatch.context() as patch:
        patch.setattr(build, "scan_shards", stops_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            report(emoji_run, config)
    # The old report stays until the new one is there.
    assert (emoji_run / "report.html").read_bytes() == other
    assert len(list((emoji_run / "state/report").iterdir())) == 2
    report(emoji_run, config, workers=2)
    assert contents(emoji_run) == first


def test_a_new_balance_removes_the_report(tmp_path: Path) -> None:
    run = make_hostile_run(tmp_path)
    report(run)
    curate(
        str(tmp_path / "pool"), str(run / "metadata.parquet"), str(run), t=2, workers=1,
        report=False, overwrite=True,
    )  # fmt: skip
    assert not (run / "report.html").exists()
    assert "pairs kept at t = 2" in report(run)


# Bad input.


def test_mistakes_are_told(tmp_path: Path, emoji_run: Path) -> None:
    with pytest.raises(UserError, match="no finished match stage"):
        report(tmp_path)
    with pytest.raises(UserError, match=r"no entry 'Cat'; did you mean 'cat'\?"):
        report(emoji_run, ReportConfig(entries=("Cat",)))
    with pytest.raises(UserError, match=r"no \.tar file"):
        report(emoji_run, ReportConfig(tars=str(tmp_path)))
    with pytest.raises(UserError, match="must be positive"):
        ReportConfig(thresholds=(0.0,))


def test_missing_and_damaged_shards_are_told(tmp_path: Path) -> None:
    run = make_hostile_run(tmp_path)
    shard = run / "curated/part-000001.parquet"
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(UserError, match=r"part-000001\.parquet is missing"):
        report(run)
    shard.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])
    with pytest.raises(UserError, match=r"part-000001\.parquet is damaged"):
        report(run)
    shard.write_bytes(content)
    report(run)


@pytest.mark.parametrize("t", [float("inf"), 0.5, 1e9])
def test_odd_thresholds(tmp_path: Path, t: float) -> None:
    page = report(make_hostile_run(tmp_path, t=t))
    assert "NaN" not in page
    assert "Infinity" not in page


@pytest.mark.parametrize("t", [1e-9, 1e300])
def test_a_threshold_far_from_all_counts_does_not_spoil_the_chart(t: float) -> None:
    counts = np.array([40, 2, 1], np.uint64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = charts.rank_chart(counts, counts, t).figure
    (axes,) = figure.axes
    assert axes.get_window_extent().height > figure.bbox.height / 2
    assert axes.get_ylim()[1] < 1000


def test_a_pool_that_matches_nothing(tmp_path: Path) -> None:
    pool = tmp_path / "pool.csv"
    pool.write_text("url,caption\nhttps://example.org/1.png,zzz zzz\n", encoding="utf-8")
    metadata = tmp_path / "entries.json"
    metadata.write_text('["cat", "dog"]', encoding="utf-8")
    run = Run(Folder(str(tmp_path / "run")), LocalEngine(1))
    match(run, open_pool([str(pool)], PoolConfig()), PoolConfig(), load_metadata(str(metadata)))
    count(run)
    balance(run, Balance(t=10))
    write_datacard(run)
    page = report(tmp_path / "run")
    assert "0 of 1 pairs kept" in page
    assert "2 of 2 entries (100.0%) occur in no text" in re.sub(r"\s+", " ", Elements(page).text)


# Hostile input.


def test_hostile_text_is_shown_in_part(hostile_file: Path) -> None:
    page = hostile_file.read_text(encoding="utf-8")
    assert len(page) < 1_000_000
    assert "(1,000,017 characters)" in page


@pytest.mark.parametrize("kind", ["hostile", "comparison"])
def test_hostile_text_stays_text(request: pytest.FixtureRequest, kind: str) -> None:
    page = request.getfixturevalue(f"{kind}_file").read_text(encoding="utf-8")
    assert not set(page) & set(DANGEROUS_CHARACTERS)
    assert "\\u202egnptac\\u202c" in page
    elements = Elements(page)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == (2 if kind == "hostile" else 1)
    assert "img" not in tags
    assert "i" not in tags
    for tag, attributes in elements.found:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert "style" not in attributes, (tag, attributes)
        if "href" in attributes and tag == "a":
            assert re.match(r"#|https://", attributes["href"] or ""), attributes


def part(name: str, *values: object) -> str:
    """A macro of ``templates/parts.html``, called."""
    return str(getattr(templates().get_template("parts.html").module, name)(*values)).strip()


def test_links_only_to_web_addresses() -> None:
    def link(url: str) -> str:
        return part("link", url)

    assert link("https://example.org/?a=1&b=2").startswith(
        '<a href="https://example.org/?a=1&amp;b=2" rel="noopener noreferrer nofollow"'
    )
    for url in ("javascript:alert(1)", " javascript:alert(1)", "data:text/html,x", "//[", "x",
                "https://example.org/\u202egnp", "java\nscript:alert(1)"):  # fmt: skip
        assert "<a" not in link(url)
        assert "<bdi>" in link(url)


HOSTILE = "<script>alert(1)</script> & \"quoted\" 'too' \x1b[31m \u202egnp"
SHOWN = (
    "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;quoted&#34; &#39;too&#39; "
    "\\x1b[31m \\u202egnp"
)


@pytest.mark.parametrize(
    "made",
    [
        lambda: part("foreign", HOSTILE),
        lambda: part("table", Table(HOSTILE, [Column("x", "e", "foreign")], [[HOSTILE]])),
        lambda: part("table", Table("", [Column(HOSTILE)], [[HOSTILE]])),
        lambda: part("figure", Figure(HOSTILE, Markup(""), [HOSTILE], [(1, [HOSTILE])]), HOSTILE),
    ],
)
def test_every_value_is_escaped(made: Callable[[], str]) -> None:
    page = made()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_foreign_text_is_made_printable_first() -> None:
    assert part("foreign", HOSTILE) == f"<bdi>{SHOWN}</bdi>"
    assert part("foreign", "x" * 99) == f"<bdi>{'x' * 80}… (99 characters)</bdi>"


@pytest.mark.parametrize(
    ("text", "entry", "expected"),
    [
        ("hotdog, a dog", "dog", ("hotdog, a ", "dog", "")),  # by itself before inside a word
        ("hotdogs", "dog", ("hot", "dog", "s")),
        ("a cat", "dog", ("a cat", "", "")),
        ("\u202edog", "dog", ("\\u202e", "dog", "")),
    ],
)
def test_the_entry_is_marked(text: str, entry: str, expected: tuple[str, str, str]) -> None:
    assert marked(text, entry, 50, len(text)) == expected


def test_policy_allows_nothing_but_the_pages_own(emoji_page: str) -> None:
    metas = [a for tag, a in Elements(emoji_page).found if tag == "meta"]
    policy = next(a["content"] for a in metas if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]+'; script-src 'sha256-[\w+/=]+'; "
        r"img-src data:; base-uri 'none'; form-action 'none'",
        policy,
    )


# Thumbnails.


def png(size: tuple[int, int] = (200, 100)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, "PNG")
    return buffer.getvalue()


def test_thumbnails_from_tars(tmp_path: Path, emoji_run: Path, emoji_page: str) -> None:
    assert "<img" not in emoji_page
    states = scanned(emoji_run)
    entry = next(iter(states[0]["samples"]))
    shown = merge_samples([state["samples"][entry] for state in states], 4)
    by_key, by_url, *_ = shown
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for name, content in (
            (f"{by_key['uid']}.png", png()),
            ("000000001.jpg", png()),
            ("000000001.json", json.dumps({"url": by_url["url"]}).encode()),
            ("../../000000002.jpg", b"no image"),
            ("000000002.json", json.dumps({"url": by_key["url"]}).encode()),
            ("000000003.json", b"{"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    page = report(emoji_run, ReportConfig(entries=("cat",), tars=str(tmp_path)))
    images = {a["src"] for tag, a in Elements(page).found if tag == "img"}
    assert len(images) == 1  # both are the same picture
    assert page.count("data:image/jpeg;base64,") == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000.tar"]


def test_what_is_no_image_has_no_thumbnail() -> None:
    with isolated(process_job) as decoder:
        uri = thumbnail(png(), decoder)
        assert thumbnail(b"", decoder) is None
        assert thumbnail(png()[:60], decoder) is None
        assert thumbnail(png((9000, 9000)), decoder) is None  # a bomb: 81 million pixels
    assert uri is not None
    small = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(small)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (128, 64))


# In a browser.


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["emoji", "hostile", "language", "comparison"])
def test_looks_right(
    chromium: Browser, request: pytest.FixtureRequest, kind: str, width: int
) -> None:
    page = request.getfixturevalue(f"{kind}_file")
    chromium.open(page, width, 800)
    chromium.evaluate(
        "document.querySelectorAll('details').forEach("
        "(d) => { d.removeAttribute('name'); d.open = true; })"
    )
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate("document.title").endswith((": curation report", ": comparison"))
    assert chromium.complaints() == []
    assert chromium.requests() == [page.resolve().as_uri()]
    # Charts are drawn and fill their place; nothing lies outside the window but in a scroller.
    charts = chromium.evaluate(
        "[...document.querySelectorAll('figure svg')].map((s) => s.getBoundingClientRect().width)"
    )
    assert len(charts) == {"language": 8, "comparison": 1}.get(kind, 4)
    assert min(charts) > 250
    outside = chromium.evaluate(
        "[...document.querySelectorAll('main *, header *')].filter((e) => !e.closest('.scroll') &&"
        " !e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 1)"
        ".map((e) => e.tagName)"
    )
    assert outside == []
    picture = chromium.screenshot()
    with Image.open(io.BytesIO(picture)) as shown:
        assert shown.size == (width, 800)
        colours = shown.convert("RGB").getcolors(shown.width * shown.height)
    assert colours is not None
    assert len(colours) > 50  # letters and lines, not a blank page


@pytest.mark.parametrize(
    ("kind", "width", "dark"),
    [
        ("hostile", 390, True),
        ("hostile", 1280, False),
        ("comparison", 390, False),
        ("comparison", 1280, True),
    ],
)
def test_axe_finds_nothing(
    chromium: Browser, request: pytest.FixtureRequest, kind: str, width: int, dark: bool
) -> None:
    """axe-core's rules of accessibility, on the page with everything open."""
    page = request.getfixturevalue(f"{kind}_file")
    chromium.open(page, width, 800, dark=dark)
    chromium.evaluate(
        "document.querySelectorAll('details').forEach("
        "(d) => { d.removeAttribute('name'); d.open = true; })"
    )
    if kind != "comparison":
        search(chromium, "")
    found = chromium.axe()
    assert len(found["passes"]) > 10
    assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == []


def test_sections_and_search_stay_in_sight(chromium: Browser, emoji_file: Path) -> None:
    chromium.open(emoji_file, 390, 800)
    for place in (0, 3000, 10**6):
        chromium.evaluate(f"scrollTo({{top: {place}, behavior: 'instant'}})")
        for thing in ("nav a", "#entry-query"):
            box = chromium.evaluate(
                f"document.querySelector('{thing}').getBoundingClientRect().toJSON()"
            )
            assert 0 <= box["top"] < box["bottom"] < 110


def test_dark_mode_turns_the_paper_and_the_charts(chromium: Browser, emoji_file: Path) -> None:
    seen = []
    for dark in (False, True):
        chromium.open(emoji_file, 1280, 800, dark=dark)
        seen.append(
            chromium.evaluate(
                "[getComputedStyle(document.body).backgroundColor,"
                " getComputedStyle(document.querySelector('figure svg text')).fill]"
            )
        )
    (paper, ink), (dark_paper, dark_ink) = seen
    assert paper == "rgb(255, 255, 255)"
    assert ink != dark_ink
    assert dark_paper == "rgb(20, 23, 26)"


def search(chromium: Browser, wanted: str, order: str = "count") -> list[list[str]]:
    """Type into the page's search; the cells of the rows found."""
    chromium.evaluate(
        "for (const [id, value, kind] of "
        f"[['entry-order', {order!r}, 'change'], ['entry-query', {wanted!r}, 'input']]) {{"
        " const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event(kind));"
        "}"
    )
    # What is found is shown when the entries are unpacked; then each letter's answer is at once.
    chromium.wait_for("document.getElementById('entry-status').textContent.includes(' of ')")
    return chromium.evaluate(
        "[...document.querySelectorAll('#entry-rows tr')]"
        ".map((row) => [...row.children].map((cell) => cell.textContent))"
    )


def status(chromium: Browser) -> str:
    return chromium.evaluate("document.getElementById('entry-status').textContent")


def test_search_knows_each_languages_threshold(
    chromium: Browser, language_run: Path, language_file: Path
) -> None:
    card = json.loads((language_run / "datacard.json").read_text())
    chromium.open(language_file, 1280, 800)
    seen = {(cells[6], cells[0]): cells for cells in search(chromium, "")}
    assert len(seen) == 8
    for language in ("en", "zh"):
        t = card["languages"][language]["t"]
        for entry, number in card["entry_counts"][language].items():
            cells = seen[language, entry]
            assert float(cells[3]) == pytest.approx(min(1, t / number), rel=6e-3)
            assert cells[4] == ("head" if number >= t else "tail")


def test_search_finds_all_entries(chromium: Browser, emoji_run: Path, emoji_file: Path) -> None:
    """Each of 86,554 entries, with the run's counts; the one that is meant comes first."""
    entries = pq.read_table(emoji_run / "metadata.parquet")["entry"].to_pylist()
    counts = np.load(emoji_run / "counts.npy")
    kept = np.load(emoji_run / "kept_counts.npy")
    chromium.open(emoji_file, 1280, 800)
    for wanted in ("cat", "xerography"):
        expected = [i for i, entry in enumerate(entries) if wanted in entry.lower()]
        first, *others = search(chromium, wanted)
        place = entries.index(wanted)
        assert first[:3] == [wanted, f"{counts[place]:,}", f"{kept[place]:,}"]
        assert len(others) == min(len(expected), 100) - 1
        assert status(chromium).startswith(f"{len(expected):,} of 86,554 entries")
    assert search(chromium, "cat")[0][5] == "shown"
    assert search(chromium, "dog")[0][5] == "not in this sample"
    assert search(chromium, "xerography")[0][5] == "–"  # there are no pairs of it
    assert search(chromium, "no such entry at all") == []
    assert status(chromium) == "none of 86,554 entries"
    losses = [
        int(c[1].replace(",", "")) - int(c[2].replace(",", ""))
        for c in search(chromium, "", "lost")
    ]
    assert losses[0] == int((counts - kept).max())
    assert losses == sorted(losses, reverse=True)
    # A link to an entry's sample pairs opens them.
    chromium.evaluate("document.querySelector('#entry-rows a').click()")
    chromium.wait_for("document.querySelector('details[open]')?.id === location.hash.slice(1)")
    assert chromium.complaints() == []


def test_search_finds_hostile_entries(chromium: Browser, hostile_file: Path) -> None:
    chromium.open(hostile_file, 1280, 800)
    assert len(search(chromium, "")) == len(ENTRIES)
    found = search(chromium, "SCRIPT")
    assert len(found) == 2
    assert status(chromium) == f"2 of {len(ENTRIES)} entries"
    assert "<script>" in found[0][0]
    assert chromium.complaints() == []


def test_search_of_a_sample_says_so(
    chromium: Browser, hostile_run: Path, hostile_file: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """More entries than a page holds: the most common and some chosen by hash."""
    before = hostile_file.read_bytes()
    monkeypatch.setattr(entry_index, "MAX_ENTRIES", 6)
    (tmp_path / "sample.html").write_text(report(hostile_run, ReportConfig(samples=7)))
    hostile_file.write_bytes(before)
    chromium.open(tmp_path / "sample.html", 1280, 800)
    found = search(chromium, "")
    assert len(found) == 6
    assert {"cat", "dog"} <= {cells[0] for cells in found}
    of = f"in this sample of {len(ENTRIES)}"
    assert status(chromium) == f"6 of 6 entries {of}"
    search(chromium, "zebra")
    assert status(chromium) == f"not {of} entries"


# How a run was made.


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["/a/b/one.parquet", "/a/b/c/two.parquet"], "/a/b"),
        (["pool.csv"], "pool.csv"),
        (["s3://bucket/a/1.tar", "s3://bucket/b/2.tar"], "s3://bucket"),
        (["s3://one/1.tar", "s3://two/2.tar"], "s3://one/1.tar"),
        (["https://me:secret@host.example/a/1.csv?signature=secret"], "https://host.example/a/1.csv"),
    ],
)  # fmt: skip
def test_a_pools_name(files: list[str], name: str) -> None:
    assert pool_name(files) == name


def test_the_page_gives_the_command_that_repeats_the_run(tmp_path: Path) -> None:
    """The command's words, given to the command line, write the same subset."""
    rows = {"address": ["a", "b", "c"], "title words": ["cat", "dog", "cat dog"]}
    pq.write_table(pa.table(rows), tmp_path / "the pool.parquet")
    pool_config = PoolConfig(url_col="address", text_cols=("title words",))
    curate(
        tmp_path / "the pool.parquet", ["cat", "dog"], tmp_path / "run", target_size=2, seed=7,
        rule="worldwide", choose_text="one", expect_survival=0.9, workers=1,
        pool_config=pool_config,
    )  # fmt: skip
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", Elements(page).text)
    found = re.search(r"Made by ?metacurate [\d.]+: metacurate (curate .*?) pairs kept", text)
    assert found is not None
    words = shlex.split(found[1])
    words[words.index("metadata.parquet")] = str(tmp_path / "run/metadata.parquet")
    words += ["--out", str(tmp_path / "again"), "--no-report", "--workers", "1"]
    assert CliRunner().invoke(app, words).exit_code == 0
    for name in ("curated/part-000000.parquet", "threshold.json", "datacard.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    title = re.search("<title>(.*)</title>", page)
    assert title is not None
    assert "the pool.parquet, t = " in title[1]
