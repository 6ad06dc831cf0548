"""The rows of WAT pages, many pages at a time.

What ``page_rows`` does for one page is done here for the columns of many: compiled code takes the
plain values over, Python sees the odd ones alone, one by one, with the functions that ``page_rows``
uses. An unusual page is left to ``page_rows`` as a whole. The rows and counts are those of
``page_rows`` for every page.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.arrays import offsets_of
from metacurate.commoncrawl import wat
from metacurate.commoncrawl.page_rows import (
    FOUND,
    MAX_NAME_CHARS,
    USUAL,
    Counts,
    Reading,
    Row,
    SourcePage,
    name_or_none,
    official_key,
    page_rows,
    row_table,
    row_tables,
)
from metacurate.commoncrawl.reasons import DroppedImage, DroppedPage, DroppedRecord, DroppedText
from metacurate.commoncrawl.warc import MAX_HEADER_BYTES, RecordBatch
from metacurate.kernels import text as text_kernel
from metacurate.kernels import url as url_kernel
from metacurate.kernels import wat as kernel
from metacurate.pages.entities import unescape
from metacurate.pages.image_address import MAX_URL_CHARS
from metacurate.pages.urls import BadAddress, Base
from metacurate.texts.languages import MAX_LABEL
from metacurate.texts.rules import INVISIBLE, TextRules, clean, drop_reason

# How much is taken over from pages before it becomes rows. Pages with longer JSON go alone, row by
# row, so that memory stays bounded.
BATCH_BYTES = 2 << 20
BATCH_PAGES = 4096
BATCH_LINKS = 32_768  # each may become an address of MAX_URL_CHARS
BATCH_ROWS = 4096

_INVISIBLE = f"^[{INVISIBLE}][ {INVISIBLE}]*$"
# The first bytes of invisible characters; a range of them has few.
_MAY_BE_INVISIBLE = np.zeros(256, bool)
for _part in re.findall(r".-.|.", INVISIBLE):
    _first, _last = (c.encode()[0] for c in (_part[0], _part[-1]))
    _MAY_BE_INVISIBLE[_first : _last + 1] = True


class WatPage(NamedTuple):
    """The JSON that describes a page, the page's address and the crawl's name."""

    block: bytes
    url: str
    snapshot: str | None
    reading: Reading = USUAL


def wat_tables(
    batches: Iterable[RecordBatch],
    fixed_snapshot: str | None,
    snapshot: str | None,
    rules: TextRules,
    counts: Counts,
    *,
    reading: Reading = USUAL,
) -> Iterator[pa.Table]:
    """Yield the rows of a WAT's records, in order, as tables (``FOUND``).

    ``fixed_snapshot``: the crawl's name whatever the file says; ``snapshot``: until the file says.
    """
    snapshot = fixed_snapshot or snapshot
    pending = _Pending(reading)
    for batch in batches:
        data = np.frombuffer(batch.data, np.uint8)
        counts.records += len(batch.spans)
        position = 0
        while True:
            position, stop = pending.take(batch.data, data, batch.spans, position, counts)
            if stop == kernel.ALL_READ:
                break
            if stop == kernel.FULL:
                yield from _flush(pending, snapshot, rules, counts)
                continue
            start, end, uri, uri_end = batch.spans[position].tolist()
            position += 1
            block = batch.data[start:end]
            if not wat.describes_html(block):
                counts.dropped_records[DroppedRecord.NO_HTML_METADATA] += 1
                yield from _flush(pending, snapshot, rules, counts)
                snapshot = fixed_snapshot or wat.snapshot(block) or snapshot
                continue
            counts.pages += 1
            url = batch.data[uri:uri_end].decode("utf-8", "replace")
            rows = _rows(WatPage(block, url, snapshot, reading), rules, counts)
            if len(block) > BATCH_BYTES:
                yield from _flush(pending, snapshot, rules, counts)
                yield from row_tables(rows)
            else:
                pending.add_rows(rows)
            if len(pending.rows) >= BATCH_ROWS:
                yield from _flush(pending, snapshot, rules, counts)
    yield from _flush(pending, snapshot, rules, counts)


def _rows(page: WatPage, rules: TextRules, counts: Counts) -> Iterator[Row]:
    """Yield the rows of one page, whatever its form."""
    try:
        read = wat.read_page(page.block)
    except wat.InvalidJson:
        counts.dropped_pages[DroppedPage.INVALID_JSON] += 1
        return
    if not read.images:
        counts.dropped_pages[DroppedPage.NO_IMAGE] += 1
        return
    source = SourcePage(
        read.images,
        read.base_href,
        page.url,
        page.snapshot,
        read.warc_file,
        read.record_offset,
        reading=page.reading,
        language=wat.language(page.block) if page.reading.with_languages else None,
    )
    yield from page_rows(source, rules, counts)


class _Pending:
    """Pages that wait to become a table: those taken over with their links, and others' rows."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self._pages = np.empty((BATCH_PAGES, kernel.PAGE_COLUMNS), np.int64)
        self._links = np.empty((BATCH_LINKS, kernel.LINK), np.int64)
        self._strings = np.empty(BATCH_BYTES + MAX_HEADER_BYTES, np.uint8)
        self.clear()

    def clear(self) -> None:
        """Let nothing wait."""
        self._progress = np.zeros(kernel.PROGRESS, np.int64)
        self.rows: list[Row] = []
        self.pages_before: list[int] = []
        self.languages: list[str | None] = []

    def take(
        self, block: bytes, data: np.ndarray, records: np.ndarray, position: int, counts: Counts
    ) -> tuple[int, int]:
        """Take over records from a position on; where and why it ends (``kernels.wat``).

        ``data``: the bytes of ``block``.
        """
        progress = self._progress
        pages = int(progress[kernel.PAGES])
        progress[[kernel.NEXT, kernel.WITHOUT_HTML, kernel.WITHOUT_LINKS]] = position, 0, 0
        stop = kernel.read_pages(
            data, records, BATCH_BYTES, self._pages, self._links, self._strings, progress
        )
        position, all_pages, _, _, without_html, without_links = progress.tolist()
        counts.pages += all_pages - pages + without_links
        _add(counts.dropped_records, DroppedRecord.NO_HTML_METADATA, without_html)
        _add(counts.dropped_pages, DroppedPage.NO_IMAGE, without_links)
        if self.reading.with_languages:
            for record in self._pages[pages:all_pages, kernel.RECORD]:
                start, end = records[record, : kernel.END + 1].tolist()
                language = wat.language(block[start:end])
                self.languages.append(name_or_none(language, MAX_LABEL))
        return position, stop

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Add the rows of a page that was not taken over."""
        self.rows.extend(rows)
        pages = int(self._progress[kernel.PAGES])
        self.pages_before.extend([pages] * (len(self.rows) - len(self.pages_before)))

    @property
    def pages(self) -> np.ndarray:
        """The pages taken over: int64[n, 6] (see ``kernels.wat``)."""
        return self._pages[: self._progress[kernel.PAGES]]

    @property
    def links(self) -> np.ndarray:
        """Their links: int64[m, 7]."""
        return self._links[: self._progress[kernel.LINKS]]

    @property
    def strings(self) -> np.ndarray:
        """The bytes that pages and links refer to."""
        return self._strings[: self._progress[kernel.STRING_BYTES]]


def _flush(
    pending: _Pending, snapshot: str | None, rules: TextRules, counts: Counts
) -> Iterator[pa.Table]:
    """Yield what waits as a table, if there is anything; then nothing waits."""
    if len(pending.pages):
        table, page_of = _links_table(pending, snapshot, rules, counts)
        if pending.rows:
            order = np.argsort(
                np.concatenate([page_of, np.array(pending.pages_before) - 0.5]), kind="stable"
            )
            table = pa.concat_tables([table, row_table(pending.rows)]).take(pa.array(order))
        yield table
    elif pending.rows:
        yield row_table(pending.rows)
    pending.clear()


def _links_table(
    pending: _Pending, snapshot: str | None, rules: TextRules, counts: Counts
) -> tuple[pa.Table, np.ndarray]:
    """The rows of the pages taken over, and the number of each row's page."""
    pages, links, raw = pending.pages, pending.links, pending.strings
    page_urls = _copied(raw, pages[:, kernel.URL : kernel.URL_END + 1])
    is_long = pc.greater(pc.binary_length(page_urls), MAX_URL_CHARS).to_numpy(False)
    bases, bad = _bases(page_urls)
    bad |= is_long
    broken = np.zeros(len(pages), bool)
    entities = pending.reading.entities
    alt = _read_texts(raw, links, kernel.ALT, broken, entities)
    title = _read_texts(raw, links, kernel.TITLE, broken, entities)
    escaped = _escaped_addresses(raw, links, broken, entities)
    _add(counts.dropped_pages, DroppedPage.INVALID_JSON, broken.sum())
    _add(counts.dropped_pages, DroppedPage.LONG_URL, (is_long & ~broken).sum())
    _add(counts.dropped_pages, DroppedPage.BAD_URL, (bad & ~is_long & ~broken).sum())

    usual = ~(broken | bad)[links[:, kernel.PAGE]]
    counts.images += int(usual.sum())
    has_alt = _kept_texts(alt, usual, rules, counts)
    has_title = _kept_texts(title, usual, rules, counts)
    twice = has_alt & has_title & pc.equal(alt.texts, title.texts).fill_null(False).to_numpy(False)
    has_title &= ~twice
    _add(counts.dropped_texts, DroppedText.REPEATED, twice.sum())
    has_text = has_alt | has_title
    _add(counts.dropped_images, DroppedImage.NO_TEXT, (usual & ~has_text).sum())

    rows = np.flatnonzero(has_text)
    urls = _resolve(raw, links, rows, escaped, bases, counts)
    rows, urls = rows[_valid(urls)], urls.drop_null()
    chosen = [_taken(alt.texts, rows, has_alt), _taken(title.texts, rows, has_title)]
    page_of = links[rows, kernel.PAGE]
    first = _first_of_equal([page_of, *(_identities(c) for c in (urls, *chosen))])
    _add(counts.dropped_images, DroppedImage.REPEATED, (~first).sum())

    page_of, keep = page_of[first], pa.array(first)
    row_page = pa.array(page_of)
    files = _copied(raw, pages[:, kernel.FILE : kernel.FILE_END + 1])
    named = pc.less_equal(pc.binary_length(files), MAX_NAME_CHARS)
    files = pc.if_else(named, files, pa.scalar(None, pa.string()))
    table = pa.table(
        [
            urls.filter(keep),
            _text_lists(*(column.filter(keep) for column in chosen)),
            page_urls.take(row_page),
            pa.repeat(pa.scalar(name_or_none(snapshot), pa.string()), len(page_of)),
            files.take(row_page),
            pa.array(pages[page_of, kernel.OFFSET]),
            _keys(raw, links[rows[first]], page_urls)
            if pending.reading.with_keys
            else pa.nulls(len(page_of), pa.string()),
            pa.array(pending.languages, pa.string()).take(row_page)
            if pending.reading.with_languages
            else pa.nulls(len(page_of), pa.string()),
        ],
        schema=FOUND,
    )
    return table, page_of


