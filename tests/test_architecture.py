"""The order of the house: no arrow upwards, no circle, no room too large, a line for every file."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from architecture import PAGE, SOURCE, TREE, Arrow, arrows, circles, floors, read_modules, tree
from metacurate.needs import EXTRAS

MODULES = read_modules()
HEIGHTS = floors(PAGE.read_text(encoding="utf-8"))


def upwards(found: list[Arrow], room: dict[str, str], heights: dict[str, int]) -> list[str]:
    """The arrows that do not lead to a lower floor, those within a room left out."""
    return [
        str(arrow)
        for arrow in found
        if room[arrow.source] != room[arrow.target]
        and heights[room[arrow.target]] >= heights[room[arrow.source]]
    ]


def test_every_room_has_a_floor() -> None:
    assert {module.room for module in MODULES.values()} == set(HEIGHTS)


def test_arrows_lead_down() -> None:
    rooms = {name: module.room for name, module in MODULES.items()}
    assert upwards(list(arrows(MODULES)), rooms, HEIGHTS) == []


def test_no_circles_among_files() -> None:
    edges: dict[str, set[str]] = {name: set() for name in MODULES}
    for arrow in arrows(MODULES):
        edges[arrow.source].add(arrow.target)
    assert circles(edges) == []


def test_no_room_is_larger_than_a_tenth() -> None:
    lines: Counter[str] = Counter()
    for module in MODULES.values():
        lines[module.room] += module.lines
    assert {room: n for room, n in lines.items() if n > lines.total() / 10} == {}


def test_every_file_says_what_it_is_for() -> None:
    assert [name for name, module in MODULES.items() if not module.purpose] == []
    page = PAGE.read_text(encoding="utf-8")
    shown = TREE.search(page)
    assert shown is not None
    assert shown[0] == tree(MODULES, HEIGHTS), "run python tests/architecture.py"


def test_files_that_the_page_names_exist() -> None:
    page = TREE.sub("", PAGE.read_text(encoding="utf-8"))
    named = re.findall(r"`((?:\w+/)*\w+\.py)`", page)
    assert len(named) > 20
    places = (SOURCE / "metacurate", SOURCE.parent)
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    assert missing == []


# The formats of pools open Arrow's own files; all else goes by ``runtime/arrowfiles.py``, which
# keeps Arrow's threads away from Python.
ARROW_READERS = {f"metacurate.{name}" for name in ("runtime.arrowfiles", "formats.arrow")}
ARROW_READERS |= {"metacurate.formats.parquet"}
OPENING = {"pq.ParquetFile", "pq.read_table", "pa.ipc.open_file", "pa.ipc.open_stream"}
READING = {"iter_batches", "read_row_group", "read_row_groups"}


def test_arrow_reads_files_in_one_way() -> None:
    read = 0
    for name, module in MODULES.items():
        for call in (node for node in ast.walk(module.tree) if isinstance(node, ast.Call)):
            where = f"{name}:{call.lineno}"
            if name not in ARROW_READERS:
                assert ast.unparse(call.func) not in OPENING, f"{where}: use runtime.arrowfiles"
            if isinstance(call.func, ast.Attribute) and call.func.attr in READING:
                read += 1
                given = {k.arg: ast.unparse(k.value) for k in call.keywords}
                assert given.get("use_threads") == "False", f"{where}: needs use_threads=False"
    assert read > 5


# The checks above see what they are to see.


def declared() -> dict[str, set[str]]:
    """The packages of each extra, with those of the extras that it joins; of all users as ''."""
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text())["project"]
    extras = {"": project["dependencies"], **project["optional-dependencies"]}

    def packages(extra: str) -> set[str]:
        found = set()
        for line in extras[extra]:
            name, *joined = re.split(r"[\[\],]", line)
            if name == "metacurate":
                found |= {package for other in joined if other for package in packages(other)}
            else:
                found.add(canonical(re.split(r"[<>=~!; ]", name)[0]))
        return found

    return {extra: packages(extra) for extra in extras}


def imports(node: ast.AST, guard: str = "") -> Iterator[tuple[str, str]]:
    """The modules that a file imports at run time, and the extra or packages that it needs them of.

    That is what the ``needs`` or ``needs_package`` around the import says.
    """
    for child in ast.iter_child_nodes(node):
        inside = guard
        if isinstance(child, ast.With):
            for item in child.items:
                call = item.context_expr
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "needs":
                    inside = ast.literal_eval(call.args[0])
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "needs_package":
                    inside = f"package {ast.unparse(call.args[0])}"
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((name.name.partition(".")[0], guard) for name in child.names)
        elif isinstance(child, ast.ImportFrom) and not child.level:
            yield (child.module or "").partition(".")[0], guard
        else:
            yield from imports(child, inside)


def test_what_is_imported_is_a_dependency() -> None:
    """What curate can do without is imported where one line says which extra has it.

    Another package's dependency is there today, and not on the next machine.
    """
    packages, homes, wrong = declared(), packages_distributions(), set()
    for path in SOURCE.rglob("*.py"):
        for name, guard in imports(ast.parse(path.read_text(encoding="utf-8"))):
            known = {canonical(home) for home in homes.get(name, ())} | PARTS.get(name, set())
            if name in sys.stdlib_module_names or name in ("metacurate", *NEWER):
                continue
            if guard == f"package {name!r}" or known & packages[""]:
                continue
            if guard not in packages or not known & packages[guard]:
                wrong.add(f"{path.name}: {name} within needs({guard!r})")
    assert wrong == set()


def test_all_joins_what_users_need() -> None:
    packages = declared()
    assert {*packages} - {"", "all", "bench", "docs", "eval", "lint", "test"} == {*EXTRAS}
    # Of trackers a user has one, if any.
    joined = {*EXTRAS} - {"mlflow", "wandb"}
    assert packages["all"] == {package for extra in joined for package in packages[extra]}
    assert packages["all"] < packages["test"]


def canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


# What declared packages give out as their own.
PARTS = {
    "llvmlite": {"numba"},
    "markupsafe": {"jinja2"},
    "torchvision": {"open-clip-torch"},
    "yarl": {"aiohttp"},
}
# The standard library's from Python 3.14 on.
NEWER = ("compression",)


@pytest.fixture
def small_house(tmp_path: Path) -> Path:
    files = {
        "__init__.py": "",
        "low.py": "def f():\n    from metacurate.high import thing\n",
        "beside.py": "from metacurate.low import f\n",
        "high/__init__.py": "PRELOADED = 'metacurate.top'\n",
        "high/thing.py": "import metacurate.high.other\n",
        "high/other.py": "from metacurate.high import thing\n",
        "top.py": "from metacurate.low import f\nfrom metacurate import high\n",
    }
    for name, text in files.items():
        path = tmp_path / "metacurate" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_small_house(small_house: Path) -> None:
    modules = read_modules(small_house)
    found = list(arrows(modules))
    heights = floors("<!-- floors -->\n```text\ntop\nhigh\nlow beside\n```\n<!-- /floors -->")
    rooms = {name: module.room for name, module in modules.items()}
    assert upwards(found, rooms, heights) == [
        "metacurate.beside:1 -> metacurate.low",
        "metacurate.high:1 -> metacurate.top",
        "metacurate.low:2 -> metacurate.high.thing",
    ]
    edges: dict[str, set[str]] = {name: set() for name in modules}
    for arrow in found:
        edges[arrow.source].add(arrow.target)
    assert ["metacurate.high.other", "metacurate.high.thing"] in circles(edges)


def test_circles() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d"}}) == [
        ["d", "e"],
        ["a", "b", "c"],
    ]


# Options of other programs, commands to give as they stand, and the variables of a style sheet.
OPTIONS_SPELT_OUT = ("torchrun --", "--chart-", "pip install --no-deps ", " --verify'")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def test_the_library_speaks_of_arguments_not_options() -> None:
    """A message for both Python and the command line: the command line spells the option."""
    spelt = []
    for path in sorted(SOURCE.rglob("*.py")):
        if "cli" in path.relative_to(SOURCE).parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        docs = {ast.get_docstring(n, clean=False) for n in nodes if isinstance(n, DOCUMENTED)}
        texts = {n.value for n in nodes if isinstance(n, ast.Constant) and type(n.value) is str}
        spelt += [
            f"{path.name}: {text}"
            for text in texts - docs
            if re.search(r"(?<![\w-])--[a-z]", text)
            and not any(allowed in text for allowed in OPTIONS_SPELT_OUT)
        ]
    assert spelt == []


ARCHAIC = re.compile(
    r"\b(anew|naught|heed(s|ed)?|thereof|wherein|be had|passed over|if need be|"
    r"mend(s|ed)?|vouch(es)?|hitherto|lest|shall|unto|upon)\b"
)


@pytest.mark.parametrize("folder", ["src", "docs"])
def test_plain_modern_english(folder: str) -> None:
    files = [p for p in (SOURCE.parent / folder).rglob("*") if p.suffix in (".py", ".md")]
    assert len(files) > 10
    lines = ((path, line) for path in files for line in path.read_text("utf-8").splitlines())
    assert [f"{path.name}: {line}" for path, line in lines if ARCHAIC.search(line)] == []
