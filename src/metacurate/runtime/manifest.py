"""Manifests: what a run's folder holds, to resume from, to refuse mix-ups by and to notice damage.

``manifest.json`` has one section per stage: its configuration (options, input fingerprints, seed),
its state and its totals. ``manifest/STAGE.json`` has what grows with the shards of a finished
stage: their statistics, and the size and checksum of each file that it wrote. Nothing in them
depends on time, workers or restarts.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from metacurate.arguments import shown
from metacurate.errors import ArgumentError, UserError
from metacurate.runtime.storage import Folder, Written, checksum
from metacurate.version import __version__

MANIFEST = "manifest.json"
DETAILS = "manifest"
STARTED = "state/started"
SHOWN_DIFFERENCES = 5
Statistics = dict[str, Any]
Files = Mapping[str, Written]


@dataclass(frozen=True)
class Stage:
    """What a stage is called, what it leaves in the run's folder, and which stages build on it.

    Attributes:
        name: Of its section in the manifest and of its folder in ``state/``.
        outputs: Names of files and folders that are this stage's alone.
        downstream: Stages whose results are void once this one's change.
        format: Raised when the bytes that it writes change: older results are then made again.
        files: A pattern of further files that it writes directly into the folder (tar shards).
    """

    name: str
    outputs: tuple[str, ...]
    downstream: tuple[Stage, ...] = ()
    format: int = 1
    files: str | None = None

    def shard_state(self, position: int) -> str:
        """The name of the file that marks a shard as done."""
        return f"state/{self.name}/{shard_name(position)}.json"

    @property
    def details(self) -> str:
        """The name of the file with its shards' statistics and its files."""
        return details_name(self.name)

    def present(self, folder: Folder) -> list[str]:
        """What lies in the folder under the names of this stage's outputs."""
        found = [name for name in self.outputs if folder.exists(name)]
        if self.files is not None:
            found += [name for name in folder.list() if re.fullmatch(self.files, name)]
        return found


def shard_name(position: int) -> str:
    """The stem of a shard's files."""
    return f"part-{position:06d}"


def details_name(stage: str) -> str:
    """The name of the file with what grows with the shards of a stage."""
    return f"{DETAILS}/{stage}.json"


def read_manifest(folder: Folder) -> dict[str, Any]:
    """The run's manifest, empty if there is none yet."""
    return folder.read_json(MANIFEST) or {"metacurate": __version__, "stages": {}}


def begin(
    folder: Folder,
    stage: Stage,
    config: Mapping[str, Any],
    *,
    overwrite: bool,
    replace: bool = False,
) -> Statistics | None:
    """Open a stage: record its configuration, or resume the same one.

    ``config`` must be plain JSON values. Returns the stage's totals if it is complete and its files
    are there with the sizes that they had, else None. Raises UserError naming what differs if the
    folder holds the stage with another configuration, unless ``overwrite``: then this stage and
    those downstream are removed; and if files lie under its names that no run of it wrote. With
    ``replace`` another configuration is no error, and the old files stay until new ones take
    their place.
    """
    manifest = read_manifest(folder)
    sections = manifest["stages"]
    config = _as_recorded(stage, config)
    section = sections.get(stage.name)
    stale = section is not None and section["state"] == "stale"
    if section is not None and (stale or section["config"] != config):
        if not (overwrite or stale or replace):
            found = differences(section["config"], config)
            more = f"; and {len(found) - SHOWN_DIFFERENCES} more" * (len(found) > SHOWN_DIFFERENCES)
            raise ArgumentError(
                "{folder} holds a run with other settings: {differences}; use {overwrite} to redo "
                "it or another output folder",
                folder=folder.url,
                differences="; ".join(found[:SHOWN_DIFFERENCES]) + more,
            )
        # Marked before anything is removed: an interruption here leaves nothing that looks done.
        outdated = _mark_stale(sections, stage)
        folder.write_json(MANIFEST, manifest)
        for old in outdated:
            outputs = () if replace else old.present(folder)
            for name in (f"state/{old.name}", old.details, *outputs):
                folder.remove(name)
            del sections[old.name]
        section = None
    elif section is None and (found := stage.present(folder)):
        raise UserError(
            f"{folder.address(found[0])} is there already and was not made by this command; "
            "use another output folder"
        )
    if section is None:
        sections[stage.name] = {"config": config, "state": "running", "planned": 0}
        folder.write_json(MANIFEST, manifest)
        return None
    if section["state"] != "done":
        return None
    if not (lost := lost_files(folder, stage.name, section)):
        return section["totals"]
    for name in ("totals", "discarded"):
        section.pop(name, None)
    section |= {"state": "running", "damaged": lost}
    folder.write_json(MANIFEST, manifest)
    return None


