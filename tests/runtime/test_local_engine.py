"""The local engine: its workers, and what they inherit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from metacurate.errors import UserError
from metacurate.runtime.children import without_main
from metacurate.runtime.engine import MAX_DEATHS_PER_TASK
from metacurate.runtime.engines.local import LocalEngine


def square(task: int) -> int:
    return task * task


def variable(task: str) -> str | None:
    return os.environ.get(task)


def process(task: int) -> int:
    del task
    return os.getpid()


def dies(task: Path) -> int:
    """Kill the worker until there were two deaths; then their number."""
    deaths = len(list(task.iterdir()))
    if deaths < MAX_DEATHS_PER_TASK - 1:
        (task / str(deaths)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return deaths


def always_dies(task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_with_their_positions(workers: int) -> None:
    with LocalEngine(workers) as engine:
        assert dict(engine.map_shards(square, range(20))) == {n: n * n for n in range(20)}
        assert dict(engine.map_shards(square, [])) == {}


def test_one_worker_is_this_process() -> None:
    with LocalEngine(1) as engine:
        assert dict(engine.map_shards(process, [0, 1])) == dict.fromkeys((0, 1), os.getpid())
    with LocalEngine(2) as engine:
        assert os.getpid() not in dict(engine.map_shards(process, [0, 1])).values()


def test_workers_have_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that they are forked from is older than the change."""
    for value in ("first", "second"):
        monkeypatch.setenv("METACURATE_TEST", value)
        with LocalEngine(2) as engine:
            found = dict(engine.map_shards(variable, ["METACURATE_TEST"] * 4))
        assert set(found.values()) == {value}
    monkeypatch.delenv("PATH")
    with LocalEngine(2) as engine:
        assert set(dict(engine.map_shards(variable, ["PATH"] * 4)).values()) == {None}


def test_a_task_whose_worker_died_is_tried_again(tmp_path: Path) -> None:
    with LocalEngine(2) as engine:
        deadly, harmless = tmp_path / "deadly", tmp_path / "harmless"
        deadly.mkdir()
        harmless.mkdir()
        for name in "ab":
            (harmless / name).touch()
        assert dict(engine.map_shards(dies, [harmless, deadly])) == {0: 2, 1: 2}


def test_a_task_that_kills_its_workers_ends_the_run() -> None:
    with (
        LocalEngine(2) as engine,
        pytest.raises(UserError, match=f"died {MAX_DEATHS_PER_TASK} times while shard"),
    ):
        list(engine.map_shards(always_dies, range(8)))


WORK = """
import os
import time


def work(seconds):
    os.write(1, b"at work\\n")  # a line is one write: two workers share the pipe
    time.sleep(seconds)
    return seconds
"""

SCRIPT = """
import sys
from metacurate.runtime.engines.local import LocalEngine
from work import work

try:
    with LocalEngine(2) as engine:
        for _ in engine.map_shards(work, [1.0, 60.0]):
            print("done", flush=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_to_the_group_ends_idle_and_busy_workers_quietly(tmp_path: Path) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    (tmp_path / "work.py").write_text(WORK)
    ended = subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, start_new_session=True,
    )  # fmt: skip
    assert ended.stdout is not None
    lines = [ended.stdout.readline().strip() for _ in range(3)]
    assert sorted(lines) == ["at work", "at work", "done"]
    os.killpg(ended.pid, signal.SIGINT)
    _, err = ended.communicate(timeout=30)
    assert ended.returncode == 130
    assert err == ""


CURATION = """
import metacurate as mc
card = mc.curate({pool!r}, ["cat", "dog"], {out!r}, t=1, workers=2)
print(card["kept"]["pairs"])
"""


def test_threads_that_start_processes_at_once_leave_the_main_module() -> None:
    main = sys.modules["__main__"]
    first_leaves, second_is_in = threading.Event(), threading.Event()

    def second() -> None:
        with without_main():
            second_is_in.set()
            first_leaves.wait(10)

    with without_main():
        thread = threading.Thread(target=second)
        thread.start()
        assert not second_is_in.wait(0.2)
    first_leaves.set()
    thread.join()
    assert second_is_in.is_set()
    assert sys.modules["__main__"] is main


@pytest.mark.parametrize("how", ["file", "standard input", "pool worker", "forked"])
def test_scripts_need_no_main_guard(how: str, tmp_path: Path) -> None:
    """A worker that imported the caller's main module would run the script within itself."""
    rows = [{"url": f"https://x.example/{n}", "text": "a cat"} for n in range(30)]
    (tmp_path / "pool").mkdir()
    for part in range(3):
        lines = "".join(json.dumps(row) + "\n" for row in rows[part::3])
        (tmp_path / "pool" / f"{part}.jsonl").write_text(lines)
    (tmp_path / "entries.json").write_text('["cat", "dog"]')
    code = CURATION.format(pool=str(tmp_path / "pool"), out=str(tmp_path / "out"))
    code = code.replace('["cat", "dog"]', repr(str(tmp_path / "entries.json")))
    if how == "pool worker":
        (tmp_path / "task.py").write_text("def run(code):\n    exec(code, {})\n")
        code = (
            "import multiprocessing\nfrom task import run\n"
            f"with multiprocessing.get_context('fork').Pool(1) as p:\n    p.map(run, [{code!r}])\n"
        )
    if how == "forked":  # the child inherits a server that is not its own
        code = (
            "import os\nfrom metacurate.runtime.engines.local import LocalEngine\n"
            "with LocalEngine(2) as engine:\n    list(engine.map_shards(abs, [1, 2]))\n"
            "if child := os.fork():\n"
            "    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n" + code
        )
    script = tmp_path / "script.py"
    script.write_text(code)
    given = code if how == "standard input" else ""
    done = subprocess.run(
        [sys.executable, *([] if given else [str(script)])], input=given, text=True,
        capture_output=True, cwd=tmp_path, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    assert done.stderr == ""
