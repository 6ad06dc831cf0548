"""Arguments: what is taken; errors name the argument in Python, the option in a shell."""

from __future__ import annotations

import math
import pickle
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import metacurate as mc
from conftest import EMOJI_POOL, Command
from metacurate.arguments import (
    listed,
    number,
    parse_number,
    parse_whole,
    whole,
)
from metacurate.curation.settings import Balance
from metacurate.errors import ArgumentError
from metacurate.runtime.storage import as_address, as_addresses


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("20000", 20000), ("20,000", 20000), ("1,234,567", 1234567), ("20_000", 20000),
        ("20k", 20000), ("20K", 20000), ("1.5M", 1_500_000), ("2B", 2_000_000_000),
        ("2e4", 20000), ("2E+4", 20000), ("1,000.5", 1000.5), (".5", 0.5), ("5.", 5), ("-3", -3),
        (" 7 ", 7), ("0.06", 0.06), ("inf", math.inf), ("Infinity", math.inf),
        (20000, 20000), (np.uint32(7), 7), (np.float32(0.5), 0.5), (math.inf, math.inf),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(written: Any, read: float) -> None:
    assert parse_number(written, "t") == read
    if math.isfinite(read) and read == int(read) and not isinstance(written, float):
        assert parse_whole(written, "n") == read
        assert type(parse_whole(written, "n")) is int


@given(st.integers(-(10**15), 10**15))
def test_grouped_digits_are_the_number(value: int) -> None:
    assert parse_whole(f"{value:,}") == parse_whole(f"{value:_}") == value
    assert parse_whole(f"{value}k") == 1000 * value


