"""Runs a command and measures its time and the peak memory of all its processes together."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

SAMPLE_SECONDS = 0.2
SHOWN_ERRORS = 200  # characters
PR_SET_CHILD_SUBREAPER = 36  # of Linux's prctl.h


@dataclass(frozen=True)
class Measured:
    """Seconds, peak memory in MiB (PSS: memory that processes share counts once), JSON output.

    The peak of all processes together, that of the command's own process, and that of the largest
    of the others; and the seconds of processor time that all of them took.
    """

    seconds: float
    peak_mib: float
    output: Any
    parent_mib: float
    worker_mib: float
    processor_seconds: float


def proportional_bytes(pid: int) -> int:
    """A process's PSS, from the kernel's own sum: cheap, so that sampling does not slow the run."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def run_metacurate(*arguments: object) -> Measured:
    """Run a metacurate command with ``--json`` in a process of its own."""
    return run_command([sys.executable, "-m", "metacurate", *map(str, arguments), "--json"])


def run_command(command: list[str]) -> Measured:
    """Run a command that prints JSON; RuntimeError with the end of its errors if it fails."""
    # The server that workers are forked from outlives the command: it becomes this process's child,
    # so that its time, and that of its workers, is counted.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    start = time.perf_counter()
    before = os.times()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peak, parent, worker = 0, 0, 0
    seen: set[int] = set()
    done = threading.Event()

    def sample() -> None:
        nonlocal peak, parent, worker
        root = psutil.Process(process.pid)
        while not done.wait(SAMPLE_SECONDS):
            try:
                pids = [one.pid for one in [root, *root.children(recursive=True)]]
                seen.update(pids)
                first, *others = map(proportional_bytes, pids)
            except (psutil.Error, OSError):
                continue
            peak = max(peak, first + sum(others))
            parent, worker = max(parent, first), max([worker, *others])

    sampler = threading.Thread(target=sample)
    sampler.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - start
    done.set()
    sampler.join()
    if process.returncode:
        said = errors.decode(errors="replace").strip()[-SHOWN_ERRORS:]
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}: {said}")
    for pid in seen:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    after = os.times()
    taken = sum(after[2:4]) - sum(before[2:4])  # of children that have ended, and of theirs
    return Measured(
        seconds, peak / 2**20, json.loads(output), parent / 2**20, worker / 2**20, taken
    )
