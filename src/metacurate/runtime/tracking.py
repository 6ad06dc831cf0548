"""Logging a run's numbers to Weights & Biases and MLflow, while it goes on and at its end."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

from metacurate.arguments import listed, shown
from metacurate.errors import ArgumentError, UserError, first_line
from metacurate.needs import needs
from metacurate.printable import printable
from metacurate.runtime.progress import note

SECONDS_BETWEEN = 1.0
MOST_SETTINGS = 200
MAX_TEXT = 250
"""Characters of a setting: MLflow takes no longer ones everywhere. Names in tables are cut too."""
TABLE_ROWS = 100
MOST_TOLD = 5
_PLAIN = re.compile(r"[\w-]{1,64}")

Metrics = Mapping[str, float]


class Tracker(Protocol):
    """One run of an experiment tracker."""

    def settings(self, values: Mapping[str, Any]) -> None:
        """Add settings: plain values by name."""

    def log(self, metrics: Metrics, step: int | None) -> None:
        """Log numbers by name."""

    def table(self, name: str, counts: Mapping[str, int]) -> None:
        """Log counts by reason, most first."""

    def finish(self, failed: bool) -> None:
        """End the run."""


class _Wandb:
    def __init__(self, project: str | None) -> None:
        with needs("wandb"):
            import wandb
        self._wandb = wandb
        # Its capture of the terminal would take in what a command prints for others. A run of its
        # own: init returns a run that goes on in this process otherwise, under whatever project.
        self._run = wandb.init(
            project=project, settings=wandb.Settings(console="off"), reinit="create_new"
        )

    def settings(self, values: Mapping[str, Any]) -> None:
        self._run.config.update(dict(values), allow_val_change=True)

    def log(self, metrics: Metrics, step: int | None) -> None:
        self._run.log(dict(metrics), step=step)

    def table(self, name: str, counts: Mapping[str, int]) -> None:
        total = sum(counts.values()) or 1
        rows = [[reason, count / total, count] for reason, count in counts.items()]
        columns = [name.rpartition("/")[2], "frequency", "count"]
        self._run.log({name: self._wandb.Table(columns=columns, data=rows)})

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _Mlflow:
    def __init__(self, experiment: str | None) -> None:
        with needs("mlflow"):
            import mlflow
        self._client = mlflow.MlflowClient()
        name = experiment or "Default"
        found = self._client.get_experiment_by_name(name)
        number = found.experiment_id if found else self._client.create_experiment(name)
        self._run = self._client.create_run(number).info.run_id
        self._step = 0
        self._said: dict[str, str] = {}
        self._tagged: set[str] = set()

    def settings(self, values: Mapping[str, Any]) -> None:
        """MLflow takes no second value of a parameter: it is a tag, which has the latest."""
        changed = []
        for name, value in values.items():
            first = self._said.setdefault(name, str(value))
            if first == str(value):
                self._client.log_param(self._run, _name(name), value)
                if name not in self._tagged:
                    continue
            elif name not in self._tagged:
                changed.append(f"{name} ({first}, now {value})")
                self._tagged.add(name)
            self._client.set_tag(self._run, _name(name), str(value))
        if changed:
            more = f" and {len(changed) - MOST_TOLD} more" if len(changed) > MOST_TOLD else ""
            note(
                "mlflow keeps the first value of each parameter; the latest is the tag of that "
                f"name: {', '.join(changed[:MOST_TOLD])}{more}"
            )

    def log(self, metrics: Metrics, step: int | None) -> None:
        self._step = self._step + 1 if step is None else step
        for name, value in metrics.items():
            self._client.log_metric(self._run, _name(name), value, step=self._step)

    def table(self, name: str, counts: Mapping[str, int]) -> None:
        self._client.log_dict(self._run, dict(counts), f"{_name(name)}.json")

    def finish(self, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")


def _name(name: str) -> str:
    """A name as MLflow takes it."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-. /") else "_" for c in name)


_KINDS: dict[str, Callable[[str | None], Tracker]] = {"mlflow": _Mlflow, "wandb": _Wandb}