@pytest.mark.parametrize(
    "written",
    ["20,00", "2,0000", ",200", "1.000,5", "", "k", "e5", ".", "-", "nan", "1e999", "0x10", "10%",
     "1 000", "20kk", "１２", "9" * 1000, "2,000k0", True, None, math.nan, [1], b"1"],
)  # fmt: skip
def test_what_is_no_number_is_told(written: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^t must be a number"):
        parse_number(written, "t")
    with pytest.raises(ArgumentError, match=r"^n must be a (whole )?number"):
        parse_whole(written, "n")


@pytest.mark.parametrize("written", ["1.5", "0.0015k", "1e-2", "inf", 1.5, 2.0])
def test_what_is_no_whole_number_is_told(written: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^n must be a (whole )?number.*not"):
        parse_whole(written, "n")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: whole("seed", -1, 0, 2**64), "seed must be from 0 to 2**64 - 1, not -1"),
        (lambda: whole("seed", 2**64, 0, 2**64), f"seed must be from 0 to 2**64 - 1, not {2**64}"),
        (lambda: whole("n", 0, 1), "n must be at least 1, not 0"),
        (lambda: whole("n", 10, 0, 10), "n must be from 0 to 9, not 10"),
        (lambda: whole("n", True), "n must be a whole number, not True"),
        (lambda: whole("n", 1.0), "n must be a whole number, not 1.0"),
        (lambda: number("x", "10"), "x must be a number, not '10'"),
        (lambda: number("x", 10**400), f"x must be a number, not 1{'0' * 59}..."),
        (lambda: as_address(3, "out"), "out must be a path or an address, not 3"),
        (lambda: as_address("a\0b", "out"), r"out must be a path or an address, not 'a\x00b'"),
        (lambda: as_address(b"x", "out"), "out must be a path or an address, not b'x'"),
        (lambda: as_addresses([3], "pool"), "pool must be a path or an address, not 3"),
    ],
)
def test_checks_say_what_is_right(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        call()
    assert str(caught.value) == message


def test_what_is_at_the_bounds_is_taken() -> None:
    assert whole("n", 0, 0, 10) == 0
    assert whole("n", np.int8(9), 0, 10) == 9
    assert whole("n", -5) == -5


NO_LISTS = [
    ("dog", "not the single string 'dog'"),
    (b"dog", "not the single bytes object b'dog'"),
    ({"dog"}, "not a set, which has no fixed order"),
    (frozenset({"dog"}), "not a frozenset"),
    ({"dog": 1}, "not a dict"),
    ({"dog": 1}.keys(), "not a dict_keys"),
    (7, "not 7"),
]


@pytest.mark.parametrize(("values", "message"), NO_LISTS)
@pytest.mark.parametrize(
    ("take", "name"),
    [
        (mc.Matcher, "entries"),
        (lambda values: mc.Matcher(["a"]).match(values), "texts"),
        (mc.make_metadata, "entries"),
        (lambda values: mc.PoolConfig(text_cols=values), "text_cols"),
    ],
)
def test_a_list_of_strings_is_no_string_and_no_set(
    take: Callable[[Any], Any], name: str, values: Any, message: str
) -> None:
    if name == "text_cols" and values == "dog":
        assert take(values).text_cols == ("dog",)  # one column
        return
    with pytest.raises(ArgumentError, match=rf"^{name} must be a list of strings, {message}"):
        take(values)


@pytest.mark.parametrize(
    "kind",
    [list, tuple, deque, iter, np.array, pa.array, lambda v: (x for x in v),
     lambda v: np.array(v, object), lambda v: pa.chunked_array([v])],
)  # fmt: skip
def test_every_list_is_taken(kind: Callable[[list[str]], Any]) -> None:
    entries = ["dog", "hot dog"]
    assert len(listed("entries", kind(entries))) == 2
    assert mc.make_metadata(kind(entries)).entries.to_pylist() == entries
    offsets, ids = mc.Matcher(kind(entries)).match(kind(["a hot dog", "no"]))
    assert (offsets.tolist(), ids.tolist()) == ([0, 2, 2], [0, 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"t": "10"}, "t must be a number, not '10'"),
        ({"t": True}, "t must be a number, not True"),
        ({"t": -1}, "t must be positive (inf: no balancing), not -1"),
        ({"t": 0}, "t must be positive (inf: no balancing), not 0"),
        ({"t": math.nan}, "t must be a number, not nan"),
        ({"p": 1.5}, "p must lie between 0 and 1, not 1.5"),
        ({"p": -0.1}, "p must lie between 0 and 1, not -0.1"),
        ({"p": "x"}, "p must be a number, not 'x'"),
        ({"target_size": 0}, "target_size must be at least 1, not 0"),
        ({"target_size": 1.5}, "target_size must be a whole number, not 1.5"),
        ({"t": 1, "seed": -1}, "seed must be from 0 to 2**64 - 1, not -1"),
        ({"t": 1, "seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"t": 1, "seed": 2**64}, f"seed must be from 0 to 2**64 - 1, not {2**64}"),
        ({"t": 1, "expect_survival": 0}, "expect_survival must lie above 0 and up to 1, not 0"),
        ({"t": 1, "expect_survival": 1.1}, "expect_survival must lie above 0 and up to 1, not 1.1"),
        ({}, "give exactly one of t, p and target_size"),
        ({"t": 1, "p": 0.5}, "give exactly one of t, p and target_size"),
    ],
)
def test_settings_of_balancing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Balance(**settings)
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, mc.UserError)


def test_settings_hold_plain_numbers() -> None:
    settings = Balance(t=np.float32(10), seed=np.uint64(2**64 - 1))
    assert settings.as_json() == {"t": 10.0, "seed": 2**64 - 1, "expect_survival": 1.0}
    assert {type(v) for v in settings.as_json().values()} == {float, int}
    assert Balance(p=1).p == 1.0
    assert Balance(t=math.inf).as_json()["t"] == "inf"
    assert Balance(p=0).p == 0.0
    assert Balance(target_size=1, expect_survival=1).target_size == 1


