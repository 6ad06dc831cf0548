"""Columns of types that differ between files or that few know: values are kept or counted."""

from __future__ import annotations

import datetime
import json
import uuid
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacurate.formats.types import carried_type, common_schema
from metacurate.metadata.store import make_metadata
from metacurate.pipeline import curate
from metacurate.pool.convert import _json_text, converted
from metacurate.pool.open import open_pool
from metacurate.pool.read import read_columns
from metacurate.pool.schema import PoolConfig

BIG = 2**53 + 1
NOON = datetime.datetime(2026, 1, 1, 12)


def carry(*columns: pa.Array) -> tuple[pa.DataType, list[Any], Counter[str]]:
    """The type in which columns of several files are carried, their values, what was lost."""
    schemas = [pa.schema([("x", carried_type(column.type))]) for column in columns]
    kind = common_schema(schemas).field("x").type
    skipped: Counter[str] = Counter()
    values = []
    for column in columns:
        array = converted(column, kind, skipped)
        array.validate(full=True)
        assert array.type.equals(kind)
        assert len(array) == len(column)
        values += array.to_pylist()
    return kind, values, skipped


def in_bytes(values: list[bytes | None], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.binary()).view(kind)


TWO_TYPES: dict[str, tuple[list[pa.Array], list[Any]]] = {
    "int64, double": (
        [pa.array([1, 2, BIG]), pa.array([0.5, 3.0])],
        ["1", "2", str(BIG), "0.5", "3"],
    ),
    "int32, double": ([pa.array([1], pa.int32()), pa.array([0.5])], [1.0, 0.5]),
    "int64, uint64": (
        [pa.array([-1]), pa.array([2**64 - 1], pa.uint64())],
        ["-1", str(2**64 - 1)],
    ),
    "int32, uint32": (
        [pa.array([-1], pa.int32()), pa.array([2**32 - 1], pa.uint32())],
        [-1, 2**32 - 1],
    ),
    "int8, uint8": ([pa.array([-1], pa.int8()), pa.array([255], pa.uint8())], [-1, 255]),
    "int64, bool": ([pa.array([5]), pa.array([True])], ["5", "true"]),
    "us, ns": (
        [
            pa.array([datetime.datetime(2500, 1, 1)], pa.timestamp("us")),
            pa.array([1], pa.timestamp("ns")),
        ],
        ["2500-01-01 00:00:00.000000", "1970-01-01 00:00:00.000000001"],
    ),
    "s, us": ([pa.array([NOON], pa.timestamp("s")), pa.array([NOON], pa.timestamp("us"))],
              [NOON, NOON]),
    "date, timestamp": (
        [pa.array([NOON.date()]), pa.array([NOON], pa.timestamp("s"))],
        ["2026-01-01", "2026-01-01 12:00:00"],
    ),
    "list, string": ([pa.array([["a", "é"], None]), pa.array(["b"])], ['["a", "é"]', None, "b"]),
    "list of ints, list of strings": (
        [pa.array([[1, None], []]), pa.array([["b"], None])],
        [["1", None], [], ["b"], None],
    ),
    "bytes, string": ([pa.array([b"\xff"]), pa.array(["é"])], [b"\xff", "é".encode()]),
    "bytes, int": ([pa.array([b"\xff"]), pa.array([5])], [b"\xff", b"5"]),
    "bytes of two widths": (
        [pa.array([b"ab"], pa.binary(2)), pa.array([b"c"], pa.binary(1))],
        [b"ab", b"c"],
    ),
    "structs of other fields": (
        [pa.array([{"a": 1}]), pa.array([{"b": "x", "a": 0.5}, None])],
        [{"a": "1", "b": None}, {"a": "0.5", "b": "x"}, None],
    ),
    "struct, int": ([pa.array([{"a": 1}]), pa.array([5])], ['{"a": 1}', "5"]),
    "decimal, int": (
        [pa.array([Decimal("0.25")]), pa.array([2**63 - 1])],
        [Decimal("0.25"), Decimal(2**63 - 1)],
    ),
    "decimal, double": ([pa.array([Decimal("0.25")]), pa.array([1e300])], ["0.25", "1e+300"]),
    "string, large_string": (
        [pa.array(["a"]), pa.array(["b"], pa.large_string())],
        ["a", "b"],
    ),
    "null, list": ([pa.nulls(2), pa.array([[1]])], [None, None, "[1]"]),
    "maps": (
        [
            pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
            pa.array([[("b", 0.5)], None], pa.map_(pa.string(), pa.float64())),
        ],
        [[("a", "1")], [("b", "0.5")], None],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TWO_TYPES)
@pytest.mark.parametrize("backwards", [False, True])
def test_one_type_holds_the_values_of_all_files(case: str, backwards: bool) -> None:
    columns, expected = TWO_TYPES[case]
    if backwards:
        sizes = [len(column) for column in columns]
        columns = columns[::-1]
        expected = expected[sizes[0] :] + expected[: sizes[0]]
    _, values, skipped = carry(*columns)
    assert [_same(v) for v in values] == [_same(v) for v in expected]
    assert not skipped


def _same(value: Any) -> Any:
    """Field order apart, which follows the order of the files."""
    return sorted(value.items()) if isinstance(value, dict) else value


UUID = uuid.UUID(int=5)
ODD: dict[str, tuple[pa.Array, list[Any]]] = {
    "struct of uuid": (
        pa.StructArray.from_arrays([pa.array([UUID.bytes], pa.uuid())], ["u"]),
        [{"u": UUID.bytes}],
    ),
    "list of json": (
        pa.ListArray.from_arrays([0, 1], pa.ExtensionArray.from_storage(
            pa.json_(), pa.array(['{"a": 1}']))),
        [['{"a": 1}']],
    ),
    "list of views": (pa.array([["a", None], None], pa.list_(pa.string_view())),
                      [["a", None], None]),
    "list view": (pa.array([["a"], None], pa.list_view(pa.string())), [["a"], None]),
    "list view whose last is no null": (
        pa.array([None, ["a"], [], ["b", None]], pa.list_view(pa.string())),
        [None, ["a"], [], ["b", None]],
    ),
    "large list view": (pa.array([[1], [2, 3]], pa.large_list_view(pa.int8())), [[1], [2, 3]]),
    "list of list views": (
        pa.array([[[1], [2]], [[3, 4]]], pa.list_(pa.list_view(pa.int8()))),
        [[[1], [2]], [[3, 4]]],
    ),
    "list view whose views overlap": (
        pa.ListViewArray.from_arrays([2, 0, 1], [1, 2, 2], pa.array([5, 6, 7])),
        [[7], [5, 6], [6, 7]],
    ),
    "fixed size list": (pa.array([["a", "b"], None], pa.list_(pa.string(), 2)),
                        [["a", "b"], None]),
    "list of dictionary": (
        pa.ListArray.from_arrays([0, 2, 2], pa.array(["a", "a"]).dictionary_encode()),
        [["a", "a"], []],
    ),
    "run lengths": (pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]), ["a", "a", "b"]),
    "empty struct": (pa.array([{}, None], pa.struct([])), ["{}", None]),
    "interval": (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), None),
    "union": (
        pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array("ab")]),
        ["1", '"b"'],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD)
