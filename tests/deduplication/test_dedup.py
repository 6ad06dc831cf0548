"""Deduplication against a reference of dicts; determinism, resuming, filters and counts."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import Command
from metacurate.arrays import ranges_to_indices, uid_halves, uid_order
from metacurate.deduplication import repeats, runs
from metacurate.deduplication.blocklist import Blocklist, read_blocklist
from metacurate.deduplication.dedup import DedupConfig, dedup
from metacurate.deduplication.merging import merge_rows, rank_in_group, select_texts
from metacurate.deduplication.runs import (
    PLAIN_ROWS,
    MergeCounts,
    UidRange,
    compression_of,
    merge_range,
    plan_ranges,
    read_index,
    read_range,
    write_runs,
)
from metacurate.errors import UserError
from metacurate.pool.schema import TEXTS_TYPE, UID_TYPE, PoolConfig
from metacurate.pool.uid import url_uid
from metacurate.runtime.engines.local import LocalEngine
from metacurate.runtime.engines.threads import ThreadEngine
from metacurate.runtime.storage import Folder
from metacurate.texts.rules import TextRules

Row = tuple[str | None, list[str | None]]


def write_pool(folder: Path, files: list[list[Row]], group: int = 3) -> None:
    folder.mkdir(parents=True)
    number = 0
    for position, rows in enumerate(files):
        table = pa.table(
            {
                "image_url": pa.array([url for url, _ in rows], pa.string()),
                "texts": pa.array([texts for _, texts in rows], pa.list_(pa.string())),
                "number": pa.array(range(number, number + len(rows)), pa.int64()),
            }
        )
        number += len(rows)
        pq.write_table(table, folder / f"{position:03d}.parquet", row_group_size=group)


def read_rows(out: Path) -> list[dict[str, Any]]:
    """All rows of the output in the order of its shards."""
    shards = sorted((out / "pool").glob("*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


def simple(rows: list[dict[str, Any]]) -> list[tuple[bytes, str, list[str], int]]:
    return [(r["uid"], r["url"], [t["text"] for t in r["texts"]], r["number"]) for r in rows]


@dataclass
class Reference:
    """Deduplication as one would write it down: a dict, in memory."""

    rows: dict[bytes, tuple[str, list[str], int]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, files: list[list[Row]], max_texts: int = 0, most: int = 0, keep: bool = False
    ) -> Reference:
        self = cls()
        for number, (url, texts) in enumerate(row for rows in files for row in rows):
            uid = url_uid(url) if url else None
            usable = [t for t in texts if t]
            if uid is None or not usable:
                continue
            _, known, _ = self.rows.setdefault(uid, (url or "", [], number))
            known += [t for t in dict.fromkeys(usable) if t not in known]
        for _, texts, _ in self.rows.values():
            if max_texts:
                del texts[max_texts:]
        if most:
            images = Counter(t for _, texts, _ in self.rows.values() for t in texts)
            seen: Counter[str] = Counter()
            for uid in sorted(self.rows):
                texts = self.rows[uid][1]
                left = []
                for text in texts:
                    seen[text] += 1
                    if images[text] <= most or (keep and seen[text] <= most):
                        left.append(text)
                texts[:] = left
            self.rows = {uid: row for uid, row in self.rows.items() if row[1]}
        return self

    def sorted(self) -> list[tuple[bytes, str, list[str], int]]:
        return [(uid, *self.rows[uid]) for uid in sorted(self.rows)]


# Few URLs and texts, so that they repeat; some URLs differ only in what normalising takes away.
URLS = st.one_of(
    st.none(),
    st.builds(
        lambda host, n, tail: f"http://{host}/{n}.jpg{tail}",
        st.sampled_from(["a.com", "A.com", "a.com:80", "b.org"]),
        st.integers(0, 12),
        st.sampled_from(["", "#x", " "]),
    ),
)
TEXTS = st.lists(
    st.one_of(st.none(), st.just(""), st.sampled_from(["ab", "é", "日本"]), st.text(max_size=3)),
    max_size=4,
)
FILES = st.lists(st.lists(st.tuples(URLS, TEXTS), min_size=1, max_size=15), min_size=1, max_size=4)


@settings(max_examples=60)
@given(
    files=FILES,
    max_texts=st.sampled_from([0, 1, 2]),
    most=st.sampled_from([0, 1, 2, 5]),
    keep=st.booleans(),
    shard_rows=st.sampled_from([2, 7, 1000]),
)
def test_agrees_with_a_dict(
    files: list[list[Row]], max_texts: int, most: int, keep: bool, shard_rows: int
) -> None:
    files = [[(u, [t for t in ts if t is None or t.isprintable()]) for u, ts in f] for f in files]
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        # Small enough that runs, batches, merges and buckets all come in several pieces.
        patch.setattr(runs, "RUN_ROWS", 5)
        patch.setattr(runs, "MAX_BATCH_ROWS", 2)
        patch.setattr(runs, "MERGE_BYTES", 300)
        patch.setattr(repeats, "RECORDS_PER_TASK", 4)
        folder = Path(scratch)
        write_pool(folder / "in", files)
        config = DedupConfig(
            max_texts=max_texts,
            max_images_per_text=most,
            keep_repeats=keep,
            shard_rows=shard_rows,
        )
        totals = dedup(
            [str(folder / "in")], str(folder / "out"), config, PoolConfig(rows_per_unit=6),
            engine=LocalEngine(1)
        )  # fmt: skip
        expected = Reference.of(files, max_texts, most, keep).sorted()
        assert simple(read_rows(folder / "out")) == expected
        rows = [row for file in files for row in file]
        assert totals["rows"] == len(rows)
        assert totals["pairs"] == len(expected)
        assert totals["rows"] == totals["pairs"] + sum(totals["dropped"].values())
        assert totals["texts_read"] == sum(t is not None for _, texts in rows for t in texts)
        assert totals["texts"] == sum(len(texts) for _, _, texts, _ in expected)
        assert totals["texts_read"] == totals["texts"] + sum(totals["texts_dropped"].values())
        left = {path.name for path in (folder / "out").iterdir()}
        assert left == {"pool", "state", "manifest", "manifest.json", ".lock"}


def random_files(files: int, rows: int, urls: int, seed: int = 0) -> list[list[Row]]:
    random = np.random.default_rng(seed)
    return [
        [
            (f"https://h{u % 40}.example/{u}.jpg", [f"text {t}", f"words {t % 3}"])
            for u, t in random.integers(0, urls, (rows, 2)).tolist()
        ]
        for _ in range(files)
    ]


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder by name, without the lock and what killed runs were writing."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith((".lock", ".tmp-"))
    }


def test_same_bytes_for_any_workers(tmp_path: Path) -> None:
    write_pool(tmp_path / "in", random_files(4, 600, 900), group=200)
    config = DedupConfig(shard_rows=300, max_images_per_text=20, keep_repeats=True)
    results = []
    for engine in (LocalEngine(1), ThreadEngine(2), LocalEngine(2)):
        out = tmp_path / f"out{len(results)}"
        dedup(
            [str(tmp_path / "in")], str(out), config, PoolConfig(rows_per_unit=200),
            engine=engine
        )  # fmt: skip
        results.append(tree(out))
    assert results[0] == results[1] == results[2]
    assert sum(name.startswith("pool/") for name in results[0]) > 3


def test_parts_of_many_units_hold_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Units share a part's runs where there are many; shards then hold the same rows."""
    write_pool(tmp_path / "in", random_files(4, 600, 900), group=200)
    tables = []
    for most in (1, 5, 1000):
        monkeypatch.setattr("metacurate.deduplication.dedup.MOST_PARTS", most)
        out = tmp_path / f"out{most}"
        totals = dedup(
            [str(tmp_path / "in")], str(out), DedupConfig(), PoolConfig(rows_per_unit=200),
            workers=1,
        )  # fmt: skip
        assert totals["units"] == 12
        tables.append(pq.read_table(out / "pool"))
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize(
    ("rows", "compression"), [(None, "lz4"), (0, None), (PLAIN_ROWS, None), (PLAIN_ROWS + 1, "lz4")]
)
def test_runs_of_large_or_unknown_size_are_compressed(
    rows: int | None, compression: str | None
) -> None:
    assert compression_of(rows) == compression


