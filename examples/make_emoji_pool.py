"""Build the example pool ``examples/emoji``: four free sets of emoji art, with real English texts.

    npm install --ignore-scripts --prefix /tmp/emoji emoji-datasource-google@16.0.0 \\
        emoji-datasource-twitter@16.0.0 openmoji@17.0.0 fluentui-emoji@1.3.0 \\
        cldr-annotations-full@48.2.0 cldr-annotations-derived-full@48.2.0
    python examples/make_emoji_pool.py /tmp/emoji/node_modules [examples/emoji]

One Parquet shard a set of art (a "vendor"). Only the addresses of images and their texts are
written, no image. Art without a free licence (Apple's, Facebook's) is left out. Same packages, same
bytes.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VERSIONS = {
    "emoji-datasource-google": "16.0.0",
    "emoji-datasource-twitter": "16.0.0",
    "openmoji": "17.0.0",
    "fluentui-emoji": "1.3.0",
    "cldr-annotations-full": "48.2.0",
    "cldr-annotations-derived-full": "48.2.0",
}
CDN = "https://cdn.jsdelivr.net/npm"
ROWS_PER_GROUP = 1000
SCHEMA = pa.schema(
    {
        "url": pa.string(),
        "texts": pa.list_(
            pa.struct({"source": pa.string(), "text": pa.string(), "lang": pa.string()})
        ),
        "emoji": pa.string(),
        "codepoints": pa.string(),
        "vendor": pa.string(),
        "group": pa.string(),
        "subgroup": pa.string(),
        "license": pa.string(),
    }
)
VARIATION_SELECTOR = "\ufe0f"
Row = dict[str, Any]


@dataclass(frozen=True)
class Packages:
    """A ``node_modules`` folder that holds the pinned packages."""

    folder: Path

    def check(self) -> None:
        """Stop if a package is missing or has another version than the pinned one."""
        for name, version in VERSIONS.items():
            description = self.folder / name / "package.json"
            found = self.json(name, "package.json")["version"] if description.exists() else "none"
            if found != version:
                sys.exit(f"{self.folder} must hold {name}@{version}, found: {found}")

    def json(self, name: str, path: str) -> Any:
        """A JSON file of a package."""
        return json.loads((self.folder / name / path).read_text(encoding="utf-8"))

    def has(self, name: str, path: str) -> bool:
        """Whether a package has that file."""
        return (self.folder / name / path).is_file()


@dataclass(frozen=True)
class Annotations:
    """English names and keywords of the Unicode CLDR, by emoji."""

    table: dict[str, dict[str, list[str]]]

    @classmethod
    def read(cls, packages: Packages) -> Annotations:
        derived = packages.json(
            "cldr-annotations-derived-full", "annotationsDerived/en/annotations.json"
        )["annotationsDerived"]["annotations"]
        direct = packages.json("cldr-annotations-full", "annotations/en/annotations.json")
        return cls({**derived, **direct["annotations"]["annotations"]})

    def _of(self, emoji: str) -> dict[str, list[str]]:
        return self.table.get(emoji.replace(VARIATION_SELECTOR, ""), {})

    def name(self, emoji: str) -> str:
        """The short name, empty if there is none."""
        return (self._of(emoji).get("tts") or [""])[0]

    def texts(self, emoji: str) -> list[tuple[str, str]]:
        """(source, text) of the short name and the keywords."""
        keywords = ", ".join(self._of(emoji).get("default", []))
        return [("cldr_short_name", self.name(emoji)), ("cldr_keywords", keywords)]


@dataclass(frozen=True)
class Emoji:
    """One emoji (a skin tone variant is one of its own) of the emoji-datasource packages."""

    text: str
    record: dict[str, Any]
    variant: dict[str, Any]

    @property
    def group(self) -> str:
        return str(self.record["category"]).lower().replace(" & ", "-")


def read_emoji(packages: Packages, package: str) -> Iterator[Emoji]:
    for record in packages.json(package, "emoji.json"):
        for variant in (record, *record.get("skin_variations", {}).values()):
            yield Emoji(characters(variant["unified"]), record, variant)


def characters(codepoints: str) -> str:
    return "".join(chr(int(number, 16)) for number in codepoints.split("-"))


def row(url: str, texts: list[tuple[str, str]], emoji: str, codepoints: str, *rest: str) -> Row:
    kept = [{"source": s, "text": t, "lang": "en"} for s, t in texts if t]
    return dict(zip(SCHEMA.names, (url, kept, emoji, codepoints, *rest), strict=True))


def datasource_rows(
    packages: Packages, annotations: Annotations, maker: str, vendor: str, license: str
) -> Iterator[Row]:
    """Noto Emoji (by Google) and Twemoji (by Twitter), as packed by emoji-datasource."""
    package = f"emoji-datasource-{maker}"
    for emoji in read_emoji(packages, package):
        path = f"img/{maker}/64/{emoji.variant['image']}"
        if not (emoji.variant[f"has_img_{maker}"] and packages.has(package, path)):
            continue
        yield row(
            f"{CDN}/{package}@{VERSIONS[package]}/{path}",
            [
                ("unicode_name", emoji.record["name"]),
                ("short_names", ", ".join(emoji.record["short_names"])),
                *annotations.texts(emoji.text),
            ],
            emoji.text,
            emoji.variant["unified"],
            vendor,
            emoji.group,
            emoji.record["subcategory"],
            license,
        )


def openmoji_rows(packages: Packages, annotations: Annotations) -> Iterator[Row]:
    """OpenMoji, with its own names and tags; it draws more than Unicode's emoji."""
    for record in packages.json("openmoji", "data/openmoji.json"):
        path = f"color/svg/{record['hexcode']}.svg"
        if not packages.has("openmoji", path):
            continue
        yield row(
            f"{CDN}/openmoji@{VERSIONS['openmoji']}/{path}",
            [
                ("openmoji_annotation", record["annotation"]),
                ("openmoji_tags", record["openmoji_tags"]),
                *annotations.texts(record["emoji"]),
            ],
            record["emoji"],
            record["hexcode"],
            "openmoji",
            record["group"],
            record["subgroups"],
            "CC-BY-SA-4.0",
        )


