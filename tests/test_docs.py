"""The documentation: its commands and examples run, its links lead somewhere, the site builds."""

from __future__ import annotations

import contextlib
import doctest
import glob
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from chromium import Browser
from conftest import REPOSITORY, environment, run_here
from doc_inputs import INPUTS

DOCS = REPOSITORY / "docs"
PAGES = [
    REPOSITORY / "README.md",
    *sorted(DOCS.glob("**/*.md")),
    *sorted(REPOSITORY.glob("examples/*/*.md")),
    *sorted(REPOSITORY.glob("benchmarks/*/*.md")),
    *sorted(REPOSITORY.glob("C*.md")),
]
FENCE = re.compile(
    r"(?P<marks>(?:^ *<!-- [^\n]* -->\n)*)"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)
RUN = ("sh", "python", "sql")
LANGUAGES = (*RUN, "text", "pycon", "toml", "json")
# Above a block: what it is, or why no test runs it.
MARK = re.compile(
    r"<!-- (?P<name>not run|exits|run|test)(?:: (?P<reason>\S.*)| (?P<code>\d+))? -->"
)
# A comment to each line, and no more than one command: such a line needs no shell.
WORD = re.compile(r"""(?:[^\s'"|&;<>$`()\[\]{}~!#\\]|'[^']*'|"[^"$`\\]*")+""")
PLAIN = re.compile(rf"(?:#.*|metacurate(?:[ \t]+{WORD.pattern})*(?:\s+#.*)?)?")
QUOTED = re.compile(r"""'([^']*)'|"([^"]*)"|([^'"]+)""")
LINK = re.compile(r"\]\((?!\w+:)(?P<path>[^)#\s]*)(?:#[^)\s]*)?\)")
ROLE = re.compile(r":(?:func|class|mod|meth|attr):")
# What a page makes the browser load by itself; links that a reader may follow are none.
LOADED = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*?(?:src|href)=["']?([^"'\s>]+)""")
SITE_PACKAGES = (
    "mkdocs",
    "material",
    "mkdocstrings",
    "mkdocstrings_handlers",
    "mkdocs_awesome_nav",
)


@dataclass(frozen=True)
class Block:
    """A fenced block, what it must print (None: anything) and its exit status."""

    language: str
    text: str
    output: str | None = None
    code: int = 0
    mark: str = ""  # "not run", or a mark of README's commands
    reason: str | None = None


def blocks(page: Path) -> list[Block]:
    """A page's blocks that are commands; a text block that follows one is its output."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for fence in FENCE.finditer(text):
        adjacent = not text[end : fence.start()].strip()
        marks = {mark["name"]: mark for mark in MARK.finditer(fence["marks"])}
        assert len(marks) <= 1, f"{page}: {fence['marks']}"
        if fence["language"] in RUN:
            code, mark, reason = 0, "", None
            for name, parts in marks.items():
                code, mark, reason = int(parts["code"] or 0), name, parts["reason"]
            content = textwrap.dedent(fence["text"])
            found.append(Block(fence["language"], content, None, code, mark, reason))
        elif fence["language"] == "text" and found and adjacent:
            found[-1] = replace(found[-1], output=fence["text"])
        end = fence.end()
    return found


def commands_of(text: str) -> list[list[str]] | None:
    """The words of a block's commands, if they are metacurate's alone and need no shell."""
    lines = text.replace("\\\n", " ").splitlines()
    if not all(PLAIN.fullmatch(line) for line in lines):
        return None
    split = [re.match(r"(?:[^#'\"]|'[^']*'|\"[^\"]*\")*", line) for line in lines]
    found = [WORD.findall(match[0]) for match in split if match]
    return [words[1:] for words in found if words]


def with_names_of_files(words: list[str]) -> list[str]:
    """Without quotes, and with the files that a pattern outside of quotes stands for."""
    found = []
    for word in words:
        parts = [(bare, quoted or doubly) for quoted, doubly, bare in QUOTED.findall(word)]
        text = "".join(bare + quoted for bare, quoted in parts)
        names = glob.glob("".join(bare + glob.escape(quoted) for bare, quoted in parts))
        found += sorted(names) or [text]
    return found


class Session:
    """Runs a page's blocks one after another in a folder, as a reader would."""

    def __init__(self, folder: Path) -> None:
        programs = folder / "programs"
        programs.mkdir()
        program = programs / "metacurate"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m metacurate "$@"\n')
        program.chmod(0o755)
        source = os.pathsep.join(filter(None, [str(REPOSITORY / "src"), os.getenv("PYTHONPATH")]))
        self.environment = {
            **environment(),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": source,
        }
        self.names: dict[str, object] = {"__name__": "__main__"}

    def run(self, block: Block) -> None:
        run = {"sh": self._run_shell, "python": self._run_python, "sql": self._run_sql}
        output = run[block.language](block)
        if block.output is not None:
            checker = doctest.OutputChecker()
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert checker.check_output(block.output, output, options), (
                f"{block.text}\nprints\n{output}\nbut the page has\n{block.output}"
            )

    def _run_shell(self, block: Block) -> str:
        commands = commands_of(block.text)
        installed = any(Path.cwd().glob("*.dist-info"))  # by the page: new processes find it
        if (
            commands is not None and not installed
        ):  # the same without the seconds that each process takes to start
            printed = io.StringIO()
            for number, words in enumerate(commands, 1):
                code = run_here(with_names_of_files(words), printed, printed)
                # As ``set -e`` has it: only the last command may end with another status.
                wanted = block.code if number == len(commands) else 0
                assert code == wanted, f"{words}\n{printed.getvalue()}"
            return printed.getvalue()
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            check=False,
            timeout=240,
        )
        assert done.returncode == block.code, done.stdout
        return done.stdout

    def _run_python(self, block: Block) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(block.text, "page", "exec"), self.names)
        return output.getvalue()

    def _run_sql(self, block: Block) -> str:
        import duckdb

        for statement in block.text.split(";\n"):
            if statement.strip():
                assert duckdb.sql(statement).fetchall() is not None
        return ""


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "TERM", "COLUMNS"):
        monkeypatch.setenv(name, environment()[name])
    monkeypatch.setenv("BROWSER", "true")  # what --open starts
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    return Session(tmp_path)


