"""A list of image URLs and domains to leave out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.errors import UserError
from metacurate.pool.schema import UID_TYPE
from metacurate.pool.uid import url_uid, url_uids

# User info ends at the last "@" before the path; browsers take "\" for "/".
_HOST = r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/\\?#]*@)?(?P<host>\[[^\]/\\?#]*\]|[^/\\?#:]*)"


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
        name = _ascii(host)
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
            hosts = pc.struct_field(pc.extract_regex(urls, _HOST), "host").dictionary_encode()
            blocked = [self.blocks_domain(h) if h else False for h in hosts.dictionary.to_pylist()]
            codes = hosts.indices.fill_null(len(blocked)).to_numpy()
            by_domain = np.array([*blocked, False])[codes]
        if self.urls:
            uids = url_uids(urls.cast(pa.large_string()))
            found = pc.is_in(uids, value_set=pa.array(self.urls, UID_TYPE))
            by_url = found.to_numpy(zero_copy_only=False)
        return by_domain, by_url


def read_blocklist(path: Path) -> Blocklist:
    """Read a list with one domain (``example.com``, ``*.example.com``) or one URL a line.

    Blank lines and lines that begin with ``#`` are passed over. UserError names a line that is
    neither, and a file that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"blocklist {path} cannot be read: {error}") from None
    domains, urls = set(), set()
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        uid = url_uid(line) if "://" in line else None
        domain = _ascii(line.removeprefix("*").removeprefix("."))
        if uid is not None:
            urls.add(uid)
        elif _is_hostname(domain):
            domains.add(domain)
        else:
            raise UserError(
                f"blocklist {path}, line {number}: {line[:80]!r} is neither a domain "
                "(example.com) nor a URL (https://example.com/a.jpg)"
            )
    return Blocklist(frozenset(domains), tuple(sorted(urls)))


def _is_hostname(name: str) -> bool:
    labels = name.split(".")
    return len(name) <= 253 and all(
        0 < len(label) <= 63 and not set(label) & set(" \t/\\@:?#*") for label in labels
    )


def _ascii(host: str) -> str:
    """The host in lower case, in IDNA's ASCII form where it has one, without the root's dot."""
    host = host.lower().rstrip(".")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host