def test_odd_types_are_carried_and_can_be_written(case: str, tmp_path: Path) -> None:
    column, expected = ODD[case]
    kind, values, skipped = carry(column)
    if expected is not None:
        assert values == expected
    assert not skipped
    table = pa.table({"x": pa.array(values, kind)})
    pq.write_table(table, tmp_path / "x.parquet")
    assert pq.read_table(tmp_path / "x.parquet")["x"].to_pylist() == values


def test_one_odd_value_costs_one_value() -> None:
    """Whatever is wrong with it: the batch's other values stay."""
    kind = pa.timestamp("us")
    stamps = pa.array([2**62, 5, None, 7], pa.timestamp("s"))
    skipped: Counter[str] = Counter()
    array = converted(stamps, kind, skipped)
    assert array.cast(pa.int64()).to_pylist() == [None, 5_000_000, None, 7_000_000]
    assert skipped == {"unconvertible_value": 1}
    skipped.clear()
    texts = in_bytes([b"a", b"\xff", None], pa.string())
    lists = pa.ListArray.from_arrays([0, 2, 3], texts)
    assert converted(lists, pa.list_(pa.string()), skipped).to_pylist() == [["a", None], [None]]
    assert skipped == {"undecodable_value": 1}
    skipped.clear()
    maps = pa.MapArray.from_arrays([0, 1, 2], texts[:2], pa.array([1, 2]))
    kind = pa.map_(pa.string(), pa.int64())
    assert converted(maps, kind, skipped).to_pylist() == [[("a", 1)], None]
    assert skipped == {"undecodable_value": 1}


