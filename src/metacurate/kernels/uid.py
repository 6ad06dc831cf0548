"""Compiled twin of ``pool.uid``, which defines uids: those of many canonical URLs or keys at once.

Gain: without it ``curate`` takes 1.46 times as long on 8 million raw pairs, 10.8 to 15.8 core
seconds (``benchmarks/kernels.py uid``).

Words are little-endian, as on every machine that Arrow's buffers are read on without swapping.
"""

from __future__ import annotations

import numpy as np

from metacurate.kernels.blake2b import BLOCK_BYTES, LANES, compress, initial_state
from metacurate.kernels.bytes import is_space
from metacurate.kernels.cache import njit
from metacurate.kernels.intrinsics import load64

UID_BYTES = 16
_HEX_DIGITS = 2 * UID_BYTES

_U = np.uint64
_INITIAL = initial_state(UID_BYTES)
_ALL_ONES = _U(0xFFFFFFFFFFFFFFFF)
_ALL_LAST = np.full(LANES, _ALL_ONES, np.uint64)
_LONG = 1 << 20  # bytes; no four copies of anything longer, at the price of speed


@njit()
def _nibble(byte):  # type: ignore[no-untyped-def]
    if 48 <= byte <= 57:
        return np.int64(byte) - 48
    if 97 <= byte <= 102:
        return np.int64(byte) - 87
    return np.int64(-1)


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
def _message(data, start, end, block):  # type: ignore[no-untyped-def]
    """Copy what is hashed of a value into ``block``, zeros behind it; its size, 0 if blank."""
    first = start
    while first < end and is_space(data[first]):
        first += 1
    if first == end:
        return 0
    size = end - start
    # Unsigned positions: no test for negative ones, so that the copy is vectorised.
    for position in range(_U(size)):
        block[position] = data[_U(start) + position]
    blocks = (size + BLOCK_BYTES - 1) // BLOCK_BYTES
    for position in range(_U(size), _U(blocks * BLOCK_BYTES)):
        block[position] = 0
    return size


@njit(inline="always")
def _load_short(address, size, words, lane):  # type: ignore[no-untyped-def]
    """Fill ``words[lane]`` with a value of at most 128 bytes of 128 readable ones."""
    whole = size // 8
    for word in range(16):
        words[lane, word] = load64(address + 8 * word) if word < whole else _U(0)
    if size % 8:
        words[lane, whole] = load64(address + 8 * whole) & ((_U(1) << _U(8 * (size % 8))) - _U(1))


@njit(inline="always")
def _hash_short(m, t, rows, number, digests, h):  # type: ignore[no-untyped-def]
    """Fill the digests of the ``number`` values that wait in the lanes; ``h`` is to work in."""
    compress(_INITIAL, m, t, _ALL_LAST, h)
    for lane in range(number):
        digests[rows[lane], 0] = h[0, lane]
        digests[rows[lane], 1] = h[1, lane]


@njit()
def _hash_others(data, offsets, digests, valid, chosen):  # type: ignore[no-untyped-def]
    """``hash_values`` of some rows, of any length and content."""
    longest = 0
    for row in chosen:
        longest = max(longest, offsets[row + 1] - offsets[row])
    lanes = LANES if longest <= _LONG else 1
    blocks = np.zeros((lanes, (longest // BLOCK_BYTES + 1) * BLOCK_BYTES), np.uint8)
    words = blocks.view(np.uint64)
    h, m = _INITIAL.copy(), np.zeros((LANES, 16), np.uint64)
    t, last = np.zeros(LANES, np.uint64), np.zeros(LANES, np.uint64)
    # What each lane hashes: a row (-1: none any more), and how far it is.
    rows = np.full(LANES, -1, np.int64)
    sizes, done = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
    upcoming = 0
    while True:
        idle = 0
        for lane in range(lanes):
            while rows[lane] < 0 and upcoming < len(chosen):
                row = chosen[upcoming]
                upcoming += 1
                start, end = offsets[row], offsets[row + 1]
                size = _message(data, start, end, blocks[lane])
                if size == 0:
                    valid[row] = False
                    continue
                if size == _HEX_DIGITS and _hex_digest(blocks[lane], digests[row]):
                    continue
                rows[lane], sizes[lane], done[lane] = row, size, 0
                for word in range(8):
                    h[word, lane] = _INITIAL[word, lane]
            if rows[lane] < 0:
                idle += 1
                continue
            at = done[lane] // 8
            for word in range(16):
                m[lane, word] = words[lane, at + word]
            done[lane] = min(done[lane] + BLOCK_BYTES, sizes[lane])
            t[lane] = done[lane]
            last[lane] = _ALL_ONES if done[lane] == sizes[lane] else _U(0)
        if idle == lanes:
            return
        compress(h, m, t, last, h)
        for lane in range(lanes):
            if rows[lane] >= 0 and done[lane] == sizes[lane]:
                digests[rows[lane], 0] = h[0, lane]
                digests[rows[lane], 1] = h[1, lane]
                rows[lane] = -1


@njit("void(Array(uint8, 1, 'C', readonly=True), Array(int64, 1, 'C', readonly=True),"
      " uint64[:, ::1], boolean[::1])")  # fmt: skip
def hash_values(data, offsets, digests, valid):  # type: ignore[no-untyped-def]
    """Fill ``digests`` (uint64[n, 2]) with the uids of n byte strings; blanks turn ``valid`` false.

    ``data`` and ``offsets`` (int64[n + 1]) are Arrow's buffers; only rows whose ``valid`` is true
    are looked at. The rules are those of ``key_uid``, and of ``url_uid`` for canonical URLs.
    """
    # What takes one block, as nearly all do, goes straight to the lanes.
    m, h = np.zeros((LANES, 16), np.uint64), np.empty((8, LANES), np.uint64)
    t, rows = np.zeros(LANES, np.uint64), np.zeros(LANES, np.int64)
    others = np.empty(len(valid), np.int64)
    waiting, left = 0, 0
    for row in range(len(valid)):
        start = offsets[row]
        size = offsets[row + 1] - start
        if not valid[row]:
            continue
        if (
            not 0 < size <= BLOCK_BYTES
            or size == _HEX_DIGITS
            or start + BLOCK_BYTES > len(data)
            or is_space(data[start])
        ):
            others[left] = row
            left += 1
            continue
        _load_short(data.ctypes.data + start, size, m, waiting)
        t[waiting], rows[waiting] = size, row
        waiting += 1
        if waiting == LANES:
            _hash_short(m, t, rows, waiting, digests, h)
            waiting = 0
    if waiting:
        _hash_short(m, t, rows, waiting, digests, h)
    if left:
        _hash_others(data, offsets, digests, valid, others[:left])
