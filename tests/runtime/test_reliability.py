"""Reliability under fire: kill -9 at many points, lost permissions, two runs at once, orphans."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from conftest import Command, command_line, digests, environment, wait_for
from curation_pools import ENTRIES, fails, make_pairs
from killed_runs import Warm
from metacurate.runtime.engines.threads import MOST_THREADS

NOBODY = 65534
Runner = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that other users may enter too (pytest's own are closed to them)."""
    folder = Path(tempfile.mkdtemp(prefix="metacurate-reliability-"))
    folder.chmod(0o777)
    (folder / "pool").mkdir()
    table = make_pairs(900)
    for i in range(3):
        pq.write_table(table.slice(300 * i, 300), folder / "pool" / f"{i}.parquet")
    (folder / "metadata.json").write_text(json.dumps(ENTRIES))
    yield folder
    shutil.rmtree(folder)


def curate(place: Path, out: str, *options: object, report: bool = False) -> list[str]:
    """The arguments of a run in this process alone; three shards a stage."""
    arguments = (
        "curate", place / "pool", "-m", place / "metadata.json", "--workers", 1,
        "--out", place / out, *(options or ("--text-col", "alt", "--target-size", 200)),
        "--report" if report else "--no-report",
    )  # fmt: skip
    return list(map(str, arguments))


