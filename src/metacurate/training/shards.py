"""Shards of training pairs: WebDataset tars and Parquet, read as batches of uids, texts and images.

A tar has ``KEY.jpg`` (or png, webp), ``KEY.txt`` and ``KEY.json`` for each pair, as ``metacurate
pool download`` and img2dataset write them. Parquet is read as a pool (any column names that a pool
may have), with the images in a binary column or as paths below a folder that the user names. What
curation added (``matched``, ``text_kept``) is given if it is there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from metacurate.arrays import offsets_of
from metacurate.curation.match_index import MATCHED_TYPE
from metacurate.errors import ArgumentError, UserError
from metacurate.formats.types import is_texts
from metacurate.pool import columns
from metacurate.pool.find import subset_of
from metacurate.pool.open import Unit, open_pool
from metacurate.pool.read import column_texts, read_unit
from metacurate.pool.schema import PoolConfig
from metacurate.pool.uid import key_uid, url_uid
from metacurate.pool.write import canonical_texts
from metacurate.runtime.find import Wanted, find_files
from metacurate.runtime.storage import is_local, local_path, open_file, storage_failure
from metacurate.training.reasons import SkippedPair
from metacurate.webdataset.facts import decode_text, sample_texts, usable_string
from metacurate.webdataset.files import SUFFIX
from metacurate.webdataset.shards import Sample, read_samples

IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "image_bytes")
PATH_COLUMNS = ("image_path", "path", "file_name")
TEXT_KEPT_TYPE = pa.list_(pa.bool_())
MAX_IMAGE_BYTES = 256 * 2**20
BATCH_ROWS = 256  # few: a batch of Parquet rows holds its images
ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.5

# The bytes of an image, its path below the image folder, or None if the pair has none.
Image = bytes | str | None


@dataclass(frozen=True)
class ShardsConfig:
    """Which shards, and how to read them.

    ``paths``: files, folders or globs, all of one kind; ``url_col``, ``key_col``, ``text_cols``: as
    for pools; ``image_col``: the Parquet column with image bytes or paths; ``image_root``: the
    folder that paths are relative to (a path that leads out of it is not followed).
    ``caption_cols``: columns (fields of a tar's JSON) with captions beside the texts that curation
    saw; ``with_sources``: whether the texts' sources are read.
    """

    paths: tuple[str, ...]
    url_col: str | None = None
    key_col: str | None = None
    text_cols: tuple[str, ...] = ()
    image_col: str | None = None
    image_root: str | None = None
    caption_cols: tuple[str, ...] = ()
    with_sources: bool = False

    @property
    def pool(self) -> PoolConfig:
        """The part that concerns pools."""
        return PoolConfig(self.url_col, self.key_col, self.text_cols)


@dataclass(frozen=True)
class Shard:
    """A tar, or some row groups of a Parquet file.

    ``content``: what its file holds: of a tar its size, of Parquet the file's fingerprint.
    """

    address: str
    unit: Unit | None = None
    content: int | str = ""

    @property
    def name(self) -> str:
        """The shard in messages and fingerprints."""
        groups = self.unit.pieces if self.unit is not None else None
        return self.address if groups is None else f"{self.address} row groups {groups}"


Texts = tuple[Sequence[str | None], npt.NDArray[np.int64]]
"""Texts of some pairs, and where each pair's begin: int64[n + 1]."""


@dataclass(frozen=True)
class PairBatch:
    """Some consecutive pairs of a shard.

    ``uids`` uint64[n, 2] (little-endian halves) and ``has_uid`` bool[n]; ``texts`` a list of str or
    None, those of pair ``i`` at ``text_offsets[i]`` (int64[n + 1]); ``matched`` list<list<uint32>>
    and ``text_kept`` list<bool> of n rows, or None if the shard lacks them; ``image(i)`` the image
    of a pair. ``sources``: of each of ``texts``, if they are asked for; ``captions``: the texts of
    each of the ``caption_cols``.
    """

    uids: npt.NDArray[np.uint64]
    has_uid: npt.NDArray[np.bool_]
    texts: Sequence[str | None]
    text_offsets: npt.NDArray[np.int64]
    matched: pa.ListArray | None
    text_kept: pa.ListArray | None
    image: Callable[[int], Image]
    sources: Sequence[str | None] = ()
    captions: Mapping[str, Texts] = field(default_factory=dict)


SHARDS = Wanted(
    "shard of training pairs",
    "give WebDataset tars (.tar) or Parquet (.parquet)",
    lambda address: bool(SUFFIX.search(address)) or address.endswith(".parquet"),
    shy=lambda address: address.endswith(".parquet"),
)
"""Tars have Parquet files beside them that say what is in them: those are no shards."""


def find_shards(config: ShardsConfig) -> list[Shard]:
    """The shards that the configuration names, in the order of their addresses.

    Raises UserError if there is none, or if a Parquet file lacks the columns.
    """
    found = find_files([subset_of(path) for path in config.paths], SHARDS)
    addresses = found.require_all()
    parquet = [address for address in addresses if not SUFFIX.search(address)]
    if not parquet:
        return [Shard(file.address, content=file.size) for file in found.files]
    if len(parquet) < len(addresses):
        raise ArgumentError("{paths} must be tars or Parquet, not both")
    # Each row group is a shard of its own: the finest piece that can be read alone.
    pool = open_pool(parquet, replace(config.pool, rows_per_unit=1), reserved=())
    if pool.bad_files:
        raise UserError(" ".join(pool.bad_files[0]))
    image_column(pool.schema, config, parquet[0])
    for unit in pool.units:
        _check_captions(unit, config)
    return [Shard(unit.url, unit, pool.fingerprints[unit.url]) for unit in pool.units]


def read_shard(shard: Shard, config: ShardsConfig, skipped: Counter[str]) -> Iterator[PairBatch]:
    """The pairs of a shard in order; ``skipped`` counts what could not be used, by reason.

    A shard that cannot be opened or read is tried again, from the pair where it broke; after
    ATTEMPTS failures a UserError names it.
    """
    done = failures = 0
    while True:
        try:
            for position, (batch, counts) in enumerate(_batches(shard, config)):
                if position >= done:  # else: given before the interruption
                    skipped.update(counts)
                    yield batch
                    done, failures = position + 1, 0
            return
        except Exception as error:
            if not (isinstance(error, OSError | EOFError | UserError) or storage_failure(error)):
                raise
            failures += 1
            if failures == ATTEMPTS:
                raise UserError(
                    f"the shard {shard.name} cannot be read ({_reason(error)}), tried "
                    f"{ATTEMPTS} times; put it back or leave it out, then run the same command "
                    "again: it resumes"
                ) from None
            time.sleep(FIRST_WAIT_SECONDS * 2 ** (failures - 1))


def _reason(error: Exception) -> str:
    return "it is gone" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())


