"""Every loss has one name, in one enumeration a room, and the room's page says what it means."""

from __future__ import annotations

import ast
import re
from enum import StrEnum
from pathlib import Path

import orjson
import pytest

from metacurate.commoncrawl import reasons as commoncrawl
from metacurate.counts import counted, in_words
from metacurate.deduplication import reasons as dedup
from metacurate.evaluation import reasons as evaluation
from metacurate.formats import reasons as pool
from metacurate.images import reasons as images
from metacurate.pages import urls
from metacurate.runtime.storage import Folder
from metacurate.texts import rules
from metacurate.training import reasons as training
from metacurate.webdataset import reasons as webdataset
from metacurate.wikipedia import reasons as wikipedia

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = {
    "commoncrawl": (commoncrawl, urls, rules),
    "dedup": (dedup,),
    "evaluation": (evaluation,),
    "images": (images,),
    "metadata": (wikipedia,),
    "training": (training,),
    "webdataset": (webdataset,),
}
ENUMERATIONS = [
    (page, found)
    for page, rooms in PAGES.items()
    for room in rooms
    for found in vars(room).values()
    if isinstance(found, type) and issubclass(found, StrEnum) and found is not StrEnum
]
COUNTERS = re.compile(r"skipped|dropped|losses|problems|unread|reasons")


@pytest.mark.parametrize(("page", "reasons"), ENUMERATIONS)
def test_the_page_names_every_reason(page: str, reasons: type[StrEnum]) -> None:
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    assert [reason for reason in reasons if f"`{reason}`" not in text] == []


def test_the_page_of_pools_names_every_reason() -> None:
    text = (ROOT / "docs/pools.md").read_text(encoding="utf-8")
    found = [value for name, value in vars(pool).items() if name.isupper() and type(value) is str]
    assert len(found) > 10
    assert [reason for reason in found if f"`{reason}`" not in text] == []


def counts_by_a_literal(code: str) -> list[str]:
    """Where a counter of losses is raised under a name that is written there."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.AugAssign)
        and isinstance(node.target, ast.Subscript)
        and COUNTERS.search(ast.unparse(node.target.value))
        and isinstance(node.target.slice, ast.Constant)
        and isinstance(node.target.slice.value, str)
    ]


def test_losses_are_counted_under_members() -> None:
    found = {path.name: counts_by_a_literal(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_literal_is_found() -> None:
    assert counts_by_a_literal("self.skipped['no_text'] += n\nseen['pages'] += 1") == [
        "self.skipped['no_text'] += n"
    ]


def test_counts_are_plain_and_sorted(tmp_path: Path) -> None:
    reason = webdataset.DroppedSample
    counts = {reason.NO_TEXT: 1200, reason.NO_IMAGE: 3, "z": 0, "a b": 1}
    found = counted(counts)
    assert found == {"a b": 1, "no_image": 3, "no_text": 1200}
    assert list(found) == ["a b", "no_image", "no_text"]
    assert {type(name) for name in found} == {str}
    assert in_words(counts) == "1 a b, 3 no_image, 1,200 no_text"
    Folder(str(tmp_path)).write_json("x.json", {"dropped": counts, "first": reason.NO_TEXT})
    assert orjson.loads((tmp_path / "x.json").read_bytes()) == {
        "dropped": {**found, "z": 0}, "first": "no_text"
    }  # fmt: skip
