"""Other people's tars: every command sees the same samples and texts in them."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hostile_server import encoded, photo
from metacurate.images.filter import FilterConfig, filter_images
from metacurate.runtime.engines.local import LocalEngine
from metacurate.runtime.storage import Folder
from metacurate.webdataset import headers
from metacurate.webdataset.facts import read_record, sample_texts
from metacurate.webdataset.files import open_tar
from metacurate.webdataset.headers import is_safe_name
from metacurate.webdataset.ingest import SCHEMA, ingest
from metacurate.webdataset.reshard import reshard
from metacurate.webdataset.shards import list_shards, read_samples

ONE = LocalEngine(1)
JPEG = encoded(photo(1))
NOISE = random.Random(0).randbytes(9_000)
Files = list[tuple[str, bytes]]


def tar_of(files: Files, form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def pair(key: str, text: str = "a dog", extension: str = "jpg", image: bytes = JPEG) -> Files:
    return [(f"{key}.{extension}", image), (f"{key}.txt", text.encode())]


def width(images: list[Any], rows: list[Any]) -> dict[str, list[int]]:
    """A scorer."""
    return {"width_seen": [image.shape[1] for image in images]}


def ingested(folder: Path, out: Path) -> tuple[dict[str, list[str]], dict[str, Any]]:
    totals = ingest(str(folder), str(out), engine=ONE)
    rows = pq.read_table(out / "pool").to_pylist()
    assert totals["pairs"] == len(rows)
    assert totals["samples"] == totals["pairs"] + sum(totals["dropped"].values())
    return {row["key"]: [text["text"] for text in row["texts"]] for row in rows}, totals


def filtered(folder: Path, out: Path) -> list[str]:
    """The keys that a filter that keeps everything keeps."""
    config = FilterConfig(("test_odd_tars:width",))
    totals = filter_images(str(folder), str(out), config, engine=ONE)
    keys = []
    for name in list_shards(Folder(str(out))).values():
        keys += [s.key for s in read_samples((out / name).open("rb"), Counter())]
    assert totals["successes"] == len(keys)
    assert totals["images"] == totals["successes"] + sum(totals["dropped"].values())
    return keys


def trained(folder: Path, skipped: Counter[str] | None = None) -> dict[str, list[str]]:
    """The texts of each pair with an image that training reads, by key."""
    skipped = Counter() if skipped is None else skipped
    pytest.importorskip("torch")
    from metacurate.pool.uid import key_uid
    from metacurate.training.shards import ShardsConfig, find_shards, read_shard

    config = ShardsConfig((str(folder),))
    found = {}
    for shard in find_shards(config):
        for batch in read_shard(shard, config, skipped):
            for i, (start, end) in enumerate(
                zip(batch.text_offsets, batch.text_offsets[1:], strict=False)
            ):
                texts = [text for text in batch.texts[start:end] if text]
                if texts and batch.image(i):
                    found[batch.uids[i].tobytes()] = texts
    by_uid = {}
    for name in list_shards(Folder(str(folder))).values():
        for sample in read_samples((folder / name).open("rb"), Counter()):
            record = sample.record(Counter())
            by_uid[key_uid(str(record.get("uid") or sample.key))] = sample.key
    return {by_uid[uid]: texts for uid, texts in found.items()}


def evaluated(folder: Path) -> list[list[str]]:
    """The captions of each image that evaluation reads."""
    from metacurate.evaluation.datasets import examples

    return sorted(list(example.captions) for example in examples(str(folder), Counter()))


def resharded(folder: Path, pool: Path, out: Path) -> list[str]:
    reshard([str(pool)], str(folder), str(out), engine=ONE)
    keys = []
    for path in sorted(out.glob("*.tar")):
        keys += [s.key for s in read_samples(path.open("rb"), Counter())]
    return keys


DOGS = ["a dog", "the dog", "a hot dog"]
CATS = {"texts": [{"source": "alt", "text": t, "lang": "en"} for t in ("a cat", "zzz")], "n": 1.5}


def write_several_texts(folder: Path) -> None:
    """Samples with their texts in all places."""
    folder.mkdir()
    old = {"texts": DOGS[:2], "text_kept": [True, False], "matched": [[1], [2]]}
    (folder / "a.tar").write_bytes(
        tar_of(
            [
                *pair("list"), ("list.json", json.dumps({"texts": DOGS, "caption": "x"}).encode()),
                *pair("txt"),
                ("facts.jpg", JPEG), ("facts.json", json.dumps(CATS).encode()),
                ("field.json", b'{"captions": ["a dog", "the dog"]}'), ("field.jpg", JPEG),
                *pair("old"), ("old.json", json.dumps(old).encode()),
                *pair("none"),
            ]
        )
    )  # fmt: skip


# The flags of a sample's texts as curation leaves them, and the texts that are then to be read.
KEPT = {
    "list": ([False, True, True], ["the dog", "a hot dog"]),
    "txt": ([True], ["a dog"]),
    "facts": ([True, False], ["a cat"]),
    "field": ([True, True], ["a dog", "the dog"]),
    "old": ([True, True], ["a dog", "the dog"]),
    "none": ([False], None),
}


def curated_by_hand(pool: Path, out: Path) -> None:
    table = pq.read_table(pool / "pool")
    flags = [KEPT[key][0] for key in table["key"].to_pylist()]
    matched = [[[7] if keep else [] for keep in row] for row in flags]
    table = table.append_column("text_kept", pa.array(flags))
    table = table.append_column("matched", pa.array(matched, pa.list_(pa.list_(pa.uint32()))))
    out.mkdir()
    pq.write_table(table, out / "part-000000.parquet")


def test_after_reshard_training_reads_the_texts_that_curation_kept(tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    write_several_texts(folder)
    found, _ = ingested(folder, tmp_path / "pool")
    assert found["list"] == DOGS
    curated_by_hand(tmp_path / "pool", tmp_path / "curated")
    out = tmp_path / "kept"
    totals = reshard([str(tmp_path / "curated")], str(folder), str(out), engine=ONE)
    assert totals["dropped"] == {"no_text": 1}
    assert (totals["samples"], totals["with_other_texts"]) == (5, 2)
    expected = {key: texts for key, (_, texts) in KEPT.items() if texts}
    assert trained(out) == expected
    assert ingested(out, tmp_path / "again")[0] == expected
    # Loaders that know KEY.txt alone read a kept text, too; all else is what it was.
    before, after = (
        {(s.key, ext): data for s in read_samples((at / name).open("rb"), Counter())
         for ext, data in s.files.items()}
        for at, name in ((folder, "a.tar"), (out, "00000.tar"))
    )  # fmt: skip
    assert after["list", "txt"] == b"the dog"
    copied = {name for name in after if name[1] != "json"} - {("list", "txt")}
    assert all(after[name] == before[name] for name in copied)
    record = json.loads(after["facts", "json"])
    assert record == {"texts": CATS["texts"][:1], "n": 1.5, "text_kept": [True], "matched": [[7]]}
    # What curation says of them is there for training, too.
    assert chosen_texts(out) == sorted(sorted(texts) for texts in expected.values())
    with tarfile.open(out / "00000.tar") as tar:
        assert len(tar.getnames()) == len(after)


def chosen_texts(folder: Path) -> list[list[str]]:
    """The texts that training takes by default, of each pair that it takes."""
    pytest.importorskip("torch")
    from metacurate.training.select import Curated, DataConfig, PairSource
    from metacurate.training.shards import ShardsConfig

    config = DataConfig(ShardsConfig((str(folder),)), Curated(), 1, 8, streams=1)
    source = PairSource(config)
    seen: dict[bytes, set[str]] = {}
    for unit in range(40):
        for found in source.unit_pairs(unit, Counter()):
            seen.setdefault(found.uid, set()).add(found.text)
    return sorted(sorted(texts) for texts in seen.values())


def test_samples_of_a_pool_that_is_not_curated_are_copied_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    record = json.dumps({"texts": DOGS, "caption": "x"}).encode()
    (folder / "a.tar").write_bytes(tar_of([*pair("k"), ("k.json", record), *pair("t")]))
    ingested(folder, tmp_path / "pool")
    reshard([str(tmp_path / "pool")], str(folder), str(tmp_path / "out"), engine=ONE)
    assert (tmp_path / "out" / "00000.tar").read_bytes() == (folder / "a.tar").read_bytes()


def test_a_sample_that_several_rows_name_keeps_the_texts_of_all(tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    write_several_texts(folder)
    ingested(folder, tmp_path / "pool")
    table = pq.read_table(tmp_path / "pool" / "pool").slice(0, 1)
    for name, flags in (("one", [True, False, False]), ("two", [False, False, True])):
        kept = table.append_column("text_kept", pa.array([flags]))
        pq.write_table(kept, tmp_path / f"{name}.parquet")
    pools = [str(tmp_path / f"{name}.parquet") for name in ("one", "two")]
    reshard(pools, str(folder), str(tmp_path / "kept"), engine=ONE)
    assert trained(tmp_path / "kept") == {"list": ["a dog", "a hot dog"]}


def test_flags_that_fit_no_texts_keep_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    write_several_texts(folder)
    ingested(folder, tmp_path / "pool")
    table = pq.read_table(tmp_path / "pool" / "pool").slice(0, 3)
    flags = pa.array([[True], None, [True, True]])
    pq.write_table(table.append_column("text_kept", flags), tmp_path / "c.parquet")
    totals = reshard([str(tmp_path / "c.parquet")], str(folder), str(tmp_path / "k"), engine=ONE)
    assert totals["dropped"] == {"broken_text_kept": 2}
    assert trained(tmp_path / "k") == {"facts": ["a cat", "zzz"]}


def test_a_text_from_beside_the_tar_or_from_a_repeat_goes_into_it(tmp_path: Path) -> None:
    """Rows may have texts that their samples lack: of the Parquet file, or of merged rows."""
    folder = tmp_path / "tars"
    folder.mkdir()
    (folder / "a.tar").write_bytes(tar_of([("k.jpg", JPEG), *pair("m")]))
    side = {"key": ["k", "m"], "caption": ["a side dog", None]}
    pq.write_table(pa.table(side), folder / "a.parquet")
    ingested(folder, tmp_path / "pool")
    rows = pq.read_table(tmp_path / "pool" / "pool").to_pylist()
    rows[1]["texts"].append({"source": "alt", "text": "merged", "lang": "en"})
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / "c.parquet")
    reshard([str(tmp_path / "c.parquet")], str(folder), str(tmp_path / "kept"), engine=ONE)
    assert trained(tmp_path / "kept") == {"k": ["a side dog"], "m": ["a dog", "merged"]}


LONG = "folder/" + "k" * 150
NAMES = [
    "写真\u3000一", "a\u00a0b", "می\u200cخواهم", "👩\u200d🚀", "12:30 photo", "a b", "ü", "e\u0301",
    "\u200fشعر", "x" * 120, LONG,
]  # fmt: skip
V1 = {"texts": [["alttext", "a dog"], ["title", "the dog"]]}
V2 = {"texts": [["a dog", "en", [1, 2]], ["ein Hund", "de", []]]}

# The tars, by name; the keys with their texts; what else ingest counts.
CASES: dict[str, tuple[dict[str, bytes], dict[str, list[str]], dict[str, dict[str, int]]]] = {
    "metaclip v1 in sub-folders": (
        {
            "0/1.tar": tar_of([("u1.json", json.dumps(V1).encode()), ("u1.jpeg", JPEG)]),
            "1/0.tar": tar_of([("u2.json", json.dumps(V2).encode()), ("u2.jpeg", JPEG)]),
        },
        {"u1": ["a dog", "the dog"], "u2": ["a dog", "ein Hund"]},
        {},
    ),
    "gzip": (
        {"a.tar.gz": gzip.compress(tar_of(pair("a"))), "b.tar": gzip.compress(tar_of(pair("b"))),
         "c.TAR": tar_of(pair("c")), "d.tgz": gzip.compress(tar_of(pair("d")))},
        {key: ["a dog"] for key in "abcd"},
        {},
    ),
    "other compression": (
        {"a.tar": tar_of(pair("a")), "b.tar.zst": b"?", "c.tar.xz": b"?"},
        {"a": ["a dog"]},
        {"unread_files": {"other_compression": 2}},
    ),
    "two tars joined": (
        {"a.tar": tar_of(pair("a")) + tar_of(pair("b"))}, {"a": ["a dog"], "b": ["a dog"]}, {}
    ),
    "bytes after the end": (
        {"a.tar": tar_of(pair("a")) + b"some more" * 100},
        {"a": ["a dog"]},
        {"skipped_members": {"bytes_after_end": 1}},
    ),
    "cut off in the data": (
        {"a.tar": tar_of([*pair("a"), *pair("b", image=NOISE)])[:9_000],
         "b.tar": tar_of(pair("c"))},
        {"a": ["a dog"], "c": ["a dog"]},
        {"skipped_members": {"tar_truncated": 1}},
    ),
    "cut off between members": (
        {"a.tar": tar_of(pair("a"))[: headers.padded(len(JPEG)) + 3 * 512]},
        {"a": ["a dog"]},
        {"skipped_members": {"tar_damaged": 1}},
    ),
    "a tar that is none": (
        {"a.tar": b"<html>not found</html>" * 50, "b.tar": tar_of(pair("b"))},
        {"b": ["a dog"]},
        {"skipped_members": {"tar_unreadable": 1}},
    ),
    "gzip cut off": (
        {"a.tar.gz": gzip.compress(tar_of([*pair("a"), *pair("b", image=NOISE)]))[:-2_000]},
        {"a": ["a dog"]},
        {"skipped_members": {"tar_truncated": 1}},
    ),
    "zeros after the end": ({"a.tar": tar_of(pair("a")) + bytes(5 << 20)}, {"a": ["a dog"]}, {}),
    "names, gnu": (
        {"a.tar": tar_of([f for name in NAMES for f in pair(name)])},
        {name: ["a dog"] for name in NAMES},
        {},
    ),
    "names, pax": (
        {"a.tar": tar_of([f for name in NAMES for f in pair(name)], tarfile.PAX_FORMAT)},
        {name: ["a dog"] for name in NAMES},
        {},
    ),
    "a record of many brackets": (
        {"a.tar": tar_of([*pair("a"), ("a.json", b"[" * 100_000), *pair("b"),
                          ("b.json", b'{"x":' + b"[" * 500 + b"]" * 500 + b"}")])},
        {"a": ["a dog"], "b": ["a dog"]},
        {"problems": {"json_invalid": 2}},
    ),
    "keys that come again": (
        {"a.tar": tar_of([*pair("a"), *pair("b"), *pair("a", "a cat"), ("b.cls", b"1"),
                          *pair("c")])},
        {"a": ["a dog"], "b": ["a dog"], "c": ["a dog"]},
        {"skipped_members": {"repeated_key": 2}},
    ),
    "formats": (
        {"a.tar": tar_of([
            *pair("1", extension="gif", image=encoded(photo(1), "GIF")),
            *pair("2", extension="bmp", image=encoded(photo(1), "BMP")),
            *pair("3", extension="avif", image=encoded(photo(1), "AVIF")),
            *pair("4", extension="JPEG"),
            *pair("5", extension="webp", image=encoded(photo(1), "WEBP")),
        ])},
        {str(n): ["a dog"] for n in range(1, 6)},
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_all_commands_see_the_same(name: str, tmp_path: Path) -> None:
    tars, expected, counted = CASES[name]
    folder = tmp_path / "tars"
    for file, content in tars.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    found, totals = ingested(folder, tmp_path / "pool")
    assert found == expected
    for field in ("skipped_members", "problems", "unread_files"):
        assert totals[field] == counted.get(field, {})
    assert sorted(filtered(folder, tmp_path / "filtered")) == sorted(expected)
    assert trained(folder) == expected
    # Evaluation knows no sub-folders but test/.
    if not any("/" in file for file in tars):
        assert evaluated(folder) == sorted(expected.values())
    assert sorted(resharded(folder, tmp_path / "pool", tmp_path / "kept")) == sorted(expected)
    # What came out is a folder like it.
    assert sorted(ingested(tmp_path / "kept", tmp_path / "again")[0]) == sorted(expected)


def test_images_first_and_texts_after_are_no_pairs_for_anybody(tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    keys = ["a", "b", "c"]
    files = [(f"{key}.jpg", JPEG) for key in keys] + [(f"{key}.txt", b"a dog") for key in keys]
    (folder / "a.tar").write_bytes(tar_of(files))
    found, totals = ingested(folder, tmp_path / "pool")
    assert found == {}
    assert totals["dropped"] == {"no_text": 3}
    assert totals["skipped_members"] == {"repeated_key": 3}
    assert trained(folder) == {}
    # A filter looks at images alone.
    assert filtered(folder, tmp_path / "filtered") == keys


@pytest.mark.parametrize("extension", ["tif", "tiff", "ppm", "svg"])
def test_images_that_no_command_reads_are_pairs_for_none(extension: str, tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    image = encoded(photo(1), "TIFF")
    (folder / "a.tar").write_bytes(tar_of(pair("a", extension=extension, image=image)))
    found, totals = ingested(folder, tmp_path / "pool")
    assert found == trained(folder) == {}
    assert totals["dropped"] == {"image_of_other_format": 1}
    assert filtered(folder, tmp_path / "filtered") == []


@pytest.mark.parametrize(
    ("record", "text", "expected"),
    [
        ({"caption": "b"}, "a", ["a"]),
        ({"caption": "b"}, "", ["b"]),
        ({"caption": "b"}, " \n", ["b"]),
        ({"caption": "b"}, None, ["b"]),
        ({"caption": ["b", "c"]}, None, ["b", "c"]),
        ({"captions": ["b", 5, "c"]}, None, ["b", "c"]),
        ({"text": "b"}, None, ["b"]),
        ({"Text": "b"}, None, ["b"]),
        ({"text": "", "caption": "b"}, None, ["b"]),
        ({"texts": ["b", "c"], "caption": "d"}, "a", ["b", "c"]),
        ({"texts": [], "caption": "d"}, "a", ["a"]),
        ({"texts": [None, ""], "caption": "d"}, None, ["d"]),
        ({"texts": "b"}, None, ["b"]),
        ({"texts": [{"source": "alt", "text": "b", "lang": "en"}]}, "a", ["b"]),
        (V1, "a", ["a dog", "the dog"]),
        (V2, "a", ["a dog", "ein Hund"]),
        ({"texts": [["a dog", None, None]]}, None, ["a dog"]),
        ({"texts": [["x"], [], {}, 5]}, "a", ["a"]),
        ({"caption": "\ud800"}, None, []),
        ({}, None, []),
    ],
)
def test_one_rule_for_texts(
    record: dict[str, Any], text: str | None, expected: list[str], tmp_path: Path
) -> None:
    files = [("k.jpg", JPEG), ("k.json", json.dumps(record).encode())]
    if text is not None:
        files.append(("k.txt", text.encode()))
    folder = tmp_path / "tars"
    folder.mkdir()
    (folder / "a.tar").write_bytes(tar_of(files))
    assert [t.text for t in sample_texts(record, text, Counter()) if t.text] == expected
    wanted = {"k": expected} if expected else {}
    assert ingested(folder, tmp_path / "pool")[0] == wanted
    assert trained(folder) == wanted


@pytest.mark.parametrize(
    ("record", "text", "in_txt", "in_json"),
    [
        ({"caption": "a dog"}, "a dog", 0, 0),
        ({"caption": "a dog"}, "a  dog\n", 0, 0),
        ({"caption": "a dog"}, "a cat", 0, 1),
        ({"caption": ["a dog", "a cat", "a cow"]}, "a cat", 0, 2),
        ({"caption": "a dog", "title": "A Dog", "alt": ""}, None, 0, 1),
        ({"texts": ["a dog", "a cat"], "caption": "a cat"}, "a dog", 0, 0),
        ({"texts": ["a dog"], "caption": "a cat"}, "a cow", 1, 1),
        ({"texts": ["a dog"]}, " ", 0, 0),
        ({"texts": [], "caption": "a dog"}, None, 0, 0),
        ({}, None, 0, 0),
        # Curation has seen all of them.
        ({"texts": ["a dog"], "text_kept": [True], "caption": "a cat"}, "a cow", 0, 0),
    ],
)
def test_texts_that_are_not_taken_are_counted(
    record: dict[str, Any], text: str | None, in_txt: int, in_json: int, tmp_path: Path
) -> None:
    files = [("k.jpg", JPEG), ("k.json", json.dumps(record).encode())]
    files += [] if text is None else [("k.txt", text.encode())]
    folder = tmp_path / "tars"
    folder.mkdir()
    (folder / "a.tar").write_bytes(tar_of(files))
    expected = {"other_text_in_txt": in_txt, "other_text_in_json": in_json}
    expected = {reason: n for reason, n in expected.items() if n}
    assert ingested(folder, tmp_path / "pool")[1]["problems"] == expected
    skipped: Counter[str] = Counter()
    trained(folder, skipped)
    assert +skipped == expected


def test_sources_and_languages_of_texts() -> None:
    assert [vars(text) for text in sample_texts(V1, None, Counter())] == [
        {"text": "a dog", "source": "alttext", "lang": None},
        {"text": "the dog", "source": "title", "lang": None},
    ]
    assert [vars(text) for text in sample_texts(V2, None, Counter())] == [
        {"text": "a dog", "source": None, "lang": "en"},
        {"text": "ein Hund", "source": None, "lang": "de"},
    ]


def test_named_fields_come_first() -> None:
    record = {"texts": ["a"], "alt": "b", "tags": ["c", "d"]}
    assert [t.text for t in sample_texts(record, "e", Counter(), ("alt", "tags"))] == [
        "b",
        "c",
        "d",
    ]


def test_a_curated_pools_texts_keep_their_places() -> None:
    texts = [{"text": None}, {"text": "a"}, {"text": ""}, {"text": "b"}]
    assert [t.text for t in sample_texts({"texts": texts}, "x", Counter())] == [
        None,
        "a",
        None,
        "b",
    ]


@pytest.mark.parametrize("name", [*NAMES, "a/b", "a..b/c", "ab:c", "7:x", "C", "日本:語"])
def test_names_that_only_name_are_safe(name: str) -> None:
    assert is_safe_name(f"{name}.jpg")


@pytest.mark.parametrize(
    "name",
    ["../a", "a/../b", "/a", "\\a", "a\\..\\b", "C:\\a", "c:/a", "c:a", "a\x1b[2Jb", "a\nb",
     "a\x7f", "a\x9b2J", "a\u202eb", "a\u2067b", "a\u2028b", "a\udcffb", "", "x" * 2000],
)  # fmt: skip
def test_names_that_leave_or_control_are_not(name: str) -> None:
    assert not is_safe_name(name)


def bomb() -> bytes:
    return gzip.compress(bytes(200 << 20), 9)


@pytest.mark.parametrize(
    ("content", "keys", "skipped"),
    [
        (lambda: gzip.compress(tar_of(pair("a") + pair("b", image=NOISE)))[:-2000], ["a"],
         {"tar_truncated"}),
        (lambda: gzip.compress(tar_of(pair("a"))) + b"trailing", ["a"],
         {"bytes_after_end"}),
        (lambda: gzip.compress(tar_of(pair("a"))) + gzip.compress(tar_of(pair("b"))),
         ["a", "b"], set()),
        (bomb, [], set()),
        (lambda: b"\x1f\x8b\x08 no gzip", [], {"tar_unreadable"}),
    ],
)  # fmt: skip
def test_damaged_and_hostile_gzip(
    content: Callable[[], bytes], keys: list[str], skipped: set[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content())
    found: Counter[str] = Counter()
    with open_tar(path.open("rb")) as tar:
        assert tar.seek(0, 2) <= max(64 << 20, 64 * path.stat().st_size)
        assert [sample.key for sample in headers.read_samples(tar, found)] == keys
    assert set(found) == skipped


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"[" * 100_000, "json_invalid"), (b'{"a":' * 200 + b"1" + b"}" * 200, "json_invalid"),
     (b"[1]", "json_invalid"), (b"\xff", "json_invalid"),
     (b"{" + b" " * (17 << 20), "json_too_large"),
     (b'{"a": ' + b"9" * 10_000 + b"}", "json_invalid")],
)  # fmt: skip
def test_records_that_are_none_are_counted(content: bytes, problem: str) -> None:
    problems: Counter[str] = Counter()
    assert read_record(content, problems) == {}
    assert problems == {problem: 1}
