"""Image files in the forms that decoders get wrong, made chunk by chunk."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, PngImagePlugin

from hostile_server import encoded, photo

GREY, RGB, PALETTE = 0, 2, 3
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


def chunk(name: bytes, data: bytes, *, wrong: bool = False) -> bytes:
    """A PNG chunk; ``wrong``: with a checksum that is not its own."""
    checked = name + data
    return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked) ^ wrong)


def png(depth: int, kind: int, rows: list[bytes], *chunks: bytes, width: int = 16) -> bytes:
    """A PNG of unfiltered rows of samples."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def grey_png(depth: int, *chunks: bytes) -> bytes:
    """16 x 16 greys of all levels that the depth has, as far as 256 pixels go."""
    levels = np.arange(256) * ((1 << depth) - 1) // 255
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in levels.reshape(16, 16)]
    else:
        bits = (levels[:, None] >> np.arange(depth)[::-1] & 1).astype(np.uint8)
        rows = [np.packbits(row).tobytes() for row in bits.reshape(16, -1)]
    return png(depth, GREY, rows, *chunks)


def rgb16_png(*chunks: bytes) -> bytes:
    """Pixels of which pairs differ in the lower byte alone."""
    samples = np.zeros((16, 16, 3), ">u2")
    samples[:, :8] = (0x1234, 0x5678, 0x9ABC)
    samples[:, 8:] = (0x1234, 0x5678, 0x9ABD)
    return png(16, RGB, [row.tobytes() for row in samples], *chunks)


def long_text_png(*extra: bytes) -> bytes:
    """A picture with more than a MiB of text, inflated and not, and of XMP."""
    text = zlib.compress(b"x" * (3 << 20))
    chunks = (
        chunk(b"tEXt", b"Comment\0" + b"y" * (2 << 20)),
        chunk(b"zTXt", b"Comment\0\0" + text),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b" " * (2 << 20)),
        chunk(b"iCCP", b"long\0\0" + text),
    )
    return grey_png(8, *chunks, *extra)


def small_first_frame() -> bytes:
    """A GIF of 20 x 12 pixels whose first frame covers 8 x 6 of them at (5, 3)."""
    palette = bytes([255, 0, 0, 0, 0, 255, 0, 255, 0, 9, 9, 9])
    data = io.BytesIO()
    frame = Image.new("P", (8, 6), 1)
    frame.putpalette(palette)
    frame.save(data, "GIF")
    body = bytearray(data.getvalue())
    body[6:10] = struct.pack("<HH", 20, 12)
    place = body.index(b"\x2c", 13)
    body[place + 1 : place + 5] = struct.pack("<HH", 5, 3)
    return bytes(body)


def hidden_first_image() -> bytes:
    """An animated PNG whose first image is not of the animation."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], "PNG", save_all=True, default_image=True, append_images=frames[1:],
                   duration=10_000)  # fmt: skip


def with_exif(kind: str, value: int = 6) -> bytes:
    """A picture with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(photo(6), kind, exif=exif, **LOSSLESS.get(kind, {}))


def with_xmp(kind: str) -> bytes:
    """A picture with an orientation in XMP alone."""
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        return encoded(photo(6), kind, pnginfo=info)
    return encoded(photo(6), kind, xmp=XMP, **LOSSLESS.get(kind, {}))


LOSSLESS: dict[str, dict[str, object]] = {
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def half_clear(kind: str) -> bytes:
    """A picture that fades from clear to opaque."""
    image = photo(7).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return encoded(image, kind, **LOSSLESS.get(kind, {}))


def moving_webp() -> bytes:
    """An animation whose first frame is half transparent."""
    frames = [Image.new("RGBA", (20, 10), colour) for colour in ((255, 0, 0, 128), (0, 0, 255, 9))]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True,
                   duration=10_000)  # fmt: skip


def gamma(value: int) -> bytes:
    """The chunk that says how samples become light."""
    return chunk(b"gAMA", struct.pack(">I", value))


def key(*samples: int) -> bytes:
    """The chunk that makes a colour transparent."""
    return chunk(b"tRNS", struct.pack(f">{len(samples)}H", *samples))


ODD_IMAGES: dict[str, Callable[[], bytes]] = {
    **{f"grey {n} bits, key": lambda n=n: grey_png(n, key((1 << n) - 1)) for n in (1, 2, 4, 8)},
    **{f"grey {n} bits": lambda n=n: grey_png(n) for n in (1, 2, 4, 8, 16)},
    "grey 16 bits, key": lambda: grey_png(16, key(100 * 65535 // 255)),
    "grey 2 bits, key 1": lambda: grey_png(2, key(1)),
    "grey 16 bits, key differs in the lower byte": lambda: grey_png(16, key(0x6465)),
    "rgb 16 bits, key": lambda: rgb16_png(key(0x1234, 0x5678, 0x9ABD)),
    "rgb 8 bits, key": lambda: png(
        8, RGB, [bytes([1, 2, 3, 4, 5, 6]) * 8] * 16, key(4, 5, 6)
    ),
    "palette with alpha": lambda: png(
        8, PALETTE, [bytes(range(4)) * 4] * 16,
        chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9])),
        chunk(b"tRNS", bytes([0, 128, 255])),
    ),
    "key with a wrong checksum": lambda: grey_png(
        8, chunk(b"tRNS", b"\0\x05", wrong=True)
    ),
    "gamma with a wrong checksum": lambda: grey_png(
        8, chunk(b"pHYs", bytes(9), wrong=True)
    ),
    **{f"grey gamma {n}": lambda n=n: grey_png(8, gamma(n)) for n in (
        35_000, 43_000, 44_000, 45_455, 55_000, 100_000, 250_000
    )},
    "alpha and gamma": lambda: png(
        8, 6, [bytes([200, 100, 50, 16 * n]) * 16 for n in range(16)], gamma(100_000)
    ),
    "key and gamma": lambda: grey_png(4, gamma(100_000), key(7)),
    "palette and gamma": lambda: png(
        8, PALETTE, [bytes(range(4)) * 4] * 16, gamma(70_000),
        chunk(b"PLTE", bytes([255, 0, 0, 90, 180, 30, 0, 60, 255, 9, 9, 9])),
    ),
    "16 bits and gamma": lambda: grey_png(16, gamma(100_000)),
    "gamma beside sRGB": lambda: grey_png(8, chunk(b"sRGB", b"\0"), gamma(100_000)),
    "over a MiB of text and profile": long_text_png,
    "an animation that hides its first image": hidden_first_image,
    "first frame smaller than the canvas": small_first_frame,
    "animated webp, half clear": moving_webp,
    **{f"{kind} exif": lambda kind=kind: with_exif(kind) for kind in ("JPEG", "PNG", "WEBP",
                                                                        "AVIF")},
    **{f"{kind} xmp": lambda kind=kind: with_xmp(kind) for kind in ("JPEG", "PNG", "WEBP",
                                                                      "AVIF")},
    **{f"{kind} half clear": lambda kind=kind: half_clear(kind) for kind in ("PNG", "WEBP")},
    **{f"JPEG exif {n}": lambda n=n: with_exif("JPEG", n) for n in range(10)},
    "bmp": lambda: encoded(photo(3), "BMP"),
    "grey jpeg": lambda: encoded(photo(3).convert("L")),
    "progressive jpeg": lambda: encoded(photo(3), progressive=True),
}  # fmt: skip
