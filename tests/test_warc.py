"""Reading records: layouts, damage, sizes."""

from __future__ import annotations

import gzip
import random
import zlib
from collections import Counter
from io import BytesIO

import pytest

from metacurate.pool import warc
from metacurate.pool.warc import Record, read_records
from web_pages import members, record

KINDS = frozenset({b"metadata"})
RECORDS = [record("metadata", b"block %d " % n * 50, f"http://a.example/{n}") for n in range(20)]


def read(data: bytes, max_bytes: int = 1 << 20) -> tuple[list[Record], Counter[str]]:
    losses: Counter[str] = Counter()
    return list(read_records(BytesIO(data), KINDS, max_bytes, losses)), losses


def urls(records: list[Record]) -> list[str | None]:
    return [r.field("WARC-Target-URI") for r in records]


ALL = [f"http://a.example/{n}" for n in range(20)]


@pytest.mark.parametrize(
    "data",
    [members(*RECORDS), b"".join(RECORDS), gzip.compress(b"".join(RECORDS))],
    ids=["members", "plain", "one gzip stream"],
)
def test_layouts(data: bytes) -> None:
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


def test_a_damaged_member_costs_one_record() -> None:
    parts = [gzip.compress(r, mtime=0) for r in RECORDS]
    for position in (0, 7, 19):
        damaged = bytearray(parts[position])
        damaged[-6] ^= 0xFF  # the checksum
        data = b"".join(parts[:position]) + bytes(damaged) + b"".join(parts[position + 1 :])
        found, losses = read(data)
        assert urls(found) == ALL[:position] + ALL[position + 1 :]
        assert losses == {warc.DAMAGED_MEMBER: 1}


def test_garbage_between_members_is_passed_over() -> None:
    parts = [gzip.compress(r, mtime=0) for r in RECORDS]
    found, losses = read(parts[0] + b"\0garbage" * 1000 + b"".join(parts[1:]))
    assert urls(found) == ALL
    assert losses == {warc.DAMAGED_MEMBER: 1}


def test_a_truncated_file_costs_its_last_record() -> None:
    data = members(*RECORDS)
    found, losses = read(data[:-30])
    assert urls(found) == ALL[:-1]
    assert losses == {warc.TRUNCATED_MEMBER: 1}
    found, losses = read(b"".join(RECORDS)[:-100])
    assert urls(found) == ALL[:-1]
    assert sum(losses.values()) == 1


def test_a_member_cut_short_is_followed_by_the_next() -> None:
    parts = [gzip.compress(r, mtime=0) for r in RECORDS]
    found, losses = read(parts[0][:-40] + b"".join(parts[1:]))
    assert urls(found) == ALL[1:]
    assert sum(losses.values()) == 1


@pytest.mark.parametrize("length", [b"-1", b"99", b"3", b"99999999999999999999", b"x", b""])
def test_a_wrong_length_costs_one_record(length: bytes) -> None:
    bad = b"WARC/1.0\r\nWARC-Type: metadata\r\nContent-Length: " + length + b"\r\n\r\nhello\r\n\r\n"
    found, losses = read(members(RECORDS[0], bad, RECORDS[1]))
    assert urls(found) == ALL[:2]
    assert losses == {warc.BROKEN: 1}


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


def test_oversized_records_are_passed_over() -> None:
    noise = random.Random(0).randbytes(3 << 20)
    big = record("metadata", noise)
    found, losses = read(members(RECORDS[0], big, RECORDS[1]))
    assert urls(found) == ALL[:2]
    assert losses == {warc.OVERSIZED: 1}
    found, losses = read(RECORDS[0] + big + RECORDS[1])
    assert urls(found) == ALL[:2]
    assert losses == {warc.OVERSIZED: 1}


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
    assert losses == {warc.OVERSIZED: 1}
    assert peak < 20 << 20


def test_a_gzip_bomb_is_left_unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warc, "MAX_DISCARDED_BYTES", 8 << 20)
    bomb = gzip.compress(b"WARC/1.0\r\n" + bytes(64 << 20))
    found, losses = read(members(RECORDS[0]) + bomb + members(RECORDS[1]))
    assert urls(found) == ALL[:2]
    assert losses == {warc.OVERSIZED: 1}


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
