"""Reading a pool's units as batches of uids, texts and, if asked for, the rows' own columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from metacurate.arrays import offsets_of
from metacurate.errors import UserError
from metacurate.formats import reasons
from metacurate.formats.files import open_source
from metacurate.formats.protocol import Request, Rows
from metacurate.formats.table import format_of, formats
from metacurate.formats.types import is_list
from metacurate.pool.columns import SUCCESS, ResolvedColumns, has_lang
from metacurate.pool.convert import converted, flat_offsets, stored, valid_strings
from metacurate.pool.open import Unit
from metacurate.pool.schema import UID_TYPE, PoolBatch
from metacurate.pool.uid import key_uids, url_uids

MAX_TEXT_BYTES = 16 << 20


def read_unit(
    unit: Unit,
    *,
    all_columns: bool,
    skipped: Counter[str],
    batch_rows: int = 65_536,
) -> Iterator[PoolBatch]:
    """Read a unit in batches of at most ``batch_rows`` rows.

    ``all_columns``: give the rows' own columns too (in the pool's schema); row numbers and uids are
    the same either way. ``skipped`` is added to: how many rows, values or files were skipped or
    are of no use, by reason (``docs/pools.md``). Raises UserError if the file is gone.
    """
    for first_row, rows in _rows(unit, all_columns, skipped, batch_rows):
        yield _batch(first_row, rows, unit.columns, all_columns, skipped)


def read_columns(unit: Unit, *, skipped: Counter[str], batch_rows: int = 65_536) -> Rows:
    """Read only the rows' own columns: ``(first_row, PoolBatch.columns)`` as of read_unit."""
    for first_row, rows in _rows(unit, True, skipped, batch_rows):
        yield first_row, _carried(rows, unit.columns, skipped)


def read_uids(unit: Unit, *, skipped: Counter[str]) -> Iterator[pa.FixedSizeBinaryArray]:
    """Read only the rows' uids, null where a row has neither key nor URL."""
    for _, rows in _rows(unit, False, skipped, 65_536):
        yield _uids(rows, unit.columns, skipped)


def count_rows(unit: Unit, *, skipped: Counter[str]) -> int:
    """How many rows there are, by reading them if needed."""
    if unit.rows is not None:
        return unit.rows
    return sum(rows.num_rows for _, rows in _rows(unit, False, skipped, 65_536))


def _rows(unit: Unit, all_columns: bool, skipped: Counter[str], batch_rows: int) -> Rows:
    resolved = unit.columns
    known = format_of(unit.url)
    request = Request(
        schema=resolved.file,
        settings=resolved.settings,
        columns=tuple(resolved.file.names) if all_columns else resolved.needed,
        needed=resolved.needed,
        strict=resolved.strict,
        url=resolved.url,
        pieces=unit.pieces,
        batch_rows=batch_rows,
    )
    try:
        with open_source(unit.url) as source:
            compression = known[1] if known else None
            read = formats()[unit.format].read(source, compression, request, skipped)
            for first_row, rows in read:
                for start in range(0, rows.num_rows, batch_rows):
                    yield first_row + start, rows.slice(start, batch_rows)
    except FileNotFoundError:
        raise UserError(
            f"{unit.url} is gone; put it back, then run the same command again"
        ) from None


# From rows to a batch.


def _batch(
    first_row: int,
    rows: pa.RecordBatch,
    resolved: ResolvedColumns,
    all_columns: bool,
    skipped: Counter[str],
) -> PoolBatch:
    uids = _uids(rows, resolved, skipped)
    texts, offsets, langs = _texts(rows, resolved, skipped)
    if without_text := _rows_without_text(texts, offsets):
        skipped[reasons.NO_TEXT] += without_text
    columns = _carried(rows, resolved, skipped) if all_columns else None
    return PoolBatch(first_row, uids, texts, offsets, columns, langs)


