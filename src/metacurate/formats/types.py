"""The types of columns: which hold texts, in which one is carried on, and which type holds two."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.types as pat

# Nested deeper, a value is carried as JSON text: no reader of Parquet is asked for more.
MAX_DEPTH = 16
_UNITS = ("s", "ms", "us", "ns")
_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}


def storage(kind: pa.DataType) -> pa.DataType:
    """The type of the values themselves: without extensions, dictionaries and run lengths."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pat.is_dictionary(kind) or pat.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def has_arrays(kind: pa.DataType) -> bool:
    """Whether pyarrow has arrays of a type, and of those within; it lacks two of the intervals.

    UnicodeDecodeError if a name within is no UTF-8.
    """
    kind = storage(kind)
    if not pat.is_nested(kind):
        try:
            pa.nulls(0, kind)
        except KeyError:
            return False
        return True
    within = [kind.field(place) for place in range(kind.num_fields)]
    return all(has_arrays(field.type) for field in within if field.name is not None)


def is_string(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's string types."""
    return pat.is_string(kind) or pat.is_large_string(kind) or pat.is_string_view(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's binary types."""
    return (
        pat.is_binary(kind)
        or pat.is_large_binary(kind)
        or pat.is_binary_view(kind)
        or pat.is_fixed_size_binary(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds one text a row."""
    kind = storage(kind)
    if pat.is_fixed_size_binary(kind):
        return False
    return is_string(kind) or is_bytes(kind) or pat.is_null(kind)


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's list types."""
    return (
        pat.is_list(kind)
        or pat.is_large_list(kind)
        or pat.is_fixed_size_list(kind)
        or pat.is_list_view(kind)
        or pat.is_large_list_view(kind)
    )


def is_texts(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts: one a row, or a list of texts, structs or lists.

    A list within the list is ``[source, text]`` or ``[source, text, language]``.
    """
    kind = storage(kind)
    if not is_list(kind):
        return is_text(kind)
    item = storage(kind.value_type)
    if is_list(item):
        return is_text(item.value_type)
    if pat.is_struct(item):
        text = item.get_field_index("text")
        return text >= 0 and is_text(item.field(text).type)
    return is_text(item)


def is_key(kind: pa.DataType) -> bool:
    """Whether a column of this type can be a key."""
    kind = storage(kind)
    return is_text(kind) or pat.is_integer(kind) or pat.is_fixed_size_binary(kind)


def carried_type(kind: pa.DataType, depth: int = 1) -> pa.DataType:
    """The type in which a column is carried: a plain one that every reader of Parquet knows."""
    kind = storage(kind)
    if depth > MAX_DEPTH or pat.is_string_view(kind) or pat.is_null(kind):
        return pa.string()
    if pat.is_binary_view(kind):
        return pa.binary()
    if is_list(kind):
        item = carried_type(kind.value_type, depth + 1)
        plain = pat.is_list(kind) or pat.is_large_list(kind)
        if plain and item.equals(kind.value_type):
            return kind
        return _list_of(kind.value_field.with_type(item), kind)
    if pat.is_map(kind):
        key, item = (carried_type(t, depth + 1) for t in (kind.key_type, kind.item_type))
        return pa.map_(key, item)
    if pat.is_struct(kind):
        if not kind.num_fields or _repeated(kind.names):
            return pa.string()
        return pa.struct([f.with_type(carried_type(f.type, depth + 1)) for f in kind.fields])
    if pat.is_decimal(kind) and kind.bit_width < 128:
        return pa.decimal128(kind.precision, kind.scale)
    if pat.is_union(kind) or pat.is_interval(kind) or not has_arrays(kind):
        return pa.string()
    return kind


def _repeated(names: Sequence[str]) -> bool:
    return len(set(names)) < len(names)


def _list_of(item: pa.Field, *like: pa.DataType) -> pa.DataType:
    large = any(pat.is_large_list(kind) or pat.is_large_list_view(kind) for kind in like)
    return (pa.large_list if large else pa.list_)(item)


def common_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """The columns of all files in order of appearance, each in a type that holds all its values."""
    found: dict[str, pa.DataType] = {}
    for schema in schemas:
        for name, kind in zip(schema.names, schema.types, strict=True):
            found[name] = wider(found[name], kind) if name in found else kind
    return pa.schema(list(found.items()))


def wider(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """A type that holds all values of two carried types, without loss: text if no other does.

    In it, values that are no strings have the text that Arrow gives them, nested ones JSON. Beside
    bytes, texts are bytes.
    """
    if first.equals(second):
        return first
    if is_bytes(first) or is_bytes(second):
        large = any(pat.is_large_binary(k) or pat.is_large_string(k) for k in (first, second))
        return pa.large_binary() if large else pa.binary()
    found = _number(first, second) or _time(first, second) or _nested(first, second)
    if found is not None:
        return found
    large = pat.is_large_string(first) or pat.is_large_string(second)
    return pa.large_string() if large else pa.string()


def _nested(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    if is_list(first) and is_list(second):
        item = wider(first.value_type, second.value_type)
        return _list_of(first.value_field.with_type(item).with_nullable(True), first, second)
    if pat.is_map(first) and pat.is_map(second):
        key = wider(first.key_type, second.key_type)
        return pa.map_(key, wider(first.item_type, second.item_type))
    if pat.is_struct(first) and pat.is_struct(second):
        fields = {field.name: field.type for field in first.fields}
        for field in second.fields:
            kind = fields.get(field.name)
            fields[field.name] = field.type if kind is None else wider(kind, field.type)
        return pa.struct(list(fields.items()))
    return None


def _number(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    pair = (first, second)
    if all(map(pat.is_integer, pair)):
        signed = [k.bit_width for k in pair if pat.is_signed_integer(k)]
        unsigned = [k.bit_width for k in pair if pat.is_unsigned_integer(k)]
        if not signed:
            return max(pair, key=lambda k: k.bit_width)
        bits = max(*signed, *(2 * b for b in unsigned), 0)
        return {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(bits)
    if all(pat.is_integer(k) or pat.is_floating(k) for k in pair):
        widest = max((k for k in pair if pat.is_floating(k)), key=lambda k: k.bit_width)
        exact = max((_bits(k) for k in pair if pat.is_integer(k)), default=0)
        mantissas = {16: 11, 32: 24, 64: 53}
        if exact <= mantissas[widest.bit_width]:
            return widest
        return pa.float64() if exact <= mantissas[64] else None
    if all(pat.is_integer(k) or pat.is_decimal(k) for k in pair):
        scale = max(k.scale if pat.is_decimal(k) else 0 for k in pair)
        whole = max(
            k.precision - k.scale if pat.is_decimal(k) else _DIGITS[k.bit_width] for k in pair
        )
        if whole + scale <= 38:
            return pa.decimal128(whole + scale, scale)
        return pa.decimal256(whole + scale, scale) if whole + scale <= 76 else None
    return None


def _bits(integer: pa.DataType) -> int:
    return integer.bit_width - pat.is_signed_integer(integer)


def _time(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    pair = (first, second)
    if all(map(pat.is_date, pair)):
        return pa.date32()
    if all(map(pat.is_time, pair)):
        unit = max((k.unit for k in pair), key=_UNITS.index)
        return pa.time64(unit) if unit in {"us", "ns"} else pa.time32(unit)
    stamps = all(map(pat.is_timestamp, pair))
    if not (stamps or all(map(pat.is_duration, pair))):
        return None
    units = {k.unit for k in pair}
    # Nanoseconds end in the year 2262, other units long after.
    if len(units) == 2 and "ns" in units:
        return None
    unit = max(units, key=_UNITS.index)
    if not stamps:
        return pa.duration(unit)
    zones = {k.tz for k in pair}
    if len(zones) == 1:
        return pa.timestamp(unit, zones.pop())
    return None if None in zones else pa.timestamp(unit, "UTC")
