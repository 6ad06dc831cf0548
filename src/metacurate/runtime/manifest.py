"""Manifests: what a run's folder holds, to resume from and to refuse mix-ups by.

``manifest.json`` has one section per stage: its configuration (options, input fingerprints,
versions, seed), its state, its per-shard statistics and their totals. Nothing in it depends on
time, workers or restarts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from metacurate.errors import UserError
from metacurate.runtime.storage import Folder
from metacurate.version import __version__

MANIFEST = "manifest.json"
SHOWN_DIFFERENCES = 5
Statistics = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """What a stage is called, what it leaves in the run's folder, and which stages build on it."""

    name: str
    outputs: tuple[str, ...]
    downstream: tuple[Stage, ...] = ()

    def shard_state(self, position: int) -> str:
        """The name of the file that marks a shard as done."""
        return f"state/{self.name}/{shard_name(position)}.json"


def shard_name(position: int) -> str:
    """The stem of a shard's files."""
    return f"part-{position:06d}"


def read_manifest(folder: Folder) -> dict[str, Any]:
    """The run's manifest, empty if there is none yet."""
    return folder.read_json(MANIFEST) or {"metacurate": __version__, "stages": {}}


def begin(
    folder: Folder, stage: Stage, config: dict[str, Any], *, shards: int, overwrite: bool
) -> Statistics | None:
    """Open a stage of ``shards`` shards: record its configuration, or resume the same one.

    ``config`` must be plain JSON values. Returns the stage's totals if it is already complete, else
    None. Raises UserError naming what differs if the folder holds the stage with another
    configuration, unless ``overwrite``: then this stage and those downstream are removed.
    """
    manifest = read_manifest(folder)
    sections = manifest["stages"]
    config = {"metacurate": __version__, **json.loads(json.dumps(config))}
    section = sections.get(stage.name)
    stale = section is not None and section["state"] == "stale"
    if section is not None and (stale or section["config"] != config):
        if not (overwrite or stale):
            found = differences(section["config"], config)
            more = f"; and {len(found) - SHOWN_DIFFERENCES} more" * (len(found) > SHOWN_DIFFERENCES)
            raise UserError(
                f"{folder.url} holds a run with other settings: "
                f"{'; '.join(found[:SHOWN_DIFFERENCES])}{more}; "
                "use --overwrite to redo it or another --out"
            )
        # Marked before anything is removed: an interruption here leaves nothing that looks done.
        outdated = [s for s in _with_downstream(stage) if s.name in sections]
        for old in outdated:
            sections[old.name]["state"] = "stale"
        folder.write_json(MANIFEST, manifest)
        for old in outdated:
            for name in (f"state/{old.name}", *old.outputs):
                folder.remove(name)
            del sections[old.name]
        section = None
    if section is None:
        sections[stage.name] = {"config": config, "state": "running", "planned": shards}
        folder.write_json(MANIFEST, manifest)
        return None
    return section["totals"] if section["state"] == "done" else None


def _with_downstream(stage: Stage) -> Iterator[Stage]:
    yield stage
    for later in stage.downstream:
        yield from _with_downstream(later)


def finish(
    folder: Folder, stage: Stage, totals: Statistics, shards: Sequence[Statistics] = ()
) -> Statistics:
    """Close a stage: put its totals and per-shard statistics into the manifest."""
    manifest = read_manifest(folder)
    section = {**manifest["stages"][stage.name], "state": "done"}
    manifest["stages"][stage.name] = {**section, "totals": totals, "shards": list(shards)}
    folder.write_json(MANIFEST, manifest)
    return totals


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two configurations, one phrase a setting."""
    found = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key} was {_short(a)}, is now {_short(b)}")
    return found


def _short(value: Any) -> str:
    if value is None:
        return "not set"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def add_statistics(shards: Sequence[Statistics]) -> Statistics:
    """Sum numbers and nested tables of numbers over shards; other values are left out."""
    totals: Statistics = {}
    for statistics in shards:
        for key, value in statistics.items():
            if isinstance(value, dict):
                totals[key] = add_statistics([totals.get(key, {}), value])
            elif isinstance(value, int | float) and not isinstance(value, bool):
                totals[key] = totals.get(key, 0) + value
    return totals


def status(folder: Folder) -> dict[str, dict[str, Any]]:
    """How far each stage is: ``{stage: {state, shards, shards_done}}``."""
    stages = read_manifest(folder)["stages"]
    if not stages:
        raise UserError(f"{folder.url} holds no run; give the folder named by --out")
    found = {}
    for name, section in stages.items():
        done = section["state"] == "done"
        there = section["planned"] if done else len(folder.list(f"state/{name}"))
        found[name] = {
            "state": section["state"],
            "shards": section["planned"],
            "shards_done": there,
        }
    return found
