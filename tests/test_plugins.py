"""What users add is found by entry point and by ``module:name``, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from metacurate.errors import UserError
from metacurate.formats.table import formats
from metacurate.plugins import GROUPS, load_plugin
from metacurate.texts.rules import TextRules, drop_reason


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that adds one thing of each kind."""
    (tmp_path / "added.py").write_text(
        "def dogs(text):\n    return 'about a dog' if 'dog' in text else None\n\nnumber = 5\n"
    )
    facts = tmp_path / "added-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n")
    points = [
        f"[{group}]\nmine = added:dogs\nbroken = added:nothing\n" for group in GROUPS.values()
    ]
    (facts / "entry_points.txt").write_text("\n".join(points))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("what", GROUPS)
@pytest.mark.parametrize("name", ["mine", "added:dogs"])
@pytest.mark.usefixtures("package")
def test_found(what: str, name: str) -> None:
    assert load_plugin(what, name, {})("a dog") == "about a dog"


@pytest.mark.parametrize("what", GROUPS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "other",
            "there is no .* 'other'; known are broken, (clip-score, )?here, mine, own, MODULE:NAME",
        ),
        ("added:", "there is no .* 'added:'"),
        (":dogs", "there is no .* ':dogs'"),
        ("broken", "'broken' cannot be loaded: .*nothing"),
        ("added:nothing", "'added:nothing' cannot be loaded: .*nothing"),
        ("no_module:f", "'no_module:f' cannot be loaded: No module named 'no_module'"),
        ("added:number", "'added:number' cannot be called"),
    ],
)
@pytest.mark.usefixtures("package")
def test_mistakes_are_named(what: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_plugin(what, name, {"here": print}, also=["own"])


@pytest.mark.usefixtures("package")
def test_what_is_shipped_comes_first() -> None:
    assert load_plugin("scorer", "mine", {"mine": print}) is print


def test_the_current_folder_is_searched(
    package: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    folder = tmp_path_factory.mktemp("work")
    (folder / "of_this_folder.py").write_text("class Thing:\n    make = staticmethod(len)\n")
    monkeypatch.chdir(folder)
    before = list(sys.path)
    assert load_plugin("scorer", "of_this_folder:Thing.make", {}) is len
    assert sys.path == before


@pytest.mark.usefixtures("package")
def test_text_rules_come_after_the_built_in_ones() -> None:
    rules = TextRules(min_length=4, own=("mine",))
    assert not rules.only_lengths
    texts = ["dog", "a dog", "a cat"]
    assert [drop_reason(t, rules) for t in texts] == ["text too short", "about a dog", None]
    with pytest.raises(UserError, match="there is no text rule 'no'"):
        TextRules(own=("no",))


@pytest.mark.usefixtures("package")
def test_a_broken_format_is_named() -> None:
    formats.cache_clear()
    with pytest.raises(UserError, match=r"the format 'broken' cannot be loaded: .*nothing"):
        formats()
