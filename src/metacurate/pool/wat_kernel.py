"""Compiled loops over the bytes of many WAT pages: finding image links, taking over plain values.

Nothing is decided here that is not decided elsewhere too: a link, text or address that is not of
the plainest form is left to the Python code, which defines the result (``pool.wat``,
``pool.filters``, ``pool.urls``).
"""

from __future__ import annotations

import numpy as np
from numba import njit

MARK = b'"IMG@/src"'
SHORTEST_LINK = len(b'{"path":"IMG@/src","url":""}')
# How many bytes are looked at together.
BLOCK = 64
# The columns of ``find_links``; a text that is missing has two equal bounds.
COLUMNS = 7
PAGE, URL, URL_END, ALT, ALT_END, TITLE, TITLE_END = range(COLUMNS)
# What ``plan_addresses`` says of an address.
ODD, AT_ORIGIN, IN_FOLDER, ABSOLUTE = range(4)

_MARK = np.frombuffer(MARK, np.uint8)
_G_IN_MARK = MARK.index(b"G@")
_BEFORE = np.frombuffer(b'{"path":', np.uint8)
_URL = np.frombuffer(b',"url":"', np.uint8)
_ALT = np.frombuffer(b',"alt":"', np.uint8)
_TITLE = np.frombuffer(b',"title":"', np.uint8)
_BASE = np.frombuffer(b'"Base":', np.uint8)
_HTTP = np.frombuffer(b"http", np.uint8)
_QUOTE, _BACKSLASH, _BRACE, _CAPITAL_B, _CAPITAL_G, _AT = (np.uint8(ord(c)) for c in '"\\}BG@')
_SPACE, _DELETE = np.uint8(32), np.uint8(127)
_SLASH, _DOT, _COLON, _PERCENT, _TWO, _QUERY = (np.uint8(ord(c)) for c in "/.:%2?")
_SMALL_X, _SMALL_N, _SMALL_S, _HYPHEN = (np.uint8(ord(c)) for c in "xns-")

# The character classes of the patterns in ``pool.urls``: a top-level domain's characters, a label's
# first, a label's, a relative address's first, an address's.
_TOP, _LABEL_FIRST, _LABEL, _FIRST, _PLAIN = (np.uint8(1 << bit) for bit in range(5))
_KIND = np.zeros(256, np.uint8)
for _bytes, _bits in (
    (b"abcdefghijklmnopqrstuvwxyz", _TOP | _LABEL_FIRST | _LABEL | _FIRST | _PLAIN),
    (b"0123456789", _LABEL_FIRST | _LABEL | _FIRST | _PLAIN),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ_", _FIRST | _PLAIN),
    (b"-", _LABEL | _PLAIN),
    (b"~!$&()*+,;=@/.%?", _PLAIN),
):
    _KIND[np.frombuffer(_bytes, np.uint8)] = _bits

_BYTES = "Array(uint8, 1, 'C', readonly=True)"
_NUMBERS = "Array(int32, 1, 'C', readonly=True)"
_TABLE = "Array(int32, 2, 'C', readonly=True)"


@njit(cache=True, nogil=True)
def _is_at(data, at, end, sought):  # type: ignore[no-untyped-def]
    if at < 0 or at + len(sought) > end:
        return False
    for i in range(len(sought)):  # noqa: SIM110 (compiled)
        if data[at + i] != sought[i]:
            return False
    return True


@njit(cache=True, nogil=True)
def _string_end(data, at, end):  # type: ignore[no-untyped-def]
    """Where the JSON string whose inner bytes start at ``at`` has its closing quote; or ``end``."""
    while at < end and data[at] != _QUOTE:
        at += 2 if data[at] == _BACKSLASH else 1
    return min(at, end)


