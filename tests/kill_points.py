"""Every command is killed at many points, on both engines, and given again: the same bytes.

By hand, all of it (some minutes; a table for docs/scale.md):

    python tests/kill_points.py [--local 6] [--ray 4] [--seed 0] [COMMAND ...]

tests/runtime/test_kill_points.py runs a few points of each command.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cluster_chain import chain, node_options, paths_of_workers, write_inputs, write_urls
from conftest import digests
from hostile_server import HostileServer
from killed_runs import Warm, events_of_tasks

KINDS = ("command", "command and worker", "worker")


@dataclass(frozen=True)
class Kill:
    """Where a run is killed: at an event of the command itself, or of one of its tasks on Ray.

    ``driver``: whether the command dies with the task's worker, or the worker alone. ``again``: at
    which event the command is killed once more when it is given again (0: it is not).
    """

    event: int
    task: str | None = None
    driver: bool = True
    again: int = 0

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        if self.task is None:
            return KINDS[0]
        return KINDS[1] if self.driver else KINDS[2]


class Commands:
    """All commands with small inputs, in a folder with what each made undisturbed.

    ``in``: the inputs; ``made``: what later commands read; ``out``: the run that is looked at.
    """

    def __init__(self, folder: Path, server: HostileServer, run: Warm) -> None:
        self.folder, self._run = folder, run
        write_inputs(folder / "in")
        write_urls(folder / "in", server)
        for name in ("made", "notes"):
            (folder / name).mkdir()
        start, made, out = (str(folder / name) for name in ("in", "made", "out"))
        self.words: dict[str, list[str]] = {
            **{
                name.rpartition(", ")[2].partition(".")[0]: [*map(str, words)]
                for name, words in chain(start, made, out).items()
            },
            "card": ["card", f"{out}/curated", "--license", "cc-by-4.0", "--name", "Dogs"],
        }
        # What some commands add to.
        curated = (f"{made}/curated", f"{out}/curated")
        self._before = {"marked": (f"{start}/tars", f"{out}/marked"), "report": curated,
                        "card": curated}  # fmt: skip

    def prepare(self, name: str) -> None:
        """Have the folder of the run be as it is before a command."""
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        (self.folder / "out").mkdir()
        if name in self._before:
            shutil.copytree(*self._before[name])

    def make(self, name: str) -> tuple[dict[str, str], int]:
        """Run a command undisturbed, for those that read what it makes; its files, its events."""
        self.prepare(name)
        local = self.words[name] + self.local(name)
        answer = self._run(local, here=True)
        assert answer["code"] == 0, (name, answer)
        found = digests(self.folder / "out")
        for path in (self.folder / "out").iterdir():
            if not (self.folder / "made" / path.name).exists():
                path.rename(self.folder / "made" / path.name)
        return found, answer["events"]

    def local(self, name: str) -> list[str]:
        """The options that have a command run in its own process alone."""
        return [] if name == "card" else ["--workers", "1"]


@dataclass
class Sweep:
    """Kills one command on one engine: ``points`` picks where, ``check`` kills and compares."""

    commands: Commands
    run: Warm
    name: str
    expected: dict[str, str]
    events: int
    engine: list[str]

    def _start(self, **how: Any) -> dict[str, Any]:
        return self.run([*self.commands.words[self.name], *self.engine], **how)

    def _notes(self) -> Path:
        notes = self.commands.folder / "notes"
        shutil.rmtree(notes)
        notes.mkdir()
        return notes

    def points(self, number: int, rng: random.Random) -> list[Kill]:
        """Where to kill: one event of each of so many equal stretches; every third run twice.

        On Ray half of them are the tasks' events, whose worker dies with the command or alone.
        """
        events, tasks = (self.events, []) if "ray" not in self.engine else self._count()
        own = number - number // 2 if tasks else number
        kills = [
            Kill(event, again=rng.randint(1, events) if place % 3 == 2 else 0)
            for place, event in enumerate(stretches(range(1, events + 1), own, rng))
        ]
        of_tasks = stretches(tasks, number - own, rng)
        for place, (task, event) in enumerate(of_tasks):
            kills.append(Kill(event, task, driver=place % 2 == 0))
        return kills

    def _count(self) -> tuple[int, list[tuple[str, int]]]:
        """Run it on Ray undisturbed: the number of its own events, and all those of its tasks."""
        self.commands.prepare(self.name)
        notes = self._notes()
        whole = self._start(workers={"notes": str(notes)})
        assert whole["code"] == 0, (self.name, whole["stderr"])
        assert digests(self.commands.folder / "out") == self.expected, self.name
        counted = events_of_tasks(notes)
        return whole["events"], [(task, n + 1) for task in counted for n in range(counted[task])]

    def check(self, kill: Kill) -> None:
        """Kill the command there and give it again until it ends; AssertionError for other bytes.

        The last time nothing is killed.
        """
        self.commands.prepare(self.name)
        if kill.task is None:
            killed = self._start(event=kill.event)
        else:
            notes = self._notes()
            wanted = {"task": kill.task, "event": kill.event, "driver": kill.driver}
            killed = self._start(workers={"notes": str(notes), **wanted})
            assert (notes / "ended").exists(), f"{self.name}: {kill} did not come"
        wanted_code = -signal.SIGKILL if kill.driver else 0
        assert killed["code"] == wanted_code, (self.name, kill, killed)
        if kill.driver:
            if kill.again:
                self._start(event=kill.again)
            again = self._start()
            # A command whose file was complete is refused, as it is after an undisturbed run.
            whole = again["code"] == 2 and "is there already" in again["stderr"]
            assert again["code"] == 0 or whole, (self.name, kill, again["stderr"])
        found = digests(self.commands.folder / "out")
        differing = {n for n in {*found, *self.expected} if found.get(n) != self.expected.get(n)}
        assert not differing, (self.name, kill, sorted(differing))


def stretches(events: Sequence[Any], number: int, rng: random.Random) -> list[Any]:
    """One of each of so many equal parts of a sequence (fewer if it is shorter)."""
    number = min(number, len(events))
    edges = [len(events) * place // number for place in range(number + 1)] if number else []
    return [events[rng.randrange(a, b)] for a, b in pairwise(edges)]


@contextmanager
def cluster() -> Iterator[str]:
    """A Ray of two cores, in processes of its own; its address."""
    from metacurate.runtime.engines.ray import QUIET

    words = [sys.executable, __file__, "--cluster"]
    paths = {"PYTHONPATH": paths_of_workers(), **QUIET}
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **paths}
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


def serve_cluster() -> None:
    """The process that starts the Ray: until standard input ends."""
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args=node_options(num_cpus=2))
    print(started.address, flush=True)
    sys.stdin.read()
    started.shutdown()


@contextmanager
def commands(folder: Path) -> Iterator[tuple[Commands, Warm]]:
    """The commands below an empty folder, and what runs them."""
    with pytest.MonkeyPatch.context() as patch, HostileServer() as server:
        patch.setenv("PYTHONPATH", paths_of_workers())
        with Warm(folder) as run:
            yield Commands(folder, server, run), run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="COMMAND")
    parser.add_argument("--local", type=int, default=6, help="points of each command")
    parser.add_argument("--ray", type=int, default=4, help="points of each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cluster", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cluster:
        serve_cluster()
        return
    numbers = {"local": options.local, "ray": options.ray}
    failures: list[str] = []
    began = time.monotonic()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="metacurate-kill-points-"))
        known, run = stack.enter_context(commands(Path(folder)))
        on_ray: list[str] = []
        if options.ray:
            on_ray = ["--engine", "ray", "--address", stack.enter_context(cluster())]
        print("| command | engine | " + " | ".join(f"{kind} killed" for kind in KINDS) + " |")
        print("| --- " * (2 + len(KINDS)) + "|")
        total = 0
        for name in known.words:
            expected, events = known.make(name)
            if options.names and name not in options.names:
                continue
            for engine, words in (("local", known.local(name)), ("ray", on_ray)):
                if engine == "ray" and (name == "card" or not on_ray):
                    continue
                sweep = Sweep(known, run, name, expected, events, words)
                rng = random.Random(f"{options.seed} {name} {engine}")
                done: Counter[str] = Counter()
                for kill in sweep.points(numbers[engine], rng):
                    try:
                        sweep.check(kill)
                    except AssertionError as error:
                        failures.append(str(error))
                        print(error, file=sys.stderr, flush=True)
                    done[kill.kind] += 1
                total += done.total()
                cells = [f"{done[kind]}" for kind in KINDS]
                print(f"| {name} | {engine} | {' | '.join(cells)} |", flush=True)
    print(f"{total} points in {time.monotonic() - began:.0f} s, {len(failures)} with other bytes")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
