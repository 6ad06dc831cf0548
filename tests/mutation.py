"""Mutation testing: which small changes of the code does no test notice?

``pip install cosmic-ray``, then for some modules or rooms, and the tests that should notice::

    python tests/mutation.py analysis/diff.py --tests tests/analysis
    python tests/mutation.py kernels/balancing.py --tests tests/curation/test_balancing.py \\
        --sample 50 --seed 1

Each change is one of cosmic-ray's (another comparison, sign or number, ``and`` for ``or``, a
``not``, a loop that is not run, ...) at one place of the code, in a copy of the repository. Places
are tried once each, or ``--sample`` of them drawn by ``--seed``, with one change drawn for each.
The tests run in a process forked for the change: what they import from elsewhere is imported once,
and of compiled code only what was changed is compiled anew. What survives is printed; some of it
changes nothing that matters (a faster way to the same value), the rest wants a test. Not part of
CI.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import contextlib
import difflib
import importlib
import os
import py_compile
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TIMEOUT_SECONDS = 120  # for the tests of one change
# Of these cosmic-ray asks for names, leaves code that cannot mean anything, or fails itself (at an
# exception with a dot in its name).
UNUSED = (
    *("core/VariableInserter", "core/VariableReplacer", "core/RemoveDecorator"),
    "core/ExceptionReplacer",
)
PRELOADED = (
    "pytest", "hypothesis", "numpy", "numba", "pyarrow.compute", "pyarrow.parquet",
    "pyarrow.dataset", "pyarrow.fs", "typer.testing", "rich.console", "fsspec", "orjson",
)  # fmt: skip
FIND_COMPILED = "from metacurate.kernels.cache import FOLDER; print(FOLDER)"


@dataclass(frozen=True)
class Change:
    """A change of a module: ``operator`` at the ``occurrence``-th place where it can be applied."""

    module: str
    line: int
    operator: str
    occurrence: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", help="files or folders below src/metacurate")
    parser.add_argument("--tests", nargs="+", required=True, help="files, folders, pytest options")
    parser.add_argument("--sample", type=int, default=0, help="so many places (0: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--also", nargs="*", default=[],
        help="further modules to import once: none that imports what is changed",
    )  # fmt: skip
    options, more = parser.parse_known_args()
    tests = [*options.tests, *more]
    with tempfile.TemporaryDirectory() as scratch:
        copy = copy_of_repository(Path(scratch))
        sys.path.insert(0, str(copy / "src"))
        os.environ["PYTHONPATH"] = str(copy / "src")
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
        os.chdir(copy)
        for name in (*PRELOADED, *options.also):
            importlib.import_module(name)
        compiled = subprocess.run(
            [sys.executable, "-c", FIND_COMPILED], check=True, capture_output=True, text=True
        ).stdout.strip()
        if not is_passed(tests, compiled, set()):
            raise SystemExit("the tests fail without any change")
        changes = list(chosen(copy, options.modules, options.sample, options.seed))
        survived = 0
        for number, change in enumerate(changes, 1):
            survived += not is_noticed(copy, change, tests, compiled)
            print(f"{number} of {len(changes)}", file=sys.stderr, flush=True)
        print(f"{' '.join(options.modules)}: {len(changes)} changes, {survived} not noticed")


def copy_of_repository(folder: Path) -> Path:
    ignored = shutil.ignore_patterns(".*", "__pycache__", "site")
    copy = Path(shutil.copytree(REPOSITORY, folder / "repository", ignore=ignored))
    # Bytecode that holds while its source has this content: times would tell whole seconds only.
    compileall.compile_dir(
        copy, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
    )
    kernels = Path("src/metacurate/kernels/__pycache__")
    for compiled in (REPOSITORY / kernels).glob("kernels-*"):
        shutil.copytree(compiled, copy / kernels / compiled.name)
    return copy


def chosen(copy: Path, modules: list[str], sample: int, seed: int) -> Iterator[Change]:
    """A change for each place, or for a sample of the places of all modules."""
    root = copy / "src" / "metacurate"
    places: dict[tuple[str, int, int], list[Change]] = defaultdict(list)
    for module in modules:
        path = root / module
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for column, change in changes_of(file, str(file.relative_to(root))):
                places[change.module, change.line, column].append(change)
    generator = random.Random(seed)
    drawn = sorted(places)
    if sample and sample < len(drawn):
        drawn = sorted(generator.sample(drawn, sample))
    print(f"{len(places)} places, {len(drawn)} tried", flush=True)
    for place in drawn:
        yield generator.choice(places[place])


def changes_of(file: Path, module: str) -> Iterator[tuple[int, Change]]:
    """All changes inside of functions, with their columns; annotations are left alone."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    source = file.read_text(encoding="utf-8")
    parsed = ast.parse(source)
    functions = [n for n in ast.walk(parsed) if isinstance(n, ast.FunctionDef)]
    bodies = [(f.body[0].lineno, f.end_lineno or 0) for f in functions]
    annotated = [
        note
        for node in ast.walk(parsed)
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(note, ast.expr)
    ]
    notes = [((n.lineno, n.col_offset), (n.end_lineno, n.end_col_offset)) for n in annotated]
    nodes = list(ast_nodes(get_ast(source)))
    for name in sorted(operator_names()):
        if name in UNUSED:
            continue
        operator = get_operator(name)()
        found = (place for node in nodes for place in operator.mutation_positions(node))
        for occurrence, (start, _) in enumerate(found):
            if any(first <= start[0] <= last for first, last in bodies) and not any(
                first <= start < last for first, last in notes
            ):
                yield start[1], Change(module, start[0], name, occurrence)


