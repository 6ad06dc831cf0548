"""The package as a library: its names, tables in memory, results as objects, notes and progress."""

from __future__ import annotations

import ast
import inspect
import logging
import pkgutil
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

import metacurate as mc
from conftest import REPOSITORY, Command
from curation_pools import ENTRIES, make_pairs
from metacurate.cli.root import app
from metacurate.errors import ArgumentError
from metacurate.pool.memory import PIECE_ROWS, batches_of, write_batches

PAGE = (REPOSITORY / "docs" / "python-api.md").read_text(encoding="utf-8")
FUNCTIONS = dict(re.findall(r"^\| `metacurate ([\w ]+)` \| `(\w+)` \|", PAGE, re.M))
COLUMNS = mc.PoolConfig(text_cols=("alt", "title"))


def commands(group: Any, words: tuple[str, ...] = ()) -> list[str]:
    nested = getattr(group, "commands", None)
    if nested is None:
        return [" ".join(words)]
    return [one for name in nested for one in commands(nested[name], (*words, name))]


def test_every_command_has_its_function() -> None:
    import metacurate.cli  # noqa: F401  (its commands register themselves)

    assert sorted(FUNCTIONS) == sorted(commands(typer.main.get_command(app)))
    assert len(set(FUNCTIONS.values())) == len(FUNCTIONS)


@pytest.mark.parametrize("name", sorted(FUNCTIONS.values()))
def test_functions_are_public_and_typed(name: str) -> None:
    assert name in mc.__all__
    signature = inspect.signature(getattr(mc, name))
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert parameter.annotation not in ("str", "list[str]") or parameter.name in (
            *("text", "entry", "uid", "rule", "reference", "choose_text", "name", "to"),
        ), f"{parameter} takes no os.PathLike"
    assert re.search(r"Args:\n", getattr(mc, name).__doc__)


def test_names_are_the_same_for_all() -> None:
    """A room of a function's name would take its place as soon as anything imports the room."""
    assert not set(mc.__all__) & {module.name for module in pkgutil.iter_modules(mc.__path__)}
    tree = ast.parse(Path(str(mc.__file__)).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    found = [n for node in block.body if isinstance(node, ast.ImportFrom) for n in node.names]
    assert [name.name for name in found if name.asname] == []
    assert sorted(name.name for name in found) == sorted(mc.__all__)
    assert set(mc.__all__) <= set(dir(mc))
    assert (Path(str(mc.__file__)).parent / "py.typed").is_file()


def test_import_is_quick_and_silent() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import metacurate, sys; assert dir(metacurate); assert 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True,
                          check=True)  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.2


@pytest.fixture(scope="module")
def pairs() -> pa.Table:
    return make_pairs(3000)


