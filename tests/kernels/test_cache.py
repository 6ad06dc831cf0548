"""Compiled code on disk: up to date whatever file was edited, never a reason to fail."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import metacurate
from metacurate.kernels.cache import KEPT_FOLDERS

PACKAGE = Path(metacurate.__file__).parent
COPIED = ("errors.py", "beside.py", "kernels/__init__.py", "kernels/cache.py", "kernels/bytes.py")
OTHERS = {"metacurate.beside", "metacurate.errors"}
CALLER = """
from metacurate.kernels.bytes import is_space
from metacurate.kernels.cache import njit

@njit()
def blanks(first, count):
    found = first - first
    for i in range(count):
        if is_space(first + i):
            found += 1
    return found
"""
# Counts white space from "!" (33) and 9 (tab) on; a float tells which signature's code ran.
PROGRAM = """
from metacurate.kernels import cache, caller
print({calls}, sum(caller.blanks.stats.cache_hits.values()), cache.FOLDER)
"""
INTEGER, FLOAT = "caller.blanks(9, 6)", "caller.blanks(9.0, 6)"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's cache and byte helpers, with a caller of ``bytes.is_space``."""
    package = tmp_path / "site" / "metacurate"
    (package / "kernels").mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in COPIED:
        shutil.copy(PACKAGE / name, package / name)
    (package / "kernels" / "caller.py").write_text(CALLER)
    return package


def run(package: Path, calls: str = INTEGER, **environment: str) -> list[str]:
    """Run a program with a copy; what it returned, how often from the cache, and the folder."""
    places = {"XDG_CACHE_HOME": str(package.parents[1] / "user"), "NUMBA_CACHE_DIR": ""}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(calls=calls)],
        env={**os.environ, "PYTHONPATH": str(package.parent), **places, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def files(folder: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in Path(folder).iterdir()}


@pytest.mark.parametrize("setting", ["BOUNDSCHECK", "DEBUGINFO", "OPT", "SLP_VECTORIZE"])
def test_code_of_other_settings_is_kept_apart(setting: str, package: Path) -> None:
    usual = run(package)
    other = run(package, **{f"NUMBA_{setting}": "1"})
    assert other[0] == usual[0]
    assert other[1] == "0"
    assert other[2] != usual[2]
    assert run(package)[1:] == ["1", usual[2]]


def test_an_edit_of_a_called_function_is_seen(package: Path) -> None:
    assert run(package)[0] == "5"
    callee = package / "kernels" / "bytes.py"
    source = callee.read_text()
    edited = source.replace("byte == 32 or 9 <= byte <= 13", "byte == 9 or byte == 14")
    assert edited != source
    callee.write_text(edited)
    assert run(package)[0] == "2"
    callee.write_text(source)
    assert run(package)[:2] == ["5", "1"]


def test_a_second_run_compiles_nothing(package: Path) -> None:
    *first, folder = run(package)
    assert first == ["5", "0"]
    assert Path(folder).parent == package / "kernels" / "__pycache__"
    before = files(folder)
    assert run(package) == ["5", "1", folder]
    assert files(folder) == before


@pytest.mark.parametrize("place", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME"])
def test_other_places(package: Path, tmp_path: Path, place: str) -> None:
    if place == "XDG_CACHE_HOME":  # nothing can be written beside the sources
        (package / "kernels" / "__pycache__").touch()
    for hits in ("0", "1"):
        *printed, folder = run(package, **{place: str(tmp_path / "place")})
        assert printed == ["5", hits]
        assert Path(folder).parent == tmp_path / "place" / "metacurate"


def test_no_place_at_all(package: Path) -> None:
    (package / "kernels" / "__pycache__").touch()
    for _ in range(2):
        assert run(package, HOME="/proc/nope", XDG_CACHE_HOME="") == ["5", "0", "None"]


@pytest.mark.parametrize(("suffix", "content"), [("nbi", b""), ("nbc", b"\x80\x04nonsense")])
def test_damaged_files_are_renewed(package: Path, suffix: str, content: bytes) -> None:
    folder = Path(run(package)[2])
    for path in folder.glob(f"*.{suffix}"):
        path.write_bytes(content)
    assert run(package)[:2] == ["5", "0"]
    assert run(package)[:2] == ["5", "1"]


def test_old_folders_are_removed(package: Path) -> None:
    parent = package / "kernels" / "__pycache__"
    for age in range(KEPT_FOLDERS + 4):
        (parent / f"kernels-{age}").mkdir(parents=True)
        os.utime(parent / f"kernels-{age}", (10**9 - age, 10**9 - age))
    (parent / "other").mkdir()
    new = Path(run(package)[2])
    kept = {f"kernels-{age}" for age in range(KEPT_FOLDERS - 1)}
    assert {path.name for path in parent.iterdir() if path.is_dir()} == {*kept, "other", new.name}


def test_two_processes_at_once_mix_no_signatures(package: Path) -> None:
    """The second knows nothing of the first's file, and the first's index is written last."""
    folder = Path(run(package, INTEGER)[2])
    (index,) = folder.glob("caller.blanks*.nbi")
    first = index.read_bytes()
    index.unlink()
    assert run(package, FLOAT)[0] == "5.0"
    index.write_bytes(first)
    assert run(package, INTEGER)[:2] == ["5", "1"]
    assert run(package, FLOAT)[:2] == ["5.0", "0"]


def test_without_a_compiler_there_is_one_line() -> None:
    command = "curate pool --metadata entries.json --t 1 --out out"
    done = subprocess.run(
        [sys.executable, "-m", "metacurate", *command.split()],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "NUMBA_DISABLE_JIT" in line


def test_the_cache_knows_all_sources() -> None:
    """Kernels call nothing of other folders, and no other folder compiles anything."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        modules = {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        modules |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        if path.parent.name == "kernels":
            ours = {m for m in modules if m.startswith("metacurate")} - OTHERS
            assert all(m.startswith("metacurate.kernels") for m in ours), path
        elif path.name != "beside.py":  # which imports, and compiles nothing
            assert not any(m.startswith("numba") for m in modules), path