@njit(cache=True, nogil=True)
def _may_have(block, following):  # type: ignore[no-untyped-def]
    """Whether the mark's ``G@``, or ``"B``, starts in ``BLOCK`` bytes. Compiles to vector code."""
    found = np.uint8(0)
    for i in range(BLOCK):
        mark = (block[i] ^ _CAPITAL_G) | (following[i] ^ _AT)
        base = (block[i] ^ _QUOTE) | (following[i] ^ _CAPITAL_B)
        found |= np.uint8((mark == 0) | (base == 0))
    return found != 0


@njit(cache=True, nogil=True)
def _next_mark(data, at, end):  # type: ignore[no-untyped-def]
    """Where the next mark is, -1 if there is none before ``end``; -2 if a ``"Base":`` is before it.

    Nothing of a mark may lie before ``at``.
    """
    while at < end:
        if _may_have(data[at : at + BLOCK], data[at + 1 : at + 1 + BLOCK]):
            for i in range(at, min(at + BLOCK, end)):
                if data[i] == _CAPITAL_G and _is_at(data, i - _G_IN_MARK, end, _MARK):
                    return i - _G_IN_MARK
                if data[i] == _QUOTE and _is_at(data, i, end, _BASE):
                    return -2
        at += BLOCK
    return -1


@njit(f"int64({_BYTES}, {_NUMBERS}, int32[:, ::1], boolean[::1])", cache=True, nogil=True)
def find_links(data, bounds, links, unusual):  # type: ignore[no-untyped-def]
    """Fill ``links`` (int32[n, 7]) with the image links of pages; returns how many there are.

    ``data[bounds[i]:bounds[i + 1]]`` is the JSON of page i; ``BLOCK`` more bytes follow the last.
    Where a page may have a ``<base href>``, or a link in another form than the usual one,
    ``unusual[i]`` becomes true and the page has no links; pages for which it is true already are
    passed over. ``links`` must have room for one a ``SHORTEST_LINK`` bytes.
    """
    found = 0
    for page in range(len(unusual)):
        if unusual[page]:
            continue
        before = found
        first, end = np.int64(bounds[page]), np.int64(bounds[page + 1])
        mark = _next_mark(data, first, end)
        while mark >= 0:
            at = mark - len(_BEFORE)
            url = mark + len(_MARK) + len(_URL)
            if (
                at < first
                or not _is_at(data, at, end, _BEFORE)
                or not _is_at(data, mark + len(_MARK), end, _URL)
            ):
                mark = -2
                break
            url_end = _string_end(data, url, end)
            at = min(url_end + 1, end)
            alt = alt_end = title = title_end = at
            if _is_at(data, at, end, _ALT):
                alt = at + len(_ALT)
                alt_end = _string_end(data, alt, end)
                at = min(alt_end + 1, end)
            if _is_at(data, at, end, _TITLE):
                title = at + len(_TITLE)
                title_end = _string_end(data, title, end)
                at = min(title_end + 1, end)
            if at >= end or data[at] != _BRACE:
                mark = -2
                break
            row = links[found]
            row[0], row[1], row[2], row[3] = page, url, url_end, alt
            row[4], row[5], row[6] = alt_end, title, title_end
            found += 1
            mark = _next_mark(data, at, end)
        if mark == -2:
            unusual[page] = True
            found = before
    return found


@njit(cache=True, nogil=True)
def _is_clean(data, at, end, ascii_only):  # type: ignore[no-untyped-def]
    """How many characters a text has if it stays as it is (cleaned and without escapes); else -1.

    Takes the bytes for UTF-8.
    """
    characters = 0
    space = True  # so that none may come first
    while at < end:
        byte = data[at]
        if byte < _SPACE or byte in (_DELETE, _BACKSLASH) or (byte >= 0x80 and ascii_only):
            return -1
        if byte == _SPACE:
            if space:
                return -1
            space = True
        else:
            space = False
            # Characters that may be controls (C2) or white space (C2, E1, E2, E3).
            if byte >= 0xC2 and at + 2 < end:
                second, third = data[at + 1], data[at + 2]
                if (
                    (byte == 0xC2 and second <= 0xA0)
                    or (byte == 0xE1 and second == 0x9A)
                    or (
                        byte == 0xE2
                        and second == 0x80
                        and (third <= 0x8A or third in (0xA8, 0xA9, 0xAF))
                    )
                    or (byte == 0xE2 and second == 0x81 and third == 0x9F)
                    or (byte == 0xE3 and second == 0x80 and third == 0x80)
                ):
                    return -1
            elif byte == 0xC2 and at + 1 < end and data[at + 1] <= 0xA0:
                return -1
        characters += (byte & 0xC0) != 0x80
        at += 1
    return -1 if space and characters else characters


