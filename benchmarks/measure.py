"""Runs a command and measures its time and the peak memory of all its processes together."""

from __future__ import annotations

import json
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


@dataclass(frozen=True)
class Measured:
    """Seconds, peak memory in MiB (PSS: memory that processes share counts once), JSON output."""

    seconds: float
    peak_mib: float
    output: Any


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
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    peak = 0
    done = threading.Event()

    def sample() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while not done.wait(SAMPLE_SECONDS):
            total = 0
            try:
                for one in [root, *root.children(recursive=True)]:
                    total += proportional_bytes(one.pid)
            except (psutil.Error, OSError):
                continue
            peak = max(peak, total)

    sampler = threading.Thread(target=sample)
    sampler.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - start
    done.set()
    sampler.join()
    if process.returncode:
        said = errors.decode(errors="replace").strip()[-SHOWN_ERRORS:]
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}: {said}")
    return Measured(seconds, peak / 2**20, json.loads(output))
