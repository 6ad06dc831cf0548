"""The report: what the page says, that it is safe, the same every time, and how it looks."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
import tarfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from chromium import Browser, browser, find_chromium
from hostile_pool import DANGEROUS_CHARACTERS, ENTRIES, make_hostile_run
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
from metacurate.reporting import build, scan
from metacurate.reporting.build import ReportConfig, write_report
from metacurate.reporting.charts import short_number
from metacurate.reporting.html import Column, Table, marked, templates
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


@pytest.fixture(scope="module")
def chromium() -> Browser:
    executable = find_chromium()
    if executable is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    with browser(executable) as started:
        yield started


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


def test_hostile_text_stays_text(hostile_file: Path) -> None:
    page = hostile_file.read_text(encoding="utf-8")
    assert not set(page) & set(DANGEROUS_CHARACTERS)
    assert len(page) < 1_000_000
    assert "(1,000,017 characters)" in page
    assert "\\u202egnptac\\u202c" in page
    elements = Elements(page)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 2
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
        lambda: part("figure", HOSTILE, HOSTILE),
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


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("kind", ["emoji", "hostile", "language"])
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
    assert chromium.evaluate("document.title") == "Curation report"
    assert chromium.complaints() == []
    assert chromium.requests() == [page.resolve().as_uri()]
    # Charts are drawn and fill their place; nothing lies outside the window but in a scroller.
    charts = chromium.evaluate(
        "[...document.querySelectorAll('figure svg')].map((s) => s.getBoundingClientRect().width)"
    )
    assert len(charts) == (8 if kind == "language" else 4)
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


def test_search_knows_each_languages_threshold(
    chromium: Browser, language_run: Path, language_file: Path
) -> None:
    card = json.loads((language_run / "datacard.json").read_text())
    chromium.open(language_file, 1280, 800)
    cells = chromium.evaluate(
        "[...document.querySelectorAll('#entry-rows tr')]"
        ".map((row) => [...row.children].map((cell) => cell.textContent))"
    )
    seen = {(cell[5], cell[0]): cell for cell in cells}
    assert len(seen) == 8
    for language in ("en", "zh"):
        t = card["languages"][language]["t"]
        for entry, number in card["entry_counts"][language].items():
            cell = seen[language, entry]
            assert float(cell[3]) == pytest.approx(min(1, t / number), rel=6e-3)
            assert cell[4] == ("head" if number >= t else "tail")


def test_search_finds_entries(chromium: Browser, hostile_file: Path) -> None:
    chromium.open(hostile_file, 1280, 800)
    rows = "document.querySelectorAll('#entry-rows tr').length"
    assert chromium.evaluate(rows) == len(ENTRIES)
    chromium.evaluate(
        "{ const q = document.getElementById('entry-query'); q.value = 'SCRIPT';"
        " q.dispatchEvent(new Event('input')); }"
    )
    assert chromium.evaluate(rows) == 2
    assert chromium.evaluate("document.getElementById('entry-status').textContent") == (
        f"2 of {len(ENTRIES)}"
    )
    first = "document.querySelector('#entry-rows td').textContent"
    assert "<script>" in chromium.evaluate(first)
    assert chromium.complaints() == []