@njit(f"int64({_BYTES}, {_TABLE}, int64, boolean, int32[::1])", cache=True, nogil=True)
def measure_texts(data, links, column, ascii_only, characters):  # type: ignore[no-untyped-def]
    """Fill ``characters`` (int32[n]) with the lengths of the texts that stay as they are, else -1.

    ``column``: ``ALT`` or ``TITLE``. Returns how many bytes those texts have together.
    ``ascii_only``: take no others for texts that stay as they are.
    """
    size = 0
    for i in range(len(links)):
        start, end = links[i, column], links[i, column + 1]
        characters[i] = _is_clean(data, start, end, ascii_only)
        if characters[i] >= 0:
            size += end - start
    return size


@njit(f"void({_BYTES}, {_TABLE}, int64, {_NUMBERS}, int32[::1], uint8[::1])",
      cache=True, nogil=True)  # fmt: skip
def copy_texts(data, links, column, characters, offsets, out):  # type: ignore[no-untyped-def]
    """Fill an Arrow string array's buffers with the texts that ``characters`` counts."""
    size = 0
    offsets[0] = 0
    for i in range(len(links)):
        if characters[i] > 0:
            for at in range(links[i, column], links[i, column + 1]):
                out[size] = data[at]
                size += 1
        offsets[i + 1] = size


@njit(cache=True, nogil=True)
def _is_plain_absolute(data, start, end):  # type: ignore[no-untyped-def]
    """The same as ``urls._is_plain_absolute``."""
    if not _is_at(data, start, end, _HTTP):
        return False
    at = start + len(_HTTP)
    if at < end and data[at] == _SMALL_S:
        at += 1
    if at + 3 > end or data[at] != _COLON or data[at + 1] != _SLASH or data[at + 2] != _SLASH:
        return False
    at += 3
    label, dots = at, 0
    letters_only = True
    while at < end and data[at] != _SLASH:
        byte = data[at]
        if byte == _DOT:
            if at == label:
                return False
            label, dots, letters_only = at + 1, dots + 1, True
        elif _KIND[byte] & (_LABEL_FIRST if at == label else _LABEL):
            letters_only = letters_only and _KIND[byte] & _TOP != 0
        else:
            return False
        at += 1
    if dots == 0 or at == end or not (label < at and letters_only):
        return False
    for i in range(start, end):
        byte = data[i]
        if i > at and not (_KIND[byte] & _PLAIN or byte == _COLON):
            return False
        if i + 1 < end and _is_dotted(byte, data[i + 1]):
            return False
        if (
            byte == _SMALL_X
            and i + 3 < end
            and data[i + 1] == _SMALL_N
            and data[i + 2] == _HYPHEN
            and data[i + 3] == _HYPHEN
        ):
            return False
    return True


@njit(cache=True, nogil=True)
def _is_dotted(byte, following):  # type: ignore[no-untyped-def]
    return (byte == _SLASH and following == _DOT) or (byte == _PERCENT and following == _TWO)


