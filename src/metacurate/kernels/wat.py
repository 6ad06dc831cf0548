"""Compiled twin of ``commoncrawl.wat``, which defines it: the image links of many WAT pages.

Gain: without it and the two loops that need it, ``kernels.text`` and ``kernels.url``, ``pool
extract`` takes 2.7 times as long on made-up pages of 20 images, 1.8 to 2.7 times on documentation
pages, which have few (``benchmarks/kernels.py wat --wat FILE``).

What is not of the plainest form is left to ``commoncrawl.wat``.
"""

from __future__ import annotations

import numpy as np

from metacurate.kernels.bytes import BLOCK, copy, is_at, may_have, string_end
from metacurate.kernels.cache import njit

MARK = b'"IMG@/src"'
# The columns of records: where the content block and the page's URL are.
SPAN = 4
START, END, URI, URI_END = range(SPAN)
# The columns of links; a text that is missing has two equal bounds.
LINK = 7
PAGE, ADDRESS, ADDRESS_END, ALT, ALT_END, TITLE, TITLE_END = range(LINK)
# The columns of pages: the page's URL and the name of its WARC file (in the strings), the offset,
# and the number of its record.
PAGE_COLUMNS = 6
URL, URL_END, FILE, FILE_END, OFFSET, RECORD = range(PAGE_COLUMNS)
# The progress through a batch of records: the next one; what was found.
PROGRESS = 6
NEXT, PAGES, LINKS, STRING_BYTES, WITHOUT_HTML, WITHOUT_LINKS = range(PROGRESS)
# Why ``read_pages`` comes back.
ALL_READ, FULL, UNUSUAL = range(3)

_MARK = np.frombuffer(MARK, np.uint8)
_BEFORE = np.frombuffer(b'{"path":', np.uint8)
_ADDRESS = np.frombuffer(b',"url":"', np.uint8)
_ALT = np.frombuffer(b',"alt":"', np.uint8)
_TITLE = np.frombuffer(b',"title":"', np.uint8)
_BASE = np.frombuffer(b'"Base":', np.uint8)
_HTML = np.frombuffer(b'"HTML-Metadata"', np.uint8)
_INFO = np.frombuffer(b'"WARC-Info-Metadata"', np.uint8)
_FILE = np.frombuffer(b'{"Container":{"Filename":"', np.uint8)
_OFFSET = np.frombuffer(b'","Compressed":true,"Offset":"', np.uint8)
# Pairs of bytes that are rare and in what is sought, and where in it.
_MARK_PAIR, _MARK_PLACE = np.frombuffer(b"G@", np.uint8), MARK.index(b"G@")
_BASE_PAIR = np.frombuffer(b'"B', np.uint8)
_HTML_PAIR, _HTML_PLACE = np.frombuffer(b"ML", np.uint8), 3
_INFO_PAIR, _INFO_PLACE = np.frombuffer(b"o-", np.uint8), 9
_QUOTE, _BACKSLASH, _BRACE, _SPACE, _DELETE = (np.uint8(ord(c)) for c in '"\\} \x7f')

_BYTES = "Array(uint8, 1, 'C', readonly=True)"
_SPANS = "Array(int64, 2, 'C', readonly=True)"


@njit()
def _next_mark(data, first, at, end):  # type: ignore[no-untyped-def]
    """Where the next mark is, -1 if there is none before ``end``; -2 if a ``"Base":`` is before it.

    Nothing of a mark may lie before ``at``, and nothing before ``first`` is looked at.
    """
    while at < end:
        if may_have(data, at, _MARK_PAIR, _BASE_PAIR):
            for i in range(at, min(at + BLOCK, end)):
                mark = i - _MARK_PLACE
                if data[i] == _MARK_PAIR[0] and mark >= first and is_at(data, mark, end, _MARK):
                    return mark
                if data[i] == _QUOTE and is_at(data, i, end, _BASE):
                    return -2
        at += BLOCK
    return -1


@njit()
def _describes(data, first, end):  # type: ignore[no-untyped-def]
    """Whether a record describes HTML (1), or else its WARC file (2), or neither (0)."""
    found = 0
    at = first
    while at < end:
        if may_have(data, at, _HTML_PAIR, _INFO_PAIR):
            for i in range(at, min(at + BLOCK, end)):
                html, info = i - _HTML_PLACE, i - _INFO_PLACE
                if html >= first and is_at(data, html, end, _HTML):
                    return 1
                if info >= first and is_at(data, info, end, _INFO):
                    found = 2
        at += BLOCK
    return found


