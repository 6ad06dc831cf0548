"""From web archives to a pool: the images of pages and the texts that say what they show.

One source file (WAT or WARC) makes one pool shard. A row is one image on one page; the same image
may be on many (``pool dedup`` merges them). All that is dropped is counted by reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, TypedDict, Unpack, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from metacurate.arrays import offsets_of
from metacurate.commoncrawl.page_rows import (
    FOUND,
    ROWS_PER_GROUP,
    Counts,
    Reading,
    SourcePage,
    page_rows,
    row_tables,
)
from metacurate.commoncrawl.reasons import (
    DAMAGES,
    DroppedImage,
    DroppedPage,
    DroppedRecord,
    DroppedText,
)
from metacurate.commoncrawl.response import Page, Response, read_response
from metacurate.commoncrawl.warc import (
    Record,
    file_start,
    other_content,
    read_batches,
    read_records,
)
from metacurate.commoncrawl.wat import has_entities
from metacurate.commoncrawl.wat_tables import wat_tables
from metacurate.errors import ArgumentError, UserError
from metacurate.formats.files import fingerprint, open_source
from metacurate.pool.schema import TEXTS_TYPE, UID_TYPE
from metacurate.pool.uid import url_uids
from metacurate.runtime.find import File, Wanted, find_files
from metacurate.runtime.isolate import Isolated, Lost
from metacurate.runtime.manifest import Stage, Statistics, add_statistics, shard_name
from metacurate.runtime.progress import note
from metacurate.runtime.run import RunOptions, open_run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder, open_file
from metacurate.texts.language import DEFAULT, UNDETERMINED, CarefulIdentifier, load_identifier
from metacurate.texts.page_language import with_pages
from metacurate.texts.rules import TextRules

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
BYTES_PER_GROUP = 256 << 20
PAGES_PER_BATCH = 64
BYTES_PER_BATCH = 8 << 20
MAX_FILES_TOLD = 20

WAT = "wat"
# Records that may hold a page: as it came over HTTP, or by itself.
PAGE_RECORDS = frozenset({b"response", b"resource", b"conversion"})
# Fields of records that hold only the beginning of a page (the crawler stopped) or a part of it.
CUT = ("WARC-Truncated", "WARC-Segment-Number")
_SUFFIX = re.compile(r"\.(wat|warc)(?:\.(?:gz|zst|lz4))?$", re.IGNORECASE)
_CRAWL = re.compile(r"CC-MAIN-[0-9]{4}-[0-9]{2}")
_PART_OF = re.compile(rb"^isPartOf:[ \t]*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)

# Why a whole file is named as no archive.
NO_RECORD = "no sound record of a page in it"


@dataclass(frozen=True)
class ExtractConfig:
    """How to extract; plain values, so that it goes into a manifest.

    ``languages``: keep only texts in these (codes as in ``pool.language``); empty: all.
    ``page_language``: an identifier for the texts of a page together, by which short texts go
    (see ``texts.page_language``), or ``none``.
    ``identifier``: a language identifier's name, or ``none``: ``lang`` is null then.
    ``snapshot``: the crawl's name; by default as the file says (``isPartOf``), else its address.
    ``max_record_bytes``: larger records and pages are dropped.
    ``entities``: whether character references (``&amp;``) in the values of WATs are replaced:
    ``decode``, ``keep``, or ``auto``: in files from before September 2019, which hold them.
    ``official_key``: add the column ``official_key`` (see ``page_rows.official_key``).
    """

    languages: tuple[str, ...] = ()
    identifier: str = DEFAULT
    page_language: str = "none"
    min_language_score: float = 0.0
    rules: TextRules = field(default_factory=TextRules)
    snapshot: str | None = None
    max_record_bytes: int = 32 << 20
    entities: str = "auto"
    official_key: bool = False


@dataclass(frozen=True)
class ExtractTask:
    """One source file to one shard."""

    source: str
    format: str
    folder: Folder
    shard: str
    config: ExtractConfig


class ExtractTotals(TypedDict):
    """What was found in ``files``, and what was dropped, by reason (``reasons``).

    ``bad_files``: those without a sound record, as ``ADDRESS (what it is)``; ``damaged_pages``: see
    ``page_rows.Counts``; ``languages``: texts by language.
    """

    files: int
    records: int
    pages: int
    damaged_pages: int
    images: int
    pairs: int
    texts: int
    bad_files: dict[str, int]
    dropped_records: dict[str, int]
    dropped_pages: dict[str, int]
    dropped_images: dict[str, int]
    dropped_texts: dict[str, int]
    languages: dict[str, int]


def extract_pool(
    sources: Sequence[str],
    out: str,
    config: ExtractConfig,
    **options: Unpack[RunOptions],
) -> ExtractTotals:
    """Extract a pool from WAT and WARC files.

    ``sources``: see ``runtime.find``. Shards go to ``OUT/pool``. Resumes by itself. Raises
    UserError.

    A source is known by its address and size, which a listing tells: of a snapshot's 90,000 files
    none is opened before its task. The task notes the fingerprint of what it read (``content``).
    """
    with open_run(out, inputs=sources, **options) as run:
        files = find_sources(sources)
        if config.entities not in ("auto", "decode", "keep"):
            raise ArgumentError(
                "{entities} must be auto, decode or keep, not {value}", value=config.entities
            )
        load_page_identifier(config)
        load_identifier_of(config)  # a missing package is told before the work begins
        settings = {
            "sources": {file.address: file.size for file in files},
            **asdict(config),
        }
        tasks = [
            ExtractTask(
                file.address,
                source_format(file.address) or WAT,
                run.folder,
                f"pool/{shard_name(position)}.parquet",
                config,
            )
            for position, file in enumerate(files)
        ]

        def totals(shards: list[Statistics]) -> ExtractTotals:
            return cast(ExtractTotals, {"files": len(files), **add_statistics(shards)})

        return run_stage(
            run, EXTRACT, settings, tasks, extract_shard, unit="pages", totals=totals, alone=True
        )


def report_bad_files(totals: ExtractTotals) -> None:
    """Say which files were no archives; UserError if none was one."""
    bad = totals["bad_files"]
    if bad and len(bad) == totals["files"]:
        more = f", and {len(bad) - 1} more like it" if len(bad) > 1 else ""
        raise UserError(f"no WAT or WARC file among the sources: {next(iter(bad))}{more}")
    for name in list(bad)[:MAX_FILES_TOLD]:
        note(f"skipped: {name}")
    if len(bad) > MAX_FILES_TOLD:
        note(f"skipped: {len(bad) - MAX_FILES_TOLD} more files (bad_files in manifest.json)")


def find_sources(given: Sequence[str]) -> tuple[File, ...]:
    """All archives that the inputs name, sorted, without repeats. Raises UserError."""
    found = find_files(given, ARCHIVES)
    found.require_all()
    return found.files


def source_format(address: str) -> str | None:
    """``wat`` or ``warc``, as an address ends; None if in neither."""
    suffix = _SUFFIX.search(address)
    return suffix.group(1).lower() if suffix else None


ARCHIVES = Wanted(
    "WAT or WARC file",
    "their names end in .wat.gz or .warc.gz (also uncompressed, .zst or .lz4)",
    lambda address: source_format(address) is not None,
)


def _fingerprint(source: str) -> str:
    with open_source(source) as opened:
        return fingerprint(opened)


def load_identifier_of(config: ExtractConfig) -> CarefulIdentifier | None:
    """The configured language identifier, None for ``none``. Raises UserError."""
    if config.identifier != "none":
        return load_identifier(config.identifier, config.min_language_score)
    if config.languages:
        raise ArgumentError("{lang} needs a language identifier; leave out {identifier} none")
    return None


def load_page_identifier(config: ExtractConfig) -> CarefulIdentifier | None:
    """The identifier for the texts of a page together; None for ``none``. Raises UserError."""
    if config.page_language == "none":
        return None
    if config.identifier == "none":
        raise ArgumentError(
            "{page_language} needs a language identifier; leave out {identifier} none"
        )
    return load_identifier(config.page_language)


def pool_schema(config: ExtractConfig) -> pa.Schema:
    """The columns of the pool's shards."""
    return SCHEMA.append(FOUND.field("official_key")) if config.official_key else SCHEMA