def test_texts_keep_source_and_language_of_first_sight(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows = [
        {"url": "http://a/1", "texts": [{"source": "alt", "text": "x", "lang": "en"}], "w": 1},
        {
            "url": "http://a/1#2",
            "texts": [
                {"source": "title", "text": "x", "lang": "fr"},
                {"source": "title", "text": "y", "lang": None},
            ],
            "w": 2,
        },
    ]
    schema = pa.schema([("url", pa.string()), ("texts", TEXTS_TYPE), ("w", pa.int32())])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "in" / "a.parquet")
    out = tmp_path / "out"
    dedup([str(tmp_path / "in")], str(out), DedupConfig(), PoolConfig(), engine=LocalEngine(1))
    assert read_rows(out) == [
        {
            "uid": url_uid("http://a/1"),
            "url": "http://a/1",
            "texts": [
                {"source": "alt", "text": "x", "lang": "en"},
                {"source": "title", "text": "y", "lang": None},
            ],
            "w": 1,
        }
    ]


@pytest.mark.parametrize(("name", "config"), [("lang", PoolConfig()),
                                             ("l", PoolConfig(lang_col="l"))])  # fmt: skip
def test_a_column_of_languages_goes_with_the_texts(
    tmp_path: Path, name: str, config: PoolConfig
) -> None:
    (tmp_path / "in").mkdir()
    table = {"url": ["http://a/1", "http://a/1"], "text": ["x", "y"], name: ["en", "zh"]}
    pq.write_table(pa.table(table), tmp_path / "in" / "a.parquet")
    out = tmp_path / "out"
    dedup([str(tmp_path / "in")], str(out), DedupConfig(), config, engine=LocalEngine(1))
    [row] = read_rows(out)
    assert [(text["text"], text["lang"]) for text in row["texts"]] == [("x", "en"), ("y", "zh")]


