"""The one decoder: an image file's bytes become RGB pixels, the same for every command.

A picture comes out as a browser draws it on a white page: turned as its orientation says, its
transparency laid over white, a PNG's gamma applied, the first frame of an animation on its canvas.
(Colour profiles are not applied.) Only the listed formats are opened. Pixels, and the scans of a
JPEG, are bounded before anything is decoded; and commands run it in child processes (``decoders``),
whose processor time and memory the kernel bounds.

``tests/images/test_browser_pixels.py`` holds this to what Chromium draws.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metacurate.images.reasons import BadImage
from metacurate.needs import needs
from metacurate.webdataset.headers import IMAGE_EXTENSIONS

with needs("images"):
    from PIL import Image, UnidentifiedImageError
    from PIL.GifImagePlugin import GifImageFile

FORMATS = tuple(dict.fromkeys(IMAGE_EXTENSIONS.values()))
# What data sets for evaluation hold besides, on a user's own disk. No browser shows these, so they
# are no format of the web, and TIFF's decoders are the ones with most holes.
DATASET_FORMATS = (*FORMATS, "TIFF", "PPM")
DATASET_EXTENSIONS = frozenset({*IMAGE_EXTENSIONS, "tif", "tiff", "ppm", "pgm", "pbm"})

MAX_PIXELS = 50_000_000
# Encoders write some ten scans. Each costs a pass over the picture, in a file that need hardly grow
# for it: these bounds keep a JPEG to some seconds.
MAX_SCANS = 100
MAX_SCANNED_PIXELS = 1_000_000_000

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
# Browsers respect EXIF in these, and AVIF's own turning, which Pillow tells as EXIF; they ignore it
# in WebP, and XMP everywhere.
ORIENTED_FORMATS = frozenset({"JPEG", "MPO", "PNG", "AVIF"})

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_DRAWN = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
PNG_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
MAX_EXIF_BYTES = 64 << 10
PNG_GREY, PNG_RGB = 0, 2
# Beyond these a gamma is a mistake, and all would be black or white; near 1 / 2.2 it is sRGB's.
MIN_GAMMA, MAX_GAMMA = 0.1, 5.0
SRGB_GAMMA_MARGIN = 0.05

Mask = npt.NDArray[np.bool_]

# Pillow's warnings (of odd metadata, of many pixels) say nothing that is not counted as a reason.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UndecodableImage(Exception):
    """An image that cannot be used; the message is the reason that is counted."""


@dataclass(frozen=True)
class Picture:
    """Pixels as RGB, and the size that the file has when shown, in pixels.

    The two differ only if the image was decoded at a fraction of its size.
    """

    image: Image.Image
    width: int
    height: int


def decode(
    body: bytes,
    *,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    at_least: int = 0,
    accept_truncated: bool = False,
    refuse: Callable[[int, int], str | None] | None = None,
) -> Picture:
    """Decode an image; raises UndecodableImage, and nothing else for what is in the bytes.

    ``at_least``: a JPEG may be decoded at a half, a quarter or an eighth of its size if both sides
    stay that long (faster; 0: never). ``accept_truncated``: of a file that is cut off, take what
    there is. ``refuse(width, height)`` may give a reason not to decode at all.
    """
    try:
        return _decode(body, formats, max_pixels, at_least, accept_truncated, refuse)
    except UndecodableImage:
        raise
    except UnidentifiedImageError:
        reason = BadImage.TRUNCATED if _is_cut_off(body) else BadImage.NOT_AN_IMAGE
    except Image.DecompressionBombError:
        reason = BadImage.TOO_MANY_PIXELS
    except MemoryError:
        reason = BadImage.OUT_OF_MEMORY
    except Exception as error:
        # Pillow's decoders raise many kinds of exceptions for damaged files.
        reason = BadImage.TRUNCATED if _is_cut_off(body, error) else BadImage.BROKEN_IMAGE
    raise UndecodableImage(reason)


def _decode(
    body: bytes,
    formats: tuple[str, ...],
    max_pixels: int,
    at_least: int,
    accept_truncated: bool,
    refuse: Callable[[int, int], str | None] | None,
) -> Picture:
    png = _read_png(body) if body.startswith(PNG_SIGNATURE) else None
    data = body if png is None else png.data
    with Image.open(io.BytesIO(data), formats=formats) as opened:
        size = opened.size
        pixels = size[0] * size[1]
        if pixels > max_pixels:
            raise UndecodableImage(BadImage.TOO_MANY_PIXELS)
        if pixels == 0:
            raise UndecodableImage(BadImage.BROKEN_IMAGE)
        if (reason := refuse(*size) if refuse is not None else None) is not None:
            raise UndecodableImage(reason)
        if _is_jpeg(opened):
            scans = body.count(b"\xff\xda")
            if scans > MAX_SCANS or scans * pixels > max(MAX_SCANNED_PIXELS, 4 * pixels):
                raise UndecodableImage(BadImage.TOO_MANY_SCANS)
            if at_least:
                opened.draft(None, (at_least, at_least))
        elif opened.info.get("default_image"):
            opened.seek(1)  # a PNG whose first image is not of its animation
        try:
            opened.load()
        except Exception as error:
            if not (accept_truncated and _is_cut_off(body, error)):
                raise
            if _is_jpeg(opened) and not body.endswith(b"\xff\xd9"):
                # With an end marker libjpeg gives what it has, of progressive files too.
                ended = body + b"\xff\xd9"
                return _decode(ended, formats, max_pixels, at_least, False, None)
            opened.tile = []  # the pixels that were decoded are there
            opened.load()
        turn = _turn(opened)
        image = _flattened(opened, png)
    if turn is not None:
        image = image.transpose(turn)
    width, height = reversed(size) if turn in SIDES_SWAPPED else size
    return Picture(image, width, height)


def _is_jpeg(image: Image.Image) -> bool:
    return image.format in ("JPEG", "MPO")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How to turn an image so that it stands as its orientation says."""
    data = image.info.get("exif") if image.format in ORIENTED_FORMATS else None
    if data is None:
        return None
    exif = Image.Exif()
    try:
        exif.load(data)
        return ORIENTATIONS.get(exif.get(EXIF_ORIENTATION, 1))
    except Exception:
        # Damaged metadata is no reason to lose an image.
        return None


