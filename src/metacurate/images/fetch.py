"""Fetching URLs from hosts that are not trusted: bounded, polite, and never inwards.

URLs are read by the standard that browsers follow (WHATWG's, by ada) and asked for with exactly the
bytes that it makes of them: a signed URL keeps its signature.
Every request is bounded in time, bytes and redirects; every connection is checked against
``addresses``; hosts are asked by a few requests at a time, with a pause between them if wished, and
their ``Retry-After`` is obeyed for all requests to them.
"""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Generic, Self, TypeVar

import ada_url

from metacurate.images.addresses import is_allowed, parse_networks
from metacurate.images.reasons import FailedDownload
from metacurate.images.turns import MAX_REMEMBERED_HOSTS, LocalTurns, Turn, Turns
from metacurate.needs import needs
from metacurate.pool.url import canonical_url
from metacurate.version import __version__

with needs("images"):
    import aiohttp
    from aiohttp.abc import ResolveResult
    from yarl import URL

Consumed = TypeVar("Consumed")

ROBOTS_DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")
MAX_URL_CHARACTERS = 8192
REDIRECTS = frozenset({301, 302, 303, 307, 308})
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
RETRIED_REASONS = frozenset(
    {
        FailedDownload.DNS_FAILED,
        FailedDownload.CONNECT_FAILED,
        FailedDownload.CONNECT_TIMEOUT,
        FailedDownload.CONNECTION_LOST,
        FailedDownload.TIMEOUT,
    }
)
UNREACHABLE = frozenset(
    {
        FailedDownload.DNS_FAILED,
        FailedDownload.CONNECT_FAILED,
        FailedDownload.CONNECT_TIMEOUT,
        FailedDownload.TLS_FAILED,
    }
)
# This many attempts in a row that found nobody at a host decide for its other URLs:
# a pool has thousands of images on hosts that are gone.
MAX_UNREACHABLE = 10
DNS_THREADS = 64
_TYPE = re.compile(r"\s*([\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+)\s*(?:;|$)", re.ASCII)
# Answers that are no image whatever their bytes: not worth their traffic.
PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "application/json"})


