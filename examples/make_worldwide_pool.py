"""Build the example ``examples/worldwide``: emoji art with texts in 31 languages, and metadata.

    npm install --ignore-scripts --prefix /tmp/cldr cldr-annotations-full@48.2.0 \\
        cldr-annotations-derived-full@48.2.0 cldr-localenames-full@48.2.0 cldr-core@48.2.0 \\
        cldr-38@npm:cldr-annotations-full@38.1.0
    python examples/make_worldwide_pool.py /tmp/cldr/node_modules [examples/worldwide]

**The pool** has the images of ``examples/emoji``. Each comes with texts in three languages, as if
found on three pages: the emoji's name and its keywords in the Unicode CLDR 48. Which languages is
drawn by weight, without replacement: the square root of the number of people who use a language
(CLDR's ``territoryInfo``). One page in fifty does not say its language, and Welsh has no metadata.

**The metadata** of a language are other lists, made before many of the texts: keywords and names of
CLDR 38 (October 2020; the most frequent keyword first), after the numbers 0 to 99, and the names of
countries. So, as on the web, texts mention what no entry has, and entries are there that no text
mentions.

Draws are hashes of the image's address and the language: same packages, same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
VERSIONS = {
    "cldr-annotations-full": "48.2.0",
    "cldr-annotations-derived-full": "48.2.0",
    "cldr-localenames-full": "48.2.0",
    "cldr-core": "48.2.0",
    "cldr-38": "38.1.0",
}
LANGUAGES = (
    "en", "zh", "hi", "es", "ar", "fr", "ur", "bn", "pt", "ru", "sw", "id", "de", "ja", "vi", "ta",
    "fa", "tr", "ko", "it", "th", "pl", "am", "my", "nl", "uk", "ro", "km", "el", "he", "lo",
)  # fmt: skip
"""Those with metadata, and their names in CLDR; the order is that of the speakers."""
WITHOUT_METADATA = ("zh-Hant", "cy")
"""Further labels of texts: the first is matched with the entries of zh, the second with none."""
LANGUAGES_AN_IMAGE = 3
UNLABELLED = 1 / 50
SOURCES = (("cldr_short_name", "tts"), ("cldr_keywords", "default"))
ROWS_PER_GROUP = 1000
VENDORS = ("fluent", "noto", "openmoji", "twemoji")
SCHEMA = pa.schema(
    {
        "url": pa.string(),
        "texts": pa.list_(
            pa.struct({"source": pa.string(), "text": pa.string(), "lang": pa.string()})
        ),
        "emoji": pa.string(),
        "vendor": pa.string(),
        "group": pa.string(),
        "license": pa.string(),
    }
)
VARIATION_SELECTOR = "\ufe0f"
Row = dict[str, Any]
Annotations = dict[str, dict[str, list[str]]]


@dataclass(frozen=True)
class Packages:
    """A ``node_modules`` folder that holds the pinned packages of CLDR."""

    folder: Path

    def check(self) -> None:
        """Stop if a package is missing or has another version than the pinned one."""
        for name, version in VERSIONS.items():
            there = (self.folder / name / "package.json").exists()
            found = self._json(name, "package.json")["version"] if there else "none"
            if found != version:
                sys.exit(f"{self.folder} must hold {name}@{version}, found: {found}")

    def annotations(self, label: str) -> Annotations:
        """Names (``tts``) and keywords (``default``) by emoji, those of skin tones too."""
        derived = self._json(
            "cldr-annotations-derived-full", f"annotationsDerived/{label}/annotations.json"
        )["annotationsDerived"]["annotations"]
        return {**derived, **self._annotations("cldr-annotations-full", label)}

    def old_annotations(self, language: str) -> Annotations:
        """The same of CLDR 38, without those of skin tones."""
        return self._annotations("cldr-38", language)

    def _annotations(self, package: str, label: str) -> Annotations:
        path = f"annotations/{label}/annotations.json"
        return dict(self._json(package, path)["annotations"]["annotations"])

    def territories(self, language: str) -> list[str]:
        """The names of all countries and regions in a language, without short forms."""
        found = self._json("cldr-localenames-full", f"main/{language}/territories.json")
        names = found["main"][language]["localeDisplayNames"]["territories"]
        return [name for code, name in names.items() if "-alt-" not in code]

    def speakers(self) -> Counter[str]:
        """How many people use a language, over all territories."""
        territories = self._json("cldr-core", "supplemental/territoryInfo.json")
        people: Counter[str] = Counter()
        for territory in territories["supplemental"]["territoryInfo"].values():
            for label, facts in territory.get("languagePopulation", {}).items():
                share = float(facts["_populationPercent"]) / 100
                people[label.replace("_", "-")] += round(int(territory["_population"]) * share)
        return people

    def _json(self, name: str, path: str) -> Any:
        return json.loads((self.folder / name / path).read_text(encoding="utf-8"))


def metadata(packages: Packages, language: str) -> list[str]:
    """The entries of a language; a later source adds only what is new."""
    old = packages.old_annotations(language).values()
    keywords = Counter(keyword for of in old for keyword in of.get("default", []))
    sources: tuple[Iterable[str], ...] = (
        map(str, range(100)),
        (keyword for keyword, _ in sorted(keywords.items(), key=lambda item: (-item[1], item[0]))),
        (name for of in old for name in of.get("tts", [])),
        packages.territories(language),
    )
    return list(dict.fromkeys(entry.strip() for entries in sources for entry in entries))


def draw(*key: str) -> float:
    """A number in (0, 1) that depends on the key alone."""
    digest = hashlib.blake2b("\0".join(key).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") + 0.5) / 2**64


def languages_of(url: str, weights: dict[str, float]) -> list[str]:
    """Three languages by weight without replacement (Efraimidis and Spirakis, 2006)."""
    return sorted(weights, key=lambda label: -math.log(draw(url, label)) / weights[label])[
        :LANGUAGES_AN_IMAGE
    ]


def texts_of(
    url: str, emoji: str, labels: Iterable[str], annotations: dict[str, Annotations]
) -> list[dict[str, str | None]]:
    """The emoji's name and its keywords in each of some languages."""
    texts: list[dict[str, str | None]] = []
    for label in labels:
        of_emoji = annotations[label].get(emoji.replace(VARIATION_SELECTOR, ""), {})
        told = label if draw(url, label, "told") > UNLABELLED else None
        for source, key in SOURCES:
            if text := ", ".join(of_emoji.get(key, [])):
                texts.append({"source": source, "text": text, "lang": told})
    return texts