def _flattened(image: Image.Image, png: _Png | None) -> Image.Image:
    """The loaded image as 8-bit RGB, transparency laid over white."""
    tones = None if png is None else png.tones()
    if png is not None and (clear := png.transparent(image)) is not None:
        colours = _to_rgb(image, tones)
        colours.paste((255, 255, 255), mask=Image.fromarray(clear))
        return colours
    if isinstance(image, GifImageFile) and (box := image.dispose_extent) != (0, 0, *image.size):
        # Around a first frame that is smaller than the canvas there is nothing.
        canvas = Image.new("RGB", image.size, (255, 255, 255))
        canvas.paste(_to_rgb(image.crop(box)), box)
        return canvas
    return _to_rgb(image, tones)


def _to_rgb(image: Image.Image, tones: list[int] | None = None) -> Image.Image:
    """As RGB on white; ``tones`` are what the 256 values of red, green and blue become before."""
    if image.mode.startswith("I"):
        # 16-bit greys: Pillow's own conversion clips them to 255.
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        if tones is not None:
            layers = layers.point([*tones, *tones, *tones, *range(256)])
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layers).convert("RGB")
    image = image.convert("RGB")
    return image if tones is None else image.point(tones * 3)


@dataclass(frozen=True)
class _Png:
    """A PNG file without the chunks that are not drawn, and what Pillow gets wrong of it.

    ``key``: the raw samples of the colour that is transparent (in greys and RGB), or None;
    ``gamma``: that of its samples where it is not sRGB's, or None.
    """

    data: bytes
    depth: int
    kind: int
    key: tuple[int, ...] | None
    gamma: float | None

    def tones(self) -> list[int] | None:
        """What the values 0 to 255 become in sRGB; None if they stay."""
        if self.gamma is None:
            return None
        light = (np.arange(256) / 255) ** (1 / self.gamma)
        values = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
        return [int(value) for value in np.rint(255 * values)]

    def transparent(self, image: Image.Image) -> Mask | None:
        """Which pixels have the transparent colour, bool[height, width]; None if there is none.

        The colour is given in the file's samples; Pillow compares it with samples of 8 bits.
        """
        if self.key is None:
            return None
        pixels = np.asarray(image)
        if self.kind == PNG_GREY:
            levels = (1 << self.depth) - 1
            key = self.key[0] & levels
            if self.depth < 8 and pixels.dtype != np.bool_:
                key *= 255 // levels
            return np.asarray(pixels == key)
        if self.depth == 16:
            whole = pixels.astype(np.uint16) << 8 | self._low_bytes()
            return np.asarray((whole == np.array(self.key)).all(axis=2))
        return np.asarray((pixels == np.array(self.key) % 256).all(axis=2))

    def _low_bytes(self) -> npt.NDArray[np.uint16]:
        """The lower halves of 16-bit samples: read as if they were little-endian."""
        with Image.open(io.BytesIO(self.data), formats=("PNG",)) as again:
            again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
            return np.asarray(again).astype(np.uint16)


