"""Files for schedulers and packagers (docs/orchestration.md): what they say of metacurate is so."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from command_lines import check
from conftest import REPOSITORY
from metacurate.version import __version__

FILES = REPOSITORY / "examples" / "orchestration"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# Airflow.


class Failed(Exception):
    """Airflow's AirflowFailException."""


def run_dag(monkeypatch: pytest.MonkeyPatch, answer: Callable[[list[str]], Any]) -> dict[str, Any]:
    """Run the DAG with stand-ins: tasks are called at once, commands are answered.

    Returns what it was declared with.
    """
    declared: dict[str, Any] = {}

    def dag(**settings: Any) -> Any:
        declared.update(settings)
        return lambda function: function

    def task(function: Any) -> Any:
        takes = function.__code__.co_varnames[: function.__code__.co_argcount]

        def call(*given: Any, **named: Any) -> Any:
            context = {"params": declared["params"]} if "params" in takes else {}
            free = [name for name in takes if name not in context]
            return function(**context, **dict(zip(free, given, strict=False)), **named)

        return call

    modules = {
        name: ModuleType(name) for name in ("airflow", "airflow.sdk", "airflow.sdk.exceptions")
    }
    monkeypatch.setattr(modules["airflow.sdk"], "dag", dag, raising=False)
    monkeypatch.setattr(modules["airflow.sdk"], "task", task, raising=False)
    exceptions = modules["airflow.sdk.exceptions"]
    monkeypatch.setattr(exceptions, "AirflowFailException", Failed, raising=False)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        result = answer(words)
        code = result if isinstance(result, int) else 0
        return subprocess.CompletedProcess(words, code, json.dumps(result, indent=1))

    monkeypatch.setattr(subprocess, "run", run)
    code = (FILES / "airflow_dag.py").read_text(encoding="utf-8")
    exec(compile(code, "airflow_dag.py", "exec"), {"__name__": "airflow_dag"})
    return declared


def test_the_dag_gives_commands_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def answer(words: list[str]) -> Any:
        assert words[0] == "metacurate"
        given.append((words[1:], check(words[1:])))
        return (
            {"out": words[words.index("--out") + 1], "kept": {"pairs": 3}}
            if "--out" in words
            else {}
        )

    declared = run_dag(monkeypatch, answer)
    params = declared["params"]
    assert [words[0] for words, _ in given] == ["pool", "curate", "card"]
    assert all(values["as_json"] for _, values in given)
    first, second, third = (values for _, values in given)
    assert first["pool"] == [params["pool"]]
    assert second["pool"] == [f"{first['out']}/pool"]
    assert (second["metadata"], second["t"]) == (params["metadata"], params["t"])
    assert third["run_folder"] == second["out"]
    assert declared["default_args"]["retries"] > 0


@pytest.mark.parametrize(
    ("result", "error"),
    [(2, subprocess.CalledProcessError), (3, Failed), ({"out": "o", "kept": {"pairs": 0}}, Failed)],
)
def test_the_dag_tells_failures_apart(
    result: Any, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry resumes; what a retry cannot change is not retried."""
    with pytest.raises(error):
        run_dag(monkeypatch, lambda words: result)


# DVC.


def test_the_stages_of_dvc_give_commands_that_there_are() -> None:
    parameters = yaml.safe_load((FILES / "params.yaml").read_text(encoding="utf-8"))
    text = (FILES / "dvc.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\$\{(\w+)\}", lambda found: str(parameters[found[1]]), text)
    stages = yaml.safe_load(text)["stages"]
    made: list[str] = []
    for stage in stages.values():
        words = shlex.split(stage["cmd"])
        assert words.pop(0) == "metacurate"
        if ">" in words:
            assert list(stage["metrics"][0]) == words[words.index(">") + 1 :]
            del words[words.index(">") :]
            assert "--json" in words
        values = check(words)
        assert values["overwrite"]  # else another parameter would be refused
        [(out, settings)] = stage["outs"][0].items()
        assert values["out"] == out
        assert settings["persist"]  # else nothing resumes
        assert stage["deps"] == [made[-1] if made else parameters["pool"]]
        assert str(values["pool"][0]).startswith(stage["deps"][0])
        made.append(out)
    named = set(stages["curate"]["params"]) | {"pool"}
    assert named == set(parameters)


# Docker.


def instructions(path: Path) -> list[tuple[str, str]]:
    lines = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.M)
    joined = lines.replace("\\\n", " ").splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined if line.strip()]


def test_the_image_is_made_of_what_there_is() -> None:
    found = instructions(REPOSITORY / "Dockerfile")
    values = {name: text for name, text in found if name in ("ARG", "ENTRYPOINT", "CMD", "USER")}
    extras = values["ARG"].removeprefix("EXTRAS=").split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    check_words = [*json.loads(values["ENTRYPOINT"]), *json.loads(values["CMD"])]
    assert check_words == [*PROJECT["scripts"], "--help"]
    assert not values["USER"].startswith(("root", "0"))
    versions = {line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python ::" in line}
    for name, text in found:
        if name == "FROM":
            base = re.match(r"python:([\d.]+)-slim", text)
            assert base is not None
            assert base[1] in versions
    # What the build takes is let through, and all that the wheel's build reads is taken.
    copied = [w for n, t in found if n == "COPY" and "--from" not in t for w in t.split()[:-1]]
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    for name in copied:
        assert (REPOSITORY / name).exists()
        assert f"!{name}" in ignored
    read = {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]}
    assert {name.split("/")[0] for name in read} <= set(copied)


# conda.

ON_CONDA_FORGE = {"isal": "python-isal", "xxhash": "python-xxhash"}  # else named as on PyPI


def test_the_recipe_requires_what_the_project_does() -> None:
    text = (FILES / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    assert recipe["context"]["version"] == __version__
    wanted = {f"python {PROJECT['requires-python']}"}
    for requirement in PROJECT["dependencies"]:
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
        wanted.add(f"{ON_CONDA_FORGE.get(name, name)} {bounds}")
    assert set(recipe["requirements"]["run"]) == wanted
    scripts = [f"{name} = {target}" for name, target in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == scripts
    assert recipe["about"]["license_file"] == PROJECT["license-files"]
    assert recipe["about"]["license"] == PROJECT["license"]
    source = FILES / "conda" / recipe["source"]["path"]
    assert (source / "pyproject.toml").samefile(REPOSITORY / "pyproject.toml")
    for step in recipe["tests"][1]["script"]:
        words = shlex.split(step)[1:]
        assert words == ["--version"] or words[-1] == "--help"
