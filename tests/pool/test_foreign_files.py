"""Files as other libraries write them, and folders as people keep them."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import os
import re
import socket
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.cffi
import pyarrow.feather
import pyarrow.parquet as pq
import pyarrow.parquet.encryption
import pytest

from metacurate.errors import UserError
from metacurate.metadata.store import make_metadata
from metacurate.pipeline import curate
from metacurate.pool.open import Pool, open_pool
from metacurate.pool.read import read_columns, read_uids, read_unit
from metacurate.pool.schema import UID_TYPE, PoolConfig
from metacurate.pool.uid import key_uid, url_uid

URLS = [f"http://a/{i}" for i in range(3)]
TEXTS = ["a dog", None, "a é cat"]


def pool_of(path: Path, config: PoolConfig | None = None) -> Pool:
    return open_pool([str(path)], config or PoolConfig())


def read(pool: Pool) -> tuple[list[Any], list[list[Any]], list[dict[str, Any]], dict[str, int]]:
    """Uids, texts, own columns, losses."""
    skipped: Counter[str] = Counter()
    uids: list[Any] = []
    texts: list[list[Any]] = []
    rows: list[dict[str, Any]] = []
    for unit in pool.units:
        for batch in read_unit(unit, all_columns=True, skipped=skipped):
            assert batch.columns is not None
            batch.columns.validate(full=True)
            uids += batch.uids.to_pylist()
            flat, offsets = batch.texts.to_pylist(), batch.text_offsets
            texts += [flat[offsets[i] : offsets[i + 1]] for i in range(batch.rows)]
            rows += batch.columns.to_pylist()
    return uids, texts, rows, {reason: n for reason, n in skipped.items() if n}


WRITERS: dict[str, Any] = {
    "a.parquet": lambda path, table: pq.write_table(table, path),
    "polars.parquet": lambda path, table: polars.from_arrow(table).write_parquet(path),
    "pandas.parquet": lambda path, table: table.to_pandas().to_parquet(path),
    "duckdb.parquet": lambda path, table: duckdb.from_arrow(table).write_parquet(str(path)),
    "a.feather": lambda path, table: pyarrow.feather.write_feather(table, path),
    "plain.feather": lambda path, table: pyarrow.feather.write_feather(
        table, path, compression="uncompressed"
    ),
    "polars.arrow": lambda path, table: polars.from_arrow(table).write_ipc(path),
    "stream.arrow": lambda path, table: polars.from_arrow(table).write_ipc_stream(path),
    "polars.jsonl": lambda path, table: polars.from_arrow(table).write_ndjson(path),
    "pandas.jsonl": lambda path, table: table.to_pandas().to_json(
        path, orient="records", lines=True
    ),
    "pandas.json": lambda path, table: table.to_pandas().to_json(path, orient="records"),
    "lines.json": lambda path, table: table.to_pandas().to_json(path, orient="records", lines=True),
    "array.json.gz": lambda path, table: path.write_bytes(
        gzip.compress(json.dumps(table.to_pylist()).encode())
    ),
    "lines.jsonl.bz2": lambda path, table: path.write_bytes(
        bz2.compress(b"".join(json.dumps(r).encode() + b"\n" for r in table.to_pylist()))
    ),
    "a.csv.bz2": lambda path, table: table.to_pandas().to_csv(path, index=False),
    "a.tsv.gz": lambda path, table: table.to_pandas().to_csv(path, index=False, sep="\t"),
    "duckdb.csv": lambda path, table: duckdb.from_arrow(table).write_csv(str(path)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    table = pa.table({"url": URLS, "caption": TEXTS, "n": [1, 2, 3]})
    WRITERS[name](tmp_path / name, table)
    uids, texts, rows, skipped = read(pool_of(tmp_path))
    assert uids == list(map(url_uid, URLS))
    empty = "" if ".csv" in name or ".tsv" in name else None  # these know no null
    assert texts == [["a dog"], [empty], ["a é cat"]]
    assert [str(row["n"]) for row in rows] == ["1", "2", "3"]
    assert skipped == {"no_text": 1}


def test_datasets_on_disk(tmp_path: Path) -> None:
    """Hugging Face's folder: Arrow streams, and JSON about them."""
    datasets.Dataset.from_dict({"url": URLS, "caption": TEXTS}).save_to_disk(str(tmp_path / "d"))
    pool = pool_of(tmp_path)
    assert not pool.bad_files
    assert read(pool)[0] == list(map(url_uid, URLS))


