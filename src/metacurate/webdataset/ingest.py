"""WebDataset tars become a pool: one row a sample, with the place of its files in the tar.

Images are neither copied nor read. Reads the layout of img2dataset and DataComp: ``KEY.jpg`` (png,
webp, ...), ``KEY.txt``, ``KEY.json`` and a ``SHARD.parquet`` beside ``SHARD.tar``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Unpack

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.errors import UserError
from metacurate.pool.schema import TEXTS_TYPE, UID_TYPE
from metacurate.pool.uid import key_uid, url_uid
from metacurate.runtime.manifest import Stage, Statistics, add_statistics, shard_name
from metacurate.runtime.run import RunOptions, open_run
from metacurate.runtime.stage import run_stage
from metacurate.runtime.storage import Folder
from metacurate.webdataset.headers import Member, Sample, read_samples

STAGE = Stage("ingest", ("pool",))

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif")
MAX_TEXT_BYTES = 1 << 20
MAX_JSON_BYTES = 16 << 20
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


def ingest(tars: str, out: str, **options: Unpack[RunOptions]) -> Statistics:
    """Make a pool (``OUT/pool/part-NNNNNN.parquet``, one file a tar) of a folder of tars.

    Returns the totals: ``samples`` = ``pairs`` + the sum of ``dropped``; ``skipped_members`` and
    ``problems`` count what was wrong by reason. Resumes; UserError if there is no tar, or if
    ``out`` holds another run.
    """
    with open_run(out, inputs=[tars], preload=__name__, **options) as run:
        names = tar_names(tars)
        config = {
            "tars": tars,
            "files": len(names),
            "fingerprint": fingerprint(Folder(tars), names),
        }
        tasks = [_TarTask(tars, name, out, position) for position, name in enumerate(names)]

        def totals(shards: list[Statistics]) -> Statistics:
            return {"tars": len(names), **add_statistics(shards)}

        return run_stage(run, STAGE, config, tasks, _ingest_tar, unit="samples", totals=totals)


def tar_names(tars: str) -> list[str]:
    """The sorted names of the ``.tar`` files directly in a folder; UserError if there is none."""
    names = [name for name in Folder(tars).list() if name.endswith(".tar")]
    if not names:
        raise UserError(f"{tars} holds no .tar file; give the folder of the WebDataset shards")
    return names


def fingerprint(folder: Folder, names: Iterable[str]) -> str:
    """SHA-256 of the files' names and sizes."""
    digest = hashlib.sha256()
    for name in names:
        with folder.open(name) as file:
            digest.update(f"{name}\0{file.seek(0, 2)}\n".encode())
    return digest.hexdigest()


def _ingest_tar(task: _TarTask) -> Statistics:
    source, out = Folder(task.tars), Folder(task.out)
    skipped: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    problems: Counter[str] = Counter()
    samples = pairs = texts = 0
    side = _read_side(source, task.name, problems)
    rows: list[dict[str, Any]] = []
    with (
        source.open(task.name) as tar,
        out.create(f"pool/{shard_name(task.position)}.parquet") as file,
        pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer,
    ):
        for sample in read_samples(tar, skipped):
            samples += 1
            row = _row(tar, task.name, sample, side, problems)
            if isinstance(row, str):
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
        "dropped": dict(sorted(dropped.items())),
        "skipped_members": dict(sorted(skipped.items())),
        "problems": dict(sorted(problems.items())),
    }


def _row(
    tar: IO[bytes],
    tar_name: str,
    sample: Sample,
    side: dict[str, dict[str, Any]],
    problems: Counter[str],
) -> dict[str, Any] | str:
    """A sample's row, or the reason why it has none."""
    if sample.find(IMAGES) is None:
        return "no_image"
    facts = {**side.get(sample.key, {}), **_read_json(tar, sample, problems)}
    texts = list(_texts(_read_text(tar, sample, problems), facts))
    if not texts:
        return "no_text"
    row: dict[str, Any] = {"tar": tar_name, "key": sample.key, "texts": texts}
    row |= {name: _string(facts.get(name)) for name in _STRINGS}
    row |= {name: _integer(facts.get(name)) for name in _INTEGERS}
    row["uid"] = _uid(facts.get("uid"), row["url"], f"{tar_name}/{sample.key}")
    row["members"] = [
        {"extension": m.extension, "offset": m.offset, "length": m.length} for m in sample.members
    ]
    return row


