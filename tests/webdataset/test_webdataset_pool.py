"""WebDataset tars to a pool and back: ingest, reshard, uid lists; hostile tars."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import webdataset
from conftest import Command
from metacurate.arrays import UID_LIST_DTYPE
from metacurate.deduplication.dedup import DedupConfig, dedup
from metacurate.errors import UserError
from metacurate.pipeline import curate
from metacurate.pool.schema import UID_TYPE, PoolConfig
from metacurate.pool.uid import key_uid, url_uid
from metacurate.runtime.engines.local import LocalEngine
from metacurate.webdataset import ingest as ingest_module
from metacurate.webdataset import uid_list
from metacurate.webdataset.headers import is_safe_name, read_samples, split_name
from metacurate.webdataset.ingest import ingest
from metacurate.webdataset.reshard import reshard
from metacurate.webdataset.uid_list import write_uid_list

ONE = LocalEngine(1)


def add(tar: tarfile.TarFile, name: str, content: bytes, **attributes: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in attributes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content) if info.isreg() else None)


def uid_of(key: str) -> str:
    return hashlib.md5(key.encode()).hexdigest()


def add_sample(tar: tarfile.TarFile, key: str, caption: str, size: int = 700) -> None:
    """A sample as DataComp's tars have it."""
    facts = {"uid": uid_of(key), "url": f"https://a.example/{key}.jpg", "caption": caption,
             "key": key, "status": "success", "error_message": None, "width": 20, "height": 10,
             "original_width": 40, "original_height": 20, "sha256": "ab" * 32}  # fmt: skip
    add(tar, f"{key}.jpg", random.Random(key).randbytes(size), mtime=1_600_000_000, mode=0o600)
    add(tar, f"{key}.json", json.dumps(facts).encode())
    add(tar, f"{key}.txt", caption.encode())


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Three tars of ten samples."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for shard in range(3):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for row in range(10):
                add_sample(tar, f"{shard:05d}{row:04d}", f"caption é {shard} {row % 4}")
    return folder


def read_pool(out: Path) -> pa.Table:
    return pq.read_table(out / "pool")


def members(path: Path) -> list[tuple[str, bytes, int, int]]:
    with tarfile.open(path) as tar:
        return [(m.name, (tar.extractfile(m) or io.BytesIO()).read(), m.mtime, m.mode)
                for m in tar]  # fmt: skip


def test_ingest(tars: Path, tmp_path: Path) -> None:
    totals = ingest(str(tars), str(tmp_path / "pool"), engine=ONE)
    assert totals == {
        "tars": 3, "samples": 30, "pairs": 30, "texts": 30,
        "dropped": {}, "skipped_members": {}, "problems": {}, "unread_files": {},
    }  # fmt: skip
    rows = read_pool(tmp_path / "pool").to_pylist()
    row = rows[12]
    key = "000010002"
    assert row["key"] == key
    assert row["uid"].hex() == uid_of(key)
    assert row["url"] == f"https://a.example/{key}.jpg"
    assert row["texts"] == [{"source": "txt", "text": "caption é 1 2", "lang": None}]
    assert (row["width"], row["height"], row["original_width"]) == (20, 10, 40)
    content = (tars / row["tar"]).read_bytes()
    assert [m["extension"] for m in row["members"]] == ["jpg", "json", "txt"]
    picture = row["members"][0]
    assert content[picture["offset"] + 512 :][:700] == random.Random(key).randbytes(700)


