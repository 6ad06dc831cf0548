"""The loader: what it draws, in which order, and that it goes on where it was."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from conftest import wait_for
from metacurate.errors import UserError
from metacurate.metadata.store import make_metadata
from metacurate.pipeline import curate
from metacurate.pool.schema import TEXTS_TYPE
from metacurate.training import shards
from metacurate.training.config import DataSection
from metacurate.training.images import random_crop
from metacurate.training.loader import PairLoader, join_states
from metacurate.training.open_clip_loop import OpenClipBatches
from metacurate.training.select import AllTexts, Curated, DataConfig, KeptPair, Online, PairSource
from metacurate.training.shards import ShardsConfig
from training_pools import (
    SHAPES,
    WORDS,
    add_member,
    curated,
    kept_pairs,
    write_pool,
    write_tars,
)

PAIRS = 400
T = 30.0


class LengthTokenizer:
    """One token: the text's length."""

    def __call__(self, texts: Any) -> Any:
        return torch.tensor([[len(t)] for t in texts])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    write_pool(folder / "pool", PAIRS)
    matched = curated(folder / "pool", folder / "matched", math.inf)
    write_tars(matched, folder / "tars")
    return {
        "pool": folder / "pool",
        "matched": matched,
        "balanced": curated(folder / "pool", folder / "balanced", T),
        "tars": folder / "tars",
    }


def online(runs: dict[str, Path], t: float = T) -> Online:
    return Online(np.load(runs["matched"] / "counts.npy"), t)


def config(path: Path, selection: Any, **more: Any) -> DataConfig:
    values = {"global_batch": 24, "image_size": 8, "streams": 4, "shuffle_block": 16, **more}
    folder = path / "curated" if (path / "curated").is_dir() else path
    return DataConfig(ShardsConfig((str(folder),)), selection, **values)


def epoch_pairs(source: PairSource, epoch: int) -> list[KeptPair]:
    skipped: Counter[str] = Counter()
    units = range(epoch * source.units, (epoch + 1) * source.units)
    return [pair for unit in units for pair in source.unit_pairs(unit, skipped)]


def test_epoch_0_online_is_the_offline_subset_from_parquet_and_from_tars(runs):
    expected = kept_pairs(runs["balanced"])
    for folder in (runs["matched"], runs["tars"]):
        pairs = epoch_pairs(PairSource(config(folder, online(runs))), 0)
        assert sorted(p.uid for p in pairs) == sorted(expected)
        assert all(p.text in expected[p.uid] for p in pairs)
    offline = epoch_pairs(PairSource(config(runs["balanced"], Curated())), 0)
    assert Counter((p.uid, p.text) for p in offline) == Counter((p.uid, p.text) for p in pairs)


@pytest.mark.parametrize("choose_text", ["any", "one"])
def test_epoch_0_online_is_the_offline_subset_of_a_run_by_language(runs, tmp_path, choose_text):
    langs = ("en", "de", None)
    for shard in sorted(runs["pool"].glob("*.parquet")):
        table = pq.read_table(shard)
        texts = [
            [{"source": "alt", "text": text, "lang": langs[i % 3]} for i, text in enumerate(of)]
            for of in table["texts"].to_pylist()
        ]
        table = table.set_column(1, "texts", pa.array(texts, TEXTS_TYPE))
        (tmp_path / "pool").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "pool" / shard.name)
    entries = [*WORDS, *SHAPES]
    metadata = make_metadata(entries * 2, lang=["en"] * len(entries) + ["de"] * len(entries))
    for name, more in (("matched", {"t": math.inf}), ("balanced", {"t": T, "t_of": {"de": 3.0}})):
        curate(
            str(tmp_path / "pool"), metadata, str(tmp_path / name), workers=1, report=False,
            choose_text=choose_text, **more,
        )  # fmt: skip
    section = DataSection(
        (str(tmp_path / "matched"),), selection="online", run=str(tmp_path / "balanced")
    )
    pairs = epoch_pairs(PairSource(config(tmp_path / "matched", section.load_selection())), 0)
    kept = epoch_pairs(PairSource(config(tmp_path / "balanced", Curated())), 0)
    assert 20 < len(kept) < 300
    assert Counter((p.uid, p.text) for p in pairs) == Counter((p.uid, p.text) for p in kept)
    # German's own threshold counts: with that of English for both, far more would stay.
    same = Online(np.load(tmp_path / "matched" / "counts.npy"), T, choose_text)
    assert len(epoch_pairs(PairSource(config(tmp_path / "matched", same)), 0)) > len(kept) + 10