@pytest.fixture(scope="module")
def run(pairs: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> mc.Curated:
    folder = tmp_path_factory.mktemp("library")
    pq.write_table(pairs, folder / "pool.parquet")
    return mc.curate(
        folder / "pool.parquet", ENTRIES, folder / "out", t=100, pool_config=COLUMNS, workers=1
    )


def data_set(table: pa.Table) -> Any:
    datasets = pytest.importorskip("datasets")
    # Its rows are chosen by an index over the table.
    whole = datasets.Dataset(pa.concat_tables([table, table.slice(0, 5)]))
    return whole.select(range(table.num_rows))


KINDS: dict[str, Callable[[pa.Table], Any]] = {
    "table": lambda table: table,
    "reader": lambda table: table.to_reader(max_chunksize=7),
    "batches": lambda table: table.to_batches(max_chunksize=999),
    "generator": lambda table: (batch for batch in table.to_batches(max_chunksize=100)),
    "pandas": lambda table: table.to_pandas(),
    "polars": pl.from_arrow,
    "polars frames": lambda table: [pl.from_arrow(table.slice(0, 9)), pl.from_arrow(table[9:])],
    "datasets": data_set,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_in_memory_gives_the_rows_of_its_file(
    kind: str, run: mc.Curated, pairs: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = mc.curate(KINDS[kind](pairs), ENTRIES, t=100, pool_config=COLUMNS, workers=1)
    assert found.out is None
    assert list(tmp_path.iterdir()) == []
    expected = run.to_arrow()
    assert 0 < expected.num_rows == run.kept["pairs"] < pairs.num_rows
    assert found.to_arrow().cast(expected.schema).equals(expected)
    assert found.kept == run.kept
    assert found.entry_counts_kept == run.entry_counts_kept


def test_a_subset_is_a_pool_again(run: mc.Curated) -> None:
    again = mc.curate(run, ENTRIES, t=float("inf"), workers=1)
    assert again.kept["pairs"] == run.kept["pairs"]
    assert pa.table(run).equals(run.to_arrow())
    assert pl.DataFrame(run).height == run.kept["pairs"]


def test_pools_in_memory_go_from_function_to_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each returns is what it writes, and the next one's pool; nothing is left on disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = make_pairs(300)
    table = pa.concat_tables([table, table.slice(10, 50)])
    pq.write_table(table, tmp_path / "pool.parquet")
    given = {"pool_config": COLUMNS, "workers": 1}
    by_file = mc.dedup(tmp_path / "pool.parquet", tmp_path / "clean", **given)
    clean = mc.dedup(pl.from_arrow(table), **given)
    assert (clean.out, clean.totals) == (None, by_file.totals)
    rows = table.to_pylist()
    assert clean["pairs"] == len({r["url"] for r in rows if r["url"] and (r["alt"] or r["title"])})
    assert set(clean) == set(clean.totals)
    assert clean.to_arrow().equals(by_file.to_arrow())
    assert clean.to_arrow().equals(pq.read_table(tmp_path / "clean" / "pool"))
    # Each library takes the rows, not the totals.
    assert pl.DataFrame(clean).height == pa.table(clean).num_rows == clean["pairs"]
    monkeypatch.setitem(sys.modules, "shouting", _Shouting)
    language = mc.LanguageConfig(identifier="shouting:identifier")
    named = mc.identify_languages(clean, config=language, workers=1)
    texts = pa.table(named)["texts"].to_pylist()
    assert "en" in {text["lang"] for row in texts for text in row} <= {"en", "und"}
    curated = mc.curate(named, ENTRIES, t=20, workers=1)
    uids = mc.uids(curated, tmp_path / "uids.npy", workers=1)
    assert uids["uids"] == curated.kept["pairs"] == len(np.load(tmp_path / "uids.npy")) > 0
    matched = mc.match(clean, ENTRIES, tmp_path / "run", workers=1)
    assert matched["pairs_matched"] == curated.matched["pairs"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clean", "pool.parquet", "run", "uids.npy",
    ]  # fmt: skip
    hostile = "<script>alert(1)</script>\x1b[2J"
    page = mc.WrittenPool({"rows": 1234, "bad_files": {hostile: hostile}}, hostile)._repr_html_()
    assert "1,234" in page
    assert "<script" not in page
    assert "\x1b" not in page
    assert repr(by_file) == (
        f"WrittenPool(units=1, rows=350, pairs={clean['pairs']}, texts_read="
        f"{clean['texts_read']}, texts={clean['texts']}, shards=1, out={by_file.out!r})"
    )


class _Shouting:
    """A module with an identifier for which everything is English."""

    class identifier:
        def identify(self, texts: list[str]) -> tuple[list[str], list[float]]:
            return ["en"] * len(texts), [1.0] * len(texts)


def test_a_table_lies_in_the_output_folder_and_another_one_is_refused(
    pairs: pa.Table, tmp_path: Path
) -> None:
    def curate(table: pa.Table, **options: Any) -> mc.Curated:
        return mc.curate(
            table, ENTRIES, tmp_path, t=100, pool_config=COLUMNS, workers=1, report=False, **options
        )

    first = curate(pairs)
    made = (tmp_path / "manifest.json").stat().st_mtime_ns
    uid = first.to_arrow()["uid"][0].as_py().hex()
    assert curate(pairs).kept == first.kept
    assert (tmp_path / "manifest.json").stat().st_mtime_ns == made
    (pair,) = mc.inspect_uid(uid, tmp_path)["pairs"]
    assert pair["kept"]
    assert pair["url"].startswith("http://example.org/")
    with pytest.raises(ArgumentError, match="has the results of another pool"):
        curate(pairs.slice(1))
    assert pq.read_metadata(tmp_path / ".given/pool.parquet").num_rows == pairs.num_rows
    assert curate(pairs.slice(1), overwrite=True).pool["pairs"] == first.pool["pairs"] - 1


def test_the_file_of_a_table_does_not_depend_on_its_batches(tmp_path: Path) -> None:
    rows = PIECE_ROWS + 5
    table = pa.table({
        "text": pa.array([f"a {i % 50} b" for i in range(rows)]).dictionary_encode(),
        "view": pa.array([None if i % 7 == 0 else str(i) for i in range(rows)], pa.string_view()),
        "many": pa.array([[{"a": i}] for i in range(rows)]),
    })  # fmt: skip
    files = []
    for size in (1, 700, PIECE_ROWS, rows):
        files.append(tmp_path / f"{size}.parquet")
        batches = batches_of(iter(table.to_batches(max_chunksize=size)))
        assert batches is not None
        assert not write_batches(batches, files[-1])
    assert len({file.read_bytes() for file in files}) == 1
    assert pq.read_table(files[0]).to_pylist() == table.to_pylist()


TABLE = pa.table({"url": ["http://a.example/1"], "text": ["a cat"]})


@pytest.mark.parametrize(
    ("pool", "message"),
    [
        ({"url": ["x"]}, "make a table of a mapping"),
        (iter([]), "gives no batch"),
        (iter(["a.parquet"]), "item 0 of pool must be a table"),
        (5, "must be a list of paths"),
        (pa.array(["x"]), "is no table"),
        (pd.DataFrame([["u", "a", "b"]], columns=["url", "text", "text"]), "is no table"),
        ([TABLE, TABLE.select(["url"])], "has other columns than the first: url: string"),
        (TABLE.slice(0, 0), "has no rows"),
        (TABLE.select(["text"]), "no URL or key column"),
    ],
    ids=["mapping", "no batch", "paths", "number", "array", "names", "other", "no rows", "no URL"],
)
def test_what_is_no_pool_is_one_line(pool: Any, message: str) -> None:
    with pytest.raises(mc.UserError, match=message):
        mc.curate(pool, ["cat"], t=1, workers=1)


WRITERS: dict[str, Callable[[pa.Table, Path], Any]] = {
    "curate": lambda pool, out: mc.curate(pool, ["cat"], out, t=1, report=False, workers=1),
    "match": lambda pool, out: mc.match(pool, ["cat"], out, workers=1),
    "dedup": lambda pool, out: mc.dedup(pool, out, workers=1),
    "identify_languages": lambda pool, out: mc.identify_languages(pool, out, workers=1),
    "download": lambda pool, out: mc.download(pool, out, workers=1),
    "uids": lambda pool, out: mc.uids(pool, out.with_name("list.npy"), workers=1),
}


@pytest.mark.parametrize("name", WRITERS)
def test_nothing_stays_of_a_table_that_is_no_pool(name: str, tmp_path: Path) -> None:
    """So that the next one, repaired, is not taken for another pool of the same run."""
    with pytest.raises(mc.UserError, match="no URL"):
        WRITERS[name](TABLE.rename_columns(["x", "text"]), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    if name != "uids":  # a list of none is a list
        with pytest.raises(mc.UserError, match="has no rows"):
            WRITERS[name](TABLE.slice(0, 0), tmp_path / "out")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["dedup", "identify_languages"])
def test_the_folder_of_a_written_pool_holds_that_pool_alone(name: str, tmp_path: Path) -> None:
    """And not the table that it was made of."""
    table = pa.concat_tables([TABLE, TABLE])
    written = WRITERS[name](table, tmp_path / "out")
    found = mc.uids(tmp_path / "out", tmp_path / "list.npy", workers=1)
    assert found["files"] == 1
    assert found["rows"] == written.to_arrow().num_rows
    (shard,) = (tmp_path / "out/pool").iterdir()
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(mc.UserError, match=r"part-000000\.parquet is damaged"):
        written.to_arrow()


TEXTS = ["a red cat", None, "dog"]


@pytest.mark.parametrize(
    "texts",
    [
        pd.Series(TEXTS),
        pd.Series(["a red cat", float("nan"), "dog"], dtype=object),
        pd.Series(TEXTS, dtype="category"),
        pl.Series(TEXTS),
        pl.Series(TEXTS, dtype=pl.Categorical),
        pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
        pa.array(TEXTS, pa.string_view()),
    ],
    ids=["pandas", "NaN", "category", "polars", "Categorical", "chunks", "views"],
)
def test_columns_of_any_library_are_matched_and_are_entries(texts: Any) -> None:
    matcher = mc.Matcher(["cat", "dog", "red"])
    offsets, ids = matcher.match(texts)
    assert (offsets.tolist(), ids.tolist()) == ([0, 2, 2, 3], [0, 2, 1])
    entries = texts[2:] if isinstance(texts, pa.ChunkedArray | pa.Array) else texts.tail(1)
    assert mc.make_metadata(entries).entries.to_pylist() == ["dog"]
    assert len(mc.Matcher(entries)) == 1
    assert repr(matcher) == "Matcher(3 entries, rule='v1')"


def test_a_result_has_its_parts_and_shows_itself(run: mc.Curated) -> None:
    assert run.kept is run["kept"]
    assert set(run) == set(run.card)
    assert "languages" not in run
    assert run.languages == {}
    assert f"{run.kept['pairs']:,} of {run.pool['pairs']:,} pairs, t=100, out=" in repr(run)
    assert sum(run.entry_counts.values()) == run.matched["match_counts"]
    hostile = "<script>alert(1)</script>\x1b[2J"
    page = mc.Curated(
        {**run.card, "pool": {**run.pool, "bad_files": {hostile: hostile}}}, hostile
    )._repr_html_()
    assert f"{run.kept['pairs']:,}" in page
    assert "<script" not in page
    assert "\x1b" not in page


def test_the_stages_one_by_one_give_what_curate_gives(
    run: mc.Curated, metacurate: Command, tmp_path: Path
) -> None:
    assert run.out is not None
    pool, folder = Path(run.out).with_name("pool.parquet"), tmp_path / "out"
    matched = mc.match(pool, ENTRIES, folder, pool_config=COLUMNS, workers=1)
    assert matched["pairs_matched"] == run.matched["pairs"]
    assert mc.count(folder, workers=1)["match_counts"] == run.matched["match_counts"]
    assert mc.balance_run(folder, t=100, workers=1).to_arrow().equals(run.to_arrow())
    states = {
        name: stage["state"] for name, stage in mc.status(folder, verify=True)["stages"].items()
    }
    assert states == dict.fromkeys(("match", "count", "balance", "card", "readme"), "done")
    difference = mc.diff(folder, run.out)
    assert difference["after"]["jensen_shannon_divergence"] == 0
    (plan,) = mc.plan(folder, mc.Sweep(t=(100,)), workers=1)
    assert plan.pairs[1] == pytest.approx(run.kept["pairs_expected"])
    counts = np.load(folder / "counts.npy")
    (bound,) = mc.plan(counts=counts, sweep=mc.Sweep(t=(100,)))
    assert bound.draws == plan.draws
    text = mc.inspect_text("a dog on a mat", folder)
    given = mc.inspect_text("a dog on a mat", metadata=ENTRIES, counts=counts, t=100)
    assert text == given
    assert mc.inspect_entry("dog", folder, workers=1)["count"] == counts[ENTRIES.index("dog")]
    assert mc.report(folder, mc.ReportConfig(samples=1), workers=1)["pairs"] == run.pool["pairs"]
    assert mc.describe_metadata(ENTRIES, entries=1)["first"] == ENTRIES[:1]


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda out: mc.extract("x", out, mc.ExtractConfig(languages="en")), "languages"),  # type: ignore[arg-type]
        (lambda out: mc.filter("x", out, mc.FilterConfig(scorers="faces")), "scorers"),  # type: ignore[arg-type]
        (lambda out: mc.build_metadata(out, mc.BuildConfig(dumps="enwiki")), "dumps"),  # type: ignore[arg-type]
        (
            lambda out: mc.download("x", out, mc.DownloadConfig(mc.ColumnNames(texts="alt"))),  # type: ignore[arg-type]
            "texts",
        ),
    ],
    ids=["extract", "filter", "build_metadata", "download"],
)
def test_a_string_is_no_list_of_settings(
    call: Callable[[Path], Any], name: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=f"{name} must be a list"):
        call(tmp_path / "out.json")
    assert not list(tmp_path.iterdir())


