"""Draw the art of the emoji experiment: small PNGs of four free sets of emoji, as Parquet.

    npm install --ignore-scripts --prefix /tmp/emoji emoji-datasource-google@16.0.0 \\
        emoji-datasource-twitter@16.0.0 openmoji@17.0.0 fluentui-emoji@1.3.0
    pip install pillow pyarrow resvg-py==0.5.0
    python examples/emoji_experiment/make_art.py /tmp/emoji/node_modules [OUT] [--size 32] [--all]

Which emoji there are, with their texts, comes from ``examples/emoji``. Taken are animals, food,
travel, activities and objects (``--all``: every emoji without a skin tone) that all four vendors
draw. Images are resized with Lanczos on white and reduced to 64 colours.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import resvg_py
from PIL import Image

HERE = Path(__file__).parent
VENDORS = ("fluent", "noto", "openmoji", "twemoji")
GROUPS = ("activities", "animals-nature", "food-drink", "objects", "travel-places")
DRAWN_AT = 256
COLOURS = 64
SKIN_TONES = ("1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF")
Row = dict[str, Any]


def read_rows(vendor: str) -> list[Row]:
    """The emoji of a vendor without skin tones, with name, keywords and the image's address."""
    found = []
    for row in pq.read_table(HERE.parent / "emoji" / f"{vendor}.parquet").to_pylist():
        texts = {text["source"]: text["text"] for text in row["texts"]}
        if "cldr_short_name" not in texts or any(t in row["codepoints"] for t in SKIN_TONES):
            continue
        found.append(
            {
                "emoji": row["emoji"].replace("\ufe0f", ""),
                "name": texts["cldr_short_name"],
                "keywords": texts.get("cldr_keywords", ""),
                "group": row["group"],
                "url": row["url"],
                "license": row["license"],
            }
        )
    return found


def draw(node_modules: Path, url: str, size: int) -> bytes:
    """The image of a pinned npm address as a small PNG."""
    package, _, path = url.partition("/npm/")[2].partition("/")
    file = node_modules / package.rpartition("@")[0] / path
    if file.suffix == ".svg":
        drawn = resvg_py.svg_to_bytes(svg_path=str(file), width=DRAWN_AT, height=DRAWN_AT)
        image = Image.open(io.BytesIO(bytes(drawn)))
    else:
        image = Image.open(file)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    flat = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    small = flat.resize((size, size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    """Write one Parquet file a vendor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("node_modules", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=HERE / "art")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    rows = {vendor: read_rows(vendor) for vendor in VENDORS}
    common = set.intersection(*({row["emoji"] for row in of} for of in rows.values()))
    options.out.mkdir(parents=True, exist_ok=True)
    for vendor, of in rows.items():
        unique = {
            row["emoji"]: row
            for row in of
            if row["emoji"] in common and (options.all or row["group"] in GROUPS)
        }
        drawn = [
            {**row, "vendor": vendor, "image": draw(options.node_modules, row["url"], options.size)}
            for _, row in sorted(unique.items())
        ]
        path = options.out / f"{vendor}.parquet"
        pq.write_table(pa.Table.from_pylist(drawn), path, compression="zstd")
        print(f"{path}: {len(drawn):,} images, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