def test_several_text_columns_and_formats(tmp_path: Path) -> None:
    """Files with other columns and formats make one pool; a text's source is its column."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("url,alt,title,n\nhttp://a/1,one,two,7\n")
    lines = '{"url": "http://a/1", "alt": "three", "title": "one"}\n'
    (tmp_path / "in" / "b.jsonl").write_text(lines)
    out = tmp_path / "out"
    config = PoolConfig(text_cols=("alt", "title"))
    dedup([str(tmp_path / "in")], str(out), DedupConfig(), config, engine=LocalEngine(1))
    (row,) = read_rows(out)
    assert [(t["source"], t["text"]) for t in row["texts"]] == [
        ("alt", "one"),
        ("title", "two"),
        ("alt", "three"),
    ]
    assert row["n"] == "7"


def test_output_is_a_pool_and_a_fixed_point(tmp_path: Path) -> None:
    write_pool(tmp_path / "in", random_files(2, 300, 200), group=100)
    first, second = tmp_path / "first", tmp_path / "second"
    config = DedupConfig(shard_rows=200)
    dedup([str(tmp_path / "in")], str(first), config, PoolConfig(), engine=LocalEngine(1))
    totals = dedup([str(first)], str(second), config, PoolConfig(), engine=LocalEngine(1))
    assert totals["dropped"] == totals["texts_dropped"] == {}
    assert read_rows(first) == read_rows(second)


def test_blocklist(tmp_path: Path) -> None:
    listed = tmp_path / "blocked.txt"
    listed.write_text("# ads\n\nads.example\n*.tracker.io\nbücher.de\nHTTP://ok.org:80/bad.jpg\n")
    blocklist = read_blocklist(listed)
    urls = {
        "http://ads.example/1.jpg": "domain",
        "https://img.ADS.example:8080/1.jpg": "domain",
        "http://ads.example./1.jpg": "domain",
        "http://user:pass@ads.example/1.jpg": "domain",
        "http://notads.example/1.jpg": None,
        "http://ads.example@ok.org/1.jpg": None,
        "http://ok.org/ads.example": None,
        "http://ads.example.org/": None,
        "http://tracker.io/": "domain",
        "http://a.b.tracker.io?x": "domain",
        "http://www.xn--bcher-kva.de/1": "domain",
        "http://BÜCHER.de/1": "domain",
        "http://ok.org/bad.jpg#f": "url",
        "http://ok.org/bad.jpg?": None,
        "//ads.example/1.jpg": None,
    }
    domain, url = blocklist.masks(pa.array([*urls, None]))
    got = ["domain" if d else "url" if u else None for d, u in zip(domain, url, strict=True)]
    assert dict(zip(urls, got, strict=False)) == urls
    assert got[-1] is None
    write_pool(tmp_path / "in", [[(u, ["t"]) for u in urls]])
    totals = dedup(
        [str(tmp_path / "in")], str(tmp_path / "out"), DedupConfig(blocklist=blocklist),
        PoolConfig(), engine=LocalEngine(1)
    )  # fmt: skip
    assert totals["dropped"]["blocked_domain"] == 8
    assert totals["dropped"]["blocked_url"] == 1
    assert totals["texts_dropped"]["of_dropped_pair"] == 9


SPELLINGS = [
    " http://evil.example/1.jpg", "\thttp://evil.example/1.jpg", "\u00a0http://evil.example/1.jpg",
    "\ufeffhttp://evil.example/1.jpg", "http://ev\til.example/1.jpg", "http://evil.exam\nple/1.jpg",
    "http:\\\\evil.example\\1.jpg", "http:/evil.example/1.jpg", "http://%65vil.example/1.jpg",
    "http://evil\u3002example/1.jpg", "http://evil.example./1.jpg", "http://EVIL.example:80/1.jpg",
    "http://ｅｖｉｌ.example/1.jpg", "http://ev\u00adil.example/1.jpg", "http:evil.example/1.jpg",
    "http://user@evil.example/1.jpg", "http://ok.example@evil.example/1.jpg",
    "http://a.evil.example/1.jpg",
]  # fmt: skip


@pytest.mark.parametrize("url", SPELLINGS)
@pytest.mark.parametrize("entry", ["evil.example", "||evil.example^", "EVIL.example."])
def test_no_spelling_evades_a_blocklist(url: str, entry: str, tmp_path: Path) -> None:
    listed = tmp_path / "blocked.txt"
    listed.write_text(f"other.example\n{entry}\n")
    domain, _ = read_blocklist(listed).masks(pa.array(["http://ok.example/", url, None]))
    assert domain.tolist() == [False, True, False]


def test_a_listed_url_is_blocked_in_any_spelling(tmp_path: Path) -> None:
    listed = tmp_path / "blocked.txt"
    listed.write_text("\ufeffhttp://Evil.example/1.jpg#x\nhttps://b.example/ü b.jpg\n")
    urls = [url for url in SPELLINGS if "a.evil" not in url and "@" not in url and "./" not in url]
    urls += ["https://b.example/%C3%BC%20b.jpg", "https://b.example/x/../ü b.jpg"]
    _, blocked = read_blocklist(listed).masks(pa.array([*urls, "http://evil.example/2.jpg"]))
    assert blocked.tolist() == [True] * len(urls) + [False]


@pytest.mark.parametrize(
    ("entry", "blocked", "free"),
    [
        ("faß.example", "http://xn--fa-hia.example/", "http://fass.example/"),
        ("xn--fa-hia.example", "http://faß.example/", "http://fass.example/"),
        ("*.evil.example", "http://a.evil.example/", "http://notevil.example/"),
        ("||evil.example", "http://evil.example/", "http://evil.example.org/"),
        ("0.0.0.0 evil.example # ads", "http://evil.example/", "http://0.0.0.0/"),
        ("127.0.0.1\tevil.example", "http://evil.example/", "http://127.0.0.1/"),
        (":: b.example evil.example", "http://evil.example/", "http://b/"),
        # The network itself, in the heads of hosts files.
        (
            "255.255.255.255 broadcasthost\nfe80::1%lo0 localhost\nff02::1 ip6-allnodes\n"
            "0.0.0.0 evil.example",
            "http://evil.example/",
            "http://broadcasthost/",
        ),
        ("! comment\nevil.example", "http://evil.example/", "http://comment/"),
        ("[Adblock Plus 2.0]\nevil.example", "http://evil.example/", "http://adblock/"),
        ("192.168.1.1", "http://0xc0a80101/", "http://192.168.1.2/"),
        ("under_score.example", "http://under_score.example/", "http://score.example/"),
    ],
)
def test_entries_of_blocklists(entry: str, blocked: str, free: str, tmp_path: Path) -> None:
    listed = tmp_path / "blocked.txt"
    listed.write_text(entry)
    domain, _ = read_blocklist(listed).masks(pa.array([blocked, free]))
    assert domain.tolist() == [True, False]


@pytest.mark.parametrize(
    "entry",
    ["evil.example,", "||evil.example^$third-party", "@@||good.example^", "evil.example/path",
     "evil.example##.banner", "/banner/*", "evil..example", "http://", "http://[", "evil example",
     "evil.example;b.example", "|https://evil.example|", "user@evil.example", "evil.example:80",
     "address=/evil.example/", "-evil.example", "0.0.0.0 a.example evil.example/path",
     "93.184.215.14 evil.example", "x" * 64 + ".example"],
)  # fmt: skip
def test_what_a_blocklist_cannot_mean_is_refused(entry: str, tmp_path: Path) -> None:
    listed = tmp_path / "blocked.txt"
    listed.write_text(f"# list\ngood.org\n{entry}\n")
    with pytest.raises(UserError, match="line 3: "):
        read_blocklist(listed)


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x1c"])
def test_a_line_of_a_blocklist_ends_where_lines_of_files_do(mark: str, tmp_path: Path) -> None:
    """``http://a.example/x`` and, on a line of its own, all of ``com`` are something else."""
    listed = tmp_path / "blocked.txt"
    listed.write_bytes(f"\ufeffhttp://a.example/x{mark}com\r\nb.example\rc.example\n".encode())
    found = read_blocklist(listed)
    assert found.domains == {"b.example", "c.example"}
    assert found.urls == (url_uid(f"http://a.example/x{mark}com"),)


