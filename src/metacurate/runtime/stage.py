"""Stages: pure functions over shards that resume, notice damage and record what they made.

While a stage runs, each finished shard leaves ``state/STAGE/part-NNNNNN.json`` (its statistics, and
the sizes and checksums of its files), written after the shard's own files: its presence is what
"done" means, so a killed run loses only shards under way. Nothing in these files depends on time,
workers or restarts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypedDict, TypeVar, Unpack, overload

from metacurate.errors import ArgumentError
from metacurate.runtime.engine import Task
from metacurate.runtime.manifest import (
    Stage,
    Statistics,
    abandon,
    add_statistics,
    are_done,
    begin,
    finish,
    plan,
    read_manifest,
    remove_damaged,
    started,
    void,
)
from metacurate.runtime.progress import meter
from metacurate.runtime.run import Run
from metacurate.runtime.storage import Folder, Written, read_ahead, recorded
from metacurate.runtime.tracking import Metrics, Pace, trackers

Totals = TypeVar("Totals")
Done = TypeVar("Done")


class StageOptions(TypedDict, total=False):
    """What may be said of any stage (see ``run_stage``)."""

    counted: str | None
    parts: str
    replace: bool
    alone: bool
    metrics: Callable[[Statistics, float], Metrics] | None


Tasks = Sequence[Task] | Callable[[], Sequence[Task]]
Function = Callable[[Task], Statistics]


@overload
def run_stage(
    run: Run, stage: Stage, config: Mapping[str, Any], tasks: Tasks[Task], function: Function[Task],
    *, unit: str, totals: Callable[[list[Statistics]], Totals], **options: Unpack[StageOptions],
) -> Totals: ...  # fmt: skip


@overload
def run_stage(
    run: Run, stage: Stage, config: Mapping[str, Any], tasks: Tasks[Task], function: Function[Task],
    *, unit: str, **options: Unpack[StageOptions],
) -> Statistics: ...  # fmt: skip


def run_stage(
    run: Run,
    stage: Stage,
    config: Mapping[str, Any],
    tasks: Tasks[Task],
    function: Function[Task],
    *,
    unit: str,
    counted: str | None = None,
    parts: str = "shards",
    totals: Callable[[list[Statistics]], Any] = add_statistics,
    replace: bool = False,
    alone: bool = False,
    metrics: Callable[[Statistics, float], Metrics] | None = None,
) -> Any:
    """Run a stage, or what is missing of it; returns its totals.

    Args:
        run: The folder and the engine.
        stage: Its name and outputs.
        config: All that decides the bytes of the outputs, as plain JSON values.
        tasks: One for each shard, or a function that makes them (called only if there is work).
        function: A module-level function of a task. It writes the shard's files by
            ``Folder.create`` and returns plain JSON statistics.
        unit: What progress counts, in a word that users know (``"texts"``).
        counted: The key of the statistics that has their number, if that is not ``unit``.
        parts: What progress calls the tasks.
        totals: Makes the totals of all shards' statistics, plain JSON (a dictionary or TypedDict);
            may write files of the whole run.
        replace: Whether other settings simply replace what is there (see ``manifest.begin``).
        alone: Whether it is all that its command does: see ``do_again``.
        metrics: What trackers get of the statistics so far and the items a second; all numbers
            of them, if not given (see ``tracking``).

    Raises:
        UserError: As ``manifest.begin``.
    """
    if alone:
        return do_again(
            run, [stage],
            lambda: run_stage(
                run, stage, config, tasks, function,
                unit=unit, counted=counted or unit, parts=parts, totals=totals, replace=replace,
                metrics=metrics,
            ),
        )  # fmt: skip
    done = begin(run.folder, stage, config, overwrite=run.overwrite, replace=replace)
    tracked = trackers()
    tracked.settings(stage.name, config)
    if done is not None:
        tracked.totals(stage.name, done)
        return done
    remove_damaged(run.folder, stage)
    with recorded() as written:
        try:
            planned = tasks() if callable(tasks) else tasks
        except ArgumentError:
            abandon(run.folder, stage)
            raise
        plan(run.folder, stage, len(planned))
        shards, files = _run_shards(
            run, stage, function, planned, unit, counted or unit, parts, metrics
        )
        result = totals(shards)
    tracked.totals(stage.name, result)
    files |= {name: w for a, w in written.items() if (name := run.folder.name_of(a)) is not None}
    return finish(run.folder, stage, result, shards, files)


def do_again(run: Run, first: Sequence[Stage], work: Callable[[], Done]) -> Done:
    """What ``work`` gives, which runs the stages of a command.

    With ``overwrite``, if nothing was left to do with these settings, all is done again from the
    stages ``first`` on: what the user adds (a text rule, a scorer) is recorded by its name only,
    and may do something else by now. Other settings redo what depends on them, and a run that was
    stopped is left to resume.
    """
    before = read_manifest(run.folder)
    result = work()
    if run.overwrite and are_done(before, first) and read_manifest(run.folder) == before:
        void(run.folder, first)
        result = work()
    return result


@dataclass(frozen=True)
class _RecordedShard(Generic[Task]):
    """A task with the place where its statistics go."""

    function: Callable[[Task], Statistics]
    task: Task
    folder: Folder
    state: str


def _run_recorded(shard: _RecordedShard[Task]) -> Statistics:
    with recorded() as written:
        statistics = shard.function(shard.task)
    files = {n: w for a, w in written.items() if (n := shard.folder.name_of(a)) is not None}
    done = {"statistics": statistics, "files": dict(sorted(files.items()))}
    shard.folder.write_json(shard.state, done)
    return done


def _run_shards(
    run: Run,
    stage: Stage,
    function: Callable[[Task], Statistics],
    tasks: Sequence[Task],
    unit: str,
    counted: str,
    parts: str,
    metrics: Callable[[Statistics, float], Metrics] | None,
) -> tuple[list[Statistics], dict[str, Written]]:
    """Run the tasks that are not done; the statistics in task order, and all shards' files."""
    folder = run.folder
    states = [stage.shard_state(position) for position in range(len(tasks))]
    done = _shards_done(folder, stage, states)
    missing = [p for p in range(len(tasks)) if p not in done]
    started(folder, stage, len(done))
    calls = [_RecordedShard(function, tasks[p], folder, states[p]) for p in missing]
    with meter(stage.name, len(tasks), unit, parts=parts, show=run.show_progress) as progress:
        progress.advance(items=0, shards=len(done))
        before = [done[position]["statistics"] for position in sorted(done)]
        tracking = _Tracking(stage, counted, metrics, before)
        for position, shard in run.engine.map_shards(_run_recorded, calls):
            done[missing[position]] = shard
            progress.advance(items=int(shard["statistics"].get(counted, 0)))
            tracking.add(shard["statistics"])
        tracking.log()
    files: dict[str, Written] = {}
    for shard in done.values():
        files |= shard["files"]
    return [done[position]["statistics"] for position in range(len(tasks))], files


