"""``tests/run``, the one way to set up and run the tests, with stand-ins for the system's tools."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from conftest import LONGEST, REPOSITORY

ALL = ["chromium", "debian-handbook", "fonts-dejavu-core", "gimp-help-en", "libgl1", "wordnet-base"]

# What each tool does: it notes its arguments; packages live in a file.
TOOLS = {
    "id": 'echo "$FAKE_UID"',
    "dpkg-query": 'grep -qx "${@: -1}" "$FAKE/packages" && echo "install ok installed"',
    "apt-get": (
        'echo "apt-get $*" >>"$FAKE/log"; [ -z "${FAKE_APT_FAILS:-}" ] || exit 100\n'
        'if [ "$1" = install ]; then for name; do echo "$name" >>"$FAKE/packages"; done; fi'
    ),
    "python3": (
        'echo "python $*" >>"$FAKE/log"; case "$1 $2" in\n'
        '  "-m venv") mkdir -p "$3/bin"; ln -s "$0" "$3/bin/python" ;;\n'
        '  "-m pip") [ -z "${FAKE_PIP_FAILS:-}" ] ;;\n'
        '  "-m pytest") echo "3 passed" ;;\n'
        "esac"
    ),
}


class Machine:
    """A machine with made-up packages, on which a copy of ``tests/run`` runs."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        (self.tree / "tests").mkdir(parents=True)
        shutil.copy(REPOSITORY / "tests/run", self.tree / "tests/run")
        shutil.copy(REPOSITORY / "pyproject.toml", self.tree)
        self.folder = folder / "fake"
        (self.folder / "bin").mkdir(parents=True)
        for name, body in TOOLS.items():
            tool = self.folder / "bin" / name
            tool.write_text(f"#!/usr/bin/env bash\n{body}\n")
            tool.chmod(0o755)
        self.install([])

    def install(self, packages: list[str]) -> None:
        (self.folder / "packages").write_text("".join(f"{name}\n" for name in packages))

    def run(self, *options: str, uid: int, **variables: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "log").write_text("")
        return subprocess.run(
            [self.tree / "tests/run", *options],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "FAKE": str(self.folder),
                "FAKE_UID": str(uid),
                **variables,
            },
        )

    @property
    def log(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_root_installs_what_is_missing(machine: Machine) -> None:
    machine.install(["chromium", "libgl1"])
    done = machine.run(uid=0)
    assert done.returncode == 0, done.stderr
    [install] = [line for line in machine.log if line.startswith("apt-get install")]
    wanted = sorted(set(ALL) - {"chromium", "libgl1"})
    assert install.split()[-len(wanted) :] == wanted
    assert "skipped" not in done.stdout
    assert done.stdout.splitlines()[-1] == "3 passed"


@pytest.mark.parametrize(("uid", "apt_fails"), [(1000, ""), (0, "yes")], ids=["user", "no-network"])
def test_what_cannot_be_installed_is_named_and_the_tests_run(
    machine: Machine, uid: int, apt_fails: str
) -> None:
    machine.install([name for name in ALL if name != "wordnet-base"])
    done = machine.run("-k", "x", uid=uid, FAKE_APT_FAILS=apt_fails)
    assert done.returncode == 0
    assert "  wordnet-base: real sentences" in done.stdout
    assert "chromium" not in done.stdout
    assert any(line.startswith("apt-get") for line in machine.log) == (uid == 0)
    assert machine.log[-1].startswith("python -m pytest ")
    assert machine.log[-1].endswith(" -k x")


def test_installs_again_only_what_changed(machine: Machine) -> None:
    machine.install(ALL)

    def installed() -> bool:
        return any(line.startswith("python -m pip install") for line in machine.log)

    assert machine.run(uid=1000, FAKE_PIP_FAILS="yes").returncode != 0
    machine.run(uid=1000)
    assert installed()  # what failed is not taken for done
    machine.run(uid=1000)
    assert not installed()
    with (machine.tree / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    machine.run(uid=1000)
    assert installed()
    machine.run("--venv", "other", "--setup", uid=1000)
    assert installed()
    assert (machine.tree / "other/bin/python").exists()
    assert not any("pytest" in line for line in machine.log)


def test_readme_and_ci_run_the_same_script() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert "<!-- test -->\n```sh\ntests/run\n```\n" in readme
    ci = (REPOSITORY / ".ci/run").read_text(encoding="utf-8")
    assert ci.splitlines()[-1] == 'exec tests/run --venv "$venv"'
    assert "rm -rf .venv" not in ci


@pytest.mark.parametrize("name", LONGEST)
def test_the_longest_files_are_there(name: str) -> None:
    assert (REPOSITORY / "tests" / name).is_file()


def test_the_version_is_in_one_place() -> None:
    from metacurate.version import __version__

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/metacurate/version.py"
    elsewhere = ["README.md", "CITATION.cff", "CONTRIBUTING.md"]
    for name in elsewhere:
        assert __version__ not in (REPOSITORY / name).read_text(encoding="utf-8"), name
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert (REPOSITORY / "src/metacurate/py.typed").exists()


def test_the_makefile_has_what_contributing_names() -> None:
    targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.M)
    named = re.findall(r"`make (\w+)", (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert named
    assert set(named) <= set(targets)
    for path in re.findall(r"tests/\w+(?:/\w+)*(?:\.py)?", (REPOSITORY / "Makefile").read_text()):
        assert (REPOSITORY / path).exists(), path