@njit(cache=True, nogil=True)
def _is_plain_relative(data, start, end):  # type: ignore[no-untyped-def]
    """Whether ``urls.Base.resolve`` has but to put a folder or an origin before the address."""
    first = start + 1 if data[start] == _SLASH else start
    if first == end or not _KIND[data[first]] & _FIRST:
        return False
    for i in range(first, end):
        if not _KIND[data[i]] & _PLAIN:
            return False
        if i + 1 < end and _is_dotted(data[i], data[i + 1]):
            return False
    return True


@njit(f"void({_BYTES}, {_NUMBERS}, boolean[::1])", cache=True, nogil=True)
def are_plain_absolute(data, offsets, plain):  # type: ignore[no-untyped-def]
    """Fill ``plain``: which strings are addresses that the URL parser leaves as they are."""
    for i in range(len(plain)):
        plain[i] = _is_plain_absolute(data, offsets[i], offsets[i + 1])


@njit(f"void({_BYTES}, {_NUMBERS}, int32[:, ::1])", cache=True, nogil=True)
def split_bases(data, offsets, ends):  # type: ignore[no-untyped-def]
    """Fill ``ends`` (int32[n, 2]): how long the origin and the folder of normal addresses are.

    The empty address, which stands for none, has neither.
    """
    for i in range(len(ends)):
        at, end = offsets[i], offsets[i + 1]
        slashes = 0
        ends[i] = 0
        while at < end and not (slashes >= 3 and data[at] == _QUERY):
            if data[at] == _SLASH:
                slashes += 1
                if slashes == 3:
                    ends[i, 0] = at - offsets[i]
                ends[i, 1] = at + 1 - offsets[i]
            at += 1


@njit(f"void({_BYTES}, {_TABLE}, {_TABLE}, int64, uint8[::1])", cache=True, nogil=True)
def plan_addresses(data, links, ends, max_size, kinds):  # type: ignore[no-untyped-def]
    """Fill ``kinds`` with what is to be put before each address.

    ``ODD``: left to ``urls.Base.resolve``, as are those longer than ``max_size`` bytes.
    """
    for i in range(len(links)):
        page, start, end = links[i, 0], links[i, 1], links[i, 2]
        kinds[i] = ODD
        if start == end or end - start > max_size:
            continue
        if _is_plain_relative(data, start, end):
            at_origin = data[start] == _SLASH
            if end - start + ends[page, 0 if at_origin else 1] <= max_size:
                kinds[i] = AT_ORIGIN if at_origin else IN_FOLDER
        elif _is_plain_absolute(data, start, end):
            kinds[i] = ABSOLUTE


@njit(f"void({_TABLE}, {_BYTES}, {_TABLE}, int32[::1])", cache=True, nogil=True)
def measure_addresses(links, kinds, ends, offsets):  # type: ignore[no-untyped-def]
    """Fill the offsets of an Arrow string array: of joined addresses, empty for odd ones."""
    offsets[0] = 0
    for i in range(len(links)):
        size = 0
        if kinds[i] != ODD:
            size = links[i, 2] - links[i, 1]
            if kinds[i] != ABSOLUTE:
                size += ends[links[i, 0], 0 if kinds[i] == AT_ORIGIN else 1]
        offsets[i + 1] = offsets[i] + size


@njit(f"void({_BYTES}, {_TABLE}, {_BYTES}, {_NUMBERS}, {_BYTES}, {_NUMBERS}, uint8[::1])",
      cache=True, nogil=True)  # fmt: skip
def join_addresses(data, links, bases, base_offsets, kinds, offsets, out):  # type: ignore[no-untyped-def]
    """Fill the bytes of the array that ``measure_addresses`` gave the offsets of."""
    for i in range(len(links)):
        if kinds[i] == ODD:
            continue
        at = offsets[i]
        start, end = links[i, 1], links[i, 2]
        base = base_offsets[links[i, 0]]
        for position in range(base, base + offsets[i + 1] - at - (end - start)):
            out[at] = bases[position]
            at += 1
        for position in range(start, end):
            out[at] = data[position]
            at += 1