def test_blocklist_names_a_bad_line(tmp_path: Path) -> None:
    listed = tmp_path / "blocked.txt"
    listed.write_text("good.org\nnot a domain\n")
    with pytest.raises(UserError, match=r"line 2: 'not a domain'"):
        read_blocklist(listed)
    with pytest.raises(UserError, match="there is no blocklist"):
        read_blocklist(tmp_path / "missing.txt")


def test_blocklist_fingerprint_is_of_what_it_says(tmp_path: Path) -> None:
    for name, text in (("a", "b.org\na.org\n"), ("b", "# x\nA.org.\n*.b.org\n"), ("c", "a.org\n")):
        (tmp_path / name).write_text(text)
    a, b, c = (read_blocklist(tmp_path / name) for name in "abc")
    assert a.fingerprint == b.fingerprint != c.fingerprint != Blocklist().fingerprint


def test_text_rules_are_counted_by_reason(tmp_path: Path) -> None:
    texts = ["ok text", "IMG_1.jpg", "x", "12345678", "http://a.b/c", "  padded  ", "w" * 30]
    rows: list[Row] = [(f"http://a/{n}", [text]) for n, text in enumerate(texts)]
    write_pool(tmp_path / "in", [[*rows, ("http://a/both", ["x", "fine"])]])
    rules = TextRules(
        min_length=2, max_length=20, min_letters=0.5, drop_file_names=True, drop_urls=True
    )
    out = tmp_path / "out"
    totals = dedup(
        [str(tmp_path / "in")], str(out), DedupConfig(text_rules=rules), PoolConfig(),
        engine=LocalEngine(1)
    )  # fmt: skip
    assert totals["texts_dropped"] == {
        "text_is_a_URL": 1,
        "text_is_a_file_name": 1,
        "text_too_long": 1,
        "text_too_short": 2,
        "text_with_few_letters": 1,
    }
    assert totals["dropped"] == {"no_text": 5}
    # What is kept stays as it was.
    assert {t["text"] for r in read_rows(out) for t in r["texts"]} == {
        "ok text",
        "  padded  ",
        "fine",
    }


