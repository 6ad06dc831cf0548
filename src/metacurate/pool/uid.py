"""A pair's ``uid``, defined here; ``kernels.uid`` is the compiled twin.

It is 128 bits of BLAKE2b of the normalised image URL, or of the key. ``normalise_url``, ``url_uid``
and ``key_uid`` are the definition; ``url_uids`` and ``key_uids`` give the same for whole Arrow
arrays through the twin.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pyarrow as pa

from metacurate.kernels.uid import DEFAULT_PORTS, UID_BYTES, hash_values
from metacurate.pool.schema import UID_TYPE

WHITESPACE = " \t\n\r\v\f"
_WHITESPACE = WHITESPACE.encode()
_HIERARCHICAL = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(.*)", re.DOTALL)
_HEX_KEY = re.compile(rb"[0-9a-f]{32}")


def normalise_url(url: str) -> str:
    """The URL without what does not change the image that it names.

    Drops ``#fragment``, then white space (ASCII) at both ends; in a URL with ``scheme://`` also
    lower-cases the scheme and the host (ASCII letters; not the user info) and drops ``:80`` after
    http and ``:443`` after https. Nothing else.
    """
    return _normalise(url.encode()).decode()


def _normalise(url: bytes) -> bytes:
    url = url.partition(b"#")[0].strip(_WHITESPACE)
    parts = _HIERARCHICAL.fullmatch(url)
    if parts is None:
        return url
    scheme, authority, rest = parts.groups()
    scheme = scheme.lower()
    user, at, host = authority.rpartition(b"@")
    host = host.lower().removesuffix(DEFAULT_PORTS.get(scheme, b""))
    return scheme + b"://" + user + at + host + rest


def url_uid(url: str | bytes) -> bytes | None:
    """The uid (16 bytes) of an image URL; None if nothing is left of it when normalised."""
    normal = _normalise(url.encode() if isinstance(url, str) else url)
    return hashlib.blake2b(normal, digest_size=UID_BYTES).digest() if normal else None


def key_uid(key: str | bytes) -> bytes | None:
    """The uid (16 bytes) of a key; None if the key is empty or white space.

    A key of exactly 32 lower-case hex digits (DataComp's ``uid``) is those 16 bytes; any other is
    hashed as it stands.
    """
    key = key.encode() if isinstance(key, str) else key
    if not key.strip(_WHITESPACE):
        return None
    if _HEX_KEY.fullmatch(key):
        return bytes.fromhex(key.decode())
    return hashlib.blake2b(key, digest_size=UID_BYTES).digest()


def url_uids(urls: pa.LargeBinaryArray) -> pa.FixedSizeBinaryArray:
    """``url_uid`` of every value (``large_binary`` or ``large_string``); null stays null."""
    return _uids(urls, True)


def key_uids(keys: pa.LargeBinaryArray) -> pa.FixedSizeBinaryArray:
    """``key_uid`` of every value (``large_binary`` or ``large_string``); null stays null."""
    return _uids(keys, False)


def _uids(values: pa.LargeBinaryArray, are_urls: bool) -> pa.FixedSizeBinaryArray:
    rows = len(values)
    _, offsets, data = values.buffers()
    digests = np.zeros((rows, 2), np.uint64)
    valid = values.is_valid().to_numpy(zero_copy_only=False)
    if rows and data is not None:
        bounds = np.frombuffer(offsets, np.int64, rows + 1, 8 * values.offset)
        hash_values(np.frombuffer(data, np.uint8), bounds, are_urls, digests, valid)
    else:
        valid[:] = False
    null = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.FixedSizeBinaryArray.from_buffers(UID_TYPE, rows, [null, pa.py_buffer(digests)])
