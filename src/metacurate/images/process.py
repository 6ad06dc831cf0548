"""Images of the web made uniform: decoded within bounds, filtered, resized, hashed, encoded.

All is done by Pillow, in worker processes (``decoders``). The result depends on the bytes, the
options and the version of Pillow only.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

# TIFF is left out: browsers do not show it, so it is rare on pages, and its decoders are the ones
# with most holes. SVG is no raster image.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
RESIZE_MODES = ("none", "keep_ratio", "keep_ratio_largest", "center_crop", "border")
MAX_JPEG_SIDE = 65_500
HASH_SIDE = 8
EXIF_ORIENTATION = 0x0112
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDES_SWAPPED = tuple(ORIENTATIONS[value] for value in (5, 6, 7, 8))


@dataclass(frozen=True)
class ImageConfig:
    """What becomes of an image. Sizes are in pixels.

    ``resize``: ``none``; ``keep_ratio`` (shorter side becomes ``size``); ``keep_ratio_largest``
    (longer side); ``center_crop`` (shorter side, then the middle square); ``border`` (longer side,
    then white borders to a square). Smaller images are enlarged only with ``upscale``.
    ``min_size``: of the shorter side; ``max_aspect``: longer through shorter side, 0 for any;
    ``max_pixels``: width times height, checked before anything is decoded; ``quality``: of JPEG.
    """

    resize: str = "keep_ratio"
    size: int = 512
    upscale: bool = False
    quality: int = 95
    min_size: int = 0
    max_aspect: float = 0.0
    max_pixels: int = 50_000_000


@dataclass(frozen=True)
class ProcessedImage:
    """An image ready to be stored.

    ``original_*``: as a viewer shows it (turned by its EXIF orientation), before resizing;
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _process(body, config)
    except UnidentifiedImageError:
        return Rejected("not_an_image")
    except Image.DecompressionBombError:
        return Rejected("too_many_pixels")
    except MemoryError:
        return Rejected("out_of_memory")
    except Exception:
        # Pillow's decoders raise many kinds of exceptions for damaged files.
        return Rejected("broken_image")


def _process(body: bytes, config: ImageConfig) -> ProcessedImage | Rejected:
    with Image.open(io.BytesIO(body), formats=FORMATS) as opened:
        if opened.width * opened.height > config.max_pixels:
            return Rejected("too_many_pixels")
        if min(opened.size) < max(config.min_size, 1):
            return Rejected("image_too_small")
        if config.max_aspect and max(opened.size) > config.max_aspect * min(opened.size):
            return Rejected("aspect_ratio_too_large")
        size = opened.size
        if config.resize != "none" and not config.upscale:
            # JPEG can be decoded at a half, a quarter or an eighth, never below the size needed.
            opened.draft(None, (2 * config.size, 2 * config.size))
        opened.load()
        turn = _turn(opened)
        image = to_rgb(opened)
    if turn is not None:
        image = image.transpose(turn)
    width, height = reversed(size) if turn in SIDES_SWAPPED else size
    dhash = difference_hash(image)
    resized = _resized(image, config)
    if max(resized.size) > MAX_JPEG_SIDE or resized.width * resized.height > config.max_pixels:
        return Rejected("too_many_pixels")
    return ProcessedImage(
        jpeg=encode_jpeg(resized, config.quality),
        width=resized.width,
        height=resized.height,
        original_width=width,
        original_height=height,
        sha256=hashlib.sha256(body).hexdigest(),
        dhash=dhash,
    )


def open_rgb(body: bytes, max_pixels: int = ImageConfig.max_pixels) -> Image.Image:
    """Decode a stored image to RGB; ValueError if it is too large or damaged."""
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as opened:
            if opened.width * opened.height > max_pixels:
                raise ValueError("too many pixels")
            return to_rgb(opened)
    except Exception as error:
        raise ValueError(f"not a readable image ({error})") from None


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn an image so that it stands as its EXIF orientation says."""
    try:
        return ORIENTATIONS.get(image.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:
        # Damaged metadata is no reason to lose an image.
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """The first frame as 8-bit RGB, transparency laid over white."""
    if image.mode.startswith("I"):
        # 16-bit greys: Pillow's own conversion clips them to 255.
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


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
            raise Image.DecompressionBombError
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
