"""The cluster engine: the same shard functions as Ray tasks, on a cluster or on this machine."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic

import pyarrow as pa

from metacurate.errors import ArgumentError, UserError, first_line
from metacurate.needs import needs
from metacurate.runtime.engine import (
    MAX_DEATHS_PER_TASK,
    Result,
    Shared,
    SharedLostError,
    Task,
    died_too_often,
)
from metacurate.runtime.engines.local import available_cores
from metacurate.version import __version__

# Read by Ray when it is imported: no usage reports, no hints about features that are not used.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}
ANSWER_SECONDS = 10.0
# For each of the cluster's cores one task runs and one waits: cores never idle, and an autoscaler
# sees that more of them are of use.
TASKS_PER_CORE = 2
# Calls to one shared object that are being answered; most of them wait in it.
CALLS_AT_ONCE = 20_000


@dataclass(frozen=True)
class Place:
    """Where the run is: what workers must see to be of use."""

    directory: str  # of the process that drives the run: relative paths are relative to it
    witness: str  # a file in the run's folder, or "" if that is in an object store
    content: str  # what the witness holds
    version: str  # of this package


@dataclass(frozen=True)
class Call(Generic[Task]):
    """A shard function and its task, as they go to a worker."""

    function: Callable[[Task], Any]
    task: Task
    place: Place


def run_call(call: Call[Task]) -> Any:
    """Run a task in a Ray worker."""
    enter(call.place)
    return call.function(call.task)


@lru_cache(maxsize=1)
def enter(place: Place) -> None:
    """Make this worker process stand where the driver stands; UserError if that cannot be."""
    machine = socket.gethostname()
    if place.version != __version__:
        raise UserError(
            f"{machine} has metacurate {__version__}, this machine has {place.version}; "
            "install the same version on every node"
        )
    if place.witness:
        try:
            there = Path(place.witness).read_text() == place.content
        except OSError:
            there = False
        if not there:
            raise UserError(
                f"{machine} does not see {Path(place.witness).parent}: the output must be on "
                "storage that every node shares, a network file system under the same path, or "
                "s3://"
            )
    with suppress(OSError):  # needed for relative paths only; these are then reported as missing
        os.chdir(place.directory)
    pa.set_cpu_count(1)


class Holder:
    """The actor that holds an object which tasks share."""

    def __init__(self, make: Callable[[bool], object]) -> None:
        with needs("ray"):
            import ray

        self._object = make(ray.get_runtime_context().was_current_actor_reconstructed)

    async def call(self, method: str, *arguments: Any) -> Any:
        return await getattr(self._object, method)(*arguments)

    async def stands(self) -> bool:
        return True


@dataclass(frozen=True)
class Held:
    """A handle of a ``Holder``, as it goes to tasks."""

    actor: Any

    async def call(self, method: str, *arguments: Any) -> Any:
        """See ``metacurate.runtime.engine.Shared``."""
        with needs("ray"):
            import ray

        try:
            return await self.actor.call.remote(method, *arguments)
        except ray.exceptions.ActorUnavailableError as error:
            raise SharedLostError from error
        except ray.exceptions.RayActorError as error:
            raise UserError(
                "what the tasks of this run share is gone for good; run the same command again: "
                "it resumes"
            ) from error


class RayEngine:
    """Runs tasks on a Ray cluster, one core each; only so many are handed over at a time.

    ``address`` is that of a cluster's head (``host:port``, ``ray://host:port`` or ``auto``);
    without one, and without ``RAY_ADDRESS`` in the environment, Ray starts on this machine with
    ``workers`` cores. On a cluster ``workers`` bounds how many tasks are under way. ``witness`` is
    a local file of the run: workers that do not see the same one refuse, so that nothing is written
    to some other machine's disk. A Ray that this process already uses is used and left running.
    Raises UserError if Ray is not installed or no cluster answers.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, witness: Path | None = None
    ) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        with needs("ray"):
            import ray
        self._ray: Any = ray
        self._workers = workers
        self._per_core = 1
        self._gpus = 0.0
        self._starts = not ray.is_initialized()
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        if self._starts:
            # Ray prints that a worker died, and more, to standard output, which is for results.
            ray._private.worker._worker_logs_enabled = False
            _check_that_it_answers(address)
            alone = {"num_cpus": workers or available_cores(), "include_dashboard": False}
            try:
                ray.init(
                    address,
                    log_to_driver=False,
                    logging_level="CRITICAL",
                    **(alone if address == "local" else {}),
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise _no_cluster(address, error) from None
        self._place = Place(
            directory=os.getcwd(),
            witness=str(witness.absolute()) if witness is not None else "",
            content=witness.read_text() if witness is not None else "",
            version=__version__,
        )

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; Ray stops if this engine started it."""
        if self._starts:
            self._ray.shutdown()

    @contextmanager
    def share(
        self, make: Callable[[bool], object], tasks_each: int
    ) -> Iterator[tuple[Shared, ...]]:
        """See ``metacurate.runtime.engine.SharingEngine``."""
        ray = self._ray
        # They need no core: a cluster that is full of tasks has room for them too.
        start = ray.remote(Holder).options(
            num_cpus=0, max_restarts=-1, max_concurrency=CALLS_AT_ONCE
        ).remote  # fmt: skip
        actors = [start(make) for _ in range(-(-self._most_under_way() // tasks_each))]
        try:
            ray.get([actor.stands.remote() for actor in actors])
            yield tuple(Held(actor) for actor in actors)
        finally:
            for actor in actors:
                ray.kill(actor)

    def overlapping(self, tasks: int) -> RayEngine:
        """See ``metacurate.runtime.engine.SharingEngine``."""
        engine = copy.copy(self)
        engine._per_core = tasks
        return engine

    def with_gpus(self, each: float) -> RayEngine:
        """See ``metacurate.runtime.engine.GpuEngine``."""
        # Ray itself would wait for such a machine, without a word.
        most = max((node["Resources"].get("GPU", 0) for node in self._ray.nodes()), default=0)
        if most < each:
            raise ArgumentError(
                "{gpus_per_task} is {each:.15g}, but no machine of the Ray cluster has more than "
                "{most:.15g} GPUs; start Ray where they are, or give fewer",
                each=each,
                most=most,
            )
        engine = copy.copy(self)
        engine._gpus = each
        return engine

    def map_shards(
        self, function: Callable[[Task], Result], tasks: Sequence[Task]
    ) -> Iterator[tuple[int, Result]]:
        """See ``metacurate.runtime.engine.Engine``."""
        ray = self._ray
        # Deaths are counted here and not by Ray, whose retries are many where memory ran out.
        options = {"num_cpus": 1 / self._per_core, "num_gpus": self._gpus, "max_retries": 0}
        submit = ray.remote(run_call).options(**options).remote
        deaths = dict.fromkeys(range(len(tasks)), 0)
        waiting = list(reversed(deaths))
        under_way: dict[Any, int] = {}
        try:
            while waiting or under_way:
                while waiting and len(under_way) < self._most_under_way():
                    position = waiting.pop()
                    under_way[submit(Call(function, tasks[position], self._place))] = position
                # A result is a few numbers: it comes inside Ray's messages, and the object store
                # stays empty.
                finished, _ = ray.wait(list(under_way), num_returns=1)
                for reference in finished:
                    position = under_way.pop(reference)
                    try:
                        result = ray.get(reference)
                    except self._deaths():
                        deaths[position] += 1
                        if deaths[position] >= MAX_DEATHS_PER_TASK:
                            raise died_too_often(position) from None
                        waiting.append(position)
                    else:
                        yield position, result
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError | OSError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            # Not a task's: the head, or the node on which this process runs, is gone.
            raise UserError(
                f"the Ray cluster failed ({type(error).__name__}: {first_line(error)}); run the "
                "same command again once it is there: it resumes"
            ) from None
        finally:
            with suppress(ray.exceptions.RayError):
                for reference in under_way:
                    ray.cancel(reference, force=True)

    def _most_under_way(self) -> int:
        if self._workers is not None:
            return self._workers
        cores = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        return cores * self._per_core * TASKS_PER_CORE

    def _deaths(self) -> tuple[type[Exception], ...]:
        """What Ray raises for a task whose process or machine is gone."""
        exceptions = self._ray.exceptions
        return (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        )


def _check_that_it_answers(address: str) -> None:
    """Raise UserError at once if nobody listens there; Ray itself waits for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UserError:
    said = " ".join(str(error).split())[:200]
    return ArgumentError(
        "no Ray cluster answers at {where} ({said}); check {address} and, if the cluster asks for "
        "a token, RAY_AUTH_MODE and RAY_AUTH_TOKEN; without an address Ray starts on this machine",
        where=address,
        said=said,
    )
