"""What Hugging Face's ``datasets`` says of columns beside their Arrow types: class names, images.

It stands in the metadata of a file's schema. Only what is known here is carried on: class labels
and images, of whole columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

KEY = b"huggingface"
MAX_BYTES = 4 << 20
_MODE = re.compile(r"[A-Za-z0-9;]{1,8}")  # of an image, as Pillow names them

Feature = dict[str, Any]
Features = dict[str, Feature]
"""Features by column, as the library writes them into JSON (``{"_type": "Image"}``)."""


def features_of(schema: pa.Schema) -> Features:
    """The known features of a schema's columns; none where what is said does not fit a column."""
    said = (schema.metadata or {}).get(KEY, b"")
    if len(said) > MAX_BYTES:
        return {}
    try:
        found = json.loads(said)["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    known = {name: _known(value) for name, value in found.items()}
    return {
        field.name: feature
        for field in schema
        if (feature := known.get(field.name)) is not None and _fits(feature, field.type)
    }


def with_features(schema: pa.Schema, features: Features) -> pa.Schema:
    """The schema, which says the features of its columns, beside what else its metadata say."""
    own = {
        field.name: features[field.name]
        for field in schema
        if field.name in features and _fits(features[field.name], field.type)
    }
    others = {key: value for key, value in (schema.metadata or {}).items() if key != KEY}
    if own:
        others[KEY] = json.dumps({"info": {"features": own}}).encode()
    return schema.with_metadata(others or None)


def agreed(parts: Sequence[tuple[pa.Schema, Features]]) -> Features:
    """The features of several files' columns: where all files that have one say the same."""
    found: dict[str, Feature | None] = {}
    for schema, features in parts:
        for name in schema.names:
            feature = features.get(name)
            if name in found and found[name] != feature:
                feature = None
            found[name] = feature
    return {name: feature for name, feature in found.items() if feature is not None}


def _known(value: Any) -> Feature | None:
    """A feature with nothing but what is known of its kind; None for all others."""
    if not isinstance(value, Mapping):
        return None
    kind = value.get("_type")
    if kind == "ClassLabel" and _are_names(names := value.get("names")):
        return {"names": names, "_type": kind}
    if kind != "Image":
        return None
    mode = value.get("mode")
    if mode is not None and not (isinstance(mode, str) and _MODE.fullmatch(mode)):
        return None
    decode = {} if value.get("decode", True) is not False else {"decode": False}
    return {**({} if mode is None else {"mode": mode}), **decode, "_type": kind}


def _are_names(names: Any) -> bool:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return False
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(names) == len(set(names))


def _fits(feature: Feature, kind: pa.DataType) -> bool:
    if feature["_type"] == "ClassLabel":
        return kind.equals(pa.int64())
    return kind.equals(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