def test_later_epochs_are_fresh_draws_whose_long_run_composition_is_the_offline_probability(runs):
    source = PairSource(config(runs["matched"], online(runs), shuffle_block=4096))
    epochs = 60
    seen: Counter[bytes] = Counter()
    sets = []
    for epoch in range(epochs):
        uids = [p.uid for p in epoch_pairs(source, epoch)]
        assert len(uids) == len(set(uids))
        seen.update(uids)
        sets.append(frozenset(uids))
    assert len(set(sets)) > epochs // 2  # anew, not the same subset again
    rows = [
        row
        for shard in sorted((runs["matched"] / "curated").glob("*.parquet"))
        for row in pq.read_table(shard, columns=["uid", "matched"]).to_pylist()
    ]
    probs = online(runs).keep_probs
    p = np.array(
        [1 - np.prod([1 - probs[e] for text in row["matched"] for e in text]) for row in rows]
    )
    k = np.array([seen[row["uid"]] for row in rows])
    certain = p == 1
    assert (k[certain] == epochs).all()
    # Pearson's statistic over pairs: each term has mean 1, so the sum has mean n, and its variance
    # is the sum of var(term) = 2 + (1 - 6 p q) / (epochs p q). It is close to chi-square with n
    # degrees of freedom, whose upper tail at 5 sd is below 1.4e-5 for n > 100: that many false
    # alarms over seeds (the seed is fixed).
    q, k = p[~certain], k[~certain]
    assert q.size > 100
    variance = q * (1 - q)
    statistic = ((k - epochs * q) ** 2 / (epochs * variance)).sum()
    sd = math.sqrt((2 + (1 - 6 * variance) / (epochs * variance)).sum())
    assert abs(statistic - q.size) < 5 * sd
    # And the number of pairs an epoch, at 5 sd of its mean.
    assert abs(k.sum() / epochs - q.sum()) < 5 * math.sqrt(variance.sum() / epochs)