def _uid(given: Any, url: str | None, place: str) -> bytes:
    """The given uid (DataComp's), else the URL's, else that of the sample's place."""
    uid = key_uid(given) if isinstance(given, str) and _string(given) else None
    if uid is None and url is not None:
        uid = url_uid(url)
    return uid or key_uid(place) or bytes(16)


def _texts(text: str | None, facts: dict[str, Any]) -> Iterator[dict[str, str | None]]:
    """The distinct texts: the .txt file's, then the JSON's ``texts`` and ``caption``."""
    found = [{"source": "txt", "text": text, "lang": None}]
    listed = facts.get("texts")
    found += [t for t in listed if isinstance(t, dict)] if isinstance(listed, list) else []
    found.append({"source": "caption", "text": facts.get("caption"), "lang": None})
    seen = set()
    # What the list says of a text (its source and language) is more than the .txt file can.
    told = {t["text"]: t for t in reversed(found[1:-1]) if isinstance(t.get("text"), str)}
    for entry in found:
        value = _string(entry.get("text"))
        if value and value not in seen:
            seen.add(value)
            best = told.get(value, entry)
            source, lang = _string(best.get("source")), _string(best.get("lang"))
            yield {"source": source, "text": value, "lang": lang}


def _read_text(tar: IO[bytes], sample: Sample, problems: Counter[str]) -> str | None:
    content = _read(tar, sample.find(("txt",)), MAX_TEXT_BYTES, "text", problems)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        problems["text_not_utf8"] += 1
        return None


def _read_json(tar: IO[bytes], sample: Sample, problems: Counter[str]) -> dict[str, Any]:
    content = _read(tar, sample.find(("json",)), MAX_JSON_BYTES, "json", problems)
    if content is None:
        return {}
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        problems["json_invalid"] += 1
        return {}
    return {key: v for key, v in value.items() if v is not None}


def _read(
    tar: IO[bytes], member: Member | None, limit: int, what: str, problems: Counter[str]
) -> bytes | None:
    if member is None:
        return None
    if member.size > limit:
        problems[f"{what}_too_large"] += 1
        return None
    tar.seek(member.data_offset)
    return tar.read(member.size)


def _string(value: Any) -> str | None:
    """A string that UTF-8 can hold (JSON allows lone surrogates), else None."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_BYTES:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def _integer(value: Any) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and abs(value) < 2**63 else None


def _read_side(folder: Folder, tar: str, problems: Counter[str]) -> dict[str, dict[str, Any]]:
    """The rows of the Parquet file beside a tar, by key; nothing if there is none."""
    name = f"{tar.removesuffix('.tar')}.parquet"
    if not folder.exists(name):
        return {}
    rows: dict[str, dict[str, Any]] = {}
    size = 0
    try:
        with folder.open(name) as file:
            parquet = pq.ParquetFile(file)
            columns = [c for c in _SIDE_COLUMNS if c in parquet.schema_arrow.names]
            if "key" not in columns:
                problems["side_parquet_without_key"] += 1
                return {}
            # Few rows at a time: a small file can hold one long value a million times.
            for batch in parquet.iter_batches(SIDE_BATCH_ROWS, columns=columns):
                size += batch.nbytes
                if size > MAX_SIDE_BYTES:
                    problems["side_parquet_too_large"] += 1
                    return {}
                for row in batch.to_pylist():
                    told = {key: value for key, value in row.items() if value is not None}
                    rows[str(told.get("key"))] = told
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        problems["side_parquet_unreadable"] += 1
        return {}
    return rows