def test_an_error_is_told_in_the_callers_words() -> None:
    error = ArgumentError("{t} must be {what}; not {value:g}", what="{p}", value=-1.0)
    assert str(error) == "t must be {p}; not -1"
    assert error.spelled(lambda name: f"--{name}") == "--t must be {p}; not -1"
    copy = pickle.loads(pickle.dumps(error))  # as it comes from a worker
    assert str(copy) == str(error)
    assert isinstance(copy, ArgumentError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curate", "P", "--t", "-1"], "--t must be positive (inf: no balancing), not -1"),
        (["curate", "P"], "give exactly one of --t, --p and --target-size"),
        (["curate", "P", "--t", "1", "--seed", "-1"], "--seed must be from 0 to 2**64 - 1, not -1"),
        (["curate", "P", "--p", "2"], "--p must lie between 0 and 1, not 2"),
        (["plan", "OUT", "--target-size", "0"], "--target-size must be at least 1, not 0"),
        (["report", "OUT", "--t", "0"], "--t must be positive (inf: no balancing), not 0"),
        (["metadata", "build", "--out", "m.txt"], "--out must name a .json file"),
        (["metadata", "build", "--source", "titles", "--out", "m.json"],
         "nothing to build from: give --wordnet, --wikipedia or --pageviews"),
        (["pool", "filter", "x", "--out", "y"], "give --scorer or --drop-duplicates"),
        (["pool", "duplicates", "x", "--max-distance", "9"], "--max-distance must be from 0 to 5"),
    ],
)  # fmt: skip
def test_a_command_names_its_option(
    metacurate: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [str(EMOJI_POOL) if argument == "P" else argument for argument in arguments]
    if arguments[0] == "curate":
        given += ["--out", "OUT"]
    ended = metacurate(*given)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_numbers_of_options_and_of_a_configuration(metacurate: Command, tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text('{"cat": 30000, "dog": 10}')
    sweep = ["plan", "--counts", tmp_path / "counts.json", "--json"]
    expected = metacurate(*sweep, "--t", "20000").stdout
    for written in ("20,000", "20k", "2e4", "20_000"):
        assert metacurate(*sweep, "--t", written).stdout == expected
    for option, written in (("--t", "20,00"), ("--target-size", "1.5"), ("--p", "6%")):
        ended = metacurate(*sweep, option, written)
        assert ended.returncode == 2
        assert f"'{option}'" in ended.stderr
        assert written in ended.stderr
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"url": "http://a/1.jpg", "text": "a cat"}\n')
    (tmp_path / "run.toml").write_text('t = "20k"\n')
    ended = metacurate(
        "curate", pool, "--config", tmp_path / "run.toml", "--out", tmp_path / "run", "--json",
        "--no-report", "--workers", 1,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert '"t": 20000.0' in ended.stdout
    (tmp_path / "run.toml").write_text("t = true\n")
    ended = metacurate("curate", pool, "--config", tmp_path / "run.toml", "--out", tmp_path / "new")
    assert ended.returncode == 2
    assert "run.toml: t takes a value, not true" in ended.stderr


def test_paths_of_every_kind(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text('{"url": "http://a/1.jpg", "text": "a cat"}\n')
    entries = tmp_path / "entries.json"
    entries.write_text('["cat", "dog"]')

    class Located:
        def __fspath__(self) -> str:
            return str(pool)

    made = [
        mc.curate(p, m, tmp_path / str(n), t=10, workers=1, report=False)
        for n, (p, m) in enumerate(
            [
                (pool, entries),
                ([pool], ["cat", "dog"]),
                (str(pool), mc.load_metadata(entries)),
                (Located(), mc.make_metadata(pa.array(["cat", "dog"]))),
            ]
        )
    ]
    assert all(card["kept"]["pairs"] == 1 for card in made)
    assert all(card["metadata"] == made[0]["metadata"] for card in made)
    with pytest.raises(ArgumentError, match="entries must be a list of strings, not a set"):
        mc.curate(pool, {"cat"}, tmp_path / "x", t=10)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="out must be a path"):
        mc.curate(pool, entries, 5, t=10)  # type: ignore[arg-type]
    with pytest.raises(mc.UserError, match=r"check text_cols and metadata"):
        mc.curate(pool, ["zebra"], tmp_path / "y", t=10, workers=1)
