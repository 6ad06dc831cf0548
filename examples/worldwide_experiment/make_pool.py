"""Make the raw pool, the metadata and the test set of the worldwide experiment.

    pip install wordfreq==3.1.1
    python examples/worldwide_experiment/make_pool.py OUT [--pairs 20000] [--test-vendor fluent]

The pool imitates what a crawl of the web gives, by stated laws and with a fixed seed; but for the
languages they are those of ``examples/emoji_experiment/make_pool.py``:

* **Which language.** English has the share 1 / 2.3 (of Meta CLIP 2's pairs); language number r of
  the others has a share of the rest proportional to 1 / r.
* **How often.** Concepts (emoji of food and drink) are put in random order, the
  same in all languages; concept number r has probability proportional to 1 / r (Zipf's law).
* **What the text says.** 50%: the concept's name (two of three) or two of its keywords, in the
  pair's language. 30%: a file name, which matches no metadata. 20%: boilerplate, one of ten
  strings by Zipf's law, of four of the language's 200 most frequent words each (wordfreq).

A language's metadata are its entries in ``examples/worldwide`` and its 1,000 most frequent words.
The test set is the art of the vendor that the pool does not have, with the classes' names in every
language.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import wordfreq

HERE = Path(__file__).parent
ART = HERE.parent / "emoji_experiment" / "art"
METADATA = HERE.parent / "worldwide" / "metadata"
GROUP = "food-drink"
LANGUAGES = ("en", "zh", "ar", "de", "ja", "ko")
ENGLISH = 1 / 2.3
WITHOUT_SPACES = ("zh", "ja")
OWN_TEXT, NO_MATCH = 0.5, 0.3
FREQUENT, BOILERPLATE, BOILERPLATE_WORDS, BOILERPLATE_OF = 1_000, 10, 4, 200
SHARD_ROWS = 2_500
Row = dict[str, Any]


def zipf(n: int) -> np.ndarray:
    """Probabilities of n things, number r's proportional to 1 / (r + 1)."""
    weights = 1 / np.arange(1, n + 1)
    return weights / weights.sum()


def boilerplate(generator: np.random.Generator, language: str) -> list[str]:
    """Strings of a language's most frequent words."""
    words = wordfreq.top_n_list(language, BOILERPLATE_OF)
    between = "" if language in WITHOUT_SPACES else " "
    return [
        between.join(generator.choice(words, BOILERPLATE_WORDS, replace=False))
        for _ in range(BOILERPLATE)
    ]


def own_text(generator: np.random.Generator, texts: Row) -> str:
    """The concept's name or two of its keywords."""
    if generator.random() < 2 / 3 or len(texts["keywords"]) < 2:
        return str(texts["name"])
    return ", ".join(generator.choice(texts["keywords"], 2, replace=False))


def write_pool(
    out: Path,
    art: dict[str, dict[str, Row]],
    texts: dict[tuple[str, str], Row],
    concepts: list[str],
    pairs: int,
    generator: np.random.Generator,
) -> None:
    """The raw pool: shards of Parquet, each of one language."""
    vendors = sorted(art)
    noise = {language: boilerplate(generator, language) for language in LANGUAGES}
    shares = [ENGLISH, *((1 - ENGLISH) * zipf(len(LANGUAGES) - 1))]
    languages = generator.choice(LANGUAGES, pairs, p=shares)
    ranks = generator.choice(len(concepts), pairs, p=zipf(len(concepts)))
    noise_ranks = generator.choice(BOILERPLATE, pairs, p=zipf(BOILERPLATE))
    rows: dict[str, list[Row]] = defaultdict(list)
    for i, language in enumerate(languages.tolist()):
        vendor, kind = vendors[generator.integers(len(vendors))], generator.random()
        concept = concepts[ranks[i]]
        if kind < OWN_TEXT:
            text = own_text(generator, texts[concept, language])
        elif kind < OWN_TEXT + NO_MATCH:
            text = f"IMG_{generator.integers(10**6)}.PNG"
        else:
            text = noise[language][noise_ranks[i]]
        rows[language].append(
            {
                "url": f"https://emoji.example/{i:07d}/{vendor}.png",
                "text": text,
                "lang": language,
                "image": art[vendor][concept]["image"],
                "concept": concept,
            }
        )
    out.mkdir(parents=True, exist_ok=True)
    for language, of_language in rows.items():
        for number, start in enumerate(range(0, len(of_language), SHARD_ROWS)):
            table = pa.Table.from_pylist(of_language[start : start + SHARD_ROWS])
            pq.write_table(table, out / f"{language}-{number:04d}.parquet", compression="zstd")
    print(f"{out}: {', '.join(f'{name} {len(rows[name]):,}' for name in LANGUAGES)}")


def write_metadata(out: Path) -> None:
    """A file a language."""
    out.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        entries = json.loads((METADATA / f"{language}.json").read_text(encoding="utf-8"))
        entries = list(dict.fromkeys([*entries, *wordfreq.top_n_list(language, FREQUENT)]))
        path = out / f"{language}.json"
        path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    print(f"{out}: {len(LANGUAGES)} languages")


def write_test(
    out: Path, test: dict[str, Row], texts: dict[tuple[str, str], Row], concepts: list[str]
) -> None:
    """The held-out vendor's art: a folder a concept, in the order of rank, and all names."""
    for rank, concept in enumerate(concepts):
        folder = out / f"{rank:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "0.png").write_bytes(test[concept]["image"])
    for language in LANGUAGES:
        names = [texts[concept, language]["name"] for concept in concepts]
        assert len(set(names)) == len(names)
        name = "classnames" if language == "en" else f"classnames-{language}"
        (out / f"{name}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (out / "zeroshot_classification_templates.txt").write_text("{c}\n")
    print(f"{out}: {len(concepts):,} classes")


def main() -> None:
    """Write OUT/pool, OUT/metadata and OUT/test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--test-vendor", default="fluent")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    art = {
        path.stem: {row["emoji"]: row for row in pq.read_table(path).to_pylist()}
        for path in sorted(ART.glob("*.parquet"))
    }
    test = art.pop(options.test_vendor)
    rows = pq.read_table(HERE / "texts.parquet").to_pylist()
    texts = {(row["emoji"], row["lang"]): row for row in rows}
    generator = np.random.default_rng(options.seed)
    chosen = sorted(emoji for emoji, row in test.items() if row["group"] == GROUP)
    concepts = generator.permutation(chosen).tolist()
    write_pool(options.out / "pool", art, texts, concepts, options.pairs, generator)
    write_metadata(options.out / "metadata")
    write_test(options.out / "test", test, texts, concepts)


if __name__ == "__main__":
    main()
