"""JSON lines and arrays: an odd value costs itself, an odd line one line."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacurate.formats import files, jsontext
from metacurate.metadata.store import make_metadata
from metacurate.pipeline import curate
from metacurate.pool.open import open_pool
from metacurate.pool.read import read_columns, read_unit
from metacurate.pool.schema import PoolConfig

FIRST = {"url": "http://first", "text": "a"}


def carried(path: Path, config: PoolConfig | None = None) -> tuple[list[dict[str, Any]], Any]:
    skipped: Counter[str] = Counter()
    rows = []
    for unit in open_pool([str(path)], config or PoolConfig()).units:
        for _, batch in read_columns(unit, skipped=skipped):
            batch.validate(full=True)
            rows += batch.to_pylist()
    return rows, skipped


def write_lines(path: Path, values: list[Any], name: str = "v") -> Path:
    rows = [{"url": f"http://{i}", "text": "a", name: v} for i, v in enumerate(values)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


COLUMNS: dict[str, tuple[list[Any], list[Any]]] = {
    "int, uint64": ([5, 2**64 - 1], [5, 2**64 - 1]),
    "int, larger": ([5, 2**64], ["5", str(2**64)]),
    "negative, uint64": ([-5, 2**64 - 1], ["-5", str(2**64 - 1)]),
    "int, text": ([5, "a7"], ["5", "a7"]),
    "int, bool": ([1, True], ["1", "true"]),
    "int, double": ([1, 0.5], [1.0, 0.5]),
    "large int, double": ([2**53 + 1, 0.5], [str(2**53 + 1), "0.5"]),
    "text, list": (["a", ["b"]], ["a", '["b"]']),
    "list of text, of int": ([["a"], [5]], [["a"], ["5"]]),
    "empty object": ([{}, {}], ["{}", "{}"]),
    "list of empty objects": ([[{}], []], [["{}"], []]),
    "objects of other fields": ([{"a": 1}, {"b": "x"}], [{"a": 1, "b": None},
                                                        {"a": None, "b": "x"}]),
    "empty list, null": ([[], None], [[], None]),
    "many fields": ([{str(i): i for i in range(200)}], [json.dumps({str(i): i
                                                                   for i in range(200)})]),
    "unprintable field": ([{"a\x00": 1}], ['{"a\\u0000": 1}']),
}  # fmt: skip


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_hold_all_their_values(tmp_path: Path, case: str) -> None:
    values, expected = COLUMNS[case]
    rows, skipped = carried(write_lines(tmp_path / "a.jsonl", values))
    assert [row["v"] for row in rows] == expected
    assert not skipped


LATER: dict[str, tuple[Any, Any, Any, int]] = {
    # the value of the file's head; a later one; what becomes of it; how many values it costs
    "int, text": (5, "a", None, 1),
    "int, uint64": (5, 2**64 - 1, None, 1),
    "int, whole double": (5, 6.0, 6, 0),
    "int, double": (5, 6.5, None, 1),
    "double, int": (0.5, 6, 6.0, 0),
    "text, int": ("a", 5, "5", 0),
    "list, its item": (["a"], "b", None, 1),
    "list, odd item": ([1], [1, "b", 2], [1, None, 2], 1),
    "object, odd field": ({"a": 1, "b": 2}, {"a": "x", "b": 2}, {"a": None, "b": 2}, 1),
    "bool, int": (True, 1, None, 1),
}


@pytest.mark.parametrize("case", LATER)
def test_one_odd_value_costs_one_value(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (files, jsontext):
        monkeypatch.setattr(module, "HEAD_BYTES", 1 << 14)
    first, later, expected, lost = LATER[case]
    count = 2000
    path = write_lines(tmp_path / "a.jsonl", [*[first] * count, later, first])
    assert path.stat().st_size > 4 * jsontext.HEAD_BYTES
    rows, skipped = carried(path)
    assert [row["v"] for row in rows] == [*[first] * count, expected, first]
    assert skipped == ({"unconvertible_value": lost} if lost else {})


def test_an_odd_text_costs_one_text(tmp_path: Path) -> None:
    """In a column of texts a number is no text."""
    lines = [{"url": f"http://{i}", "texts": ["a dog", "b"]} for i in range(40_000)]
    lines[3]["texts"] = [5, "b"]  # type: ignore[list-item]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    skipped: Counter[str] = Counter()
    texts: list[Any] = []
    for unit in open_pool([str(path)], PoolConfig()).units:
        for batch in read_unit(unit, all_columns=False, skipped=skipped):
            texts += batch.texts.to_pylist()
    assert texts == [*["a dog", "b"] * 3, None, "b", *["a dog", "b"] * 39_996]
    assert skipped == {"unconvertible_value": 1}


@pytest.mark.parametrize("depth", [1, 15, 16, 17, 100, 500])
@pytest.mark.parametrize("inner", [{}, 1, "x"])
def test_nested_values_reach_the_subset(tmp_path: Path, depth: int, inner: Any) -> None:
    """Deep or empty values are text, not an error after the whole pool was matched."""
    value = inner
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    path = write_lines(tmp_path / "a.jsonl", [value])
    curate(str(path), make_metadata(["a"]), str(tmp_path / "run"), t=1, report=False, workers=1)
    [kept] = pq.read_table(tmp_path / "run/curated").to_pylist()
    got = kept["v"]
    while got != inner:  # of what is nested too deep, the text
        if isinstance(got, str):
            got = json.loads(got)
        else:
            got = got[0] if isinstance(got, list) else got["a"]


ODD_LINES = [
    b"null", b"{}\nnull",
    b'{"url": "u", "v": 1}{"url": "w"}', b'{"url": "u",', b'{"url": "u"', b"[]", b"1", b"null",
    b'"u"', b"{}", b'{"url": 1}', b'{"url": "a", "url": "b"}', b'{"url": "u", "v": 01}',
    b'{"url": "u", "v": 1.}', b'{"url": "u", "v": -}', b'{"url": "u", "v": +1}',
    b'{"url": "u", "v": NaN}', b'{"url": "u", "v": Infinity}', b'{"url": "u", "v": 1e400}',
    b'{"url": "u", "v": 1e2}', b'{"url": "u", "v": -0}', b'{"url": "u", "v": ' + b"9" * 5000 + b"}",
    b'{"url": "u",}', b'{,"url": "u"}', b'{"url" "u"}', b"{url: 1}", b"{'url': 'u'}",
    b'{"url": "u"} x', b'{"url": "u"}, ', b'{"url": "\\ud800"}', b'{"url": "\\ud834\\udd1e"}',
    b'{"url": "\\x"}', b'{"url": "\\u12"}', b'{"url": "a\tb"}', b'{"url": "a\x00b"}',
    b'{"url": "\\u0000"}', b'{"url": "\xff"}', b'{"url": "\xed\xa0\x80"}', b"\xef\xbb\xbf{}",
    b'{"url": "u", "v": tru}', b'{"url": "u", "v": true}', b'{"url": "u", "v": "1"}',
    b'{"url": "u", "w": {"a": [1, {}]}}', b'{"": 1}', b'{"url": null, "v": null}', b"\x00", b"{",
    b'{"url": "u" /* c */}', b"// c", b'{"url": "u"}#', b'{"url": "u", "v": 0x1}', b'{"a": "\\',
    b'  {"url": "u"}  ', b'\t{"url" : "u" , "v" : 2 }\r', b"\x0c", b"\xc2\xa0{}",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["int64", "double", "string", "bool"])
@pytest.mark.parametrize("line", ODD_LINES)
def test_both_ways_of_parsing_agree(line: bytes, kind: str) -> None:
    """A line that Arrow takes has the meaning that it has for Python's json."""
    schema = pa.schema([("url", pa.string()), ("v", pa.type_for_alias(kind))])
    counts: list[Counter[str]] = [Counter(), Counter()]
    fast = jsontext.parse(line + b"\n", schema, counts[0])
    slow = jsontext.to_batch(jsontext.objects(line + b"\n", counts[1]), schema, counts[1])
    assert _plain(fast) == _plain(slow)
    assert counts[0] == counts[1]