def test_settings_must_match_unless_overwritten(tmp_path: Path) -> None:
    write_pool(tmp_path / "in", random_files(1, 100, 50))
    pool, out = [str(tmp_path / "in")], str(tmp_path / "out")
    first = dedup(pool, out, DedupConfig(), PoolConfig(), engine=LocalEngine(1))
    before = tree(tmp_path / "out")
    assert dedup(pool, out, DedupConfig(), PoolConfig(), engine=LocalEngine(1)) == first
    assert tree(tmp_path / "out") == before
    with pytest.raises(UserError, match="max_texts was 1000, is now 1"):
        dedup(pool, out, DedupConfig(max_texts=1), PoolConfig(), engine=LocalEngine(1))
    assert tree(tmp_path / "out") == before
    redone = dedup(
        pool, out, DedupConfig(max_texts=1), PoolConfig(), engine=LocalEngine(1), overwrite=True
    )
    assert redone["texts"] == redone["pairs"] == first["pairs"] < first["texts"]
    # A limit on texts leaves more stages behind; without it they must be gone again.
    dedup(pool, out, DedupConfig(max_images_per_text=1), PoolConfig(), engine=LocalEngine(1),
          overwrite=True)  # fmt: skip
    dedup(pool, out, DedupConfig(), PoolConfig(), engine=LocalEngine(1), overwrite=True)
    assert tree(tmp_path / "out") == before


