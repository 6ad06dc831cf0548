"""Write a made-up WAT file with pages like the web's: about 100 links and 20 images each.

    python benchmarks/make_wat.py --out made.warc.wat.gz
    python benchmarks/extract.py --wat made.warc.wat.gz

A quarter of the addresses and a tenth of the texts are not plain (``//host``, ``../``, ``data:``,
spaces; line breaks, quotes), texts are in several scripts, 4% of the pages have a ``<base href>``.
These shares are guesses, not measured on a crawl. Each page has three records, as in CommonCrawl.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from pathlib import Path
from typing import Any

WORDS = [
    "the",
    "a",
    "red",
    "car",
    "on",
    "street",
    "of",
    "old",
    "town",
    "house",
    "sky",
    "été",
    "Straße",
    "voiture",
    "машина",
    "赤い車",
    "logo",
]
SITE = "https://www.shop.example.com"
# Share of the addresses, and how they look.
ADDRESSES = (
    (0.55, "https://cdn.shop.example.com/uploads/2023/03/{}-300x200.jpg"),
    (0.20, "/media/img/{}.png?w=300&h=20"),
    (0.10, "//static.example.net/{}.webp"),
    (0.05, "../i/{}.gif"),
    (0.07, "data:image/gif;base64,R0lGODlhAQABAIAA{}"),
    (0.03, "/a b/{}.jpg"),
)


def text(rng: random.Random) -> str:
    """One to eight words, sometimes with white space or quotes to clean or unescape."""
    words = " ".join(rng.choices(WORDS, k=rng.randint(1, 8)))
    kind = rng.random()
    if kind < 0.05:
        return words + "  "
    return words.replace(" ", "\n", 1) if kind < 0.08 else f'"{words}"' if kind < 0.1 else words


def html_metadata(rng: random.Random) -> dict[str, Any]:
    """What WAT says of one page."""
    shares, forms = zip(*ADDRESSES, strict=True)
    links = []
    for _ in range(rng.randint(40, 160)):
        number = rng.randrange(10**6)
        links.append({"path": "A@/href", "url": f"{SITE}/c/{number}/", "text": text(rng)})
        if rng.random() < 0.2:
            image = {"path": "IMG@/src", "url": rng.choices(forms, shares)[0].format(number)}
            if rng.random() < 0.7:
                image["alt"] = text(rng) if rng.random() < 0.8 else ""
            links.append(image)
    head = {"Title": text(rng), "Metas": [{"name": "x", "content": text(rng)}] * 12}
    return {"Head": head | ({"Base": SITE} if rng.random() < 0.04 else {}), "Links": links}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pages", type=int, default=1500)
    options = parser.parse_args()
    rng = random.Random(0)
    with options.out.open("wb") as file:
        for page in range(options.pages):
            for kind in ("request", "response", "metadata"):
                payload: dict[str, Any] = {"HTTP-Request-Metadata": {"Headers": {"Host": SITE}}}
                if kind == "response":
                    payload = {"HTTP-Response-Metadata": {"HTML-Metadata": html_metadata(rng)}}
                value = {
                    "Container": {"Filename": "x.warc.gz", "Compressed": True, "Offset": str(page)},
                    "Envelope": {"Format": "WARC", "Payload-Metadata": payload},
                }
                block = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
                header = (
                    f"WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: {SITE}/p/{page}\r\n"
                    f"Content-Type: application/json\r\nContent-Length: {len(block)}\r\n\r\n"
                )
                file.write(gzip.compress(header.encode() + block + b"\r\n\r\n", mtime=0))


if __name__ == "__main__":
    main()
