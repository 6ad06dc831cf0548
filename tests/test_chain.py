"""The whole chain in miniature: pool, match, balance, train 60 steps, evaluate above chance."""

from __future__ import annotations

import json
import math
import shutil
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch", reason="needs the extra metacurate[train]")

from typer.testing import CliRunner

from metacurate.cli import app
from metacurate.errors import UserError
from metacurate.experiments.config import Arm, ExperimentConfig, load_experiment_config
from metacurate.experiments.results import mean_interval
from metacurate.experiments.run import RunTask, _as_name, experiment, train_config
from metacurate.pipeline import curate
from metacurate.runtime.storage import Folder
from metacurate.training.config import from_table
from metacurate.training.select import PairSource
from training_pools import SHAPES, WORDS, write_images, write_pool

STEPS = 60
BATCH = 64
CLASSES = len(WORDS) * len(SHAPES)
IMAGES_A_CLASS = 10
MODEL = """
[model]
name = "metacurate-chain-test"
[model.config]
embed_dim = 32
quick_gelu = true
[model.config.vision_cfg]
image_size = 16
layers = 2
width = 64
head_width = 32
patch_size = 4
[model.config.text_cfg]
context_length = 12
vocab_size = 49408
width = 64
heads = 2
layers = 1
"""


def invoke(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long-tailed pool, metadata, and a test set with as many images of every class."""
    folder = tmp_path_factory.mktemp("chain")
    write_pool(folder / "pool", 2000)
    (folder / "metadata.json").write_text(json.dumps([*WORDS, *SHAPES]))
    names = write_images(folder / "test", IMAGES_A_CLASS)
    groups = {name: "tail" if WORDS.index(name.split()[0]) >= 4 else "head" for name in names}
    (folder / "groups.json").write_text(json.dumps(groups))
    return folder


def test_pool_to_accuracy_above_chance(place):
    card = invoke(
        "curate", str(place / "pool"), "--metadata", str(place / "metadata.json"),
        "--t", "60", "--out", str(place / "run"), "--workers", "1",
    )  # fmt: skip
    assert card["pool"]["pairs"] == 2000
    assert card["matched"]["pairs"] == 1800
    assert card["kept"]["pairs"] < 1000
    config = place / "train.toml"
    config.write_text(
        f"seen_pairs = {STEPS * BATCH}\nglobal_batch = {BATCH}\nthreads = 1\n"
        f'[data]\nshards = "{place / "run" / "curated"}"\n'
        "[optimizer]\nlr = 2e-3\nwarmup_steps = 10\n" + MODEL
    )
    totals = invoke("train", "--config", str(config), "--out", str(place / "model"))
    assert totals["steps"] == STEPS
    report = invoke(
        "eval", str(place / "model"), "--data", str(place / "test"),
        "--groups", str(place / "groups.json"), "--out", str(place / "eval.json"),
    )  # fmt: skip
    result = report["results"][0]
    assert result["images"] == CLASSES * IMAGES_A_CLASS
    assert json.loads((place / "eval.json").read_text()) == report
    # False-alarm rate: a model that knows nothing may still give all images of a class the same
    # answer, so count classes. Are the answers of the 16 drawn one by one (1/16 each), at least 8
    # right ones have a probability of 1.9e-6 (binomial); is every answer given to one class (a
    # model that tells the classes apart but cannot name them), 1.0e-5 (fixed points of a random
    # permutation, Poisson with mean 1 but for 1e-9).
    least = range(CLASSES // 2, CLASSES + 1)
    binomial = sum(
        math.comb(CLASSES, k) * (1 / CLASSES) ** k * (1 - 1 / CLASSES) ** (CLASSES - k)
        for k in least
    )
    fixed_points = sum(math.exp(-1) / math.factorial(k) for k in least)
    assert max(binomial, fixed_points) < 1.1e-5
    assert result["top1"]["value"] >= 0.5
    assert result["groups"]["tail"]["top1"]["n"] == 80


def experiment_toml(place: Path, seen_pairs: int = 256) -> Path:
    path = place / "experiment.toml"
    path.write_text(
        'compare_to = "matched"\nseeds = [0, 1]\n'
        f'[pool]\npaths = "{place / "pool"}"\nmetadata = "{place / "metadata.json"}"\n'
        f"[train]\nseen_pairs = {seen_pairs}\nglobal_batch = {BATCH}\nthreads = 1\n"
        "[optimizer]\nlr = 2e-3\nwarmup_steps = 4\n"
        f'[evaluation]\ndata = "{place / "test"}"\ngroups = "{place / "groups.json"}"\n'
        '[[arms]]\nname = "raw"\nkind = "raw"\n[[arms]]\nname = "matched"\nkind = "matched"\n'
        '[[arms]]\nname = "random"\nkind = "random"\nlike = "t-60"\n'
        '[[arms]]\nname = "t-60"\nkind = "balanced"\nt = 60\n'
        '[[arms]]\nname = "online"\nkind = "balanced"\nt = 60\nonline = true\n' + MODEL
    )
    return path


def test_an_experiment_runs_all_arms_resumes_and_ends_with_the_same_bytes(
    place, tmp_path, monkeypatch
):
    config = experiment_toml(place)
    arms = ["raw", "matched", "random", "t-60", "online"]
    results = invoke("experiment", "--config", str(config), "--out", str(tmp_path / "a"))
    assert list(results["arms"]) == arms
    pairs = {name: arm["pairs"] for name, arm in results["arms"].items()}
    assert pairs["raw"] == [2000, 2000]
    assert pairs["matched"] == [1800, 1800]
    assert pairs["random"] == pairs["t-60"]
    assert pairs["t-60"][0] != pairs["t-60"][1]  # each seed has its own draws
    assert results["arms"]["matched"]["difference"]["top1"]["mean"] == 0
    assert {"top1", "head top1", "tail mean_per_class"} <= results["arms"]["raw"]["scores"].keys()
    with monkeypatch.context() as patch:
        from metacurate.experiments import run as module

        original, runs = module.run_arm, []

        def interrupted(task: Any) -> Any:
            runs.append(task.name)
            if len(runs) == 4:
                raise KeyboardInterrupt
            return original(task)

        patch.setattr(module, "run_arm", interrupted)
        outcome = CliRunner().invoke(
            app, ["experiment", "--config", str(config), "--out", str(tmp_path / "b")]
        )
        assert outcome.exit_code != 0
    assert invoke("experiment", "--config", str(config), "--out", str(tmp_path / "b")) == results
    for name in ("results.json", "results.md", "manifest.json"):
        first, second = ((tmp_path / run / name).read_bytes() for run in "ab")
        assert first.replace(b"/a/", b"/b/") == second, name
    assert (tmp_path / "b" / "results.png").stat().st_size > 5000
    table = (tmp_path / "b" / "results.md").read_text()
    assert "| random | " in table
    assert "chance 6.25%" in table


def test_arms_of_several_languages(place, tmp_path):
    """Each arm trains on what its own curation keeps; class names count in each language."""
    rows = pq.read_table(place / "pool").to_pylist()[:400]
    for lang, mark, part in (("en", "", rows[::2]), ("de", "x", rows[1::2])):
        (tmp_path / "pool").mkdir(exist_ok=True)
        of_lang = [
            {"url": row["url"], "image": row["image"], "lang": lang,
             "text": " ".join(mark + word for word in row["texts"][0].split(" "))}
            for row in part
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(of_lang), tmp_path / "pool" / f"{lang}.parquet")
        (tmp_path / "metadata").mkdir(exist_ok=True)
        entries = [mark + word for word in (*WORDS, *SHAPES)]
        (tmp_path / "metadata" / f"{lang}.json").write_text(json.dumps(entries))
    merged = [*WORDS, *SHAPES, *(f"x{word}" for word in (*WORDS, *SHAPES))]
    (tmp_path / "merged.json").write_text(json.dumps(merged))
    names = (place / "test" / "classnames.txt").read_text().splitlines()
    (tmp_path / "same.txt").write_text("\n".join(names))
    (tmp_path / "moved.txt").write_text("\n".join([*names[1:], names[0]]))
    for number in range(CLASSES):
        (tmp_path / "test" / f"{number:02d}").mkdir(parents=True)
        shutil.copy(place / "test" / f"{number:02d}" / "0.png", tmp_path / "test" / f"{number:02d}")
    pool, folder = tmp_path / "pool", tmp_path / "metadata"
    arms: dict[str, dict[str, Any]] = {
        "english": {"paths": str(pool / "en.parquet")},
        "one-list": {"metadata": str(tmp_path / "merged.json"), "rule": "worldwide"},
        "same": {"p_rule": "same"},
        "german": {"reference": "de", "online": True, "scale": 1.6, "choose_text": "one"},
    }
    config = from_table(
        ExperimentConfig,
        {
            "compare_to": "english", "seeds": [3],
            "pool": {"paths": str(pool), "metadata": str(folder)},
            "model": tomllib.loads(MODEL)["model"], "optimizer": {"warmup_steps": 1},
            "train": {"seen_pairs": 64, "global_batch": 32, "threads": 1},
            "evaluation": {
                "data": str(tmp_path / "test"),
                "class_names": str(tmp_path / "same.txt"),
                "languages": {n: str(tmp_path / f"{n}.txt") for n in ("same", "moved")},
            },
            "arms": [{"name": n, "kind": "balanced", "t": 12, **arms[n]} for n in arms],
        },
        "test",
    )  # fmt: skip
    found = experiment(config, str(tmp_path / "out"))["arms"]
    for name, own in arms.items():
        of = {"paths": str(pool), "metadata": str(folder), **own}
        card = curate(
            of["paths"], of["metadata"], str(tmp_path / "alone" / name), t=12, seed=3, workers=1,
            rule=of.get("rule"), p_rule=of.get("p_rule"), reference=of.get("reference", "en"),
            choose_text=of.get("choose_text", "any"), report=False,
        )  # fmt: skip
        assert found[name]["pairs"] == [card["kept"]["pairs"]]
        scores = {metric: score["mean"] for metric, score in found[name]["scores"].items()}
        assert scores["same top1"] == scores["top1"]
        both = (scores["same top5"] + scores["moved top5"]) / 2
        assert scores["languages top5"] == pytest.approx(both)
    assert len({tuple(arm["pairs"]) for arm in found.values()}) > 2
    seen = {name: arm["seen_pairs"] for name, arm in found.items()}
    assert seen == {**dict.fromkeys(arms, 64), "german": 2 * 48}  # 1.6 x 32 pairs, in eighths
    chosen = "out/curation/arms/german/t-12-seed-3/manifest.json"
    assert '"choose_text": "one"' in (tmp_path / chosen).read_text()
    manifest = (tmp_path / "out/runs/german/seed-3/manifest.json").read_text()
    assert "curation/arms/german/t-12-seed-3" in manifest  # the thresholds of online balancing
    assert "| seen pairs |" in (tmp_path / "out" / "results.md").read_text()


def write_halves(rows: pa.Table, folder: Path) -> None:
    """Write a pool of two files."""
    folder.mkdir()
    half = len(rows) // 2
    for part in range(2):
        pq.write_table(rows.slice(half * part, half), folder / f"{part}.parquet")


def test_scored_arms_have_the_pairs_of_the_highest_scores(place, tmp_path):
    rows = pq.read_table(place / "pool").slice(0, 120)
    given = np.random.default_rng(0).integers(0, 40, len(rows)).astype(float)  # with ties
    given[::10] = np.nan
    rows = rows.append_column("quality", pa.array(given, from_pandas=True))
    write_halves(rows, tmp_path / "pool")
    arms = {
        "raw": {"kind": "raw"},
        "t-12": {"kind": "balanced", "t": 12},
        "like": {"kind": "scored", "like": "t-12"},
        "then": {"kind": "scored", "share": 0.5, "t": 12},
        "own": {"kind": "scored", "share": 0.25, "score": "quality"},
        "above": {"kind": "scored", "above": 30, "score": "quality"},
    }
    config = from_table(
        ExperimentConfig,
        {
            "compare_to": "raw", "seeds": [3], "scorer": "raw",
            "pool": {"paths": str(tmp_path / "pool"), "metadata": str(place / "metadata.json")},
            "model": tomllib.loads(MODEL)["model"], "optimizer": {"warmup_steps": 1},
            "train": {"seen_pairs": 32, "global_batch": 16, "threads": 1},
            "evaluation": {"data": str(place / "test"), "more": {"again": str(place / "test")}},
            "arms": [{"name": name, **arm} for name, arm in arms.items()],
        },
        "test",
    )  # fmt: skip
    out = tmp_path / "out"
    found = experiment(config, str(out))["arms"]
    pairs = {name: arm["pairs"][0] for name, arm in found.items()}
    assert found["own"]["scores"]["again top5"] == found["own"]["scores"]["top5"]

    def urls(folder: Path) -> list[str]:
        return pq.read_table(folder)["url"].to_pylist()

    known = np.flatnonzero(~np.isnan(given))
    best = known[np.argsort(-given[known], kind="stable")[: round(0.25 * len(known))]]
    everyone = np.array(rows["url"].to_pylist())
    assert urls(out / "subsets/own/seed-3/pairs") == everyone[np.sort(best)].tolist()
    assert urls(out / "subsets/above/seed-3/pairs") == everyone[given >= 30].tolist()
    assert pairs["own"] == len(best)
    assert pairs["above"] == np.count_nonzero(given >= 30)

    scored = pq.read_table(out / "scores/seed-3/pairs")
    assert scored.drop_columns("clip_score").equals(rows)
    scores = np.array(scored["clip_score"])
    assert len(set(scores.tolist())) > 100
    assert pairs["like"] == pairs["t-12"]
    best = np.argsort(-scores, kind="stable")[: pairs["like"]]
    assert urls(out / "subsets/like/seed-3/pairs") == everyone[np.sort(best)].tolist()
    card = curate(
        str(out / "subsets/then/seed-3/pairs"), str(place / "metadata.json"),
        str(tmp_path / "then"), t=12, seed=3, workers=1, report=False,
    )  # fmt: skip
    assert (card["pool"]["pairs"], card["kept"]["pairs"]) == (60, pairs["then"])
    # The model that scored is the arm's own, trained once.
    (scorer,) = out.rglob("raw/seed-3/final.pt")
    record = json.loads((out / "scores/seed-3/manifest.json").read_text())["stages"]["scores"]
    assert record["config"]["model"] == str(scorer.parent)


def test_arms_with_a_share_of_the_pool_and_with_mixed_captions(place, tmp_path, monkeypatch):
    """The same seen pairs of pools of two sizes: counts, pairs and texts are those of each."""

    def untrained(task: RunTask) -> dict[str, Any]:
        return {
            "arm": task.arm.name, "seed": task.seed, "pairs": task.pairs, "loss": 0.0,
            "seen_pairs": train_config(task).seen_pairs, "chance": 0.5, "scores": {"top1": 0.0},
        }  # fmt: skip

    monkeypatch.setattr("metacurate.experiments.run.run_arm", untrained)
    rows = pq.read_table(place / "pool").slice(0, 400)
    made = [f"made {i}" if i % 2 else None for i in range(400)]
    rows = rows.append_column("synthetic", pa.array(made))
    write_halves(rows, tmp_path / "pool")
    arms = {
        "whole": {"kind": "matched"},
        "raw-half": {"kind": "raw", "pool_fraction": 0.5},
        "half": {"kind": "balanced", "t": 12, "pool_fraction": 0.5, "captions": {"synthetic": 1}},
        "random-half": {"kind": "random", "like": "half"},
        "fifth": {"kind": "matched", "pool_fraction": 0.2},
    }
    seeds = [3, 4]
    config = from_table(
        ExperimentConfig,
        {
            "compare_to": "whole", "seeds": seeds,
            "pool": {
                "paths": str(tmp_path / "pool"), "metadata": str(place / "metadata.json"),
                "caption_cols": ["synthetic"],
            },
            "model": tomllib.loads(MODEL)["model"], "optimizer": {"warmup_steps": 1},
            "train": {"seen_pairs": 16, "global_batch": 16, "threads": 1},
            "evaluation": {"data": str(place / "test")},
            "arms": [{"name": name, **arm} for name, arm in arms.items()],
        },
        "test",
    )  # fmt: skip
    out = tmp_path / "out"
    found = experiment(config, str(out))["arms"]
    assert {arm["seen_pairs"] for arm in found.values()} == {16}
    assert found["half"]["captions"] == {"synthetic": 1.0}
    assert "captions" not in found["whole"]
    pools = {}
    for share, bound in ((0.5, 5 * math.sqrt(400 * 0.25)), (0.2, 5 * math.sqrt(400 * 0.16))):
        for seed in seeds:
            pool = pq.read_table(out / f"pools/{share}/seed-{seed}/pairs")
            assert pool.schema.equals(rows.schema)
            assert abs(len(pool) - 400 * share) < bound
            pools[share, seed] = set(pool["url"].to_pylist())
    for n, seed in enumerate(seeds):
        assert pools[0.2, seed] < pools[0.5, seed]
        half = out / f"pools/0.5/seed-{seed}/pairs"
        assert found["raw-half"]["pairs"][n] == len(pools[0.5, seed])
        for t, name in ((12, "half"), (math.inf, "fifth")):
            pool = half if name == "half" else out / f"pools/0.2/seed-{seed}/pairs"
            card = curate(
                str(pool), str(place / "metadata.json"), str(tmp_path / f"{name}-{seed}"),
                t=t, seed=seed, workers=1, report=False,
            )  # fmt: skip
            assert found[name]["pairs"][n] == card["kept"]["pairs"]
        assert found["random-half"]["pairs"] == found["half"]["pairs"]
        task = RunTask(config, Folder(str(out)), config.arm("half"), seed)
        source = PairSource(train_config(task).data_config(16))
        texts = [
            pair.text.split(" ")[0]
            for unit in range(source.units)
            for pair in source.unit_pairs(unit, Counter())
        ]
        assert len(texts) == found["half"]["pairs"][n]
        assert 0.3 < texts.count("made") / len(texts) < 0.7  # of half of the pairs
    assert pools[0.5, 3] != pools[0.5, 4]
    # A random arm draws from its source's smaller pool, with draws that are not those of the pool.
    share = train_config(
        RunTask(config, Folder(str(out)), config.arm("random-half"), 3, 0.5)
    ).data_config(16)
    source = PairSource(share)
    taken = sum(len(list(source.unit_pairs(unit, Counter()))) for unit in range(source.units))
    everyone = pq.read_table(out / "curation/pools/0.5/matched-seed-3/curated").num_rows
    assert abs(taken - everyone / 2) < 5 * math.sqrt(everyone / 4)


def test_numbers_that_are_close_have_folders_of_their_own():
    assert [_as_name(value) for value in (20, 20.0, 0.25)] == ["20", "20", "0.25"]
    assert len({_as_name(value) for value in (1234567, 1234568, 0.1234567, 0.1234568)}) == 4


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"name": "a", "kind": "raw", "pool_fraction": 0}, "pool_fraction must lie in"),
        ({"name": "a", "kind": "random", "like": "b", "pool_fraction": 0.5}, "take pool_fraction"),
        ({"name": "a", "kind": "raw", "paths": "b", "pool_fraction": 0.5}, "take pool_fraction"),
        ({"name": "a", "kind": "raw", "captions": {"alt": 2}}, "the share of 'alt' must lie in"),
        ({"name": "a", "kind": "best"}, "kind must be one of"),
        ({"name": "a", "kind": "balanced"}, "balanced arms need t"),
        ({"name": "a", "kind": "random"}, "random arms need like"),
        ({"name": "../a", "kind": "raw"}, "name may have"),
        ({"name": "a", "kind": "raw", "online": True}, "only balanced arms"),
        ({"name": "a", "kind": "matched", "p_rule": "same"}, "only balanced arms take p_rule"),
        ({"name": "a", "kind": "balanced", "t": 1, "p_rule": "best"}, "nearest"),
        ({"name": "a", "kind": "balanced", "t": 1, "choose_text": "all"}, "choose_text"),
        ({"name": "a", "kind": "raw", "choose_text": "one"}, "choose_text"),
        ({"name": "a", "kind": "matched", "rule": "v9"}, "v9"),
        ({"name": "a", "kind": "raw", "scale": 0}, "scale must be positive"),
        ({"name": "a", "kind": "random", "like": "b", "metadata": "m"}, "take metadata"),
        ({"name": "a", "kind": "scored"}, "one of share, above and like"),
        ({"name": "a", "kind": "scored", "share": 0.3, "above": 1}, "one of share, above and like"),
        ({"name": "a", "kind": "scored", "share": 30}, "share must lie in"),
        ({"name": "a", "kind": "raw", "share": 0.3}, "only scored arms take"),
    ],
)
def test_mistakes_in_arms_are_named(arm, message):
    with pytest.raises(UserError, match=message):
        from_table(Arm, arm, "file.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("/test", "/no-test", "no folder .*no-test"),
        ("groups.json", "no.json", "there is no file .*no.json"),
        ("width = 64", "width = 65", "cannot be built"),
        ("global_batch = 64", "global_batch = 60", "must divide global_batch"),
        ("/pool", "/no-pool", "no-pool"),
        ("/metadata.json", "/no.json", "no.json"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(place, tmp_path, old, new, message):
    path = experiment_toml(place)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        experiment(load_experiment_config(str(path)), str(tmp_path))
    assert not (tmp_path / "runs").exists()


def test_an_arm_that_is_not_there_is_named(place):
    config = load_experiment_config(str(experiment_toml(place)))
    with pytest.raises(UserError, match="no arm named 'best'"):
        ExperimentConfig(**{**vars(config), "compare_to": "best"})


def test_intervals_over_seeds_are_students():
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval["mean"] == 2
    assert interval["high"] == pytest.approx(2 + 4.303 / math.sqrt(3))
    assert mean_interval([1.0])["low"] is None


EXAMPLES = Path(__file__).parent.parent / "examples"
SHIPPED = sorted([*EXAMPLES.glob("*_experiment/*.toml"), *EXAMPLES.glob("openclipart/*.toml")])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_shipped_experiments_are_valid(path):
    config = load_experiment_config(str(path))
    kinds = {arm.kind for arm in config.arms}
    one = path.parent.name != "worldwide_experiment"
    scored = {"scored"} if config.scorer else set()
    assert kinds == ({"raw", "matched", "random", "balanced"} | scored if one else {"balanced"})
    assert len(config.evaluation.languages) == (0 if one else 5)
    assert len(config.seeds) >= 3


def test_texts_of_the_worldwide_experiment():
    """Each concept has a name of its own in each language, so that class names differ."""
    rows = pq.read_table(EXAMPLES / "worldwide_experiment" / "texts.parquet").to_pylist()
    art = pq.read_table(EXAMPLES / "emoji_experiment/art/noto.parquet", columns=["emoji"])
    for language in ("en", "zh", "ar", "de", "ja", "ko"):
        of = [row for row in rows if row["lang"] == language]
        assert [row["emoji"] for row in of] == art["emoji"].to_pylist()
        assert len({row["name"] for row in of}) == len(of)
        assert all(row["keywords"] for row in of)
