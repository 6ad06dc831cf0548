"""Columns in the types in which they are carried: a value that has none there costs only itself."""

from __future__ import annotations

import datetime
import json
import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from metacurate.arrays import offsets_of
from metacurate.formats import reasons
from metacurate.formats.types import is_bytes, is_list, is_string


def stored(array: pa.Array) -> pa.Array:
    """The values themselves: without extensions, dictionaries, run lengths and views."""
    while True:
        kind = array.type
        if isinstance(kind, pa.BaseExtensionType):
            array = array.storage
        elif pat.is_dictionary(kind):
            array = stored(array.dictionary).take(array.indices)
        elif pat.is_run_end_encoded(kind):
            array = pc.run_end_decode(array)
        elif pat.is_string_view(kind):
            array = array.cast(pa.large_string())
        elif pat.is_binary_view(kind):
            array = array.cast(pa.large_binary())
        elif pat.is_list_view(kind):
            return _list_array(array, array.flatten(), pa.list_(kind.value_field))
        elif pat.is_large_list_view(kind):
            return _list_array(array, array.flatten(), pa.large_list(kind.value_field))
        else:
            return array


def _list_array(lists: pa.Array, values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Lists of the same lengths with other values, those of what ``flatten()`` gives.

    Not by Arrow's cast: that of views (26.0) gives one offset too few, and a crash later.
    """
    large = pat.is_large_list(kind)
    return (pa.LargeListArray if large else pa.ListArray).from_arrays(
        pa.array(flat_offsets(lists), pa.int64() if large else pa.int32()),
        values,
        kind,
        mask=lists.is_null(),
    )


def flat_offsets(lists: pa.Array) -> npt.NDArray[np.int64]:
    """int64[n + 1] into what ``flatten()`` gives of a list array; a null list has none."""
    return offsets_of(pc.fill_null(pc.list_value_length(lists), 0))


def converted(array: pa.Array, kind: pa.DataType, skipped: Counter[str]) -> pa.Array:
    """A column in another type, its strings valid; what has no place there is null and counted.

    ``kind`` is what ``types.carried_type`` or ``types.wider`` gave for the column.
    """
    if array.type.equals(kind) and pat.is_nested(kind):
        try:
            array.validate(full=True)
            return array
        except pa.ArrowInvalid:
            pass
    array = stored(array)
    if is_string(kind):
        return _text(array, kind, skipped)
    if pat.is_binary(kind) or pat.is_large_binary(kind):
        if not is_bytes(array.type):
            array = _text(array, pa.large_string(), skipped)
        return _cast(array, kind, skipped)
    if is_list(kind) and is_list(array.type):
        return _list_array(array, converted(array.flatten(), kind.value_type, skipped), kind)
    if pat.is_struct(kind) and pat.is_struct(array.type):
        return _structs(array, kind, skipped)
    if pat.is_map(kind) and pat.is_map(array.type):
        return _maps(array, kind, skipped)
    return array if array.type.equals(kind) else _cast(array, kind, skipped)


def _structs(array: pa.StructArray, kind: pa.DataType, skipped: Counter[str]) -> pa.Array:
    # A value in a row that is null itself is no loss.
    null = array.is_null()
    names = array.type.names
    children = []
    for field in kind.fields:
        if field.name in names:
            child = pc.struct_field(array, names.index(field.name))
            children.append(converted(child, field.type, skipped))
        else:
            children.append(pa.nulls(len(array), field.type))
    return pa.StructArray.from_arrays(children, fields=kind.fields, mask=null)


def _maps(array: pa.MapArray, kind: pa.DataType, skipped: Counter[str]) -> pa.Array:
    lists = array.cast(pa.list_(pa.struct([("key", array.type.key_type),
                                           ("value", array.type.item_type)])))  # fmt: skip
    entries = lists.flatten()
    keys = converted(pc.struct_field(entries, "key"), kind.key_type, skipped)
    items = converted(pc.struct_field(entries, "value"), kind.item_type, skipped)
    offsets = flat_offsets(lists)
    null = lists.is_null().to_numpy(zero_copy_only=False)
    if keys.null_count:  # a map without one of its keys is another map
        lost = offsets_of(keys.is_null())
        null = null | (np.diff(lost[offsets]) > 0)
        kept = pa.array(np.repeat(~null, np.diff(offsets)))
        offsets = offsets_of(np.where(null, 0, np.diff(offsets)))
        keys, items = keys.filter(kept), items.filter(kept)
    marked = pa.array(offsets, pa.int32(), mask=np.append(null, False))
    return pa.MapArray.from_arrays(marked, keys, items, type=kind)


def _cast(array: pa.Array, kind: pa.DataType, skipped: Counter[str]) -> pa.Array:
    """Arrow's cast; of values for which it fails, by halves, one by one."""
    try:
        return array.cast(kind)
    except pa.ArrowException as error:
        if len(array) > 1 and not isinstance(error, pa.ArrowNotImplementedError):
            half = len(array) // 2
            return pa.concat_arrays(
                [_cast(part, kind, skipped) for part in (array[:half], array[half:])]
            )
    skipped[reasons.UNCONVERTIBLE_VALUE] += len(array) - array.null_count
    return pa.nulls(len(array), kind)


def _text(array: pa.Array, kind: pa.DataType, skipped: Counter[str]) -> pa.Array:
    if is_string(array.type) or is_bytes(array.type):
        strings = array
        if not is_string(array.type):
            strings = array.cast(pa.large_binary()).view(pa.large_string())
        return _cast(valid_strings(strings, skipped, reasons.UNDECODABLE_VALUE), kind, skipped)
    if pat.is_nested(array.type) or pat.is_union(array.type) or pat.is_interval(array.type):
        return pa.array([_json_text(value, skipped) for value in array], kind)
    return _cast(array, kind, skipped)


def _json_text(value: pa.Scalar, skipped: Counter[str]) -> str | None:
    if not value.is_valid:
        return None
    try:
        text = json.dumps(json_row(value.as_py()), ensure_ascii=False)
        text.encode()
    except (ValueError, TypeError, OverflowError, RecursionError, pa.ArrowException):
        skipped[reasons.UNCONVERTIBLE_VALUE] += 1
        return None
    return text


def json_row(value: Any) -> Any:
    """A row as JSON values: bytes as hex, NaN and infinities as null, dates in ISO 8601."""
    if isinstance(value, dict):
        return {str(key): json_row(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_row(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def valid_strings(array: pa.Array, skipped: Counter[str], reason: str) -> pa.Array:
    """A string array with the values that are no UTF-8 made null and counted."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        large = array.cast(pa.large_binary())
        bad = [not _is_utf8(value) for value in large]
        skipped[reason] += sum(bad)
        return pc.if_else(pa.array(bad), pa.scalar(None, array.type), array)
    return array


def _is_utf8(value: pa.LargeBinaryScalar) -> bool:
    if not value.is_valid:
        return True
    try:
        str(value.as_buffer(), "utf-8")
    except UnicodeDecodeError:
        return False
    return True