def _mark_stale(sections: dict[str, Any], stage: Stage) -> list[Stage]:
    """Mark a stage and those downstream; returns those that there are."""
    outdated = [s for s in _with_downstream(stage) if s.name in sections]
    for old in outdated:
        sections[old.name]["state"] = "stale"
    return outdated


def _with_downstream(stage: Stage) -> Iterator[Stage]:
    yield stage
    for later in stage.downstream:
        yield from _with_downstream(later)


def plan(folder: Folder, stage: Stage, shards: int) -> None:
    """Record how many shards a stage that has begun will have."""
    manifest = read_manifest(folder)
    section = manifest["stages"][stage.name]
    if section["planned"] != shards:
        section["planned"] = shards
        folder.write_json(MANIFEST, manifest)


def widen(folder: Folder, stage: Stage, config: Mapping[str, Any]) -> None:
    """Record further settings of a stage that has begun; what it has made stays as it is."""
    manifest = read_manifest(folder)
    section = manifest["stages"][stage.name]
    if section["config"] != (config := _as_recorded(stage, config)):
        section["config"] = config
        folder.write_json(MANIFEST, manifest)


def started(folder: Folder, stage: Stage, done: int = 0) -> None:
    """Note that a run sets to work on a stage, and how much was done: ``status`` tells its rate."""
    folder.write_json(_started_name(stage.name), {"done": done})


def since_start(folder: Folder, stage: str) -> tuple[float, int] | None:
    """When the present run, or the last one, set to work on a stage, and what was done by then.

    In seconds since 1970, by the store's clock; None if it is not known.
    """
    name = _started_name(stage)
    at, content = folder.times(STARTED).get(name), folder.read_json(name)
    return None if at is None or content is None else (at, content["done"])


def _started_name(stage: str) -> str:
    return f"{STARTED}/{stage}.json"


def abandon(folder: Folder, stage: Stage) -> None:
    """Forget a stage that has begun if it turns out, before any work, that its settings cannot be.

    Other settings are then no change of them. A folder without another stage is no run's any more.
    """
    manifest = read_manifest(folder)
    if manifest["stages"][stage.name]["planned"]:
        return
    for name in (stage.details, *stage.present(folder)):
        folder.remove(name)
    del manifest["stages"][stage.name]
    if manifest["stages"]:
        folder.write_json(MANIFEST, manifest)
        return
    for name in (MANIFEST, DETAILS, "state"):
        folder.remove(name)


def remove_damaged(folder: Folder, stage: Stage) -> None:
    """Remove what is left of a stage's damaged files: a file that is missing is made again."""
    for name in read_manifest(folder)["stages"][stage.name].get("damaged", ()):
        folder.remove(name)


def finish(
    folder: Folder,
    stage: Stage,
    totals: Statistics,
    shards: Sequence[Statistics] = (),
    files: Files | None = None,
) -> Statistics:
    """Close a stage: put its totals into the manifest, its shards' statistics and files beside it.

    Files in ``state/`` are left out: nothing needs them after the stage.
    """
    own = (MANIFEST, DETAILS, "state")
    kept = {n: w for n, w in sorted((files or {}).items()) if not any(_below(n, o) for o in own)}
    folder.write_json(stage.details, {"shards": list(shards), "files": kept})
    folder.remove(_started_name(stage.name))  # it depends on restarts
    manifest = read_manifest(folder)
    section = {**manifest["stages"][stage.name], "state": "done"}
    section.pop("damaged", None)
    manifest["stages"][stage.name] = {**section, "totals": totals}
    folder.write_json(MANIFEST, manifest)
    return totals