class Trackers:
    """All trackers of a run; one that fails is told of and left, the run goes on."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)

    def __bool__(self) -> bool:
        return bool(self._trackers)

    def add(self, name: str, tracker: Tracker) -> None:
        """One more; ``name`` is what users call it."""
        self._trackers[name] = tracker

    def settings(self, stage: str, values: Mapping[str, Any]) -> None:
        """The settings of a stage: short plain values."""
        found = dict(_flat(values, f"{stage}/", (str, bool, int, float)))
        short = {n: v for n, v in found.items() if not isinstance(v, str) or len(v) <= MAX_TEXT}
        chosen = dict(list(short.items())[:MOST_SETTINGS])
        self._each(lambda tracker: tracker.settings(chosen))

    def log(self, metrics: Metrics, step: int | None = None) -> None:
        """Numbers at this moment."""
        self._each(lambda tracker: tracker.log(metrics, step))

    def totals(self, stage: str, totals: Mapping[str, Any]) -> None:
        """The totals of a finished stage: numbers, and a table for counts by reason."""
        tables = {n: v for n, v in totals.items() if v and _are_counts(v)}
        numbers = {n: v for n, v in totals.items() if n not in tables}
        self.log(dict(_flat(numbers, f"{stage}/", (int, float))))
        for name, counts in tables.items():
            most: Counter[str] = Counter()
            for reason, count in Counter(counts).most_common(TABLE_ROWS):
                most[printable(reason, MAX_TEXT)] += count  # a language's label is the pool's own
            self._each(partial(_table, name=f"{stage}/{name}", counts=most))

    def finish(self, failed: bool) -> None:
        """End all runs."""
        self._each(lambda tracker: tracker.finish(failed))

    def _each(self, work: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                work(tracker)
            except Exception as error:
                del self._trackers[name]
                note(f"{name} gets nothing more of this run: {first_line(error)}")
                with suppress(Exception):
                    tracker.finish(True)


def _table(tracker: Tracker, name: str, counts: Mapping[str, int]) -> None:
    tracker.table(name, counts)


def _are_counts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(type(count) is int for count in value.values())


def _flat(
    values: Mapping[str, Any], prefix: str, kinds: tuple[type, ...]
) -> Iterator[tuple[str, Any]]:
    """The plain values of nested mappings, by the names that lead to them."""
    for name, value in values.items():
        if not _PLAIN.fullmatch(name):  # an address, or another name from outside
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/", kinds)
        elif isinstance(value, kinds):
            yield f"{prefix}{name}", value


_CURRENT: ContextVar[Trackers | None] = ContextVar("_CURRENT", default=None)


def trackers() -> Trackers:
    """Those of the run that this thread is in; none otherwise."""
    return _CURRENT.get() or Trackers({})


@contextmanager
def tracking(log_to: Sequence[str], **settings: Any) -> Iterator[Trackers]:
    """Log to these (``wandb:PROJECT``, ``mlflow:EXPERIMENT``) while the block runs.

    ``settings`` of the run. UserError if one is unknown, not installed, or does not start.
    """
    wanted = dict.fromkeys(listed("log_to", log_to))
    for given in wanted:
        if str(given).partition(":")[0] not in _KINDS:
            raise ArgumentError(
                "{log_to} takes wandb:PROJECT or mlflow:EXPERIMENT, not {value}", value=shown(given)
            )
    opened = Trackers({})
    token, failed = _CURRENT.set(opened), True
    try:
        for given in wanted:
            opened.add(given, _start(given))
        opened.settings("run", settings)
        yield opened
        failed = False
    finally:
        _CURRENT.reset(token)
        opened.finish(failed)


def _start(given: str) -> Tracker:
    kind, _, name = given.partition(":")
    try:
        return _KINDS[kind](name or None)
    except UserError:
        raise
    except Exception as error:
        raise ArgumentError(
            "{log_to} {value}: it does not start: {said}", value=given, said=first_line(error)
        ) from error


class Pace:
    """Says when the next numbers are due: not after every one of thousands of shards."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._last = -SECONDS_BETWEEN

    @property
    def seconds(self) -> float:
        """Since the start."""
        return max(time.monotonic() - self._start, 1e-9)

    def is_due(self) -> bool:
        """Whether a second has gone by since the last time that it was."""
        now = self.seconds
        if now - self._last < SECONDS_BETWEEN:
            return False
        self._last = now
        return True