def _uids(
    rows: pa.RecordBatch, resolved: ResolvedColumns, skipped: Counter[str]
) -> pa.FixedSizeBinaryArray:
    """The rows' uids; null, and counted, where a row names no pair or the pair has no image."""
    uids = None
    if resolved.key is not None:
        keys = stored(rows.column(resolved.key))
        uids = keys if keys.type.equals(UID_TYPE) else key_uids(_as_bytes(keys))
    if resolved.url is not None and (uids is None or uids.null_count):
        from_urls = url_uids(_as_bytes(rows.column(resolved.url)))
        uids = from_urls if uids is None else pc.coalesce(uids, from_urls)
    assert uids is not None
    if uids.null_count:
        skipped[reasons.NO_URL] += uids.null_count
    if resolved.status is not None:
        success = pc.equal(_as_bytes(rows.column(resolved.status)), SUCCESS.encode())
        failed = pc.and_(uids.is_valid(), pc.invert(pc.fill_null(success, False)))
        if number := pc.sum(failed).as_py():
            skipped[reasons.NO_IMAGE] += number
            uids = pc.if_else(failed, pa.scalar(None, UID_TYPE), uids)
    return uids


def _as_bytes(array: pa.Array) -> pa.LargeBinaryArray:
    array = stored(array)
    if pat.is_integer(array.type):
        array = array.cast(pa.string())
    return array.cast(pa.large_binary())


Offsets = npt.NDArray[np.int64]


def column_texts(
    rows: pa.RecordBatch, name: str, skipped: Counter[str]
) -> tuple[pa.LargeStringArray, Offsets]:
    """The texts of one of ``PoolBatch.columns``, and where each row's begin: int64[n + 1]."""
    flat, offsets = _flat_texts(rows.column(name))
    return _checked_texts(_text_of(flat), skipped), offsets


def _texts(
    rows: pa.RecordBatch, resolved: ResolvedColumns, skipped: Counter[str]
) -> tuple[pa.LargeStringArray, Offsets, pa.DictionaryArray | None]:
    """All rows' texts, their offsets, and their languages if these are asked for."""
    columns = [_flat_texts(rows.column(name)) for name in resolved.texts]
    parts = [_checked_texts(_text_of(flat), skipped) for flat, _ in columns]
    offsets, order = _interleaved([offsets for _, offsets in columns])
    langs = None
    if resolved.lang is not None:
        langs = _langs_of_rows(rows, resolved, resolved.lang, offsets)
    elif resolved.with_langs:
        langs = _in_order([_lang_of(flat) for flat, _ in columns], order).dictionary_encode()
    return _in_order(parts, order), offsets, langs


def _flat_texts(column: pa.Array) -> tuple[pa.Array, Offsets]:
    """What a column holds of texts, and int64[n + 1] offsets of the rows'; a null list has none."""
    column = stored(column)
    if not is_list(column.type):
        return column, np.arange(len(column) + 1, dtype=np.int64)
    return stored(column.flatten()), flat_offsets(column)


SOURCE, TEXT, LANG = range(3)
"""What stands where in a text that is a list."""


def _text_of(flat: pa.Array) -> pa.Array:
    if is_list(flat.type):
        return member(flat, TEXT)
    return pc.struct_field(flat, "text") if pat.is_struct(flat.type) else flat


def member(lists: pa.Array, place: int) -> pa.Array:
    """What stands at a place of each list; null where a list is shorter."""
    values, starts = stored(lists.flatten()), flat_offsets(lists)
    there = np.diff(starts) > place
    return values.take(pa.array(np.where(there, starts[:-1] + place, 0), mask=~there))


def _lang_of(flat: pa.Array) -> pa.LargeStringArray:
    """The languages that stand with the texts; null where none does."""
    if is_list(flat.type):
        labels = _labels(member(flat, LANG))
        # The official scripts have the ids of matched entries there: JSON, no language.
        ids = pc.fill_null(pc.starts_with(labels, "["), False)
        return pc.if_else(ids, pa.scalar(None, pa.large_string()), labels)
    if not has_lang(flat.type):
        return pa.nulls(len(flat), pa.large_string())
    return _labels(pc.struct_field(flat, "lang"))


def _labels(array: pa.Array) -> pa.LargeStringArray:
    """Labels of languages as strings; those that are no UTF-8 are null, as what says nothing."""
    return valid_strings(_as_large_string(array), Counter(), reasons.UNDECODABLE_VALUE)