def write_pool(
    art: Path, out: Path, weights: dict[str, float], annotations: dict[str, Annotations]
) -> None:
    """One shard a set of art; images without a text are left out."""
    out.mkdir(parents=True, exist_ok=True)
    for vendor in VENDORS:
        rows: list[Row] = []
        for image in pq.read_table(art / f"{vendor}.parquet").to_pylist():
            labels = languages_of(image["url"], weights)
            if texts := texts_of(image["url"], image["emoji"], labels, annotations):
                rows.append({**{name: image.get(name) for name in SCHEMA.names}, "texts": texts})
        path = out / f"{vendor}.parquet"
        table = pa.Table.from_pylist(rows, SCHEMA)
        pq.write_table(
            table, path, row_group_size=ROWS_PER_GROUP, compression="zstd", compression_level=19
        )
        print(f"{path}: {table.num_rows:,} pairs, {path.stat().st_size:,} bytes")


def write_metadata(packages: Packages, out: Path) -> None:
    """A JSON array a language, an entry a line."""
    out.mkdir(parents=True, exist_ok=True)
    size = entries = 0
    for language in LANGUAGES:
        found = metadata(packages, language)
        path = out / f"{language}.json"
        path.write_text(json.dumps(found, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        entries, size = entries + len(found), size + path.stat().st_size
    print(f"{out}: {entries:,} entries in {len(LANGUAGES)} languages, {size:,} bytes")


def main(folder: Path, out: Path = HERE / "worldwide") -> None:
    """Write the pool, the metadata and the licence of both."""
    packages = Packages(folder)
    packages.check()
    labels = (*LANGUAGES, *WITHOUT_METADATA)
    people = packages.speakers()
    weights = {label: math.sqrt(people[label]) for label in labels}
    annotations = {label: packages.annotations(label) for label in labels}
    write_pool(HERE / "emoji", out / "pool", weights, annotations)
    write_metadata(packages, out / "metadata")
    shutil.copyfile(folder / "cldr-annotations-full/LICENSE", out / "LICENSE.cldr")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
