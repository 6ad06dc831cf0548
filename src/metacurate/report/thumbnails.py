"""Thumbnails of sample pairs from WebDataset shards, drawn anew as small JPEG files.

A sample of a shard is a pair's if its key is the pair's uid in hex, or if its ``.json`` member has
that ``uid`` or the pair's ``url``.
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
import warnings
from collections.abc import Iterator
from typing import IO, Any

from metacurate.curated import Sample
from metacurate.errors import UserError
from metacurate.storage import Folder

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif")
MAX_IMAGE_BYTES = 32 * 2**20
MAX_JSON_BYTES = 2**20
MAX_PIXELS = 64 * 2**20
SIDE = 128
QUALITY = 80


def find_thumbnails(tars: str, samples: dict[int, list[Sample]]) -> dict[str, str]:
    """``{uid hex: data URI}`` of those sample pairs whose image is in the folder's tar files.

    One streamed pass; members are read in memory and never unpacked to disk. Raises UserError if
    the folder has no tar file.
    """
    pairs = [sample for found in samples.values() for sample in found]
    by_key = {s["uid"]: s["uid"] for s in pairs}
    by_url = {s["url"]: s["uid"] for s in pairs if s["url"]}
    folder = Folder(tars)
    names = [name for name in folder.list() if name.endswith(".tar")]
    if not names:
        raise UserError(f"{tars} has no .tar files; give a folder of WebDataset shards")
    thumbnails: dict[str, str] = {}
    for name in names:
        with folder.open(name) as file:
            for key, image, details in _read_samples(file):
                uid = by_key.get(key) or by_key.get(str(details.get("uid")))
                uid = uid or by_url.get(str(details.get("url")))
                if uid is None or uid in thumbnails:
                    continue
                if (small := thumbnail(image)) is not None:
                    thumbnails[uid] = f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"
    return thumbnails


def _read_samples(file: IO[bytes]) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """The samples of a shard that have an image: key, image bytes, JSON member."""
    key: str | None = None
    image: bytes = b""
    details: dict[str, Any] = {}
    try:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                base = member.name.rsplit("/", 1)[-1]
                stem, _, suffix = base.partition(".")
                if not member.isfile() or not stem:
                    continue
                if stem != key:
                    if key is not None and image:
                        yield key, image, details
                    key, image, details = stem, b"", {}
                suffix = suffix.lower()
                if suffix in IMAGE_SUFFIXES and member.size <= MAX_IMAGE_BYTES:
                    image = _content(tar, member)
                elif suffix == "json" and member.size <= MAX_JSON_BYTES:
                    details = _object(_content(tar, member))
    except tarfile.TarError:
        pass  # a shard cut off: its samples so far will do for thumbnails
    if key is not None and image:
        yield key, image, details


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = tar.extractfile(member)
    return content.read() if content is not None else b""


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def thumbnail(image: bytes) -> bytes | None:
    """A small JPEG of an image; None if it cannot be decoded or is too large to try."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(image)) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    return None
                opened.draft("RGB", (SIDE, SIDE))
                small = opened.convert("RGBA")
        small.thumbnail((SIDE, SIDE))
        on_white = Image.new("RGB", small.size, "white")
        on_white.paste(small, mask=small.getchannel("A"))
        buffer = io.BytesIO()
        on_white.save(buffer, "JPEG", quality=QUALITY)
    except Exception:  # whatever a decoder makes of a hostile file: there is no thumbnail then
        return None
    return buffer.getvalue()