def test_damaged_arrow_files(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"url": [f"http://a/{i}" for i in range(4000)], "text": ["x"] * 4000})
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, 1000)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 5 // 8])
    uids, _, _, skipped = read(pool_of(path))
    assert len(uids) == 2000
    assert skipped == {"truncated_file": 1}
    path.write_bytes(b"no Arrow at all")
    with pytest.raises(UserError, match="no readable Arrow file"):
        pool_of(path)
    # Offsets that point outside cost the batch, not the process.
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\xff\xff\xff\x0f\1\0\0\0"),
                                      pa.py_buffer(b"ab"))  # fmt: skip
    good = pa.array(["http://a", "http://b"])
    for columns, lost in (
        ({"url": good, "text": bad, "n": good}, {"unreadable_row_group": 2}),
        ({"url": good, "text": good, "n": bad}, {"unreadable_value": 2}),
    ):
        batch = pa.record_batch(columns)
        with pa.ipc.new_file(path, batch.schema) as writer:
            writer.write_batch(batch)
        uids, _, _, skipped = read(pool_of(path))
        assert skipped == lost
        assert len(uids) == (2 if "unreadable_value" in lost else 0)


DUCKDB_COLUMNS = {
    "uuid": "uuid()", "list of uuid": "[uuid()]", "struct of json": "{'j': '{}'::JSON}",
    "map": "map(['a'], [uuid()])", "interval": "interval 3 days",
    "hugeint": "170141183460469231731687303715884105727::HUGEINT",
    "bit": "'101'::BIT", "time": "time '12:00'", "timestamptz": "now()", "enum": "'a'::ENUM('a')",
    "blob": "'\\xff'::BLOB", "decimal": "1.5::DECIMAL(38, 10)", "array": "[1, 2]::INT[2]",
    "nested": "[{'a': [map(['k'], [1])]}]", "uhugeint": "1::UHUGEINT", "null": "NULL",
}  # fmt: skip


@pytest.mark.parametrize("case", DUCKDB_COLUMNS)
def test_any_column_of_duckdb_reaches_the_subset(tmp_path: Path, case: str) -> None:
    pairs = "'http://a/' || i AS url, 'a dog' AS text"
    sql = f"SELECT {pairs}, {DUCKDB_COLUMNS[case]} AS v FROM range(3) t(i)"
    duckdb.sql(sql).write_parquet(str(tmp_path / "a.parquet"))
    check_reaches_the_subset(tmp_path)


POLARS_COLUMNS: dict[str, Any] = {
    "int128": polars.Series([2**100] * 3, dtype=polars.Int128),
    "categorical": polars.Series(["a"] * 3, dtype=polars.Categorical),
    "enum": polars.Series(["a"] * 3, dtype=polars.Enum(["a"])),
    "array": polars.Series([[1, 2]] * 3, dtype=polars.Array(polars.Int8, 2)),
    "duration": polars.Series([5] * 3, dtype=polars.Duration("ns")),
    "time": polars.Series([None] * 3, dtype=polars.Time),
    "decimal": polars.Series(["1.5"] * 3).cast(polars.Decimal(38, 5)),
    "struct": polars.Series([{"a": [b"\xff"]}] * 3),
    "null": polars.Series([None] * 3),
}


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("case", POLARS_COLUMNS)
def test_any_column_of_polars_reaches_the_subset(tmp_path: Path, case: str, suffix: str) -> None:
    frame = polars.DataFrame({"url": URLS, "text": ["a dog"] * 3, "v": POLARS_COLUMNS[case]})
    path = tmp_path / f"a{suffix}"
    (frame.write_parquet if suffix == ".parquet" else frame.write_ipc)(path)
    if case == "int128" and suffix == ".arrow":  # this Arrow cannot read the file at all
        with pytest.raises(UserError, match="64 bits"):
            pool_of(path)
        return
    check_reaches_the_subset(tmp_path)


def check_reaches_the_subset(folder: Path) -> None:
    files = sorted(map(str, folder.iterdir()))
    card = curate(files, make_metadata(["dog"]), str(folder / "_run"), t=10, report=False,
                  workers=1)  # fmt: skip
    assert card["kept"]["pairs"] == 3
    table = pq.read_table(folder / "_run/curated")
    table.validate(full=True)
    assert "v" in table.column_names
    assert not card["kept"]["values_lost"]