def _langs_of_rows(
    rows: pa.RecordBatch, resolved: ResolvedColumns, name: str, offsets: Offsets
) -> pa.DictionaryArray:
    """The languages that a column names: one for all texts of a row, or a list of one for each.

    A list of another length than the row's texts says nothing of them: null.
    """
    if name not in rows.schema.names:
        value = pa.scalar(resolved.constants.get(name), pa.large_string())
        return pa.repeat(value, int(offsets[-1])).dictionary_encode()
    flat, own = _flat_texts(rows.column(name))
    lengths = np.diff(offsets)
    if is_list(stored(rows.column(name)).type):
        fits = np.repeat(np.diff(own) == lengths, lengths)
        within = np.arange(fits.size) - np.repeat(offsets[:-1] - own[:-1], lengths)
        place = pa.array(within, pa.int64(), mask=~fits)
    else:
        place = pa.array(np.repeat(np.arange(rows.num_rows), lengths))
    return _labels(flat).dictionary_encode().take(place)


def _interleaved(parts: list[Offsets]) -> tuple[Offsets, npt.NDArray[np.int64] | None]:
    """Row by row, first the first part's texts, then the second's, and so on.

    Returns the offsets of the rows' texts, and which of all parts' texts comes where; None for the
    texts of one part as they are.
    """
    if len(parts) == 1:
        return parts[0], None
    lengths = [np.diff(offsets) for offsets in parts]
    offsets = offsets_of(np.sum(lengths, axis=0))
    order = np.empty(offsets[-1], np.int64)
    start = offsets[:-1].copy()  # where the row's next text goes
    base = 0
    for own, length in zip(parts, lengths, strict=True):
        number = np.arange(own[-1])
        order[number + np.repeat(start - own[:-1], length)] = base + number
        start += length
        base += own[-1]
    return offsets, order


def _in_order(
    parts: list[pa.LargeStringArray], order: npt.NDArray[np.int64] | None
) -> pa.LargeStringArray:
    return parts[0] if order is None else pa.concat_arrays(parts).take(pa.array(order))


def _checked_texts(array: pa.Array, skipped: Counter[str]) -> pa.LargeStringArray:
    """The texts as ``large_string``, those that are no UTF-8 or too long made null and counted."""
    texts = valid_strings(_as_large_string(array), skipped, reasons.UNDECODABLE_TEXT)
    sizes = pc.binary_length(texts)
    if (pc.max(sizes).as_py() or 0) > MAX_TEXT_BYTES:
        oversized = pc.greater(sizes, MAX_TEXT_BYTES)
        skipped[reasons.OVERSIZED_TEXT] += pc.sum(oversized).as_py()
        texts = pc.if_else(oversized, pa.scalar(None, pa.large_string()), texts)
    return texts


def _as_large_string(array: pa.Array) -> pa.LargeStringArray:
    """An array of any text type as ``large_string``, not checked; the bytes are not copied."""
    if pat.is_null(array.type):
        return pa.nulls(len(array), pa.large_string())
    return _as_bytes(array).view(pa.large_string())


def _rows_without_text(texts: pa.LargeStringArray, offsets: npt.NDArray[np.int64]) -> int:
    filled = pc.fill_null(pc.greater(pc.binary_length(texts), 0), False)
    before = offsets_of(filled)
    return int(np.count_nonzero(before[offsets[1:]] == before[offsets[:-1]]))


def _carried(
    rows: pa.RecordBatch, resolved: ResolvedColumns, skipped: Counter[str]
) -> pa.RecordBatch:
    """The rows' columns in the pool's schema: absent ones null, strings valid, types as agreed."""
    present = set(rows.schema.names)
    arrays = []
    for field in resolved.carried:
        name = resolved.own.get(field.name, field.name)
        if name in resolved.constants:
            value = pa.scalar(resolved.constants[name], pa.string())
            arrays.append(converted(pa.repeat(value, rows.num_rows), field.type, skipped))
            continue
        if name not in present:
            arrays.append(pa.nulls(rows.num_rows, field.type))
            continue
        # What is wrong with a text is counted once, where texts are read.
        count = Counter[str]() if name in resolved.texts else skipped
        arrays.append(converted(rows.column(name), field.type, count))
    return pa.RecordBatch.from_arrays(arrays, schema=resolved.carried)
