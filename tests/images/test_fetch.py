"""Fetching from a real server on loopback that behaves as badly as servers do."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Self
from urllib.parse import quote

import pytest

from chromium import Browser
from hostile_server import HostileServer, encoded, photo
from metacurate.images.fetch import Failure, FetchConfig, Fetcher, Success, forbids, media_type

CONFIG = FetchConfig(
    concurrency=16,
    connect_timeout=2.0,
    timeout=1.5,
    retries=1,
    backoff=0.05,
    max_wait=3.0,
    max_bytes=1_000_000,
    allow_networks=("127.0.0.1/32",),
)


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as running:
        yield running


def fetch_all(urls: Sequence[str], config: FetchConfig = CONFIG) -> list[Success[bytes] | Failure]:
    async def body_of(body: bytes) -> bytes:
        return body

    async def run() -> list[Success[bytes] | Failure]:
        async with Fetcher(config) as fetcher:
            return await asyncio.gather(*(fetcher.fetch(url, body_of) for url in urls))

    return asyncio.run(run())


def reason(url: str, config: FetchConfig = CONFIG) -> str:
    outcome = fetch_all([url], config)[0]
    assert isinstance(outcome, Failure)
    return outcome.reason


def test_an_image_comes_whole(server: HostileServer) -> None:
    assert fetch_all([server.url("photo/1.jpg")]) == [Success(encoded(photo(1)))]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("endless", "too_many_bytes"),
        ("drip", "timeout"),
        ("loop/a", "too_many_redirects"),
        ("nolocation", "bad_redirect"),
        ("page", "wrong_content_type"),
        ("bomb", "too_many_bytes"),
        ("brotli", "unknown_content_encoding"),
        ("cut", "connection_lost"),
        ("empty", "empty_body"),
        ("headers", "bad_response"),
        ("status/404", "http_404"),
        ("status/410", "http_410"),
        ("status/204", "http_204"),
        ("status/500", "http_500"),
    ],
)
def test_hostile_answers_have_their_reasons(
    server: HostileServer, path: str, expected: str
) -> None:
    start = time.monotonic()
    assert reason(server.url(path)) == expected
    assert time.monotonic() - start < 10


def test_an_endless_body_is_cut_at_the_limit(server: HostileServer) -> None:
    assert reason(server.url("endless")) == "too_many_bytes"
    # What the kernel's buffers hold may have been sent besides the limit.
    assert server.sent < CONFIG.max_bytes + 16_000_000


def test_redirects_are_followed_up_to_the_limit(server: HostileServer) -> None:
    target = server.url("photo/1.jpg")
    for _ in range(CONFIG.max_redirects):
        target = server.url(f"to?url={quote(target, safe='')}")
    assert isinstance(fetch_all([target])[0], Success)
    assert reason(server.url(f"to?url={quote(target, safe='')}")) == "too_many_redirects"


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://example.org/a.jpg", "gopher://x/", "//:80", "data:,x"],
)
def test_redirects_to_other_schemes_are_not_followed(server: HostileServer, target: str) -> None:
    assert reason(server.url(f"to?url={quote(target, safe='')}")) == "bad_redirect"


@pytest.mark.parametrize(
    "host", ["127.0.0.2", "0x7f.0.0.2", "[::ffff:127.0.0.2]", "[::ffff:7f00:2]"]
)
def test_no_way_of_writing_a_private_address_gets_through(host: str) -> None:
    with HostileServer("127.0.0.2") as inner, HostileServer() as outer:
        target = f"http://{host}:{inner.port}/photo/1.jpg"
        redirect = outer.url(f"to?url={quote(target, safe='')}")
        assert reason(target) == "blocked_address"
        assert reason(redirect) == "blocked_address"
        assert not inner.requests
        assert outer.requests["to"] == 1
        # The server is there and would have answered.
        allowed = replace(CONFIG, allow_networks=("127.0.0.0/8",))
        assert isinstance(fetch_all([redirect], allowed)[0], Success)


@pytest.mark.parametrize("host", ["2130706434", "0177.0.0.2", "127.2", "017700000002"])
def test_old_numeric_forms_of_addresses_are_refused(host: str) -> None:
    with HostileServer("127.0.0.2") as inner:
        url = f"http://{host}:{inner.port}/photo/1.jpg"
        assert reason(url) in ("bad_url", "blocked_address")
        assert not inner.requests


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:7f00:1]", "0.0.0.0"])
def test_loopback_is_blocked_by_default(server: HostileServer, host: str) -> None:
    config = replace(CONFIG, allow_networks=())
    assert reason(f"http://{host}:{server.port}/photo/1.jpg", config) == "blocked_address"
    assert not server.requests


def test_names_that_lead_inwards_are_blocked(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A public name may have a private address, and another one at every look-up."""
    answers = iter(["127.0.0.2", "169.254.169.254", "10.0.0.1"])

    async def getaddrinfo(_: object, host: str, port: int, **options: object) -> list[object]:
        return [(2, 1, 6, "", (next(answers), port))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    for name in ("a.example", "b.example", "c.example"):
        assert reason(f"http://{name}:{server.port}/photo/1.jpg") == "blocked_address"
    assert not server.requests


def test_a_name_that_changes_after_the_check_is_blocked(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check that counts is of the address of the connection itself, not of the look-up."""
    from metacurate.images import fetch

    async def unchecked(
        self: object, host: str, port: int = 0, family: int = 0
    ) -> list[dict[str, object]]:
        return [
            {"hostname": host, "host": "127.0.0.2", "port": port, "family": 2, "proto": 6,
             "flags": 0}
        ]  # fmt: skip

    monkeypatch.setattr(fetch._Resolver, "resolve", unchecked)
    assert reason("http://rebound.example/photo/1.jpg") == "blocked_address"


@pytest.mark.parametrize(
    "url",
    [
        "", "nonsense", "file:///etc/passwd", "ftp://example.org/x.jpg", "http://", "http:///x.jpg",
        "http://user:password@127.0.0.1/x.jpg", "http://127.0.0.1:99999/x.jpg", "http://[::1/x.jpg",
        "data:image/gif;base64,R0lGODlhAQABAAAAACw=", "//127.0.0.1/x.jpg", "javascript:alert(1)",
        "http://127.0.0.1/" + "x" * 10_000, "http://127.0.0.1:0/x.jpg", f"http://{'a' * 70}.com/",
        "http://a..b/x.jpg", "http://127.0.0.1\r\nHost: evil/x.jpg",
    ],
)  # fmt: skip
def test_what_is_no_web_address_is_not_asked_for(url: str) -> None:
    assert reason(url) in ("bad_url", "dns_failed")


def test_no_one_there(server: HostileServer) -> None:
    with HostileServer() as gone:
        port = gone.port
    assert reason(f"http://127.0.0.1:{port}/x.jpg") == "connect_failed"


def test_no_tls_there(server: HostileServer) -> None:
    assert reason(f"https://127.0.0.1:{server.port}/photo/1.jpg") == "tls_failed"
    assert not server.requests


def test_a_host_that_takes_no_connections() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:  # the queue is full after the first ones
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/x.jpg"
        config = replace(CONFIG, connect_timeout=0.5, timeout=5.0)
        assert reason(url, config) == "connect_timeout"
        for one in waiting:
            one.close()


def test_a_dead_host_is_given_up_and_all_its_urls_have_one_reason() -> None:
    with HostileServer() as gone:
        port = gone.port
    urls = [f"http://127.0.0.1:{port}/{n}.jpg" for n in range(300)]
    start = time.monotonic()
    outcomes = fetch_all(urls, replace(CONFIG, per_host=2, backoff=0.2))
    assert {o.reason for o in outcomes if isinstance(o, Failure)} == {"connect_failed"}
    # 300 URLs with a pause of 0.2 s each would take no less than 30 s if the host was not given up.
    assert time.monotonic() - start < 10


def test_server_errors_are_tried_again(server: HostileServer) -> None:
    assert isinstance(fetch_all([server.url("flaky/x")])[0], Success)
    assert server.requests["flaky/x"] == 2
    fetch_all([server.url("status/404"), server.url("status/503")])
    assert server.requests["status/404"] == 1
    assert server.requests["status/503"] == 2


def test_retry_after_is_heeded(server: HostileServer) -> None:
    start = time.monotonic()
    assert isinstance(fetch_all([server.url("busy/1")])[0], Success)
    assert 1.0 <= time.monotonic() - start < 20


def test_retry_after_may_be_a_date(server: HostileServer) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    start = time.monotonic()
    assert isinstance(fetch_all([server.url(f"busy/{quote(moment)}")])[0], Success)
    assert 0.9 <= time.monotonic() - start < 20


def test_a_long_retry_after_ends_the_matter(server: HostileServer) -> None:
    assert reason(server.url("busy/86400")) == "http_429"
    assert server.requests["busy/86400"] == 1


def test_hosts_are_asked_by_a_few_requests_at_a_time(server: HostileServer) -> None:
    server.delay = 0.02
    urls = [server.url(f"photo/{n}.jpg") for n in range(30)]
    outcomes = fetch_all(urls, replace(CONFIG, per_host=3))
    assert all(isinstance(outcome, Success) for outcome in outcomes)
    assert server.most_at_once == 3


def test_a_pause_between_requests_to_a_host(server: HostileServer) -> None:
    urls = [server.url(f"photo/{n}.jpg") for n in range(6)]
    fetch_all(urls, replace(CONFIG, per_host=4, host_delay=0.1))
    gaps = [b - a for a, b in zip(server.starts, server.starts[1:], strict=False)]
    assert min(gaps) > 0.07


def test_a_busy_host_takes_no_place_from_others() -> None:
    with HostileServer() as slow, HostileServer("127.0.0.2") as fast:
        slow.delay = 0.3
        config = replace(
            CONFIG, concurrency=4, per_host=1, allow_networks=("127.0.0.0/8",), timeout=10
        )
        finished: list[str] = []

        async def note(body: bytes) -> None:
            return None

        async def run() -> None:
            async with Fetcher(config) as fetcher:

                async def one(url: str) -> None:
                    await fetcher.fetch(url, note)
                    finished.append(url)

                urls = [slow.url(f"photo/{n}.jpg") for n in range(8)]
                urls += [fast.url(f"photo/{n}.jpg") for n in range(8)]
                await asyncio.gather(*(one(url) for url in urls))

        asyncio.run(run())
        assert sum("127.0.0.2" in url for url in finished[:9]) == 8


@pytest.mark.parametrize(
    ("tag", "forbidden"),
    [
        ("noai", True),
        ("all, NoImageAI", True),
        ("metacurate: noindex", True),
        ("otherbot: noai", False),
        ("max-snippet: 5, noai", True),
        ("nofollow", False),
        ("None", True),
    ],
)
def test_robots_headers_are_respected(server: HostileServer, tag: str, forbidden: bool) -> None:
    outcome = fetch_all([server.url(f"robots?tag={quote(tag)}")])[0]
    assert (outcome == Failure("robots_header")) == forbidden
    assert not forbids([tag], "metacurate/1", ())


class BareServer:
    """Records the very bytes asked for; answers with a picture, after a redirect on ``/to``."""

    def __init__(self, headers: str = "", body: bytes | None = None) -> None:
        self.targets: list[str] = []
        self.location = ""
        self._headers = headers
        self._body = encoded(photo(1)) if body is None else body
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            # Browsers open connections to spare, without a request.
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            asked = b""
            while b"\r\n\r\n" not in asked:
                piece = connection.recv(65536)
                if not piece:
                    return
                asked += piece
            target = asked.split(b" ")[1].decode("latin-1")
            if target == "/to":
                head = f"HTTP/1.1 302 Found\r\nLocation: {self.location}\r\n"
                body = b""
            else:
                if target not in ("/favicon.ico", "/page"):
                    self.targets.append(target)
                head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n{self._headers}"
                body = self._body
            head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode("utf-8", "surrogateescape") + body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


# What is asked for, and the bytes that a browser sends for it.
TARGETS = {
    "/x.png?u=a%2Fb": "/x.png?u=a%2Fb",
    "/%7Euser/%28a%29.jpg": "/%7Euser/%28a%29.jpg",
    "/~user/(a).jpg": "/~user/(a).jpg",
    "/a|b.jpg?c|d": "/a|b.jpg?c|d",
    "/x?": "/x?",
    "/100%": "/100%",
    "/50%25%zz?%": "/50%25%zz?%",
    "/a%2fb%2F?x=%e9%E9": "/a%2fb%2F?x=%e9%E9",
    "/a+b%20c?d+e%2B": "/a+b%20c?d+e%2B",
    "/s?X-Sig=a/b+c==&Expires=1&Key='k'": "/s?X-Sig=a/b+c==&Expires=1&Key=%27k%27",
    "/a b?c d": "/a%20b?c%20d",
    "/\u00fc.jpg?q=\u00e9\U0001f99d": "/%C3%BC.jpg?q=%C3%A9%F0%9F%A6%9D",
    "/a/./b/../c//d.jpg": "/a/c//d.jpg",
    "/a/%2e%2e/b": "/b",
    "/x;v=1,2:3@4!$&*=[5]": "/x;v=1,2:3@4!$&*=[5]",
    '/q"<>`{}^?"<>`{}^\\': "/q%22%3C%3E%60%7B%7D%5E?%22%3C%3E`{}^\\",
    "/back\\slash": "/back/slash",
    "/x.png#part?no": "/x.png",
    "": "/",
    "?only": "/?only",
}


@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize("tail", TARGETS)
def test_a_url_is_asked_for_with_a_browsers_bytes(tail: str, redirected: bool) -> None:
    with BareServer() as server:
        server.location = server.origin + tail
        url = f"{server.origin}/to" if redirected else server.origin + tail
        assert isinstance(fetch_all([url])[0], Success)
        assert server.targets == [TARGETS[tail]]


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("x.png?u=a%2Fb", "/x.png?u=a%2Fb"),
        ("/caf\udce9.jpg", "/caf%E9.jpg"),  # a byte of Latin-1
        ("/caf\u00e9.jpg", "/caf%C3%A9.jpg"),
    ],
)
def test_odd_redirects_are_read_as_browsers_do(location: str, target: str) -> None:
    with BareServer() as server:
        server.location = location
        assert isinstance(fetch_all([f"{server.origin}/to"])[0], Success)
        assert server.targets == [target]


# Where Chromium leaves the standard (Firefox does not); both are the same address to a server.
CHROMIUMS_OWN = {"/a|b.jpg?c|d": "/a%7Cb.jpg?c|d"}


def test_a_browser_sends_those_bytes(chromium: Browser) -> None:
    sent = {}
    with BareServer() as server:
        for tail in TARGETS:
            server.targets.clear()
            chromium.call(
                "Runtime.evaluate",
                expression="(async (url) => { const image = new Image(); image.src = url;"
                f"await image.decode(); }})({json.dumps(server.origin + tail)})",
                awaitPromise=True,
            )
            sent[tail] = server.targets[-1]
    assert sent == TARGETS | CHROMIUMS_OWN


@pytest.mark.parametrize(
    "name",
    ["utf-8", "UTF-8", "aws-chunked", "none", "binary", "image/png", "image/jpeg", "8bit", "null",
     "identity", "text", "base64", "gzip, utf-8", "", ",", "identity, identity"],
)  # fmt: skip
def test_what_is_no_content_encoding_is_ignored(name: str) -> None:
    with BareServer(f"Content-Encoding: {name}\r\n") as server:
        assert fetch_all([f"{server.origin}/x"]) == [Success(encoded(photo(1)))]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # Of several, the last one that is a type: the Fetch standard's rule.
        (["image/jpeg", "text/html"], "text/html"),
        (["text/html", "image/jpeg"], "image/jpeg"),
        (["text/html, image/png"], "image/png"),
        (["text/html; charset=utf-8", "*/*", "nonsense", ""], "text/html"),
        (["Text/HTML ;a"], "text/html"),
        (["text/html image/png"], None),
        ([], None),
    ],
)
def test_of_several_types_the_last_one_counts(lines: list[str], expected: str | None) -> None:
    assert media_type(lines) == expected
    with BareServer("".join(f"Content-Type: {line}\r\n" for line in lines)) as server:
        outcome = fetch_all([f"{server.origin}/x"])[0]
    assert isinstance(outcome, Failure) == (expected == "text/html")


@pytest.mark.parametrize(
    "name", ["gzip, gzip", "gzip, identity, x-gzip", "gzip\r\nX-Other: a\r\nContent-Encoding: gzip"]
)
def test_a_body_may_be_encoded_twice(name: str) -> None:
    body = gzip.compress(gzip.compress(encoded(photo(1))))
    with BareServer(f"Content-Encoding: {name}\r\n", body) as server:
        assert fetch_all([f"{server.origin}/x"]) == [Success(encoded(photo(1)))]


def test_an_encoded_body_is_decoded(server: HostileServer) -> None:
    assert fetch_all([server.url("gzip")]) == [Success(encoded(photo(4)))]