def test_notes_are_logged_and_a_function_is_told_of_progress(
    pairs: pa.Table, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[mc.Progress] = []
    with caplog.at_level(logging.INFO):
        found = mc.curate(
            pairs, ENTRIES, t=100, pool_config=COLUMNS, workers=1, progress=told.append
        )
    assert {record.name for record in caplog.records} == {"metacurate"}
    assert "1 Parquet file" in caplog.messages[0]
    assert [(one.stage, one.done) for one in told if one.done == one.total] == [
        (stage, 1) for stage in ("match", "count", "balance", "card")
    ]
    assert {one.stage: (one.unit, one.items) for one in told if one.done == one.total} == {
        "match": ("texts", found.pool["texts"]),
        "count": ("matches", found.matched["match_counts"]),
        "balance": ("pairs", found.matched["pairs"]),
        "card": ("matches", found.kept["match_counts"]),
    }
    assert capsys.readouterr() == ("", "")


def test_notes_are_shown_where_no_logging_is_set_up(tmp_path: Path) -> None:
    code = (
        "import logging, pyarrow as pa, metacurate as mc\n"
        "pool = pa.table({'url': ['http://a.example/1'], 'text': ['a cat']})\n"
        "mc.curate(pool, ['cat'], t=1, workers=1, show_progress=True)\n"
        "logging.basicConfig(level='ERROR')\n"
        "mc.curate(pool, ['cat'], t=1, workers=1, show_progress=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.count("1 Parquet file") == 1


def test_results_are_found_after_a_change_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"url": ["https://x.example/1", "https://x.example/2"], "text": ["cat", "a"]})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    curated = mc.curate(table, metadata=["cat"], t=1, out="run")
    pool = mc.dedup(table, out="pool")
    assert (curated.out, pool.out) == ("run", "pool")
    monkeypatch.chdir("elsewhere")
    assert curated.to_arrow()["text"].to_pylist() == ["cat"]
    assert curated.entry_counts == {"cat": 1}
    assert len(pool.to_arrow()) == 2


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
def test_numbers_of_workers(workers: Any) -> None:
    table = pa.table({"url": ["https://x.example/1"], "text": ["a cat"]})
    with pytest.raises(ArgumentError, match=r"^workers must be (at least 1|a whole number)"):
        mc.curate(table, metadata=["cat"], t=1, workers=workers)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (lambda run: mc.inspect_entry(3, run), "entry must be a string, not 3"),
        (lambda run: mc.inspect_entry("cat", run, samples=-1), "samples must be at least 0"),
        (lambda run: mc.inspect_entry("cat", run, samples=0.5), "samples must be a whole number"),
        (lambda run: mc.inspect_text(None, run), "text must be a string, not None"),
        (lambda run: mc.inspect_uid(b"0" * 32, run), "uid must be a string"),
        (lambda run: mc.diff(run, run, top=-1), "top must be at least 0"),
        (lambda run: mc.diff(run, run, html=run / "datacard.json"), "html .* is read too"),
        (lambda run: mc.diff(run / ".." / "b.json", run, html=run / "../b.json"), "is read too"),
    ],
)
def test_what_cannot_be_asked_of_a_run(
    asked: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    table = pa.table({"url": ["https://x.example/1"], "text": ["a cat"]})
    run = tmp_path / "run"
    mc.curate(table, metadata=["cat"], t=1, out=run)
    (tmp_path / "b.json").write_text('{"cat": 2}')
    with pytest.raises(ArgumentError, match=said):
        asked(run)
    assert mc.diff(tmp_path / "b.json", run)["before"]["match_counts"] == [2, 1]