def extract_shard(task: ExtractTask) -> Statistics:
    """Extract one source file to its shard; its statistics."""
    counts = Counts()
    with (
        open_file(task.source) as file,
        task.folder.create(task.shard) as out,
        pq.ParquetWriter(out, pool_schema(task.config), compression="zstd") as writer,
    ):
        found = read_tables(file, task.source, task.format, task.config, counts)
        for table in tables(found, task.config, counts):
            writer.write_table(table, row_group_size=ROWS_PER_GROUP)
    return {**counts.statistics(), "content": _fingerprint(task.source)}


def read_tables(
    file: IO[bytes], source: str, form: str, config: ExtractConfig, counts: Counts
) -> Iterator[pa.Table]:
    """Yield the rows of one source file as tables (``FOUND``) of any size."""
    start = file_start(file)
    content = other_content(start) if start is not None else None
    if content is None:
        entities = form == WAT and (
            config.entities == "decode"
            or (config.entities == "auto" and has_entities(start or b"", source))
        )
        reading = Reading(
            entities, config.official_key, with_languages=config.page_language != "none"
        )
        yield from _read_archive(file, source, form, config, counts, reading)
        if counts.records == 0 and any(reason in DAMAGES for reason in counts.dropped_records):
            content = NO_RECORD
    if content is not None:
        counts.bad_files[f"{source} ({content})"] += 1


