"""``python tests/report_picture.py`` makes docs/img/report.png, README's picture of the report.

It curates the example pool with README's first command, and takes what a browser shows of the page.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from PIL import Image

from chromium import browser, find_chromium

REPOSITORY = Path(__file__).parents[1]
PICTURE = REPOSITORY / "docs" / "img" / "report.png"
COMMAND = "curate examples/emoji --metadata wordnet --t 10 --out out/emoji"
WIDTH, HEIGHT = 1280, 1640  # the summary and the first charts


def main() -> None:
    """Curate, open the page, write the picture."""
    from metacurate.cli import main as metacurate

    executable = find_chromium()
    if executable is None:
        raise SystemExit("Chromium is not installed")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("examples").symlink_to(REPOSITORY / "examples")
        sys.argv = ["metacurate", *COMMAND.split()]  # the page says how it was made
        with suppress(SystemExit):  # as every command line ends
            metacurate(sys.argv[1:])
        with browser(executable) as running:
            running.open(Path("out/emoji/report.html"), WIDTH, HEIGHT)
            shown = Image.open(io.BytesIO(running.screenshot()))
        # 64 colours: drawings and letters, no photographs.
        shown.convert("RGB").quantize(64).save(PICTURE, optimize=True)
        os.chdir(REPOSITORY)


if __name__ == "__main__":
    main()