def finished(
    folder: Folder, stage: Stage, config: Mapping[str, Any] | None = None
) -> Statistics | None:
    """The totals of a stage that is complete and whole, else None; if given, with this config."""
    section = read_manifest(folder)["stages"].get(stage.name)
    if section is None or section["state"] != "done" or lost_files(folder, stage.name, section):
        return None
    if config is None:
        return section["totals"]
    return section["totals"] if section["config"] == _as_recorded(stage, config) else None


def has_begun(folder: Folder, stage: Stage, config: Mapping[str, Any]) -> bool:
    """Whether a folder holds a stage with this config, however far it is."""
    section = read_manifest(folder)["stages"].get(stage.name)
    return section is not None and section["config"] == _as_recorded(stage, config)


def _as_recorded(stage: Stage, config: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in config.items():
        _check_numbers(name, value)
    return {"format": stage.format, **json.loads(json.dumps(config))}


def _check_numbers(name: str, value: Any) -> None:
    """ArgumentError if a setting holds a whole number that a manifest cannot: of over 64 bits."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_numbers(key if str(key).isidentifier() else name, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_numbers(name, item)
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ArgumentError(
            f"{{{name}}} must be a number of at most 64 bits, not {{value}}", value=shown(value)
        )


def reopen(folder: Folder, stage: Stage) -> None:
    """Have a finished stage run again with the same settings."""
    manifest = read_manifest(folder)
    section = manifest["stages"].get(stage.name)
    if section is not None and section["state"] == "done":
        section["state"] = "running"
        folder.write_json(MANIFEST, manifest)


def void(folder: Folder, stages: Sequence[Stage]) -> None:
    """Have stages and those downstream start over, without what they made."""
    manifest = read_manifest(folder)
    for stage in stages:
        _mark_stale(manifest["stages"], stage)
    folder.write_json(MANIFEST, manifest)


def are_done(manifest: Mapping[str, Any], stages: Sequence[Stage]) -> bool:
    """Whether a run has any of these stages, and has finished those that it has."""
    found = [manifest["stages"][s.name] for s in stages if s.name in manifest["stages"]]
    return bool(found) and all(section["state"] == "done" for section in found)


def discard(folder: Folder, names: Collection[str]) -> None:
    """Remove sub-folders that only the stages of a finished run needed; they count as intended."""
    manifest = read_manifest(folder)
    for stage, section in manifest["stages"].items():
        files = kept_files(folder, stage, section) or {}
        gone = {n for n in names if any(_below(file, n) for file in files)}
        if gone:
            section["discarded"] = sorted(gone.union(section.get("discarded", ())))
    folder.write_json(MANIFEST, manifest)
    for name in names:
        folder.remove(name)


def _below(file: str, name: str) -> bool:
    return file == name or file.startswith(f"{name}/")


def kept_files(folder: Folder, stage: str, section: Mapping[str, Any]) -> Files | None:
    """The files of a finished stage that were not discarded; None if it is not known any more."""
    if section["state"] != "done":
        return {}
    details = folder.read_json(details_name(stage))
    if details is None:
        return None
    gone = section.get("discarded", ())
    return {n: w for n, w in details["files"].items() if not any(_below(n, o) for o in gone)}


def lost_files(folder: Folder, stage: str, section: Mapping[str, Any]) -> list[str]:
    """The files of a finished stage that are not there, or not with the size that they had.

    What was discarded counts as lost: whoever needs the stage again needs it.
    """
    files = kept_files(folder, stage, section)
    if files is None:
        return [details_name(stage)]
    return [*_lost_of(folder, files), *section.get("discarded", ())]


def _lost_of(folder: Folder, files: Files) -> list[str]:
    sizes: dict[str, int] = {}
    for parent in sorted({name.rpartition("/")[0] for name in files}):
        sizes |= folder.sizes(parent)
    return [name for name, written in files.items() if sizes.get(name) != written["bytes"]]


def verify(folder: Folder, *, mark: bool = True) -> dict[str, str]:
    """Compare all files of finished stages with the checksums in the manifest.

    Returns ``{name: what is wrong}``; with ``mark`` these files are marked as damaged, so that the
    command that made the run makes them again.
    """
    manifest = read_manifest(folder)
    wrong: dict[str, str] = {}
    for stage, section in manifest["stages"].items():
        files = kept_files(folder, stage, section)
        if files is None:
            files = {details_name(stage): {"bytes": -1, "xxh3": ""}}
        missing = {*files}.intersection(_lost_of(folder, files))
        found = dict.fromkeys(missing, "is missing or has another size")
        for name in files.keys() - missing:
            with folder.open(name) as file:
                if checksum(file) != files[name]["xxh3"]:
                    found[name] = "has other bytes than were written"
        if found:
            section.pop("totals", None)
            section |= {"state": "running", "damaged": sorted(found)}
        wrong |= found
    if wrong and mark:
        folder.write_json(MANIFEST, manifest)
    return dict(sorted(wrong.items()))


def digest(*configs: Any) -> str:
    """A short name for settings: workers keep what they derived from a folder under it."""
    text = json.dumps(configs, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
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
        _add(totals, statistics)
    return totals


def _add(totals: Statistics, statistics: Statistics) -> None:
    for key, value in statistics.items():
        if isinstance(value, dict):
            _add(totals.setdefault(key, {}), value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            totals[key] = totals.get(key, 0) + value


RATED_SHARDS = 32


@dataclass(frozen=True)
class Progress:
    """How far a stage is, by when its files were written.

    Attributes:
        state: Whether it is at work; ``stopped`` if no process holds the folder.
        shards: All of its shards.
        shards_done: The finished ones.
        age_seconds: Since the stage ended; of one that has not, since its newest shard, or since
            it began if there is none. None if the store does not say.
        shards_per_minute: Over its newest ``RATED_SHARDS``, of the present run (or the last one);
            None of fewer than two, or if it ended.
        seconds_left: At this rate, of a running stage.
        parts: What its shards are called, if they are no shards: ``steps``, ``runs``.
    """

    state: Literal["done", "running", "stopped", "stale"]
    shards: int
    shards_done: int
    age_seconds: float | None = None
    shards_per_minute: float | None = None
    seconds_left: float | None = None
    parts: str = "shards"


def status(folder: Folder, *, held: bool) -> dict[str, Progress]:
    """How far each stage is; ``held``: whether a process holds the folder (else it has stopped)."""
    stages = read_manifest(folder)["stages"]
    if not stages:
        raise UserError(f"{folder.url} holds no run; give the output folder of a run")
    ended, begun = folder.times(DETAILS), folder.times().get(MANIFEST)
    found = {}
    for name, section in stages.items():
        state, planned = section["state"], section["planned"]
        if state == "done":
            age = seconds_since(ended.get(details_name(name), begun))
            found[name] = Progress(state, planned, planned, age)
            continue
        if state == "running" and not held:
            state = "stopped"
        done = len(folder.list(f"state/{name}"))
        times = sorted(folder.times(f"state/{name}").values())
        start = since_start(folder, name)
        of_run = [at for at in times if start is None or at >= start[0]]
        rate = _per_minute(of_run[-RATED_SHARDS - 1 :])
        left = 60 * (planned - done) / rate if rate and state == "running" else None
        found[name] = Progress(
            state, planned, done, seconds_since(times[-1] if times else begun), rate, left
        )
    return found


def seconds_since(at: float | None) -> float | None:
    """Seconds since then: never fewer than none, whatever the store's clock says."""
    return None if at is None else max(0.0, time.time() - at)


def _per_minute(times: Sequence[float]) -> float | None:
    """How many shards a minute follow the first of these sorted times."""
    seconds = times[-1] - times[0] if times else 0.0
    return 60 * (len(times) - 1) / seconds if seconds > 0 else None
