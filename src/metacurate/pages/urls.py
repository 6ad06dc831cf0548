"""Addresses made absolute and normal, defined here; ``kernels.url`` is the compiled twin.

Image addresses are as pages write them, normal ones as the WHATWG URL rules have it (by ada).
"""

from __future__ import annotations

import contextlib
import re
from enum import StrEnum

import ada_url

from metacurate.pages.encoding import encode_query
from metacurate.pages.image_address import MAX_URL_CHARS, SPACE
from metacurate.texts.rules import SURROGATES

_BREAKS = re.compile(r"[\t\n\r]")  # they mean nothing anywhere in an address
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
# What the URL parser would leave as it is: most addresses, at a tenth of its price. A host that
# ends in a letter and has no "xn--" is no number and needs no IDNA. Dot segments ("/.", "%2e") are
# looked for apart.
_PLAIN_ABSOLUTE = re.compile(
    r"https?://(?:[a-z0-9][a-z0-9-]*+\.)++[a-z]++/[A-Za-z0-9_~!$&()*+,;=:@/.%?-]*+"
)
_PLAIN_RELATIVE = re.compile(r"/?[A-Za-z0-9_][A-Za-z0-9_~!$&()*+,;=@/.%?-]*+")


class BadAddress(StrEnum):
    """Why an image has no address that can be fetched."""

    NO_URL = "no image URL"
    DATA_URL = "data: URL"
    NOT_HTTP = "not http(s)"
    BAD_URL = "bad URL"
    LONG_URL = "oversized URL"


class Base:
    """What a page's relative addresses are relative to."""

    def __init__(
        self, page_url: str, base_href: str | None = None, encoding: str | None = None
    ) -> None:
        """``base_href``: the page's ``<base href>``; ``encoding``: the page's, by default UTF-8.

        Raises ValueError if the page has no http URL. A ``base_href`` that is no http(s) address is
        skipped, as browsers do. To one of over ``MAX_URL_CHARS`` no address is relative: they would
        be as long.
        """
        self._encoding = encoding
        self.url = page_url if _is_plain_absolute(page_url) else _join(page_url.strip(SPACE))
        if base_href is not None:
            with contextlib.suppress(ValueError):
                self.url = _join(base_href.strip(SPACE), self.url)
        scheme_end = self.url.index("//") + 2
        path = self.url.index("/", scheme_end)
        self._scheme = self.url[: scheme_end - len("//")]
        self._origin = self.url[:path]
        self._folder = self.url[: self.url.partition("?")[0].rindex("/") + 1]
        self._is_long = base_href is not None and len(self.url) > MAX_URL_CHARS
        if self._is_long:
            self.url = f"{self._origin}/"  # joining would copy it, for each image again

    def resolve(self, written: str) -> tuple[str | None, str]:
        """The absolute, normalised address without ``#fragment``, and ``""``; or None and why not.

        Normal as WHATWG's URL standard makes it: lower-case scheme and host (IDNA), no default
        port, no dot segments, spaces and non-ASCII characters percent-encoded (in queries by the
        page's encoding).
        """
        url = written.strip(SPACE)
        if self._encoding is not None and not url.isascii():
            # The one part of an address that is written in the page's own encoding.
            start, mark, rest = SURROGATES.sub("\ufffd", url).partition("?")
            query, hash_sign, fragment = rest.partition("#")
            if "#" not in start:
                url = start + mark + encode_query(query, self._encoding) + hash_sign + fragment
        if not url or url.startswith("#"):
            return None, BadAddress.NO_URL
        if len(url) > MAX_URL_CHARS:
            return None, BadAddress.DATA_URL if url[:5].lower() == "data:" else BadAddress.LONG_URL
        if self._is_long and self._is_of_folder(_BREAKS.sub("", url)):
            return None, BadAddress.LONG_URL
        if "/." not in url and "%2" not in url:
            if _PLAIN_RELATIVE.fullmatch(url):
                url = (self._origin if url[0] == "/" else self._folder) + url
                return (url, "") if len(url) <= MAX_URL_CHARS else (None, BadAddress.LONG_URL)
            if url.startswith("//") and _is_plain_absolute(self._scheme + url):
                url = self._scheme + url
                return (url, "") if len(url) <= MAX_URL_CHARS else (None, BadAddress.LONG_URL)
            if _is_plain_absolute(url):
                return url, ""
        scheme = _SCHEME.match(_BREAKS.sub("", url))
        if scheme is not None and scheme.group(1).lower() not in ("http", "https"):
            is_data = scheme.group(1).lower() == "data"
            return None, BadAddress.DATA_URL if is_data else BadAddress.NOT_HTTP
        try:
            url = _join(url, self.url)
        except ValueError:
            return None, BadAddress.BAD_URL
        return (url, "") if len(url) <= MAX_URL_CHARS else (None, BadAddress.LONG_URL)

    def _is_of_folder(self, url: str) -> bool:
        """Whether an address begins as the base's path does."""
        scheme = _SCHEME.match(url)
        if scheme is not None and scheme.group().lower() != self._scheme:
            return False
        # "http:a.jpg" is relative to a base of http.
        return url[scheme.end() if scheme is not None else 0 :][:1] not in ("/", "\\")


def _is_plain_absolute(url: str) -> bool:
    return (
        _PLAIN_ABSOLUTE.fullmatch(url) is not None
        and "xn--" not in url
        and "/." not in url
        and "%2" not in url
    )


def _join(url: str, base: str | None = None) -> str:
    """Parse an address; ValueError if it is no http(s) address."""
    # A lone surrogate cannot be encoded.
    url = SURROGATES.sub("\ufffd", url) if not url.isascii() else url
    joined = ada_url.join_url(base, url) if base is not None else ada_url.normalize_url(url)
    joined = joined.partition("#")[0]
    if not joined.startswith(("http://", "https://")):
        raise ValueError(f"{url[:100]} is no http(s) address")
    return joined
