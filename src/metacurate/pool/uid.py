"""A pair's ``uid``, defined here; ``kernels.uid`` is the compiled twin.

It is 128 bits of BLAKE2b of the canonical image URL, or of the key. ``url_uid`` and
``key_uid`` are the definition; ``url_uids`` and ``key_uids`` give the same for whole Arrow
arrays through the twin.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.kernels.uid import UID_BYTES, hash_values
from metacurate.pool.schema import UID_TYPE
from metacurate.pool.url import canonical_url, plain_urls

WHITESPACE = " \t\n\r\v\f"
_WHITESPACE = WHITESPACE.encode()
_HIERARCHICAL = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)(.*)", re.DOTALL)
_HEX_KEY = re.compile(rb"[0-9a-f]{32}")


def _normalise(url: bytes) -> bytes:
    """The URL without what does not change the image that it names.

    Of http and https, ``pool.url.canonical_url``. Of others, drops ``#fragment``, then white space
    (ASCII) at both ends; in a URL with ``scheme://`` also lower-cases the scheme and the host
    (ASCII letters; not the user info). Nothing else.
    """
    try:
        canonical = canonical_url(url.decode())
    except UnicodeDecodeError:
        canonical = None
    if canonical is not None:
        return canonical.encode()
    url = url.partition(b"#")[0].strip(_WHITESPACE)
    parts = _HIERARCHICAL.fullmatch(url)
    if parts is None:
        return url
    scheme, authority, rest = parts.groups()
    user, at, host = authority.rpartition(b"@")
    return scheme.lower() + b"://" + user + at + host.lower() + rest


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
    plain = plain_urls(urls)
    uids = _uids(urls, plain.copy())
    odd = ~plain & urls.is_valid().to_numpy(zero_copy_only=False)
    if not odd.any():
        return uids
    values = [url_uid(url) for url in urls.filter(pa.array(odd)).to_pylist()]
    return pc.replace_with_mask(uids, pa.array(odd), pa.array(values, UID_TYPE))


def key_uids(keys: pa.LargeBinaryArray) -> pa.FixedSizeBinaryArray:
    """``key_uid`` of every value (``large_binary`` or ``large_string``); null stays null."""
    return _uids(keys, keys.is_valid().to_numpy(zero_copy_only=False))


def _uids(values: pa.LargeBinaryArray, valid: np.ndarray) -> pa.FixedSizeBinaryArray:
    """The uids of the values for which ``valid`` (bool[n], may be changed); null for others."""
    rows = len(values)
    _, offsets, data = values.buffers()
    digests = np.zeros((rows, 2), np.uint64)
    if rows and data is not None:
        bounds = np.frombuffer(offsets, np.int64, rows + 1, 8 * values.offset)
        hash_values(np.frombuffer(data, np.uint8), bounds, digests, valid)
    else:
        valid[:] = False
    null = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.FixedSizeBinaryArray.from_buffers(UID_TYPE, rows, [null, pa.py_buffer(digests)])
