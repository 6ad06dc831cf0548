"""Compiled twin of ``pool.uid``, which defines uids: those of many URLs or keys at once.

Gain: without it ``curate`` takes 1.33 times as long on 8 million raw pairs, 13.4 to 17.8 core
seconds (``benchmarks/kernels.py uid``).

Words are little-endian, as on every machine that Arrow's buffers are read on without swapping.
"""

from __future__ import annotations

import numpy as np

from metacurate.kernels.blake2b import BLOCK_BYTES, LANES, compress, initial_state
from metacurate.kernels.bytes import is_space
from metacurate.kernels.cache import njit

UID_BYTES = 16
DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}

_U = np.uint64
_INITIAL = initial_state(UID_BYTES)
_ALL_ONES = _U(0xFFFFFFFFFFFFFFFF)
_LONG = 1 << 20  # bytes; no four copies of anything longer, at the price of speed
_HASH_SIGNS = _U(0x2323232323232323)
_LOW_BITS, _HIGH_BITS = _U(0x0101010101010101), _U(0x8080808080808080)
_HTTP_PORT, _HTTPS_PORT = tuple(DEFAULT_PORTS[b"http"]), tuple(DEFAULT_PORTS[b"https"])


@njit()
def _lower(byte):  # type: ignore[no-untyped-def]
    return np.uint8(byte + 32) if 65 <= byte <= 90 else byte


@njit()
def _is_letter(byte):  # type: ignore[no-untyped-def]
    return 65 <= byte <= 90 or 97 <= byte <= 122


@njit()
def _nibble(byte):  # type: ignore[no-untyped-def]
    if 48 <= byte <= 57:
        return np.int64(byte) - 48
    if 97 <= byte <= 102:
        return np.int64(byte) - 87
    return np.int64(-1)


@njit()
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


@njit()
def _ends_with_port(block, host, path, port):  # type: ignore[no-untyped-def]
    if path - host < len(port):
        return False
    for digit in range(len(port)):  # noqa: SIM110 (compiled)
        if block[path - len(port) + digit] != port[digit]:
            return False
    return True


@njit()
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


@njit()
def _hex_digest(block, digest):  # type: ignore[no-untyped-def]
    """Read 32 lower-case hex digits as 16 bytes into ``digest``; whether that is what they are."""
    # Hex digits are two to a byte, first digit high; a word's first byte is its lowest.
    for half in range(2):
        word = _U(0)
        for digit in range(16):
            nibble = _nibble(block[16 * half + digit])
            if nibble < 0:
                return False
            word |= _U(nibble) << _U(8 * (digit // 2) + 4 * (1 - digit % 2))
        digest[half] = word
    return True


@njit()
def _message(data, start, end, is_url, block):  # type: ignore[no-untyped-def]
    """Copy what is hashed of a value into ``block``, zeros behind it; its size, 0 if blank."""
    first = start
    while first < end and is_space(data[first]):
        first += 1
    if first == end:
        return 0
    if is_url:
        start = first
    size = end - start
    # Unsigned positions: no test for negative ones, so that the copy is vectorised.
    for position in range(_U(size)):
        block[position] = data[_U(start) + position]
    if is_url:
        size = _first_hash_sign(block.view(np.uint64), size)
        while size > 0 and is_space(block[size - 1]):
            size -= 1
        if size > 0:
            size = _lower_host(block, size)
    blocks = (size + BLOCK_BYTES - 1) // BLOCK_BYTES
    for position in range(_U(size), _U(blocks * BLOCK_BYTES)):
        block[position] = 0
    return size


@njit("void(Array(uint8, 1, 'C', readonly=True), Array(int64, 1, 'C', readonly=True), boolean,"
      " uint64[:, ::1], boolean[::1])")  # fmt: skip
def hash_values(data, offsets, are_urls, digests, valid):  # type: ignore[no-untyped-def]
    """Fill ``digests`` (uint64[n, 2]) with the uids of n byte strings; blanks turn ``valid`` false.

    ``data`` and ``offsets`` (int64[n + 1]) are Arrow's buffers; only rows whose ``valid`` is true
    are looked at. ``are_urls`` chooses between the rules of ``url_uid`` and ``key_uid``.
    """
    longest = 0
    for row in range(len(valid)):
        longest = max(longest, offsets[row + 1] - offsets[row])
    lanes = LANES if longest <= _LONG else 1
    blocks = np.zeros((lanes, (longest // BLOCK_BYTES + 1) * BLOCK_BYTES), np.uint8)
    words = blocks.view(np.uint64)
    h, m = _INITIAL.copy(), np.zeros((16, LANES), np.uint64)
    t, last = np.zeros(LANES, np.uint64), np.zeros(LANES, np.uint64)
    # What each lane hashes: a row (-1: none any more), and how far it is.
    rows = np.full(LANES, -1, np.int64)
    sizes, done = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    upcoming = 0
    while True:
        idle = 0
        for lane in range(lanes):
            while rows[lane] < 0 and upcoming < len(valid):
                row = upcoming
                upcoming += 1
                if not valid[row]:
                    continue
                start, end = offsets[row], offsets[row + 1]
                size = _message(data, start, end, are_urls, blocks[lane])
                if size == 0:
                    valid[row] = False
                    continue
                if not are_urls and size == 32 and _hex_digest(blocks[lane], digests[row]):
                    continue
                rows[lane], sizes[lane], done[lane] = row, size, 0
                for word in range(8):
                    h[word, lane] = _INITIAL[word, lane]
            if rows[lane] < 0:
                idle += 1
                continue
            at = done[lane] // 8
            for word in range(16):
                m[word, lane] = words[lane, at + word]
            done[lane] = min(done[lane] + BLOCK_BYTES, sizes[lane])
            t[lane] = done[lane]
            last[lane] = _ALL_ONES if done[lane] == sizes[lane] else _U(0)
        if idle == lanes:
            return
        compress(h, m, t, last)
        for lane in range(lanes):
            if rows[lane] >= 0 and done[lane] == sizes[lane]:
                digests[rows[lane], 0] = h[0, lane]
                digests[rows[lane], 1] = h[1, lane]
                rows[lane] = -1
