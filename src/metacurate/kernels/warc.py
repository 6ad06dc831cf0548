"""A compiled loop over the headers of many WARC records.

It reads headers as CommonCrawl writes them; all others are left to ``pool.warc``.
"""

from __future__ import annotations

import numpy as np

from metacurate.kernels.bytes import BLOCK, is_at, is_space, may_have
from metacurate.kernels.cache import njit

# The columns of ``read_headers``.
SPAN = 4
START, END, URI, URI_END = range(SPAN)

_VERSION = np.frombuffer(b"WARC/1.", np.uint8)
_TYPE = np.frombuffer(b"\r\nWARC-Type: ", np.uint8)
_WARC = np.frombuffer(b"WARC-", np.uint8)
_CONTENT_TYPE = np.frombuffer(b"Content-Type: ", np.uint8)
_CONTENT_LENGTH = np.frombuffer(b"Content-Length: ", np.uint8)
_URI = np.frombuffer(b"WARC-Target-URI: ", np.uint8)
_RECORD_END = np.frombuffer(b"\r\n\r\n", np.uint8)
_RETURN, _NEWLINE = np.uint8(13), np.uint8(10)
_BYTES = "Array(uint8, 1, 'C', readonly=True)"
_NUMBERS = "Array(int64, 1, 'C', readonly=True)"


@njit()
def _line_end(data, at, end):  # type: ignore[no-untyped-def]
    """Where the line's end starts; -1 without one."""
    while at < end and data[at] not in (_RETURN, _NEWLINE):
        at += 1
    return at if at + 1 < end and data[at] == _RETURN and data[at + 1] == _NEWLINE else -1


@njit()
def _is_nearly_uri(data, at, end):  # type: ignore[no-untyped-def]
    """Whether a line starts with the field's name (and its colon) in any case."""
    if at + len(_URI) - 1 > end:
        return False
    for i in range(len(_URI) - 1):
        byte = data[at + i]
        if byte != _URI[i] and (byte ^ 32 != _URI[i] or not 65 <= byte & 95 <= 90):
            return False
    return True


@njit(f"int64({_BYTES}, {_BYTES}, int64[::1])")
def find_all(data, sought, places):  # type: ignore[no-untyped-def]
    """Fill ``places`` (int64[n]) with all places of some bytes; returns how many there are.

    ``places`` must have room for one every ``len(sought)`` bytes.
    """
    found = 0
    last = len(data) - len(sought)
    at = 0
    while at <= last:
        if at + BLOCK <= last:
            pair = sought[:2]
            if not may_have(data, at, pair, pair):
                at += BLOCK
                continue
        for i in range(at, min(at + BLOCK, last + 1)):
            if is_at(data, i, len(data), sought):
                places[found] = i
                found += 1
        at += BLOCK
    return found


@njit(f"int64({_BYTES}, {_NUMBERS}, {_BYTES}, int64, int64, int64[:, ::1])",
     )  # fmt: skip
def read_headers(data, bounds, kind, max_header, max_length, spans):  # type: ignore[no-untyped-def]
    """Fill ``spans`` (int64[n, 4]) with the places of records; returns how many there are.

    ``data[bounds[i]:bounds[i + 1]]`` is to be one record, its header to be usual, and its block to
    have at most ``max_length`` bytes; returns -1 if one of them is not so. Only records of the
    given ``kind`` go into ``spans``: their blocks, and the values of ``WARC-Target-URI`` (stripped;
    empty if there is none).
    """
    found = 0
    for i in range(len(bounds) - 1):
        first, end = bounds[i], bounds[i + 1]
        at = first + len(_VERSION)
        if (
            not is_at(data, first, end, _VERSION)
            or at == end
            or data[at] not in (48, 49)
            or not is_at(data, at + 1, end, _TYPE)
        ):
            return -1
        at += 1 + len(_TYPE)
        line = _line_end(data, at, end)
        if line <= at:
            return -1
        for position in range(at, line):
            if not 97 <= data[position] <= 122:
                return -1
        wanted = line - at == len(kind) and is_at(data, at, line, kind)
        at = line + 2
        uri = uri_end = at
        has_uri = False
        while not is_at(data, at, end, _CONTENT_LENGTH):
            line = _line_end(data, at, end)
            named = is_at(data, at, line, _WARC) and 65 <= data[at + len(_WARC)] <= 90
            if line < 0 or not (named or is_at(data, at, line, _CONTENT_TYPE)):
                return -1
            if is_at(data, at, line, _URI):
                if not has_uri:
                    uri, uri_end = at + len(_URI), line
                    has_uri = True
            elif _is_nearly_uri(data, at, line):
                return -1
            at = line + 2
        at += len(_CONTENT_LENGTH)
        length = np.int64(0)
        digits = at
        while at < end and 48 <= data[at] <= 57 and at - digits < 18:
            length = 10 * length + np.int64(data[at] - 48)
            at += 1
        start = at + len(_RECORD_END)
        if at == digits or not is_at(data, at, end, _RECORD_END) or start - first > max_header:
            return -1
        rest = end - start - length
        if not (
            rest == 0 or (rest == len(_RECORD_END) and is_at(data, end - rest, end, _RECORD_END))
        ):
            return -1
        if not wanted:
            continue
        if length > max_length:
            return -1
        while uri < uri_end and is_space(data[uri]):
            uri += 1
        while uri < uri_end and is_space(data[uri_end - 1]):
            uri_end -= 1
        row = spans[found]
        row[START], row[END], row[URI], row[URI_END] = start, start + length, uri, uri_end
        found += 1
    return found
