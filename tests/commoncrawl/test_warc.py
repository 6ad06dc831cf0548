"""Reading records: layouts, damage, sizes."""

from __future__ import annotations

import gzip
import random
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from io import BytesIO

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metacurate.commoncrawl import warc
from metacurate.commoncrawl.reasons import DroppedRecord
from metacurate.commoncrawl.warc import Record, read_batches, read_records
from metacurate.kernels.bytes import BLOCK
from web_pages import members, record

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Compress = Callable[[bytes], bytes]


def compress_zstd(data: bytes) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


def compress_lz4(data: bytes) -> bytes:
    return bytes(lz4.frame.compress(data, content_checksum=True))


compressions = pytest.mark.parametrize(
    "compress", [gzip.compress, compress_zstd, compress_lz4], ids=["gzip", "zstd", "lz4"]
)

KINDS = frozenset({b"metadata"})
RECORDS = [record("metadata", b"block %d " % n * 50, f"http://a.example/{n}") for n in range(20)]


def read(data: bytes, max_bytes: int = 1 << 20) -> tuple[list[Record], Counter[str]]:
    losses: Counter[str] = Counter()
    return list(read_records(BytesIO(data), KINDS, max_bytes, losses)), losses


def urls(records: list[Record]) -> list[str | None]:
    return [r.field("WARC-Target-URI") for r in records]


ALL = [f"http://a.example/{n}" for n in range(20)]


LAYOUTS: dict[str, Callable[[Compress], bytes]] = {
    "members": lambda compress: b"".join(compress(r) for r in RECORDS),
    "one stream": lambda compress: compress(b"".join(RECORDS)),
    "plain": lambda compress: b"".join(RECORDS),
}


@compressions
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, compress: Compress) -> None:
    data = LAYOUTS[layout](compress)
    found, losses = read(data)
    assert urls(found) == ALL
    assert [r.block for r in found] == [b"block %d " % n * 50 for n in range(20)]
    assert not losses


def test_only_the_wanted_types() -> None:
    found, losses = read(members(record("response", b"x"), record("METADATA", b"y")))
    assert [r.block for r in found] == [b"y"]
    assert not losses


def test_offsets_are_those_of_the_members() -> None:
    found, _ = read(members(*RECORDS))
    data = members(*RECORDS)
    for r in found:
        inflated = zlib.decompressobj(31).decompress(data[r.offset :])
        assert inflated.startswith(b"WARC/1.0")
        assert r.block in inflated


@compressions
def test_a_damaged_member_costs_one_record(compress: Compress) -> None:
    parts = [compress(r) for r in RECORDS]
    for position in (0, 7, 19):
        damaged = bytearray(parts[position])
        damaged[-6 if compress is gzip.compress else -2] ^= 0xFF  # the checksum
        data = b"".join(parts[:position]) + bytes(damaged) + b"".join(parts[position + 1 :])
        found, losses = read(data)
        assert urls(found) == ALL[:position] + ALL[position + 1 :]
        assert losses == {DroppedRecord.DAMAGED_MEMBER: 1}


@compressions
def test_garbage_between_members_is_passed_over(compress: Compress) -> None:
    parts = [compress(r) for r in RECORDS]
    # What ends as the member before does, with its size, is garbage too.
    for garbage in (b"\0garbage" * 1000, b"\0garbage" + parts[0][-4:]):
        found, losses = read(parts[0] + garbage + b"".join(parts[1:]))
        assert urls(found) == ALL
        assert losses == {DroppedRecord.DAMAGED_MEMBER: 1}


@compressions
def test_a_truncated_file_costs_its_last_record(compress: Compress) -> None:
    data = b"".join(compress(r) for r in RECORDS)
    found, losses = read(data[:-30])
    assert urls(found) == ALL[:-1]
    assert losses == {DroppedRecord.TRUNCATED_MEMBER: 1}
    found, losses = read(b"".join(RECORDS)[:-100])
    assert urls(found) == ALL[:-1]
    assert sum(losses.values()) == 1


