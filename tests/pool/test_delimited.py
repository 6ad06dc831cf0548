"""CSV and TSV as others write them: every row is kept or counted, whatever its quotation marks."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pandas
import polars
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metacurate.errors import UserError
from metacurate.formats import delimited
from metacurate.pool.open import open_pool
from metacurate.pool.read import read_columns
from metacurate.pool.schema import PoolConfig

HEADER = ["url", "caption"]


def read(path: Path) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    skipped: Counter[str] = Counter()
    rows: list[tuple[str, ...]] = []
    for unit in open_pool([str(path)], PoolConfig()).units:
        for first, batch in read_columns(unit, skipped=skipped):
            assert first == len(rows)
            rows += [tuple(row.values()) for row in batch.to_pylist()]
    return rows, {reason: n for reason, n in skipped.items() if n}


def urls(count: int) -> list[str]:
    return [f"http://a/{i}.jpg" for i in range(count)]


LONE: dict[str, tuple[str, str]] = {
    "never closed": ('"a dog', '"a dog'),
    "closed too early": ('"a" dog', '"a" dog'),
    "closed by another's mark": ('"a 5', '"a 5'),
    "only a mark": ('"', '"'),
    "two": ('""a', '""a'),
    "at the end": ('12"', '12"'),
    "inside": ('a "dog" b', 'a "dog" b'),
}


@pytest.mark.parametrize("case", LONE)
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("url_first", [True, False])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_lone_mark_costs_no_other_row(
    tmp_path: Path, case: str, suffix: str, url_first: bool, ends: str
) -> None:
    """Ten rows are ten rows, also if a later one has a mark at its end, or proper quotes."""
    written, value = LONE[case]
    delimiter = "\t" if suffix == ".tsv" else ","
    texts = [f"text {i}" for i in range(10)]
    texts[2] = written
    texts[5] = 'size 5"' if case == "closed by another's mark" else '"quoted ""well"""'
    pairs = [(u, t) if url_first else (t, u) for u, t in zip(urls(10), texts, strict=True)]
    header = HEADER if url_first else HEADER[::-1]
    lines = [delimiter.join(row) for row in [header, *pairs]]
    (tmp_path / f"a{suffix}").write_bytes(ends.join([*lines, ""]).encode())
    rows, skipped = read(tmp_path)
    texts[2] = value
    texts[5] = texts[5] if case == "closed by another's mark" else 'quoted "well"'
    assert [row[HEADER.index("caption") if url_first else 0] for row in rows] == texts
    assert not skipped


VALUES = st.text(st.sampled_from('ab",;\t\n\r\\ é\ufeff'), max_size=6)


@settings(max_examples=300)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]),
       st.booleans(), st.integers(20, 60), st.integers(0, 2))  # fmt: skip
@example([("\na", "\nb")], "\n", True, 60, 1)
@example([("\ufeffa", "b")], "\n", False, 60, 1)
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], ends: str,
    everything: bool, block: int, place: int,
) -> None:  # fmt: skip
    """Well quoted files, in blocks that end anywhere; ``place``: the URL's among the columns."""
    out = io.StringIO()
    quoting = csv.QUOTE_ALL if everything else csv.QUOTE_MINIMAL
    writer = csv.writer(out, lineterminator=ends, quoting=quoting)
    if ends == "\n" and not everything:  # the module leaves a lone return unquoted
        pairs = [(a.replace("\r", ""), b.replace("\r", "")) for a, b in pairs]
    named = [("caption", "note"), *pairs]
    urls = ["url", *(f"http://a/{i}" for i in range(len(pairs)))]
    rows = [(*p[:place], url, *p[place:]) for url, p in zip(urls, named, strict=True)]
    writer.writerows(rows)
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(out.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "BLOCK_BYTES", block)
        found, skipped = read(path)
    if '\\"' in out.getvalue():
        return  # may be another dialect
    assert found == rows[1:]
    assert not skipped


@settings(max_examples=300)
@given(st.lists(st.text(st.sampled_from('ab"" x'), max_size=7), min_size=1, max_size=8),
       st.booleans())  # fmt: skip
def test_any_marks_cost_no_row(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], url_first: bool
) -> None:
    """Texts written as they are, without a delimiter or line end in them: a row a line."""
    pairs = list(zip(urls(len(texts)), texts, strict=True))
    lines = [HEADER, *pairs]
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_text("\n".join(",".join(line if url_first else line[::-1]) for line in lines))
    rows, skipped = read(path)
    expected = [
        (url, text[1:-1].replace('""', '"') if _well_quoted(text) else text) for url, text in pairs
    ]
    assert rows == [row if url_first else row[::-1] for row in expected]
    assert not skipped


