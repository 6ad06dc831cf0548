"""WebDataset tars become a pool: one row a sample, with the place of its files in the tar.

Images are neither copied nor read. Reads the layout of img2dataset and DataComp: ``KEY.jpg`` (png,
webp, ...), ``KEY.txt``, ``KEY.json`` and a ``SHARD.parquet`` beside ``SHARD.tar``; and MetaCLIP's.
``facts`` has the rule for texts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import IO, Any, TypedDict, Unpack

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.counts import counted
from metacurate.pool.columns import LANG_NAMES
from metacurate.pool.schema import TEXTS_TYPE, UID_TYPE
from metacurate.pool.uid import key_uid, url_uid
from metacurate.runtime.arrowfiles import open_parquet
from metacurate.runtime.manifest import Stage, Statistics, add_statistics, shard_name
from metacurate.runtime.run import RunOptions, open_run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder
from metacurate.webdataset.facts import (
    MAX_JSON_BYTES,
    MAX_TEXT_BYTES,
    Text,
    decode_text,
    read_record,
    sample_texts,
    usable_string,
    with_languages,
)
from metacurate.webdataset.files import find_tars, open_tar, stem_of
from metacurate.webdataset.headers import IMAGE_EXTENSIONS, Sample, read_samples
from metacurate.webdataset.reasons import DroppedSample, Problem

STAGE = Stage("ingest", ("pool",))

# Images that no command reads: their samples are no pairs, and have a reason of their own.
OTHER_IMAGES = ("tif", "tiff", "ppm", "pgm", "svg", "jp2", "jxl", "heic", "heif", "psd", "npy")
MAX_SIDE_BYTES = 256 << 20
SIDE_BATCH_ROWS = 1_000
ROWS_PER_GROUP = 50_000

MEMBERS_TYPE = pa.list_(
    pa.struct([("extension", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])
)
SCHEMA = pa.schema(
    [
        pa.field("uid", UID_TYPE, nullable=False),
        pa.field("url", pa.string()),
        pa.field("texts", TEXTS_TYPE, nullable=False),
        pa.field("tar", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("members", MEMBERS_TYPE, nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("width", pa.int64()),
        pa.field("height", pa.int64()),
        pa.field("original_width", pa.int64()),
        pa.field("original_height", pa.int64()),
    ]
)
"""A row: ``members`` are the sample's files in the tar, each as the byte range [offset, offset +
length) with its headers and padding; ``tar`` is the tar's name in its folder."""

_STRINGS = ("url", "sha256")
_INTEGERS = ("width", "height", "original_width", "original_height")
_SIDE_COLUMNS = ("key", "uid", "caption", *_STRINGS, *_INTEGERS)


@dataclass(frozen=True)
class _TarTask:
    tars: str
    name: str
    out: str
    position: int


class IngestTotals(TypedDict):
    """``samples`` = ``pairs`` + the sum of ``dropped``; ``unread_files``, ``dropped``,
    ``skipped_members`` and ``problems``: counts by reason (``reasons``).
    """

    tars: int
    unread_files: dict[str, int]
    samples: int
    pairs: int
    texts: int
    dropped: dict[str, int]
    skipped_members: dict[str, int]
    problems: dict[str, int]


def ingest(tars: str, out: str, **options: Unpack[RunOptions]) -> IngestTotals:
    """Make a pool (``OUT/pool/part-NNNNNN.parquet``, one file a tar) of a folder of tars.

    Resumes; UserError if there is no tar, or if ``out`` holds another run.
    """
    with open_run(out, inputs=[tars], preload=__name__, **options) as run:
        found = find_tars(tars)
        names = found.names
        config = {"tars": tars, "files": found.sizes}
        tasks = [_TarTask(tars, name, out, position) for position, name in enumerate(names)]

        def totals(shards: list[Statistics]) -> IngestTotals:
            summed = add_statistics(shards)
            return {
                "tars": len(names),
                "unread_files": counted(found.unread),
                "samples": summed["samples"],
                "pairs": summed["pairs"],
                "texts": summed["texts"],
                "dropped": summed["dropped"],
                "skipped_members": summed["skipped_members"],
                "problems": summed["problems"],
            }

        return run_stage(
            run, STAGE, config, tasks, _ingest_tar, unit="samples", totals=totals, alone=True
        )