def need(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"needs the extra 'docs' ({', '.join(missing)} not installed)")


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def run_page(session: Session, page: Path) -> None:
    found = [block for block in blocks(page) if not block.mark or block.mark == "exits"]
    assert found
    for block in found:
        session.run(block)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_are_run_or_say_why_not(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fences = list(FENCE.finditer(text))
    assert len(re.findall(r"^ *```", text, re.M)) == 2 * len(fences)
    assert {fence["language"] for fence in fences} <= set(LANGUAGES)
    for block in blocks(page):
        assert (block.mark == "not run") == (block.reason is not None), block.text
        assert block.mark not in ("run", "test") or page.name == "README.md"


RUN_PAGES = [
    page
    for page in PAGES
    if page.name != "from-the-official-scripts.md"  # it has a test of its own below
    and any(not block.mark or block.mark == "exits" for block in blocks(page))
]


@pytest.mark.parametrize("page", RUN_PAGES, ids=name_of)
def test_blocks(page: Path, session: Session) -> None:
    """A page's commands and examples, one after another in one folder."""
    need("duckdb", "polars")
    INPUTS.get(name_of(page), lambda folder: None)(Path.cwd())
    run_page(session, page)


def test_inputs_are_of_pages() -> None:
    assert set(INPUTS) <= {name_of(page) for page in RUN_PAGES}


def test_readme_first_command(session: Session) -> None:
    """README's first command without its installation prints what README says."""
    [first] = [block for block in blocks(REPOSITORY / "README.md") if block.mark == "run"]
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    printed = re.search(r"```text\n(4 Parquet files.*?)```\n", text, re.S)
    assert printed is not None
    install, command = first.text.rsplit(" && ", 1)
    assert install == "python3 -m venv .venv && .venv/bin/pip install -q -e '.[report]'"
    assert command.startswith(".venv/bin/metacurate ")
    # The very first run also says that it compiles.
    block = Block("sh", f"metacurate --version\n{command.removeprefix('.venv/bin/')}")
    compiles = "compiling the kernels"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_run_shell", _without_lines(session._run_shell, compiles))
        session.run(replace(block, output=f"metacurate ...\n{printed[1]}"))


def _without_lines(run: Callable[[Block], str], start: str) -> Callable[[Block], str]:
    def filtered(block: Block) -> str:
        lines = run(block).splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith(start))

    return filtered


