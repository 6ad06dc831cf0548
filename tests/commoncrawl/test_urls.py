"""Image addresses: the quick ways give what the URL parser gives."""

from __future__ import annotations

import ada_url
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metacurate.pages.urls import Base

PARTS = st.sampled_from(
    r"http:// HTTPS:// // / .. . a B é ? # %2e %41 % example.org xn--mgb 127.1 [ ] :80 @ \ ' ~ | _ "
    "data: x:y".replace("_", "\t").split(" ")
)
PAGES = ("http://a.example/p/q?x/y", "https://User@B.example:8443/", "http://a.example/x//y/./z")


@given(st.lists(PARTS, max_size=8).map("".join), st.sampled_from(PAGES))
@example("a/../b", PAGES[0])
@example("http://a.b.c/d?e/.f", PAGES[0])
@example("a//b", PAGES[2])
@example("http://a.0/", PAGES[0])
@settings(max_examples=2000)
def test_resolve_equals_the_url_parser(written: str, page: str) -> None:
    found, reason = Base(page).resolve(written)
    assert (found is None) == bool(reason)
    try:
        expected = ada_url.join_url(page, written.strip()).partition("#")[0]
    except ValueError:
        assert found is None
        return
    if reason == "no image URL":
        assert not written.strip() or written.strip().startswith("#")
    elif expected.startswith("http"):
        assert found == expected
    else:
        assert reason in ("data: URL", "not http(s)")


def test_bounds() -> None:
    base = Base(PAGES[0])
    assert base.resolve("http://a.example/" + "x" * 5000) == (None, "oversized URL")
    assert base.resolve("data:image/png;base64," + "x" * 5000) == (None, "data: URL")
    assert base.resolve("é" * 2000) == (None, "oversized URL")  # as percent-encoded


@given(st.lists(PARTS, max_size=8).map("".join))
@example("/a.png")
@example("\\a b.png")
@example("http:a.png")
@example("HTTPS:a.png")
@example("http:/a.png")
@settings(max_examples=1000)
def test_to_a_long_base_no_address_is_relative(written: str) -> None:
    href = "/" + "x" * 5000 + "/"
    url, reason = Base(PAGES[0], href).resolve(written)
    try:
        expected = ada_url.join_url(f"http://a.example{href}", written.strip()).partition("#")[0]
    except ValueError:
        assert url is None
        return
    if url is not None:
        assert url == expected
    elif expected.startswith("http") and reason != "no image URL":
        assert reason == "oversized URL"
        assert len(expected) > 4096 or ".." in written or "%2e" in written


def test_lone_surrogates_are_replaced() -> None:
    assert Base(PAGES[0]).resolve("a\ud800.png") == ("http://a.example/p/a%EF%BF%BD.png", "")
