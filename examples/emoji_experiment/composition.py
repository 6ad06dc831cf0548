"""What each arm of a finished emoji experiment consists of, as a Markdown table.

    python examples/emoji_experiment/composition.py emoji emoji/results

Per data set (mean over seeds): pairs; the share whose text is the concept's own, a website's
boilerplate, or matches nothing; and, of the pairs with an own text, the share of head, middle and
tail concepts, and how many concepts they show at all.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from make_pool import BOILERPLATE

HERE = Path(__file__).parent
GROUPS = ("head", "middle", "tail")


def kind_of(text: str) -> str:
    """Which of the pool's rules made a text."""
    if text in BOILERPLATE:
        return "boilerplate"
    serial = text.startswith(("IMG_", "Screenshot-")) or text.split("x", maxsplit=1)[0].isdigit()
    return "no match" if serial else "own"


def composition(folder: Path, groups: dict[str, str]) -> list[float]:
    """The table's numbers for the Parquet files of a folder."""
    tables = [
        pq.read_table(path, columns=["text", "concept"])
        for path in sorted(folder.glob("*.parquet"))
    ]
    rows = [row for table in tables for row in table.to_pylist()]
    kinds = [kind_of(row["text"]) for row in rows]
    own = [row["concept"] for row, kind in zip(rows, kinds, strict=True) if kind == "own"]
    shares = [kinds.count(kind) / len(rows) for kind in ("own", "boilerplate", "no match")]
    by_group = [sum(groups[c] == group for c in own) / len(own) for group in GROUPS]
    return [len(rows), *(100 * share for share in [*shares, *by_group]), len(set(own))]


def main(data: Path, results: Path) -> None:
    """Print the table."""
    by_name = json.loads((data / "groups.json").read_text())
    names = {
        row["emoji"]: row["name"]
        for path in sorted((HERE / "art").glob("*.parquet"))
        for row in pq.read_table(path, columns=["emoji", "name"]).to_pylist()
    }
    groups = {emoji: by_name[name] for emoji, name in names.items() if name in by_name}
    folders: dict[str, list[Path]] = defaultdict(list)
    folders["raw"].append(data / "pool")
    folders["matched"].append(results / "curation" / "matched" / "curated")
    runs = (results / "curation").glob("t-*-seed-*")
    for run in sorted(runs, key=lambda run: (-float(run.name.split("-")[1]), run.name)):
        folders[run.name.partition("-seed-")[0]].append(run / "curated")
    for subset in sorted((results / "subsets").glob("*/seed-*")):
        arm = subset.parent.name
        balanced = sorted((results / "curation" / "scored" / arm).glob(f"t-*-{subset.name}"))
        folders[arm] += [run / "curated" for run in balanced] or [subset / "pairs"]
    header = ["data", "pairs", "own text", "boilerplate", "no match", *GROUPS, "concepts"]
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for name, places in folders.items():
        pairs, *shares, concepts = np.mean([composition(p, groups) for p in places], axis=0)
        cells = [f"{pairs:,.0f}", *(f"{share:.1f}%" for share in shares), f"{concepts:,.0f}"]
        print("| " + " | ".join([name, *cells]) + " |")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