Counted = tuple[PairBatch, Counter[str]]


def _batches(shard: Shard, config: ShardsConfig) -> Iterator[Counted]:
    if shard.unit is not None:
        yield from _parquet_batches(shard.unit, config)
        return
    counts: Counter[str] = Counter()
    samples: list[_Sample] = []
    for found in read_samples(open_file(shard.address), counts):
        samples.append(_sample(found, counts))
        if len(samples) == BATCH_ROWS:
            yield _tar_batch(samples, config, counts), _taken(counts)
            samples = []
    yield _tar_batch(samples, config, counts), _taken(counts)


def _taken(counts: Counter[str]) -> Counter[str]:
    """The counts so far; they start again at zero."""
    taken = Counter(counts)
    counts.clear()
    return taken


# Parquet.


def _parquet_batches(unit: Unit, config: ShardsConfig) -> Iterator[Counted]:
    counts: Counter[str] = Counter()
    image_name = image_column(unit.columns.carried, config, unit.url)
    # Columns that training does not need are not read.
    wanted = (image_name, "matched", "text_kept", *config.caption_cols)
    lean = replace(unit, columns=unit.columns.only(wanted))
    for batch in read_unit(lean, all_columns=True, skipped=counts, batch_rows=BATCH_ROWS):
        assert batch.columns is not None
        rows = batch.columns
        # Rows without a uid or text are counted where pairs are chosen.
        for reason in ("no_url", "no_text"):
            del counts[reason]
        words = np.frombuffer(batch.uids.buffers()[1] or b"", "<u8").reshape(-1, 2)
        captions = {}
        for name in config.caption_cols:
            texts, offsets = column_texts(rows, name, counts)
            captions[name] = (texts.to_pylist(), offsets)
        sources: Sequence[str | None] = ()
        if config.with_sources:
            structs = canonical_texts(batch, lean.columns).flatten()
            sources = pc.struct_field(structs, "source").to_pylist()
        yield (
            PairBatch(
                uids=words[batch.uids.offset :][: batch.rows],
                has_uid=batch.uids.is_valid().to_numpy(zero_copy_only=False),
                texts=batch.texts.to_pylist(),
                text_offsets=batch.text_offsets,
                matched=_optional(rows, "matched", MATCHED_TYPE, unit.url),
                text_kept=_optional(rows, "text_kept", TEXT_KEPT_TYPE, unit.url),
                image=image_getter(rows.column(image_name)),
                sources=sources,
                captions=captions,
            ),
            _taken(counts),
        )


def _check_captions(unit: Unit, config: ShardsConfig) -> None:
    """UserError if a file lacks a column with captions, or has no texts in it."""
    for name in config.caption_cols:
        if name in unit.columns.texts:
            raise UserError(
                f"{unit.url}: {name!r} holds texts that curation saw: it is a source of captions "
                "already; leave it out of caption_cols"
            )
        if name not in unit.columns.carried.names:
            raise UserError(f"{unit.url} has no column {name!r} for captions")
        kind = unit.columns.carried.field(name).type
        if not is_texts(kind):
            raise UserError(f"{unit.url}: the column {name!r} holds {kind}, not captions")