def _read_png(body: bytes) -> _Png:
    """Take what is drawn of a PNG file, and drop damaged chunks that it can be drawn without."""
    pieces = [PNG_SIGNATURE]
    depth = kind = -1
    key: tuple[int, ...] | None = None
    gamma: float | None = None
    profile = False
    animated = _hides_its_first_image(body)
    for name, start, end in _png_chunks(body):
        if name in (b"sRGB", b"iCCP"):
            profile = True
        elif name == b"gAMA" and end - start == 16 and _checksum_is_right(body, start, end):
            gamma = int.from_bytes(body[start + 8 : end - 4], "big") / 100_000
        if name not in PNG_DRAWN and not (animated and name in PNG_ANIMATION):
            continue
        length = end - start - 12
        ancillary = bool(name[0] & 0x20)
        if ancillary and not _checksum_is_right(body, start, end):
            continue
        if name == b"eXIf" and length > MAX_EXIF_BYTES:
            continue
        if name == b"IHDR" and length >= 10:
            depth, kind = body[start + 16], body[start + 17]
        elif name == b"tRNS" and kind in (PNG_GREY, PNG_RGB) and not animated:
            samples = 1 if kind == PNG_GREY else 3
            if length >= 2 * samples:
                key = struct.unpack_from(f">{samples}H", body, start + 8)
            continue
        pieces.append(body[start:end])
    if (
        gamma is None
        or profile
        or not MIN_GAMMA <= gamma <= MAX_GAMMA
        or abs(2.2 * gamma - 1) <= SRGB_GAMMA_MARGIN
    ):
        gamma = None
    return _Png(b"".join(pieces), depth, kind, key, gamma)


def _checksum_is_right(body: bytes, start: int, end: int) -> bool:
    told = int.from_bytes(body[end - 4 : end], "big")
    return zlib.crc32(body[start + 4 : end - 4]) == told


def _png_chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the chunks up to IEND; the last one's end may be the file's."""
    start = len(PNG_SIGNATURE)
    while start + 8 <= len(body):
        name = body[start + 4 : start + 8]
        end = min(start + 12 + int.from_bytes(body[start : start + 4], "big"), len(body))
        yield name, start, end
        if name == b"IEND":
            return
        start = end


def _hides_its_first_image(body: bytes) -> bool:
    """Whether a PNG is an animation whose first frame comes after an image for old viewers."""
    if b"fdAT" not in body:
        return False
    before: set[bytes] = set()
    for name, _, _ in _png_chunks(body):
        if name == b"IDAT":
            return b"acTL" in before and b"fcTL" not in before
        before.add(name)
    return False


def _is_cut_off(body: bytes, error: Exception | None = None) -> bool:
    """Whether a file that cannot be decoded ends too early."""
    if isinstance(error, EOFError) or "truncated" in str(error):
        return True
    if body.startswith(b"\xff\xd8\xff"):
        return body.rfind(b"\xff\xd9") <= body.rfind(b"\xff\xda")
    if body.startswith(PNG_SIGNATURE):
        return not any(name == b"IEND" for name, _, _ in _png_chunks(body))
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return int.from_bytes(body[4:8], "little") + 8 > len(body)
    if body.startswith((b"GIF87a", b"GIF89a")):
        return not body.rstrip(b"\0").endswith(b";")
    if body[4:8] == b"ftyp":
        at = 0
        while at + 8 <= len(body) and (size := int.from_bytes(body[at : at + 4], "big")) >= 8:
            at += size
        return at > len(body)
    return False
