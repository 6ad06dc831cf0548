"""What runs with the packages of every installation, and what names the extra that it needs."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement

from conftest import REPOSITORY, environment
from metacurate.cli import main
from metacurate.errors import UserError
from metacurate.needs import EXTRAS, MissingPackageError, how_to_install, needs, needs_package
from test_licences import installed

POOL = REPOSITORY / "examples" / "emoji" / "openmoji.parquet"

# Python runs this file by its name in every process, also in those that workers are forked from.
SITE = """
import sys
NAMES = frozenset({names!r})
class Absent:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in NAMES:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent)
"""
RUNS = """
import contextlib, io, json, sys
from metacurate.cli import main
from metacurate.errors import UserError
def run(arguments):
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main(arguments)
        except SystemExit as end:
            return end.code or 0, out.getvalue(), error.getvalue()
    return 0, out.getvalue(), error.getvalue()
def load(module):
    try:
        __import__(module)
    except ImportError as error:
        return isinstance(error, UserError), str(error), ""
    return 0, "", ""
if __name__ == "__main__":
    commands, modules = json.load(sys.stdin)
    print(json.dumps([[run(c) for c in commands], [load(m) for m in modules]]))
"""

LEAN = [
    f"curate {POOL} --metadata wordnet --t 10 --out run --workers 2",
    f"match {POOL} --out staged --workers 1",
    "count staged --workers 1",
    "balance staged --t 20 --workers 1",
    "plan run --t 20 --workers 1",
    "inspect text cat --run run",
    "inspect entry cat --run run --workers 1",
    "diff run staged",
    "status run --verify",
    "metadata info run/metadata.parquet",
    f"pool dedup {POOL} --out clean --workers 1",
]
REFUSED = {
    "report run": "report",
    "pool extract a.wat.gz --out refused": "crawl",
    "pool download run --out refused": "images",
    "pool filter run --out refused": "images",
    f"pool language {POOL} --out refused": "languages",
    f"pool language {POOL} --out refused --identifier eldc": "languages",
    "metadata build --wordnet builtin --out refused.json": "metadata",
    f"curate {POOL} --t 10 --out refused --engine ray": "ray",
    "curate s3://bucket/pool --t 10 --out refused": "s3",
    f"curate {POOL} --metadata hf://datasets/a/b.json --t 10 --out refused": "hf",
    "curate https://localhost/a.parquet --t 10 --out refused": "http",
    "train --config a.toml --out refused": "train",
    "eval model --data a": "train",
    "experiment --config a.toml --out refused": "train",
}
MODULES = {
    "metacurate.commoncrawl.extract": "crawl",
    "metacurate.images.download": "images",
    "metacurate.metadata.build": "metadata",
    "metacurate.reporting.build": "report",
    "metacurate.training.trainer": "train",
    "metacurate.evaluation.clip_score": "train",
    "metacurate.evaluation.zero_shot": "train",
}


class Ran(NamedTuple):
    code: int
    out: str
    error: str


class Lean(NamedTuple):
    """What a process said that has the packages of every installation alone, and where it ran."""

    folder: Path
    ran: dict[str, Ran]


def other_modules() -> list[str]:
    """All installed modules that a plain installation does not have."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    core = {plain(name) for name, _ in installed(project["dependencies"])} | {"metacurate"}
    assert {plain(Requirement(line).name) for line in project["dependencies"]} <= core
    found = packages_distributions().items()
    others = {name for name, homes in found if not core & {plain(home) for home in homes}}
    return sorted(others - {*sys.stdlib_module_names})


