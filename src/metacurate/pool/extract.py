"""From web archives to a pool: the images of pages and the texts that say what they show.

One source file (WAT or WARC) makes one pool shard. A row is one image on one page; the same image
may be on many (``pool dedup`` merges them). All that is dropped is counted by reason.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.engines import Engine
from metacurate.errors import UserError
from metacurate.pool import wat
from metacurate.pool.files import fingerprint, open_source
from metacurate.pool.filters import TextRules, clean, drop_reason
from metacurate.pool.html import Image
from metacurate.pool.isolate import Isolated
from metacurate.pool.language import DEFAULT, UNDETERMINED, Identifier, load_identifier
from metacurate.pool.response import NO_IMAGE, Page, Response, read_response
from metacurate.pool.schema import TEXTS_TYPE, UID_TYPE
from metacurate.pool.uid import url_uids
from metacurate.pool.urls import NO_URL, Base
from metacurate.pool.warc import Record, read_records
from metacurate.stage import (
    Stage,
    Statistics,
    add_statistics,
    begin,
    exclusive,
    finish,
    run_shards,
    shard_name,
)
from metacurate.storage import Folder, is_local, local_path

SCHEMA = pa.schema(
    [
        ("uid", UID_TYPE),
        ("url", pa.string()),
        ("texts", TEXTS_TYPE),
        ("page_url", pa.string()),
        ("snapshot", pa.string()),
        ("warc_file", pa.string()),
        ("record_offset", pa.int64()),
    ]
)
"""A pool shard's columns. ``warc_file`` and ``record_offset`` (bytes) tell where the page's WARC
record is, of a WAT the one that it describes; null if unknown."""

EXTRACT = Stage("extract", outputs=("pool",))
ROWS_PER_GROUP = 50_000
PAGES_PER_BATCH = 64
BYTES_PER_BATCH = 8 << 20

WAT, WARC = "wat", "warc"
_SUFFIX = re.compile(r"\.(wat|warc)(?:\.(?:gz|zst|lz4))?$", re.IGNORECASE)
_CRAWL = re.compile(r"CC-MAIN-[0-9]{4}-[0-9]{2}")
_PART_OF = re.compile(rb"^isPartOf:[ \t]*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)

# Reasons for dropping records, pages, images and texts (more are with the modules that see them).
NO_HTML_METADATA = "no HTML metadata"
INVALID_JSON = "invalid JSON"
BAD_PAGE_URL = "bad page URL"
LOST_PAGE = "page that crashed or stalled the parser"
NO_KEPT_TEXT = "no text"
REPEATED = "repeated on the page"
OTHER_LANGUAGE = "text in another language"


@dataclass(frozen=True)
class ExtractConfig:
    """How to extract; plain values, so that it goes into a manifest.

    ``languages``: keep only texts in these (codes as in ``pool.language``); empty: all.
    ``identifier``: a language identifier's name, or ``none``: ``lang`` is null then.
    ``snapshot``: the crawl's name; by default as the file says (``isPartOf``), else its address.
    ``max_record_bytes``: larger records and pages are dropped.
    """

    languages: tuple[str, ...] = ()
    identifier: str = DEFAULT
    min_language_score: float = 0.0
    rules: TextRules = field(default_factory=TextRules)
    snapshot: str | None = None
    max_record_bytes: int = 32 << 20


class Row(NamedTuple):
    """An image on a page, with the texts that passed the rules: (source, text) pairs."""

    url: str
    texts: list[tuple[str, str]]
    page_url: str
    snapshot: str | None
    warc_file: str | None
    record_offset: int | None


@dataclass(frozen=True)
class ExtractTask:
    """One source file to one shard."""

    source: str
    format: str
    folder: Folder
    shard: str
    config: ExtractConfig


@dataclass
class Counts:
    """What was found, and what was dropped for which reason."""

    records: int = 0
    pages: int = 0
    images: int = 0
    pairs: int = 0
    texts: int = 0
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


def extract_pool(
    sources: Sequence[str],
    out: str,
    config: ExtractConfig,
    engine: Engine,
    *,
    overwrite: bool = False,
    show_progress: bool = True,
) -> Statistics:
    """Extract a pool from WAT and WARC files; the totals of its statistics.

    ``sources``: files, folders and globs (local or fsspec addresses), and ``@LIST`` for a file of
    addresses, one a line. Shards go to ``OUT/pool``. Resumes by itself. Raises UserError.
    """
    files = find_sources(sources)
    load_identifier_of(config)  # a missing package is told before the work begins
    folder = Folder(out)
    with exclusive(folder):
        settings = {
            "sources": [{"source": s, "content": _fingerprint(s)} for s, _ in files],
            **asdict(config),
        }
        totals = begin(folder, EXTRACT, settings, shards=len(files), overwrite=overwrite)
        if totals is not None:
            return totals
        tasks = [
            ExtractTask(source, form, folder, f"pool/{shard_name(position)}.parquet", config)
            for position, (source, form) in enumerate(files)
        ]
        shards = run_shards(
            folder,
            EXTRACT,
            extract_shard,
            tasks,
            engine,
            unit="pages",
            show_progress=show_progress,
        )
        totals = {"files": len(files), **add_statistics(shards)}
        return finish(folder, EXTRACT, totals, shards)


def find_sources(given: Sequence[str]) -> list[tuple[str, str]]:
    """All (address, format) that the inputs name, sorted, without repeats. Raises UserError."""
    found: dict[str, str] = {}
    for source in _expand_lists(given):
        form = source_format(source)
        addresses = [source]
        filesystem, path = fsspec.core.url_to_fs(source)
        if filesystem.isdir(path):
            addresses = _full(source, filesystem, filesystem.find(path))
        elif any(c in source for c in "*?["):
            addresses = _full(source, filesystem, filesystem.glob(path))
        elif not filesystem.isfile(path):
            raise UserError(f"{source}: no such file; name WAT or WARC files, folders or globs")
        elif form is None:
            raise UserError(
                f"{source} is neither WAT nor WARC by its name "
                "(.wat.gz, .warc.gz; also uncompressed, .zst or .lz4)"
            )
        formats = {a: f for a in addresses if (f := source_format(a)) is not None}
        if not formats:
            raise UserError(f"{source}: no WAT or WARC file (.wat.gz, .warc.gz) found there")
        found |= formats
    if not found:
        raise UserError("no source was given; name WAT or WARC files, folders or globs")
    return sorted(found.items())


def _expand_lists(given: Sequence[str]) -> Iterator[str]:
    for source in given:
        if not source.startswith("@"):
            yield source
            continue
        try:
            with fsspec.open(source[1:], "rt", encoding="utf-8", compression="infer") as lines:
                yield from (line.strip() for line in lines if line.strip())
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise UserError(f"{source[1:]}: no readable list of addresses ({error})") from None


def _full(source: str, filesystem: fsspec.AbstractFileSystem, paths: Sequence[str]) -> list[str]:
    if not is_local(source):
        return [filesystem.unstrip_protocol(path) for path in paths]
    return list(paths) if local_path(source).is_absolute() else [os.path.relpath(p) for p in paths]


def source_format(address: str) -> str | None:
    """``wat`` or ``warc``, as an address ends; None if in neither."""
    suffix = _SUFFIX.search(address)
    return suffix.group(1).lower() if suffix else None


def _fingerprint(source: str) -> str:
    with open_source(source) as opened:
        return fingerprint(opened)


def load_identifier_of(config: ExtractConfig) -> Identifier | None:
    """The configured language identifier, None for ``none``. Raises UserError."""
    if config.identifier != "none":
        return load_identifier(config.identifier, config.min_language_score)
    if config.languages:
        raise UserError("--lang needs a language identifier; leave out --identifier none")
    return None


def extract_shard(task: ExtractTask) -> Statistics:
    """Extract one source file to its shard; its statistics."""
    counts = Counts()
    with (
        open_input(task.source) as file,
        task.folder.create(task.shard) as out,
        pq.ParquetWriter(out, SCHEMA, compression="zstd") as writer,
    ):
        rows = read_rows(file, task.source, task.format, task.config, counts)
        for table in tables(rows, task.config, counts):
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
    return counts.statistics()


def open_input(source: str) -> IO[bytes]:
    """Open a source file for reading."""
    if is_local(source):
        return local_path(source).open("rb")
    filesystem, path = fsspec.core.url_to_fs(source)
    return filesystem.open(path, "rb")


def read_rows(
    file: IO[bytes], source: str, form: str, config: ExtractConfig, counts: Counts
) -> Iterator[Row]:
    """Yield the rows of one source file; their texts have no language yet."""
    pages = wat_pages if form == WAT else warc_pages
    for page in pages(file, source, config, counts):
        yield from page_rows(page, config.rules, counts)


class SourcePage(NamedTuple):
    """The images of one page and where the page comes from."""

    images: list[Image]
    base_href: str | None
    page_url: str
    snapshot: str | None
    warc_file: str | None
    record_offset: int | None


def wat_pages(
    file: IO[bytes], source: str, config: ExtractConfig, counts: Counts
) -> Iterator[SourcePage]:
    """Yield the pages with images of a WAT file."""
    snapshot = config.snapshot or _crawl_of(source)
    kinds = frozenset({b"metadata"})
    for record in read_records(file, kinds, config.max_record_bytes, counts.dropped_records):
        counts.records += 1
        block = record.block
        if not wat.describes_html(block):
            snapshot = config.snapshot or wat.snapshot(block) or snapshot
            counts.dropped_records[NO_HTML_METADATA] += 1
            continue
        counts.pages += 1
        try:
            page = wat.read_page(block)
        except wat.InvalidJson:
            counts.dropped_pages[INVALID_JSON] += 1
            continue
        if not page.images:
            counts.dropped_pages[NO_IMAGE] += 1
            continue
        url = record.field("WARC-Target-URI") or ""
        yield SourcePage(
            page.images, page.base_href, url, snapshot, page.warc_file, page.record_offset
        )


def warc_pages(
    file: IO[bytes], source: str, config: ExtractConfig, counts: Counts
) -> Iterator[SourcePage]:
    """Yield the pages with images of a WARC file."""
    name = source.rstrip("/").rsplit("/", 1)[-1]
    with Isolated(read_response) as parser:
        for snapshot, records in _response_batches(file, source, config, counts):
            responses = [
                Response(
                    record.block,
                    record.field("WARC-Identified-Payload-Type"),
                    config.max_record_bytes,
                )
                for record in records
            ]
            for record, page in zip(records, parser.map(responses), strict=True):
                if not isinstance(page, Page):
                    counts.dropped_pages[page or LOST_PAGE] += 1
                    continue
                url = record.field("WARC-Target-URI") or ""
                yield SourcePage(
                    page.images, page.base_href, url.strip("<>"), snapshot, name, record.offset
                )


def _response_batches(
    file: IO[bytes], source: str, config: ExtractConfig, counts: Counts
) -> Iterator[tuple[str | None, list[Record]]]:
    snapshot = config.snapshot or _crawl_of(source)
    kinds = frozenset({b"warcinfo", b"response"})
    batch: list[Record] = []
    size = 0
    for record in read_records(file, kinds, config.max_record_bytes, counts.dropped_records):
        if record.kind == b"warcinfo":
            found = _PART_OF.search(record.block)
            if config.snapshot is None and found is not None:
                yield snapshot, batch
                batch, size = [], 0
                snapshot = found.group(1).strip().decode("utf-8", "replace")
            continue
        counts.records += 1
        counts.pages += 1
        batch.append(record)
        size += len(record.block)
        if len(batch) >= PAGES_PER_BATCH or size >= BYTES_PER_BATCH:
            yield snapshot, batch
            batch, size = [], 0
    yield snapshot, batch


def _crawl_of(source: str) -> str | None:
    found = _CRAWL.search(source)
    return found.group(0) if found else None


def page_rows(page: SourcePage, rules: TextRules, counts: Counts) -> Iterator[Row]:
    """Yield the rows of one page: its images with a usable address and at least one text.

    The first usable of an image's addresses is taken. An image that the page has again with the
    same texts makes no second row.
    """
    try:
        base = Base(page.page_url, page.base_href)
    except ValueError:
        counts.dropped_pages[BAD_PAGE_URL] += 1
        return
    counts.images += len(page.images)
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for addresses, written in page.images:
        texts = []
        for source, raw in written:
            text = clean(raw)
            reason = drop_reason(text, rules)
            if reason is None:
                texts.append((source, text))
            else:
                counts.dropped_texts[reason] += 1
        if not texts:
            counts.dropped_images[NO_KEPT_TEXT] += 1
            continue
        url, problem = None, NO_URL
        for address in addresses:
            url, problem = base.resolve(address)
            if url is not None:
                break
        if url is None:
            counts.dropped_images[problem] += 1
            continue
        key = (url, tuple(texts))
        if key in seen:
            counts.dropped_images[REPEATED] += 1
            continue
        seen.add(key)
        yield Row(url, texts, page.page_url, page.snapshot, page.warc_file, page.record_offset)


def tables(rows: Iterator[Row], config: ExtractConfig, counts: Counts) -> Iterator[pa.Table]:
    """Yield the rows as tables of at most ``ROWS_PER_GROUP`` rows, with languages and uids."""
    identifier = load_identifier_of(config)
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS_PER_GROUP:
            yield _table(batch, config, identifier, counts)
            batch = []
    if batch:
        yield _table(batch, config, identifier, counts)


def _table(
    rows: list[Row], config: ExtractConfig, identifier: Identifier | None, counts: Counts
) -> pa.Table:
    sources = [source for row in rows for source, _ in row.texts]
    texts = [text for row in rows for _, text in row.texts]
    sizes = np.array([len(row.texts) for row in rows], np.int32)
    languages: list[str | None] = [None] * len(texts)
    if identifier is not None:
        languages[:] = identifier.identify(texts)[0]
    if config.languages:
        wanted = np.array([language in config.languages for language in languages], bool)
        row_of = np.repeat(np.arange(len(rows)), sizes)
        sizes = np.bincount(row_of[wanted], minlength=len(rows)).astype(np.int32)
        counts.dropped_texts[OTHER_LANGUAGE] += int((~wanted).sum())
        kept = np.flatnonzero(wanted)
        sources = [sources[i] for i in kept]
        texts = [texts[i] for i in kept]
        languages = [languages[i] for i in kept]
        counts.dropped_images[OTHER_LANGUAGE] += int((sizes == 0).sum())
        rows = [row for row, size in zip(rows, sizes, strict=True) if size]
        sizes = sizes[sizes > 0]
    counts.languages.update(language or UNDETERMINED for language in languages)
    counts.texts += len(texts)
    counts.pairs += len(rows)
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(sizes, out=offsets[1:])
    struct = pa.StructArray.from_arrays(
        [pa.array(values, pa.string()) for values in (sources, texts, languages)],
        fields=list(TEXTS_TYPE.value_type),
    )
    urls = [row.url for row in rows]
    return pa.table(
        [
            url_uids(pa.array(urls, pa.large_string())),
            pa.array(urls, pa.string()),
            pa.ListArray.from_arrays(pa.array(offsets), struct),
            pa.array([row.page_url for row in rows], pa.string()),
            pa.array([row.snapshot for row in rows], pa.string()),
            pa.array([row.warc_file for row in rows], pa.string()),
            pa.array([row.record_offset for row in rows], pa.int64()),
        ],
        schema=SCHEMA,
    )
