"""Classes and images of Hugging Face's ``datasets``: carried on where they fit, from any file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import metacurate as mc
from metacurate.formats.features import KEY, features_of, with_features
from metacurate.pool.open import open_pool
from metacurate.pool.schema import PoolConfig
from metacurate.sharing.columns import hub_features

LABEL = {"names": ["cat", "no: -"], "_type": "ClassLabel"}
IMAGE = {"_type": "Image"}
PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def schema_of(said: Any, kind: pa.DataType, name: str = "x") -> pa.Schema:
    features = said if isinstance(said, bytes) else json.dumps(said).encode()
    return pa.schema([(name, kind)], {KEY: features})


def one(feature: Any) -> dict[str, Any]:
    return {"info": {"features": {"x": feature}}}


@pytest.mark.parametrize(
    ("said", "kind", "expected"),
    [
        (one(LABEL), pa.int64(), LABEL),
        (one(IMAGE), PICTURE, IMAGE),
        (one({"mode": "RGB", "decode": False, "_type": "Image"}), PICTURE,
         {"mode": "RGB", "decode": False, "_type": "Image"}),
        (one({**LABEL, "evil": "x", "num_classes": 2}), pa.int64(), LABEL),
        (one(LABEL), pa.int32(), None),  # not what the library makes of its files
        (one(LABEL), pa.string(), None),
        (one(IMAGE), pa.binary(), None),
        (one({"dtype": "string", "_type": "Value"}), pa.string(), None),
        (one({"mode": "__import__('os')", "_type": "Image"}), PICTURE, None),
        (one({"names": ["a", "a"], "_type": "ClassLabel"}), pa.int64(), None),
        (one({"names": ["\ud800"], "_type": "ClassLabel"}), pa.int64(), None),
        (one({"names": [["a"]], "_type": "ClassLabel"}), pa.int64(), None),
        (one({"names": "ab", "_type": "ClassLabel"}), pa.int64(), None),
        (one(None), pa.int64(), None),
        ({"info": {"features": [LABEL]}}, pa.int64(), None),
        (b"[" * 100_000, pa.int64(), None),
        (b"\xff", pa.int64(), None),
        (json.dumps(one({**LABEL, "names": ["x" * (5 << 20)]})).encode(), pa.int64(), None),
    ],
    ids=["label", "image", "mode", "more", "int32", "string", "binary", "value", "odd mode",
         "repeated", "surrogate", "nested", "letters", "null", "list", "deep", "bytes", "large"],
)  # fmt: skip
def test_what_is_known_and_fits(said: Any, kind: pa.DataType, expected: Any) -> None:
    schema = schema_of(said, kind)
    found = features_of(schema)
    assert found == ({} if expected is None else {"x": expected})
    datasets = pytest.importorskip("datasets")
    again = with_features(pa.schema(schema, {b"other": b"kept"}), found)
    assert (again.metadata or {}).get(b"other") == b"kept"
    read = datasets.Features.from_arrow_schema(again)
    if expected is not None:
        assert read == datasets.Features.from_arrow_schema(schema)
        assert not isinstance(read["x"], datasets.Value)
    # The card says what the library itself would write into it.
    assert hub_features(again) == read._to_yaml_list()


@pytest.mark.parametrize("second", [LABEL, {**LABEL, "names": ["dog"]}, None, "no column"])
def test_files_that_agree(second: Any, tmp_path: Path) -> None:
    """A column that all files with it describe alike keeps its feature, through every rewriting."""
    urls = pa.array([f"https://a.example/{n}" for n in range(4)])
    for place, feature in enumerate((LABEL, second)):
        columns = {"url": urls, "text": ["a cat"] * 4, "x": pa.array([0, 1, 0, 1])}
        if feature == "no column":
            del columns["x"]
        table = pa.table(columns)
        if isinstance(feature, dict):
            table = table.replace_schema_metadata({KEY: json.dumps(one(feature)).encode()})
        pq.write_table(table, tmp_path / f"{place}.parquet")
    expected = {"x": LABEL} if second in (LABEL, "no column") else {}
    files = [str(tmp_path / f"{place}.parquet") for place in range(2)]
    assert features_of(open_pool(files, PoolConfig()).schema) == expected
    mc.dedup(files, tmp_path / "clean", workers=1)
    clean = pq.read_schema(next((tmp_path / "clean/pool").iterdir()))
    assert features_of(clean) == expected
    result = mc.curate(files, ["cat"], t=9, workers=1)
    assert features_of(result.to_arrow().schema) == expected