def _keys(raw: np.ndarray, links: np.ndarray, page_urls: pa.StringArray) -> pa.StringArray:
    """The official keys of links."""
    urls = page_urls.to_pylist()
    columns = links[:, kernel.PAGE : kernel.ADDRESS_END + 1].tolist()
    keys = [
        official_key(urls[page], wat.json_text(raw[start:end].tobytes()))
        for page, start, end in columns
    ]
    return pa.array(keys, pa.string())


def _taken(texts: pa.StringArray, rows: np.ndarray, kept: np.ndarray) -> pa.StringArray:
    """Some rows' texts, null where they are not kept."""
    return texts.take(pa.array(np.where(kept[rows], rows, -1), mask=~kept[rows]))


def _valid(values: pa.Array) -> np.ndarray:
    return values.is_valid().to_numpy(zero_copy_only=False)


def _add(counter: Counter[str], reason: str, number: int) -> None:
    if number:
        counter[reason] += int(number)


class _Bases(NamedTuple):
    """What the addresses of each page are relative to, and where (int32[n, 3]) it is to be cut."""

    urls: pa.StringArray
    parts: np.ndarray


def _bases(page_urls: pa.StringArray) -> tuple[_Bases, np.ndarray]:
    """The pages' bases, and which pages have no usable URL."""
    plain = np.empty(len(page_urls), bool)
    url_kernel.are_plain_absolute(*_bytes_and_offsets(page_urls), plain)
    bad = np.zeros(len(page_urls), bool)
    places = np.flatnonzero(~plain)
    odd: list[str] = []
    for page in places:
        try:
            odd.append(Base(page_urls[page].as_py()).url)
        except ValueError:
            odd.append("")
            bad[page] = True
    bases = _replace(page_urls, places, odd)
    parts = np.empty((len(bases), 3), np.int32)
    url_kernel.split_bases(*_bytes_and_offsets(bases), parts)
    return _Bases(bases, parts), bad


