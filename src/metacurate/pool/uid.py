"""A pair's ``uid``: 128 bits of BLAKE2b of its normalised image URL, or of its key.

The reference (``normalise_url``, ``url_uid``, ``key_uid``) is the definition; ``url_uids`` and
``key_uids`` give the same for whole Arrow arrays through a compiled kernel.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pyarrow as pa
from numba import njit

from metacurate.pool.schema import UID_TYPE

UID_BYTES = 16
WHITESPACE = " \t\n\r\v\f"
DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}

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


# The compiled kernel. BLAKE2b is specified in RFC 7693; names follow it (h: state, m: message
# words, v: working vector, t: bytes so far). Words are little-endian, as on every machine that
# Arrow's buffers are read on without swapping.

_U = np.uint64
_IV = tuple(
    _U(word)
    for word in (
        0x6A09E667F3BCC908,
        0xBB67AE8584CAA73B,
        0x3C6EF372FE94F82B,
        0xA54FF53A5F1D36F1,
        0x510E527FADE682D1,
        0x9B05688C2B3E6C1F,
        0x1F83D9ABFB41BD6B,
        0x5BE0CD19137E2179,
    )
)
_H0 = _IV[0] ^ _U(0x01010000) ^ _U(UID_BYTES)
_BLOCK = 128
_ALL_ONES = _U(0xFFFFFFFFFFFFFFFF)
_HASH_SIGNS = _U(0x2323232323232323)
_LOW_BITS, _HIGH_BITS = _U(0x0101010101010101), _U(0x8080808080808080)
_HTTP_PORT, _HTTPS_PORT = tuple(DEFAULT_PORTS[b"http"]), tuple(DEFAULT_PORTS[b"https"])
_R32, _R24, _R40, _R16, _R48, _R63, _R1 = (_U(n) for n in (32, 24, 40, 16, 48, 63, 1))


@njit(cache=True, nogil=True)
def _mix(a, b, c, d, x, y):  # type: ignore[no-untyped-def]
    a = a + b + x
    d = d ^ a
    d = (d >> _R32) | (d << _R32)
    c = c + d
    b = b ^ c
    b = (b >> _R24) | (b << _R40)
    a = a + b + y
    d = d ^ a
    d = (d >> _R16) | (d << _R48)
    c = c + d
    b = b ^ c
    b = (b >> _R63) | (b << _R1)
    return a, b, c, d


@njit(cache=True, nogil=True)
def _round(v, m):  # type: ignore[no-untyped-def]
    v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15 = v
    v0, v4, v8, v12 = _mix(v0, v4, v8, v12, m[0], m[1])
    v1, v5, v9, v13 = _mix(v1, v5, v9, v13, m[2], m[3])
    v2, v6, v10, v14 = _mix(v2, v6, v10, v14, m[4], m[5])
    v3, v7, v11, v15 = _mix(v3, v7, v11, v15, m[6], m[7])
    v0, v5, v10, v15 = _mix(v0, v5, v10, v15, m[8], m[9])
    v1, v6, v11, v12 = _mix(v1, v6, v11, v12, m[10], m[11])
    v2, v7, v8, v13 = _mix(v2, v7, v8, v13, m[12], m[13])
    v3, v4, v9, v14 = _mix(v3, v4, v9, v14, m[14], m[15])
    return v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15


@njit(cache=True, nogil=True)
def _compress(h, words, at, t, final):  # type: ignore[no-untyped-def]
    m0, m1, m2, m3 = words[at], words[at + 1], words[at + 2], words[at + 3]
    m4, m5, m6, m7 = words[at + 4], words[at + 5], words[at + 6], words[at + 7]
    m8, m9, m10, m11 = words[at + 8], words[at + 9], words[at + 10], words[at + 11]
    m12, m13, m14, m15 = words[at + 12], words[at + 13], words[at + 14], words[at + 15]
    h0, h1, h2, h3, h4, h5, h6, h7 = h
    i0, i1, i2, i3, i4, i5, i6, i7 = _IV
    # fmt: off
    v = (h0, h1, h2, h3, h4, h5, h6, h7, i0, i1, i2, i3, i4 ^ t, i5, i6 ^ final, i7)
    v = _round(v, (m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15))
    v = _round(v, (m14, m10, m4, m8, m9, m15, m13, m6, m1, m12, m0, m2, m11, m7, m5, m3))
    v = _round(v, (m11, m8, m12, m0, m5, m2, m15, m13, m10, m14, m3, m6, m7, m1, m9, m4))
    v = _round(v, (m7, m9, m3, m1, m13, m12, m11, m14, m2, m6, m5, m10, m4, m0, m15, m8))
    v = _round(v, (m9, m0, m5, m7, m2, m4, m10, m15, m14, m1, m11, m12, m6, m8, m3, m13))
    v = _round(v, (m2, m12, m6, m10, m0, m11, m8, m3, m4, m13, m7, m5, m15, m14, m1, m9))
    v = _round(v, (m12, m5, m1, m15, m14, m13, m4, m10, m0, m7, m6, m3, m9, m2, m8, m11))
    v = _round(v, (m13, m11, m7, m14, m12, m1, m3, m9, m5, m0, m15, m4, m8, m6, m2, m10))
    v = _round(v, (m6, m15, m14, m9, m11, m3, m0, m8, m12, m2, m13, m7, m1, m4, m10, m5))
    v = _round(v, (m10, m2, m8, m4, m7, m6, m1, m5, m15, m11, m9, m14, m3, m12, m13, m0))
    v = _round(v, (m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, m12, m13, m14, m15))
    v = _round(v, (m14, m10, m4, m8, m9, m15, m13, m6, m1, m12, m0, m2, m11, m7, m5, m3))
    # fmt: on
    return (
        h0 ^ v[0] ^ v[8],
        h1 ^ v[1] ^ v[9],
        h2 ^ v[2] ^ v[10],
        h3 ^ v[3] ^ v[11],
        h4 ^ v[4] ^ v[12],
        h5 ^ v[5] ^ v[13],
        h6 ^ v[6] ^ v[14],
        h7 ^ v[7] ^ v[15],
    )


@njit(cache=True, nogil=True)
def _is_space(byte):  # type: ignore[no-untyped-def]
    return byte == 32 or 9 <= byte <= 13


@njit(cache=True, nogil=True)
def _lower(byte):  # type: ignore[no-untyped-def]
    return np.uint8(byte + 32) if 65 <= byte <= 90 else byte


@njit(cache=True, nogil=True)
def _is_letter(byte):  # type: ignore[no-untyped-def]
    return 65 <= byte <= 90 or 97 <= byte <= 122


@njit(cache=True, nogil=True)
def _nibble(byte):  # type: ignore[no-untyped-def]
    if 48 <= byte <= 57:
        return np.int64(byte) - 48
    if 97 <= byte <= 102:
        return np.int64(byte) - 87
    return np.int64(-1)


@njit(cache=True, nogil=True)
def _first_hash_sign(words, size):  # type: ignore[no-untyped-def]
    """The position of the first ``#`` in the first ``size`` bytes; ``size`` if there is none.

    Eight bytes at a time: a byte of ``word ^ "########"`` is zero where the word has a ``#``.
    """
    for at in range((size + 7) // 8):
        zero = words[at] ^ _HASH_SIGNS
        found = (zero - _LOW_BITS) & ~zero & _HIGH_BITS
        if found != _U(0):
            # The lowest bit found is exact; higher ones may be borrowed.
            position = 8 * at
            while found & _U(0xFF) == _U(0):
                found >>= _U(8)
                position += 1
            return min(position, size)
    return size


@njit(cache=True, nogil=True)
def _ends_with_port(block, host, path, port):  # type: ignore[no-untyped-def]
    if path - host < len(port):
        return False
    for digit in range(len(port)):  # noqa: SIM110 (compiled)
        if block[path - len(port) + digit] != port[digit]:
            return False
    return True


@njit(cache=True, nogil=True)
def _lower_host(block, size):  # type: ignore[no-untyped-def]
    """Lower-case scheme and host and drop a default port, in place; the new size."""
    colon = 0
    while colon < size:
        byte = block[colon]
        if not (_is_letter(byte) or 48 <= byte <= 57 or byte in (43, 45, 46)):
            break
        colon += 1
    if (
        not _is_letter(block[0])
        or colon + 3 > size
        or block[colon] != 58
        or block[colon + 1] != 47
        or block[colon + 2] != 47
    ):
        return size
    host = path = colon + 3
    while path < size and block[path] != 47 and block[path] != 63:
        if block[path] == 64:
            host = path + 1
        path += 1
    for position in range(colon):
        block[position] = _lower(block[position])
    for position in range(host, path):
        block[position] = _lower(block[position])
    removed = 0
    if block[0] == 104 and block[1] == 116 and block[2] == 116 and block[3] == 112:
        if colon == 4 and _ends_with_port(block, host, path, _HTTP_PORT):
            removed = len(_HTTP_PORT)
        elif colon == 5 and block[4] == 115 and _ends_with_port(block, host, path, _HTTPS_PORT):
            removed = len(_HTTPS_PORT)
    if removed:
        for position in range(path, size):
            block[position - removed] = block[position]
    return size - removed


@njit("void(Array(uint8, 1, 'C', readonly=True), Array(int64, 1, 'C', readonly=True), boolean,"
      " uint64[:, ::1], boolean[::1])", cache=True, nogil=True)  # fmt: skip
def hash_values(data, offsets, are_urls, digests, valid):  # type: ignore[no-untyped-def]
    """Fill ``digests`` (uint64[n, 2]) with the uids of n byte strings; blanks turn ``valid`` false.

    ``data`` and ``offsets`` (int64[n + 1]) are Arrow's buffers; only rows whose ``valid`` is true
    are looked at. ``are_urls`` chooses between the rules of ``url_uid`` and ``key_uid``.
    """
    longest = 0
    for row in range(len(valid)):
        longest = max(longest, offsets[row + 1] - offsets[row])
    block = np.zeros((longest // _BLOCK + 1) * _BLOCK, np.uint8)
    words = block.view(np.uint64)
    for row in range(len(valid)):
        if not valid[row]:
            continue
        start, end = offsets[row], offsets[row + 1]
        first = start
        while first < end and _is_space(data[first]):
            first += 1
        if first == end:
            valid[row] = False
            continue
        if are_urls:
            start = first
        size = end - start
        # Unsigned positions: no test for negative ones, so that the copy is vectorised.
        for position in range(_U(size)):
            block[position] = data[_U(start) + position]
        if are_urls:
            size = _first_hash_sign(words, size)
            while size > 0 and _is_space(block[size - 1]):
                size -= 1
            if size == 0:
                valid[row] = False
                continue
            size = _lower_host(block, size)
        elif size == 32:
            # Hex digits are two to a byte, first digit high; a word's first byte is its lowest.
            hexadecimal = True
            for half in range(2):
                word = _U(0)
                for digit in range(16):
                    nibble = _nibble(block[16 * half + digit])
                    hexadecimal = hexadecimal and nibble >= 0
                    word |= _U(nibble & 15) << _U(8 * (digit // 2) + 4 * (1 - digit % 2))
                digests[row, half] = word
            if hexadecimal:
                continue
        blocks = (size + _BLOCK - 1) // _BLOCK
        for position in range(_U(size), _U(blocks * _BLOCK)):
            block[position] = 0
        _, i1, i2, i3, i4, i5, i6, i7 = _IV
        h = (_H0, i1, i2, i3, i4, i5, i6, i7)
        for number in range(blocks - 1):
            h = _compress(h, words, 16 * number, _U(_BLOCK * (number + 1)), _U(0))
        h = _compress(h, words, 16 * (blocks - 1), _U(size), _ALL_ONES)
        digests[row, 0] = h[0]
        digests[row, 1] = h[1]