def command(pool: Path, out: Path, *options: str) -> list[str]:
    return ["pool", "dedup", str(pool), "--out", str(out),
            "--rows-per-unit", "1000", "--shard-rows", "1500", "--dedup-texts", "30",
            "--workers", "1", "--json", *options]  # fmt: skip


# Runs the command in a fork for each prefix, which kills itself (-9) while the second file with
# that prefix is written; prints how each ended.
KILLED_RUNS = """
import contextlib, os, signal, sys
from metacurate.cli import main
from metacurate.runtime.storage import Folder
prefixes, arguments = sys.argv[1].split(), sys.argv[2:]
create, seen = Folder.create, []
@contextlib.contextmanager
def create_or_die(self, name):
    with create(self, name) as file:
        yield file
        seen.append(name.startswith(prefix))
        if sum(seen) == 2:
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
Folder.create = create_or_die
for prefix in prefixes:
    child = os.fork()
    if child == 0:
        main(arguments)
        os._exit(0)
    print(prefix, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_run_resumes_to_the_same_bytes(tmp_path: Path, metacurate: Command) -> None:
    write_pool(tmp_path / "in", random_files(6, 1500, 4_000), group=1000)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = metacurate(*command(tmp_path / "in", whole))
    assert run.returncode == 0, run.stderr
    places = ("runs/", "state/partition/", "merged/", "state/merge/", "manifest", "pool/")
    arguments = command(tmp_path / "in", killed)
    died = subprocess.run(
        [sys.executable, "-c", KILLED_RUNS, " ".join(places), *arguments],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    wanted = [f"{place} {-signal.SIGKILL}" for place in places]
    assert died.stdout.splitlines() == wanted, died.stderr
    resumed = metacurate(*arguments)
    assert resumed.returncode == 0, resumed.stderr
    assert tree(killed) == tree(whole)
    assert resumed.stdout.replace(str(killed), str(whole)) == run.stdout


def test_bad_options_end_in_one_line(tmp_path: Path, metacurate: Command) -> None:
    write_pool(tmp_path / "in", [[("http://a/1", ["x"])]])
    arguments = command(tmp_path / "in", tmp_path / "out", "--min-length", "9", "--max-length", "3")
    run = metacurate(*arguments)
    assert run.returncode == 2
    assert run.stderr == "metacurate: error: --min-length 9 is over --max-length 3\n"


# The parts.


def table_of(uids: list[bytes], texts: list[list[str]]) -> pa.Table:
    lists = [[{"source": "s", "text": t, "lang": None} for t in row] for row in texts]
    schema = pa.schema([("uid", UID_TYPE), ("texts", TEXTS_TYPE), ("n", pa.int64())])
    return pa.table(
        [pa.array(uids, UID_TYPE), pa.array(lists, TEXTS_TYPE), pa.array(range(len(uids)))],
        schema=schema,
    )


UIDS = st.binary(min_size=16, max_size=16) | st.sampled_from(
    [b"\0" * 15 + bytes([n]) for n in range(4)]
)


@given(st.lists(UIDS, max_size=30))
def test_uid_order_is_stable_byte_order(uids: list[bytes]) -> None:
    order = uid_order(uid_halves(pa.array(uids, UID_TYPE)))
    assert order.tolist() == sorted(range(len(uids)), key=lambda n: uids[n])


def test_uid_halves_of_a_slice() -> None:
    uids = [bytes([n] * 8 + [n + 1] * 8) for n in range(5)]
    high, low = uid_halves(pa.array(uids, UID_TYPE).slice(2, 2))
    assert [h.to_bytes(8, "big") + w.to_bytes(8, "big") for h, w in
            zip(high.tolist(), low.tolist(), strict=True)] == uids[2:4]  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=8))
def test_ranges_to_indices(ranges: list[tuple[int, int]]) -> None:
    starts, lengths = (np.array([r[k] for r in ranges], np.int32) for k in (0, 1))
    expected = [n for start, length in ranges for n in range(start, start + length)]
    assert ranges_to_indices(starts, lengths).tolist() == expected


def test_merging_in_parts_gives_the_same() -> None:
    random = np.random.default_rng(1)
    uids = [bytes([0] * 15 + [n]) for n in random.integers(0, 6, 60).tolist()]
    texts = [[f"t{n}" for n in random.integers(0, 9, k).tolist()] for k in [0, 1, 2, 5] * 15]
    table = table_of(uids, texts)
    whole = merge_rows(table, 3)
    parts = [merge_rows(table.slice(start, 20), 3).table for start in (0, 20, 40)]
    assert merge_rows(pa.concat_tables(parts), 3).table == whole.table
    assert whole.table.num_rows == len(set(uids))


def test_ranges_are_even_for_uneven_uids(tmp_path: Path) -> None:
    """Uids that are small numbers (all high bits alike) still spread over the shards."""
    folder, schema = Folder(str(tmp_path)), table_of([], []).schema
    random = np.random.default_rng(2)
    for name in "ab":
        uids = [int(n).to_bytes(16, "big") for n in random.permutation(20_000)]
        write_runs(
            folder, name, [table_of(uids, [["x"]] * len(uids))], schema, 2_000, 0, MergeCounts(),
            "lz4",
        )  # fmt: skip
    ranges = plan_ranges([read_index(folder, name) for name in "ab"], 5_000, 1 << 40)
    assert len(ranges) == 8
    counts = MergeCounts()
    tables = [merge_range(folder, "ab", r, schema, 0, counts) for r in ranges]
    merged = pa.concat_tables(tables)
    assert merged.column("uid").to_pylist() == [n.to_bytes(16, "big") for n in range(20_000)]
    assert counts.duplicate_pairs == 20_000
    # Even to within one record batch of each run.
    assert all(abs(t.num_rows - 2_500) <= 2_000 for t in tables)


def test_ranges_are_even_for_many_small_units(tmp_path: Path) -> None:
    """Each run is one batch with uids from all over: else one shard would be nearly the pool."""
    folder, schema = Folder(str(tmp_path)), table_of([], []).schema
    random, names = np.random.default_rng(3), [f"{n}" for n in range(40)]
    for name in names:
        uids = [random.bytes(16) for _ in range(250)]
        write_runs(
            folder, name, [table_of(uids, [["x"]] * 250)], schema, 2_000, 0, MergeCounts(), None
        )
    ranges = plan_ranges([read_index(folder, name) for name in names], 500, 1 << 40)
    assert len(ranges) == 20
    before = pa.total_allocated_bytes()
    for uids in ranges:
        tables = [table for name in names for table in read_range(folder, name, uids)]
        assert 300 < sum(table.num_rows for table in tables) < 700
        # Not the batches that they are parts of, which are the pool.
        assert pa.total_allocated_bytes() - before < 4 * sum(table.nbytes for table in tables)


def test_one_uid_a_million_times_stays_small(tmp_path: Path) -> None:
    """Repeats of one URL are merged run by run: they never wait together in memory."""
    folder, schema = Folder(str(tmp_path)), table_of([], []).schema
    table = table_of([bytes(16)] * 50_000, [[f"t{n % 7}"] for n in range(50_000)])
    counts = MergeCounts()
    write_runs(folder, "a", [table] * 20, schema, 2_000, 0, counts, None)
    index = read_index(folder, "a")
    assert index["rows"].sum() == len(index) <= 3
    merged = merge_range(folder, ["a"], UidRange((0, 0), None), schema, 0, counts)
    assert [t["text"] for t in merged.column("texts").to_pylist()[0]] == [f"t{n}" for n in range(7)]
    assert counts.duplicate_pairs == 20 * 50_000 - 1


def test_no_rows_merge_to_none() -> None:
    merged = merge_rows(table_of([], []), 3)
    assert merged.table.num_rows == 0
    assert merged[1:] == (0, 0, 0)
    assert rank_in_group(np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize("first", [0, 1, 2])
def test_texts_of_a_part_of_a_table_are_selected(first: int) -> None:
    texts = [["a", "b", "c"], ["d", "e"], ["f", "g", "h"], []]
    whole = table_of([bytes([n]) * 16 for n in range(4)], texts)
    keep = np.array([text in "acdgh" for row in texts[first:] for text in row])
    selected, counts = select_texts(whole.slice(first), keep)
    expected = [["a", "c"], ["d"], ["g", "h"], []][first:]
    found = [[text["text"] for text in row] for row in selected["texts"].to_pylist()]
    assert found == expected
    assert counts.tolist() == [len(row) for row in expected]


def hashes(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array([(high, low, 1) for high, low in pairs], repeats.COUNT_DTYPE)


def test_texts_whose_hashes_share_a_half_are_told_apart() -> None:
    table = hashes((1, 1), (5, 2), (5, 4), (5, 6), (9, 9))
    asked = hashes((5, 4), (5, 5), (5, 6), (1, 1), (1, 2), (9, 9), (9, 10), (0, 0))
    found, place = repeats._look_up(asked, table)
    assert found.tolist() == [True, False, True, True, False, True, False, False]
    assert place[found].tolist() == [2, 3, 0, 4]


def test_hashes_are_grouped_by_both_halves() -> None:
    records, group = repeats._sorted_groups(hashes((5, 1), (5, 2), (3, 1), (5, 1), (5, 2), (3, 1)))
    assert records["high"].tolist() == [3, 3, 5, 5, 5, 5]
    assert (group - group[0]).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [(10, 1 << 40, [[4, 4], [4], [12], [1]]), (8, 1 << 40, [[4, 4], [4], [12], [1]]),
     (100, 1 << 40, [[4, 4, 4, 12, 1]]), (100, 0, [[4], [4], [4], [12], [1]]),
     (100, 200, [[4, 4], [4], [12], [1]])],
)  # fmt: skip
def test_tables_are_gathered_up_to_a_runs_size(
    rows: int, size: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RUN_ROWS", rows)
    monkeypatch.setattr(runs, "RUN_BYTES", size)
    # 24 bytes a row.
    tables = [
        pa.table({"uid": pa.array([bytes(16)] * n, UID_TYPE), "n": pa.array([0] * n, pa.int64())})
        for n in (4, 4, 4, 12, 1)
    ]
    found = [[table.num_rows for table in part] for part in runs._gather(tables)]
    assert found == expected
    assert list(runs._gather([])) == []


def test_ranges_are_cut_by_rows_or_bytes_whichever_is_more() -> None:
    index = np.array([(n, 0, n, 9, 10, 60) for n in range(10)], runs.INDEX_DTYPE)
    assert len(plan_ranges([index], 50, 1 << 40)) == 2
    assert len(plan_ranges([index], 1 << 40, 100)) == 6
    assert len(plan_ranges([index], 50, 100)) == 6
    assert len(plan_ranges([], 50, 100)) == 1


@pytest.mark.parametrize(("start", "length"), [(0, 5), (0, 2), (1, 3), (3, 2), (2, 0)])
def test_halves_of_a_part_of_the_uids(start: int, length: int) -> None:
    numbers = [(n, 100 + n) for n in range(5)]
    uids = [high.to_bytes(8, "big") + low.to_bytes(8, "big") for high, low in numbers]
    part = pa.array(uids, UID_TYPE).slice(start, length)
    high, low = uid_halves(part)
    assert list(zip(high.tolist(), low.tolist(), strict=True)) == numbers[start : start + length]


def test_no_ranges_have_no_indices() -> None:
    assert ranges_to_indices(np.zeros(0, np.int64), np.zeros(0, np.int64)).tolist() == []


def test_a_row_that_is_dropped_is_counted_once(tmp_path: Path) -> None:
    rows: list[Row] = [(None, ["a"]), ("http://a/1", []), ("http://a/2", ["b"])]
    write_pool(tmp_path / "in", [rows])
    totals = dedup(
        [str(tmp_path / "in")], str(tmp_path / "out"), DedupConfig(), PoolConfig(),
        engine=LocalEngine(1),
    )  # fmt: skip
    assert totals["dropped"] == {"no_text": 1, "no_uid": 1}
    assert totals["skipped"] == {}
