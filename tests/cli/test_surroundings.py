"""Odd surroundings: impossible paths, hubs that do not answer, terminals that lack characters."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from conftest import command_line, environment
from metacurate.cli import main

Command = Callable[..., Any]
ENTRIES = ["dog", "Hünd", "写真", "\U0001f415"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool, its metadata and two runs, with entries of several scripts."""
    from metacurate import curate

    folder = tmp_path_factory.mktemp("runs")
    rows = [{"url": f"https://a.example/{n}", "text": text}
            for n, text in enumerate(["a dog", "ein Hünd 写真", "写真 \U0001f415"])]  # fmt: skip
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "meta.json").write_text(json.dumps(ENTRIES))
    for name, t in (("one", 1), ("two", 2)):
        curate(str(folder / "pool.jsonl"), str(folder / "meta.json"), str(folder / name), t=t,
               workers=1, report=False)  # fmt: skip
    return folder


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "cp932"])
@pytest.mark.parametrize(
    "command",
    [
        "inspect entry 写真 --run one",
        "inspect text \U0001f415写真Hünd --run one",
        "plan one --t 1",
        "diff one two",
        "status one",
        "metadata info meta.json",
    ],
)
def test_terminals_that_lack_characters(
    command: str, encoding: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    buffer = io.BytesIO()
    terminal = io.TextIOWrapper(buffer, encoding=encoding)
    with redirect_stdout(terminal), pytest.raises(SystemExit) as end:
        main(command.split())
    assert not end.value.code
    terminal.flush()
    shown = buffer.getvalue().decode(encoding)
    assert shown
    if "写真" in command:
        missing = encoding != "cp932"
        assert ("\\u5199\\u771f" if missing else "写真") in shown


def line(run: Any) -> str:
    """The last line on standard error; what was read may be said before it."""
    assert run.returncode == 2
    assert "Traceback" not in run.stderr
    last = run.stderr.splitlines()[-1]
    assert last.startswith("metacurate: error: ")
    return last


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("/proc/nope", "no such file or folder"),
        ("/proc/self/nope/deeper", "no such file or folder"),
        ("x" * 300, "a name is too long"),
        ("circle/out", "links lead in a circle"),
        ("o\udcff", "is not UTF-8"),
        ("/dev/null/x", "a file is where a folder should be"),
    ],
)
def test_outputs_that_cannot_be(
    out: str, said: str, metacurate: Command, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("circle").symlink_to("circle")
    run = metacurate(
        "curate", folder / "pool.jsonl", "-m", folder / "meta.json", "--t", 1, "--out", out
    )
    assert said in line(run)


def test_an_entry_that_is_no_text_is_none(metacurate: Command, folder: Path) -> None:
    run = metacurate("inspect", "entry", "\udcff", "--run", folder / "one")
    assert "the metadata has no entry" in line(run)


@pytest.mark.parametrize(
    "command",
    ["curate hf://datasets/a/b -m META --t 1 --out OUT",
     "pool download hf://datasets/a/b --out OUT", "pool ingest hf://datasets/a/b --out OUT",
     "pool uids hf://datasets/a/b.parquet --out OUT.npy", "status hf://datasets/a/b"],
)  # fmt: skip
def test_a_hub_that_does_not_answer(
    command: str, metacurate: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the package of hf:// addresses")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    hub.HfFileSystem.clear_instance_cache()
    places = {"META": folder / "meta.json", "OUT": tmp_path / "out",
              "OUT.npy": tmp_path / "out.npy"}  # fmt: skip
    run = metacurate(*(places.get(word, word) for word in command.split()))
    hub.HfFileSystem.clear_instance_cache()
    assert "the object store failed" in line(run)


def test_a_file_that_may_not_be_so_large(folder: Path, tmp_path: Path) -> None:
    command = command_line("curate", folder / "pool.jsonl", "-m", folder / "meta.json", "--t", 1,
                           "--no-report", "--workers", 1, "--out", tmp_path / "out")  # fmt: skip
    limited = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *command]
    ended = subprocess.run(limited, capture_output=True, text=True, env=environment(), check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 2)
    assert ended.stderr.splitlines()[1] == (
        "metacurate: error: a file is larger than may be written: raise the limit (ulimit -f), "
        "then run the same command again: it resumes"
    )