@compressions
def test_a_member_cut_short_is_followed_by_the_next(compress: Compress) -> None:
    parts = [compress(r) for r in RECORDS]
    found, losses = read(parts[0][:-40] + b"".join(parts[1:]))
    assert urls(found) == ALL[1:]
    assert sum(losses.values()) == 1


@pytest.mark.parametrize("length", [b"-1", b"99", b"3", b"99999999999999999999", b"x", b""])
def test_a_wrong_length_costs_one_record(length: bytes) -> None:
    bad = b"WARC/1.0\r\nWARC-Type: metadata\r\nContent-Length: " + length + b"\r\n\r\nhello\r\n\r\n"
    found, losses = read(members(RECORDS[0], bad, RECORDS[1]))
    assert urls(found) == ALL[:2]
    assert losses == {DroppedRecord.BROKEN: 1}


def test_several_records_in_a_member() -> None:
    data = members(RECORDS[0]) + gzip.compress(b"".join(RECORDS[1:3])) + members(*RECORDS[3:])
    found, losses = read(data)
    assert urls(found) == ALL
    assert not losses


def test_no_archive_at_all() -> None:
    for data in (b"<html>no archive</html>" * 100, gzip.compress(b"no archive" * 1000)):
        found, losses = read(data)
        assert not found
        assert sum(losses.values()) == 1
    assert read(b"") == ([], Counter())


@compressions
def test_oversized_records_are_passed_over(compress: Compress) -> None:
    noise = random.Random(0).randbytes(3 << 20)
    big = record("metadata", noise)
    found, losses = read(b"".join(compress(r) for r in (RECORDS[0], big, RECORDS[1])))
    assert urls(found) == ALL[:2]
    assert losses == {DroppedRecord.OVERSIZED: 1}
    found, losses = read(RECORDS[0] + big + RECORDS[1])
    assert urls(found) == ALL[:2]
    assert losses == {DroppedRecord.OVERSIZED: 1}


def test_a_record_of_100_mb_does_not_come_into_memory() -> None:
    import tracemalloc

    block = bytes(100 << 20)
    data = members(RECORDS[0], record("metadata", block), RECORDS[1])
    del block
    tracemalloc.start()
    found, losses = read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert urls(found) == ALL[:2]
    assert losses == {DroppedRecord.OVERSIZED: 1}
    assert peak < 20 << 20


@compressions
def test_a_bomb_is_left_unfinished(compress: Compress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc, "MAX_DISCARDED_BYTES", 8 << 20)
    bomb = compress(b"WARC/1.0\r\n" + bytes(64 << 20))
    found, losses = read(compress(RECORDS[0]) + bomb + compress(RECORDS[1]))
    assert urls(found) == ALL[:2]
    assert losses == {DroppedRecord.OVERSIZED: 1}