def in_short(command: str) -> str:
    return command.replace(str(POOL), "POOL")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lean]:
    folder = tmp_path_factory.mktemp("lean")
    blocked = other_modules()
    assert {"PIL", "aiohttp", "fastwarc", "jinja2", "matplotlib", "mwparserfromhell"} < {*blocked}
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE.format(names=blocked))
    (folder / "runs.py").write_text(RUNS)
    commands = [*LEAN, *REFUSED]
    done = subprocess.run(
        [sys.executable, "runs.py"],
        input=json.dumps([[c.split() for c in commands], [*MODULES]]),
        env={
            **environment(),
            "PYTHONPATH": f"{folder / 'site'}:{REPOSITORY / 'src'}",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        cwd=folder, check=True, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    ran, loaded = json.loads(done.stdout.splitlines()[-1])
    assert "\n" not in done.stdout.strip()
    found: dict[str, Any] = dict(zip([*commands, *MODULES], [*ran, *loaded], strict=True))
    return Lean(folder, {name: Ran(*values) for name, values in found.items()})


@pytest.mark.parametrize("command", LEAN, ids=in_short)
def test_it_runs_without_any_extra(lean: Lean, command: str) -> None:
    ran = lean.ran[command]
    assert ran.code == 0, ran.error
    assert ran.out


def test_curate_says_that_no_report_was_written(lean: Lean) -> None:
    ran = lean.ran[LEAN[0]]
    assert ran.error.count("no report was written") == 1
    assert "pip install '.[report]'" in ran.error
    assert "report.html" not in ran.out
    assert not (lean.folder / "run" / "report.html").exists()
    assert (lean.folder / "run" / "datacard.json").exists()


@pytest.mark.parametrize(("command", "extra"), REFUSED.items(), ids=in_short)
def test_a_command_names_the_extra_that_it_needs(lean: Lean, command: str, extra: str) -> None:
    ran = lean.ran[command]
    assert ran.code == 2
    assert ran.out == ""
    assert re.fullmatch(
        rf"metacurate: error: .+ needs the package \w+, which is not installed: "
        rf"{re.escape(how_to_install(extra))}\n",
        ran.error,
    )
    assert not list(lean.folder.glob("refused*"))


@pytest.mark.parametrize(("module", "extra"), MODULES.items())
def test_a_module_names_the_extra_that_it_needs(lean: Lean, module: str, extra: str) -> None:
    is_user_error, message, _ = lean.ran[module]
    assert is_user_error is True
    assert message.endswith(how_to_install(extra))


@pytest.mark.parametrize("extra", EXTRAS)
def test_messages_of_extras(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "absent", None)
    with pytest.raises(MissingPackageError) as caught, needs(extra):
        import absent.part  # noqa: F401
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, ImportError)
    assert f"absent, which is not installed: pip install '.[{extra}]'" in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))  # from a worker
    assert str(copy) == str(caught.value)


def test_packages_of_no_extra_and_broken_ones() -> None:
    with (
        pytest.raises(MissingPackageError, match=r"^x needs the package nowhere, which .*: pip "
                      r"install one two, or do without$"),
        needs_package("one two", "x", otherwise="or do without"),
    ):  # fmt: skip
        import nowhere  # noqa: F401
    with (
        pytest.raises(MissingPackageError, match=r"cannot be loaded \(libGL.so: not there\): pip"),
        needs("safety"),
    ):
        raise ImportError("libGL.so: not there")


def test_a_fault_of_our_own_is_not_a_missing_package() -> None:
    with pytest.raises(ImportError) as caught, needs("train"):
        from metacurate.errors import no_such_name  # noqa: F401
    assert not isinstance(caught.value, UserError)


def test_docs_install_from_the_sources() -> None:
    """While the package is on no index."""
    folders = [REPOSITORY / name for name in ("docs", "examples", "benchmarks")]
    pages = [*REPOSITORY.glob("*.md"), *(page for f in folders for page in f.glob("**/*.md"))]
    assert len(pages) > 20
    wrong = re.compile(r"pip install [^`\n]*(?<![\w./-])metacurate(?![\w./-])")
    assert [p.name for p in pages if wrong.search(p.read_text(encoding="utf-8"))] == []
    assert wrong.search("pip install -q 'metacurate[ray]'")


def test_the_page_tells_of_every_extra() -> None:
    page = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.M))
    assert {*rows} - {"all", "eval"} == {*EXTRAS}


def test_windows_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"metacurate: error: .*Linux and macOS.*WSL.*\n", said.err)
