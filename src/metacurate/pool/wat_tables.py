"""The rows of WAT pages, many pages at a time.

What ``page_rows`` does for one page is done here for the columns of a batch: compiled code takes
the plain values over, Python sees the odd ones alone, one by one, with the functions that
``page_rows`` uses. A page with image links in an unusual form is left to ``page_rows`` as a whole.
The rows and counts are those of ``page_rows`` for every page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.pool import wat
from metacurate.pool import wat_kernel as kernel
from metacurate.pool.filters import TextRules, clean, drop_reason
from metacurate.pool.page_rows import (
    FOUND,
    NO_KEPT_TEXT,
    REPEATED,
    Counts,
    Row,
    SourcePage,
    page_rows,
    row_table,
    row_tables,
)
from metacurate.pool.response import NO_IMAGE
from metacurate.pool.urls import MAX_URL_CHARS, Base
from metacurate.pool.warc import Record

# How much JSON, and of how many pages, is looked at together. Longer pages go alone, row by row, so
# that memory stays bounded.
BATCH_BYTES = 2 << 20
BATCH_PAGES = 4096

INVALID_JSON = "invalid JSON"


class WatPage(NamedTuple):
    """The record that describes a page, the page's address and the crawl's name."""

    record: Record
    url: str
    snapshot: str | None


def wat_tables(pages: Iterable[WatPage], rules: TextRules, counts: Counts) -> Iterator[pa.Table]:
    """Yield the rows of pages, in order, as tables (``FOUND``)."""
    batch: list[WatPage] = []
    size = 0
    for page in pages:
        length = page.record.end - page.record.start
        if batch and (size + length > BATCH_BYTES or len(batch) == BATCH_PAGES):
            yield _batch_table(batch, rules, counts)
            batch, size = [], 0
        if length > BATCH_BYTES:
            yield from row_tables(_rows(page, rules, counts))
        else:
            batch.append(page)
            size += length
    if batch:
        yield _batch_table(batch, rules, counts)


def _rows(page: WatPage, rules: TextRules, counts: Counts) -> Iterator[Row]:
    """Yield the rows of one page, whatever its form."""
    try:
        read = wat.read_page(page.record.block)
    except wat.InvalidJson:
        counts.dropped_pages[INVALID_JSON] += 1
        return
    if not read.images:
        counts.dropped_pages[NO_IMAGE] += 1
        return
    source = SourcePage(
        read.images, read.base_href, page.url, page.snapshot, read.warc_file, read.record_offset
    )
    yield from page_rows(source, rules, counts)


def _batch_table(pages: list[WatPage], rules: TextRules, counts: Counts) -> pa.Table:
    blocks = [(page.record.data, page.record.start, page.record.end) for page in pages]
    places = [wat.plain_place(*block) for block in blocks]
    # Pages that the columns are not for; found out in all that follows, up to ``usual``.
    unusual = np.array([place is None for place in places])
    bases, base_ends = _bases([page.url for page in pages], unusual)
    data, links = _find_links(blocks, unusual)
    alt = _read_texts(data, links, kernel.ALT, unusual)
    title = _read_texts(data, links, kernel.TITLE, unusual)
    addresses = _read_addresses(data, links, base_ends, unusual)

    usual = ~unusual[links[:, kernel.PAGE]]
    counts.images += int(usual.sum())
    found = np.bincount(links[:, kernel.PAGE], minlength=len(pages))
    _count(counts.dropped_pages, NO_IMAGE, ~unusual & (found == 0))
    has_alt = _kept_texts(alt, usual, rules, counts)
    has_title = _kept_texts(title, usual, rules, counts)
    has_text = has_alt | has_title
    _count(counts.dropped_images, NO_KEPT_TEXT, usual & ~has_text)

    rows = np.flatnonzero(has_text)
    urls = _resolve(data, links, rows, addresses, bases, base_ends, counts)
    rows, urls = rows[_valid(urls)], urls.drop_null()
    chosen = [_taken(alt.texts, rows, has_alt), _taken(title.texts, rows, has_title)]
    page_of = links[rows, kernel.PAGE]
    first = _first_of_equal([page_of, *(_identities(c) for c in (urls, *chosen))])
    _count(counts.dropped_images, REPEATED, ~first)

    page_of, keep = page_of[first], pa.array(first)
    table = pa.table(
        [
            urls.filter(keep),
            _text_lists(*(column.filter(keep) for column in chosen)),
            pa.array([page.url for page in pages], pa.string()).take(pa.array(page_of)),
            pa.array([page.snapshot for page in pages], pa.string()).take(pa.array(page_of)),
            pa.array([p and p[0] for p in places], pa.string()).take(pa.array(page_of)),
            pa.array([p and p[1] for p in places], pa.int64()).take(pa.array(page_of)),
        ],
        schema=FOUND,
    )
    return _with_rows_of(np.flatnonzero(unusual), pages, table, page_of, rules, counts)


def _with_rows_of(
    unusual: np.ndarray,
    pages: list[WatPage],
    table: pa.Table,
    page_of: np.ndarray,
    rules: TextRules,
    counts: Counts,
) -> pa.Table:
    """The table, whose rows are of the pages ``page_of``, and the unusual pages' rows, in order."""
    if not len(unusual):
        return table
    rows = [(page, row) for page in unusual for row in _rows(pages[page], rules, counts)]
    order = np.argsort([*page_of, *(page for page, _ in rows)], kind="stable")
    return pa.concat_tables([table, row_table([row for _, row in rows])]).take(pa.array(order))


