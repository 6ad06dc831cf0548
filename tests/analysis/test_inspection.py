"""inspect, diff and plan: what they find, and that foreign text is harmless in the terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import Command
from hostile_pool import DANGEROUS_CHARACTERS, ENTRIES, MARKUP, OVERRIDE, make_hostile_run
from metacurate.analysis.diff import compare, jensen_shannon_divergence
from metacurate.analysis.inspect import inspect_entry, inspect_text, inspect_uid, run_distribution
from metacurate.analysis.plan import Sweep, plan_counts, plan_run
from metacurate.analysis.read_counts import Card, read_card, read_counted, read_counts
from metacurate.curation.matching.reference import match_text
from metacurate.errors import UserError
from metacurate.metadata.store import Metadata, load_metadata, make_metadata
from metacurate.pipeline import curate
from metacurate.runtime.engines.local import LocalEngine
from metacurate.runtime.run import Run
from metacurate.runtime.storage import Folder

POOL = Path(__file__).parents[2] / "examples" / "emoji"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("emoji") / "run"
    curate(str(POOL), "wordnet", str(made), t=10, seed=7, report=False, workers=1)
    return made


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_hostile_run(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return Run(Folder(str(folder)), LocalEngine(1))


@pytest.fixture(scope="module")
def kept(folder: Path) -> list[dict]:
    shards = sorted((folder / "curated").iterdir())
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


# inspect


def test_text(folder: Path) -> None:
    card = json.loads((folder / "datacard.json").read_text(encoding="utf-8"))
    text = "a smiling cat face, light skin tone"
    found = inspect_text(text, run_distribution(Folder(str(folder))))
    entries = load_metadata("wordnet").entries.to_pylist()
    assert [m["entry"] for m in found["matches"]] == [entries[i] for i in match_text(text, entries)]
    assert len(found["matches"]) > 4
    for match in found["matches"]:
        count = card["entry_counts"].get(match["entry"], 0)
        assert match["count"] == count
        assert match["p"] == min(1.0, 10 / max(count, 1))
        assert match["part"] == ("head" if count >= 10 else "tail" if count else "unmatched")
    none = math.prod(1 - match["p"] for match in found["matches"])
    assert found["keep_prob"] == pytest.approx(1 - none)
    nothing = inspect_text("qqq", run_distribution(Folder(str(folder))))
    assert (nothing["matches"], nothing["keep_prob"]) == ([], 0.0)


def test_entry(run: Run, kept: list[dict], monkeypatch: pytest.MonkeyPatch) -> None:
    found = inspect_entry(run, "cat", samples=5)
    assert found["part"] == "head"
    assert found["p"] == 10 / found["count"]
    texts = {
        (row["uid"].hex(), row["texts"][place]["text"])
        for row in kept
        for place, matched in enumerate(row["matched"])
        if row["text_kept"][place] and found["id"] in matched
    }
    assert len(found["samples"]) == 5
    assert {(s["uid"], s["text"]) for s in found["samples"]} <= texts
    assert len({s["text"] for s in found["samples"]}) == 5
    monkeypatch.setattr("metacurate.curation.layout.PAIRS_WORTH_WORKERS", 0)
    in_parallel = Run(run.folder, LocalEngine(2))
    assert inspect_entry(in_parallel, "cat", samples=5) == found


def test_unmatched_and_unknown_entries(run: Run) -> None:
    assert inspect_entry(run, "biological warfare defense")["part"] == "unmatched"
    with pytest.raises(UserError, match=r"no entry 'catt'; did you mean .*'cat'"):
        inspect_entry(run, "catt")


def test_uid_tells_the_fate_of_every_pair(run: Run, folder: Path, kept: list[dict]) -> None:
    by_uid = {row["uid"]: row for row in kept}
    from metacurate.curation.match_index import read_index  # all pairs, kept or not

    with (folder / "index/part-000000.arrow").open("rb") as file:
        uids = [u.as_py() for batch in read_index(file) for u in batch.batch.column("uid")]
    chosen = uids[:: len(uids) // 12]
    fates = set()
    for uid in chosen:
        (pair,) = inspect_uid(run, uid.hex())["pairs"]
        fates.add(pair["kept"])
        assert pair["kept"] == (uid in by_uid)
        if uid in by_uid:
            row = by_uid[uid]
            assert pair["keep_prob"] == pytest.approx(row["keep_prob"], abs=0)
            assert pair["url"] == row["url"]
            assert [text["kept"] for text in pair["texts"]] == row["text_kept"]
            assert [t["text"] for t in pair["texts"]] == [t["text"] for t in row["texts"]]
            assert [[m["id"] for m in t["matches"]] for t in pair["texts"]] == row["matched"]
        else:
            assert all(text["text"] for text in pair["texts"])  # from the pool
    assert fates == {True, False}


def test_uid_without_the_pool(tmp_path: Path) -> None:
    made = make_hostile_run(tmp_path)
    run = Run(Folder(str(made)), LocalEngine(1))
    uid = pq.read_table(made / "curated/part-000000.parquet")["uid"][0].as_py().hex()
    whole = inspect_uid(run, uid)
    for file in (tmp_path / "pool").iterdir():
        file.unlink()
    found = inspect_uid(run, uid)
    assert "cannot be read from the pool" in found["note"]
    assert found["pairs"][0]["texts"][0]["text"] is None
    assert found["pairs"][0]["texts"][0]["matches"] == whole["pairs"][0]["texts"][0]["matches"]
    with pytest.raises(UserError, match="no matched pair has the uid"):
        inspect_uid(run, "00" * 16)
    for wrong in ("zz", "00" * 15, ""):
        with pytest.raises(UserError, match="32 hexadecimal digits"):
            inspect_uid(run, wrong)


# diff


def test_divergence() -> None:
    a = np.array([1.0, 2.0, 3.0])
    assert jensen_shannon_divergence(a, a * 5) == 0.0
    assert jensen_shannon_divergence(np.array([1.0, 0.0]), np.array([0.0, 9.0])) == 1.0
    p, q = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    middle = (p + q) / 2
    expected = 0.5 * (p * np.log2(p / middle)).sum() + 0.5 * (q * np.log2(q / middle)).sum()
    assert jensen_shannon_divergence(p, q) == pytest.approx(expected)
    assert jensen_shannon_divergence(a, np.zeros(3)) is None


def test_comparison() -> None:
    first = Card("A", {"cat": 100, "dog": 4, "eel": 1}, {"cat": 20, "dog": 4, "eel": 1}, 10.0)
    second = Card("B", {"cat": 90, "dog": 12, "fox": 3}, {"cat": 21, "dog": 8, "fox": 3}, 10.0)
    found = compare(first, second)
    assert found["before"]["gained"] == {"fox": 3}
    assert found["before"]["lost"] == {"eel": 1}
    assert found["before"]["match_counts"] == [105, 105]
    assert found["parts"]["tail_to_head"] == 1
    assert found["parts"]["head_to_tail"] == 0
    assert found["parts"]["tail_proportion_before"] == [5 / 105, 3 / 105]
    assert found["parts"]["tail_proportion_after"] == [5 / 25, 3 / 32]
    mover = found["after"]["movers"][0]
    assert mover["entry"] == "cat"
    assert mover["shares"] == [20 / 25, 21 / 32]
    assert len(compare(first, second, listed=1)["after"]["movers"]) == 1
    assert (found["first"], found["second"], found["t"]) == ("A", "B", [10.0, 10.0])
    one_balanced = compare(first, Card("C", {"cat": 1}, None, math.inf))
    assert "after" not in one_balanced
    assert one_balanced["t"] == [10.0, "inf"]
    same = compare(first, first)
    assert same["after"]["jensen_shannon_divergence"] == 0
    assert same["after"]["movers"] == []


def test_an_entry_at_the_threshold_is_of_the_head() -> None:
    first = Card("A", {"cat": 10, "dog": 9, "eel": 11}, None, 10.0)
    second = Card("B", {"cat": 9, "dog": 10, "eel": 10}, None, 10.0)
    parts = compare(first, second)["parts"]
    assert parts["head_entries"] == [2, 2]
    assert (parts["tail_to_head"], parts["head_to_tail"]) == (1, 1)
    assert parts["tail_proportion_before"] == [9 / 30, 9 / 29]
    assert parts["tail_proportion_after"] == parts["tail_proportion_before"]  # not balanced


def test_entries_that_change_parts_and_that_nothing_is_kept_of() -> None:
    counts = {"a": 20, "b": 20, "c": 20, "d": 1, "e": 1, "f": 30}
    first = Card("A", counts, {"a": 9, "b": 9, "c": 9, "d": 1, "f": 8}, 10.0)  # no e
    other = {"a": 20, "b": 3, "c": 3, "d": 12, "e": 1, "f": 2}
    second = Card("B", other, {"a": 10, "b": 3, "c": 3, "d": 9, "e": 1}, 10.0)  # no f
    parts = compare(first, second)["parts"]
    assert parts["head_entries"] == [4, 2]
    assert (parts["tail_to_head"], parts["head_to_tail"]) == (1, 3)
    assert parts["tail_proportion_before"] == [2 / 92, 9 / 41]
    assert parts["tail_proportion_after"] == [1 / 36, 7 / 26]


def test_an_entry_that_neither_side_matches_is_neither_lost_nor_gained() -> None:
    first = Card("A", {"cat": 3, "gnu": 0, "yak": 0, "emu": 2, "elk": 0}, None, None)
    second = Card("B", {"cat": 3, "gnu": 0, "emu": 0, "elk": 1}, None, None)
    before = compare(first, second)["before"]
    assert (before["lost"], before["entries_lost"]) == ({"emu": 2}, 1)
    assert (before["gained"], before["entries_gained"]) == ({"elk": 1}, 1)
    assert before["entries_matched"] == [2, 2]
    assert {mover["entry"] for mover in before["movers"]} == {"cat", "emu", "elk"}


def test_what_is_listed_is_the_largest_first() -> None:
    first = Card("A", {"a": 1, "b": 5, "c": 5, "d": 9}, None, None)
    second = Card("B", {"e": 2, "f": 7, "g": 2, "h": 1}, None, None)
    before = compare(first, second, listed=3)["before"]
    assert list(before["lost"].items()) == [("d", 9), ("b", 5), ("c", 5)]
    assert list(before["gained"].items()) == [("f", 7), ("e", 2), ("g", 2)]
    assert [mover["entry"] for mover in before["movers"]] == ["f", "d", "b"]
    assert before["jensen_shannon_divergence"] == 1
    nothing = compare(Card("A", {}, None, 1.0), Card("B", {}, None, 1.0))
    assert nothing["before"]["jensen_shannon_divergence"] is None
    assert nothing["parts"]["tail_proportion_before"] == [0.0, 0.0]


def test_plain_counts_are_a_card(tmp_path: Path) -> None:
    file = tmp_path / "entry_counts.json"
    file.write_text('{"cat": 3, "dog": 1}', encoding="utf-8")
    card = read_card(str(file))
    assert (card.counts, card.kept, card.t) == ({"cat": 3, "dog": 1}, None, None)
    assert "parts" not in compare(card, card)


@pytest.mark.parametrize(("first", "second"), [(2.0, None), (None, 2.0), (2.0, 2.0)])
def test_parts_are_compared_if_both_thresholds_are_known(
    first: float | None, second: float | None
) -> None:
    cards = [Card("A", {"cat": 3}, None, first), Card("B", {"cat": 1}, {"cat": 1}, second)]
    found = compare(*cards)
    assert ("parts" in found) == (first is not None and second is not None)
    assert "after" not in found
    assert "after" in compare(cards[1], cards[1])


def test_an_entry_of_which_nothing_was_kept_counts_nothing_after() -> None:
    card = Card("A", {"cat": 10, "gnu": 2, "yak": 1}, {"cat": 4, "gnu": 2}, 3.0)
    parts = compare(card, card)["parts"]
    assert parts["tail_proportion_before"] == [3 / 13, 3 / 13]
    assert parts["tail_proportion_after"] == [2 / 6, 2 / 6]


@pytest.mark.parametrize(
    "content",
    ['{"cat": -1}', '{"cat": 1.5}', '{"cat": true}', '["cat"]', "{", '{"entry_counts": 3}',
     '{"entry_counts": {"cat": 1}, "balancing": {"t": "soon"}}'],
)  # fmt: skip
def test_what_is_no_card_is_told(tmp_path: Path, content: str) -> None:
    file = tmp_path / "card.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=r"card\.json"):
        read_card(str(file))


def test_counts_in_the_metadatas_order(folder: Path, tmp_path: Path) -> None:
    metadata = load_metadata(str(folder / "metadata.parquet"))
    by_name = read_counts(str(folder), metadata)
    assert by_name.tolist() == read_counts(str(folder / "counts.npy"), metadata).tolist()
    other = tmp_path / "entries.json"
    other.write_text('["cat"]', encoding="utf-8")
    for source, message in ((folder, "does not have"), (folder / "counts.npy", "has 1")):
        with pytest.raises(UserError, match=message):
            read_counts(str(source), load_metadata(str(other)))
    with pytest.raises(UserError, match="no file"):
        read_counts(str(tmp_path / "none.npy"))
    with pytest.raises(UserError, match="counts without the entries' names"):
        read_card(str(folder / "counts.npy"))
    with pytest.raises(UserError, match=r"is a folder.*the folder of a finished run"):
        read_counts(str(tmp_path))


# counts of the official scripts

LISTS = {"en": ["cat", "dog", "gnu"], "zh": ["猫"]}


def several() -> Metadata:
    entries = [(entry, lang) for lang, listed in LISTS.items() for entry in listed]
    return make_metadata([e for e, _ in entries], lang=[lang for _, lang in entries])


@pytest.mark.parametrize("kind", ["folder", "file", "index", "signed index", "no match"])
def test_arrays_of_the_official_scripts(tmp_path: Path, kind: str) -> None:
    """The index has a row an entry and text; entries behind its last one match nothing."""
    index = np.array([[1, 0], [0, 0], [1, 1], [1, 7]], np.uint32)
    wanted = [1, 3, 0]
    file = tmp_path / "12_inverted.npy"
    if kind in ("folder", "file"):
        file = tmp_path / "entry_count.npy"
        np.save(file, np.array(wanted, np.uint64))
        file = tmp_path if kind == "folder" else file
    elif kind == "no match":
        np.save(file, np.zeros((0, 2), np.uint32))
        wanted = [0, 0, 0]
    else:
        np.save(file, index.astype(np.int32) if kind == "signed index" else index)
    assert read_counts(str(file), make_metadata(LISTS["en"])).tolist() == wanted


def test_arrays_by_language(tmp_path: Path) -> None:
    file = str(tmp_path / "0.npz")
    np.savez(file, zh=np.array([7], np.uint64), en=np.array([1, 2, 3], np.uint64))
    assert read_counts(file, several()).tolist() == [1, 2, 3, 7]
    counts, blocks = read_counted(file)
    assert {str(b.language): counts[b.first : b.stop].tolist() for b in blocks} == {
        "zh": [7], "en": [1, 2, 3]
    }  # fmt: skip
    np.savez_compressed(file, en=np.array([1, 2, 3], np.uint64))
    assert read_counts(file, several()).tolist() == [1, 2, 3, 0]
    card = read_card(file, several())
    assert card.counts == {"en: cat": 1, "en: dog": 2, "en: gnu": 3}
    assert compare(card, card)["languages"]["en"]["match_counts"] == [6, 6]


BAD_COUNTS: dict[str, tuple[object, str]] = {
    "too few": ({"en": np.array([1, 2], np.uint64)}, "counts 2 entries of en, but the metadata"),
    "too many": ({"zh": np.array([1, 2], np.uint64)}, "counts 2 entries of zh, but the metadata"),
    "language": ({"fr": np.array([1], np.uint64)}, "the languages fr, which"),
    "floats": ({"en": np.array([0.5])}, "en holds no counts, but float64"),
    "pickles": ({"en": np.array([{}])}, "damaged .npz"),
    "no array": ({}, "no arrays by language"),
    "probabilities": (np.array([0.5, 1], np.float32), "holds no counts, but float32"),
    "entry numbers": (np.array([[2**31, 0]], np.uint32), "holds no counts, but uint32"),
    "matrix": (np.zeros((2, 3), np.uint32), r"holds no counts, but uint32\[2, 3\]"),
    "cut": (b"PK\x03\x04 and no more", "damaged .npz"),
    "shares": (b'{"cat": 0.25, "dog": 0.75}', "has shares of all matches and no counts"),
}


@pytest.mark.parametrize("case", BAD_COUNTS)
def test_what_are_no_counts_is_told(tmp_path: Path, case: str) -> None:
    given, message = BAD_COUNTS[case]
    file = tmp_path / "counts"
    with file.open("wb") as out:
        if isinstance(given, dict):
            np.savez(out, **given)
        elif isinstance(given, np.ndarray):
            np.save(out, given)
        else:
            assert isinstance(given, bytes)
            out.write(given)
    with pytest.raises(UserError, match=message):
        read_counts(str(file), several())


def test_a_card_of_shares_and_an_array_are_compared(
    folder: Path, tmp_path: Path, metacurate: Command
) -> None:
    card = json.loads((folder / "datacard.json").read_text(encoding="utf-8"))
    total = sum(card["entry_counts"].values())
    shares = {entry: count / total for entry, count in card["entry_counts"].items()}
    (tmp_path / "shares.json").write_text(json.dumps(shares), encoding="utf-8")
    counts = folder / "counts.npy"
    done = metacurate("diff", tmp_path / "shares.json", counts, "-m", "wordnet", "--json")
    before = json.loads(done.stdout)["before"]
    assert before["jensen_shannon_divergence"] == pytest.approx(0, abs=1e-12)
    assert before["match_counts"] == [pytest.approx(1), total]
    assert before["entries_matched"] == [len(shares)] * 2
    assert metacurate("diff", tmp_path / "shares.json", counts, "-m", "wordnet").returncode == 0
    done = metacurate("diff", folder, counts)
    assert done.returncode == 2
    assert "or --metadata with the entries" in done.stderr


# plan


def test_plan_of_a_run_is_exact(run: Run, folder: Path) -> None:
    card = json.loads((folder / "datacard.json").read_text(encoding="utf-8"))
    sweep = Sweep((10.0, math.inf), (0.06,), (9000,))
    plans = plan_run(run, sweep)
    assert [plan.t for plan in plans] == sorted(plan.t for plan in plans)
    at_ten = next(plan for plan in plans if plan.t == 10)
    assert at_ten.pairs[0] == at_ten.pairs[1] == pytest.approx(card["kept"]["pairs_expected"])
    assert at_ten.p == card["balancing"]["tail_proportion"]
    assert at_ten.head_entries == card["tables"]["part"]["head"]["entries"]
    everything = plans[-1]
    assert everything.pairs[0] == card["matched"]["pairs"]
    assert everything.texts[0] == card["matched"]["texts"]
    assert everything.draws == card["matched"]["match_counts"]
    solved = next(plan for plan in plans if plan.asked == "9,000 pairs")
    assert solved.pairs[0] == pytest.approx(9000, rel=1e-5)
    with pytest.raises(UserError, match=r"^target_size: target must be above 0"):
        plan_run(run, Sweep(target_size=(10**9,)))


def test_plan_with_workers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep((10.0, 50.0), (0.06,))
    plans = plan_run(run, sweep)
    monkeypatch.setattr("metacurate.curation.layout.PAIRS_WORTH_WORKERS", 0)
    assert plan_run(Run(run.folder, LocalEngine(2)), sweep) == plans


def test_plan_of_counts_bounds_the_exact_plan(run: Run, folder: Path) -> None:
    counts = read_counts(str(folder))
    for bounds, exact in zip(plan_counts(counts, Sweep()), plan_run(run, Sweep()), strict=True):
        assert (bounds.t, bounds.p, bounds.draws) == (exact.t, exact.p, exact.draws)
        assert bounds.pairs[0] <= exact.pairs[0] <= bounds.pairs[1]
        assert bounds.texts[0] <= exact.texts[0] <= bounds.texts[1]


def test_least_threshold_for_a_size(folder: Path) -> None:
    counts = read_counts(str(folder))
    (plan,) = plan_counts(counts, Sweep(target_size=(5000,)))
    assert plan.draws == pytest.approx(5000)
    (most,) = plan_counts(counts, Sweep(target_size=(int(counts.sum()),)))
    assert most.t == counts.max()
    with pytest.raises(UserError, match="there are only"):
        plan_counts(counts, Sweep(target_size=(int(counts.sum()) + 1,)))
    with pytest.raises(UserError, match=r"^p must lie between 0 and 1, not 1\.5"):
        Sweep(p=(1.5,))


def test_planning_twice_in_a_folder_whose_counts_changed(tmp_path: Path) -> None:
    made = make_hostile_run(tmp_path)
    run = Run(Folder(str(made)), LocalEngine(1))
    before = plan_run(run, Sweep((2.0,)))
    counts = np.load(made / "counts.npy")
    np.save(made / "counts.npy", counts * 10)
    after = plan_run(run, Sweep((2.0,)))
    assert after[0].pairs[0] < before[0].pairs[0]


# The command line.


def out(metacurate: Command, *arguments: object) -> str:
    """What a command prints; it must succeed."""
    ended = metacurate(*arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_commands_print_json(metacurate: Command, folder: Path) -> None:
    run = ["--run", str(folder), "--json"]
    text = json.loads(out(metacurate, "inspect", "text", "a cat", *run))
    assert [match["entry"] for match in text["matches"]] == ["a", "cat"][::-1]
    entry = json.loads(out(metacurate, "inspect", "entry", "cat", "--workers", 1, *run))
    uid = entry["samples"][0]["uid"]
    assert json.loads(out(metacurate, "inspect", "uid", uid, "--workers", 1, *run))["uid"] == uid
    plan = json.loads(
        out(metacurate, "plan", str(folder), "--t", "10", "--t", "inf", "--workers", 1, "--json")
    )
    assert plan["exact"] is True
    assert [p["t"] for p in plan["plans"]] == [10, "inf"]
    diff = json.loads(out(metacurate, "diff", str(folder), str(folder), "--json"))
    assert diff["after"]["entries_gained"] == 0
    alone = json.loads(
        out(
            metacurate, "inspect", "text", "a cat", "--metadata", "wordnet",
            "--counts", str(folder / "counts.npy"), "--t", "10", "--json",
        )
    )  # fmt: skip
    assert alone == text


def test_foreign_text_is_harmless_in_the_terminal(
    metacurate: Command, hostile: Path, folder: Path
) -> None:
    run = ["--run", str(hostile)]
    table = pq.read_table(hostile / "curated").to_pylist()
    shown = []
    for entry in ENTRIES:
        shown.append(out(metacurate, "inspect", "entry", entry, "--workers", 1, *run))
        shown.append(out(metacurate, "inspect", "entry", entry, "--workers", 1, *run, "--json"))
    for row in table[:8]:
        shown.append(out(metacurate, "inspect", "uid", row["uid"].hex(), "--workers", 1, *run))
    shown.append(out(metacurate, "inspect", "text", " ".join(ENTRIES) + " cat " * 300_000, *run))
    shown.append(out(metacurate, "diff", str(hostile), str(folder)))
    shown.append(out(metacurate, "report", str(hostile), "--workers", 1))
    for text in shown:
        assert not set(text) & set(DANGEROUS_CHARACTERS)
        assert len(text) < 100_000
    everything = "".join(shown)
    assert MARKUP.split()[0] in everything  # not taken for markup
    assert "\\u202egnptac\\u202c" in everything


def test_mistakes_end_in_one_harmless_line(
    metacurate: Command, hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["inspect", "entry", f"\x1b[31m{OVERRIDE}", "--run", str(hostile)], "no entry"),
        (["inspect", "text", "x"], "give either --run"),
        (["inspect", "text", "x", "--run", str(hostile), "--t", "3"], "give either --run"),
        (["plan"], "give either a run's folder or --counts"),
        (["diff", "\x1b[31mA", "B"], "no file"),
        (["plan", str(hostile), "--t", "-1"], "--t must be positive"),
        (["report", "nowhere"], "there is no folder nowhere"),
    ):
        ended = metacurate(*arguments)
        assert ended.returncode == 2
        assert message in ended.stderr
        assert ended.stderr.count("\n") == 1
        assert not set(ended.stderr) & set(DANGEROUS_CHARACTERS)
    assert not list(tmp_path.iterdir())


def write_subset(index: Path, t: str = "2", flat: bool = False) -> dict[str, list[dict[str, int]]]:
    """The NumPy steps' files for two shards; the entries' counts before and after."""
    rng = np.random.default_rng(5)
    before, after = np.zeros(3, np.uint64), np.zeros(3, np.uint64)
    for shard in (7, 107):  # of one group
        # A text's entries: the last of the metadata matches nothing.
        matches = np.argwhere(rng.random((40, 2)) < (0.5, 0.1))[:, ::-1].astype(np.uint32)
        kept = np.unique(matches[rng.random(len(matches)) < 0.3, 1]).astype(np.uint32)
        group = "" if flat else "7/"
        for name, array in (
            (f"{group}{shard}_inverted.npy", matches), (f"subset_{t}/{group}{shard}.npy", kept)
        ):  # fmt: skip
            (index / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(index / name, array)
        for entry, text in matches.tolist():
            before[entry] += 1
            after[entry] += text in kept
    np.save(index / "entry_count.npy", before)
    names = LISTS["en"]
    return {
        when: [{n: int(k) for n, k in zip(names, counts, strict=True) if k}]
        for when, counts in (("before", before), ("after", after))
    }


@pytest.mark.parametrize(("t", "flat"), [("2", False), ("inf", False), ("20000", True)])
def test_a_subset_of_the_numpy_steps(t: str, flat: bool, tmp_path: Path) -> None:
    expected = write_subset(tmp_path / "index", t, flat)
    metadata = make_metadata(LISTS["en"])
    card = read_card(str(tmp_path / f"index/subset_{t}/"), metadata)
    assert [card.counts] == expected["before"]
    assert [card.kept] == expected["after"]
    assert card.t == float(t)
    found = compare(card, card)
    assert found["after"]["match_counts"][0] == sum(expected["after"][0].values())
    assert found["parts"]["head_entries"][0] == sum(
        count >= float(t) for count in card.counts.values()
    )
    # The counts to balance by are those of the index.
    counts = read_counts(str(tmp_path / f"index/subset_{t}"), metadata)
    assert {n: int(k) for n, k in zip(LISTS["en"], counts, strict=True) if k} == card.counts


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("7/7_inverted.npy", None, "there is no file of the index .*7/7_inverted.npy"),
        ("7/7_inverted.npy", np.zeros(3, np.uint32), "holds no entries and texts"),
        ("7/7_inverted.npy", np.zeros((1, 2), np.uint32), "keeps texts that match nothing"),
        ("subset_2/7/7.npy", np.zeros((2, 2), np.uint32), "holds no numbers of texts"),
        ("subset_2/7/7.npy", np.array([0.5]), "holds no numbers of texts"),
        ("subset_2/7/7.npy", np.array([2**31], np.uint32), "keeps texts that match nothing"),
        ("subset_2/7/7.npy", b"\x93NUMPY", "damaged .npy"),
        ("entry_count.npy", None, "entry_count.npy|is a folder"),
        ("entry_count.npy", np.zeros(2, np.uint64), "counts 2 entries, but the metadata has 3"),
    ],
    ids=["no index", "counts", "other index", "pairs", "floats", "other text", "damaged",
         "no counts", "other counts"],
)  # fmt: skip
def test_subsets_that_cannot_be_read(name: str, content: Any, message: str, tmp_path: Path) -> None:
    write_subset(tmp_path)
    (tmp_path / name).unlink()
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        np.save(tmp_path / name, content)
    with pytest.raises(UserError, match=message):
        read_card(str(tmp_path / "subset_2"), make_metadata(LISTS["en"]))
