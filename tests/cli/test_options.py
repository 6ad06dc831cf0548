"""What all commands share: options from a file, and which of them wins."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from conftest import REPOSITORY
from metacurate.cli import app
from metacurate.cli.options import totals_rows

Command = Callable[..., Any]


def test_totals_are_shown_in_words() -> None:
    totals = {"pairs_kept": 12345, "share": 0.123456, "files": ["a", "b"], "skipped": {"no_url": 2}}
    assert totals_rows(totals) == [
        ("pairs kept", "12,345"), ("share", "0.1235"), ("files", "a, b"), ("skipped: no_url", "2"),
    ]  # fmt: skip


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"link": f"https://x.example/{n}", "text": "a cat", "words": "a dog"} for n in range(9)]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "entries.json").write_text('["cat", "dog"]')
    return path


def settings(metacurate: Command, pool: Path, toml: str | bytes, *options: str) -> dict[str, Any]:
    """What the data card says of the balancing and the columns, or the error's line."""
    (pool.parent / "run.toml").write_bytes(toml.encode() if isinstance(toml, str) else toml)
    run = metacurate("curate", pool, "-m", "entries.json", "--config", "run.toml", "--no-report",
                     "--workers", 1, "--out", "out", "--json", *options)  # fmt: skip
    if run.returncode:
        assert run.returncode == 2
        return {"error": run.stderr.strip()}
    card = json.loads(run.stdout)
    match = json.loads((pool.parent / "out" / "manifest.json").read_text())["stages"]["match"]
    return {**card["balancing"]["settings"], "columns": match["config"]["columns"]}


@pytest.mark.parametrize(
    ("toml", "options", "found"),
    [
        ("t = 5", (), {"t": 5.0}),
        ("t = 5", ("--p", "0.5"), {"p": 0.5}),
        ("p = 0.5", ("--target-size", "4"), {"target_size": 4}),
        ("t = 5", ("--t", "3"), {"t": 3.0}),
        ("t = 5\nseed = 7", ("--p", "0.5"), {"p": 0.5, "seed": 7}),
        (b"\xef\xbb\xbft = 5", (), {"t": 5.0}),
        ("t = inf", (), {"t": "inf"}),
    ],
)
def test_the_command_line_wins_over_the_file(
    toml: str | bytes, options: tuple[str, ...], found: dict[str, Any],
    metacurate: Command, pool: Path,
) -> None:  # fmt: skip
    got = settings(metacurate, pool, toml, *options)
    aims = {name: value for name, value in got.items() if name in ("t", "p", "target_size")}
    assert aims == {name: value for name, value in found.items() if name != "seed"}
    assert got["seed"] == found.get("seed", 0)


@pytest.mark.parametrize("columns", ['"words"', '["words"]'])
def test_one_value_of_a_repeatable_option_needs_no_list(
    columns: str, metacurate: Command, pool: Path
) -> None:
    got = settings(metacurate, pool, f"t = 5\ntext-col = {columns}")
    assert "text from 'words'" in got["columns"]


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("t = true", "run.toml: t takes a value, not true"),
        ("overwrite = 3", "run.toml: overwrite takes true or false, not 3"),
        ("threshold = 3", "run.toml sets unknown options: threshold; known are"),
        ("t = ", "run.toml is no valid TOML"),
        (b"t = 5 # \xff", "run.toml is no UTF-8 text"),
        ("t = 5\np = 0.5", "exactly one of"),
    ],
)
def test_mistakes_in_the_file_are_one_line(
    toml: str | bytes, said: str, metacurate: Command, pool: Path
) -> None:
    error = settings(metacurate, pool, toml)["error"]
    assert said in error
    assert "\n" not in error


def test_the_file_may_be_anywhere(metacurate: Command, pool: Path) -> None:
    import fsspec

    with fsspec.open("memory://settings/run.toml", "wb") as file:
        file.write(b"t = 5")
    run = metacurate("curate", pool, "-m", "entries.json", "--config", "memory://settings/run.toml",
                     "--no-report", "--workers", 1, "--out", "out", "--json")  # fmt: skip
    assert json.loads(run.stdout)["balancing"]["settings"]["t"] == 5.0
    run = metacurate("curate", pool, "--config", "nosuch.toml", "--out", "out")
    assert (run.returncode, run.stderr) == (
        2, "metacurate: error: there is no configuration file nosuch.toml\n",
    )  # fmt: skip


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """All commands by name, with their options."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), {o for p in command.params for o in p.opts}


# They look at little, or train, which has ways of its own to use several machines.
ON_ONE_MACHINE = {
    "status", "diff", "inspect text", "pool survival", "metadata merge", "metadata info",
    "train", "eval", "experiment", "card", "export",
}  # fmt: skip
COMMANDS = dict(commands(get_command(app)))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_that_runs_shards_takes_an_engine(command: str) -> None:
    run = {"--engine", "--address", "--workers"} & COMMANDS[command]
    if command in ON_ONE_MACHINE:
        assert "--engine" not in run
    else:
        assert len(run) == 3


@pytest.mark.parametrize("name", ["download", "match", "curate"])
def test_an_engine_that_there_is_not_is_one_line(
    name: str, metacurate: Command, pool: Path
) -> None:
    words = {"match": ("-m", "entries.json"), "curate": ("-m", "entries.json", "--t", 1)}
    before = ("pool", name) if name == "download" else (name,)
    run = metacurate(*before, pool, *words.get(name, ()), "--engine", "spark", "--out", "out")
    assert run.returncode == 2
    assert "no engine 'spark'" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("stage", "shown"),
    [
        (("done", 4, 4, 90, None, None), "done, 4 of 4 shards, 90 s ago"),
        (("done", 4, 4, None, None, None), "done, 4 of 4 shards"),
        (("running", 1000, 0, 130, None, None), "running, 0 of 1,000 shards, begun 2 min ago"),
        (
            ("running", 1000, 200, 4, 12.345, 3888.6),
            "running, 200 of 1,000 shards, 12.3 a minute, some 65 min left, the newest 4 s ago",
        ),
        (
            ("stopped", 10, 2, 7205, 12.0, None),
            "stopped, 2 of 10 shards, 2 h ago, the same command again resumes",
        ),
        (("stale", 10, 0, 200_000, None, None), "stale, 0 of 10 shards, 2 days ago"),
    ],
)
def test_status_in_words(stage: tuple[Any, ...], shown: str) -> None:
    from metacurate.cli.curation import _progress
    from metacurate.runtime.manifest import Progress

    assert _progress(asdict(Progress(*stage))) == shown


def test_progress_counts_in_words_that_users_know() -> None:
    """No key of the statistics (``pairs_matched``): each call of run_stage, meter and the like."""
    words = {"texts", "pairs", "matches", "rows", "samples", "images", "URLs", "pages", "entries",
             "articles", "words", "candidates", "lines", "titles", "seen pairs"}  # fmt: skip
    found = set()
    for path in (REPOSITORY / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                place = {"run_stage": None, "meter": 2, "_stage": 5, "stage": 3}.get(name, -1)
                given = [k.value for k in node.keywords if k.arg == "unit" and place != -1]
                if place not in (None, -1):
                    given += node.args[place : place + 1]
                found |= {one.value for one in given if isinstance(one, ast.Constant)}
    assert found <= words
    assert {"matches", "images", "lines", "rows"} <= found  # of each kind of call
