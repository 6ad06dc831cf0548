"""The one decoder: what it refuses and why, whatever the bytes do."""

from __future__ import annotations

import io
import os
import signal
import struct
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hostile_server import encoded, photo
from metacurate.images import decode as decode_module
from metacurate.images.decode import (
    DATASET_EXTENSIONS,
    DATASET_FORMATS,
    FORMATS,
    UndecodableImage,
    decode,
)
from metacurate.images.decoders import decode_isolated, isolated
from metacurate.images.process import ImageConfig, ProcessedImage, Rejected, process_image
from metacurate.runtime.isolate import Lost
from metacurate.webdataset.headers import IMAGE_EXTENSIONS
from odd_images import chunk, grey_png, long_text_png, png, small_first_frame

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n"


def dds() -> bytes:
    """128 bytes: the header of a texture without pixels."""
    return b"DDS " + struct.pack("<7I", 124, 0x1007, 4, 4, 0, 0, 0) + bytes(96)


def many_scans(copies: int, side: int = 6000) -> bytes:
    """A progressive JPEG whose last refinement scan comes again and again."""
    body = encoded(Image.new("RGB", (side, side), (120, 30, 200)), progressive=True)
    last = body[body.rindex(b"\xff\xda") : -2]
    return body[:-2] + last * copies + b"\xff\xd9"


def reason(body: bytes, **options: Any) -> str:
    with pytest.raises(UndecodableImage) as raised:
        decode(body, **options)
    return str(raised.value)


