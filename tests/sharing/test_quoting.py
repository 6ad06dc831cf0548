"""Foreign text in YAML and in Markdown, read by PyYAML and markdown-it."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metacurate.printable import printable
from metacurate.sharing.quoting import code, markdown, table, yaml

NASTY = (
    "---", "\n---\nlicense: mit\n", '"', "\\", "a: b", "- a", "#", "\u2028\u2029\x85\ufeff\x7f\x9b",
    "\U0001f408", "<b>x</b>", "[a](http://b.example)", "![a](b)", "a|b\\|c", "`", "``a` <i>`",
    "www.evil.example", "http://evil.example", "a@evil.example", "&lt;b&gt;", "&#60;b&#62;", "$a$",
    " a  b ", "1. a", "~~a~~", "{% raw %}", "-->", "<!--", "\u202egnp", "",
)  # fmt: skip
TEXTS = st.one_of(st.sampled_from(NASTY), st.text(), st.text(alphabet="`|\\<>[]()*_~&#; a\n-"))


def examples(test: Any) -> Any:
    for text in NASTY:
        test = example(text)(test)
    return test


@examples
@given(TEXTS)
def test_yaml(text: str) -> None:
    reader = pytest.importorskip("yaml")
    value = {"a": text, "b": [text, {"c": text, "d": [{"e": [1, True, 0.5]}, text]}], "f": []}
    written = yaml(value)
    assert reader.safe_load(written) == value
    assert "\n---" not in f"\n{written}"


def rendered(source: str) -> str:
    """HTML as GitHub and the hub make it: with tables, strike-through and bare addresses."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(source)


@examples
@given(TEXTS)
def test_markdown(text: str) -> None:
    html = rendered(f"a {markdown(text)} z")
    assert re.findall(r"<[^>]*>", html) == ["<p>", "</p>"]
    assert unescape(html) == f"<p>a {printable(text, 80)} z</p>\n"


@examples
@given(TEXTS)
def test_code_in_a_table(text: str) -> None:
    html = rendered("\n".join(table(["a", "b"], [[code(text), "1"], [f"x {code(text)}", "2"]])))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    shown = [unescape(cell) for cell in cells]
    expected = f"<code>{printable(text, 80)}</code>"
    assert shown == [expected, "1", f"x {expected}", "2"]
    assert not any(re.search(r"<(?!/?code>)", cell) for cell in cells)


# What a renderer that looks for bare addresses could make a link of.
@pytest.mark.parametrize("text", ["www.evil.example", "http://evil.example", "a@evil.example"])
def test_no_bare_address(text: str) -> None:
    assert not re.search(r"www\.|://|@", markdown(text))
