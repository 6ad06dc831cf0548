"""What a command reads or writes last is asked for first: no hour of work ends in a wrong name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Command
from curation_pools import fails

LATE = {
    "uids there": ("pool uids gone.csv --out there.npy", "there.npy is there already"),
    "uids folder": ("pool uids gone.csv --out folder.npy --overwrite", "is a folder; name a file"),
    "uids below a file": ("pool uids gone.csv --out file/a.npy", "nothing can be written to"),
    "only": ("pool dedup gone.csv --out o --only gone.txt", "no file or folder gone.txt"),
    "only without lists": ("pool dedup gone.csv --out o --only folder.npy", "no list of pairs"),
    "blocklist": ("pool dedup gone.csv --out o --blocklist gone", "there is no blocklist gone"),
    "counts": ("curate gone.csv -m m.json --t 5 --out o --counts gone", "there is no file gone"),
    "language map": (
        "curate gone.csv -m m.json --t 5 --out o --language-map gone", "cannot be found",
    ),
    "t of one list": ("curate gone.csv -m m.json --t 5 --out o --t-of ja=5", "--t-of needs"),
    "t of": ("curate gone.csv -m full --t 5 --out o --t-of xx=5", "has no language xx"),
    "reference": ("curate gone.csv -m full --t 5 --out o --reference xx", "no language xx, from"),
    "metadata": ("metadata build --source numbers --out folder.json", "is a folder; name a file"),
    "metadata's table": ("metadata build --source numbers --out b.json", "b.parquet is a folder"),
    "merged": ("metadata merge en=gone.json --out folder.parquet", "is a folder; name a file"),
    "comparison": ("diff gone gone --html full", "--html full is a folder; name a file"),
    "evaluation": ("eval gone --data gone --out full", "--out full is a folder; name a file"),
    "suite": ("eval gone --suite vtab --root gone --out file/a.json", "nothing can be written to"),
    "web": ("eval gone --data gone --out https://127.0.0.1:9/a.json", "cannot be written to"),
}  # fmt: skip


@pytest.mark.parametrize("case", LATE)
def test_it_is_told_before_any_work(
    case: str, metacurate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the pool, the checkpoint or the counts are looked at, none of which is there."""
    monkeypatch.chdir(tmp_path)
    for name in ("folder.npy", "folder.json", "b.parquet", "folder.parquet", "full"):
        Path(name).mkdir()
    for name in ("there.npy", "file"):
        Path(name).touch()
    Path("m.json").write_text(json.dumps(["a"]))
    for language in ("en", "ja"):
        Path(f"full/{language}.json").write_text(json.dumps(["a"]))
    before = sorted(tmp_path.rglob("*"))
    line, message = LATE[case]
    fails(metacurate(*line.split()), message)
    assert sorted(tmp_path.rglob("*")) == before