def test_the_text_is_drawn_uniformly_among_the_kept_texts(runs):
    source = PairSource(config(runs["pool"], AllTexts()))
    texts = Counter(
        p.text.startswith("a ") * 1 + p.text.startswith("IMG") * 2
        for epoch in range(20)
        for p in epoch_pairs(source, epoch)
        if not p.text.endswith(".PNG")
    )
    n = sum(texts.values())
    assert n == 20 * PAIRS * 9 // 10
    # Three texts each: 5 sd of a binomial with p = 1/3 (false alarm < 2e-6 over the three).
    bound = 5 * math.sqrt(n * (1 / 3) * (2 / 3))
    assert all(abs(count - n / 3) < bound for count in texts.values())
    assert len(texts) == 3


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pairs whose texts are of several sources; some have a column of captions too.

    As Parquet and as tars. Pair i has two alts, a title that curation rejected, one that it kept if
    i is odd, and two made captions if i // 2 is odd.
    """
    folder = tmp_path_factory.mktemp("captioned")
    rows = []
    for i in range(PAIRS):
        texts = [("alt", f"alt {i}"), ("alt", f"alt {i} again"), ("title", f"rejected {i}")]
        texts += [("title", f"title {i}")] * (i % 2)
        rows.append({
            "url": f"u{i}", "image": b"none",
            "texts": [{"source": s, "text": t, "lang": None} for s, t in texts],
            "text_kept": [not text.startswith("rejected") for _, text in texts],
            "synthetic": [f"made {i}", f"made {i} again"] if i // 2 % 2 else None,
        })  # fmt: skip
    schema = {"url": pa.string(), "image": pa.binary(), "texts": TEXTS_TYPE}
    schema |= {"text_kept": pa.list_(pa.bool_()), "synthetic": pa.list_(pa.string())}
    (folder / "parquet").mkdir()
    table = pa.Table.from_pylist(rows, pa.schema(list(schema.items())))
    pq.write_table(table, folder / "parquet" / "0.parquet", row_group_size=90)
    (folder / "tars").mkdir()
    with tarfile.open(folder / "tars" / "0.tar", "w") as tar:
        for i, row in enumerate(rows):
            add_member(tar, f"{i:05d}.jpg", row.pop("image"))
            add_member(tar, f"{i:05d}.txt", f"alt {i}".encode())
            add_member(tar, f"{i:05d}.json", json.dumps(row).encode())
    return {kind: folder / kind for kind in ("parquet", "tars")}


@pytest.mark.parametrize("kind", ["parquet", "tars"])
@pytest.mark.parametrize(
    ("captions", "shares"),
    [
        # Of alt, title and made captions: of pairs with alts only, with a title, with made ones,
        # with all three.
        (
            {"synthetic": 0.15},
            [(1, 0, 0), (2 / 3, 1 / 3, 0), (0.85, 0, 0.15), (0.85 * 2 / 3, 0.85 / 3, 0.15)],
        ),
        (
            {"synthetic": 0.3, "alt": 0.7},
            [(1, 0, 0), (0.7, 0.3, 0), (0.7, 0, 0.3), (0.7, 0, 0.3)],
        ),
        (
            {"title": 0.5, "synthetic": 0.2},
            [(1, 0, 0), (0.5, 0.5, 0), (0.8, 0, 0.2), (0.3, 0.5, 0.2)],
        ),
        ({"alt": 0.25}, [(1, 0, 0), (0.25, 0.75, 0), (1, 0, 0), (0.25, 0.75, 0)]),
        ({"nobody's": 0.5}, [(1, 0, 0), (2 / 3, 1 / 3, 0), (1, 0, 0), (2 / 3, 1 / 3, 0)]),
    ],
)
def test_captions_of_several_sources_are_mixed_by_their_shares(captioned, kind, captions, shares):
    base = config(captioned[kind], Curated(), captions=captions, streams=1)
    columns = ("synthetic",) if "synthetic" in captions else ()
    base = replace(base, shards=replace(base.shards, caption_cols=columns))
    source = PairSource(base)
    epochs = 10
    skipped: Counter[str] = Counter()
    seen: dict[int, list[str]] = {}
    for unit in range(epochs * source.units):
        for pair in source.unit_pairs(unit, skipped):
            seen.setdefault(int(pair.text.split(" ")[1]), []).append(pair.text)
    assert len(seen) == PAIRS
    assert all(len(texts) == epochs for texts in seen.values())
    n = epochs * PAIRS // 4
    missing = 0.0
    for group, expected in enumerate(shares):
        texts = [text for i in seen if i % 4 == group for text in seen[i]]
        found = Counter(text.split(" ")[0] for text in texts)
        assert found.keys() <= {"alt", "title", "made"}  # none that curation rejected
        for name, share in zip(("alt", "title", "made"), expected, strict=True):
            # 5 sd of a binomial: a false alarm in 1.7 million.
            bound = 5 * math.sqrt(n * share * (1 - share))
            assert abs(found[name] - n * share) <= bound
            again = sum(text.startswith(name) and text.endswith("again") for text in texts)
            half = 0 if name == "title" else n * share / 2
            assert abs(again - half) <= 5 * math.sqrt(half * (1 - half / n))
        has = {"alt", *["title"] * (group % 2), *["synthetic"] * (group // 2)}
        missing += n * sum(share for name, share in captions.items() if name not in has)
    assert abs(skipped["caption_missing"] - missing) <= 5 * math.sqrt(missing)
    assert {reason for reason, count in skipped.items() if count} <= {"caption_missing"}


def test_a_captions_draw_is_the_pairs_own(captioned):
    """The same with other shards, streams and blocks, and after other pairs; afresh each epoch."""

    def texts(kind: str, epoch: int, **more: Any) -> dict[bytes, str]:
        base = config(captioned[kind], Curated(), captions={"alt": 0.5}, **more)
        return {pair.uid: pair.text for pair in epoch_pairs(PairSource(base), epoch)}

    first = texts("parquet", 0)
    assert first == texts("tars", 0, streams=2, shuffle_block=64)
    assert first != texts("parquet", 1)
    assert first != texts("parquet", 0, seed=1)


@pytest.mark.parametrize(
    ("captions", "columns", "message"),
    [
        ({"alt": 0.7, "synthetic": 0.4}, (), "add up to 1.1"),
        ({"alt": 0}, (), r"the share of 'alt' must lie in \(0, 1\], not 0"),
        ({"alt": "much"}, (), "not 'much'"),
        ({"alt": 0.5}, ("synthetic",), "'synthetic' has no share"),
        ({"texts": 0.5}, ("texts",), "'texts' holds texts that curation saw"),
        ({"gone": 0.5}, ("gone",), "has no column 'gone'"),
        ({"text_kept": 0.5}, ("text_kept",), "holds list<.*bool>, not captions"),
    ],
)
def test_captions_that_cannot_be_are_one_line(captioned, captions, columns, message):
    shards_config = ShardsConfig((str(captioned["parquet"]),), caption_cols=columns)
    with pytest.raises(UserError, match=message):
        PairSource(DataConfig(shards_config, Curated(), 24, 8, captions=captions))


def test_fraction_takes_the_same_share_of_pairs_in_every_epoch(runs):
    source = PairSource(config(runs["matched"], Curated(), fraction=0.4))
    first = {p.uid for p in epoch_pairs(source, 0)}
    assert first == {p.uid for p in epoch_pairs(source, 1)}
    n = PAIRS * 9 // 10
    assert abs(len(first) - 0.4 * n) < 5 * math.sqrt(n * 0.24)


def batches(loader: PairLoader, count: int) -> list[Any]:
    return list(islice(iter(loader), count))


def batches_of(stream: Iterator[Any], count: int) -> list[Any]:
    return list(islice(stream, count))


def loader(runs: dict[str, Path], rank: int = 0, world: int = 1, workers: int = 0) -> PairLoader:
    return PairLoader(
        config(runs["matched"], online(runs)), LengthTokenizer(),
        rank=rank, world_size=world, workers=workers,
    )  # fmt: skip


def assert_equal(a: Any, b: Any) -> None:
    for name in ("images", "tokens", "uids", "epochs"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def test_global_batches_are_the_same_for_any_number_of_ranks_and_workers(runs):
    whole = batches(loader(runs), 12)
    for world in (2, 4):
        ranks = [batches(loader(runs, rank, world), 12) for rank in range(world)]
        for step, expected in enumerate(whole):
            assert torch.equal(torch.cat([r[step].uids for r in ranks]), expected.uids)
            assert torch.equal(torch.cat([r[step].images for r in ranks]), expected.images)
    for mine, expected in zip(batches(loader(runs, workers=2), 12), whole, strict=True):
        assert_equal(mine, expected)


def test_ranks_together_see_every_kept_pair_once_an_epoch(runs):
    source = PairSource(config(runs["matched"], online(runs)))
    for epoch in (0, 1):
        expected = Counter(p.uid for p in epoch_pairs(source, epoch))
        seen: Counter[bytes] = Counter()
        for rank in range(2):
            for batch in batches(loader(runs, rank, 2), 60):
                assert batch.epochs.min() <= 6
                seen.update(bytes(uid.tolist()) for uid in batch.uids[batch.epochs == epoch])
        assert seen == expected


@pytest.mark.parametrize("step", [1, 7, 13])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_loader_goes_on_in_mid_epoch_with_any_number_of_ranks(runs, step, ranks):
    whole = batches(loader(runs), 20)
    states = []
    for rank in range(ranks):
        part = loader(runs, rank, ranks)
        batches(part, step)
        states.append(json.loads(json.dumps(part.state_dict())))
    again = loader(runs)
    again.load_state_dict(join_states(states))
    for mine, expected in zip(batches(again, 20 - step), whole[step:], strict=True):
        assert_equal(mine, expected)


def test_a_state_of_other_data_is_refused(runs):
    state = join_states([loader(runs).state_dict()])
    other = PairLoader(config(runs["matched"], online(runs, 31.0)), LengthTokenizer())
    with pytest.raises(UserError, match=r"with other shards .* or data settings"):
        other.load_state_dict(state)


@pytest.mark.parametrize("kind", ["matched", "tars"])
def test_a_state_of_other_content_in_a_shard_is_refused(runs, tmp_path, kind):
    """Where the loader stopped would be other pairs."""
    original = runs["matched"] / "curated" if kind == "matched" else runs["tars"]
    folder = shutil.copytree(original, tmp_path / "shards")

    def opened() -> PairLoader:
        return PairLoader(config(folder, online(runs)), LengthTokenizer())

    state = join_states([opened().state_dict()])
    opened().load_state_dict(state)
    first, *_, last = sorted(folder.iterdir())
    with last.open("rb") as more, first.open("ab") as file:  # of a tar only its size is known
        shutil.copyfileobj(more, file)
    with pytest.raises(UserError, match="other content in them"):
        opened().load_state_dict(state)


@pytest.fixture
def broken(runs: dict[str, Path], tmp_path: Path) -> Path:
    """Tars with broken images, texts and JSON among good ones."""
    folder = tmp_path / "tars"
    shutil.copytree(runs["tars"], folder)
    with tarfile.open(runs["tars"] / "00000.tar") as tar:
        good = tar.extractfile(tar.getmembers()[0]).read()
    row = {"matched": [[0]], "text_kept": [True]}
    with tarfile.open(folder / "00009.tar", "w") as tar:
        for key, image, text, extra in [
            ("a", b"no image", "red", row),
            ("b", good[:40], "red", row),
            ("c", None, "red", row),
            ("d", good, "", row),
            ("e", good, "red", {**row, "matched": "nonsense"}),
            ("f", good, "red", {**row, "matched": [[0], [1]]}),
        ]:
            if image is not None:
                add_member(tar, f"{key}.png", image)
            add_member(tar, f"{key}.txt", text.encode())
            add_member(
                tar, f"{key}.json", json.dumps({"key": key, "texts": [text], **extra}).encode()
            )
        add_member(tar, "g.txt", b"\xff\xfe")
        add_member(tar, "h.json", b"{broken")
    return folder


def test_broken_images_and_texts_are_skipped_and_counted_also_across_a_resume(runs, broken):
    every = online(runs, math.inf)

    def make() -> PairLoader:
        return PairLoader(config(broken, every, streams=1), LengthTokenizer())

    whole = make()
    seen = batches(whole, 16)  # a bit over an epoch
    epoch0 = Counter(bytes(u.tolist()) for b in seen for u in b.uids[b.epochs == 0])
    assert epoch0 == Counter(kept_pairs(runs["matched"]).keys())
    assert whole.skipped["not_an_image"] == 1
    assert whole.skipped["truncated"] == 1
    assert whole.skipped["missing_image"] == 1
    assert whole.skipped["no_text"] == 3  # d, g, h
    assert whole.skipped["broken_matched"] == 2  # e, f
    assert whole.skipped["text_not_utf8"] == 1
    assert whole.skipped["json_invalid"] == 1
    for step in (3, 9, 14):
        first = make()
        batches(first, step)
        second = make()
        second.load_state_dict(join_states([first.state_dict()]))
        batches(second, 16 - step)
        assert +second.skipped == +whole.skipped


def test_a_shard_that_vanishes_is_an_error_that_names_it_after_retries(runs, tmp_path, monkeypatch):
    waits: list[float] = []
    monkeypatch.setattr(shards.time, "sleep", waits.append)
    folder = tmp_path / "tars"
    shutil.copytree(runs["tars"], folder)
    part = PairLoader(config(folder, online(runs), streams=2), LengthTokenizer())
    stream = iter(part)
    next(stream)
    for tar in folder.glob("*.tar"):
        tar.unlink()
    with pytest.raises(
        UserError, match=r"0000\d\.tar cannot be read \(it is gone\), tried 4 times"
    ):
        batches_of(stream, 40)
    assert waits == [0.5, 1.0, 2.0]


def test_an_error_in_a_worker_process_arrives_as_one_line(runs, tmp_path):
    source = config(runs["pool"], Curated(), streams=2)
    with pytest.raises(UserError, match="has no 'text_kept'") as caught:
        next(iter(PairLoader(source, LengthTokenizer(), workers=1)))
    assert "Traceback" not in str(caught.value)


class BusyTokenizer(LengthTokenizer):
    """Keeps a thread in PyTorch's code, where the thread that sends a worker's batches may be."""

    def __init__(self) -> None:
        self.is_busy = False

    def __call__(self, texts: Any) -> Any:
        if not self.is_busy:
            self.is_busy = True
            threading.Thread(target=self.work, daemon=True).start()
        return super().__call__(texts)

    def work(self) -> None:
        square = torch.ones((512, 512))
        while True:
            square @ square


def test_a_worker_ends_in_peace_whatever_its_threads_do(runs, capfd):
    stream = iter(PairLoader(config(runs["tars"], Curated()), BusyTokenizer(), workers=1))
    next(stream)
    stream.close()
    assert capfd.readouterr().err == ""


FAILING = """
import sys
from metacurate.training.loader import PairLoader
from metacurate.training.select import AllTexts, DataConfig
from metacurate.training.shards import ShardsConfig

