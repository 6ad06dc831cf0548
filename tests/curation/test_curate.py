"""Curation end to end: exact against a plain reference, reproducible, resumable, forgiving."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import metacurate
from conftest import EMOJI_POOL, Command, command_line, digests, environment
from curation_pools import ENTRIES, OPTIONS, entries_file, fails, make_pairs, pool  # noqa: F401
from metacurate.curation.matching.reference import match_text
from metacurate.errors import UserError
from metacurate.pool.schema import PoolConfig
from metacurate.pool.uid import url_uid
from metacurate.runtime.engines.threads import MOST_THREADS

CONFIG = PoolConfig(text_cols=("alt", "title"), rows_per_unit=340)
NO_REPORT = "--no-report"
QUICK = {"pool_config": CONFIG, "report": False, "workers": 1}


def read_curated(out: Path) -> list[dict]:
    return pq.read_table(out / "curated").to_pylist()


def curate_by_definition(table: pa.Table, t: float, seed: int) -> tuple[Counter[int], list[dict]]:
    """The whole of curation in a few plain lines, with NumPy's own generator."""
    rows = [row for row in table.to_pylist() if row["url"] is not None]
    matched = [[match_text(row[c] or "", ENTRIES) for c in ("alt", "title")] for row in rows]
    counts = Counter(e for texts in matched for ids in texts for e in ids)
    kept = []
    for row, texts in zip(rows, matched, strict=True):
        uid = url_uid(row["url"])
        assert uid is not None
        flags = []
        for position, ids in enumerate(texts):
            successes = []
            for entry in ids:
                counter = int.from_bytes(uid, "little") | (position << 32 | entry) << 128
                word = int(np.random.Philox(key=seed, counter=counter - 1).random_raw())
                successes.append((word >> 11) * 2.0**-53 < min(1, t / counts[entry]))
            flags.append(any(successes))
        if any(flags):
            none = math.prod(1 - min(1, t / counts[e]) for ids in texts for e in ids)
            row |= {"uid": uid, "matched": texts, "text_kept": flags}
            kept.append(row | {"keep_prob": pytest.approx(1 - none)})
    return counts, kept


@pytest.mark.parametrize(("t", "seed"), [(20, 0), (300, 7), (math.inf, 0)])
def test_equals_the_definition(
    pool: Path, entries_file: Path, tmp_path: Path, t: float, seed: int
) -> None:
    out = tmp_path / "out"
    card = metacurate.curate(
        str(pool),
        str(entries_file),
        str(out),
        t=t,
        seed=seed,
        pool_config=CONFIG,
        report=False,
        workers=1,
    )
    counts, kept = curate_by_definition(make_pairs(3000), t, seed)
    assert read_curated(out) == kept
    assert len(kept) > 100
    assert np.load(out / "counts.npy").tolist() == [counts[e] for e in range(len(ENTRIES))]
    whole = json.loads((out / "datacard.json").read_text())
    assert whole["entry_counts"] == {ENTRIES[e]: counts[e] for e in sorted(counts)}
    after = Counter(
        e
        for row in kept
        for ids, flag in zip(row["matched"], row["text_kept"], strict=True)
        for e in ids
        if flag
    )
    assert whole["entry_counts_kept"] == {ENTRIES[e]: after[e] for e in sorted(after)}
    assert card["pool"]["pairs"] == 3000
    assert card["kept"]["pairs"] == len(kept)
    assert card["pool"]["skipped"]["no_url"] == len(range(0, 3000, 37))
    parts = card["tables"]["part"]
    assert parts["tail"]["match_counts"] == sum(c for c in counts.values() if c < t)
    assert parts["head"]["entries"] + parts["tail"]["entries"] == len(ENTRIES)


def test_an_entry_whose_count_is_the_threshold_is_of_the_head(
    pool: Path, entries_file: Path, tmp_path: Path
) -> None:
    counts, _ = curate_by_definition(make_pairs(3000), 1, 0)
    for number, t in enumerate(sorted(counts.values())[2:5]):
        card = metacurate.curate(pool, entries_file, tmp_path / str(number), t=t, **QUICK)
        head = [c for c in counts.values() if c >= t]
        assert t in head
        tables = card["tables"]["part"]
        assert tables["head"]["entries"] == tables["head"]["matched_entries"] == len(head)
        assert tables["head"]["match_counts"] == sum(head)
        assert tables["tail"]["entries"] == len(ENTRIES) - len(head)
        assert tables["tail"]["matched_entries"] == len(counts) - len(head)
        assert tables["tail"]["kept_match_counts"] == tables["tail"]["match_counts"]