def is_noticed(copy: Path, change: Change, tests: list[str], compiled: str) -> bool:
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    path = copy / "src" / "metacurate" / change.module
    source = path.read_text(encoding="utf-8")
    changed = mutate_code(source, get_operator(change.operator)(), change.occurrence)
    stale = users_of(copy, Path(change.module).stem) if "kernels/" in change.module else set()
    try:
        path.write_text(changed, encoding="utf-8")
        noticed = not is_passed(tests, compiled, stale)
    finally:
        path.write_text(source, encoding="utf-8")
    if not noticed:
        lines = difflib.unified_diff(source.splitlines(), changed.splitlines(), n=0, lineterm="")
        shown = "\n".join(list(lines)[3:])
        print(f"{change.module}, line {change.line}, {change.operator}:\n{shown}", flush=True)
    return noticed


def users_of(copy: Path, kernel: str) -> set[str]:
    """A compiled module and those that import it, whose compiled code holds its own."""
    stale, folder = {kernel}, copy / "src" / "metacurate" / "kernels"
    while True:
        names = "|".join(sorted(stale))
        users = {
            path.stem
            for path in folder.glob("*.py")
            if re.search(rf"kernels(\.| import .*\b)({names})\b", path.read_text(encoding="utf-8"))
        }
        if users <= stale:
            return stale
        stale |= users


def is_passed(tests: list[str], compiled: str, stale: set[str]) -> bool:
    """Whether the tests pass in a process of their own; one that does not end has failed."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            os.setsid()
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
                os.dup2(nothing.fileno(), 2)
            importlib.invalidate_caches()
            if stale:
                use_compiled(compiled, stale)
            import pytest

            code = int(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests]))
        os._exit(code)
    end = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        status = 1
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if time.monotonic() >= end:
        os.waitpid(child, 0)
    return status == 0


def use_compiled(folder: str, stale: set[str]) -> None:
    """Take compiled code from where the unchanged code's is, but for the stale modules."""
    from metacurate.kernels import cache

    cache.FOLDER = folder

    class FunctionCache(cache._FunctionCache):
        def load_overload(self, *arguments: object) -> object:
            return None if self.own in stale else super().load_overload(*arguments)

        def save_overload(self, *_: object) -> None:
            pass

        def __init__(self, function: object) -> None:
            super().__init__(function)
            self.own = function.__module__.rpartition(".")[2]  # type: ignore[attr-defined]

    cache._FunctionCache = FunctionCache


if __name__ == "__main__":
    main()