@pytest.fixture(scope="module")
def run(place: Path) -> Iterator[Runner]:
    """Runs commands in forks of one warm process: ``run(arguments, event=17)``."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork, which this system does not have")
    with Warm(place) as warm:
        assert warm(curate(place, "warm", report=True), here=True)["code"] == 0
        yield warm


def stage_under_way(out: Path) -> str:
    try:
        stages = json.loads((out / "manifest.json").read_text())["stages"]
    except FileNotFoundError:
        return "start"
    return next((n for n in ("match", "count", "balance", "card") if not is_done(stages, n)), "end")


def is_done(stages: dict[str, Any], name: str) -> bool:
    return name in stages and stages[name]["state"] == "done"


def test_killed_at_50_points_of_all_stages(place: Path, run: Runner) -> None:
    """Killed between or within file-system operations, at every third point twice."""
    undisturbed = run(curate(place, "undisturbed"))
    assert undisturbed["code"] == 0
    expected = digests(place / "undisturbed")
    rng = random.Random(4)
    killed: Counter[str] = Counter()
    for number, point in enumerate(rng.sample(range(1, undisturbed["events"] + 1), 50)):
        arguments = curate(place, "killed")
        assert run(arguments, event=point)["code"] == -signal.SIGKILL
        killed[stage_under_way(place / "killed")] += 1
        if number % 3 == 0:
            run(arguments, event=rng.randrange(1, 60))
        resumed = run(arguments)
        assert resumed["code"] == 0, (point, resumed["stderr"])
        assert digests(place / "killed") == expected, f"killed at event {point}"
        shutil.rmtree(place / "killed")
    assert min(killed[stage] for stage in ("match", "count", "balance", "card")) >= 3, killed
    assert killed.total() == 50


def test_killed_while_the_report_is_written(place: Path, run: Runner) -> None:
    before = run(curate(place, "without"))["events"]
    whole = run(curate(place, "reported", report=True))
    assert whole["code"] == 0
    expected = digests(place / "reported")
    assert "report.html" in expected
    for point in random.Random(7).sample(range(before + 1, whole["events"] + 1), 3):
        shutil.rmtree(place / "reported")
        arguments = curate(place, "reported", report=True)
        assert run(arguments, event=point)["code"] == -signal.SIGKILL
        assert run(arguments)["code"] == 0
        assert digests(place / "reported") == expected


def test_killed_at_random_times(place: Path, run: Runner) -> None:
    arguments = curate(place, "timed")
    durations = []
    for _ in range(3):
        durations.append(run(arguments)["seconds"])
        expected = digests(place / "timed")
        shutil.rmtree(place / "timed")
    rng = random.Random(5)
    codes: Counter[int] = Counter()
    for _ in range(15):
        seconds = rng.uniform(0, 0.75 * min(durations))  # some runs are faster than these were
        codes[run(arguments, seconds=seconds)["code"]] += 1
        assert run(arguments)["code"] == 0
        assert digests(place / "timed") == expected, f"killed after {seconds} s"
        shutil.rmtree(place / "timed")
    assert codes[-signal.SIGKILL] >= 8, codes


def test_killed_while_overwriting(place: Path, run: Runner) -> None:
    """Old results never end up in the new run, wherever their removal stopped."""
    old, new = ("--text-col", "alt", "--t", 40), ("--text-col", "title", "--t", 20, "--overwrite")
    assert run(curate(place, "old", *old))["code"] == 0
    assert run(curate(place, "new", *new))["code"] == 0
    expected = digests(place / "new")
    shutil.copytree(place / "old", place / "over")
    events = run(curate(place, "over", *new))["events"]
    assert digests(place / "over") == expected
    for point in random.Random(6).sample(range(1, events + 1), 15):
        shutil.rmtree(place / "over")
        shutil.copytree(place / "old", place / "over")
        assert run(curate(place, "over", *new), event=point)["code"] == -signal.SIGKILL
        assert run(curate(place, "over", *new))["code"] == 0
        assert digests(place / "over") == expected, f"killed at event {point}"


def test_permission_lost_in_the_middle(place: Path, run: Runner) -> None:
    """As a user for whom modes count (for root they do not)."""
    user = {"user": NOBODY} if os.getuid() == 0 else {}
    arguments = curate(place, "locked")
    undisturbed = run(arguments, **user)
    assert undisturbed["code"] == 0, undisturbed["stderr"]
    expected = digests(place / "locked")
    for part in (1, 3, 5, 7, 9):
        shutil.rmtree(place / "locked")
        point = undisturbed["events"] * part // 10
        lost = run(arguments, event=point, read_only=str(place / "locked"), **user)
        assert lost["code"] == 2, lost
        last = lost["stderr"].strip().splitlines()[-1]
        assert "permission denied: check the owner and mode" in last
        assert str(place / "locked") in last
        assert "then run the same command again: it resumes" in last
        assert "Traceback" not in lost["stderr"]
        still = run(arguments, **user)
        assert still["code"] == 2
        assert "permission denied" in still["stderr"]
        for folder, _, _ in os.walk(place / "locked"):
            Path(folder).chmod(0o755)
        assert run(arguments, **user)["code"] == 0
        assert digests(place / "locked") == expected


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command_line(*arguments),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_second_process_is_refused(metacurate: Command, place: Path) -> None:
    arguments = curate(place, "shared")
    first = start(arguments)
    try:
        lock = place / "shared" / ".lock-holder"
        wait_for(lambda: lock.exists() and lock.read_text(), first)
        first.send_signal(signal.SIGSTOP)
        fails(metacurate(*arguments), f"in use by process {first.pid} on ", "another output folder")
        fails(metacurate("count", place / "shared"), f"in use by process {first.pid} on ")
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait(60) == 0
    assert metacurate(*arguments).returncode == 0


def living(group: int) -> list[int]:
    """The processes of a group that are not dead yet."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see processes")
def test_workers_end_with_their_driver(place: Path) -> None:
    """Kill -9 of the driver alone: its workers must not write to the folder any more."""
    arguments = curate(
        place, "orphans", "--text-col", "alt", "--t", 40, "--workers", MOST_THREADS + 1
    )
    driver = start(arguments)
    state = place / "orphans" / "state" / "match"
    wait_for(lambda: list(state.glob("part-*.json")), driver)
    driver.send_signal(signal.SIGSTOP)  # so that it does not end before it is looked at
    assert len(living(driver.pid)) >= 3
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 20
    while living(driver.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