@dataclass(frozen=True)
class FetchConfig:
    """Limits of a download. Times are in seconds, sizes in bytes.

    ``concurrency``: requests under way at a time; ``per_host``: of these, to one host name;
    ``host_delay``: from one request's start to the next one's, to one host name;
    ``timeout``: one request, from connecting to the last byte; ``retries``: further attempts after
    a failure that may pass, ``backoff`` * 2**n apart; ``max_wait``: the longest ``Retry-After``
    obeyed (a URL with a longer one is given up); ``robots_directives``: values of ``X-Robots-Tag``
    that forbid the use; ``allow_networks``: networks that are allowed besides public addresses.
    """

    concurrency: int = 128
    per_host: int = 4
    host_delay: float = 0.0
    connect_timeout: float = 10.0
    timeout: float = 30.0
    retries: int = 2
    backoff: float = 1.0
    max_wait: float = 60.0
    max_bytes: int = 20 * 2**20
    max_redirects: int = 5
    user_agent: str = f"metacurate/{__version__}"
    robots_directives: tuple[str, ...] = ROBOTS_DIRECTIVES
    allow_networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Why a URL gave nothing: a reason of the table in ``docs/images.md``."""

    reason: str
    retry_after: float = 0.0
    final: bool = False

    @property
    def may_pass(self) -> bool:
        """Whether another attempt may succeed."""
        status = self.reason.removeprefix("http_")
        return not self.final and (
            self.reason in RETRIED_REASONS
            or (status.isdecimal() and int(status) in RETRIED_STATUSES)
        )


@dataclass(frozen=True)
class Success(Generic[Consumed]):
    """What the consumer made of the body."""

    value: Consumed


class BlockedAddressError(Exception):
    """A connection would have gone to an address that is not allowed."""


class Fetcher:
    """An HTTP client for many URLs of many hosts; use it as an async context manager.

    ``turns``: where the turns of hosts come from, if other fetchers ask the same hosts.
    """

    def __init__(self, config: FetchConfig, turns: Turns | None = None) -> None:
        self._config = config
        self._networks = parse_networks(config.allow_networks)
        self._turns = turns or LocalTurns(config.per_host, config.host_delay)
        self._unreachable: dict[str, tuple[int, Failure]] = {}

    async def __aenter__(self) -> Self:
        config = self._config
        threads = ThreadPoolExecutor(min(DNS_THREADS, config.concurrency), "dns")
        asyncio.get_running_loop().set_default_executor(threads)
        self._places = asyncio.Semaphore(config.concurrency)
        await self._turns.__aenter__()
        connector = aiohttp.TCPConnector(
            limit=0,
            resolver=_Resolver(self._allowed),
            socket_factory=self._socket,
            ttl_dns_cache=300,
            dns_cache_max_size=MAX_REMEMBERED_HOSTS,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "User-Agent": config.user_agent,
                "Accept": "image/*,*/*;q=0.5",
                "Accept-Encoding": "identity",
            },
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_timeout),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._turns.__aexit__(None, None, None)
        await self._session.close()

    def _allowed(self, address: str) -> bool:
        return is_allowed(address, self._networks)

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """The socket of one connection. All connections pass here, with their final address."""
        family, kind, protocol, _, address = info
        if not self._allowed(str(address[0])):
            raise BlockedAddressError
        return socket.socket(family, kind, protocol)

    async def fetch(
        self, url: str, consume: Callable[[bytes], Awaitable[Consumed]]
    ) -> Success[Consumed] | Failure:
        """Fetch a URL and hand its body to ``consume``; never raises for what the web does.

        ``consume`` runs inside the request's place among the ``concurrency``: so many bodies are in
        memory at most.
        """
        for attempt in range(self._config.retries + 1):
            outcome = await self._follow(url, consume)
            if isinstance(outcome, Success) or not outcome.may_pass:
                break
            if attempt == self._config.retries or outcome.retry_after > self._config.max_wait:
                break
            await asyncio.sleep(max(outcome.retry_after, self._config.backoff * 2**attempt))
        return outcome

    async def _follow(
        self, url: str, consume: Callable[[bytes], Awaitable[Consumed]]
    ) -> Success[Consumed] | Failure:
        target = _parse(url)
        if target is None:
            return Failure(FailedDownload.BAD_URL)
        for _ in range(self._config.max_redirects + 1):
            # Each hop waits for its host's turn again and holds no other host's meanwhile.
            outcome = await self._request(target, consume)
            if not isinstance(outcome, _Redirect):
                return outcome
            location = _parse(outcome.location, target)
            if location is None:
                return Failure(FailedDownload.BAD_REDIRECT)
            target = location
        return Failure(FailedDownload.TOO_MANY_REDIRECTS)

    async def _request(
        self, url: str, consume: Callable[[bytes], Awaitable[Consumed]]
    ) -> Success[Consumed] | Failure | _Redirect:
        name = ada_url.URL(url).hostname
        async with self._turn(name) as turn:
            missed, last = self._unreachable.get(name, (0, None))
            if last is not None and missed >= MAX_UNREACHABLE:
                return last
            outcome = await self._get(url)
            if isinstance(outcome, Failure) and outcome.reason in UNREACHABLE:
                # The URLs not tried any more get the reason of the last one tried: which ones they
                # are depends on timing, and the output must not.
                self._remember_unreachable(name, missed + 1, Failure(outcome.reason, final=True))
                return outcome
            self._unreachable.pop(name, None)
            if isinstance(outcome, Failure) and outcome.retry_after:
                turn.pause = min(outcome.retry_after, self._config.max_wait)
            if isinstance(outcome, bytes):
                return Success(await consume(outcome))
            return outcome

    def _remember_unreachable(self, name: str, missed: int, failure: Failure) -> None:
        self._unreachable.pop(name, None)
        self._unreachable[name] = (missed, failure)
        if len(self._unreachable) > MAX_REMEMBERED_HOSTS:
            self._unreachable.pop(next(iter(self._unreachable)))

    @asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[Turn]:
        """Wait for a host's turn first, then for a place among all requests.

        In this order: URLs that wait for a busy host take no place from others.
        """
        while True:
            turn = await self._turns.take(name)
            try:
                async with self._places:
                    if turn.start():
                        yield turn
                        return
            finally:
                turn.end()

    async def _get(self, url: str) -> bytes | Failure | _Redirect:
        """One request without retries or redirects: the decoded body, or why there is none."""
        try:
            async with (
                asyncio.timeout(self._config.timeout),
                self._session.get(_request_url(url), allow_redirects=False) as response,
            ):
                return await self._read(response)
        except BlockedAddressError:
            return Failure(FailedDownload.BLOCKED_ADDRESS)
        except aiohttp.ConnectionTimeoutError:
            return Failure(FailedDownload.CONNECT_TIMEOUT)
        except TimeoutError:
            return Failure(FailedDownload.TIMEOUT)
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError, ssl.SSLError):
            return Failure(FailedDownload.TLS_FAILED)
        except aiohttp.ClientConnectorDNSError:
            return Failure(FailedDownload.DNS_FAILED)
        except aiohttp.ClientConnectorError:
            return Failure(FailedDownload.CONNECT_FAILED)
        except aiohttp.InvalidURL:
            return Failure(FailedDownload.BAD_URL)
        except aiohttp.ClientResponseError:
            return Failure(FailedDownload.BAD_RESPONSE)
        except (aiohttp.ClientError, OSError):
            return Failure(FailedDownload.CONNECTION_LOST)
        except ValueError:
            # Names that cannot be asked for ("a..b", labels over 63 characters).
            return Failure(FailedDownload.BAD_URL)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | Failure | _Redirect:
        config = self._config
        if response.status in REDIRECTS:
            location = response.headers.get("Location")
            return (
                Failure(FailedDownload.BAD_REDIRECT)
                if location is None
                else _Redirect(_location(location))
            )
        if response.status != 200:
            retry_after = _seconds(response.headers.get("Retry-After"))
            waits = response.status in (429, 503)
            return Failure(f"http_{response.status}", retry_after if waits else 0.0)
        robots = response.headers.getall("X-Robots-Tag", [])
        if forbids(robots, config.user_agent, config.robots_directives):
            return Failure(FailedDownload.ROBOTS_HEADER)
        if media_type(response.headers.getall("Content-Type", [])) in PAGE_TYPES:
            return Failure(FailedDownload.WRONG_CONTENT_TYPE)
        if (response.content_length or 0) > config.max_bytes:
            return Failure(FailedDownload.TOO_MANY_BYTES)
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > config.max_bytes:
                return Failure(FailedDownload.TOO_MANY_BYTES)
        if not body:
            return Failure(FailedDownload.EMPTY_BODY)
        encodings = ", ".join(response.headers.getall("Content-Encoding", []))
        return _decoded(bytes(body), encodings, config.max_bytes)


@dataclass(frozen=True)
class _Redirect:
    location: str


class _Resolver(aiohttp.ThreadedResolver):
    """The system's resolver without the addresses that are not allowed."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        super().__init__()
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        allowed = [answer for answer in found if self._allowed(answer["host"])]
        if found and not allowed:
            raise BlockedAddressError
        return allowed


