"""How often the shipped scorers and the perceptual hash err, on images that can be had offline.

    apt-get install gimp-help-en
    python benchmarks/image_scorers.py /usr/share/gimp/2.0/help/en/images

The images given must be harmless. Faces are from scikit-image's subset of Labeled Faces in the Wild
(100 faces, 100 other patches, 25 x 25 pixels, enlarged here).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from metacurate.images.decode import UndecodableImage, decode
from metacurate.images.process import difference_hash
from metacurate.images.scorers import load_scorer

MIN_SIDE = 64
DISTANCES = (0, 1, 3, 5)


def pictures(folders: list[Path], suffixes: list[str]) -> dict[str, Image.Image]:
    """All readable images of folders, each content once."""
    found = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in suffixes:
                continue
            try:
                image = decode(path.read_bytes()).image
            except UndecodableImage:
                continue
            if min(image.size) >= MIN_SIDE:
                found[hashlib.sha256(image.tobytes()).hexdigest()] = image
    return found


def hash_errors(images: list[Image.Image]) -> dict[str, object]:
    """How many altered copies, and how many different images, are within some bits."""

    def through(image: Image.Image, kind: str, **options: int) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        return decode(buffer.getvalue()).image

    copies: dict[str, Callable[[Image.Image], Image.Image]] = {
        "JPEG, quality 90": lambda i: through(i, "JPEG", quality=90),
        "JPEG, quality 50": lambda i: through(i, "JPEG", quality=50),
        "WebP, quality 80": lambda i: through(i, "WEBP", quality=80),
        "half the size": lambda i: i.resize((max(1, i.width // 2), max(1, i.height // 2))),
        "5% cut off each side": lambda i: i.crop(
            (i.width // 20, i.height // 20, i.width - i.width // 20, i.height - i.height // 20)
        ),
    }
    hashes = [int(difference_hash(image), 16) for image in images]
    found: dict[str, object] = {}
    for name, alter in copies.items():
        altered = [int(difference_hash(alter(image)), 16) for image in images]
        bits = np.array([(a ^ h).bit_count() for a, h in zip(altered, hashes, strict=True)])
        found[name] = {f"{d} bits": round(float((bits <= d).mean()), 4) for d in DISTANCES}
    marked = {
        f"{d} bits": sum(
            any((hashes[i] ^ hashes[j]).bit_count() <= d for j in range(i))
            for i in range(len(hashes))
        )
        for d in DISTANCES
    }
    return {"copies found": found, "different images marked": marked}


def face_errors() -> dict[str, object]:
    """Detection on known faces and on patches without any."""
    patches = skimage.data.lfw_subset()
    faces = load_scorer("faces")
    found: dict[str, object] = {}
    for side in (50, 100, 200):
        counts = []
        for part in (patches[:100], patches[100:]):
            hits = 0
            for patch in part:
                grey = Image.fromarray((patch * 255).clip(0, 255).astype(np.uint8))
                canvas = Image.new("RGB", (320, 320), (128, 128, 128))
                canvas.paste(grey.resize((side, side), Image.Resampling.BICUBIC), (60, 60))
                hits += faces([np.asarray(canvas)], [{}])["faces"][0] > 0
            counts.append(hits)
        found[f"{side} px"] = {"of 100 faces": counts[0], "of 100 other patches": counts[1]}
    return found


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=500, help="images for the slow scorers")
    parser.add_argument("--suffixes", nargs="+", default=[".png", ".jpg", ".jpeg", ".webp"])
    parser.add_argument("--hashes-only", action="store_true", help="leave the slow scorers out")
    arguments = parser.parse_args()
    images = list(pictures(arguments.folders, arguments.suffixes).values())
    step = max(1, len(images) // arguments.limit)
    some = [np.asarray(image) for image in images[::step]]
    found: dict[str, object] = {"images": len(images), "hash": hash_errors(images)}
    if arguments.hashes_only:
        print(json.dumps(found, indent=1))
        return
    start = time.perf_counter()
    unsafe = load_scorer("unsafe")(some, [{}] * len(some))["unsafe"]
    found["unsafe"] = {
        "images": len(some),
        "images/s": round(len(some) / (time.perf_counter() - start), 1),
        "at least 0.5": sum(score >= 0.5 for score in unsafe),
        "at least 0.2": sum(score >= 0.2 for score in unsafe),
        "highest": round(max(unsafe), 3),
    }
    start = time.perf_counter()
    faces = load_scorer("faces")(some, [{}] * len(some))["faces"]
    found["faces"] = {
        "images": len(some),
        "images/s": round(len(some) / (time.perf_counter() - start), 1),
        "images with a face found": sum(count > 0 for count in faces),
        "on known patches": face_errors(),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
