"""Write the texts of the worldwide experiment: names and keywords of its emoji in six languages.

    npm install --ignore-scripts --prefix /tmp/cldr cldr-annotations-full@48.2.0 \\
        cldr-annotations-derived-full@48.2.0 cldr-localenames-full@48.2.0 cldr-core@48.2.0 \\
        cldr-38@npm:cldr-annotations-full@38.1.0
    python examples/worldwide_experiment/make_texts.py /tmp/cldr/node_modules [OUT]

The emoji are those of ``examples/emoji_experiment/art``; the texts are the Unicode CLDR's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from make_worldwide_pool import Packages  # noqa: E402

LANGUAGES = ("en", "zh", "ar", "de", "ja", "ko")


def main(folder: Path, out: Path = HERE / "texts.parquet") -> None:
    """Write a row an emoji and language."""
    packages = Packages(folder)
    packages.check()
    art = HERE.parent / "emoji_experiment" / "art" / "noto.parquet"
    emoji = pq.read_table(art, columns=["emoji"])["emoji"].to_pylist()
    rows = []
    for language in LANGUAGES:
        found = packages.annotations(language)
        rows += [
            {
                "emoji": one,
                "lang": language,
                "name": found[one]["tts"][0],
                "keywords": found[one]["default"],
            }
            for one in emoji
        ]
    pq.write_table(pa.Table.from_pylist(rows), out, compression="zstd", compression_level=19)
    print(f"{out}: {len(rows):,} rows, {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
