"""Numbers of runs in Weights & Biases (offline) and MLflow (in a folder), by their own packages."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import metacurate as mc
from conftest import Command
from curation_pools import ENTRIES, fails, make_pairs
from metacurate.images.download import _metrics
from metacurate.needs import how_to_install
from metacurate.runtime import tracking as module
from metacurate.runtime.tracking import MAX_TEXT, TABLE_ROWS, Trackers, tracking

COLUMNS = mc.PoolConfig(text_cols=("alt", "title"))


@pytest.fixture(scope="module")
def pairs() -> pa.Table:
    return make_pairs(400)


def records(file: Path) -> Iterator[Any]:
    """What an offline run of wandb left: protocol buffers in LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def in_wandb(folder: Path) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """The last values, the settings, and whether the run ended well."""
    import wandb

    wandb.teardown()  # what it writes is on disk
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    values, settings, code = {}, {}, None
    for record in records(file):
        for item in record.history.item:
            values["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        for item in [*record.run.config.update, *record.config.update]:
            settings["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
        if record.HasField("exit"):
            code = record.exit.exit_code
    return values, settings, code == 0


def mlflow_runs(folder: Path) -> Any:
    import mlflow

    client = mlflow.MlflowClient((folder / "mlruns").as_uri())
    return client.search_runs([client.get_experiment_by_name("pairs").experiment_id])


def in_mlflow(folder: Path) -> tuple[dict[str, Any], dict[str, Any], bool]:
    (run,) = mlflow_runs(folder)
    return run.data.metrics, run.data.params, run.info.status == "FINISHED"


READ = {"wandb": in_wandb, "mlflow": in_mlflow}


@pytest.fixture(params=READ)
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip(request.param, reason=f"needs {request.param}")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return request.param


def test_curation_in_a_tracker(tracker: str, pairs: pa.Table, tmp_path: Path) -> None:
    log_to = [f"{tracker}:pairs"]
    run = mc.curate(pairs, ENTRIES, tmp_path / "run", t=50, pool_config=COLUMNS, workers=1,
                    report=False, log_to=log_to)  # fmt: skip
    values, settings, is_well = READ[tracker](tmp_path)
    assert is_well
    assert values["match/pairs"] == run.pool["pairs"]
    assert values["match/match_counts"] == run.matched["match_counts"]
    assert values["match/texts_per_second"] > 0
    assert values["balance/pairs_kept"] == run.kept["pairs"]
    assert values["balance/pairs_expected"] == pytest.approx(run.kept["pairs_expected"])
    assert (float(settings["balance/t"]), settings["match/rule"]) == (50, "v1")
    assert settings["run/out"] == str(tmp_path / "run")
    # The bytes of a run do not depend on who is told of it.
    without = mc.curate(pairs, ENTRIES, tmp_path / "without", t=50, pool_config=COLUMNS, workers=1,
                        report=False)  # fmt: skip
    assert without.to_arrow().equals(run.to_arrow())


def test_settings_that_change(
    tracker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A stage that runs twice, as the arms of an experiment do: the tracker goes on."""
    with caplog.at_level("INFO"), tracking([f"{tracker}:pairs"], out="x") as opened:
        for t in (50, 50, 20, 50, 70):
            opened.settings("balance", {"t": t, "choose_text": "any"})
        opened.log({"done": 1.0})
    values, settings, is_well = READ[tracker](tmp_path)
    assert is_well
    assert values["done"] == 1
    assert not [line for line in caplog.messages if "gets nothing more" in line]
    told = [line for line in caplog.messages if "balance/t (50, now 20)" in line]
    if tracker == "wandb":  # has the latest itself
        assert settings["balance/t"] == 70
        return
    assert (settings["balance/t"], settings["balance/choose_text"]) == ("50", "any")
    assert len(told) == 1
    assert "the latest is the tag" in told[0]
    (run,) = mlflow_runs(tmp_path)
    assert run.data.tags["balance/t"] == "70"
    assert "balance/choose_text" not in run.data.tags


@pytest.mark.parametrize("tracker", ["mlflow"], indirect=True)
def test_a_run_that_fails_has_failed(tracker: str, pairs: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(mc.UserError, match="matches a metadata entry"):
        mc.curate(pairs, ["nowhere"], t=1, workers=1, pool_config=COLUMNS,
                  log_to=(f"{tracker}:pairs",))  # fmt: skip
    _, _, is_well = READ[tracker](tmp_path)
    assert not is_well


def test_downloads_have_img2datasets_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that its own logger sends, with the same values."""
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    found = importlib.util.find_spec("img2dataset")
    if found is None or found.origin is None:
        pytest.skip("needs the package img2dataset (--no-deps)")
    path = Path(found.origin).with_name("logger.py")
    spec = importlib.util.spec_from_file_location("img2dataset_logger", path)
    assert spec is not None
    assert spec.loader is not None
    logger = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(logger)
    sent: list[dict[str, float]] = []
    monkeypatch.setattr(wandb, "log", sent.append)
    speed = logger.SpeedLogger("total", enable_wandb=True)
    speed(count=40, success=25, failed_to_download=10, failed_to_resize=5, start_time=3, end_time=7)
    speed.sync()
    done = {"count": 40, "successes": 25, "failed_to_download": 10, "failed_to_resize": 5}
    assert _metrics(done, 40 / 4) == sent[-1]


class Recorded:
    """A tracker that keeps what it gets, and fails when told to."""

    def __init__(self, name: str | None) -> None:
        if name == "absent":
            raise ConnectionError("no server")
        self.name = name
        self.got: list[tuple[Any, ...]] = []
        MADE.append(self)

    def settings(self, values: Any) -> None:
        self.got.append(("settings", values))

    def log(self, metrics: Any, step: int | None) -> None:
        if self.name == "broken":
            raise ConnectionError("the server\nis gone")
        self.got.append(("log", metrics))

    def table(self, name: str, counts: Any) -> None:
        self.got.append(("table", name, counts))

    def finish(self, failed: bool) -> None:
        self.got.append(("finish", failed))


MADE: list[Recorded] = []


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    MADE.clear()
    monkeypatch.setitem(module._KINDS, "recorded", Recorded)
    return MADE


def test_a_tracker_that_fails_ends_no_run(
    made: list[Recorded], pairs: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run = mc.curate(pairs, ENTRIES, t=50, pool_config=COLUMNS, workers=1,
                        log_to=["recorded:broken", "recorded:whole"])  # fmt: skip
    assert run.kept["pairs"] > 0
    assert "recorded:broken gets nothing more of this run: the server" in caplog.messages
    broken, whole = made
    assert broken.got[-1] == ("finish", True)
    assert whole.got[-1] == ("finish", False)
    assert sum(kind == "log" for kind, *_ in whole.got) >= 8


def test_two_projects_of_wandb_have_a_run_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    of_caller = wandb.init(project="of-the-caller")
    with tracking(["wandb:a", "wandb:b"]):
        pass
    of_caller.log({"goes on": 1})
    of_caller.finish()
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 3


def test_what_is_sent_is_short_and_plain(made: list[Recorded]) -> None:
    """Counts by reason are tables; no file, list or long text of the settings is sent."""
    with tracking(["recorded"], out="x") as opened:
        opened.settings("s", {"a": 1, "b": {"c": "short", "/private/x.parquet": "9f"}, "d": [1],
                              "e": "x" * 1000, "f": None, "g": True})  # fmt: skip
        counts = {f"reason {n}": n for n in range(500)}
        opened.totals("s", {"rows": 5, "t": 0.5, "skipped": counts, "empty": {}, "said": "x",
                            "labels": {"x" * 10_000: 2, "\x1b[2J": 1},
                            "languages": {"en": {"t": 2.0, "texts": 3}}})  # fmt: skip
    (shorter, _) = made[0].got[-2][2]
    assert len(shorter) < 2 * MAX_TEXT
    assert made[0].got == [
        ("settings", {"run/out": "x"}),
        ("settings", {"s/a": 1, "s/b/c": "short", "s/g": True}),
        ("log", {"s/rows": 5, "s/t": 0.5, "s/languages/en/t": 2.0, "s/languages/en/texts": 3}),
        ("table", "s/skipped", {f"reason {n}": n for n in range(499, 499 - TABLE_ROWS, -1)}),
        ("table", "s/labels", {shorter: 2, "\\x1b[2J": 1}),
        ("finish", False),
    ]
    assert not Trackers({})


def test_one_that_does_not_start_ends_those_that_did(made: list[Recorded]) -> None:
    given = ["recorded:a", "recorded:a", "recorded:absent"]
    with pytest.raises(mc.UserError, match="it does not start: no server"), tracking(given):
        pass
    assert [tracker.got for tracker in made] == [[("finish", True)]]
    unknown = ["recorded:b", "tensorboard"]
    with pytest.raises(mc.UserError, match="takes wandb:PROJECT"), tracking(unknown):
        pass
    assert len(made) == 1


def dedup(folder: Path, log_to: str) -> tuple[object, ...]:
    (folder / "pool.csv").write_text("url,text\nhttp://a/1,a cat\n")
    return ("pool", "dedup", folder / "pool.csv", "--out", folder / "out", "--log-to", log_to)


@pytest.mark.parametrize("given", ["tensorboard", "", "Wandb:x"])
def test_unknown_trackers(given: str, metacurate: Command, tmp_path: Path) -> None:
    fails(metacurate(*dedup(tmp_path, given)),
          "--log-to takes wandb:PROJECT or mlflow:EXPERIMENT")  # fmt: skip
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", READ)
def test_a_tracker_that_is_not_installed(
    name: str, metacurate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    said = f"--log-to {name} needs the package {name}, which is not installed"
    fails(metacurate(*dedup(tmp_path, f"{name}:x")), said, how_to_install(name))