def test_readme_python_as_a_script(session: Session) -> None:
    """As a reader saves it: without a guard for the main module."""
    scripts = [b.text for b in blocks(REPOSITORY / "README.md") if b.language == "python"]
    for script in scripts:
        Path("script.py").write_text(script)
        done = subprocess.run(
            [sys.executable, "script.py"],
            capture_output=True,
            text=True,
            env=session.environment,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout == "8751\n"


def test_coming_from_the_official_scripts(
    session: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's commands, on files of the published form."""
    entries = ["battery", "battery plate", "plate", "chameleon"]
    Path("metadata.json").write_text(json.dumps(entries))
    Path("entry_counts_400m.json").write_text(
        json.dumps({"battery": 80_000, "battery plate": 10, "plate": 40_000, "chameleon": 80_000})
    )
    matched = Path("data/CC/matched")
    matched.mkdir(parents=True)
    texts = [["alt", "a plate", [2]], ["title", "battery plate", [0, 1, 2]]]
    record = {"uuid": "0" * 24, "url": "https://example.org/a.jpg", "texts": texts}
    (matched / "CC-MAIN-00000.warc.gz.json").write_text(json.dumps([record], indent=1))

    index = Path("data/metaclip_400m/index")
    index.mkdir(parents=True)
    np.save(index / "entry_count.npy", np.array([3, 1, 5, 0], np.uint64))
    matches = [[0, 0], [2, 0], [2, 1], [0, 2], [1, 2], [2, 2], [0, 3], [2, 4], [2, 5]]
    for name, array in (("7/7_inverted.npy", matches), ("subset_20000/7/7.npy", range(6))):
        (index / name).parent.mkdir(parents=True)
        np.save(index / name, np.array(array, np.uint32))
    # Meta CLIP 2: a shard's texts, the metadata's folder, the counts of a group of shards.
    for folder in ("pkg_json/0", "valid_uuids/0", "metadata", "index_json"):
        Path("data", folder).mkdir(parents=True)
    spoken = [["alt", "a plate", "en"], ["title", "一块电池", "zh"]]
    Path("data/pkg_json/0/0.json").write_text(json.dumps({"0" * 24: spoken, "1" * 24: spoken[1:]}))
    Path("data/valid_uuids/0/0.json").write_text(json.dumps(["1" * 24]))
    Path("data/metadata/en.json").write_text(json.dumps(entries))
    Path("data/metadata/zh.json").write_text(json.dumps(["电池", "猫"]))
    Path("data/metadata/en.pkl").write_bytes(b"not read")
    by_language = {"en": np.array([0, 0, 1, 0], np.uint64), "zh": np.array([2, 0], np.uint64)}
    np.savez("data/index_json/0.npz", **by_language)

    run_page(session, DOCS / "from-the-official-scripts.md")

    assert np.load("run-v2/counts.npy").tolist() == [0, 0, 1, 0, 2, 0]
    assert np.load("run-by-index/counts.npy").tolist() == [3, 1, 5, 0]
    counts = np.load("run/counts.npy")
    assert counts.dtype == np.uint64
    assert counts.tolist() == [1, 1, 2, 0]
    assert json.loads(Path("run/datacard.json").read_text())["kept"]["texts"] == 2
    by_400m = np.load("run-by-400m/counts.npy")
    assert by_400m.tolist() == [80_000, 10, 40_000, 80_000]
    keep_probs = session.names["keep_probs"]
    assert isinstance(keep_probs, np.ndarray)
    assert keep_probs.tolist() == [0.25, 1, 0.5, 0.25]


def test_python_api_examples() -> None:
    text = (DOCS / "python-api.md").read_text(encoding="utf-8")
    examples = "\n".join(
        fence["text"] for fence in FENCE.finditer(text) if fence["language"] == "pycon"
    )
    test = doctest.DocTestParser().get_doctest(examples, {}, "python-api.md", None, 0)
    assert len(test.examples) > 20
    report = io.StringIO()
    result = doctest.DocTestRunner().run(test, out=report.write)
    assert result.failed == 0, report.getvalue()


def test_names_of_the_package() -> None:
    """The package's names are there, and the API page documents just them and what they return."""
    import metacurate

    page = (DOCS / "python-api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^::: ([\w.]+)$", page, re.M)
    names = set(metacurate.__all__) - {"__version__"}
    homes = {f"{getattr(metacurate, name).__module__}.{name}" for name in names}
    assert homes | {"metacurate.curation.balancing.Balanced"} == set(documented)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    dead = [
        link["path"]
        for link in LINK.finditer(text)
        if link["path"] and not (page.parent / link["path"]).exists()
    ]
    assert not dead


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need(*SITE_PACKAGES)
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_site_builds(site: Path) -> None:
    for page in DOCS.glob("**/*.md"):
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file()
    api = (site / "python-api.html").read_text(encoding="utf-8")
    assert 'id="metacurate.curation.balancing.solve_threshold_for_size"' in api
    # The site's generator knows no reStructuredText.
    assert not ROLE.findall(api)


def test_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = [*site.glob("**/*.html")]
    assert pages
    for page in pages:
        loaded = LOADED.findall(page.read_text(encoding="utf-8"))
        assert loaded
        assert not [address for address in loaded if re.match(r"(?:https?:)?//", address)], page
    for style in site.glob("**/*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", style.read_text(encoding="utf-8"))


def test_site_has_all_commands_and_changes(site: Path) -> None:
    from typer.main import get_command

    from metacurate.cli import app

    page = (site / "cli.html").read_text(encoding="utf-8")
    shown = dict(re.findall(r'<h2 id="([^"]+)">.*?</h2>(.*?)(?=<h2|</article)', page, re.S))
    commands = {"metacurate": get_command(app)}
    leaves = 0
    while commands:
        path, command = commands.popitem()
        nested = getattr(command, "commands", None)
        if nested is not None:
            commands |= {f"{path}-{name}": one for name, one in nested.items()}
            continue
        leaves += 1
        for option in command.params:
            if option.param_type_name == "option":
                for name in (*option.opts, *option.secondary_opts):
                    assert re.search(rf"<code>[^<]*{name}(?![-\w])", shown[path]), (path, name)
    assert leaves == len(shown) > 20
    changes = (site / "changelog.html").read_text(encoding="utf-8")
    assert 'id="unreleased"' in changes
    assert "<!-- changelog -->" not in changes


@pytest.fixture(scope="module")
def chromium(chromium: Browser) -> Browser:
    # The theme keeps the colours of the page before.
    chromium.call("Page.addScriptToEvaluateOnNewDocument", source="localStorage.clear()")
    return chromium


def test_site_is_searched_from_files(site: Path, chromium: Browser) -> None:
    chromium.open(site / "index.html", 1280, 800)
    chromium.evaluate(
        "document.querySelector('#__search').click();"
        "const field = document.querySelector('.md-search__input'); field.focus();"
        "field.value = 'threshold'; field.dispatchEvent(new Event('input'));"
        "field.dispatchEvent(new KeyboardEvent('keyup'))"
    )
    links = "[...document.querySelectorAll('.md-search-result__link')].map((a) => a.href)"
    found = chromium.wait_for(f"{links}.length && {links}")
    assert any("semantics.html" in link or "tutorial.html" in link for link in found)
    assert chromium.complaints() == []
    kinds = {address.partition(":")[0] for address in chromium.requests()}
    assert kinds <= {"file", "data", "about"}


@pytest.mark.parametrize(
    ("page", "width", "dark"),
    [
        ("index", 390, True),
        ("index", 1280, False),
        ("training", 390, False),
        ("training", 1280, True),
        ("cli", 390, True),
    ],
)
def test_site_is_for_all_readers(
    site: Path, chromium: Browser, page: str, width: int, dark: bool
) -> None:
    """No serious finding of axe-core, nothing from elsewhere, nothing beyond the window."""
    chromium.open(site / f"{page}.html", width, 800, dark=dark)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    # What the theme puts on the page late is completed late.
    chromium.wait_for("document.querySelectorAll('.md-code__nav').length")
    found = chromium.axe()
    assert len(found["passes"]) > 10
    grave = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in grave] == []
    assert {address.partition(":")[0] for address in chromium.requests()} <= {"file", "data"}
    colour = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 300) == dark
    clipped = chromium.evaluate(
        "[...document.querySelectorAll('pre code')].filter((code) => /[│▼]/.test(code.innerText))"
        ".map((code) => code.scrollWidth - code.clientWidth)"
    )
    assert max(clipped, default=0) <= 0
    assert (page == "index") == bool(clipped)