def image_column(schema: pa.Schema, config: ShardsConfig, address: str) -> str:
    """The column of a pool that holds the images or their paths; UserError if there is none."""
    if config.image_col is not None:
        if config.image_col not in schema.names:
            raise UserError(f"{address} has no column {config.image_col!r} for the images")
        name = config.image_col
    else:
        known = [n for n in (*IMAGE_COLUMNS, *PATH_COLUMNS) if n in schema.names]
        if not known:
            raise UserError(
                f"{address} has no column with images known by name "
                f"({', '.join((*IMAGE_COLUMNS, *PATH_COLUMNS))}); set image_col, or give the tars "
                "that 'metacurate pool download' writes"
            )
        name = known[0]
    kind = schema.field(name).type
    if _holds_paths(kind) and config.image_root is None:
        raise UserError(f"{address}: {name!r} holds paths; set image_root to their folder")
    return name


def _holds_paths(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def image_getter(column: pa.Array) -> Callable[[int], Image]:
    """What gives the image of a row of that column."""

    def get(row: int) -> Image:
        value = column[row].as_py()
        if isinstance(value, dict):  # Hugging Face's layout: bytes and path
            value = value.get("bytes")
        return value if isinstance(value, bytes | str) else None

    return get


def _optional(
    rows: pa.RecordBatch, name: str, kind: pa.DataType, address: str
) -> pa.ListArray | None:
    if name not in rows.schema.names:
        return None
    try:
        return rows.column(name).cast(kind)
    except pa.ArrowException as error:
        raise UserError(f"{address}: the column {name!r} is not {kind}: {error}") from None


# WebDataset tars.


@dataclass(frozen=True)
class _Sample:
    key: str
    image: bytes | None
    text: str | None
    row: dict[str, Any]


def _sample(found: Sample, counts: Counter[str]) -> _Sample:
    text = decode_text(found.files.get("txt"), counts)
    return _Sample(found.key, found.image or None, text, found.record(counts))


def _tar_batch(samples: Sequence[_Sample], config: ShardsConfig, counts: Counter[str]) -> PairBatch:
    uids = [_tar_uid(sample, config) for sample in samples]
    texts = [sample_texts(sample.row, sample.text, counts, config.text_cols) for sample in samples]
    captions = {
        name: [sample_texts(sample.row, None, counts, (name,)) for sample in samples]
        for name in config.caption_cols
    }
    words = np.frombuffer(b"".join(uid or bytes(16) for uid in uids), "<u8").reshape(-1, 2)
    images = [sample.image for sample in samples]
    return PairBatch(
        uids=words,
        has_uid=np.array([uid is not None for uid in uids], dtype=np.bool_),
        texts=[text.text for of_pair in texts for text in of_pair],
        text_offsets=offsets_of([len(of_pair) for of_pair in texts]),
        matched=_tar_lists(samples, "matched", MATCHED_TYPE, counts),
        text_kept=_tar_lists(samples, "text_kept", TEXT_KEPT_TYPE, counts),
        image=images.__getitem__,
        sources=[text.source for of_pair in texts for text in of_pair],
        captions={
            name: (
                [text.text for of in found for text in of],
                offsets_of([len(of) for of in found]),
            )
            for name, found in captions.items()
        },
    )


def _tar_uid(sample: _Sample, config: ShardsConfig) -> bytes | None:
    """As for pools: from the key or URL column, else from ``uid``, the URL, or the sample's key."""
    row = sample.row
    if config.key_col is not None or config.url_col is not None:
        key = row.get(config.key_col) if config.key_col is not None else None
        if key is not None:
            return key_uid(str(key))
        url = row.get(config.url_col) if config.url_col is not None else None
        return url_uid(url) if (url := usable_string(url)) is not None else None
    if usable_string(row.get(columns.UID_NAME)) is not None:
        return key_uid(row[columns.UID_NAME])
    url = next((row[n] for n in columns.URL_NAMES if usable_string(row.get(n)) is not None), None)
    return url_uid(url) if url is not None else key_uid(sample.key)


def _tar_lists(
    samples: Sequence[_Sample], name: str, kind: pa.DataType, counts: Counter[str]
) -> pa.ListArray | None:
    values = [sample.row.get(name) for sample in samples]
    if all(value is None for value in values):
        return None
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, OverflowError):
        pass
    usable = []
    for value in values:
        try:
            pa.array([value], kind)
            usable.append(value)
        except (pa.ArrowException, TypeError, OverflowError):
            counts[SkippedPair(f"broken_{name}")] += 1
            usable.append(None)
    return pa.array(usable, kind)


def resolve_path(path: str, root: str) -> str | None:
    """The address of an image given by its path; None if the path leads out of the folder."""
    if path.startswith(("/", "\\")) or "://" in path or "\0" in path or ".." in path.split("/"):
        return None
    address = f"{root.rstrip('/')}/{path}"
    if is_local(address):
        resolved = local_path(address).resolve()
        if not resolved.is_relative_to(local_path(root).resolve()):
            return None
    return address