def test_failing_storage_is_no_damage() -> None:
    class Failing(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(min(size or 0, 4096))
            if not piece:
                raise OSError(5, "Input/output error")
            return piece

    for data in (members(*RECORDS), b"".join(RECORDS)):
        with pytest.raises(OSError, match="Input/output"):
            list(read_records(Failing(data), KINDS, 1 << 20, Counter()))


def read_by_batches(
    data: bytes, max_bytes: int = 1 << 20
) -> tuple[list[tuple[bytes, bytes]], Counter[str]]:
    """The blocks and addresses of records as batches have them."""
    losses: Counter[str] = Counter()
    found = []
    for batch in read_batches(BytesIO(data), b"metadata", max_bytes, losses):
        assert batch.data.endswith(bytes(BLOCK))
        for start, end, uri, uri_end in batch.spans.tolist():
            found.append((batch.data[start:end], batch.data[uri:uri_end]))
    return found, losses


HEADER_LINES = st.sampled_from(
    [
        *(b"WARC/1.0", b"WARC/1.1", b"WARC/2.0", b""),
        *(b"WARC-Type: metadata", b"WARC-Type: request", b"WARC-Type: METADATA", b"WARC-Type:"),
        *(
            b"WARC-Target-URI: http://a.example/",
            b"WARC-Target-URI:  <b> \x0b",
            b"WARC-Target-URI: ",
        ),
        *(b"warc-target-uri: http://c.example/", b"WARC-Target-Uri:\thttp://d.example/"),
        *(b"WARC-Target-URI:http://e.example/", b"WARC-Target-URI: \xff", b"WARC-Date: \rx"),
        *(b"Content-Type: application/json", b"X-Other: y", b"WARC-date: z", b" folded"),
        *(b"Content-Length: 5", b"Content-Length: 4", b"Content-Length: 05", b"content-length: 5"),
        *(b"Content-Length: 5 ", b"Content-Length: 9999999999999999999", b"Content-Length: x"),
    ]
)
USUAL_LINES = [
    b"WARC/1.0",
    b"WARC-Type: metadata",
    b"WARC-Target-URI: http://a.example/",
    b"Content-Length: 5",
]


@st.composite
def member_of_lines(draw: st.DrawFn) -> bytes:
    """A record whose header is usual, but for some lines put in or left out."""
    lines = list(USUAL_LINES)
    for line in draw(st.lists(HEADER_LINES, max_size=2)):
        at = draw(st.integers(0, len(lines)))
        lines[at : at + draw(st.integers(0, 1))] = [line]
    end = draw(st.sampled_from([b"\r\n\r\n"] * 6 + [b"", b"\r\n", b"\r\n\r\nx"]))
    return b"\r\n".join(lines) + b"\r\n\r\n" + b"hello" + end


@given(
    st.lists(st.lists(member_of_lines(), min_size=1, max_size=2), max_size=4),
    st.sampled_from([1 << 20, 5, 4]),
)
@settings(max_examples=1500)
def test_batches_have_the_same_records(groups: list[list[bytes]], max_bytes: int) -> None:
    # A usual record first: it decides how the file is read.
    for data in (
        members(RECORDS[0], *(b"".join(group) for group in groups)),
        b"".join([RECORDS[0], *(one for group in groups for one in group)]),
    ):
        expected, expected_losses = read(data, max_bytes)
        found, losses = read_by_batches(data, max_bytes)
        assert losses == expected_losses
        assert found == [
            (r.block, warc._field(r.header, "WARC-Target-URI") or b"") for r in expected
        ]


def test_looking_closely_at_every_member_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    magic = gzip.compress(warc.GZIP_MAGIC * 9, 0)  # magic bytes within a member
    good = members(*RECORDS[:5]) + magic + members(*RECORDS[5:])
    files = [good]
    for _ in range(300):
        data = bytearray(good)
        a = rng.randrange(len(data))
        data[a : a + rng.choice((0, 1, 1, 20))] = rng.choice((b"", b"\0", good[a : a + 30]))
        files.append(bytes(data))
    monkeypatch.setattr(warc, "READ_BYTES", 1000)
    found = [read(data, 1 << 10) for data in files]
    monkeypatch.setattr(warc._Window, "whole_members", lambda window, max_bytes: [])
    expected = [read(data, 1 << 10) for data in files]
    assert found == expected


def one(
    number: int, *, length: int | None = None, before: bytes = b"", line_end: bytes = b"\r\n",
    names: tuple[bytes, bytes] = (b"WARC-Type", b"Content-Length"), after: bytes = b"\r\n\r\n",
) -> bytes:  # fmt: skip
    """A record that is not quite as usual."""
    block = b"block %d" % number
    kind, size = names
    lines = [b"WARC/1.0", kind + b": metadata", b"WARC-Target-URI: http://a.example/%d" % number]
    lines += [size + b": %d" % (len(block) if length is None else length), b"", b""]
    return before + line_end.join(lines) + block + after


SOUND = {
    "small letters": one(1, names=(b"warc-type", b"content-length")),
    "LF alone": one(1, line_end=b"\n", after=b"\n\n"),
    "LF in the header": one(1, line_end=b"\n"),
    "empty lines before": one(1, before=b"\r\n\r\n\n"),
    "one line end after": one(1, after=b"\r\n"),
    "none after": one(1, after=b""),
    "many after": one(1, after=b"\r\n" * 9),
}
BROKEN = {
    "length too short": one(1, length=3),
    "no length": one(1, length=0),
    "one too short": one(1, length=6),
    "much too long": one(1, length=150),
    "over all the file": one(1, length=100_000),
    "not a number": one(1, names=(b"WARC-Type", b"Content-Length: x")),
    "no type": one(1, names=(b"X", b"Content-Length")),
    "garbage": b"\0garbage\r\n\r\n" * 9,
}


def layouts(records: list[bytes]) -> dict[str, bytes]:
    joined = b"".join(records)
    return {"members": members(*records), "plain": joined, "one stream": gzip.compress(joined)}


@pytest.mark.parametrize("layout", ["members", "plain", "one stream"])
@pytest.mark.parametrize("place", [0, 1, 4])
@pytest.mark.parametrize("odd", [*SOUND, *BROKEN])
def test_odd_records_cost_themselves_at_most(odd: str, place: int, layout: str) -> None:
    others = [one(n) for n in (2, 3, 4, 5)]
    records = [*others[:place], (SOUND | BROKEN)[odd], *others[place:]]
    found, losses = read(layouts(records)[layout])
    expected = [b"block %d" % n for n in (2, 3, 4, 5)]
    if odd in SOUND:
        expected.insert(place, b"block 1")
    assert [r.block for r in found] == expected
    assert losses == ({} if odd in SOUND else {DroppedRecord.BROKEN: 1})


@pytest.mark.parametrize("cut", [1, 30, 83, 85, 90, -4, -3])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_record_over_several_members(place: int, cut: int) -> None:
    records = [one(n) for n in range(4)]
    parts = [gzip.compress(r) for r in records]
    whole = records[place]
    parts[place : place + 1] = [gzip.compress(whole[:cut]), gzip.compress(whole[cut:])]
    found, losses = read(b"".join(parts))
    assert [r.block for r in found] == [b"block %d" % n for n in range(4)]
    assert [r.offset for r in found][:place] == sorted(r.offset for r in found)[:place]
    assert not losses
    assert read_by_batches(b"".join(parts))[0] == [
        (r.block, (r.field("WARC-Target-URI") or "").encode()) for r in found
    ]


def test_the_size_of_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    some = [*SOUND.values(), *BROKEN.values(), *RECORDS, record("metadata", bytes(3000))]
    files = []
    for _ in range(60):
        chosen = [rng.choice(some) for _ in range(12)]
        files += [b"".join(chosen), gzip.compress(RECORDS[0] + RECORDS[1] + b"".join(chosen))]
    expected = [read(data, 2000) for data in files]
    for size in (1, 7, 100):
        for name in ("PLAIN_BYTES", "INFLATE_BYTES"):
            monkeypatch.setattr(warc, name, size)
        for data, (records, losses) in zip(files, expected, strict=True):
            found, found_losses = read(data, 2000)
            assert found_losses == losses
            assert [(r.offset, r.header, r.block) for r in found] == [
                (r.offset, r.header, r.block) for r in records
            ]


def test_places_in_plain_files() -> None:
    data = b"".join([RECORDS[0], BROKEN["garbage"], *RECORDS[1:]])
    found, _ = read(data)
    assert len(found) == 20
    for r in found:
        assert data[r.offset :].startswith(r.header)


def test_hostile_headers_take_linear_time() -> None:
    import time

    start = time.process_time()
    for evil in (
        b"WARC/1.0\r\n" * 300_000,
        b"\nWARC/1.0\r\nWARC-Type: metadata\r\nContent-Length: 900000\r\n\r\n" * 20_000,
        b"WARC/1.0\r\nContent-Length: 5" * 200_000,
        b"\r\n" * 3_000_000,
        b"WARC/1.0 " + b"x" * 4_000_000,
    ):
        for data in (evil, gzip.compress(evil), gzip.compress(RECORDS[0] + RECORDS[1] + evil)):
            read(data, 1 << 20)
    assert time.process_time() - start < 30