def fluent_rows(packages: Packages, annotations: Annotations) -> Iterator[Row]:
    """Fluent Emoji, whose files are named after the CLDR short names."""
    for emoji in read_emoji(packages, "emoji-datasource-google"):
        slug = file_name(annotations.name(emoji.text))
        for stem in (slug, f"{slug}-default"):
            path = f"icons/flat/{stem}.svg"
            if packages.has("fluentui-emoji", path):
                yield row(
                    f"{CDN}/fluentui-emoji@{VERSIONS['fluentui-emoji']}/{path}",
                    annotations.texts(emoji.text),
                    emoji.text,
                    emoji.variant["unified"],
                    "fluent",
                    emoji.group,
                    emoji.record["subcategory"],
                    "MIT",
                )
                break


def file_name(name: str) -> str:
    """``woman surfing: dark skin tone`` is drawn in ``woman-surfing-dark.svg``."""
    plain = unicodedata.normalize("NFKD", name.replace(" skin tone", "").replace("&", "and"))
    plain = re.sub(r"['’!“”]", "", plain.encode("ascii", "ignore").decode().lower())
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def main(folder: Path, out: Path = Path(__file__).parent / "emoji") -> None:
    """Write the shards and the licences of the texts."""
    packages = Packages(folder)
    packages.check()
    annotations = Annotations.read(packages)
    shards = {
        "noto": datasource_rows(packages, annotations, "google", "noto", "Apache-2.0"),
        "twemoji": datasource_rows(packages, annotations, "twitter", "twemoji", "CC-BY-4.0"),
        "openmoji": openmoji_rows(packages, annotations),
        "fluent": fluent_rows(packages, annotations),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in shards.items():
        table = pa.Table.from_pylist(list(rows), SCHEMA)
        path = out / f"{name}.parquet"
        pq.write_table(table, path, row_group_size=ROWS_PER_GROUP, compression="zstd")
        print(f"{path}: {table.num_rows:,} pairs, {path.stat().st_size:,} bytes")
    shutil.copyfile(folder / "cldr-annotations-full/LICENSE", out / "LICENSE.cldr")
    shutil.copyfile(folder / "emoji-datasource-google/LICENSE", out / "LICENSE.emoji-datasource")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