class Failing:
    def __init__(self):
        self.calls = 0

    def __call__(self, texts):
        self.calls += 1
        if self.calls > 2 and sys.argv[2] == "worker":
            raise ZeroDivisionError("its own fault")
        import torch
        return torch.zeros((len(texts), 1), dtype=torch.int64)

if __name__ == "__main__":
    config = DataConfig(ShardsConfig((sys.argv[1],)), AllTexts(), 24, 16, streams=2)
    for _ in PairLoader(config, Failing(), workers=2):
        if sys.argv[2] == "trainer":
            raise ZeroDivisionError("its own fault")
"""


@pytest.mark.parametrize("where", ["worker", "trainer"])
def test_an_exception_ends_the_run_and_its_workers_with_the_reason(runs, tmp_path, where):
    (tmp_path / "run.py").write_text(FAILING)
    ended = subprocess.run(  # what hangs runs into the time limit
        [sys.executable, str(tmp_path / "run.py"), str(runs["tars"]), where],
        capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "ZeroDivisionError: its own fault" in ended.stderr


LONG = """
import os, sys, time
from pathlib import Path
from metacurate.training.loader import PairLoader
from metacurate.training.select import AllTexts, DataConfig
from metacurate.training.shards import ShardsConfig

class Long:
    def __call__(self, texts):
        Path(sys.argv[2], str(os.getpid())).touch()
        time.sleep(600)