def _read_archive(
    file: IO[bytes], source: str, form: str, config: ExtractConfig, counts: Counts, reading: Reading
) -> Iterator[pa.Table]:
    if form == WAT:
        batches = read_batches(file, b"metadata", config.max_record_bytes, counts.dropped_records)
        return wat_tables(
            batches, config.snapshot, _crawl_of(source), config.rules, counts, reading=reading
        )
    pages = warc_pages(file, source, config, counts)
    return row_tables(row for page in pages for row in page_rows(page, config.rules, counts))


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
                    None if record.kind == b"response" else record.field("Content-Type") or "",
                    record.field("WARC-Identified-Payload-Type"),
                    config.max_record_bytes,
                )
                for record in records
            ]
            for record, page in zip(records, parser.map(responses), strict=True):
                if not isinstance(page, Page):
                    counts.dropped_pages[DroppedPage.LOST if isinstance(page, Lost) else page] += 1
                    continue
                url = record.field("WARC-Target-URI") or ""
                counts.damaged_pages += page.damaged or any(map(record.field, CUT))
                yield SourcePage(
                    page.images,
                    page.base_href,
                    url.strip("<>"),
                    snapshot,
                    name,
                    record.offset,
                    page.encoding,
                    Reading(with_keys=config.official_key),
                    page.language,
                )


def _response_batches(
    file: IO[bytes], source: str, config: ExtractConfig, counts: Counts
) -> Iterator[tuple[str | None, list[Record]]]:
    snapshot = config.snapshot or _crawl_of(source)
    kinds = frozenset({b"warcinfo", b"revisit", *PAGE_RECORDS})
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
        if record.kind == b"revisit":
            counts.dropped_records[DroppedRecord.REVISIT] += 1
            continue
        counts.pages += 1
        batch.append(record)
        size += record.end - record.start
        if len(batch) >= PAGES_PER_BATCH or size >= BYTES_PER_BATCH:
            yield snapshot, batch
            batch, size = [], 0
    yield snapshot, batch


def _crawl_of(source: str) -> str | None:
    found = _CRAWL.search(source)
    return found.group(0) if found else None