def test_ingest_is_the_same_for_two_workers_and_resumes(tars: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        ingest(str(tars), str(tmp_path / f"p{workers}"), engine=LocalEngine(workers))
    shards = sorted(path.name for path in (tmp_path / "p1" / "pool").iterdir())
    assert len(shards) == 3
    for name in shards:
        one, two = ((tmp_path / f"p{w}" / "pool" / name).read_bytes() for w in (1, 2))
        assert one == two
    (tars / "00003.tar").write_bytes((tars / "00000.tar").read_bytes())
    with pytest.raises(UserError, match=r"files.00003\.tar was not set"):
        ingest(str(tars), str(tmp_path / "p1"), engine=ONE)


def test_uid_from_url_or_place_and_texts_from_json(tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    with tarfile.open(tars / "a.tar", "w") as tar:
        add(tar, "x/1.png", b"p")
        add(tar, "x/1.json", json.dumps({"url": "http://A.com/1"}).encode())
        add(tar, "x/1.txt", b"one")
        add(tar, "2.WEBP", b"p")
        add(tar, "2.txt", b"two")
        add(tar, "3.jpg", b"p")
        texts = [
            {"source": "alt", "text": "three", "lang": "en"},
            {"source": "title", "text": "drei", "lang": "de"},
            {"text": 7},
            "a bare text",
        ]
        add(tar, "3.json", json.dumps({"texts": texts, "caption": "drei"}).encode())
        add(tar, "3.txt", b"three")
    ingest(str(tars), str(tmp_path / "pool"), engine=ONE)
    first, second, third = read_pool(tmp_path / "pool").to_pylist()
    assert first["uid"] == url_uid("http://a.com/1")
    assert (first["key"], second["uid"]) == ("x/1", key_uid("a.tar/2"))
    assert second["url"] is None
    assert third["texts"] == [
        {"source": "alt", "text": "three", "lang": "en"},
        {"source": "title", "text": "drei", "lang": "de"},
        {"source": None, "text": "a bare text", "lang": None},
    ]


def test_languages_that_the_sample_states(tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    own = {"texts": [{"text": "drei", "lang": "de"}, {"text": "three"}], "lang": "en"}
    cases: list[tuple[dict[str, Any], bytes | None, list[str | None]]] = [
        ({"lang": "fr"}, b"un", ["fr"]),
        ({"LANGUAGE": "pt_BR", "caption": ["um", "dois"]}, None, ["pt_BR", "pt_BR"]),
        ({"lang": ["en", None, "de"], "captions": ["a", "b", "c"]}, None, ["en", None, "de"]),
        ({"lang": ["en", "de"], "captions": ["a", "b", "c"]}, None, [None] * 3),
        (own, None, ["de", None]),
        ({"lang": "", "language": "ja"}, "猫".encode(), ["ja"]),
        ({"lang": 7}, b"seven", [None]),
        ({"lang": "x" * 1000}, b"long", [None]),
        ({}, b"beside", ["nl"]),
        ({"lang": "fr"}, b"un autre", ["fr"]),
    ]
    with tarfile.open(tars / "a.tar", "w") as tar:
        for number, (record, text, _) in enumerate(cases):
            add(tar, f"{number}.jpg", b"p")
            add(tar, f"{number}.json", json.dumps(record).encode())
            if text is not None:
                add(tar, f"{number}.txt", text)
    beside = {"key": ["8", "9"], "LANG": ["nl", "nl"]}
    pq.write_table(pa.table(beside), tars / "a.parquet")
    ingest(str(tars), str(tmp_path / "pool"), engine=ONE)
    rows = read_pool(tmp_path / "pool").to_pylist()
    found = [[text["lang"] for text in row["texts"]] for row in rows]
    assert found == [expected for *_, expected in cases]


def test_side_parquet_fills_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    with tarfile.open(tars / "00000.tar", "w") as tar:
        add(tar, "000000000.jpg", b"p")
        add(tar, "000000001.jpg", b"p")
        add(tar, "000000001.json", b'{"url": "http://json/1"}')
    table = {
        "key": ["000000000", "000000001", "000000002"],
        "url": ["http://side/0", "http://side/1", "http://side/2"],
        "caption": ["zero", "one", "two"],
        "status": ["success", "success", "failed_to_download"],
        "width": [5, None, None],
    }
    pq.write_table(pa.table(table), tars / "00000.parquet")
    totals = ingest(str(tars), str(tmp_path / "pool"), engine=ONE)
    rows = read_pool(tmp_path / "pool").to_pylist()
    assert [(r["url"], r["texts"][0]["text"], r["width"]) for r in rows] == [
        ("http://side/0", "zero", 5),
        ("http://json/1", "one", None),
    ]
    assert totals["problems"] == {}
    (tars / "00000.parquet").write_bytes(b"PAR1 not really PAR1")
    totals = ingest(str(tars), str(tmp_path / "again"), engine=ONE)
    assert totals["problems"] == {"side_parquet_unreadable": 1}
    monkeypatch.setattr(ingest_module, "MAX_SIDE_BYTES", 1 << 20)
    bomb = pa.table({"key": ["x" * 1000] * 5000})  # small in the file, 5 MB in memory
    pq.write_table(bomb, tars / "00000.parquet")
    assert (tars / "00000.parquet").stat().st_size < 1 << 14
    totals = ingest(str(tars), str(tmp_path / "bomb"), engine=ONE)
    assert totals["problems"] == {"side_parquet_too_large": 1}
    assert totals["dropped"] == {"no_text": 2}


def test_hostile_members_are_counted(tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    with tarfile.open(tars / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        add_sample(tar, "good", "a good one")
        for name in ("../up.jpg", "/abs.jpg", "a/../../b.jpg", "..\\w.jpg", "C:\\x.jpg", "n\n.jpg"):
            add(tar, name, b"p")
        add(tar, "link.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(tar, "hard.jpg", b"", type=tarfile.LNKTYPE, linkname="good.jpg")
        add(tar, "pipe.jpg", b"", type=tarfile.FIFOTYPE)
        add(tar, "device.jpg", b"", type=tarfile.CHRTYPE)
        add(tar, "folder", b"", type=tarfile.DIRTYPE)
        add(tar, "noextension", b"x")
        add(tar, ".jpg", b"x")
        add(tar, "twice.jpg", b"1")
        add(tar, "twice.jpg", b"2")
        add(tar, "twice.txt", b"twice")
        add(tar, "binary.jpg", b"1")
        add(tar, "binary.txt", b"\xff\xfe\x00")
        add(tar, "badjson.jpg", b"1")
        add(tar, "badjson.json", b"{not json")
        add(tar, "badjson.txt", b"kept by its text")
        add(tar, "deep.jpg", b"1")
        add(tar, "deep.json", b"[" * 100_000)
        add(tar, "deep.txt", b"deep")
        add(tar, "list.jpg", b"1")
        add(tar, "list.json", b"[1]")
        add(tar, "list.txt", b"list")
        add(tar, "odd.jpg", b"1")
        odd = {"uid": "\ud800", "url": 5, "caption": ["x"], "width": 2**70, "height": True}
        add(tar, "odd.json", json.dumps(odd).encode())
        add(tar, "odd.txt", b"odd")
        add(tar, "long.jpg", b"1")
        add(tar, "long.txt", b"x" * (2 << 20))
        add(tar, "textonly.txt", b"no image")
        add_sample(tar, "last", "a last one")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    totals = ingest(str(tars), str(tmp_path / "pool"), engine=ONE)
    assert totals["skipped_members"] == {
        "unsafe_name": 6,
        "not_a_regular_file": 4,
        "no_key": 2,
        "repeated_extension": 1,
    }
    assert totals["dropped"] == {"no_text": 2, "no_image": 1}
    assert totals["problems"] == {
        "json_invalid": 3, "other_text_in_json": 1, "text_not_utf8": 1, "text_too_large": 1
    }  # fmt: skip
    assert totals["samples"] == totals["pairs"] + sum(totals["dropped"].values())
    rows = {row["key"]: row for row in read_pool(tmp_path / "pool").to_pylist()}
    assert list(rows) == ["good", "twice", "badjson", "deep", "list", "odd", "last"]
    assert (rows["odd"]["url"], rows["odd"]["width"], rows["odd"]["height"]) == (None, None, None)
    assert rows["odd"]["uid"] == key_uid("a.tar/odd")
    # Nothing but the pool came into being.
    after = {p for p in tmp_path.rglob("*") if p.is_file() and tmp_path / "pool" not in p.parents}
    assert after == set(before)


def header(name: bytes, size: bytes, kind: bytes = b"0") -> bytes:
    """A tar header with any size field and a right checksum."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = size.ljust(12, b"\0")
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def samples_of(content: bytes) -> tuple[list[str], dict[str, int]]:
    skipped: Counter[str] = Counter()
    keys = [sample.key for sample in read_samples(io.BytesIO(content), skipped)]
    return keys, dict(skipped)


FILE = header(b"a.jpg", b"00000000003") + b"abc".ljust(512, b"\0")
END = bytes(1024)


@pytest.mark.parametrize(
    ("content", "keys", "skipped"),
    [
        (END, [], {}),
        (b"", [], {"tar_unreadable": 1}),
        (b"no tar" * 1000, [], {"tar_unreadable": 1}),
        (FILE + END, ["a"], {}),
        (FILE, ["a"], {"tar_damaged": 1}),  # no end mark
        (FILE[:700], [], {"tar_truncated": 1}),  # cut off in the data
        (FILE + FILE[:300], ["a"], {"tar_damaged": 1}),  # cut off in a header
        (FILE + b"x" * 512 + FILE + END, ["a"], {"tar_damaged": 1}),  # a header that is none
        (FILE + header(b"b.jpg", b"77777777777") + END, ["a"], {"tar_truncated": 1}),  # 8 GiB
        # Base-256 numbers: 2**88 bytes; and minus 512, which leads back to the same header.
        (FILE + header(b"b.jpg", b"\x80" + b"\x01" + bytes(10)) + END, ["a"],
         {"tar_truncated": 1}),
        (FILE + header(b"b.jpg", b"\xff" * 10 + b"\xfe\x00") + END, ["a"], {"tar_damaged": 1}),
        # Extended headers: 1 GiB of name, and 5,000 of them in a row.
        (FILE + header(b"x", b"10000000000", b"L") + END, ["a"], {"tar_damaged": 1}),
        (FILE + header(b"x", b"10000000000", b"x") + END, ["a"], {"tar_damaged": 1}),
        (FILE + (header(b"x", b"1", b"L") + b"y".ljust(512, b"\0")) * 5000 + END, ["a"],
         {"tar_damaged": 1}),
    ],
)  # fmt: skip
def test_damaged_tars(content: bytes, keys: list[str], skipped: dict[str, int]) -> None:
    assert samples_of(content) == (keys, skipped)


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_a_sparse_file_costs_itself(kind: str) -> None:
    """As ``tar --sparse`` writes them: its size is more than what the tar holds of it."""
    if kind == "gnu":
        block = bytearray(header(b"b.jpg", b"00000000003", b"S"))
        block[257:265] = b"ustar  \0"
        block[386:410] = b"00000000000\0" + b"00000000003\0"  # where what is stored belongs
        block[483:495] = b"00077777777\0"  # the size
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        sparse = bytes(block)
    else:
        info = tarfile.TarInfo("b.jpg")
        info.size = 3
        info.pax_headers = {"GNU.sparse.map": "0,3", "GNU.sparse.size": "16777215"}
        sparse = info.tobuf(tarfile.PAX_FORMAT)
    last = header(b"c.jpg", b"00000000003") + b"abc".ljust(512, b"\0")

    found = samples_of(FILE + sparse + b"abc".ljust(512, b"\0") + last + END)

    assert found == (["a", "c"], {"not_a_regular_file": 1})


@settings(max_examples=300)
@given(st.data())
def test_any_change_to_a_tar_is_survived(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add_sample(tar, "é" * 80, "one", size=10)
        add_sample(tar, "b", "two", size=10)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 6000))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    keys, _ = samples_of(bytes(content))
    assert len(keys) <= 6


@given(st.text(max_size=12) | st.text("./\\a", max_size=9))
def test_safe_names_stay_below(name: str) -> None:
    if is_safe_name(name):
        assert not os.path.isabs(name)
        assert os.path.commonpath([os.path.normpath(f"/x/{name}"), "/x"]) == "/x"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("000000001.jpg", ("000000001", "jpg")),
        ("a/b.c/1.seg.PNG", ("a/b.c/1", "seg.png")),
        ("a.b/c", None),
        (".jpg", None),
        ("x/.hidden", None),
    ],
)
def test_split_name(name: str, expected: tuple[str, str] | None) -> None:
    assert split_name(name) == expected


def keep(pool: Path, out: Path, rows: list[int]) -> None:
    out.mkdir()
    pq.write_table(read_pool(pool).take(pa.array(rows)), out / "part.parquet")


def test_reshard_copies_kept_samples_byte_for_byte(tars: Path, tmp_path: Path) -> None:
    ingest(str(tars), str(tmp_path / "pool"), engine=ONE)
    kept = [27, 3, 4, 11, 0, 19, 3]  # in no order, one of them twice
    keep(tmp_path / "pool", tmp_path / "kept", kept)
    totals = reshard([str(tmp_path / "kept")], str(tars), str(tmp_path / "out"), engine=ONE,
                     samples_per_tar=4)  # fmt: skip
    assert totals["rows"] == 7
    assert totals["samples"] == 6
    assert totals["dropped"] == {}
    out = sorted((tmp_path / "out").glob("*.tar"))
    assert [path.name for path in out] == ["00000.tar", "00001.tar"]
    got = [member for path in out for member in members(path)]
    every = [member for path in sorted(tars.iterdir()) for member in members(path)]
    wanted = {f"{row // 10:05d}{row % 10:04d}" for row in kept}
    assert got == [member for member in every if member[0].partition(".")[0] in wanted]
    assert all(path.stat().st_size % tarfile.RECORDSIZE == 0 for path in out)
    shards = str(tmp_path / "out" / "{00000..00001}.tar")
    samples = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert sorted(sample["__key__"] for sample in samples) == sorted(wanted)
    # The new tars are a dataset like the old ones.
    again = ingest(str(tmp_path / "out"), str(tmp_path / "again"), engine=ONE)
    assert again["pairs"] == 6


def test_reshard_is_the_same_for_two_workers_and_from_a_deduplicated_pool(
    tars: Path, tmp_path: Path
) -> None:
    ingest(str(tars), str(tmp_path / "pool"), engine=ONE)
    dedup([str(tmp_path / "pool")], str(tmp_path / "clean"),
          DedupConfig(shard_rows=7, max_images_per_text=2, keep_repeats=True), PoolConfig(),
          engine=ONE)  # fmt: skip
    outs = []
    for workers in (1, 2):
        out = tmp_path / f"out{workers}"
        totals = reshard(
            [str(tmp_path / "clean")], str(tars), str(out), samples_per_tar=5, workers=workers
        )
        assert totals["samples"] == read_pool(tmp_path / "clean").num_rows == 24
        outs.append({path.name: path.read_bytes() for path in out.glob("*.tar")})
        assert not (out / "places").exists()
    assert outs[0] == outs[1]
    assert len(outs[0]) == 3
    # With other settings the old tars go, also those that have no successor.
    reshard([str(tmp_path / "clean")], str(tars), str(tmp_path / "out1"), engine=ONE,
            samples_per_tar=100, overwrite=True)  # fmt: skip
    assert [path.name for path in (tmp_path / "out1").glob("*.tar")] == ["00000.tar"]


def test_reshard_trusts_no_row(tars: Path, tmp_path: Path) -> None:
    ingest(str(tars), str(tmp_path / "pool"), engine=ONE)
    rows = read_pool(tmp_path / "pool").to_pylist()[:12]
    secret = tmp_path / "secret.tar"
    secret.write_bytes((tars / "00000.tar").read_bytes())
    rows[0]["tar"] = "../secret.tar"
    rows[1]["tar"] = str(secret)
    rows[2]["key"] = "other"
    rows[3]["members"][1]["offset"] += 512
    rows[4]["members"][0]["length"] *= 2
    rows[5]["members"][2]["length"] = 2**62
    rows[6]["members"][2]["offset"] = -5
    rows[7]["members"] = []
    rows[8]["members"] = [{"extension": "jpg", "offset": None, "length": 3}]
    rows[9]["members"][0]["length"] = 0
    curated = tmp_path / "kept.parquet"
    pq.write_table(pa.Table.from_pylist(rows, read_pool(tmp_path / "pool").schema.remove_metadata()
                   .set(5, pa.field("members", read_pool(tmp_path / "pool").schema.field(
                       "members").type))), curated)  # fmt: skip
    totals = reshard([str(curated)], str(tars), str(tmp_path / "out"), engine=ONE)
    assert totals["samples"] == 2
    assert totals["dropped"]["tar_or_members_unknown"] == 3
    assert totals["dropped"]["not_at_its_place"] == 7
    names = [name for path in (tmp_path / "out").glob("*.tar") for name, *_ in members(path)]
    assert {name.partition(".")[0] for name in names} == {"000010000", "000010001"}


def test_reshard_errors(tars: Path, tmp_path: Path) -> None:
    ingest(str(tars), str(tmp_path / "pool"), engine=ONE)
    pool = [str(tmp_path / "pool")]
    with pytest.raises(UserError, match="choose another"):
        reshard(pool, str(tars), str(tars) + "/../tars", engine=ONE)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UserError, match=r"no \.tar file"):
        reshard(pool, str(other), str(tmp_path / "out"), engine=ONE)
    (other / "x.tar").write_bytes((tars / "00000.tar").read_bytes())
    with pytest.raises(UserError, match=r"no row .* names a tar"):
        reshard(pool, str(other), str(tmp_path / "out"), engine=ONE)
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"url": ["http://a/1"]}), plain)
    with pytest.raises(UserError, match="has no column 'tar'"):
        reshard([str(plain)], str(tars), str(tmp_path / "out2"), engine=ONE)


# Uid lists.


def independent(uids: list[str]) -> np.ndarray:
    """As DataComp's documentation makes the array of a subset."""
    pairs = [(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids]
    array = np.array(pairs, np.dtype("u8,u8"))
    array.sort()
    return array


@settings(max_examples=40)
@given(
    st.lists(
        st.binary(min_size=16, max_size=16)
        | st.builds(lambda a, b: bytes([a] * 8 + [b] * 8), st.integers(0, 2), st.integers(0, 3)),
        min_size=1,
        max_size=60,
        unique=True,
    ),
    st.booleans(),
    st.integers(1, 20),
)
def test_uid_list_is_what_datacomp_expects(
    tmp_path_factory: pytest.TempPathFactory, uids: list[bytes], as_hex: bool, part: int
) -> None:
    folder = tmp_path_factory.mktemp("uids")
    for n in range(0, len(uids), 25):
        some = uids[n : n + 25] + uids[:2]  # some again
        column = pa.array([u.hex() for u in some]) if as_hex else pa.array(some, UID_TYPE)
        pq.write_table(pa.table({"uid": column}), folder / f"{n:03d}.parquet", row_group_size=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uid_list, "PART_UIDS", part)
        totals = write_uid_list([str(folder)], str(folder / "out" / "uids.npy"))
    array = np.load(folder / "out" / "uids.npy")
    assert array.dtype == np.dtype("u8,u8") == UID_LIST_DTYPE
    assert array.tolist() == independent([u.hex() for u in uids]).tolist()
    assert totals["uids"] == len(uids) == totals["rows"] - totals["repeated"]
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["uids.npy"]


def test_a_uid_list_that_was_stopped_at_its_end_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        pq.write_table(
            pa.table({"url": [f"http://a.example/{name}"]}), tmp_path / f"{name}.parquet"
        )
    pool, out = [str(tmp_path / "a.parquet")], tmp_path / "u.npy"

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("metacurate.runtime.stage.finish", stop)
        with pytest.raises(KeyboardInterrupt):
            write_uid_list(pool, str(out))
    written = out.read_bytes()
    with pytest.raises(UserError, match="is there already"):
        write_uid_list([str(tmp_path / "b.parquet")], str(out))
    assert write_uid_list(pool, str(out))["uids"] == 1
    assert out.read_bytes() == written
    assert not (tmp_path / "u.npy.work").exists()
    with pytest.raises(UserError, match="is there already"):
        write_uid_list(pool, str(out))
    assert not (tmp_path / "u.npy.work").exists()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_uids_of_any_pool(tmp_path: Path, suffix: str) -> None:
    """Columns are found as for curation; rows without a name are counted."""
    urls = ["http://a/1", None, "http://a/2", "http://a/1"]
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"image_url": urls}), path)
    elif suffix == ".csv":
        path.write_text("image_url,n\n" + "".join(f"{url or ''},1\n" for url in urls))
    else:
        path.write_text("".join(json.dumps({"image_url": url}) + "\n" for url in urls))
    totals = write_uid_list([str(path)], str(tmp_path / "u.npy"))
    assert totals == {"files": 1, "rows": 4, "uids": 2, "repeated": 1, "skipped": {"no_url": 1}}
    expected = independent([url_uid(url).hex() for url in ("http://a/1", "http://a/2")])
    assert np.load(tmp_path / "u.npy").tolist() == expected.tolist()


def test_uid_list_errors(tmp_path: Path) -> None:
    pq.write_table(pa.table({"other": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no URL or key column known by name"):
        write_uid_list([str(tmp_path / "a.parquet")], str(tmp_path / "u.npy"))
    with pytest.raises(UserError, match=r"must end in \.npy"):
        write_uid_list([str(tmp_path / "a.parquet")], str(tmp_path / "u"))
    pq.write_table(pa.table({"uid": pa.array([b"1" * 16], UID_TYPE)}), tmp_path / "a.parquet")
    write_uid_list([str(tmp_path / "a.parquet")], str(tmp_path / "u.npy"))
    with pytest.raises(UserError, match="is there already"):
        write_uid_list([str(tmp_path / "a.parquet")], str(tmp_path / "u.npy"))
    write_uid_list([str(tmp_path / "a.parquet")], str(tmp_path / "u.npy"), overwrite=True)


@pytest.mark.parametrize("rows", [[], [b" "]])
def test_an_empty_uid_list_is_told(
    tmp_path: Path, rows: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    pq.write_table(pa.table({"url": pa.array(rows, pa.binary())}), tmp_path / "a.parquet")
    with caplog.at_level("INFO", logger="metacurate"):
        assert write_uid_list([str(tmp_path / "a.parquet")], str(tmp_path / "u.npy"))["uids"] == 0
    assert "u.npy is empty: no row of the input has a uid" in caplog.text
    assert len(np.load(tmp_path / "u.npy")) == 0


def test_from_tars_through_curation_to_tars_and_uids(tars: Path, tmp_path: Path) -> None:
    with tarfile.open(tars / "00003.tar", "w") as tar:
        for row in range(12):
            text = "a dog in the garden" if row % 3 else "qqq zzz"
            add_sample(tar, f"00003{row:04d}", text)
    pool, curated = str(tmp_path / "pool"), tmp_path / "curated"
    ingest(str(tars), pool, engine=ONE)
    card = curate(pool, "wordnet", str(curated), t=5, report=False, workers=1)
    rows = pq.read_table(curated / "curated").to_pylist()
    keys = {row["key"] for row in rows}
    assert 0 < len(rows) == card["kept"]["pairs"] < 42
    assert not keys & {f"00003{row:04d}" for row in (0, 3, 6, 9)}
    reshard([str(curated)], str(tars), str(tmp_path / "out"), engine=ONE)
    got = [name for path in (tmp_path / "out").glob("*.tar") for name, *_ in members(path)]
    assert {name.partition(".")[0] for name in got} == keys
    assert len(got) == 3 * len(keys)
    write_uid_list([str(curated)], str(tmp_path / "u.npy"))
    uids = np.load(tmp_path / "u.npy")
    assert uids.tolist() == independent([uid_of(key) for key in keys]).tolist()


def test_commands(tars: Path, tmp_path: Path, metacurate: Command) -> None:
    def run(*arguments: str) -> dict[str, Any]:
        return json.loads(metacurate("pool", *arguments, "--json").stdout)

    pool, out = str(tmp_path / "pool"), str(tmp_path / "out")
    assert run("ingest", str(tars), "--out", pool)["pairs"] == 30
    assert run("reshard", pool, "--tars", str(tars), "--out", out)["samples"] == 30
    assert run("uids", pool, "--out", str(tmp_path / "u.npy"))["uids"] == 30
    assert (
        np.load(tmp_path / "u.npy").tolist()
        == independent([uid_of(f"{s:05d}{r:04d}") for s in range(3) for r in range(10)]).tolist()
    )