if __name__ == "__main__":
    config = DataConfig(ShardsConfig((sys.argv[1],)), AllTexts(), 24, 16, streams=2)
    next(iter(PairLoader(config, Long(), workers=2)))
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to see processes")
def test_workers_end_with_their_driver_in_the_middle_of_a_chunk(runs, tmp_path):
    (tmp_path / "run.py").write_text(LONG)
    (tmp_path / "workers").mkdir()
    command = [sys.executable, tmp_path / "run.py", runs["tars"], tmp_path / "workers"]
    with subprocess.Popen(command) as driver:
        try:
            wait_for(lambda: len(list((tmp_path / "workers").iterdir())) == 2, driver)
        finally:
            driver.kill()
    workers = [Path("/proc", file.name) for file in (tmp_path / "workers").iterdir()]
    wait_for(lambda: not any(worker.exists() for worker in workers))


def test_a_storage_error_is_tried_again_without_losing_or_repeating_pairs(runs, monkeypatch):
    monkeypatch.setattr(shards.time, "sleep", lambda _: None)
    monkeypatch.setattr(shards, "BATCH_ROWS", 16)
    original = shards.read_samples
    failures = iter([5, 40, 60])

    def flaky(file: Any, counts: Any) -> Iterator[Any]:
        limit = next(failures, None)
        for number, sample in enumerate(original(file, counts)):
            if number == limit:
                raise OSError("connection reset")
            yield sample

    monkeypatch.setattr(shards, "read_samples", flaky)
    pairs = epoch_pairs(PairSource(config(runs["tars"], Curated())), 0)
    assert Counter(p.uid for p in pairs) == Counter(kept_pairs(runs["matched"]).keys())


