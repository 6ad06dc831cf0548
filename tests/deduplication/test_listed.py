"""Lists of the pairs that alone are kept: every form, against sets of Python's."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import metacurate as mc
from conftest import Command
from curation_pools import fails
from metacurate.arrays import UID_LIST_DTYPE
from metacurate.deduplication.listed import is_listed, read_listed, write_listed
from metacurate.pool.schema import UID_TYPE
from metacurate.runtime.storage import Folder


def uuid(number: int) -> str:
    return f"{number:024x}"


def test_uids_that_share_a_half(tmp_path: Path) -> None:
    rng = random.Random(0)
    ends = [0, 1, 5, 2**63, 2**64 - 1]
    every = [
        (a, b)
        for a in (0, 7, 2**64 - 1)
        for b in (*ends, *(rng.getrandbits(64) for _ in range(20)))
    ]
    listed = rng.sample(every, len(every) // 2)
    given = np.array(listed * 2, UID_LIST_DTYPE)
    np.save(tmp_path / "list.npy", given)
    folder = Folder(str(tmp_path))
    assert write_listed(folder, [str(tmp_path / "list.npy")]) == (len(set(listed)), 0)
    uids = [a.to_bytes(8, "big") + b.to_bytes(8, "big") for a, b in every]
    column = pa.array([None, *uids, None, *uids], UID_TYPE)[1:]
    found = is_listed(column, read_listed(folder, "one"))
    expected = [pair in set(listed) for pair in every]
    assert found.tolist() == [*expected, False, *expected]
    assert not is_listed(column, np.zeros(0, UID_LIST_DTYPE)).any()


FORMS: dict[str, Any] = {
    "array.json": lambda keys: json.dumps(keys).encode(),
    "object.json": lambda keys: json.dumps({key: [1] for key in keys}).encode(),
    "lines.txt": lambda keys: "\r\n".join(["", *keys, *keys, " "]).encode("utf-8-sig"),
}


@pytest.mark.parametrize("form", FORMS)
def test_valid_uuids_of_the_official_scripts(form: str, tmp_path: Path) -> None:
    """Their layout: texts and lists in folders of groups, of which one list is empty."""
    kept = [uuid(number) for number in range(0, 40, 3)]
    for shard in range(2):
        group = tmp_path / "data/pkg_json/0"
        group.mkdir(parents=True, exist_ok=True)
        numbers = range(20 * shard, 20 * shard + 20)
        texts = {uuid(number): [["alt", f"a cat {number}", "en"]] for number in numbers}
        (group / f"{shard}.json").write_text(json.dumps(texts))
    lists = tmp_path / "data/valid_uuids/0"
    lists.mkdir(parents=True)
    (lists / form).write_bytes(FORMS[form](kept))
    (lists / f"empty-{form}").write_bytes(FORMS[form]([]))
    config = mc.DedupConfig(only=(tmp_path / "data/valid_uuids",))
    pool = tmp_path / "data/pkg_json"
    totals = mc.dedup(pool, tmp_path / "out", config, workers=1)
    rows = pq.read_table(tmp_path / "out/pool").to_pylist()
    assert sorted(row["uuid"] for row in rows) == kept
    assert totals["dropped"] == {"not_listed": 40 - len(kept)}
    assert totals["texts_dropped"] == {"of_dropped_pair": 40 - len(kept)}
    assert not (tmp_path / "out/listed").exists()
    for overwrite in (False, True):
        again = mc.dedup(pool, tmp_path / "out", config, workers=1, overwrite=overwrite)
        assert again.totals == totals.totals
    (lists / form).write_bytes(FORMS[form](kept[1:]))
    with pytest.raises(mc.UserError, match="only"):
        mc.dedup(pool, tmp_path / "out", config, workers=1)


def test_a_list_of_datacomp_and_urls(metacurate: Command, tmp_path: Path) -> None:
    """What ``pool uids`` writes of one pool chooses of another; URLs are compared as URLs are."""
    rows = {"url": [f"http://example.org/{n}.jpg" for n in range(9)], "text": ["a cat"] * 9}
    pq.write_table(pa.table(rows), tmp_path / "pool.parquet")
    pq.write_table(pa.table(rows).slice(0, 4), tmp_path / "some.parquet")
    mc.uids(tmp_path / "some.parquet", tmp_path / "uids.npy", workers=1)
    (tmp_path / "more.txt").write_text("HTTP://EXAMPLE.ORG:80/7.jpg#x\nno such key\n")
    (tmp_path / "blank.json").write_text('["", " "]')
    done = metacurate("pool", "dedup", tmp_path / "pool.parquet", "--only", tmp_path / "uids.npy",
                      "--only", tmp_path / "more.txt", "--only", tmp_path / "blank.json",
                      "--out", tmp_path / "out", "--workers", 1, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2 of the lists' keys and URLs name nothing" in done.stderr
    assert json.loads(done.stdout)["dropped"] == {"not_listed": 4}
    kept = pq.read_table(tmp_path / "out/pool")["url"].to_pylist()
    assert sorted(kept) == [rows["url"][n] for n in (0, 1, 2, 3, 7)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'["a", 5]', "no JSON array of keys"),
        ("a.json", b'"a"', "no JSON array of keys"),
        ("a.json", b'["\\ud800"]', "no JSON array of keys"),
        ("a.json", b"[" * 100_000, "is no JSON"),
        ("a.txt", b"\xff", "no UTF-8"),
        ("a.npy", b"\x93NUMPY", "damaged .npy"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00((((((((((((((((", "damaged .npy"),
        ("a.npy", np.zeros(3, np.uint64), "holds no uids"),
        ("a.csv", b"", "a list is .npy"),
    ],
    ids=["number", "string", "surrogate", "deep", "bytes", "damaged", "header", "numbers", "other"],
)
def test_what_is_no_list(
    name: str, content: Any, message: str, metacurate: Command, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"url": ["http://a/1"], "text": ["a"]}), tmp_path / "pool.parquet")
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.save(tmp_path / name, content)
    fails(
        metacurate("pool", "dedup", tmp_path / "pool.parquet", "--only", tmp_path / name,
                   "--out", tmp_path / "out", "--workers", 1),
        name, message,
    )  # fmt: skip