class _Tracking:
    """Logs the numbers of a stage to the run's trackers, at most once a second, and at its end."""

    def __init__(
        self,
        stage: Stage,
        counted: str,
        metrics: Callable[[Statistics, float], Metrics] | None,
        before: Sequence[Statistics],
    ) -> None:
        """``before``: the statistics of shards that were done already."""
        self._trackers = trackers()
        self._stage, self._counted, self._metrics = stage, counted, metrics
        self._so_far = add_statistics(before) if self._trackers else {}
        self._items = 0
        self._is_logged = True
        self._pace = Pace()

    def add(self, statistics: Statistics) -> None:
        """A shard is done."""
        if not self._trackers:
            return
        self._so_far = add_statistics([self._so_far, statistics])
        self._items += int(statistics.get(self._counted, 0))
        self._is_logged = False
        if self._pace.is_due():
            self.log()

    def log(self) -> None:
        """Log what was not logged yet."""
        if self._is_logged:
            return
        self._is_logged = True
        rate = self._items / self._pace.seconds
        if self._metrics is not None:
            self._trackers.log(self._metrics(self._so_far, rate))
            return
        numbers = {n: v for n, v in self._so_far.items() if isinstance(v, int | float)}
        named = {**numbers, f"{self._counted}_per_second": rate}
        self._trackers.log({f"{self._stage.name}/{name}": value for name, value in named.items()})


def _shards_done(folder: Folder, stage: Stage, states: Sequence[str]) -> dict[int, Statistics]:
    """What finished shards left, by position; not those whose files are lost."""
    there = set(folder.list(f"state/{stage.name}"))
    known = [p for p, s in enumerate(states) if s in there]
    read = read_ahead(folder, folder.read_json, (states[p] for p in known))
    done = dict(zip(known, read, strict=True))
    parents = {name.rpartition("/")[0] for shard in done.values() for name in shard["files"]}
    sizes: dict[str, int] = {}
    for parent in sorted(parents):
        sizes |= folder.sizes(parent)
    return {
        position: shard
        for position, shard in done.items()
        if all(sizes.get(name) == w["bytes"] for name, w in shard["files"].items())
    }
