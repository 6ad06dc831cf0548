"""Make a pool of found drawings with found texts: Open Clip Art, and three vendors' emoji.

    apt-get install openclipart-png openclipart-svg        # Debian, 156 MB; or unpack them anywhere
    python examples/openclipart/make_pool.py OUT [--openclipart /usr/share/openclipart]

Nothing here is made up: no law says how often a concept comes, what a text says or how much noise
there is.

* **Drawings** of Open Clip Art 0.18 (public domain), a row each: the PNG, resized to fit 32 pixels
  on white; the few of more than MAX_PIXELS are left out. ``texts``: title, description and keywords
  of the RDF in the SVG, as their authors wrote them; empty ones are left out. ``author`` and
  ``folder`` are carried along.
* **Emoji** of ``examples/emoji_experiment/art``, all vendors but the one that is the test: a row
  each, with name and keywords.

A row's key is its file's name. The metadata are the built-in WordNet entries.

There are two test sets, each a folder a class: ``test-vendor``, the art of the vendor that the pool
does not have, classes by name; and ``test-folders``, of Open Clip Art's own folders: those of the
subjects in SUBJECTS, two levels deep, with at least MIN_DRAWINGS drawings, named as their authors
filed them ("meats and eggs"). Of each, every fifth drawing by the hash of its name, at most
MAX_TEST, is in the test and not in the pool. Authors drew in series: a test drawing may have its
siblings in the pool.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HERE = Path(__file__).parent
ART = HERE.parent / "emoji_experiment" / "art"
SIDE, COLOURS = 32, 64
MAX_PIXELS = 50_000_000
SUBJECTS = (
    "animals", "buildings", "education", "food", "people", "plants", "recreation", "shapes",
    "signs_and_symbols", "tools", "transportation",
)  # fmt: skip
MIN_DRAWINGS, MAX_TEST, TEST_EVERY = 20, 20, 5
SHARD_ROWS = 2_500
DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
TEMPLATES = ("{c}", "{c} icon", "a picture of {c}", "drawing of {c}")
Row = dict[str, Any]
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "texts": pa.list_(
            pa.struct({"source": pa.string(), "text": pa.string(), "lang": pa.string()})
        ),
        "image": pa.binary(),
        "author": pa.string(),
        "folder": pa.string(),
    }
)


def small(path: Path) -> bytes | None:
    """A drawing as a small PNG on white; None if it is too large."""
    with Image.open(path) as drawing:
        if drawing.width * drawing.height > MAX_PIXELS:
            return None
        image = drawing.convert("RGBA")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIDE, SIDE), "white")
    canvas.alpha_composite(image, ((SIDE - image.width) // 2, (SIDE - image.height) // 2))
    file = io.BytesIO()
    canvas.convert("RGB").quantize(COLOURS).save(file, "PNG", optimize=True)
    return file.getvalue()


def described(svg: Path) -> tuple[list[Row], str | None]:
    """The texts of a drawing's RDF, and its author."""
    work = next((e for e in ElementTree.parse(svg).iter() if e.tag.endswith("}Work")), None)
    if work is None:
        return [], None

    def text(tag: str) -> str:
        return (work.findtext(f"{DC}{tag}") or "").strip()

    keywords = [(e.text or "").strip() for e in work.iter(f"{RDF}li")]
    found = {
        "title": text("title"),
        "description": text("description"),
        "keywords": ", ".join(word for word in keywords if word),
    }
    language = text("language") or None
    texts = [
        {"source": source, "text": text, "lang": language} for source, text in found.items() if text
    ]
    creator = work.find(f"{DC}creator")
    authors = (
        [] if creator is None else [(e.text or "").strip() for e in creator.iter(f"{DC}title")]
    )
    return texts, next(iter(authors), None) or None