def test_needed_columns_of_odd_types(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=i) for i in range(3)]
    keys = pa.array([i.bytes for i in ids], pa.uuid())
    texts = pa.array([["a", "b"], None, ["c", None]], pa.list_(pa.string(), 2))
    pq.write_table(pa.table({"key": keys, "texts": texts}), tmp_path / "a.parquet")
    uids, got, _, _ = read(pool_of(tmp_path))
    assert uids == [i.bytes for i in ids]
    assert got == [["a", "b"], [], ["c", None]]
    text = pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', "b", None]))
    pq.write_table(pa.table({"url": URLS, "text": text}), tmp_path / "a.parquet")
    assert read(pool_of(tmp_path))[1] == [['{"a": 1}'], ["b"], [None]]


def test_texts_that_pandas_has_none_of(tmp_path: Path) -> None:
    """A column without a text has the type double; it is not a reason to leave the file out."""
    nan = pa.array([float("nan")] * 3)
    pq.write_table(pa.table({"url": URLS, "text": nan}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"url": URLS, "text": TEXTS}), tmp_path / "b.parquet")
    _, texts, rows, skipped = read(pool_of(tmp_path))
    assert texts == [[None]] * 3 + [[text] for text in TEXTS]
    assert [row["text"] for row in rows] == [None] * 3 + TEXTS
    assert skipped == {"no_text": 4}
    pq.write_table(pa.table({"url": URLS, "text": [0.5, 1, 2]}), tmp_path / "a.parquet")
    assert "not text" in dict(pool_of(tmp_path).bad_files)[str(tmp_path / "a.parquet")]


@pytest.mark.parametrize("score", [[0.5, None, 0.25], [None, None, None], [float("nan")] * 3])
def test_floats_whose_writer_gives_no_limits(tmp_path: Path, score: list[Any]) -> None:
    frame = polars.DataFrame({"url": URLS, "text": TEXTS, "score": score}).with_columns(
        score32=polars.col("score").cast(polars.Float32)
    )
    limits = {"min": False, "max": False, "null_count": True, "distinct_count": False}
    frame.write_parquet(tmp_path / "a.parquet", statistics=limits, row_group_size=2)

    _, _, rows, skipped = read(pool_of(tmp_path))

    whole = score[0] == 0.5
    for name in ("score", "score32"):
        assert [row[name] for row in rows] == (score if whole else [None] * 3)
    assert skipped == {"no_text": 1}


def test_a_column_that_is_not_needed_never_costs_the_file(tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array(URLS), pa.array([1, 2, 3]), pa.array(TEXTS), pa.array([4, 5, 6])],
        ["url", "n", "text", "n"],
    )
    pq.write_table(table, tmp_path / "a.parquet")
    pool = pool_of(tmp_path)
    assert "columns 'n' left out" in pool.describe()
    assert [list(row) for row in read(pool)[2]] == [["url", "text"]] * 3
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "a.csv").write_text("url,n,text,n\nhttp://a,1,x,2\n")
    assert read(pool_of(tmp_path))[2] == [{"url": "http://a", "text": "x"}]
    (tmp_path / "a.csv").write_text("url,text,url\nhttp://a,1,x\n")
    with pytest.raises(UserError, match="several columns named 'url'"):
        pool_of(tmp_path)


def test_own_columns_with_the_names_of_curations(tmp_path: Path) -> None:
    own = {"uid": ["cat_01", "cat_02", "cat_03"], "matched": [1, 2, 3], "text_kept": ["x"] * 3,
           "keep_prob": [0.5] * 3, "input_matched": ["taken"] * 3}  # fmt: skip
    pool = tmp_path / "pool"
    pool.mkdir()
    pq.write_table(pa.table({"url": URLS, "text": ["a dog"] * 3, **own}), pool / "a.parquet")
    assert "own 'uid' carried as 'input_uid'" in pool_of(pool).describe()
    curate(str(pool), make_metadata(["dog"]), str(tmp_path / "run"), t=9, report=False, workers=1)
    table = pq.read_table(tmp_path / "run/curated")
    assert table["uid"].to_pylist() == [key_uid(key) for key in own["uid"]]
    assert table["input_uid"].to_pylist() == own["uid"]
    assert table["input_input_matched"].to_pylist() == own["matched"]
    assert table["input_matched"].to_pylist() == own["input_matched"]
    assert table["input_text_kept"].to_pylist() == own["text_kept"]
    # A canonical uid is that of the subset: it is not there twice.
    uids = pa.array([bytes([i]) * 16 for i in range(3)], UID_TYPE)
    pq.write_table(pa.table({"uid": uids, "text": ["a dog"] * 3}), pool / "a.parquet")
    curate(str(pool), make_metadata(["dog"]), str(tmp_path / "b"), t=9, report=False, workers=1)
    table = pq.read_table(tmp_path / "b/curated")
    assert table.column_names == ["text", "uid", "matched", "text_kept", "keep_prob"]


