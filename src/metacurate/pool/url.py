"""The one form of a URL that uids, blocklists and the downloader go by (WHATWG URL, by ada)."""

from __future__ import annotations

import re

import ada_url
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.kernels.url import are_plain_absolute
from metacurate.texts.rules import SURROGATES

# White space of Unicode, controls, and marks that nobody sees: what copying leaves at a URL's ends.
_EDGES = "".join(
    chr(c)
    for c in (*range(0x3001), 0xFEFF)
    if c <= 0x20
    or 0x7F <= c <= 0x9F
    or chr(c).isspace()
    or c in (*range(0x200B, 0x2010), *range(0x2060, 0x2065), 0xFEFF)
)
_HOST = re.compile(r"https?://(?:[^/?#]*@)?(\[[^\]]*\]|[^/:?#]*)")
_MAX_OFFSET = np.iinfo(np.int32).max


def canonical_url(url: str, base: str | None = None) -> str | None:
    """An http(s) URL as the URL standard writes it, without ``#fragment``; None for others.

    White space and what nobody sees are taken off both ends first. Scheme and host become lower
    case and ASCII (IDNA), default ports, dot segments, tabs and line breaks go away, spaces and
    characters beyond ASCII are percent-encoded. ``base``: what a relative URL is relative to.
    """
    url = url.strip(_EDGES)
    try:
        if not url.isascii():
            url = SURROGATES.sub("\ufffd", url)  # a lone surrogate cannot be encoded
        found = ada_url.normalize_url(url) if base is None else ada_url.join_url(base, url)
    except ValueError:
        return None
    return found.partition("#")[0] if found.startswith(("http://", "https://")) else None


def host_of(canonical: str) -> str:
    """The host of a canonical URL, without the root's dot."""
    found = _HOST.match(canonical)
    return found[1].rstrip(".") if found is not None else ""


def plain_urls(urls: pa.LargeBinaryArray | pa.LargeStringArray) -> np.ndarray:
    """Which (bool[n]) URLs are in their canonical form at a quick look; not all are found."""
    plain = np.zeros(len(urls), bool)
    _, offsets, data = urls.buffers()
    if not len(urls) or data is None:
        return plain
    ends = np.frombuffer(offsets, np.int64, len(urls) + 1, 8 * urls.offset)
    first, last = int(ends[0]), int(ends[-1])
    if last - first > _MAX_OFFSET:
        half = len(urls) // 2
        if not half:
            return plain
        return np.concatenate([plain_urls(urls[:half]), plain_urls(urls[half:])])
    content = np.frombuffer(data, np.uint8)[first:last]
    are_plain_absolute(content, (ends - first).astype(np.int32), plain)
    return plain & urls.is_valid().to_numpy(zero_copy_only=False)


def canonical_urls(urls: pa.LargeStringArray) -> pa.LargeStringArray:
    """``canonical_url`` of every value; null for null."""
    odd = ~plain_urls(urls) & urls.is_valid().to_numpy(zero_copy_only=False)
    if not odd.any():
        return urls
    values = [canonical_url(url) for url in urls.filter(pa.array(odd)).to_pylist()]
    return pc.replace_with_mask(urls, pa.array(odd), pa.array(values, urls.type))