def test_null_texts_are_no_texts(pool: Path, entries_file: Path, tmp_path: Path) -> None:
    card = metacurate.curate(pool, entries_file, tmp_path / "out", t=20, **QUICK)
    rows = make_pairs(3000).to_pylist()
    texts = [text for row in rows for text in (row["alt"], row["title"]) if text is not None]
    assert len(texts) < 6000
    assert card["pool"]["texts"] == len(texts)
    columns = ("alt", "title")
    pairs = [[match_text(r[c] or "", ENTRIES) for c in columns] for r in rows if r["url"]]
    assert card["matched"]["match_counts"] == sum(len(ids) for pair in pairs for ids in pair)
    assert card["matched"]["pairs"] == sum(any(pair) for pair in pairs)


@pytest.mark.parametrize("size", [300, 1500])
def test_target_size_is_met(pool: Path, entries_file: Path, tmp_path: Path, size: int) -> None:
    card = metacurate.curate(
        str(pool),
        str(entries_file),
        str(tmp_path / "out"),
        target_size=size,
        pool_config=CONFIG,
        workers=1,
    )
    assert card["kept"]["pairs_expected"] == pytest.approx(size, rel=0.001)
    assert card["kept"]["pairs"] == pytest.approx(size, abs=5 * math.sqrt(size))


def test_expected_survival_makes_t_larger(pool: Path, entries_file: Path, tmp_path: Path) -> None:
    def curate(name: str, **aim: float) -> dict:
        out = str(tmp_path / name)
        aims = {**QUICK, "expect_survival": 0.5, **aim}
        return metacurate.curate(str(pool), str(entries_file), out, **aims)

    assert curate("t", t=40)["balancing"]["t"] == 80
    assert curate("size", target_size=400)["kept"]["pairs_expected"] == pytest.approx(800, rel=1e-3)
    with pytest.raises(UserError, match="expect_survival must lie"):
        curate("nonsense", t=40, expect_survival=0)


def test_tail_proportion_sets_t(pool: Path, entries_file: Path, tmp_path: Path) -> None:
    card = metacurate.curate(
        str(pool),
        str(entries_file),
        str(tmp_path / "out"),
        p=0.2,
        pool_config=CONFIG,
        report=False,
        workers=1,
    )
    assert 0 < card["balancing"]["tail_proportion"] <= 0.2
    counts = np.load(tmp_path / "out" / "counts.npy")
    assert card["balancing"]["t"] in counts


