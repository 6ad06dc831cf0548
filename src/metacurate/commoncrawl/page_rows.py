"""What a page of a web archive gives: its images with the texts that say what they show.

A row is one image on one page. All that is dropped is counted by reason.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import urljoin

import pyarrow as pa

from metacurate.commoncrawl.reasons import DroppedImage, DroppedPage, DroppedText
from metacurate.pages.entities import unescape
from metacurate.pages.html import Image
from metacurate.pages.image_address import MAX_URL_CHARS
from metacurate.pages.urls import BadAddress, Base
from metacurate.runtime.manifest import Statistics
from metacurate.texts.languages import MAX_LABEL
from metacurate.texts.rules import TextRules, clean, drop_reason

ROWS_PER_GROUP = 50_000
# Long texts make smaller groups: 50,000 rows of them would be some GB.
CHARS_PER_GROUP = 32 << 20
# What a page or a file says once stands in all of its rows, so it is bounded: longer names of files
# and crawls are none, and labels of languages over MAX_LABEL.
MAX_NAME_CHARS = 1024


FOUND = pa.schema(
    [
        ("url", pa.string()),
        ("texts", pa.list_(pa.struct([("source", pa.string()), ("text", pa.string())]))),
        ("page_url", pa.string()),
        ("snapshot", pa.string()),
        ("warc_file", pa.string()),
        ("record_offset", pa.int64()),
        ("official_key", pa.string()),
        ("page_language", pa.string()),
    ]
)
"""The columns of rows whose texts have no language yet."""


@dataclass
class Counts:
    """What was found, and what was dropped for which reason.

    ``bad_files``: files without a sound record, as ``ADDRESS (what it is)``.

    ``damaged_pages``: pages with images that are cut off or have bytes that are no characters of
    their encoding (they become U+FFFD).
    """

    records: int = 0
    pages: int = 0
    damaged_pages: int = 0
    images: int = 0
    pairs: int = 0
    texts: int = 0
    bad_files: Counter[str] = field(default_factory=Counter)
    dropped_records: Counter[str] = field(default_factory=Counter)
    dropped_pages: Counter[str] = field(default_factory=Counter)
    dropped_images: Counter[str] = field(default_factory=Counter)
    dropped_texts: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)

    def statistics(self) -> Statistics:
        """The counts as JSON values, in a fixed order."""
        return {
            name: dict(sorted(value.items())) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }


class Reading(NamedTuple):
    """How pages are read: ``entities``: attributes' values hold character references, to be
    replaced; ``with_keys``: rows get an ``official_key``; ``with_languages``: the languages that
    WATs say pages to be in are looked for (those of other pages are known anyway).
    """

    entities: bool = False
    with_keys: bool = False
    with_languages: bool = False


USUAL = Reading()


class SourcePage(NamedTuple):
    """The images of one page and where the page comes from.

    ``encoding``: of the page, if it is not UTF-8 for sure.
    """

    images: list[Image]
    base_href: str | None
    page_url: str
    snapshot: str | None
    warc_file: str | None
    record_offset: int | None
    encoding: str | None = None
    reading: Reading = USUAL
    language: str | None = None


class Row(NamedTuple):
    """An image on a page, with the texts that passed the rules: (source, text) pairs."""

    url: str
    texts: list[tuple[str, str]]
    page_url: str
    snapshot: str | None
    warc_file: str | None
    record_offset: int | None
    official_key: str | None = None
    page_language: str | None = None


def official_key(page_url: str, written: str) -> str | None:
    """The key that the official script gives an image: 24 hex digits; None if it gives none.

    ``written``: the image's address as the page has it.
    """
    try:
        url = urljoin(page_url, written).replace("\t", "").replace(" ", "")
        return hashlib.sha224(url.encode()).hexdigest()[:24]
    except ValueError:
        return None


def name_or_none(name: str | None, most: int = MAX_NAME_CHARS) -> str | None:
    """A name that stands in each row; None if there is none, or none of that length."""
    return name if name is not None and len(name) <= most else None


def page_rows(page: SourcePage, rules: TextRules, counts: Counts) -> Iterator[Row]:
    """Yield the rows of one page: its images with a usable address and at least one text.

    The first usable of an image's addresses is taken. An image that the page has again with the
    same texts makes no second row.
    """
    entities, with_keys, _ = page.reading
    if len(page.page_url) > MAX_URL_CHARS:
        counts.dropped_pages[DroppedPage.LONG_URL] += 1
        return
    snapshot = name_or_none(page.snapshot)
    warc_file = name_or_none(page.warc_file)
    language = name_or_none(page.language, MAX_LABEL)
    base_href = page.base_href
    if entities and base_href is not None:
        base_href = unescape(base_href)
    try:
        base = Base(page.page_url, base_href, page.encoding)
    except ValueError:
        counts.dropped_pages[DroppedPage.BAD_URL] += 1
        return
    counts.images += len(page.images)
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for addresses, written in page.images:
        texts: list[tuple[str, str]] = []
        for source, raw in written:
            text = clean(unescape(raw) if entities else raw)
            reason = drop_reason(text, rules)
            if reason is None and text in (kept for _, kept in texts):
                reason = DroppedText.REPEATED
            if reason is None:
                texts.append((source, text))
            else:
                counts.dropped_texts[reason] += 1
        if not texts:
            counts.dropped_images[DroppedImage.NO_TEXT] += 1
            continue
        url: str | None = None
        problem: str = BadAddress.NO_URL
        address = ""
        for address in addresses:
            url, problem = base.resolve(unescape(address) if entities else address)
            if url is not None:
                break
        if url is None:
            counts.dropped_images[problem] += 1
            continue
        key = (url, tuple(texts))
        if key in seen:
            counts.dropped_images[DroppedImage.REPEATED] += 1
            continue
        seen.add(key)
        yield Row(
            url,
            texts,
            page.page_url,
            snapshot,
            warc_file,
            page.record_offset,
            official_key(page.page_url, address) if with_keys else None,
            language,
        )


def row_tables(rows: Iterable[Row]) -> Iterator[pa.Table]:
    """Yield rows as tables (``FOUND``) of at most ``ROWS_PER_GROUP`` rows.

    Of fewer, if they have ``CHARS_PER_GROUP``.
    """
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.url) + len(row.page_url) + sum(len(text) for _, text in row.texts)
        if len(batch) >= ROWS_PER_GROUP or size >= CHARS_PER_GROUP:
            yield row_table(batch)
            batch, size = [], 0
    if batch:
        yield row_table(batch)


def row_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table (``FOUND``)."""
    columns = zip(*rows, strict=True) if rows else [()] * len(FOUND)
    values = [
        [[{"source": s, "text": t} for s, t in texts] for texts in column]
        if name == "texts"
        else list(column)
        for name, column in zip(FOUND.names, columns, strict=True)
    ]
    return pa.table([pa.array(v, f.type) for v, f in zip(values, FOUND, strict=True)], FOUND)