class _Texts(NamedTuple):
    """Cleaned texts, one a link; null where there is none, else with their lengths."""

    texts: pa.StringArray
    characters: np.ndarray


def _read_texts(
    raw: np.ndarray, links: np.ndarray, column: int, broken: np.ndarray, entities: bool
) -> _Texts:
    """The texts of a column; of pages with an invalid one, ``broken`` becomes true."""
    spans = links[:, column : column + 2]
    lengths = spans[:, 1] - spans[:, 0]
    characters = np.empty(len(links), np.int32)
    offsets = np.empty(len(links) + 1, np.int32)
    out = np.empty(int(lengths.sum()), np.uint8)
    text_kernel.clean_texts(raw, spans, characters, offsets, out)
    texts = _string_array(offsets, out, lengths > 0)
    is_odd = characters < 0
    if entities:
        is_odd |= pc.match_substring(texts, "&").fill_null(False).to_numpy(False)
    places = np.flatnonzero(is_odd)
    odd: list[str] = []
    for page, start, end in links[places][:, [kernel.PAGE, column, column + 1]].tolist():
        try:
            written = wat.json_text(raw[start:end].tobytes())
            odd.append(clean(unescape(written) if entities else written))
        except wat.InvalidJson:
            broken[page] = True
            odd.append("")
    characters[places] = [len(text) for text in odd]
    return _Texts(_replace(texts, places, odd), characters)