def tables(found: Iterable[pa.Table], config: ExtractConfig, counts: Counts) -> Iterator[pa.Table]:
    """Yield rows (``FOUND``) as pool tables (``SCHEMA``), with languages and uids.

    Each is of ``ROWS_PER_GROUP`` rows (of fewer, if they have ``BYTES_PER_GROUP``), less those
    without a text in a wanted language.
    """
    identifier, page_identifier = load_identifier_of(config), load_page_identifier(config)
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in found:
        waiting.append(table)
        rows += table.num_rows
        size += table.nbytes
        while rows >= ROWS_PER_GROUP or size >= BYTES_PER_GROUP:
            joined = pa.concat_tables(waiting)
            yield _pool_table(joined[:ROWS_PER_GROUP], config, identifier, page_identifier, counts)
            rest = joined[ROWS_PER_GROUP:]
            rows, size, waiting = rest.num_rows, rest.nbytes, [rest]
    if rows:
        yield _pool_table(pa.concat_tables(waiting), config, identifier, page_identifier, counts)


def _pool_table(
    found: pa.Table,
    config: ExtractConfig,
    identifier: CarefulIdentifier | None,
    page_identifier: CarefulIdentifier | None,
    counts: Counts,
) -> pa.Table:
    found = found.combine_chunks()
    lists = found["texts"].chunk(0)
    texts = lists.flatten()
    sizes = lists.value_lengths().to_numpy()
    languages = _languages(texts.field("text"), identifier)
    if page_identifier is not None:
        languages = _by_pages(found, texts.field("text"), languages, page_identifier)
    if config.languages:
        wanted = pc.is_in(languages, pa.array(config.languages)).to_numpy(zero_copy_only=False)
        row_of = np.repeat(np.arange(len(sizes)), sizes)
        sizes = np.bincount(row_of[wanted], minlength=len(sizes)).astype(np.int32)
        counts.dropped_texts[DroppedText.OTHER_LANGUAGE] += int((~wanted).sum())
        counts.dropped_images[DroppedImage.OTHER_LANGUAGE] += int((sizes == 0).sum())
        texts, languages = texts.filter(pa.array(wanted)), languages.filter(pa.array(wanted))
        found = found.filter(pa.array(sizes > 0))
        sizes = sizes[sizes > 0]
    for count in pc.value_counts(languages.fill_null(UNDETERMINED)).to_pylist():
        counts.languages[count["values"]] += count["counts"]
    counts.texts += len(texts)
    counts.pairs += found.num_rows
    offsets = offsets_of(sizes).astype(np.int32)
    struct = pa.StructArray.from_arrays(
        [texts.field("source"), texts.field("text"), languages],
        fields=list(TEXTS_TYPE.value_type),
    )
    urls = found["url"].combine_chunks()
    columns = {
        **dict(zip(found.column_names, found.columns, strict=True)),
        "uid": url_uids(urls.cast(pa.large_string())),
        "texts": pa.ListArray.from_arrays(pa.array(offsets), struct),
    }
    schema = pool_schema(config)
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _languages(texts: pa.StringArray, identifier: CarefulIdentifier | None) -> pa.StringArray:
    """The language of each text; nulls without an identifier."""
    if identifier is None:
        return pa.nulls(len(texts), pa.string())
    return identifier.of_column(texts)


def _by_pages(
    found: pa.Table, texts: pa.StringArray, languages: pa.StringArray, identifier: CarefulIdentifier
) -> pa.StringArray:
    """The languages of texts, with those of short texts by their pages."""
    urls = found["page_url"].chunk(0).dictionary_encode().indices.to_numpy()
    starts = np.concatenate([[True], urls[1:] != urls[:-1]])
    page_of_row = np.cumsum(starts) - 1
    sizes = found["texts"].chunk(0).value_lengths().to_numpy()
    stated = found["page_language"].filter(pa.array(starts)).to_pylist()
    return pa.array(
        with_pages(
            texts.to_pylist(),
            languages.to_pylist(),
            np.repeat(page_of_row, sizes),
            stated,
            identifier,
        ),
        pa.string(),
    )
