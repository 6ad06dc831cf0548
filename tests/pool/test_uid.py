"""The compiled uid kernel equals the reference, and the reference does what its text says."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metacurate.pool.uid import key_uid, key_uids, url_uid, url_uids
from metacurate.pool.url import canonical_url, plain_urls


def large_binary(values: list[bytes | None]) -> pa.LargeBinaryArray:
    return pa.array(values, pa.large_binary())


# Pieces that the rules are about, in any order, so that the odd cases come up often.
PIECES = st.sampled_from(
    [
        *(b"http", b"https", b"HTTP", b"hTTps", b"ftp", b"a+b-.1", b"://", b":", b"/", b"//"),
        *(b"?", b"#", b"@", b":80", b":443", b":8080", b"Example.COM", b"user:Pa", b"[::1]"),
        *(b" ", b"\t", b"\r\n", b"\v\f", b"\xff\xfe", "Ü.de".encode(), b"a" * 120, b"0", b"\x00"),
    ]
)
# What is nearly canonical: each of the quick look's conditions fails here and there.
LABELS = st.text(alphabet="abxyzn09-", max_size=5) | st.sampled_from(["xn--a", "com", "x" * 61])
SEGMENTS = st.text(alphabet="aZ0_~!$&()*+,;=@.%?:-", max_size=70) | st.sampled_from(
    [".", "..", ".a", "%2e", "%2E.", "%41", "a|b", "a b", "'", '"', "<", "\\", "^", "[", "`", "{"]
)
NEARLY = st.builds(
    lambda scheme, host, path: f"{scheme}{'.'.join(host)}/{'/'.join(path)}".encode(),
    st.sampled_from(["http://", "https://"]),
    st.lists(LABELS, min_size=1, max_size=5),
    st.lists(SEGMENTS, max_size=5),
)
URLS = st.lists(PIECES | st.binary(max_size=6), max_size=9).map(b"".join) | NEARLY
# Values with few bytes behind them are not looked at in blocks.
BEHIND = st.sampled_from([[], [b"http://a.example/" + b"x" * 300]])
HEX = st.binary(min_size=16, max_size=16).map(lambda b: b.hex().encode())
KEYS = st.binary(max_size=300) | HEX | HEX.map(bytes.upper) | st.sampled_from([b" ", b"\n\t"])


@settings(max_examples=600)
@given(st.lists(st.none() | URLS, max_size=12), st.integers(0, 3), BEHIND)
@example(
    [b"http://:80", b"x://", b"://", b"http:/", b"1http://A", b"#", b" #", b"http://A:80:80"], 0, []
)
@example(
    [b"https://A:443#x", b"https://A:80", b"http://A:443", b"HTTPS://u@B:443?q", b"x #y"], 0, []
)
def test_url_kernel_equals_reference(
    urls: list[bytes | None], skip: int, behind: list[bytes]
) -> None:
    urls = [*urls, *behind]
    array = large_binary(urls)[skip:]
    expected = [None if url is None else url_uid(url) for url in urls[skip:]]
    assert url_uids(array).to_pylist() == expected


@settings(max_examples=400)
@given(st.lists(st.none() | KEYS, max_size=12), st.integers(0, 3), BEHIND)
def test_key_kernel_equals_reference(
    keys: list[bytes | None], skip: int, behind: list[bytes]
) -> None:
    keys = [*keys, *behind]
    array = large_binary(keys)[skip:]
    expected = [None if key is None else key_uid(key) for key in keys[skip:]]
    assert key_uids(array).to_pylist() == expected


def test_every_length_up_to_several_blocks() -> None:
    generator = np.random.default_rng(0)
    # From the longest down: what a longer value left in the kernel's block must not leak.
    keys = [generator.bytes(size) for size in range(1100, 64, -1)]
    expected = [hashlib.blake2b(key, digest_size=16).digest() for key in keys]
    assert key_uids(large_binary(keys)).to_pylist() == expected
    keys = [b"k" * size for size in (3, 2**20, 2**20 + 1, 5)]  # one at a time beyond a MiB
    expected = [hashlib.blake2b(key, digest_size=16).digest() for key in keys]
    assert key_uids(large_binary(keys)).to_pylist() == expected
    urls = [b"http://h.example/" + b"x" * size for size in range(1100, 0, -1)]
    expected = [hashlib.blake2b(url, digest_size=16).digest() for url in urls]
    assert url_uids(large_binary(urls)).to_pylist() == expected


def test_a_quick_look_finds_canonical_urls_and_nothing_odd() -> None:
    hosts = ["a.b", "a-b.c0.example", "w" * 63 + ".example", "a.b.c.d.e.f.example"]
    paths = ["", "a", "a/b.jpg?c=d&e=f:80", "x" * 62 + "/y", "x" * 63 + "/y/", "~a_b/" * 40]
    canonical = [f"{s}://{h}/{p}" for s in ("http", "https") for h in hosts for p in paths]
    changes = [
        *("A.b/", "a.b", "a..b/", ".a.b/", "a.b./", "-a.b/", "a.-b/", "a.b1/", "xn--a.b/", "a/"),
        *(f"a.b/{'x' * size}{odd}" for size in range(130) for odd in ("/.", "|", "#", "/%2e", "é")),
    ]
    changed = [f"http://{change}" for change in changes]
    behind = "http://a.example/" + "x" * 300
    assert [canonical_url(url) for url in canonical] == canonical
    plain = plain_urls(large_binary([u.encode() for u in [*canonical, *changed, behind]]))
    assert plain.tolist() == [True] * len(canonical) + [False] * len(changed) + [True]


def test_megabyte_url_and_empty_arrays() -> None:
    url = b"data:image/png;base64," + b"A" * (1 << 20)
    assert url_uids(large_binary([url]))[0].as_py() == url_uid(url)
    assert url_uids(large_binary([])).to_pylist() == []
    assert url_uids(pa.nulls(3, pa.large_binary())).to_pylist() == [None] * 3
    assert url_uids(large_binary([b"", b""])).to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        # http(s): the URL standard's form, whatever was written.
        (" HTTP://User:Pw@EXAMPLE.com:80/A?B#c\n", "http://User:Pw@example.com/A?B"),
        ("https://example.com:443", "https://example.com/"),
        ("https://example.com:80/", "https://example.com:80/"),
        ("http://example.com:8080/", "http://example.com:8080/"),
        ("http://[2001:DB8::80]/", "http://[2001:db8::80]/"),
        ("http://a/ #b", "http://a/%20"),
        ("http://ÄB.de/Ä b", "http://xn--b-zfa.de/%C3%84%20b"),
        ("http://faß.example/", "http://xn--fa-hia.example/"),
        ("http://a/b%20C/../d%20e/./%2e", "http://a/d%20e/"),
        ("http:\\\\a\\b", "http://a/b"),
        ("ht\ttp://ev\til.exa\nmple/", "http://evil.example/"),
        ("http://%65vil.example/", "http://evil.example/"),
        ("http://evil\u200b.example/", "http://evil.example/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("\u00a0http://a/", "http://a/"),
        ("\ufeffhttp://a/\u3000", "http://a/"),
        ("\x00\u200bhttp://a.example/b\u2060", "http://a.example/b"),
        # Others: less.
        ("ftp://Example.com:80/", "ftp://example.com:80/"),
        ("//Example.com/A", "//Example.com/A"),
        ("Example.com:80/A", "Example.com:80/A"),
        ("data:Image/PNG;base64,AbC=", "data:Image/PNG;base64,AbC="),
        ("images/a b.png", "images/a b.png"),
        ("http://", "http://"),
        ("#only", ""),
        (" \t", ""),
    ],
)
def test_what_a_url_is_hashed_as(url: str, normal: str) -> None:
    digest = hashlib.blake2b(normal.encode(), digest_size=16).digest() if normal else None
    assert url_uid(url) == digest
    assert url_uids(large_binary([url.encode()])).to_pylist() == [digest]


def test_key_rules() -> None:
    hexadecimal = "00ff" * 8
    assert key_uid(hexadecimal) == bytes.fromhex(hexadecimal)
    for key in (hexadecimal.upper(), f" {hexadecimal}", hexadecimal[:-1], "Key ", "7"):
        assert key_uid(key) == hashlib.blake2b(key.encode(), digest_size=16).digest()
    assert key_uid("") is None
    assert key_uid("  ") is None


def test_equal_urls_have_equal_uids_in_any_array() -> None:
    urls = ["http://a.example/b", None, " HTTP://A.example/b#c", "\ufeffhttp://a.example:80/b", "x"]
    for kind in (pa.large_string(), pa.large_binary()):
        for skip in range(4):
            found = url_uids(pa.array(urls, kind)[skip:]).to_pylist()
            assert found == [None if url is None else url_uid(url) for url in urls[skip:]]
    assert len({url_uid(url) for url in urls if url is not None}) == 2
