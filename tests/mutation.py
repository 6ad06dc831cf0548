"""Mutation testing: which small changes of the code does no test notice?

``pip install mutmut``, then for one room or module at a time (all of them take hours)::

    python tests/mutation.py analysis/diff.py tests/analysis
    python tests/mutation.py kernels/balancing.py tests/curation/test_balancing.py

mutmut makes the changes of plain functions, in a copy of the repository. Functions with decorators
it leaves alone, so compiled loops are changed here: one operator or number at a time, each tried in
a process of its own. What survives is printed; some of it changes nothing that matters (a faster
way to the same value), the rest wants a test. Not part of CI.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TIMEOUT = 120  # seconds for the tests of one change
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


def copy_of_repository(folder: Path) -> Path:
    ignored = shutil.ignore_patterns(".*", "__pycache__", "mutants", "site")
    return Path(shutil.copytree(REPOSITORY, folder / "repository", ignore=ignored))


def changes(source: str) -> Iterator[tuple[int, str]]:
    """The line and the whole source of each change in the functions of a module."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        for part in function.body:
            for node in ast.walk(part):
                yield from ((node.lineno, ast.unparse(tree)) for _ in changed(node))


def changed(node: ast.AST) -> Iterator[None]:
    """Change a node in place, in each way in turn; it is as it was after each."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in SWAPPED:
        old = node.op
        node.op = SWAPPED[type(old)]()  # type: ignore[assignment]
        yield
        node.op = old  # type: ignore[assignment]
    elif isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            if type(operator) in SWAPPED:
                node.ops[place] = SWAPPED[type(operator)]()  # type: ignore[call-overload]
                yield
                node.ops[place] = operator
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        value = node.value
        node.value = (not value) if isinstance(value, bool) else value + 1
        yield
        node.value = value
    elif isinstance(node, ast.Continue | ast.Break):
        kind = type(node)
        node.__class__ = ast.Break if kind is ast.Continue else ast.Continue  # type: ignore
        yield
        node.__class__ = kind


def mutate_compiled(module: str, tests: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy = copy_of_repository(Path(scratch))
        path = copy / "src" / "metacurate" / module
        source = path.read_text(encoding="utf-8")
        if not is_passed(copy, tests):
            raise SystemExit(f"the tests of {module} fail without any change")
        old = ast.unparse(ast.parse(source)).splitlines()
        tried = survived = 0
        for line, text in changes(source):
            path.write_text(text, encoding="utf-8")
            tried += 1
            if is_passed(copy, tests):
                survived += 1
                pairs = zip(old, text.splitlines(), strict=True)
                shown = "\n".join(f"- {a}\n+ {b}" for a, b in pairs if a != b)
                print(f"{module}, line {line}:\n{shown}", flush=True)
        print(f"{module}: {tried} changes, {survived} not noticed")


def is_passed(copy: Path, tests: list[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    surroundings = {**os.environ, "PYTHONPATH": str(copy / "src")}
    try:
        ended = subprocess.run(
            command, cwd=copy, env=surroundings, timeout=TIMEOUT, capture_output=True, check=False
        )
    except subprocess.TimeoutExpired:
        return False  # a loop without end is noticed
    return ended.returncode == 0


def mutate_plain(module: str, tests: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        copy = copy_of_repository(Path(scratch))
        settings = copy / "pyproject.toml"
        text = settings.read_text(encoding="utf-8")
        table = tomllib.loads(text)["tool"]["mutmut"]
        table["source_paths"] = [f"src/metacurate/{module}"]
        table["pytest_add_cli_args_test_selection"] = tests
        lines = "".join(f"{key} = {value!r}\n" for key, value in table.items())
        settings.write_text(text.partition("[tool.mutmut]")[0] + "[tool.mutmut]\n" + lines)
        mutmut = [sys.executable, "-m", "mutmut"]
        subprocess.run([*mutmut, "run", "--max-children", "1"], cwd=copy, check=False)
        told = subprocess.run([*mutmut, "results"], cwd=copy, stdout=-1, text=True, check=False)
        states = [line.strip().rpartition(": ")[::2] for line in told.stdout.splitlines()]
        survivors = [name for name, state in states if state in ("survived", "no tests")]
        for name in survivors:
            subprocess.run([*mutmut, "show", name], cwd=copy, check=False)
        left = sum(state == "not checked" for _, state in states)
        print(f"{module}: {len(survivors)} not noticed, {left} not tried")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    is_compiled = sys.argv[1].startswith("kernels/")
    (mutate_compiled if is_compiled else mutate_plain)(sys.argv[1], sys.argv[2:])