VALUES = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
    st.lists(st.none() | st.integers(0, 2**64 - 1), min_size=1, max_size=4),
    st.lists(st.none() | st.floats(allow_nan=False), min_size=1, max_size=4),
    st.lists(st.none() | st.text(max_size=3), min_size=1, max_size=4),
    st.lists(st.none() | st.binary(max_size=3), min_size=1, max_size=4),
    st.lists(st.none() | st.booleans(), min_size=1, max_size=4),
    st.lists(st.none() | st.lists(st.integers(0, 9), max_size=2), min_size=1, max_size=4),
)


@settings(max_examples=150)
@given(st.lists(VALUES, min_size=1, max_size=4))
def test_no_value_is_lost_between_files(files: list[list[Any]]) -> None:
    """No null where there was none, and values that differ still differ (a property)."""
    columns = [
        pa.array(values, pa.uint64() if any(isinstance(v, int) and v >= 2**63 for v in values)
                 else None)
        for values in files
    ]  # fmt: skip
    kind, values, skipped = carry(*columns)
    given_values = [value for file in files for value in file]
    assert [v is None for v in values] == [v is None for v in given_values]
    assert not skipped
    for column, file in zip(columns, files, strict=True):
        own = converted(column, kind, Counter()).to_pylist()
        assert len(set(map(repr, own))) == len(set(map(repr, file)))


def test_curation_keeps_ids_that_differ_in_type_and_counts_what_it_loses(tmp_path: Path) -> None:
    """pandas makes doubles of ids with a gap; the rest of the batch must not pay for one value."""
    ids = list(range(2**60, 2**60 + 1000))
    urls = [f"http://a/{i}" for i in range(1000)]
    captions = ["a dog"] * 1000
    texts = in_bytes([b"\xff", *[b"ok"] * 999], pa.string())
    pool = tmp_path / "pool"
    pool.mkdir()
    one = {"url": urls, "caption": captions, "hash": ids, "note": texts}
    pq.write_table(pa.table(one), pool / "a.parquet")
    two = {"url": [f"{u}?" for u in urls], "caption": captions, "hash": [0.5, *[None] * 999]}
    pq.write_table(pa.table(two), pool / "b.parquet")
    card = curate(str(pool), make_metadata(["dog"]), str(tmp_path / "run"), t=float("inf"),
                  report=False, workers=1)  # fmt: skip
    table = pq.read_table(tmp_path / "run/curated")
    assert table["hash"].to_pylist() == [*map(str, ids), "0.5", *[None] * 999]
    assert table["note"].null_count == 1001
    assert card["kept"]["values_lost"] == {"undecodable_value": 1}
    written = json.loads((tmp_path / "run/datacard.json").read_text())
    assert written["kept"]["values_lost"] == {"undecodable_value": 1}


def test_balance_counts_the_same_whatever_the_units(tmp_path: Path) -> None:
    texts = in_bytes([b"\xff", b"ok"] * 50, pa.string())
    table = pa.table({"url": [f"http://a/{i}" for i in range(100)], "text": texts, "n": texts})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    for rows in (10, 1000):
        skipped: Counter[str] = Counter()
        for unit in open_pool([str(tmp_path)], PoolConfig(rows_per_unit=rows)).units:
            for _ in read_columns(unit, skipped=skipped):
                pass
        assert skipped == {"undecodable_value": 50}


def test_a_day_that_no_calendar_has_costs_its_value() -> None:
    days = pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32())
    values = pa.StructArray.from_arrays([days], ["day"])
    skipped: Counter[str] = Counter()
    assert [_json_text(value, skipped) for value in values] == ['{"day": "1970-01-01"}', None]
    assert skipped == {"unconvertible_value": 1}