@njit()
def _link(data, first, mark, end, link):  # type: ignore[no-untyped-def]
    """Fill the columns of the link at a mark; where its closing brace is, -1 if it is unusual."""
    before, address = mark - len(_BEFORE), mark + len(_MARK)
    if (
        before < first
        or not is_at(data, before, end, _BEFORE)
        or not is_at(data, address, end, _ADDRESS)
    ):
        return -1
    link[ADDRESS] = address + len(_ADDRESS)
    link[ADDRESS_END] = string_end(data, address + len(_ADDRESS), end)
    at = min(link[ADDRESS_END] + 1, end)
    link[ALT] = link[ALT_END] = link[TITLE] = link[TITLE_END] = at
    if is_at(data, at, end, _ALT):
        link[ALT] = at + len(_ALT)
        link[ALT_END] = string_end(data, at + len(_ALT), end)
        at = min(link[ALT_END] + 1, end)
    if is_at(data, at, end, _TITLE):
        link[TITLE] = at + len(_TITLE)
        link[TITLE_END] = string_end(data, at + len(_TITLE), end)
        at = min(link[TITLE_END] + 1, end)
    return at if at < end and data[at] == _BRACE else -1


@njit()
def _place(data, at, end, page):  # type: ignore[no-untyped-def]
    """Fill the columns ``FILE`` to ``OFFSET`` of a page; False if its JSON begins unusually."""
    if not is_at(data, at, end, _FILE):
        return False
    at += len(_FILE)
    page[FILE] = at
    while at < end and _SPACE < data[at] < _DELETE and data[at] not in (_QUOTE, _BACKSLASH):
        at += 1
    page[FILE_END] = at
    if not is_at(data, at, end, _OFFSET):
        return False
    at += len(_OFFSET)
    digits = at
    offset = np.int64(0)
    while at < end and 48 <= data[at] <= 57 and at - digits < 18:
        offset = 10 * offset + np.int64(data[at] - 48)
        at += 1
    page[OFFSET] = offset
    return at > digits and at < end and data[at] == _QUOTE


@njit()
def _move(data, row, column, end_column, strings, size):  # type: ignore[no-untyped-def]
    """Copy what two columns bound to ``strings[size]`` and set them to it; the size after it."""
    after = copy(data, row[column], row[end_column], strings, size)
    row[column], row[end_column] = size, after
    return after


@njit(f"int64({_BYTES}, {_SPANS}, int64, int64[:, ::1], int64[:, ::1], uint8[::1], int64[::1])",
     )  # fmt: skip
def read_pages(data, records, longest, pages, links, strings, progress):  # type: ignore[no-untyped-def]
    """Take over the pages that records describe, and their image links, until something stops it.

    ``records`` (int64[n, 4]): places in ``data``; ``BLOCK`` more bytes follow the last.
    The rows of ``pages`` (int64[n, 6]) are pages with links, those of ``links`` (int64[m, 7]) their
    links, with bounds of JSON strings' inner bytes in ``strings``. ``progress``: where to go on
    (``NEXT``) and what there is already; other records and pages are counted in it.

    Returns ``ALL_READ``; ``FULL`` if there is no room for the next record; ``UNUSUAL`` if the next
    one is not for this function: over ``longest`` bytes (or its URL over what ``strings`` can hold
    besides), the description of a WARC file, a page whose URL is not ASCII, or which may have a
    ``<base href>``, unusual links or more links than there is room for.
    """
    while progress[NEXT] < len(records):
        record = records[progress[NEXT]]
        start, end = record[START], record[END]
        if end - start > longest or record[URI_END] - record[URI] > len(strings) - longest:
            return UNUSUAL
        kind = _describes(data, start, end)
        if kind == 2:
            return UNUSUAL
        mark = np.int64(-1)
        if kind == 0:
            progress[WITHOUT_HTML] += 1
        else:
            mark = _next_mark(data, start, start, end)
            if mark == -1:
                progress[WITHOUT_LINKS] += 1
        if mark == -1:
            progress[NEXT] += 1
            continue
        if progress[PAGES] == len(pages):
            return FULL
        page = pages[progress[PAGES]]
        if not _place(data, start, end, page):
            return UNUSUAL
        page[URL], page[URL_END] = record[URI], record[URI_END]
        page[RECORD] = progress[NEXT]
        for i in range(page[URL], page[URL_END]):
            if data[i] >= 0x80:
                return UNUSUAL
        size = progress[STRING_BYTES]
        if size + (page[URL_END] - page[URL]) + (page[FILE_END] - page[FILE]) > len(strings):
            return FULL
        size = _move(data, page, URL, URL_END, strings, size)
        size = _move(data, page, FILE, FILE_END, strings, size)
        found = progress[LINKS]
        while mark >= 0:
            if found == len(links):
                return FULL if progress[LINKS] else UNUSUAL
            link = links[found]
            link[PAGE] = progress[PAGES]
            brace = _link(data, start, mark, end, link)
            if brace < 0:
                return UNUSUAL
            if size + brace - mark > len(strings):
                return FULL
            size = _move(data, link, ADDRESS, ADDRESS_END, strings, size)
            size = _move(data, link, ALT, ALT_END, strings, size)
            size = _move(data, link, TITLE, TITLE_END, strings, size)
            found += 1
            mark = _next_mark(data, start, brace, end)
        if mark == -2:
            return UNUSUAL
        progress[PAGES] += 1
        progress[LINKS] = found
        progress[STRING_BYTES] = size
        progress[NEXT] += 1
    return ALL_READ