def _taken(texts: pa.StringArray, rows: np.ndarray, kept: np.ndarray) -> pa.StringArray:
    """Some rows' texts, null where they are not kept."""
    return texts.take(pa.array(np.where(kept[rows], rows, -1), mask=~kept[rows]))


def _valid(values: pa.Array) -> np.ndarray:
    return values.is_valid().to_numpy(zero_copy_only=False)


def _count(counter: Counter[str], reason: str, which: np.ndarray) -> None:
    if number := int(which.sum()):
        counter[reason] += number


def _bases(urls: list[str], unusual: np.ndarray) -> tuple[pa.StringArray, np.ndarray]:
    """What the addresses of each page are relative to, and where (int32[n, 2]) it is to be cut."""
    bases = pa.array(urls, pa.string())
    plain = np.empty(len(urls), bool)
    kernel.are_plain_absolute(*_bytes_and_offsets(bases), plain)
    places = np.flatnonzero(~plain)
    odd: list[str] = []
    for page in places:
        try:
            odd.append(Base(urls[page]).url)
        except ValueError:
            odd.append("")
            unusual[page] = True
    bases = _replace(bases, places, odd)
    ends = np.empty((len(urls), 2), np.int32)
    kernel.split_bases(*_bytes_and_offsets(bases), ends)
    return bases, ends