def test_hive_folders_are_columns(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"url": URLS, "text": ["a dog"] * 3, "lang": ["en", "d/e", None]})
    frame.to_parquet(tmp_path / "pool", partition_cols=["lang"])
    pool = pool_of(tmp_path / "pool")
    assert "'lang' from the folder's name" in pool.describe()
    rows = read(pool)[2]
    assert {row["url"]: row["lang"] for row in rows} == dict(zip(URLS, ["en", "d/e", None],
                                                                 strict=True))  # fmt: skip


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    pq.write_table(pa.table({"url": URLS, "text": TEXTS}), pool / "a.parquet")
    os.mkfifo(pool / "pipe.csv")
    os.mkfifo(pool / "pipe.txt")
    (pool / "lost.csv").symlink_to(pool / "nowhere")
    os.symlink("/dev/zero", pool / "zero.jsonl")
    (pool / "linked.parquet").symlink_to(pool / "a.parquet")
    Path(os.fsdecode(os.fsencode(pool) + b"/caf\xe9.csv")).write_text("url,text\n")
    with socket.socket(socket.AF_UNIX) as listening:
        cwd = os.getcwd()
        os.chdir(pool)
        listening.bind("s.csv")
        os.chdir(cwd)
        found = pool_of(pool)
    assert len(found.units) == 2
    reasons = {os.path.basename(address): reason for address, reason in found.bad_files}
    assert set(reasons) == {"pipe.csv", "lost.csv", "zero.jsonl", "caf\\xe9.csv", "s.csv"}
    assert "is a pipe" in reasons["pipe.csv"]
    assert "link to nothing" in reasons["lost.csv"]
    assert "is a device" in reasons["zero.jsonl"]
    assert "not UTF-8" in reasons["caf\\xe9.csv"]
    assert "is a socket" in reasons["s.csv"]
    json.dumps(found.bad_files).encode()
    for name, message in (("pipe.csv", "is a pipe"), ("lost.csv", "link to nothing")):
        with pytest.raises(UserError, match=message):
            pool_of(pool / name)


def test_a_folder_of_img2dataset(tmp_path: Path) -> None:
    """Rows without an image are no pairs; the tars beside them are named with what reads them."""
    pool = tmp_path / "pool"
    pool.mkdir()
    status = ["success", "failed_to_download", None]
    table = {"url": URLS, "caption": ["a dog"] * 3, "key": ["0", "1", "2"], "status": status,
             "error_message": [None, "timeout", "x"], "width": [1, None, None]}  # fmt: skip
    pq.write_table(pa.table(table), pool / "00000.parquet")
    (pool / "00000.tar").write_bytes(bytes(10240))
    (pool / "00000_stats.json").write_text('{"count": 3}')
    found = pool_of(pool)
    assert not found.bad_files
    assert "2 files of other formats ignored ('metacurate pool ingest'" in found.describe()
    uids, _, _, skipped = read(found)
    assert uids == [url_uid(URLS[0]), None, None]
    assert skipped == {"no_image": 2}
    card = curate(str(pool), make_metadata(["dog"]), str(tmp_path / "run"), t=9, report=False,
                  workers=1)  # fmt: skip
    assert card["kept"]["pairs"] == 1
    assert card["pool"]["skipped"] == {"no_image": 2}
    counted: Counter[str] = Counter()
    [part] = read_uids(found.units[0], skipped=counted)
    assert part.to_pylist() == uids
    assert counted == {"no_image": 2}
    # A column of that name alone means nothing.
    del table["error_message"]
    pq.write_table(pa.table(table), pool / "00000.parquet")
    assert read(pool_of(pool))[3] == {}


def test_tars_and_images_have_a_hint(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(bytes(10240))
    for given in (tmp_path, tmp_path / "a.tar"):
        with pytest.raises(UserError, match="'metacurate pool ingest' makes a pool of"):
            pool_of(given)
    (tmp_path / "a.tar").rename(tmp_path / "cat.JPG")
    for given in (tmp_path, tmp_path / "cat.JPG"):
        with pytest.raises(UserError, match="pack them, then 'metacurate pool ingest'"):
            pool_of(given)


def test_the_folder_of_a_run_is_its_subset(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"url": "http://a", "text": "a dog"}))
    run = tmp_path / "run"
    curate(
        str(tmp_path / "a.jsonl"), make_metadata(["dog"]), str(run), t=9, report=False, workers=1
    )
    pool = pool_of(run)
    assert [unit.url for unit in pool.units] == [f"{run}/curated/part-000000.parquet"]
    assert not pool.bad_files
    skipped: Counter[str] = Counter()
    [(_, batch)] = read_columns(pool.units[0], skipped=skipped)
    assert "input_matched" in batch.schema.names