def test_extensions_are_those_of_the_formats() -> None:
    Image.init()
    for extension in DATASET_EXTENSIONS:
        assert Image.EXTENSION[f".{extension}"] in DATASET_FORMATS
    assert set(IMAGE_EXTENSIONS.values()) == set(FORMATS)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (dds(), "not_an_image"),
        (POSTSCRIPT, "not_an_image"),
        (encoded(photo(1), "TIFF"), "not_an_image"),
        (encoded(photo(1), "PPM"), "not_an_image"),
        (encoded(photo(1), "ICO"), "not_an_image"),
        (b"", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
    ],
)
def test_other_formats_are_not_opened(
    body: bytes, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("no program may be started for a picture")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    assert reason(body) == expected


@pytest.mark.parametrize("kind", ["TIFF", "PPM"])
def test_data_sets_may_hold_more_formats(kind: str) -> None:
    picture = decode(encoded(photo(1), kind), formats=DATASET_FORMATS)
    assert (np.asarray(picture.image) == np.asarray(photo(1))).all()


def test_sixteen_bit_greys_of_a_data_set_are_scaled() -> None:
    body = b"P5 2 1 65535\n" + struct.pack(">2H", 0x8000, 0xFFFF)
    assert np.asarray(decode(body, formats=DATASET_FORMATS).image)[0, :, 0].tolist() == [128, 255]


def test_repeated_scans_are_refused_at_once() -> None:
    body = many_scans(7_000)
    assert len(body) < 900_000
    start = time.process_time()
    assert reason(body) == "too_many_scans"
    assert time.process_time() - start < 1
    # What encoders write is far from the bounds.
    assert decode(many_scans(5)).image.size == (6000, 6000)


def stalls(_: bytes) -> None:
    """Stands for a decoder that takes for ever."""
    while True:
        np.sort(np.arange(1_000_000))


def grabs(_: bytes) -> None:
    """Stands for a decoder that takes all memory, then dies of it."""
    bytearray(64 << 30)


def dies(_: bytes) -> None:
    """Stands for a decoder with a hole."""
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("function", "expected"),
    [(stalls, Lost.TOOK_TOO_LONG), (grabs, Lost.CRASHED), (dies, Lost.CRASHED)],
)
def test_the_kernel_bounds_a_decoder(
    function: Any, expected: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metacurate.images.decoders.CPU_SECONDS_PER_IMAGE", 1.0)
    with isolated(function) as child:
        assert child.map([b""]) == [expected]


def test_a_progressive_jpeg_under_the_bounds_is_ended_by_the_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bound of last resort: decoding itself, without the check of scans, takes too long."""
    monkeypatch.setattr("metacurate.images.decoders.CPU_SECONDS_PER_IMAGE", 1.0)
    with isolated(_decode_unchecked) as child:
        small = encoded(photo(1))
        assert child.map([small, many_scans(7_000), small]) == [None, Lost.TOOK_TOO_LONG, None]


def _decode_unchecked(body: bytes) -> None:
    decode_module.MAX_SCANS, decode_module.MAX_SCANNED_PIXELS = 10**9, 10**18
    decode(body)


def test_isolated_decoding_is_the_same() -> None:
    body = encoded(photo(2))
    assert (np.asarray(decode_isolated(body)) == np.asarray(decode(body).image)).all()
    with pytest.raises(UndecodableImage, match="not_an_image"):
        decode_isolated(POSTSCRIPT)
    with pytest.raises(UndecodableImage, match="not_an_image"):
        decode_isolated(encoded(photo(2), "TIFF"))


WHOLE = {
    "JPEG": encoded(photo(3, (400, 300))),
    "progressive": encoded(photo(3, (400, 300)), progressive=True),
    "PNG": encoded(photo(3, (400, 300)), "PNG"),
    "GIF": encoded(photo(3, (400, 300)), "GIF", interlace=0),
    "BMP": encoded(photo(3, (400, 300)), "BMP"),
    "WEBP": encoded(photo(3, (400, 300)), "WEBP"),
    "AVIF": encoded(photo(3, (400, 300)), "AVIF"),
}


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_file_that_is_cut_off_is_called_so(kind: str, share: float) -> None:
    body = WHOLE[kind]
    assert reason(body[: int(len(body) * share)]) == "truncated"


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "GIF", "BMP"])
def test_what_there_is_of_a_file_can_be_accepted(kind: str) -> None:
    body = WHOLE[kind]
    whole = np.asarray(decode(body).image).astype(int)
    picture = decode(body[: int(len(body) * 0.7)], accept_truncated=True)
    assert picture.image.size == (400, 300)
    found = np.asarray(picture.image).astype(int)
    # A progressive file has the whole picture, coarser; a BMP stands on its head.
    rows = {"progressive": slice(None), "BMP": slice(-150, None)}.get(kind, slice(150))
    assert np.abs(found[rows] - whole[rows]).mean() < 6


def test_a_jpeg_without_its_end_marker() -> None:
    body = WHOLE["JPEG"].removesuffix(b"\xff\xd9")
    assert process_image(body, ImageConfig()) == Rejected("truncated")
    kept = process_image(body, ImageConfig(accept_truncated=True))
    assert isinstance(kept, ProcessedImage)
    assert (kept.width, kept.height) == (400, 300)
    assert (np.asarray(decode(body, accept_truncated=True).image)
            == np.asarray(decode(WHOLE["JPEG"]).image)).all()  # fmt: skip


def test_a_damaged_file_that_is_whole_is_broken() -> None:
    rows = [bytes(16)] * 16
    assert reason(png(8, 0, rows[:1]).replace(b"IDAT", b"IDXT")) == "broken_image"
    wrong = bytearray(WHOLE["PNG"])
    place = wrong.index(b"IDAT") + 40
    wrong[place : place + 200] = bytes(200)
    assert reason(bytes(wrong)) == "broken_image"


def test_size_without_pixels_is_broken() -> None:
    assert reason(png(8, 0, [])) in ("broken_image", "not_an_image")


@pytest.mark.parametrize(
    "odd",
    [
        long_text_png(),
        long_text_png(chunk(b"eXIf", b"MM\0*" + bytes(1 << 20))),
        grey_png(8, chunk(b"gAMA", b"\0\0\0\0", wrong=True)),
        grey_png(8, chunk(b"iCCP", b"x\0\0not zlib")),
        grey_png(8, chunk(b"acTL", bytes(8))),  # an animation without frames
        grey_png(8, chunk(b"sRGB", b"")),
        grey_png(8, chunk(b"pHYs", b"\0")),
    ],
)
def test_what_is_not_drawn_costs_no_picture(odd: bytes) -> None:
    assert (np.asarray(decode(odd).image) == np.asarray(decode(grey_png(8)).image)).all()


def test_a_first_frame_that_overlaps_the_canvas() -> None:
    body = bytearray(small_first_frame())
    body[6:10] = struct.pack("<HH", 6, 4)  # a canvas smaller than the frame's place
    picture = decode(bytes(body))
    assert picture.image.size == (13, 9)


def test_the_mode_of_no_image_raises() -> None:
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")
    for mode in modes:
        for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
            buffer = io.BytesIO()
            try:
                Image.new(mode, (9, 5), 1 if mode in ("1", "L", "P", "I;16") else None).save(
                    buffer, kind
                )
            except (OSError, ValueError):
                continue
            picture = decode(buffer.getvalue(), formats=DATASET_FORMATS)
            assert (picture.image.mode, picture.image.size) == ("RGB", (9, 5))