def _kept_texts(column: _Texts, usual: np.ndarray, rules: TextRules, counts: Counts) -> np.ndarray:
    """Which links have a text in that column that the rules let pass."""
    present = usual & _valid(column.texts)
    if rules.only_lengths:
        least = max(1, rules.min_length)
        fits = (column.characters >= least) & (column.characters <= rules.max_length)
        fits &= ~_invisible(column.texts)
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


def _invisible(texts: pa.StringArray) -> np.ndarray:
    """Which (cleaned) texts have nothing that can be seen."""
    content, offsets = _bytes_and_offsets(texts)
    found = np.zeros(len(texts), bool)
    if not len(content):
        return found
    # The pattern is looked for only where the first byte allows it: in few texts.
    starts = np.minimum(offsets[:-1], len(content) - 1)
    places = np.flatnonzero(_MAY_BE_INVISIBLE[content[starts]] & (offsets[1:] > offsets[:-1]))
    if len(places):
        few = pc.match_substring_regex(texts.take(pa.array(places)), _INVISIBLE)
        found[places] = few.fill_null(False).to_numpy(False)
    return found


def _escaped_addresses(
    raw: np.ndarray, links: np.ndarray, broken: np.ndarray, entities: bool
) -> dict[int, str]:
    """The addresses with escapes, by link; a page with an invalid one becomes ``broken``."""
    escaped = np.empty(len(links), bool)
    bounds = links[:, kernel.ADDRESS : kernel.ADDRESS_END + 1]
    url_kernel.have_escapes(raw, bounds, escaped)
    if entities:
        references = offsets_of(raw == ord("&"))
        escaped |= references[bounds[:, 1]] > references[bounds[:, 0]]
    addresses: dict[int, str] = {}
    places = np.flatnonzero(escaped)
    spans = links[places, kernel.PAGE : kernel.ADDRESS_END + 1].tolist()
    for link, (page, start, end) in zip(places.tolist(), spans, strict=True):
        try:
            written = wat.json_text(raw[start:end].tobytes())
            addresses[link] = unescape(written) if entities else written
        except wat.InvalidJson:
            broken[page] = True
    return addresses


