"""Pages as WARC and WAT for tests: real ones of documentation packages, and hand-made ones."""

from __future__ import annotations

import atexit
import gzip
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pytest

from metacurate.commoncrawl import extract
from metacurate.commoncrawl.extract import Counts, ExtractConfig, read_tables
from metacurate.commoncrawl.page_rows import Row
from metacurate.runtime.isolate import Isolated

EXAMPLE = Path(__file__).parent.parent / "examples" / "make_warc.py"
PACKAGES = ("gimp-help-en", "debian-handbook")


def make_warc_example() -> ModuleType:
    """The example script as a module."""
    spec = importlib.util.spec_from_file_location("make_warc", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_warc"] = module
    spec.loader.exec_module(module)
    return module


def documentation_pages(limit: int) -> list[tuple[str, bytes]]:
    """Up to ``limit`` pages of each package; skips the test if one is not installed."""
    example = make_warc_example()
    for package in PACKAGES:
        if not example.PACKAGES[package].is_dir():
            pytest.skip(f"Debian package {package} is not installed")
    return list(example.pages(PACKAGES, limit))


def write_crawl(folder: Path, documents: list[tuple[str, bytes]]) -> tuple[Path, Path]:
    """Write documents as a WARC and its WAT; their paths."""
    example = make_warc_example()
    warc, wat = folder / "docs.warc.gz", folder / "docs.warc.wat.gz"
    with warc.open("wb") as file:
        example.write_warc(file, warc.name, documents)
    with wat.open("wb") as file:
        example.write_wat(file, warc)
    return warc, wat


def record(kind: str, block: bytes, url: str = "http://a.example/p/", **fields: str) -> bytes:
    """One plain WARC record."""
    lines = ["WARC/1.0", f"WARC-Type: {kind}", f"WARC-Target-URI: {url}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    lines += [f"Content-Length: {len(block)}", "", ""]
    return "\r\n".join(lines).encode() + block + b"\r\n\r\n"


def response(html: bytes | str, content_type: str = "text/html", **fields: str) -> bytes:
    """The block of a response record."""
    body = html.encode() if isinstance(html, str) else html
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def members(*records: bytes) -> bytes:
    """Records as a file of one gzip member each."""
    return b"".join(gzip.compress(r, mtime=0) for r in records)


def stall_or_crash(item: str) -> str:
    """Stands for a native parser at its worst."""
    if item == "stall":
        while True:
            pass
    if item == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == "memory":
        return "x" * (9 << 30)
    return item


def read_rows(
    file: IO[bytes], source: str, form: str, config: ExtractConfig, counts: Counts
) -> Iterator[Row]:
    """Yield the rows of one source file, one by one; their texts have no language yet.

    All calls of a process have one child that parses pages: its start takes longer than the page.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "Isolated", lambda function: nullcontext(_kept_child(function)))
        for table in read_tables(file, source, form, config, counts):
            for row in table.to_pylist():
                texts = [(text["source"], text["text"]) for text in row.pop("texts")]
                yield Row(texts=texts, **row)


_children: dict[tuple[Any, float], Isolated[Any, Any]] = {}


def _kept_child(function: Any) -> Isolated[Any, Any]:
    """The child for a function and for the time that a page may take just now."""
    seconds = Isolated.__init__.__kwdefaults__["cpu_seconds"]
    if (function, seconds) not in _children:
        _children[function, seconds] = child = Isolated(function)
        atexit.register(child.close)
    return _children[function, seconds]


def rows_of_warc(
    data: bytes, config: ExtractConfig | None = None
) -> tuple[list[dict[str, Any]], Counts]:
    """The rows of a WARC's bytes, and what was counted."""
    counts = Counts()
    rows = read_rows(BytesIO(data), "docs.warc.gz", "warc", config or ExtractConfig(), counts)
    return [row._asdict() for row in rows], counts