class Keys(pyarrow.parquet.encryption.KmsClient):  # type: ignore[misc]
    """Keeps no secrets."""

    def __init__(self, config: Any) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, name: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, wrapped: bytes, name: str) -> bytes:
        return base64.b64decode(wrapped)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("nested", [False, True])
def test_names_that_are_no_utf8_cost_the_file(tmp_path: Path, suffix: str, nested: bool) -> None:
    table = pa.table({"url": URLS, "text": TEXTS, "name": [{"other": 1}] * 3})
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path, store_schema=False)
    else:
        pyarrow.feather.write_feather(table, path, compression="uncompressed")
    name = b"other" if nested else b"name"
    path.write_bytes(path.read_bytes().replace(name, name[:-1] + b"\xff"))
    pq.write_table(table, tmp_path / "b.parquet")

    pool = pool_of(tmp_path)

    assert [(Path(a).name, "codec can't decode" in r) for a, r in pool.bad_files] == [
        (path.name, True)
    ]
    assert len(pool.units) == 1


@pytest.mark.parametrize("damage", ["type", "name"])
def test_a_chunk_that_is_not_its_columns(tmp_path: Path, damage: str) -> None:
    """What is said of a chunk contradicts the schema: the value is lost, not the process."""
    path = tmp_path / "a.parquet"
    table = pa.table({"url": URLS, "text": TEXTS, "score": [0.5, 1.5, 2.5]})
    pq.write_table(table, path, store_schema=False)
    data = path.read_bytes()
    kind = list(re.finditer(rb"(?s)\x15\x0a(?=\x19.{2,9}\x19\x18\x05score)", data))[-1]
    at = kind.start() + 1
    if damage == "name":
        at = data.index(b"score", at)
    path.write_bytes(data[:at] + (b"\x04" if damage == "type" else b"\xff") + data[at + 1 :])

    uids, _, rows, skipped = read(pool_of(path))

    assert uids == list(map(url_uid, URLS))
    if damage == "type":
        assert [row["score"] for row in rows] == [None] * 3
        assert skipped == {"no_text": 1, "unreadable_value": 3}


def test_intervals_that_pyarrow_lacks(tmp_path: Path) -> None:
    """Those of months alone: Java, Rust and Go write them."""
    ffi = pyarrow.cffi.ffi
    batch = pa.record_batch({"url": URLS, "text": TEXTS, "months": pa.array([1, 2, 3], pa.int32())})
    schema, array = ffi.new("struct ArrowSchema*"), ffi.new("struct ArrowArray*")
    batch._export_to_c(int(ffi.cast("uintptr_t", array)), int(ffi.cast("uintptr_t", schema)))
    months = ffi.new("char[]", b"tiM")
    schema.children[2].format = months
    batch = pa.RecordBatch._import_from_c(
        int(ffi.cast("uintptr_t", array)), int(ffi.cast("uintptr_t", schema))
    )
    with pa.ipc.new_file(tmp_path / "a.arrow", batch.schema) as writer:
        writer.write_batch(batch)

    uids, texts, rows, skipped = read(pool_of(tmp_path))

    assert uids == list(map(url_uid, URLS))
    assert texts == [[text] for text in TEXTS]
    assert [row["months"] for row in rows] == [None] * 3
    assert skipped == {"no_text": 1, "unreadable_value": 3}


@pytest.mark.parametrize("plain_footer", [True, False])
def test_encrypted_parquet_is_named(tmp_path: Path, plain_footer: bool) -> None:
    """Arrow ends the process when it is asked about an encrypted column."""
    encryption = pyarrow.parquet.encryption
    config = encryption.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["text"]}, plaintext_footer=plain_footer
    )
    factory = encryption.CryptoFactory(Keys)
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), config)
    table = pa.table({"url": URLS, "text": TEXTS, "score": [0.5] * 3})
    pq.write_table(table, tmp_path / "a.parquet", encryption_properties=properties)
    with pytest.raises(UserError, match="crypt"):
        pool_of(tmp_path)