def _ingest_tar(task: _TarTask) -> Statistics:
    source, out = Folder(task.tars), Folder(task.out)
    skipped: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    samples = pairs = texts = 0
    side = _read_side(source, task.name, problems)
    rows: list[dict[str, Any]] = []
    with (
        open_tar(source.open(task.name)) as tar,
        out.create(f"pool/{shard_name(task.position)}.parquet") as file,
        pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer,
    ):
        for sample in read_samples(tar, skipped):
            samples += 1
            row = _row(tar, task.name, sample, side, problems)
            if isinstance(row, DroppedSample):
                dropped[row] += 1
                continue
            pairs += 1
            texts += len(row["texts"])
            rows.append(row)
            if len(rows) == ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
                rows.clear()
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    return {
        "tar": task.name,
        "samples": samples,
        "pairs": pairs,
        "texts": texts,
        "dropped": counted(dropped),
        "skipped_members": counted(skipped),
        "problems": counted(problems),
    }


def _row(
    tar: IO[bytes],
    tar_name: str,
    sample: Sample,
    side: dict[str, dict[str, Any]],
    problems: Counter[str],
) -> dict[str, Any] | DroppedSample:
    """A sample's row, or the reason why it has none."""
    if sample.find(IMAGE_EXTENSIONS) is None:
        is_other = sample.find(OTHER_IMAGES) is not None
        return DroppedSample.IMAGE_OF_OTHER_FORMAT if is_other else DroppedSample.NO_IMAGE
    record = read_record(_read(tar, sample, "json", MAX_JSON_BYTES), problems)
    said = {name: value for name, value in record.items() if value is not None}
    beside = side.get(sample.key, {})
    facts = {**beside, **said}
    text = decode_text(_read(tar, sample, "txt", MAX_TEXT_BYTES), problems)
    texts: dict[str, Text] = {}
    for found in with_languages(sample_texts(facts, text, problems), said, beside):
        if found.text is not None:
            texts.setdefault(found.text, found)
    if not texts:
        return DroppedSample.NO_TEXT
    row: dict[str, Any] = {"tar": tar_name, "key": sample.key}
    row["texts"] = [vars(found) for found in texts.values()]
    row |= {name: usable_string(facts.get(name)) for name in _STRINGS}
    row |= {name: _integer(facts.get(name)) for name in _INTEGERS}
    row["uid"] = _uid(facts.get("uid"), row["url"], f"{tar_name}/{sample.key}")
    row["members"] = [
        {"extension": m.extension, "offset": m.offset, "length": m.length} for m in sample.members
    ]
    return row


def _uid(given: Any, url: str | None, place: str) -> bytes:
    """The given uid (DataComp's), else the URL's, else that of the sample's place."""
    uid = key_uid(given) if isinstance(given, str) and usable_string(given) else None
    if uid is None and url is not None:
        uid = url_uid(url)
    return uid or key_uid(place) or bytes(16)


def _read(tar: IO[bytes], sample: Sample, extension: str, limit: int) -> bytes | None:
    """The content of a sample's file, at most a byte more than ``limit``; None if there is none."""
    member = sample.find((extension,))
    if member is None:
        return None
    tar.seek(member.data_offset)
    return tar.read(min(member.size, limit + 1))


def _integer(value: Any) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and abs(value) < 2**63 else None


def _read_side(folder: Folder, tar: str, problems: Counter[str]) -> dict[str, dict[str, Any]]:
    """The rows of the Parquet file beside a tar, by key; nothing if there is none."""
    name = f"{stem_of(tar)}.parquet"
    if not folder.exists(name):
        return {}
    rows: dict[str, dict[str, Any]] = {}
    size = 0
    try:
        with folder.open(name) as file:
            parquet = open_parquet(file)
            names = parquet.schema_arrow.names
            columns = [c for c in names if c in _SIDE_COLUMNS or c.lower() in LANG_NAMES]
            if "key" not in columns:
                problems[Problem.SIDE_PARQUET_WITHOUT_KEY] += 1
                return {}
            # Few rows at a time: a small file can hold one long value a million times.
            for batch in parquet.iter_batches(SIDE_BATCH_ROWS, columns=columns, use_threads=False):
                size += batch.nbytes
                if size > MAX_SIDE_BYTES:
                    problems[Problem.SIDE_PARQUET_TOO_LARGE] += 1
                    return {}
                for row in batch.to_pylist():
                    told = {key: value for key, value in row.items() if value is not None}
                    rows[str(told.get("key"))] = told
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        problems[Problem.SIDE_PARQUET_UNREADABLE] += 1
        return {}
    return rows