def test_same_bytes_for_any_number_of_workers(
    metacurate: Command, pool: Path, entries_file: Path, tmp_path: Path
) -> None:
    results = []
    for workers in (1, 2, MOST_THREADS + 1):  # alone, threads, processes
        out = tmp_path / f"out{workers}"
        run = metacurate(
            "curate", pool, "--metadata", entries_file, "--target-size", 800, *OPTIONS, NO_REPORT,
            "--workers", workers, "--out", out,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        results.append(digests(out))
    assert results[0] == results[1] == results[2]
    assert len([name for name in results[0] if name.startswith("curated/")]) == 9


def test_stages_one_by_one_equal_curate(
    metacurate: Command, pool: Path, entries_file: Path, tmp_path: Path
) -> None:
    whole, steps = tmp_path / "whole", tmp_path / "steps"
    for command in (
        (
            "curate",
            pool,
            "--metadata",
            entries_file,
            *OPTIONS,
            NO_REPORT,
            "--t",
            40,
            "--out",
            whole,
        ),
        ("match", pool, "--metadata", entries_file, *OPTIONS, "--out", steps),
        ("count", steps),
        ("balance", steps, "--t", 40),
    ):
        run = metacurate(*command, "--workers", 1, "--json")
        assert run.returncode == 0, run.stderr
        json.loads(run.stdout)
    assert digests(whole) == digests(steps)
    status = json.loads(metacurate("status", steps, "--json").stdout)
    assert {stage["state"] for stage in status["stages"].values()} == {"done"}


@pytest.mark.parametrize("stage", ["match", "balance"])
def test_killed_run_resumes_to_the_same_bytes(
    metacurate: Command, pool: Path, entries_file: Path, tmp_path: Path, stage: str
) -> None:
    """A real kill -9 of the process and its workers, with some shards of a stage done."""
    arguments = (
        "curate", pool, "--metadata", entries_file, "--t", 40, "--text-col", "alt",
        "--rows-per-unit", 1, "--workers", 2, NO_REPORT, "--out",
    )  # fmt: skip
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "killed"
    assert metacurate(*arguments, undisturbed).returncode == 0
    process = subprocess.Popen(
        command_line(*arguments, out),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    state = out / "state" / stage
    while process.poll() is None and len(list(state.glob("part-*"))) < 2:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(state.glob("part-*.json")))
    assert done >= 2
    assert not (out / "datacard.json").exists()
    assert metacurate(*arguments, out).returncode == 0
    assert digests(out) == digests(undisturbed)


def test_other_settings_are_refused_until_overwrite(
    metacurate: Command, pool: Path, entries_file: Path, tmp_path: Path
) -> None:
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    base = ("curate", pool, "--metadata", entries_file, "--workers", 1, NO_REPORT)
    first = ("--text-col", "alt", "--t", 40)
    assert metacurate(*base, *first, "--out", out).returncode == 0
    before = digests(out)
    for change, said in (
        (("--text-col", "alt", "--t", 50), "t was 40.0, is now 50.0"),
        (("--text-col", "alt", "--t", 40, "--seed", 1), "seed was 0, is now 1"),
        (("--text-col", "title", "--t", 40), "pool_config.text_cols was"),
    ):
        run = metacurate(*base, *change, "--out", out)
        assert run.returncode == 2
        assert said in run.stderr
        assert "--overwrite" in run.stderr
        assert digests(out) == before
    changed = ("--text-col", "title", "--t", 50)
    assert metacurate(*base, *changed, "--out", out, "--overwrite").returncode == 0
    assert metacurate(*base, *changed, "--out", fresh).returncode == 0
    assert digests(out) == digests(fresh)
    pq.write_table(make_pairs(500, seed=9), pool / "1.parquet")
    run = metacurate(*base, *changed, "--out", out)
    assert run.returncode == 2
    assert "1.parquet" in run.stderr
    run = metacurate("balance", out, "--t", 1, "--overwrite")
    assert run.returncode == 2
    assert "the pool has changed" in run.stderr


def test_second_run_on_a_folder_is_refused(pool: Path, entries_file: Path, tmp_path: Path) -> None:
    from metacurate.runtime.run import hold
    from metacurate.runtime.storage import Folder

    with (
        hold(Folder(str(tmp_path / "out"))),
        pytest.raises(UserError, match=f"in use by process {os.getpid()} on "),
    ):
        metacurate.curate(str(pool), str(entries_file), str(tmp_path / "out"), t=1)


def test_python_api_notices_new_metadata_in_the_same_process(
    pool: Path, entries_file: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    arguments = {"t": 5, **QUICK, "overwrite": True}
    metacurate.curate(str(pool), str(entries_file), out, **arguments)
    entries_file.write_text(json.dumps(["dog"]))
    card = metacurate.curate(str(pool), str(entries_file), out, **arguments)
    assert list(json.loads((tmp_path / "out/datacard.json").read_text())["entry_counts"]) == ["dog"]
    assert card["metadata"]["matched_entries"] == 1


# Bad input ---------------------------------------------------------------------------------------


def test_bad_files_and_texts_are_counted(
    metacurate: Command, pool: Path, entries_file: Path, tmp_path: Path
) -> None:
    (pool / "broken.parquet").write_bytes(b"no Parquet at all")
    undecodable = pa.array([b"a cat", b"\xff cat", None, b"a dog"], pa.binary())
    urls = ["http://a/1", "http://a/2", "http://a/3", ""]
    table = pa.table({"url": urls, "alt": undecodable, "title": [None] * 4, "width": [1] * 4})
    pq.write_table(table, pool / "undecodable.parquet")
    out = tmp_path / "out"
    run = metacurate(
        "curate",
        pool,
        "--metadata",
        entries_file,
        "--t",
        "inf",
        *OPTIONS,
        "--workers",
        1,
        "--out",
        out,
        "--json",
    )
    assert run.returncode == 0, run.stderr
    card = json.loads(run.stdout)
    assert list(map(Path, card["pool"]["bad_files"])) == [pool / "broken.parquet"]
    assert card["pool"]["skipped"]["undecodable_text"] == 1
    assert card["pool"]["skipped"]["no_url"] == 1 + len(range(0, 3000, 37))
    texts = [row["alt"] for row in read_curated(out) if row["url"].startswith("http://a/")]
    assert texts in (["a cat"], [b"a cat"])


def test_unusable_input_is_one_clear_line(
    metacurate: Command, pool: Path, entries_file: Path, tmp_path: Path
) -> None:
    def curate(*arguments: object) -> subprocess.CompletedProcess[str]:
        return metacurate(
            "curate",
            "--metadata",
            entries_file,
            "--workers",
            1,
            "--out",
            tmp_path / "o",
            *arguments,
        )

    fails(curate(tmp_path / "nowhere", "--t", 1), "nowhere")
    fails(curate(pool, *OPTIONS), "--t", "--p", "--target-size")
    fails(curate(pool, *OPTIONS, "--t", 1, "--p", 0.1), "exactly one")
    fails(curate(pool, *OPTIONS, "--t", -1), "--t must be positive")
    fails(curate(pool, *OPTIONS, "--p", 1.5), "between 0 and 1")
    fails(curate(pool, *OPTIONS, "--target-size", 10**6), "matched pairs")
    fails(curate(pool, "--text-col", "nothing", "--t", 1), "nothing")
    fails(curate(pool, "--text-col", "width", "--t", 1), "width")
    fails(
        metacurate("curate", pool, "-m", tmp_path / "none.json", "--t", 1, "-o", tmp_path / "x"),
        "none.json",
    )
    (tmp_path / "twice.json").write_text('["a", "b", "a", ""]')
    fails(
        metacurate("curate", pool, "-m", tmp_path / "twice.json", "--t", 1, "-o", tmp_path / "x"),
        "2 (",
        "3 (",
    )
    fails(metacurate("status", tmp_path / "nowhere"), "nowhere")
    fails(metacurate("count", tmp_path / "nowhere"), "there is no folder")
    (tmp_path / "bad.toml").write_text("t = ")
    fails(curate(pool, "--config", tmp_path / "bad.toml"), "bad.toml")
    (tmp_path / "bad.toml").write_text("threshold = 1")
    fails(curate(pool, "--config", tmp_path / "bad.toml"), "threshold")


def test_nothing_to_keep_is_one_clear_line(
    metacurate: Command, entries_file: Path, tmp_path: Path
) -> None:
    def curate(name: str, table: pa.Table) -> subprocess.CompletedProcess[str]:
        pq.write_table(table, tmp_path / f"{name}.parquet")
        arguments = ("--metadata", entries_file, "--t", 1, "--out", tmp_path / name)
        return metacurate("curate", tmp_path / f"{name}.parquet", *arguments)

    urls = ["http://a/1", "http://a/2"]
    fails(
        curate("unmatched", pa.table({"url": urls, "text": ["x", "yy"]})), "none of", "--metadata"
    )
    nulls = pa.table({"url": urls, "text": pa.array([None, None], pa.string())})
    fails(curate("nulls", nulls), "no_text: 2")
    empty = pa.table({"url": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    fails(curate("empty", empty), "no rows")


def test_full_disk_is_one_clear_line_and_resumes(
    metacurate: Command, pool: Path, entries_file: Path, tmp_path: Path
) -> None:
    """A real file system of 256 KiB that fills up, and is then made larger."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("needs the right to mount a tmpfs (run as root)")
    try:
        out = small / "out"
        arguments = (
            "curate",
            pool,
            "-m",
            entries_file,
            "--t",
            40,
            *OPTIONS,
            "--workers",
            1,
            "--out",
        )
        fails(metacurate(*arguments, out), "disk is full", "run the same command again")
        bigger = ["mount", "-o", "remount,size=16m", str(small)]
        subprocess.run(bigger, check=True, capture_output=True)
        assert metacurate(*arguments, out).returncode == 0
        assert metacurate(*arguments, tmp_path / "undisturbed").returncode == 0
        assert digests(out) == digests(tmp_path / "undisturbed")
    finally:
        subprocess.run(["umount", str(small)], check=False)


# The example -------------------------------------------------------------------------------------


def test_options_from_a_file(metacurate: Command, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('t = 1000\nseed = 3\nmetadata = "wordnet"\n')
    run = metacurate(
        "curate", EMOJI_POOL, "--config", tmp_path / "run.toml", "--t", 10, "--json", NO_REPORT,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    card = json.loads(run.stdout)
    assert card["balancing"]["t"] == 10
    assert card["balancing"]["seed"] == 3


def test_example_pool_is_balanced(metacurate: Command, tmp_path: Path) -> None:
    run = metacurate("curate", EMOJI_POOL, "--t", 10, "--out", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert "14,940 pairs" in run.stdout
    assert "datacard.json" in run.stdout
    card = json.loads((tmp_path / "out" / "datacard.json").read_text())
    before, after = card["entry_counts"], card["entry_counts_kept"]
    tail = [entry for entry, count in before.items() if count < 10]
    assert len(tail) > 1000
    # Every pair that matches a tail entry is kept, and so its matching texts.
    assert all(after[entry] == before[entry] for entry in tail)
    assert after["tone"] < before["tone"] / 2
    kept = card["kept"]
    assert abs(kept["pairs"] - kept["pairs_expected"]) < 5 * math.sqrt(kept["pairs"])


def test_files_may_name_their_texts_differently(tmp_path: Path) -> None:
    """A curated shard has the columns of all files; each says which of them are its own."""
    pool = tmp_path / "pool"
    pool.mkdir()
    for name, url, text in (("a", "url", "text"), ("b", "image_url", "caption")):
        rows = [{url: f"https://x.example/{name}{n}", text: f"a cat {name}"} for n in range(5)]
        pq.write_table(pa.Table.from_pylist(rows), pool / f"{name}.parquet")
    (tmp_path / "entries.json").write_text('["cat", "a", "b"]')
    out = tmp_path / "out"
    card = metacurate.curate(pool, tmp_path / "entries.json", out, t=100, workers=1)
    assert card["kept"]["pairs"] == 10
    assert (out / "report.html").exists()
    # The subset is a pool.
    again = metacurate.curate(out / "curated", tmp_path / "entries.json", tmp_path / "again",
                              t=100, workers=1)  # fmt: skip
    assert again["kept"] == {**card["kept"], "values_lost": {}}
    for name, column in (("0", "text"), ("1", "caption")):
        rows = pq.read_table(out / f"curated/part-00000{name}.parquet").to_pylist()
        assert len(rows) == 5
        assert all(row[column].startswith("a cat") for row in rows)


def test_given_counts_are_balanced_by(
    metacurate: Command, pool: Path, entries_file: Path, tmp_path: Path
) -> None:
    """A part of a pool, balanced by the counts of the whole: each of its pairs as in the whole."""
    whole, part, steps = tmp_path / "whole", tmp_path / "part", tmp_path / "steps"
    common = ("-m", entries_file, *OPTIONS, "--workers", 1)
    assert metacurate("curate", pool, *common, "--t", 40, NO_REPORT, "--out", whole).returncode == 0
    first = pool / "0.parquet"
    run = metacurate("curate", first, *common, "--t", 40, NO_REPORT, "--out", part,
                     "--counts", whole)  # fmt: skip
    assert run.returncode == 0, run.stderr
    urls = set(pq.read_table(first)["url"].to_pylist())
    wanted = [row for row in read_curated(whole) if row["url"] in urls]
    assert read_curated(part) == wanted
    assert len(wanted) > 100
    card = json.loads((part / "datacard.json").read_text())
    assert card["balancing"]["counts"] == "given"
    assert card["entry_counts"] == json.loads((whole / "datacard.json").read_text())["entry_counts"]
    assert card["matched"]["match_counts"] < sum(card["entry_counts"].values())
    for form in (whole / "counts.npy", whole / "datacard.json", tmp_path / "named.json"):
        if form.name == "named.json":
            form.write_text(json.dumps(card["entry_counts"]))
        assert metacurate("match", first, *common, "--out", steps, "--overwrite").returncode == 0
        run = metacurate("balance", steps, "--t", 40, "--counts", form, "--overwrite")
        assert run.returncode == 0, run.stderr
        assert read_curated(steps) == wanted
    fails(metacurate("balance", part, "--t", 40, "--counts", tmp_path / "none.json"), "none.json")
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"no such entry": 3}))
    fails(metacurate("balance", part, "--t", 40, "--counts", other), "1 entries that the metadata")


def test_given_counts_must_be_of_the_entries(
    pool: Path, entries_file: Path, tmp_path: Path
) -> None:
    for counts, said in (([1, 2], "of the metadata's 10 entries"), ([-1] * 10, "from 0 on")):
        with pytest.raises(ValueError, match=said):
            metacurate.curate(pool, entries_file, tmp_path / "out", t=5, workers=1,
                                  counts=np.array(counts),
                                  pool_config=PoolConfig(text_cols=("alt",)))  # fmt: skip
