"""Make the raw pool, the metadata and the test set of the emoji experiment from its art.

    python examples/emoji_experiment/make_pool.py OUT [--pairs 20000] [--test-vendor noto]

The pool imitates what a crawl of the web gives, by stated laws and with a fixed seed:

* **How often.** Concepts (emoji) are put in random order; the pair shows concept number r with
  probability proportional to 1 / r (Zipf's law), as drawn by a random training vendor.
* **What the text says.** Of the pairs, 50% have one of the concept's own texts: its name, its name
  in a phrase (PHRASES), or its keywords. 30% have a file name or number, which matches no metadata.
  20% have a website's boilerplate (BOILERPLATE, itself by Zipf's law): it matches common words, but
  does not describe the image.
* **Duplicates.** The same image and text may come again at another address, as on the web.

The metadata are the built-in WordNet entries and the names and keywords of all emoji in
``examples/emoji``. The test set holds the art of the vendor that the pool does not have: one image
a concept, with the concepts' groups by rank (head: the first 10%, tail: the last 50%).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metacurate.metadata.store import load_metadata, make_metadata, save_parquet
from metacurate.runtime.storage import Folder

HERE = Path(__file__).parent
OWN_TEXT, NO_MATCH = 0.5, 0.3
PHRASES = ("{}", "{} icon", "a picture of {}", "{} sticker , free download", "drawing of a {}")
BOILERPLATE = (
    "click to enlarge",
    "photo of the day",
    "image may contain food and people",
    "thumbnail for the article",
    "picture of our team",
    "sign in to see this image",
    "free shipping on all orders",
    "the best of the week",
    "follow us on the web",
    "loading the next page",
)
HEAD, TAIL = 0.1, 0.5
SHARD_ROWS = 2_500
Row = dict[str, Any]


def read_art(folder: Path) -> dict[str, dict[str, Row]]:
    """The art: vendor, emoji, row."""
    paths = sorted(folder.glob("*.parquet"))
    tables = {path.stem: pq.read_table(path).to_pylist() for path in paths}
    return {vendor: {row["emoji"]: row for row in rows} for vendor, rows in tables.items()}


def zipf(generator: np.random.Generator, n: int, size: int) -> np.ndarray:
    """Numbers below n, r with probability proportional to 1 / (r + 1)."""
    weights = 1 / np.arange(1, n + 1)
    return generator.choice(n, size, p=weights / weights.sum())


def own_text(generator: np.random.Generator, row: Row) -> str:
    """A text that describes the concept."""
    if generator.random() < 1 / 3 and row["keywords"]:
        return row["keywords"]
    return PHRASES[generator.integers(len(PHRASES))].format(row["name"])


def main() -> None:
    """Write OUT/pool, OUT/metadata.parquet, OUT/test and OUT/groups.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--art", type=Path, default=HERE / "art")
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--test-vendor", default="noto")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    art = read_art(options.art)
    test = art.pop(options.test_vendor)
    generator = np.random.default_rng(options.seed)
    concepts = generator.permutation(sorted(test)).tolist()
    write_pool(options.out / "pool", art, concepts, options.pairs, generator)
    write_metadata(options.out)
    write_test(options.out, test, concepts)


def write_pool(
    out: Path,
    art: dict[str, dict[str, Row]],
    concepts: list[str],
    pairs: int,
    generator: np.random.Generator,
) -> None:
    """The raw pool in shards of Parquet."""
    vendors = sorted(art)
    ranks = zipf(generator, len(concepts), pairs)
    boilerplate = zipf(generator, len(BOILERPLATE), pairs)
    rows = []
    for i in range(pairs):
        vendor = vendors[generator.integers(len(vendors))]
        row = art[vendor][concepts[ranks[i]]]
        kind = generator.random()
        if kind < OWN_TEXT:
            text = own_text(generator, row)
        elif kind < OWN_TEXT + NO_MATCH:
            number = generator.integers(10**6)
            text = (f"IMG_{number}.PNG", f"{number:06d}x{i}", f"Screenshot-{number}.png")[i % 3]
        else:
            text = BOILERPLATE[boilerplate[i]]
        rows.append(
            {
                "url": f"https://emoji.example/{i:07d}/{vendor}.png",
                "text": text,
                "image": row["image"],
                "concept": row["emoji"],
                "vendor": vendor,
            }
        )
    out.mkdir(parents=True, exist_ok=True)
    for shard, start in enumerate(range(0, pairs, SHARD_ROWS)):
        table = pa.Table.from_pylist(rows[start : start + SHARD_ROWS])
        pq.write_table(table, out / f"shard-{shard:04d}.parquet", compression="zstd")
    print(f"{out}: {pairs:,} pairs of {len(concepts):,} concepts")


def write_metadata(out: Path) -> None:
    """WordNet's entries, then names and keywords of emoji that are not among them."""
    words: dict[str, None] = {}
    for path in sorted((HERE.parent / "emoji").glob("*.parquet")):
        for row in pq.read_table(path, columns=["texts"])["texts"].to_pylist():
            for text in row:
                if text["source"] == "cldr_short_name":
                    words[text["text"]] = None
                elif text["source"] == "cldr_keywords":
                    words |= dict.fromkeys(text["text"].split(", "))
    wordnet = load_metadata("wordnet").entries.to_pylist()
    known = set(wordnet)
    emoji = [word for word in words if word not in known]
    sources = ["wordnet"] * len(wordnet) + ["emoji"] * len(emoji)
    metadata = make_metadata(wordnet + emoji, source=sources)
    save_parquet(metadata, str(out / "metadata.parquet"))
    print(f"{out / 'metadata.parquet'}: {len(wordnet):,} + {len(emoji):,} entries")


def write_test(out: Path, test: dict[str, Row], concepts: list[str]) -> None:
    """The held-out vendor's art: a folder a concept (in the order of rank), names, groups."""
    names, groups = [], {}
    for rank, concept in enumerate(concepts):
        row = test[concept]
        share = (rank + 0.5) / len(concepts)
        groups[row["name"]] = "head" if share < HEAD else "tail" if share >= 1 - TAIL else "middle"
        names.append(row["name"])
        folder = out / "test" / f"{rank:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "0.png").write_bytes(row["image"])
    assert len(set(names)) == len(names)
    (out / "test" / "classnames.txt").write_text("\n".join(names) + "\n")
    templates = "\n".join(phrase.replace("{}", "{c}") for phrase in PHRASES)
    (out / "test" / "zeroshot_classification_templates.txt").write_text(templates + "\n")
    Folder(str(out)).write_json("groups.json", groups)
    print(f"{out / 'test'}: {len(names):,} classes, {json.dumps(_sizes(groups))}")


def _sizes(groups: dict[str, str]) -> dict[str, int]:
    return {name: list(groups.values()).count(name) for name in ("head", "middle", "tail")}


if __name__ == "__main__":
    main()
