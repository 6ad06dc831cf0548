"""The table of formats: built in, and added by other packages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pyarrow as pa
import pytest

from metacurate import plugins
from metacurate.errors import UserError
from metacurate.formats import reasons, table
from metacurate.formats.files import Source
from metacurate.formats.protocol import Format, Look, Request, Rows
from metacurate.pool.open import open_pool
from metacurate.pool.read import read_unit
from metacurate.pool.schema import PoolConfig
from metacurate.pool.uid import url_uid

PAGE = Path(__file__).parents[2] / "docs/pools.md"


class Pairs:
    """A format of two lines a row: a URL, then its text."""

    title = "Pairs"
    suffixes: tuple[str, ...] = (".pairs",)
    shy: tuple[str, ...] = ()
    compressible = False

    def look(self, source: Source, compression: str | None) -> Look:
        return Look(pa.schema([("url", pa.string()), ("text", pa.string())]))

    def read(
        self, source: Source, compression: str | None, request: Request, skipped: Counter[str]
    ) -> Rows:
        lines = source.arrow.read().decode().splitlines()
        yield 0, pa.record_batch([lines[::2], lines[1::2]], schema=request.schema)


PAIRS: Format = Pairs()
GROUP = plugins.GROUPS["format"]


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[EntryPoint]]:
    """Entry points of the group, as installed packages would have them."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == GROUP else [])
    table.formats.cache_clear()
    yield points
    table.formats.cache_clear()


def test_a_package_adds_a_format(tmp_path: Path, added: list[EntryPoint]) -> None:
    added.append(EntryPoint("pairs", f"{__name__}:PAIRS", GROUP))
    (tmp_path / "a.pairs").write_text("http://a\na dog\nhttp://b\na cat\n")
    pool = open_pool([str(tmp_path)], PoolConfig())
    assert pool.describe() == "1 Pairs file (1 unit): URL from 'url', text from 'text'"
    [batch] = read_unit(pool.units[0], all_columns=False, skipped=Counter())
    assert batch.uids.to_pylist() == [url_uid("http://a"), url_uid("http://b")]
    assert batch.texts.to_pylist() == ["a dog", "a cat"]


def test_an_added_format_that_fails_is_named(tmp_path: Path, added: list[EntryPoint]) -> None:
    added.append(EntryPoint("broken", "no_such_module:FORMAT", GROUP))
    with pytest.raises(UserError, match="format 'broken' cannot be loaded"):
        open_pool([str(tmp_path)], PoolConfig())


def test_the_page_explains_every_reason() -> None:
    named = {value for name, value in vars(reasons).items() if name.isupper() and name != "VALUES"}
    told = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(told) == sorted(named)
    assert set(reasons.VALUES) <= named


def test_the_page_lists_every_format() -> None:
    text = PAGE.read_text()
    for form in table.BUILT_IN.values():
        for suffix in form.suffixes:
            assert f"`{suffix}`" in text
