"""Writes benchmark results into their sections of docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
import sys
from pathlib import Path

import numba
import pyarrow

DOCS = Path(__file__).parents[1] / "docs"


def machine() -> str:
    """The machine in words: processor, cores, memory, versions."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GiB, Python "
        f"{platform.python_version()}, Numba {numba.__version__}, pyarrow {pyarrow.__version__}"
    )


def record(section: str, body: str, page: str = "benchmarks.md") -> None:
    """Put ``body`` (Markdown) between the section's markers, with the command and the machine."""
    path = DOCS / page
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    text = f"{body.strip()}\n\nCommand: `{command}`. Machine: {machine()}.\n"
    document = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {section} -->\n).*?(<!-- /{section} -->)", re.DOTALL)
    if not pattern.search(document):
        raise SystemExit(f"{path} has no section {section}")
    path.write_text(pattern.sub(lambda m: m[1] + text + m[2], document), encoding="utf-8")
    print(text)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