def test_no_pair_at_all_is_an_error(tmp_path):
    table = pa.table({"url": ["u"], "texts": [["x"]], "image": [b"nothing"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no usable pair.*not_an_image"):
        next(iter(PairLoader(config(tmp_path, AllTexts(), streams=1), LengthTokenizer())))


def test_few_files_with_pairs_are_enough(runs, tmp_path):
    """A stream that misses the one file with pairs by chance does not say that there are none."""
    image = pq.read_table(runs["pool"] / "shard-0.parquet")["image"][0].as_py()
    for number in range(16):
        text = "a dog" if number == 3 else " "
        table = pa.table({"url": [f"{number}"], "texts": [[text]], "image": [image]})
        pq.write_table(table, tmp_path / f"{number:02d}.parquet")
    for seed in range(4):
        few = config(tmp_path, AllTexts(), streams=16, global_batch=16, seed=seed)
        (batch,) = batches(PairLoader(few, LengthTokenizer()), 1)
        assert len({bytes(uid.tolist()) for uid in batch.uids}) == 1


def test_image_paths_are_followed_only_below_the_image_folder(runs, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    image = pq.read_table(runs["pool"] / "shard-0.parquet")["image"][0].as_py()
    (images / "good.png").write_bytes(image)
    (tmp_path / "secret.png").write_bytes(image)
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    paths = ["good.png", "../secret.png", str(tmp_path / "secret.png"), "link.png", "gone.png"]
    table = pa.table(
        {"url": [f"u{i}" for i in range(5)], "texts": [["x"]] * 5, "image_path": paths}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    base = config(tmp_path, AllTexts(), streams=1, global_batch=1)
    with pytest.raises(UserError, match="image_root"):
        PairLoader(base, LengthTokenizer())
    rooted = replace(base, shards=replace(base.shards, image_root=str(images)))
    part = PairLoader(rooted, LengthTokenizer())
    batches(part, 3)
    # Two whole epochs are passed with the third pair.
    assert part.skipped["image_outside_root"] >= 2 * 3
    assert part.skipped["missing_image"] >= 2


def test_open_clips_own_training_loop_runs_on_the_loader(runs):
    from argparse import Namespace

    from metacurate.training.openclip import open_clip

    clip = open_clip()
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg
    from open_clip_train.train import train_one_epoch

    class Tokens:
        def __call__(self, texts: Any) -> Any:
            return torch.tensor([[1, len(t) % 90, 99] for t in texts])

    part = PairLoader(config(runs["matched"], online(runs)), Tokens())
    data = OpenClipBatches(part, (0.5,) * 3, (0.3,) * 3, batches=5)
    model = clip.CLIP(
        16, CLIPVisionCfg(layers=1, width=16, head_width=8, patch_size=4, image_size=8),
        CLIPTextCfg(context_length=3, vocab_size=100, width=16, heads=2, layers=1),
        output_dict=True,
    )  # fmt: skip
    before = model.visual.proj.detach().clone()
    args = Namespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=True,
        horovod=False, grad_clip_norm=None, rank=0, local_rank=0, log_local=False,
        log_every_n_steps=1, world_size=1, batch_size=24, wandb=False,
    )  # fmt: skip
    train_one_epoch(
        model, {"train": Namespace(dataloader=data, set_epoch=lambda epoch: None)},
        clip.ClipLoss(), 0, torch.optim.SGD(model.parameters(), 0.1), None, None, None, args,
    )  # fmt: skip
    assert not torch.equal(model.visual.proj, before)
    assert len(data) == 5
    assert data.num_samples == 120


@pytest.mark.parametrize("side", [40, 224, 900])
@pytest.mark.parametrize("corner", [0.0, 0.5, 0.999])
def test_a_crop_is_what_pillow_makes_of_the_same_box(side, corner):
    noise = np.random.default_rng(side).integers(0, 256, (side // 4, side // 2, 3), np.uint8)
    image = Image.fromarray(noise).resize((2 * side, side), Image.Resampling.BICUBIC)
    # Half of the area, an aspect ratio of 1 (the middle of the log-uniform range).
    found = random_crop(image, 96, (0.5, 0.5), lambda k: corner if k % 4 > 1 else 0.5)
    left = int(corner * (side + 1))
    box = (left, 0, left + side, side)
    expected = np.asarray(image.crop(box).resize((96, 96), Image.Resampling.BICUBIC))
    assert found.dtype == np.uint8
    largest = np.abs(found.astype(int) - expected).max()
    assert largest <= 2


def test_a_crop_of_a_very_long_image_is_its_middle():
    pixels = np.zeros((10, 1000, 3), np.uint8)
    pixels[:, 493:506] = 255
    assert (random_crop(Image.fromarray(pixels), 8, (1.0, 1.0), lambda k: 0.5) == 255).all()