def _plain(batch: Any) -> list[Any]:
    urls = batch.column("url").cast(pa.binary()).to_pylist()
    return [
        urls,
        [repr(v + 0.0 if isinstance(v, float) else v) for v in batch.column("v").to_pylist()],
    ]


ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(["url", "text", "v", "w"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=2), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=300)
@given(ROWS, ROWS)
def test_any_rows_fit_any_schema(sample: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """What the schema was inferred from loses nothing; other rows' odd values are counted nulls."""
    schema = jsontext.infer_schema(sample)
    skipped: Counter[str] = Counter()
    jsontext.to_batch(sample, schema, skipped).validate(full=True)
    assert not skipped["unconvertible_value"]
    batch = jsontext.to_batch(rows, schema, skipped)
    batch.validate()
    if not schema.names:
        return
    assert batch.num_rows == len(rows)
    for name in schema.names:
        nulls = sum(row.get(name) is None for row in rows)
        lost = batch.column(name).null_count - nulls
        assert 0 <= lost <= skipped["unconvertible_value"] + skipped["undecodable_value"]


# Arrays.


ARRAY = [{"url": f"http://{i}", "text": f"text {i} é", "n": i} for i in range(3000)]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_an_array_is_read_as_its_lines(
    tmp_path: Path, indent: int | None, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("\ufeff " + json.dumps(ARRAY, indent=indent, ensure_ascii=False) + "\n")
    assert carried(path) == (ARRAY, {})
    monkeypatch.setattr(jsontext, "HEAD_BYTES", 1001)  # pieces cut where they may
    assert carried(path) == (ARRAY, {})


BROKEN: dict[str, tuple[str, int, dict[str, int]]] = {
    "cut": (json.dumps(ARRAY)[:-500], 2990, {"unreadable_rest": 1}),
    "no element": ('[{"url": "a", "text": "b"}, 5, null, {"url": "c", "text": "d"}]', 2,
                   {"malformed_row": 2}),
    "no JSON": ('[{"url": "a", "text": "b"}, {x}, {"url": "c", "text": "d"}]', 1,
                {"unreadable_rest": 1}),
    "another array": ('[{"url": "a", "text": "b"}]\n[]\n[{"url": "c", "text": "d"}]\n', 2, {}),
    "more behind it": ('[{"url": "a", "text": "b"}]\n</pre>', 1, {"unreadable_rest": 1}),
    "closed twice": ('[{"url": "a", "text": "b"}]]', 1, {"unreadable_rest": 1}),
    "deep": ('[{"url": "a", "text": "b"}, ' + "[" * 100_000 + "]" * 100_000 + "]", 1,
             {"unreadable_rest": 1}),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_arrays_are_read_up_to_there(tmp_path: Path, case: str) -> None:
    text, count, lost = BROKEN[case]
    path = tmp_path / "a.json"
    path.write_text(text)
    rows, skipped = carried(path)
    assert count - 2 <= len(rows) <= count + 2 if case == "cut" else len(rows) == count
    assert skipped == lost


def test_json_beside_other_tables_is_about_them(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [1])
    (tmp_path / "stats.json").write_text('{"count": 5}')
    pool = open_pool([str(tmp_path)], PoolConfig())
    assert not pool.bad_files
    assert pool.ignored == 1
    (tmp_path / "a.jsonl").rename(tmp_path / "a.json")
    (tmp_path / "stats.json").unlink()
    assert len(open_pool([str(tmp_path)], PoolConfig()).units) == 1


# Objects {uuid: texts}, as MetaCLIP's scripts since version 1.2 write them.


def digest(number: int) -> str:
    return f"{number:024x}"


def text(source: str | None, said: str | None, lang: str | None) -> dict[str, str | None]:
    return {"source": source, "text": said, "lang": lang}


NAMED: dict[str, tuple[Any, list[Any]]] = {
    "parsed": ([["alt", "a cat", "en"], ["title", "Katze"]],
               [text("alt", "a cat", "en"), text("title", "Katze", None)]),
    "matched": ([["a cat", "en", [3, 9]], ["nothing", "de", []]],
                [text(None, "a cat", "en"), text(None, "nothing", "de")]),
    "curated": (["a cat é", "en", [3]], [text(None, "a cat é", "en")]),
    "with probabilities": ([["a cat", 0.25], ["a \" dog", 1]],
                           [text(None, "a cat", None), text(None, 'a " dog', None)]),
    "synthetic": ("a \"cat\" é", [text(None, 'a "cat" é', None)]),
    "short": ([["alt"], []], [text(None, None, None)] * 2),
    "without texts": ([], []),
}  # fmt: skip


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("case", NAMED)
def test_an_object_of_uuids_has_a_row_a_member(
    tmp_path: Path, case: str, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, texts = NAMED[case]
    members = {digest(n): given for n in range(500)}
    path = tmp_path / "0.json"
    path.write_text(json.dumps(members, indent=indent, ensure_ascii=False) + "\n")
    expected = [{"uuid": name, "texts": texts} for name in members]
    assert carried(path) == (expected, {})
    monkeypatch.setattr(jsontext, "HEAD_BYTES", 101)
    assert carried(path) == (expected, {})


@pytest.mark.parametrize(
    ("rest", "lost"),
    [
        (f', "{digest(1)}": 5, "{digest(2)}": null}}', {"malformed_row": 2}),
        (f', "{digest(1)}": [["alt", "a', {"unreadable_rest": 1}),
        (f', "{digest(1)}" 7}}', {"unreadable_rest": 1}),
        (f', "{digest(1)}": {"[" * 100_000}', {"unreadable_rest": 1}),
    ],
    ids=["no texts", "cut", "no colon", "deep"],
)
def test_broken_objects_are_read_up_to_there(
    tmp_path: Path, rest: str, lost: dict[str, int]
) -> None:
    path = tmp_path / "0.json"
    path.write_text(f'{{"{digest(0)}": [["alt", "a cat"]]' + rest)
    rows, skipped = carried(path)
    assert rows == [{"uuid": digest(0), "texts": [text("alt", "a cat", None)]}]
    assert skipped == lost


def test_lines_that_begin_with_a_list_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"texts": ["a cat"], "url": "http://1"}\n{"texts": ["b"], "url": "http://2"}\n'
    )
    assert [row["url"] for row in carried(path)[0]] == ["http://1", "http://2"]


ROWS = {
    "one row": [{digest(1): "x", "url": "http://1", "text": "a"}],
    "one row, a list first": [{digest(1): ["x"], "url": "http://1", "text": "a"}],
    "two rows": [{digest(1): "x", "url": f"http://{n}", "text": "a"} for n in range(2)],
    "two rows of digests": [{digest(1): f"http://{n}", digest(2): "a"} for n in range(2)],
    "names of several lengths": [{digest(1): "http://1", "f" * 32: "a"}],
    "a row, then another": [{digest(1): "http://1"}, {"text": "a"}],
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_whose_first_name_is_a_digest_are_rows(tmp_path: Path, case: str) -> None:
    """One object, of which the names are digests of one length, is names and texts; no other is."""
    rows = ROWS[case]
    path = tmp_path / "a.json"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    urls = {name for row in rows for name, value in row.items() if "http" in value}
    names = {name for row in rows for name in row}
    columns = PoolConfig(url_col=min(urls), text_cols=(max(names - urls),))
    assert carried(path, columns) == ([{name: row.get(name) for name in names} for row in rows], {})


def test_names_beyond_the_sample_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample that ends anywhere, also within a name or a character."""
    members = {digest(n): [["alt", "é"]] for n in range(3)}
    path = tmp_path / "0.json"
    path.write_text(json.dumps(members, ensure_ascii=False))
    for size in range(40, path.stat().st_size + 2):
        monkeypatch.setattr(files, "HEAD_BYTES", size)
        assert [row["uuid"] for row in carried(path)[0]] == list(members), size
