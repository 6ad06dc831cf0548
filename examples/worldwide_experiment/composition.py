"""Print what the arms of the worldwide experiment consist of, as a Markdown table.

    python examples/worldwide_experiment/composition.py world/results

By arm, means over the seeds: the pairs that curation kept; of those, the share that is English, and
the share whose text describes the image (the others are boilerplate), in English and in all other
languages; and how many concepts these texts show in Korean, the smallest language.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

HERE = Path(__file__).parent
SMALLEST = "ko"


def describes(row: dict[str, Any], texts: dict[tuple[str, str], dict[str, Any]]) -> bool:
    """Whether a pair's text is its concept's name or some of its keywords."""
    own = texts[row["concept"], row["lang"]]
    return row["text"] == own["name"] or set(row["text"].split(", ")) <= set(own["keywords"])


def composition(folder: Path, texts: dict[tuple[str, str], dict[str, Any]]) -> list[float]:
    """The table's numbers for the Parquet files of a folder."""
    rows = [
        row
        for path in sorted(folder.glob("*.parquet"))
        for row in pq.read_table(path, columns=["text", "lang", "concept"]).to_pylist()
    ]
    own = np.array([describes(row, texts) for row in rows])
    english = np.array([row["lang"] == "en" for row in rows])
    shown = {
        row["concept"] for row, is_own in zip(rows, own, strict=True)
        if is_own and row["lang"] == SMALLEST
    }  # fmt: skip
    others = 100 * own[~english].mean() if not english.all() else np.nan
    return [len(rows), 100 * english.mean(), 100 * own[english].mean(), others, len(shown)]


def main(results: Path) -> None:
    """Print the table."""
    table = pq.read_table(HERE / "texts.parquet").to_pylist()
    texts = {(row["emoji"], row["lang"]): row for row in table}
    arms = json.loads((results / "results.json").read_text(encoding="utf-8"))["arms"]
    header = ["arm", "pairs", "English", "own text, English", "own text, others", SMALLEST]
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for name in (name for name in arms if not name.endswith("x")):
        runs = sorted(results.glob(f"curation/arms/{name}/t-*")) or sorted(
            results.glob("curation/t-*")
        )
        found = [composition(run / "curated", texts) for run in runs]
        pairs, *shares, concepts = np.mean(found, axis=0)
        cells = [f"{pairs:,.0f}", *("" if np.isnan(s) else f"{s:.1f}%" for s in shares)]
        print("| " + " | ".join([name, *cells, f"{concepts:.0f} concepts"]) + " |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
