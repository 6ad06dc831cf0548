"""Compiled twin of ``texts.rules.clean``, which defines it: texts of JSON, unescaped and cleaned.

Gain: without it ``pool extract`` takes 1.6 times as long on made-up pages of 20 images, 1.14 to 1.4
times on documentation pages, which have few (``benchmarks/kernels.py text --wat FILE``).

What is not valid JSON or UTF-8 is left to Python.
"""

from __future__ import annotations

import numpy as np

from metacurate.kernels.bytes import character_bytes, copy
from metacurate.kernels.cache import njit

_BYTES = "Array(uint8, 1, 'C', readonly=True)"
_SPANS = "Array(int64, 2, 'A', readonly=True)"
_BACKSLASH, _SMALL_U, _SPACE = np.uint8(ord("\\")), np.uint8(ord("u")), np.uint8(32)
_REPLACEMENT = np.int64(0xFFFD)

# What a backslash and this byte stand for; 0: nothing.
_ESCAPED = np.zeros(256, np.uint8)
for _byte, _meaning in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_byte] = _meaning


@njit()
def _hex_unit(data, at, end):  # type: ignore[no-untyped-def]
    """The value of the four hex digits at ``at``; -1 if they are not there."""
    if at + 4 > end:
        return np.int64(-1)
    value = np.int64(0)
    for i in range(at, at + 4):
        byte = np.int64(data[i])
        if 48 <= byte <= 57:
            digit = byte - 48
        elif 97 <= byte | 32 <= 102:
            digit = (byte | 32) - 87
        else:
            return np.int64(-1)
        value = 16 * value + digit
    return value


@njit()
def _is_break(code):  # type: ignore[no-untyped-def]
    """Whether a character is a control or white space (Unicode's)."""
    return (
        code <= 0x20
        or 0x7F <= code <= 0xA0
        or code in (0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
        or 0x2000 <= code <= 0x200A
    )


@njit()
def _decode(data, at, end):  # type: ignore[no-untyped-def]
    """The character at ``at`` of a JSON string's inner bytes, and where the next one starts.

    A lone surrogate is the replacement character. -1 if it is not valid.
    """
    byte = data[at]
    if byte == _BACKSLASH:
        if at + 1 >= end:
            return np.int64(-1), at
        if data[at + 1] != _SMALL_U:
            meaning = np.int64(_ESCAPED[data[at + 1]])
            return (meaning if meaning else np.int64(-1)), at + 2
        unit = _hex_unit(data, at + 2, end)
        at += 6
        if not 0xD800 <= unit <= 0xDFFF:
            return unit, at
        if unit <= 0xDBFF and at + 1 < end and data[at] == _BACKSLASH and data[at + 1] == _SMALL_U:
            low = _hex_unit(data, at + 2, end)
            if 0xDC00 <= low <= 0xDFFF:
                return 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), at + 6
        return _REPLACEMENT, at
    size = character_bytes(data, at, end)
    if size == 1:
        return np.int64(byte), at + 1
    if size == 0:
        return np.int64(-1), at
    code = np.int64(byte & (0xFF >> (size + 1)))
    for i in range(at + 1, at + size):
        code = (code << 6) | np.int64(data[i] & 0x3F)
    return code, at + size


@njit()
def _encode(code, out, size):  # type: ignore[no-untyped-def]
    """Write a character as UTF-8 at ``out[size]``; the size after it."""
    if code < 0x80:
        out[size] = code
        return size + 1
    if code < 0x800:
        out[size] = 0xC0 | (code >> 6)
        out[size + 1] = 0x80 | (code & 0x3F)
        return size + 2
    if code < 0x10000:
        out[size] = 0xE0 | (code >> 12)
        out[size + 1] = 0x80 | ((code >> 6) & 0x3F)
        out[size + 2] = 0x80 | (code & 0x3F)
        return size + 3
    out[size] = 0xF0 | (code >> 18)
    out[size + 1] = 0x80 | ((code >> 12) & 0x3F)
    out[size + 2] = 0x80 | ((code >> 6) & 0x3F)
    out[size + 3] = 0x80 | (code & 0x3F)
    return size + 4


@njit(f"void({_BYTES}, {_SPANS}, int32[::1], int32[::1], uint8[::1])")
def clean_texts(data, spans, characters, offsets, out):  # type: ignore[no-untyped-def]
    """Fill an Arrow string array's ``offsets`` and bytes (``out``) with cleaned texts.

    ``spans`` (int64[n, 2]): where the inner bytes of each JSON string are in ``data``.
    ``characters``: the lengths of the cleaned texts; -1, and nothing written, if the string is not
    valid. ``out`` must be as long as all spans together.
    """
    size = 0
    offsets[0] = 0
    for i in range(len(spans)):
        at, end = spans[i, 0], spans[i, 1]
        first = size
        count = 0
        waiting = False
        while at < end:
            byte = data[at]
            if _SPACE < byte < 0x7F and byte != _BACKSLASH:
                code = np.int64(byte)
                at += 1
            else:
                code, at = _decode(data, at, end)
                if code < 0:
                    size, count = first, -1
                    break
                if _is_break(code):
                    waiting = count > 0
                    continue
            if waiting:
                out[size] = _SPACE
                size += 1
                count += 1
                waiting = False
            size = _encode(code, out, size)
            count += 1
        characters[i] = count
        offsets[i + 1] = size


@njit(f"void({_BYTES}, {_SPANS}, uint8[::1])")
def copy_spans(data, spans, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with what the spans (int64[n, 2]) hold, one after another."""
    size = 0
    for i in range(len(spans)):
        size = copy(data, spans[i, 0], spans[i, 1], out, size)