def _find_links(
    blocks: list[tuple[bytes, int, int]], unusual: np.ndarray
) -> tuple[bytes, np.ndarray]:
    """The joined JSON of pages and its image links (see ``wat_kernel.find_links``)."""
    parts = [memoryview(data)[start:end] for data, start, end in blocks]
    data = b"".join([*parts, bytes(kernel.BLOCK)])
    bounds = np.zeros(len(blocks) + 1, np.int32)
    np.cumsum([end - start for _, start, end in blocks], out=bounds[1:])
    links = np.empty((len(data) // kernel.SHORTEST_LINK, kernel.COLUMNS), np.int32)
    found = kernel.find_links(np.frombuffer(data, np.uint8), bounds, links, unusual)
    return data, links[:found]


class _Texts(NamedTuple):
    """Cleaned texts, one a link; null where there is none, else with their lengths."""

    texts: pa.StringArray
    characters: np.ndarray


def _read_texts(data: bytes, links: np.ndarray, column: int, unusual: np.ndarray) -> _Texts:
    raw = np.frombuffer(data, np.uint8)
    characters = np.empty(len(links), np.int32)
    offsets = np.empty(len(links) + 1, np.int32)
    missing = links[:, column] == links[:, column + 1]
    for ascii_only in (False, True):
        size = kernel.measure_texts(raw, links, column, ascii_only, characters)
        out = np.empty(size, np.uint8)
        kernel.copy_texts(raw, links, column, characters, offsets, out)
        texts = _string_array(offsets, out, missing)
        try:
            texts.validate(full=True)
            break
        except pa.ArrowInvalid:  # a page is not UTF-8
            continue
    places = np.flatnonzero(characters < 0)
    odd: list[str] = []
    spans = links[places][:, [kernel.PAGE, column, column + 1]].tolist()
    for page, start, end in spans:
        try:
            odd.append(clean(wat.json_text(data[start:end])))
        except wat.InvalidJson:
            unusual[page] = True
            odd.append("")
    characters[places] = [len(text) for text in odd]
    return _Texts(_replace(texts, places, odd), characters)


def _kept_texts(column: _Texts, usual: np.ndarray, rules: TextRules, counts: Counts) -> np.ndarray:
    """Which links have a text in that column that the rules let pass."""
    present = usual & _valid(column.texts)
    if rules.only_lengths:
        least = max(1, rules.min_length)
        fits = (column.characters >= least) & (column.characters <= rules.max_length)
    else:
        fits = np.zeros(len(present), bool)
    kept = present & fits
    for place in np.flatnonzero(present & ~fits):
        reason = drop_reason(column.texts[place].as_py(), rules)
        if reason is None:
            kept[place] = True
        else:
            counts.dropped_texts[reason] += 1
    return kept


class _Addresses(NamedTuple):
    """What is to be done for each link's address (``wat_kernel``), and the odd ones as written."""

    kinds: np.ndarray
    odd: dict[int, str]


def _read_addresses(
    data: bytes, links: np.ndarray, base_ends: np.ndarray, unusual: np.ndarray
) -> _Addresses:
    kinds = np.empty(len(links), np.uint8)
    kernel.plan_addresses(np.frombuffer(data, np.uint8), links, base_ends, MAX_URL_CHARS, kinds)
    odd: dict[int, str] = {}
    links_of_odd = np.flatnonzero(kinds == kernel.ODD)
    spans = links[links_of_odd, kernel.PAGE : kernel.URL_END + 1].tolist()
    for link, (page, start, end) in zip(links_of_odd.tolist(), spans, strict=True):
        try:
            odd[link] = wat.json_text(data[start:end])
        except wat.InvalidJson:
            unusual[page] = True
    return _Addresses(kinds, odd)


def _resolve(
    data: bytes,
    links: np.ndarray,
    which: np.ndarray,
    addresses: _Addresses,
    bases: pa.StringArray,
    base_ends: np.ndarray,
    counts: Counts,
) -> pa.StringArray:
    """The absolute addresses of the links ``which``; null where it cannot be had."""
    links, kinds = links[which], addresses.kinds[which]
    raw = np.frombuffer(data, np.uint8)
    base_bytes, base_offsets = _bytes_and_offsets(bases)
    offsets = np.empty(len(links) + 1, np.int32)
    kernel.measure_addresses(links, kinds, base_ends, offsets)
    out = np.empty(offsets[-1], np.uint8)
    kernel.join_addresses(raw, links, base_bytes, base_offsets, kinds, offsets, out)
    places = np.flatnonzero(kinds == kernel.ODD)
    resolvers: dict[int, Base] = {}
    odd: list[str | None] = []
    pages = links[places, kernel.PAGE].tolist()
    for page, link in zip(pages, which[places].tolist(), strict=True):
        if page not in resolvers:
            resolvers[page] = Base(bases[page].as_py())
        url, problem = resolvers[page].resolve(addresses.odd[link])
        if url is None:
            counts.dropped_images[problem] += 1
        odd.append(url)
    return _replace(_string_array(offsets, out), places, odd)


def _first_of_equal(columns: list[np.ndarray]) -> np.ndarray:
    """Which rows of integer columns are the first with their values."""
    keys = np.stack(columns, axis=1).astype(np.int32)
    width = keys.dtype.itemsize * len(columns)
    packed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(keys), [None, pa.py_buffer(np.ascontiguousarray(keys))]
    )
    # New values get rising numbers.
    numbers = packed.dictionary_encode().indices.to_numpy()
    highest = np.maximum.accumulate(np.concatenate([[-1], numbers]))
    return numbers > highest[:-1]


def _identities(values: pa.StringArray) -> np.ndarray:
    """Equal numbers for equal values, -1 for null."""
    return values.dictionary_encode().indices.fill_null(-1).to_numpy()


def _text_lists(alt: pa.StringArray, title: pa.StringArray) -> pa.ListArray:
    """A list of (source, text) for each row, of the texts that are not null."""
    given = np.stack([_valid(alt), _valid(title)], axis=1)
    row, column = np.nonzero(given)
    offsets = np.zeros(len(alt) + 1, np.int32)
    np.cumsum(given.sum(axis=1), out=offsets[1:])
    sources = pa.array(["alt", "title"], pa.string()).take(pa.array(column))
    texts = pa.concat_arrays([alt, title]).take(pa.array(column * len(alt) + row))
    kind = FOUND.field("texts").type
    struct = pa.StructArray.from_arrays([sources, texts], fields=list(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), struct, type=kind)


def _string_array(
    offsets: np.ndarray, data: np.ndarray, missing: np.ndarray | None = None
) -> pa.StringArray:
    nulls = None
    if missing is not None and missing.any():
        nulls = pa.py_buffer(np.packbits(~missing, bitorder="little"))
    return pa.StringArray.from_buffers(
        len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data), nulls
    )


def _bytes_and_offsets(strings: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """The buffers of an array without offset."""
    _, offsets, data = strings.buffers()
    return (
        np.frombuffer(data or b"", np.uint8),
        np.frombuffer(offsets, np.int32, len(strings) + 1),
    )


def _replace(
    strings: pa.StringArray, places: np.ndarray, values: Sequence[str | None]
) -> pa.StringArray:
    """The strings with others at some (rising) places."""
    if not len(places):
        return strings
    mask = np.zeros(len(strings), bool)
    mask[places] = True
    return pc.replace_with_mask(strings, pa.array(mask), pa.array(values, pa.string()))
