"""Images of the web made uniform: decoded within bounds, filtered, resized, hashed, encoded.

All is done in child processes (``decoders``). The result depends on the bytes, the options and the
version of Pillow only.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np

from metacurate.images.decode import MAX_PIXELS, UndecodableImage, decode
from metacurate.images.reasons import BadImage
from metacurate.needs import needs

with needs("images"):
    from PIL import Image

RESIZE_MODES = ("none", "keep_ratio", "keep_ratio_largest", "center_crop", "border")
MAX_JPEG_SIDE = 65_500
HASH_SIDE = 8


@dataclass(frozen=True)
class ImageConfig:
    """What becomes of an image. Sizes are in pixels.

    ``resize``: ``none``; ``keep_ratio`` (shorter side becomes ``size``); ``keep_ratio_largest``
    (longer side); ``center_crop`` (shorter side, then the middle square); ``border`` (longer side,
    then white borders to a square). Smaller images are enlarged only with ``upscale``.
    ``min_size``: of the shorter side; ``max_aspect``: longer through shorter side, 0 for any;
    ``max_pixels``: width times height, checked before anything is decoded; ``accept_truncated``:
    take what there is of files that are cut off; ``quality``: of JPEG.
    """

    resize: str = "keep_ratio"
    size: int = 512
    upscale: bool = False
    quality: int = 95
    min_size: int = 0
    max_aspect: float = 0.0
    max_pixels: int = MAX_PIXELS
    accept_truncated: bool = False


@dataclass(frozen=True)
class ProcessedImage:
    """An image ready to be stored.

    ``original_*``: as a browser shows it (turned by its orientation), before resizing;
    ``sha256``: of the downloaded bytes, hex; ``dhash``: perceptual hash, 16 hex digits.
    """

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    sha256: str
    dhash: str


@dataclass(frozen=True)
class Rejected:
    """Why an image was not used: a reason of the table in ``docs/images.md``."""

    reason: str


def process_image(body: bytes, config: ImageConfig) -> ProcessedImage | Rejected:
    """Decode, filter, hash, resize and encode one image; never raises for what is in the bytes."""
    try:
        return _process(body, config)
    except UndecodableImage as error:
        return Rejected(str(error))
    except MemoryError:
        return Rejected(BadImage.OUT_OF_MEMORY)


def _process(body: bytes, config: ImageConfig) -> ProcessedImage | Rejected:
    # JPEG can be decoded at a half, a quarter or an eighth, never below the size needed.
    at_least = 0 if config.resize == "none" or config.upscale else 2 * config.size
    picture = decode(
        body,
        max_pixels=config.max_pixels,
        at_least=at_least,
        accept_truncated=config.accept_truncated,
        refuse=lambda width, height: _refusal(width, height, config),
    )
    resized = _resized(picture.image, config)
    if max(resized.size) > MAX_JPEG_SIDE or resized.width * resized.height > config.max_pixels:
        return Rejected(BadImage.TOO_MANY_PIXELS)
    return ProcessedImage(
        jpeg=encode_jpeg(resized, config.quality),
        width=resized.width,
        height=resized.height,
        original_width=picture.width,
        original_height=picture.height,
        sha256=hashlib.sha256(body).hexdigest(),
        dhash=difference_hash(picture.image),
    )


def _refusal(width: int, height: int, config: ImageConfig) -> str | None:
    if min(width, height) < config.min_size:
        return BadImage.IMAGE_TOO_SMALL
    if config.max_aspect and max(width, height) > config.max_aspect * min(width, height):
        return BadImage.ASPECT_RATIO_TOO_LARGE
    return None


def difference_hash(image: Image.Image) -> str:
    """The 64-bit difference hash (dHash) as 16 hex digits.

    The image is shrunk to 9 x 8 greys; a bit says whether a pixel is brighter than its left
    neighbour, row by row from the top left. Equal for most re-encoded and resized copies.
    """
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(small)
    return np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes().hex()


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """The image as JPEG without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _resized(image: Image.Image, config: ImageConfig) -> Image.Image:
    if config.resize == "none":
        return image
    by_shorter = config.resize in ("keep_ratio", "center_crop")
    side = min(image.size) if by_shorter else max(image.size)
    if side > config.size or (config.upscale and side < config.size):
        width, height = (max(1, round(s * config.size / side)) for s in image.size)
        if max(width, height) > MAX_JPEG_SIDE or width * height > config.max_pixels:
            raise UndecodableImage(BadImage.TOO_MANY_PIXELS)
        image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    square = (config.size, config.size)
    if config.resize == "center_crop":
        left, top = (max(0, (a - b) // 2) for a, b in zip(image.size, square, strict=True))
        right, bottom = (
            start + min(a, b) for start, a, b in zip((left, top), image.size, square, strict=True)
        )
        image = image.crop((left, top, right, bottom))
    elif config.resize == "border":
        bordered = Image.new("RGB", square, (255, 255, 255))
        left, top = ((a - b) // 2 for a, b in zip(square, image.size, strict=True))
        bordered.paste(image, (left, top))
        image = bordered
    return image
