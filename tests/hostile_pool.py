"""A small pool and metadata whose texts, entries, sources and URLs are hostile."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.metadata.store import make_metadata
from metacurate.pipeline import curate
from metacurate.pool.schema import TEXTS_TYPE

# Without the punctuation that matching sets apart: these are entries, too.
SCRIPT = "<script>document['title']='owned'</script>"
BREAK_OUT = "</script><script>document['title']='owned'</script>"
IMAGE = "<img/src=x/onerror=document['title']='owned'>"
ANSI = "\x1b[31mred\x1b]0\x07"
C1 = "\x9b31mcsi"
OVERRIDE = "\u202egnptac\u202c"
LINES = "\u2028line\u2029"
MARKUP = "[bold red]markup[/] :smile:"
LONG_TOKEN = "x" * 2000

ENTRIES = (
    *("cat", "dog", "a photo", "never matched"),
    *(SCRIPT, BREAK_OUT, IMAGE, ANSI, C1, OVERRIDE, LINES, LONG_TOKEN, MARKUP.split(maxsplit=1)[0]),
)
DANGEROUS_CHARACTERS = "\x1b\x07\x9b\u202e\u202c\u2028\u2029"

TEXTS = (
    *(f"{entry} next to a cat" for entry in ENTRIES if entry != "never matched"),
    f"cat {MARKUP}",
    "a photo of a cat " + "and a dog " * 100_000,  # 1 MB
    "\u0000cat\u0000 and cat",
)


def make_hostile_run(folder: Path, t: float = 5.0) -> Path:
    """Curate the hostile pool under a folder; returns the run's folder."""
    rows = []
    for number, text in enumerate(TEXTS * 2):
        texts = [
            {"source": IMAGE, "text": text, "lang": "<b>"},
            {"source": "alt", "text": f"dog {number}", "lang": None},
        ]
        scheme = "javascript:document.title='owned'//" if number % 3 == 0 else "https://example.org"
        rows.append({"url": f'{scheme}/"><script>{number}</script>.png', "texts": texts})
    schema = pa.schema([("url", pa.string()), ("texts", TEXTS_TYPE)])
    pool = folder / "pool"
    pool.mkdir()
    half = len(rows) // 2
    for name, part in (("one", rows[:half]), ("two", rows[half:])):
        pq.write_table(pa.Table.from_pylist(part, schema), pool / f"{name}.parquet")
    metadata = make_metadata(
        list(ENTRIES),
        source=["<i>wiki</i>" if i % 2 else "wordnet" for i in range(len(ENTRIES))],
        lang=["\u202ede"] * len(ENTRIES),
    )
    run = folder / "run"
    curate(str(pool), metadata, str(run), t=t, report=False, workers=1)
    return run
