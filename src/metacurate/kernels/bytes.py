"""Compiled helpers that look at bytes; most are used by the other loops of this folder."""

from __future__ import annotations

import numpy as np

from metacurate.kernels.cache import njit

# How many bytes are looked at together: so many must follow data that is searched for pairs.
BLOCK = 64
_SHORT_BLOCK = 16

_QUOTE, _BACKSLASH = np.uint8(ord('"')), np.uint8(ord("\\"))


@njit()
def is_space(byte):  # type: ignore[no-untyped-def]
    """Whether a byte is white space (ASCII's)."""
    return byte == 32 or 9 <= byte <= 13


@njit()
def copy(data, at, end, out, size):  # type: ignore[no-untyped-def]
    """Write ``data[at:end]`` at ``out[size]``; the size after it."""
    for position in range(at, end):
        out[size] = data[position]
        size += 1
    return size


@njit()
def is_at(data, at, end, sought):  # type: ignore[no-untyped-def]
    """Whether ``data[at:end]`` starts with ``sought``."""
    if at + len(sought) > end:
        return False
    for i in range(len(sought)):  # noqa: SIM110 (compiled)
        if data[at + i] != sought[i]:
            return False
    return True


@njit()
def string_end(data, at, end):  # type: ignore[no-untyped-def]
    """Where the JSON string whose inner bytes start at ``at`` has its closing quote; or ``end``."""
    while at < end:
        if at + _SHORT_BLOCK <= end:
            # Compiles to vector code.
            found = np.uint8(0)
            block = data[at : at + _SHORT_BLOCK]
            for i in range(_SHORT_BLOCK):
                found |= np.uint8((block[i] == _QUOTE) | (block[i] == _BACKSLASH))
            if not found:
                at += _SHORT_BLOCK
                continue
        last = min(at + _SHORT_BLOCK, end)
        while at < last:
            if data[at] == _QUOTE:
                return at
            at += 2 if data[at] == _BACKSLASH else 1
    return min(at, end)


@njit()
def may_have(data, at, one, other):  # type: ignore[no-untyped-def]
    """Whether one of two pairs of bytes starts within ``BLOCK`` bytes. Compiles to vector code."""
    block, following = data[at : at + BLOCK], data[at + 1 : at + 1 + BLOCK]
    found = np.uint8(0)
    for i in range(BLOCK):
        is_one = (block[i] ^ one[0]) | (following[i] ^ one[1])
        is_other = (block[i] ^ other[0]) | (following[i] ^ other[1])
        found |= np.uint8((is_one == 0) | (is_other == 0))
    return found != 0


@njit()
def character_bytes(data, at, end):  # type: ignore[no-untyped-def]
    """How many bytes the UTF-8 character at ``at`` has; 0 if that is no UTF-8."""
    first = data[at]
    if first < 0x80:
        return 1
    if first < 0xC2 or first > 0xF4:
        return 0
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if at + size > end:
        return 0
    for i in range(at + 1, at + size):
        if data[i] & 0xC0 != 0x80:
            return 0
    second = data[at + 1]
    # Overlong forms, surrogates, and what is beyond U+10FFFF.
    if (
        (first == 0xE0 and second < 0xA0)
        or (first == 0xED and second > 0x9F)
        or (first == 0xF0 and second < 0x90)
        or (first == 0xF4 and second > 0x8F)
    ):
        return 0
    return size


@njit("int64(Array(uint8, 1, 'C', readonly=True))")
def longest_string(data):  # type: ignore[no-untyped-def]
    """The longest of byte strings that each follow their length (uint32, little-endian).

    -1 if what is left at the end is no length. Of the last one's bytes some may be missing.
    """
    longest = at = np.int64(0)
    while at < len(data):
        if at + 4 > len(data):
            return -1
        length = np.int64(0)
        for i in range(4):
            length |= np.int64(data[at + i]) << (8 * i)
        longest = max(longest, length)
        at += 4 + length
    return longest