def _well_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1].replace('""', "")


TRICKY = ['say "hi", twice', "two\nlines", "a\r\nb", "back\\slash", "", 'end"', '"begin', "é\ttab"]


def frame() -> dict[str, Any]:
    return {"url": urls(len(TRICKY)), "caption": TRICKY}


def by_pandas(path: Path, **options: Any) -> None:
    pandas.DataFrame(frame()).to_csv(path, index=False, **options)


WRITERS = {
    "pandas": by_pandas,
    "pandas, all quoted": lambda path: by_pandas(path, quoting=csv.QUOTE_ALL),
    "pandas, backslashes": lambda path: by_pandas(path, doublequote=False, escapechar="\\",
                                                  quoting=csv.QUOTE_ALL),
    "pandas, semicolons": lambda path: by_pandas(path, sep=";"),
    "pandas, bars": lambda path: by_pandas(path, sep="|"),
    "polars": lambda path: polars.DataFrame(frame()).write_csv(path),
    "polars, always quoted": lambda path: polars.DataFrame(frame()).write_csv(
        path, quote_style="always"),
    "duckdb": lambda path: duckdb.from_arrow(polars.DataFrame(frame()).to_arrow()).write_csv(
        str(path)),
}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
def test_files_of_other_libraries(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "a.csv"
    WRITERS[writer](path)
    rows, skipped = read(path)
    assert rows == list(zip(urls(len(TRICKY)), TRICKY, strict=True))
    assert not skipped


def test_marks_with_a_backslash_before_them(tmp_path: Path) -> None:
    """As Spark and MySQL write them."""
    text = b'url,caption\n"http://a","say \\"hi\\", twice"\n"http://b","5\\" wide"\n'
    (tmp_path / "a.csv").write_bytes(text)
    rows, skipped = read(tmp_path)
    assert [row[1] for row in rows] == ['say "hi", twice', '5" wide']
    assert not skipped


@pytest.mark.parametrize("before", range(-3, 4))
def test_line_ends_in_values_at_the_ends_of_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Arrow loses the line feed of a CRLF in quotes that begins a block."""
    block = 1 << 16
    monkeypatch.setattr(delimited, "BLOCK_BYTES", block)
    start = 'url,caption\nhttp://a,"'
    text = "x" * (block - len(start) - 1 + before) + "\r\n" + "y"
    (tmp_path / "a.csv").write_bytes(f'{start}{text}"\r\nhttp://b,z\r\n'.encode())
    assert read(tmp_path) == ([("http://a", text), ("http://b", "z")], {})


def test_carriage_returns_end_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"url,caption\rhttp://a,one\rhttp://b,two\r")
    assert read(tmp_path) == ([("http://a", "one"), ("http://b", "two")], {})


def test_rows_longer_than_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1 << 10)
    monkeypatch.setattr(delimited, "MAX_ROW_BYTES", 1 << 15)
    long = "two\nlines " * 1000
    lines = [f'http://a,"{long}"', "http://b,z"]
    (tmp_path / "a.csv").write_text("\n".join(["url,caption", *lines]))
    assert read(tmp_path) == ([("http://a", long), ("http://b", "z")], {})
    # A mark that is never closed is a character, once so much follows that it must be.
    lines = ['http://a,"open', *(f"http://a/{i},text" for i in range(5000))]
    (tmp_path / "a.csv").write_text("\n".join(["url,caption", *lines]))
    rows, skipped = read(tmp_path)
    assert rows[0] == ("http://a", '"open')
    assert len(rows) == 5001
    assert not skipped
    (tmp_path / "a.csv").write_text("url,caption\nhttp://a," + "x" * 100_000)
    assert read(tmp_path) == ([], {"unreadable_rest": 1})


def test_a_missing_column_is_named_with_its_header(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("link;text;title\nhttp://a;b;c\n")
    with pytest.raises(UserError, match=r"text, title; choose with text_cols"):
        open_pool([str(tmp_path)], PoolConfig())
    (tmp_path / "a.csv").write_text("address;words\na;b\n")
    with pytest.raises(UserError, match=r"it has address, words"):
        open_pool([str(tmp_path)], PoolConfig())