def drawings(folder: Path) -> Iterator[tuple[Row, Path]]:
    """Open Clip Art's rows, in the order of their names, each with its PNG."""
    for png in sorted((folder / "png").rglob("*.png")):
        name = png.relative_to(folder / "png").with_suffix("")
        svg = folder / "svg" / name.with_suffix(".svg")
        if not svg.exists():
            continue
        texts, author = described(svg)
        where = name.parent.as_posix()
        row = {"key": name.as_posix(), "texts": texts, "author": author, "folder": where}
        yield row, png


def emoji(vendor: str) -> list[Row]:
    """A vendor's drawings with their names and keywords."""
    return [
        {
            "key": f"{vendor}/{row['emoji']}",
            "texts": [
                {"source": source, "text": row[source], "lang": "en"}
                for source in ("name", "keywords")
                if row[source]
            ],
            "image": row["image"],
            "author": vendor,
            "folder": row["group"],
        }
        for row in pq.read_table(ART / f"{vendor}.parquet").to_pylist()
    ]


def in_test(key: str) -> bool:
    """Whether a drawing may be a test drawing: every fifth is."""
    return int(hashlib.sha256(key.encode()).hexdigest(), 16) % TEST_EVERY == 0


def class_of(row: Row) -> str | None:
    """The class of a drawing in the test by folders, if its folder is one."""
    subject, *below = row["folder"].split("/")
    return below[0].replace("_", " ") if len(below) == 1 and subject in SUBJECTS else None


def write_test(out: Path, images: dict[str, list[bytes]]) -> None:
    """A folder a class, with the classes' names and the templates."""
    for number, name in enumerate(images):
        folder = out / f"{number:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(images[name]):
            (folder / f"{i}.png").write_bytes(image)
    (out / "classnames.txt").write_text("\n".join(images) + "\n", encoding="utf-8")
    (out / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    print(f"{out}: {sum(map(len, images.values())):,} images of {len(images):,} classes")


def main() -> None:
    """Write OUT/pool, OUT/test-vendor and OUT/test-folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--openclipart", type=Path, default=Path("/usr/share/openclipart"))
    parser.add_argument("--test-vendor", default="noto")
    options = parser.parse_args()
    if not (options.openclipart / "svg").is_dir():
        parser.error(
            f"{options.openclipart}/svg is not there: install openclipart-png and openclipart-svg"
        )
    Image.MAX_IMAGE_PIXELS = None  # trusted files, and the larger ones are not decoded
    found = list(drawings(options.openclipart))
    sizes: dict[str, int] = defaultdict(int)
    for row, _ in found:
        if (name := class_of(row)) is not None:
            sizes[name] += 1
    classes: dict[str, list[bytes]] = {
        name: [] for name in sorted(sizes) if sizes[name] >= MIN_DRAWINGS
    }
    rows = []
    too_large = 0
    for row, png in found:
        image = small(png)
        images = classes.get(class_of(row) or "")
        if image is None:
            too_large += 1
        elif images is not None and in_test(row["key"]) and len(images) < MAX_TEST:
            images.append(image)
        else:
            rows.append({**row, "image": image})
    from_art = len(rows)
    for path in sorted(ART.glob("*.parquet")):
        if path.stem != options.test_vendor:
            rows += emoji(path.stem)
    pool = options.out / "pool"
    pool.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(rows), SHARD_ROWS)):
        table = pa.Table.from_pylist(rows[start : start + SHARD_ROWS], SCHEMA)
        pq.write_table(table, pool / f"shard-{number:04d}.parquet", compression="zstd")
    print(
        f"{pool}: {from_art:,} drawings of Open Clip Art ({too_large} too large), "
        f"{len(rows) - from_art:,} emoji"
    )
    write_test(options.out / "test-folders", classes)
    test = pq.read_table(ART / f"{options.test_vendor}.parquet").to_pylist()
    write_test(options.out / "test-vendor", {row["name"]: [row["image"]] for row in test})


if __name__ == "__main__":
    main()
