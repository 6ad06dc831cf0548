"""The house as its files have it: who imports whom, how long each room is, what each file is for.

``python tests/architecture.py`` writes the tree of docs/architecture.md again.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
TREE = re.compile(r"(?<=<!-- tree -->\n```text\n).*?(?=```\n<!-- /tree -->)", re.S)
FLOORS = re.compile(r"<!-- floors -->\n```text\n(.*?)```\n<!-- /floors -->", re.S)
TOP = "metacurate"  # the package's own names, above all rooms


@dataclass(frozen=True)
class Module:
    """A module: its dotted name, its path and its syntax."""

    name: str
    path: Path
    tree: ast.Module
    lines: int

    @property
    def room(self) -> str:
        """The folder or the file directly below the package."""
        return self.name.split(".")[1] if "." in self.name else TOP

    @property
    def purpose(self) -> str:
        """The first line of its docstring."""
        return (ast.get_docstring(self.tree) or "").split("\n")[0]


@dataclass(frozen=True, order=True)
class Arrow:
    """That a module names another, in an import (also one inside a function) or in a string."""

    source: str
    target: str
    line: int

    def __str__(self) -> str:
        return f"{self.source}:{self.line} -> {self.target}"


def read_modules(source: Path = SOURCE) -> dict[str, Module]:
    """All modules of the package by name."""
    modules = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        modules[name] = Module(name, path, ast.parse(text), text.count("\n"))
    return modules


def arrows(modules: dict[str, Module]) -> Iterator[Arrow]:
    """Who names whom; a module that names itself or the folders that it is in is left out."""
    for module in modules.values():
        found = {
            Arrow(module.name, target, line)
            for target, line in _named(module, modules)
            if not f"{module.name}.".startswith(f"{target}.")
        }
        yield from sorted(found)


PLUGINS = "metacurate.plugins"


def _named(module: Module, modules: dict[str, Module]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            assert node.level == 0, f"{module.name}:{node.lineno} imports relatively"
            full = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in modules else base for name in full]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # The names of entry point groups are those of rooms; nothing is imported by them.
            names = [] if module.name == PLUGINS else [node.value]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name in modules)


def floors(page: str) -> dict[str, int]:
    """The height of each room: docs/architecture.md lists them from the top down."""
    found = FLOORS.search(page)
    assert found is not None
    lines = [line.split() for line in found[1].splitlines()]
    return {room: len(lines) - number for number, line in enumerate(lines) for room in line}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of nodes that reach one another (Tarjan), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for following in edges.get(node, ()):
            if following not in index:
                visit(following)
                low[node] = min(low[node], low[following])
            elif following in stack:
                low[node] = min(low[node], index[following])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[-len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def tree(modules: dict[str, Module], heights: dict[str, int]) -> str:
    """The rooms from the top down with a line a file."""
    lines = []
    rooms = sorted({m.room for m in modules.values()}, key=lambda r: (-heights.get(r, 0), r))
    for room in rooms:
        of_room = [m for m in modules.values() if m.room == room]
        for module in sorted(of_room, key=lambda m: (m.path.parent, m.path.name)):
            place = module.path.relative_to(SOURCE / TOP)
            depth = len(place.parts) - 1
            if place.name == "__init__.py" and room != TOP:
                shown = f"{'  ' * (depth - 1)}{place.parts[-2]}/"
            else:
                shown = f"{'  ' * depth}{place.name}"
            lines.append(f"{shown:<24} {module.purpose}".rstrip())
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Write the tree into docs/architecture.md."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(TREE.sub(lambda _: tree(read_modules(), floors(page)), page), encoding="utf-8")


if __name__ == "__main__":
    main()