def _resolve(
    raw: np.ndarray,
    links: np.ndarray,
    which: np.ndarray,
    escaped: dict[int, str],
    bases: _Bases,
    counts: Counts,
) -> pa.StringArray:
    """The absolute addresses of the links ``which``; null where there is none."""
    chosen = links[which]
    spans, pages = chosen[:, kernel.ADDRESS : kernel.ADDRESS_END + 1], chosen[:, kernel.PAGE]
    kinds = np.empty(len(which), np.uint8)
    offsets = np.empty(len(which) + 1, np.int32)
    room = url_kernel.room_for_addresses(spans, pages, bases.parts, MAX_URL_CHARS)
    out = np.empty(room, np.uint8)
    url_kernel.resolve_addresses(
        raw,
        spans,
        pages,
        *_bytes_and_offsets(bases.urls),
        bases.parts,
        MAX_URL_CHARS,
        kinds,
        offsets,
        out,
    )
    kinds[np.isin(which, list(escaped))] = url_kernel.ODD
    _add(counts.dropped_images, BadAddress.NO_URL, (kinds == url_kernel.EMPTY).sum())
    _add(counts.dropped_images, BadAddress.DATA_URL, (kinds == url_kernel.DATA).sum())
    urls = _string_array(offsets, out[: offsets[-1]].copy(), kinds == url_kernel.RESOLVED)
    places = np.flatnonzero(kinds == url_kernel.ODD)
    resolvers: dict[int, Base] = {}
    odd: list[str | None] = []
    rows = zip(which[places].tolist(), chosen[places, : kernel.ALT].tolist(), strict=True)
    for link, (page, start, end) in rows:
        if page not in resolvers:
            resolvers[page] = Base(bases.urls[page].as_py())
        written = escaped.get(link) or wat.json_text(raw[start:end].tobytes())
        url, problem = resolvers[page].resolve(written)
        if url is None:
            counts.dropped_images[problem] += 1
        odd.append(url)
    return _replace(urls, places, odd)


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
    offsets = offsets_of(given.sum(axis=1)).astype(np.int32)
    sources = pa.array(["alt", "title"], pa.string()).take(pa.array(column))
    texts = pa.concat_arrays([alt, title]).take(pa.array(column * len(alt) + row))
    kind = FOUND.field("texts").type
    struct = pa.StructArray.from_arrays([sources, texts], fields=list(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(offsets), struct, type=kind)


def _string_array(offsets: np.ndarray, data: np.ndarray, given: np.ndarray) -> pa.StringArray:
    """An array from its buffers; null where nothing is given."""
    nulls = None if given.all() else pa.py_buffer(np.packbits(given, bitorder="little"))
    return pa.StringArray.from_buffers(len(given), pa.py_buffer(offsets), pa.py_buffer(data), nulls)


def _copied(raw: np.ndarray, spans: np.ndarray) -> pa.StringArray:
    """The strings (ASCII) at the spans."""
    offsets = offsets_of(spans[:, 1] - spans[:, 0]).astype(np.int32)
    out = np.empty(offsets[-1], np.uint8)
    text_kernel.copy_spans(raw, spans, out)
    return pa.StringArray.from_buffers(len(spans), pa.py_buffer(offsets), pa.py_buffer(out))


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
