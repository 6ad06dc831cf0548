"""Compiled twin of ``commoncrawl.urls``, which defines it: addresses made absolute and normal.

Gain: without it ``pool extract`` takes 1.6 times as long on made-up pages of 20 images, 1.25 times
on documentation pages, which have few (``benchmarks/kernels.py url --wat FILE``).

All that is not plain to do (escapes of JSON, hosts in capitals, ports, dot segments within...) is
left to ``urls.Base``.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from metacurate.kernels.bytes import BLOCK, character_bytes, copy, is_at, is_space
from metacurate.kernels.cache import njit
from metacurate.kernels.intrinsics import load64, range_mask_codegen, trailing_zeros

# What ``resolve_addresses`` says of an address.
ODD, RESOLVED, EMPTY, DATA = range(4)
# What an address may grow to when it is resolved, beside the base that is put before it.
GROWTH = 3
# The columns of ``split_bases``: where the scheme, the origin and the folder end.
SCHEME, ORIGIN, FOLDER = range(3)

_HTTP = np.frombuffer(b"http", np.uint8)
_DATA = np.frombuffer(b"data:", np.uint8)
_XN = np.frombuffer(b"xn--", np.uint8)
_HERE = np.frombuffer(b"./", np.uint8)
_UP = np.frombuffer(b"../", np.uint8)
_SLASHES = np.frombuffer(b"//", np.uint8)
_SCHEME_END = np.frombuffer(b"://", np.uint8)
_HEX = np.frombuffer(b"0123456789ABCDEF", np.uint8)
_SPACE, _HASH, _BACKSLASH = (np.uint8(ord(c)) for c in " #\\")
_SLASH, _DOT, _COLON, _PERCENT, _TWO, _QUERY = (np.uint8(ord(c)) for c in "/.:%2?")

# Classes of bytes: of a top-level domain, a label's first, a label's, and those that stay as they
# are in paths and queries.
_TOP, _LABEL_FIRST, _LABEL, _PLAIN, _EASY = (np.uint8(1 << bit) for bit in range(5))
_KIND = np.zeros(256, np.uint8)
for _bytes, _bits in (
    (b"abcdefghijklmnopqrstuvwxyz", _TOP | _LABEL_FIRST | _LABEL | _PLAIN),
    (b"0123456789", _LABEL_FIRST | _LABEL | _PLAIN),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_", _PLAIN),
    (b"-", _LABEL | _PLAIN),
    (b"~!$&()*+,;=@/.%?:", _PLAIN),
):
    _KIND[np.frombuffer(_bytes, np.uint8)] = _bits
# Plain whatever comes next: a slash or a percent sign may begin a dot segment.
_EASY_BYTES = _KIND & _PLAIN != 0
_EASY_BYTES[[_SLASH, _PERCENT]] = False
_KIND[_EASY_BYTES] |= _EASY

_U = np.uint64
_BYTES = "Array(uint8, 1, 'C', readonly=True)"
_NUMBERS = "Array(int32, 1, 'C', readonly=True)"
_SPANS = "Array(int64, 2, 'A', readonly=True)"
_ROWS = "Array(int64, 1, 'A', readonly=True)"
_PARTS = "Array(int32, 2, 'C', readonly=True)"


@njit()
def _host_end(data, at, end):  # type: ignore[no-untyped-def]
    """Where the path starts after a plain host; -1 if it is not plain, or has no path.

    A host that ends in letters is no number, and one without "xn--" needs no IDNA.
    """
    label, dots = at, 0
    letters_only = True
    while at < end and data[at] != _SLASH:
        byte = data[at]
        if byte == _DOT:
            if at == label:
                return -1
            label, dots, letters_only = at + 1, dots + 1, True
        elif _KIND[byte] & (_LABEL_FIRST if at == label else _LABEL):
            letters_only = letters_only and _KIND[byte] & _TOP != 0
        else:
            return -1
        if byte == _XN[0] and is_at(data, at, end, _XN):
            return -1
        at += 1
    return at if dots > 0 and at < end and label < at and letters_only else -1


@njit()
def _path_start(data, at, end):  # type: ignore[no-untyped-def]
    """Where the path of a plain absolute address starts; -1 if it is none."""
    if not is_at(data, at, end, _HTTP):
        return -1
    at += len(_HTTP)
    if at < end and data[at] == 115:  # s
        at += 1
    return _host_end(data, at + 3, end) if is_at(data, at, end, _SCHEME_END) else -1


@njit()
def _is_dotted(data, at, end):  # type: ignore[no-untyped-def]
    """Whether a segment that starts with a dot, or an encoded dot, is here."""
    if at + 1 >= end:
        return False
    if data[at] == _SLASH:
        return data[at + 1] == _DOT
    return (
        data[at] == _PERCENT and data[at + 1] == _TWO and at + 2 < end and data[at + 2] | 32 == 101
    )


@njit()
def _is_plain_path(data, at, end):  # type: ignore[no-untyped-def]
    """Whether a path and its query stay as they are."""
    for position in range(_U(at), _U(end)):  # unsigned: no test for negative positions
        kind = _KIND[data[position]]
        if not kind & _EASY and (not kind & _PLAIN or _is_dotted(data, position, end)):
            return False
    return True


@njit()
def _copy_path(data, at, end, out, size):  # type: ignore[no-untyped-def]
    """Write a path and its query, up to a ``#``, at ``out[size]``; the size after it, -1 if odd.

    Spaces and characters beyond ASCII become percent-encoded.
    """
    while at < end and data[at] != _HASH:
        byte = data[at]
        if _KIND[byte] & _PLAIN:
            if _is_dotted(data, at, end):
                return -1
            out[size] = byte
            size += 1
            at += 1
            continue
        length = character_bytes(data, at, end) if byte >= 0x80 else 1
        if length == 0 or (byte < 0x80 and byte != _SPACE):
            return -1
        for position in range(at, at + length):
            out[size] = _PERCENT
            out[size + 1] = _HEX[data[position] >> 4]
            out[size + 2] = _HEX[data[position] & 15]
            size += GROWTH
        at += length
    return size


@njit()
def _resolve(data, at, end, base, base_at, parts, max_size, out, size):  # type: ignore[no-untyped-def]
    """What the address is, and the size of ``out`` after it (of use if it is ``RESOLVED``)."""
    for position in range(at, end):
        if data[position] == _BACKSLASH:
            return ODD, size
    while at < end and is_space(data[at]):
        at += 1
    while at < end and is_space(data[end - 1]):
        end -= 1
    if at == end or data[at] == _HASH:
        return EMPTY, size
    if is_at(data, at, end, _DATA):
        return DATA, size
    if end - at > max_size or parts[FOLDER] > max_size:
        return ODD, size
    first = size
    path = _path_start(data, at, end)
    if path >= 0:
        size = copy(data, at, path, out, size)
    elif is_at(data, at, end, _SLASHES):
        path = _host_end(data, at + len(_SLASHES), end)
        size = copy(base, base_at, base_at + parts[SCHEME], out, size)
        size = copy(data, at, path, out, size)
    elif data[at] == _SLASH:
        path = at
        size = copy(base, base_at, base_at + parts[ORIGIN], out, size)
    else:
        folder = base_at + parts[FOLDER]
        while True:
            if is_at(data, at, end, _HERE):
                at += len(_HERE)
            elif is_at(data, at, end, _UP):
                at += len(_UP)
                if folder > base_at + parts[ORIGIN] + 1:
                    folder -= 1
                    while base[folder - 1] != _SLASH:
                        folder -= 1
            else:
                break
        path = at if at < end and data[at] not in (_DOT, _SLASH, _QUERY, _HASH) else -1
        # What comes before a colon may be a scheme.
        position = at
        while position < end and data[position] not in (_SLASH, _QUERY, _HASH):
            if data[position] == _COLON:
                path = -1
            position += 1
        size = copy(base, base_at, folder, out, size)
    if path < 0:
        return ODD, first
    size = _copy_path(data, path, end, out, size)
    return (RESOLVED if 0 <= size - first <= max_size else ODD), size


@njit(f"void({_BYTES}, {_SPANS}, {_ROWS}, {_BYTES}, {_NUMBERS}, {_PARTS}, int64, uint8[::1],"
      " int32[::1], uint8[::1])")  # fmt: skip
def resolve_addresses(  # type: ignore[no-untyped-def]
    data, spans, pages, bases, base_offsets, parts, max_size, kinds, offsets, out
):
    """Fill ``kinds``, and an Arrow string array's ``offsets`` and bytes (``out``).

    ``spans`` (int64[n, 2]): where the inner bytes of each address's JSON string are in ``data``;
    ``pages``: whose ``bases`` and ``parts`` (see ``split_bases``) are for it. An address that is
    not ``RESOLVED`` has no bytes. ``ODD`` are also those longer than ``max_size``.
    """
    size = 0
    offsets[0] = 0
    for i in range(len(spans)):
        page = pages[i]
        kind, after = _resolve(
            data,
            spans[i, 0],
            spans[i, 1],
            bases,
            np.int64(base_offsets[page]),
            parts[page],
            max_size,
            out,
            size,
        )
        kinds[i] = kind
        if kind == RESOLVED:
            size = after
        offsets[i + 1] = size


@njit(f"void({_BYTES}, {_SPANS}, boolean[::1])")
def have_escapes(data, spans, escaped):  # type: ignore[no-untyped-def]
    """Fill ``escaped``: which strings have a backslash."""
    for i in range(len(spans)):
        escaped[i] = False
        for at in range(spans[i, 0], spans[i, 1]):
            escaped[i] |= data[at] == _BACKSLASH


@njit(f"int64({_SPANS}, {_ROWS}, {_PARTS}, int64)")
def room_for_addresses(spans, pages, parts, max_size):  # type: ignore[no-untyped-def]
    """How many bytes ``resolve_addresses`` may write."""
    size = np.int64(0)
    for i in range(len(spans)):
        base = min(np.int64(parts[pages[i], FOLDER]), max_size)
        size += base + GROWTH * min(spans[i, 1] - spans[i, 0], max_size)
    return size


# The same classes as ranges (first byte, number of byte values): 64 bytes are looked at together.
_TOP_RANGES = ((ord("a"), 26),)
_DIGIT_RANGES = ((ord("0"), 10),)
# Those of _PLAIN but for "%", which may begin a dot segment.
_PATH_RANGES = (
    (ord("!"), 1), (ord("$"), 1), (ord("&"), 1), (ord("("), 20), (ord("="), 1), (ord("?"), 28),
    (ord("_"), 1), (ord("a"), 26), (ord("~"), 1),
)  # fmt: skip
_HTTP_START = np.frombuffer(b"http://\0", np.uint64)[0]
_HTTPS_START = np.frombuffer(b"https://", np.uint64)[0]
_SEVEN_BYTES = _U(0x00FFFFFFFFFFFFFF)
_U0, _U1 = _U(0), _U(1)


@intrinsic
def _letters(_typing, address):  # type: ignore[no-untyped-def]
    return types.uint64(types.int64), range_mask_codegen(_TOP_RANGES)


@intrinsic
def _digits(_typing, address):  # type: ignore[no-untyped-def]
    return types.uint64(types.int64), range_mask_codegen(_DIGIT_RANGES)


@intrinsic
def _hyphens(_typing, address):  # type: ignore[no-untyped-def]
    return types.uint64(types.int64), range_mask_codegen(((ord("-"), 1),))


@intrinsic
def _dots(_typing, address):  # type: ignore[no-untyped-def]
    return types.uint64(types.int64), range_mask_codegen(((ord("."), 1),))


@intrinsic
def _slashes(_typing, address):  # type: ignore[no-untyped-def]
    return types.uint64(types.int64), range_mask_codegen(((ord("/"), 1),))


@intrinsic
def _path_bytes(_typing, address):  # type: ignore[no-untyped-def]
    return types.uint64(types.int64), range_mask_codegen(_PATH_RANGES)


@njit()
def _is_plain_at_once(address, readable, size):  # type: ignore[no-untyped-def]
    """Whether an address is plain, from masks of 64 bytes; false too of what only loops can tell.

    ``address`` is where its ``size`` bytes begin, ``readable`` how many can be read from there on.
    """
    if size < 8 or readable < BLOCK:
        return False
    start = load64(address)
    at = np.int64(8 if start == _HTTPS_START else 7)
    if (at == 7 and start & _SEVEN_BYTES != _HTTP_START) or at + BLOCK > readable:
        return False
    slashes = _slashes(address + at)
    if slashes == _U0:
        return False
    host_size = trailing_zeros(slashes)
    host = (_U1 << host_size) - _U1
    dots, letters = _dots(address + at) & host, _letters(address + at) & host
    hyphens = _hyphens(address + at) & host
    known = dots | letters | hyphens | _digits(address + at) & host
    firsts = (dots << _U1 | _U1) & host
    # The last label: what is left when the bits up to the last dot are taken away, one by one.
    last, left = host, dots
    while left != _U0:
        lowest = left & (~left + _U1)
        last &= ~(lowest | (lowest - _U1))
        left ^= lowest
    if (
        dots == _U0
        or known != host
        or firsts & (dots | hyphens) != _U0
        or last == _U0
        or letters & last != last
        or hyphens & hyphens >> _U1 != _U0  # as "xn--" has
    ):
        return False
    at += np.int64(host_size)
    if at >= size:
        return False
    while True:
        count = size - at
        if at + BLOCK > readable:
            return False
        inside = (_U1 << _U(count)) - _U1 if count < BLOCK else ~_U0
        if _path_bytes(address + at) & inside != inside:
            return False
        if (_slashes(address + at) << _U1) & _dots(address + at) & inside != _U0:
            return False
        if count <= BLOCK:
            return True
        at += BLOCK - 1  # a slash that is the last byte is seen again, with what follows


@njit(f"void({_BYTES}, {_NUMBERS}, boolean[::1])")
def are_plain_absolute(data, offsets, plain):  # type: ignore[no-untyped-def]
    """Fill ``plain``: which strings are addresses that the URL parser leaves as they are.

    Not all of them are found.
    """
    address = data.ctypes.data
    for i in range(len(plain)):
        start, end = np.int64(offsets[i]), np.int64(offsets[i + 1])
        if _is_plain_at_once(address + start, len(data) - start, end - start):
            plain[i] = True
            continue
        path = _path_start(data, start, end)
        plain[i] = path >= 0 and _is_plain_path(data, path, end)


@njit(f"void({_BYTES}, {_NUMBERS}, int32[:, ::1])")
def split_bases(data, offsets, parts):  # type: ignore[no-untyped-def]
    """Fill ``parts`` (int32[n, 3]): how long scheme (with colon), origin and folder of URLs are.

    The URLs must be normal ones. The empty string, which stands for none, has no parts.
    """
    for i in range(len(parts)):
        at, end = offsets[i], offsets[i + 1]
        slashes = 0
        parts[i] = 0
        while at < end and not (slashes >= 3 and data[at] == _QUERY):
            if data[at] == _SLASH:
                slashes += 1
                if slashes == 1:
                    parts[i, SCHEME] = at - offsets[i]
                elif slashes == 3:
                    parts[i, ORIGIN] = at - offsets[i]
                parts[i, FOLDER] = at + 1 - offsets[i]
            at += 1