def _parse(url: str, base: str | None = None) -> str | None:
    """An http or https URL with a host and without user name or password, as browsers write it.

    None for others. ``base``: what a redirect is relative to.
    """
    if len(url) > MAX_URL_CHARACTERS:
        return None
    try:
        canonical = canonical_url(url, base)
        parsed = ada_url.URL(canonical) if canonical is not None else None
    except ValueError:
        return None
    if parsed is None or parsed.port == "0":
        return None
    return None if parsed.username or parsed.password else canonical


def _request_url(url: str) -> URL:
    """A parsed URL as the client sends it unchanged: to the client, its query is of its path."""
    parts = ada_url.URL(url)
    target = url.partition("#")[0].removeprefix(f"{parts.protocol}//{parts.host}")
    return URL.build(
        scheme=parts.protocol.removesuffix(":"), authority=parts.host, path=target, encoded=True
    )


def _location(header: str) -> str:
    """A ``Location`` with bytes that are no UTF-8 percent-encoded, as browsers read it."""
    try:
        header.encode()
    except UnicodeEncodeError:
        data = header.encode("utf-8", "surrogateescape")
        return "".join(chr(byte) if byte < 128 else f"%{byte:02X}" for byte in data)
    return header


def _seconds(retry_after: str | None) -> float:
    """A ``Retry-After`` value in seconds from now (RFC 9110: a number or a date); 0 if invalid."""
    value = (retry_after or "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def media_type(headers: list[str]) -> str | None:
    """The type that ``Content-Type`` lines state: of several, the last (Fetch standard)."""
    found = [_TYPE.match(part) for part in ",".join(headers).split(",")]
    stated = [match[1].lower() for match in found if match is not None and match[1] != "*/*"]
    return stated[-1] if stated else None


def forbids(headers: list[str], user_agent: str, directives: tuple[str, ...]) -> bool:
    """Whether ``X-Robots-Tag`` headers hold one of the directives for all agents or for this one.

    ``agent: directive, directive`` speaks to one agent: to us if our ``User-Agent`` contains it.
    ``none`` is both ``noindex`` and ``nofollow``.
    """
    for header in headers:
        agent, colon, rest = header.partition(":")
        named = bool(colon) and "," not in agent and not agent.strip().startswith(VALUED_DIRECTIVES)
        if named and agent.strip().lower() not in user_agent.lower():
            continue
        words = {word.strip().lower() for word in (rest if named else header).split(",")}
        if "none" in words:
            words |= {"noindex", "nofollow"}
        if words.intersection(directives):
            return True
    return False


# Directives that have a value after a colon; what stands before it is not an agent's name.
VALUED_DIRECTIVES = ("max-", "unavailable_after")


# Compression that only a client able to read it should be sent.
UNREAD_ENCODINGS = frozenset({"br", "zstd", "compress", "x-compress", "dcb", "dcz"})
MAX_ENCODINGS = 4


def _decoded(body: bytes, header: str, max_bytes: int) -> bytes | Failure:
    """The body without its ``Content-Encoding``, never inflated past ``max_bytes``.

    Names that are no encoding (``utf-8``, ``binary``, ``image/png``) are ignored, as browsers do.
    """
    encodings = [name.strip().lower() for name in header.split(",")]
    if UNREAD_ENCODINGS.intersection(encodings):
        return Failure(FailedDownload.UNKNOWN_CONTENT_ENCODING)
    encodings = [name for name in encodings if name not in ("", "identity")]
    known = all(name in ("gzip", "x-gzip", "deflate") for name in encodings)
    if not known or len(encodings) > MAX_ENCODINGS:
        return body
    for _ in encodings:
        inflated = _inflated(body, max_bytes)
        if isinstance(inflated, Failure):
            return inflated
        body = inflated
    return body


def _inflated(body: bytes, max_bytes: int) -> bytes | Failure:
    # 32 + 15: gzip or zlib by their header; -15: the raw deflate that some servers send.
    for window in (47, -15):
        inflate = zlib.decompressobj(window)
        try:
            data = inflate.decompress(body, max_bytes + 1)
        except zlib.error:
            continue
        if len(data) > max_bytes:
            return Failure(FailedDownload.TOO_MANY_BYTES)
        return data if inflate.eof and data else Failure(FailedDownload.CONNECTION_LOST)
    return Failure(FailedDownload.BAD_RESPONSE)


# What the process has open besides: files of two shards, pipes, libraries.
OTHER_DESCRIPTORS = 48


def affordable_concurrency(wanted: int) -> int:
    """How many requests at a time the limit of open files allows, at most ``wanted``, at least 1.

    The limit is raised as far as the system lets this process.
    """
    # A connection, and a look-up before it.
    needed = OTHER_DESCRIPTORS + wanted + min(wanted, DNS_THREADS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        if limit < needed:
            return max(1, min(wanted, (limit - OTHER_DESCRIPTORS) // 2))
    return wanted
