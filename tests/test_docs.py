"""The documentation: its commands and examples run, its links lead somewhere, the site builds."""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from conftest import REPOSITORY, environment

DOCS = REPOSITORY / "docs"
PAGES = [
    REPOSITORY / "README.md",
    *sorted(DOCS.glob("**/*.md")),
    *REPOSITORY.glob("examples/*/*.md"),
]
FENCE = re.compile(
    r"^(?:<!-- exits (?P<code>\d+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
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
    """A fenced block that is run, what it must print (None: anything) and its exit status."""

    language: str
    text: str
    output: str | None
    code: int


def blocks(page: Path) -> list[Block]:
    """A page's sh and python blocks; a text block that follows one is its output."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for fence in FENCE.finditer(text):
        adjacent = not text[end : fence.start()].strip()
        if fence["language"] in ("sh", "python"):
            found.append(Block(fence["language"], fence["text"], None, int(fence["code"] or 0)))
        elif fence["language"] == "text" and found and adjacent:
            last = found.pop()
            found.append(Block(last.language, last.text, fence["text"], last.code))
        end = fence.end()
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
        output = self._run_shell(block) if block.language == "sh" else self._run_python(block)
        if block.output is not None:
            checker = doctest.OutputChecker()
            options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            assert checker.check_output(block.output, output, options), (
                f"{block.text}\nprints\n{output}\nbut the page has\n{block.output}"
            )

    def _run_shell(self, block: Block) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            check=False,
            timeout=300,
        )
        assert done.returncode == block.code, done.stdout
        return done.stdout

    def _run_python(self, block: Block) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(block.text, "page", "exec"), self.names)
        return output.getvalue()


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Session:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    return Session(tmp_path)


def need(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"needs the extra 'docs' ({', '.join(missing)} not installed)")


def run_page(session: Session, page: Path) -> None:
    found = blocks(page)
    assert found
    for block in found:
        session.run(block)


def test_tutorial(session: Session) -> None:
    need("duckdb", "polars")
    run_page(session, DOCS / "tutorial.md")


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

    run_page(session, DOCS / "from-the-official-scripts.md")

    counts = np.load("run/counts.npy")
    assert counts.dtype == np.uint64
    assert counts.tolist() == [1, 1, 2, 0]
    assert json.loads(Path("run/datacard.json").read_text())["kept"]["texts"] == 2
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


def test_readme_python_snippet(session: Session) -> None:
    snippets = [b for b in blocks(REPOSITORY / "README.md") if b.language == "python"]
    assert snippets
    for snippet in snippets:
        session.run(snippet)


def test_names_of_the_package() -> None:
    """The package's names are there, and the API page documents just them and what they return."""
    import metacurate

    page = (DOCS / "python-api.md").read_text(encoding="utf-8")
    documented = re.findall(r"^::: ([\w.]+)$", page, re.M)
    homes = {f"{getattr(metacurate, name).__module__}.{name}" for name in metacurate.__all__}
    assert homes | {"metacurate.curation.balancing.Balanced"} == set(documented)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
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
