"""``--help`` of every command: option names whole at any width, options in groups, plain words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from metacurate.cli import app
from metacurate.cli.help import GROUPS, OTHERS, group_of, sections

Command = Callable[..., Any]


def every(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands and groups of commands, by the words that call them."""
    yield path, command
    for name, nested in getattr(command, "commands", {}).items():
        yield from every(nested, (*path, name))


ALL = {" ".join(path) or "metacurate": (path, command) for path, command in every(get_command(app))}


def page(name: str, columns: int) -> str:
    path, _ = ALL[name]
    shown = CliRunner().invoke(
        app, [*path, "--help"], env={"COLUMNS": str(columns), "TERM": "dumb"}
    )
    assert shown.exit_code == 0
    return shown.output


@pytest.mark.parametrize("columns", [50, 80, 200])
@pytest.mark.parametrize("name", sorted(ALL))
def test_names_are_whole(name: str, columns: int) -> None:
    shown = page(name, columns)
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= min(columns, 100)
    _, command = ALL[name]
    begins = [line for line in shown.splitlines() if re.match(r"  \S", line)]
    for option in command.params:
        if option.param_type_name == "option":
            names = [*option.opts, *option.secondary_opts]
            line = [b for b in begins if names[-1] in re.split(r"[\s,]+", b.strip())]
            assert line, names
            assert all(other in re.split(r"[\s,]+", line[0].strip()) for other in names)
    for nested in getattr(command, "commands", {}):
        assert any(line.split()[0] == nested for line in begins)


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_option_is_in_a_group(name: str) -> None:
    """One without a group is to be named in GROUPS of cli/help.py."""
    path, command = ALL[name]
    options = [p.name for p in command.params if p.param_type_name == "option"]
    assert [option for option in options if group_of(option, list(path)) is None] == []


def test_no_name_is_in_two_groups_and_none_is_left_over() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert len(named) == len(set(named))
    assert OTHERS not in GROUPS
    taken = {"help"} | {
        wanted
        for path, command in ALL.values()
        for option in command.params
        for wanted in (option.name, " ".join([*path, option.name]))
    }
    assert set(named) <= taken


@pytest.mark.parametrize(
    ("command", "option", "group", "said"),
    [
        ("curate", "--t NUMBER", "Threshold", None),
        ("curate", "--workers NUMBER", "Engine", "at least 1"),
        ("curate", "--report / --no-report", "Output", "default: report"),
        ("curate", "-m, --metadata M", "Input", "default: wordnet"),
        ("curate", "--counts FILE", "Threshold", None),
        ("plan", "--counts C", "Input", None),
        ("curate", "--rule RULE", "Matching", "else v1"),
        ("pool download", "--min-success NUMBER", "Requests", "default: one image; 0 to 1"),
        ("metadata build", "--min-count NUMBER", "Entries", "100; worldwide: 1; at least 1"),
        ("metadata build", "--unigram-share NUMBER", "Entries", "default: all; worldwide: 0.1"),
    ],
)  # fmt: skip
def test_groups_and_words(command: str, option: str, group: str, said: str | None) -> None:
    import typer

    path, found = ALL[command]
    root = typer.Context(ALL["metacurate"][1], info_name="metacurate")
    context = typer.Context(found, info_name=" ".join(path), parent=root)
    told = dict(sections(found, context)[group])[option]
    if said is not None:
        assert told.endswith(f"{said}]")
        assert "(" not in told.rpartition("[")[2]
    assert "x>=" not in told


@pytest.mark.parametrize("words", [(), ("pool",), ("metadata",), ("inspect",)])
def test_a_group_without_a_command_shows_its_help(
    words: tuple[str, ...], metacurate: Command
) -> None:
    shown = metacurate(*words)
    assert shown.stdout.count("Usage: ") == 1
    assert "\nCommands\n" in shown.stdout
