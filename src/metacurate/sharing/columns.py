"""The columns of a Parquet file as Hugging Face's ``datasets`` and Croissant name their types."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.types as pat

from metacurate.formats.features import Feature, features_of
from metacurate.formats.types import is_bytes, is_list, is_string
from metacurate.printable import printable

Plain = dict[str, Any]


def hub_features(schema: pa.Schema) -> list[Plain] | None:
    """The ``features`` of a dataset card; None if ``datasets`` has no type for a column (a map)."""
    said = features_of(schema)
    try:
        return [
            {"name": field.name, **_hub_type(field.type)}
            if field.name not in said
            else {"name": field.name, "dtype": _hub_feature(said[field.name])}
            for field in schema
        ]
    except TypeError:
        return None


def _hub_feature(feature: Feature) -> str | Plain:
    if feature["_type"] == "ClassLabel":
        names = {str(place): name for place, name in enumerate(feature["names"])}
        return {"class_label": {"names": names}}
    how = {name: value for name, value in feature.items() if name != "_type"}
    return {"image": how} if how else "image"


def _hub_type(kind: pa.DataType) -> Plain:
    if pat.is_struct(kind):
        return {"struct": _hub_fields(kind)}
    if is_list(kind):
        item = _hub_type(kind.value_type)
        name = "large_list" if pat.is_large_list(kind) else "list"
        # What a list has is said without its own key: ``list: int32``, ``list: [fields]``.
        inner = item.get("dtype", item.get("struct", item))
        length = {"length": kind.list_size} if pat.is_fixed_size_list(kind) else {}
        return {name: inner, **length}
    return {"dtype": _hub_name(kind)}


def _hub_fields(kind: pa.StructType) -> list[Plain]:
    return [{"name": field.name, **_hub_type(field.type)} for field in kind.fields]


_HUB_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64",
              "date32[day]": "date32", "date64[ms]": "date64"}  # fmt: skip


def _hub_name(kind: pa.DataType) -> str:
    if pat.is_nested(kind) or pat.is_union(kind):
        raise TypeError(str(kind))
    return _HUB_NAMES.get(str(kind), str(kind))


def croissant_fields(schema: pa.Schema, record_set: str, source: Plain) -> list[Plain]:
    """The fields of a record set: one for each column of the files that ``source`` names.

    Columns of which Croissant cannot tell the parts (a map, a list within a list of structs) are
    fields of text. It has no word for a column without a name, such as the row numbers that pandas
    writes into CSV: it is left out.
    """
    return [
        _field(f"{record_set}/{place}", field, {**source, "extract": {"column": field.name}})
        for place, field in enumerate(schema)
        if field.name
    ]


def _field(identity: str, field: pa.Field, source: Plain, path: str = "$") -> Plain:
    """``path``: of a part of the column's values, as ``transform`` takes it."""
    kind, depth = field.type, 0
    while is_list(kind):
        kind, depth = kind.value_type, depth + 1
    found: Plain = {"@type": "cr:Field", "@id": identity, "name": printable(field.name)}
    if depth:
        found |= {"isArray": True, "arrayShape": ",".join(["-1"] * depth)}
    if pat.is_struct(kind) and depth <= 1:
        found["subField"] = [
            _field(f"{identity}/{place}", part, source, f"{path}[{_path_name(part.name)}]")
            for place, part in enumerate(kind.fields)
        ]
        return found
    if path != "$":
        source = {**source, "transform": {"jsonPath": path}}
    return {**found, "dataType": _croissant_type(kind), "source": source}


def _path_name(name: str) -> str:
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


_CROISSANT = {
    **{f"{sign}int{bits}": f"cr:{sign_name}nt{bits}"
       for sign, sign_name in (("", "I"), ("u", "UI")) for bits in (8, 16, 32, 64)},
    "halffloat": "cr:Float16", "float": "cr:Float32", "double": "cr:Float64",
    "bool": "sc:Boolean",
}  # fmt: skip


def _croissant_type(kind: pa.DataType) -> str:
    if is_string(kind) or is_bytes(kind):
        return "sc:Text"
    if pat.is_timestamp(kind):
        return "sc:DateTime"
    if pat.is_date(kind):
        return "sc:Date"
    if pat.is_time(kind):
        return "sc:Time"
    return _CROISSANT.get(str(kind), "sc:Float" if pat.is_decimal(kind) else "sc:Text")
