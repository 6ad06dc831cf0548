"""A list of image URLs and domains to leave out."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.errors import UserError
from metacurate.pool.schema import UID_TYPE
from metacurate.pool.uid import WHITESPACE, url_uid, url_uids
from metacurate.pool.url import canonical_url, canonical_urls, host_of
from metacurate.runtime.inputs import lines_of, read_text
from metacurate.runtime.storage import Address

# Of URLs other than http(s). User info ends at the last "@" before the path.
_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/\\?#]*@)?(?P<host>\[[^\]/\\?#]*\]|[^/\\?#:]*)"
_LABELS = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_-]{1,63}")
# Of lists for ad blockers: ||example.com^.
_AD_RULE = re.compile(r"\|\|([^|^$/*]+)\^?")
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
_COMMENT = re.compile(r"(?:^|\s)#.*|^!.*|^\[Adblock[^\]]*\]$")


@dataclass(frozen=True)
class Blocklist:
    """``domains``: lower case, ASCII (IDNA), each with its subdomains; ``urls``: sorted uids."""

    domains: frozenset[str] = frozenset()
    urls: tuple[bytes, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the list says, whatever its order and spelling."""
        digest = hashlib.sha256("\n".join(sorted(self.domains)).encode())
        digest.update(b"\0" + b"".join(self.urls))
        return digest.hexdigest()

    def blocks_domain(self, host: str) -> bool:
        """Whether the host or a domain above it is listed."""
        name = host.lower().rstrip(".")
        while name:
            if name in self.domains:
                return True
            name = name.partition(".")[2]
        return False

    def masks(self, urls: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        """Two masks (bool[rows]) over a string column: domain is listed; the URL itself is listed.

        Rows without a URL, or without a host, are not blocked.
        """
        by_domain = np.zeros(len(urls), dtype=bool)
        by_url = np.zeros(len(urls), dtype=bool)
        if self.domains:
            canonical = canonical_urls(urls.cast(pa.large_string()))
            known = pc.coalesce(canonical, urls.cast(pa.large_string()))
            hosts = pc.struct_field(pc.extract_regex(known, _HOST), "host").dictionary_encode()
            blocked = [self.blocks_domain(h) if h else False for h in hosts.dictionary.to_pylist()]
            codes = hosts.indices.fill_null(len(blocked)).to_numpy()
            by_domain = np.array([*blocked, False])[codes]
        if self.urls:
            uids = url_uids(urls.cast(pa.large_string()))
            found = pc.is_in(uids, value_set=pa.array(self.urls, UID_TYPE))
            by_url = found.to_numpy(zero_copy_only=False)
        return by_domain, by_url


def read_blocklist(path: Address) -> Blocklist:
    """Read a list with one domain or one URL a line.

    A domain is written ``example.com``, ``*.example.com``, ``||example.com^`` (as ad blockers'
    lists do) or ``0.0.0.0 example.com example.org`` (as hosts files do). Blank lines are skipped,
    comments (``#``, and lines with ``!``), and what hosts files say of the network itself
    (``255.255.255.255 broadcasthost``). UserError names a line that is none of this, and a file
    that cannot be read.
    """
    lines = lines_of(read_text(path, "blocklist"))
    domains, urls = set(), set()
    for number, line in enumerate(lines, 1):
        entry = _COMMENT.sub("", line.strip(WHITESPACE)).strip()
        if not entry:
            continue
        if "://" in entry:
            uid = url_uid(entry) if _is_url(entry) else None
            if uid is not None:
                urls.add(uid)
                continue
        elif (named := _domains(entry)) is not None:
            domains.update(named)
            continue
        raise UserError(
            f"blocklist {path}, line {number}: {entry[:80]!r} is neither a domain (example.com, "
            "||example.com^) nor a URL (https://example.com/a.jpg)"
        )
    return Blocklist(frozenset(domains), tuple(sorted(urls)))


def _is_url(entry: str) -> bool:
    """Whether an entry is a URL with a host."""
    canonical = canonical_url(entry)
    if canonical is not None:
        return True
    scheme, _, rest = entry.partition("://")
    return scheme.lower() not in ("http", "https") and scheme.isalnum() and rest[:1].isalnum()


def _domains(entry: str) -> list[str] | None:
    """The domains that an entry names; None if it is no entry."""
    rule = _AD_RULE.fullmatch(entry)
    names = _hosts_line(entry) if rule is None else [rule[1]]
    found = [_domain(name) for name in ([entry] if names is None else names)]
    known = [domain for domain in found if domain is not None]
    return known if len(known) == len(found) else None


def _hosts_line(entry: str) -> list[str] | None:
    """What a line of a hosts file sends nowhere; None if it is no such line."""
    first, *names = entry.split()
    if not names:
        return None
    try:
        address = ipaddress.ip_address(first)
    except ValueError:
        return None
    if address.is_unspecified or address.is_loopback:
        return names
    of_network = address.is_link_local or address.is_multicast or address == _BROADCAST
    return [] if of_network else None


def _domain(entry: str) -> str | None:
    """The domain that an entry names, as canonical URLs have it; None if it names none."""
    name = entry.removeprefix("*").removeprefix(".")
    if set(name) & set(" \t/\\@:?#"):
        return None
    canonical = canonical_url(f"http://{name}/")
    host = host_of(canonical) if canonical is not None else ""
    return host if len(host) <= 253 and _LABELS.fullmatch(host) else None
