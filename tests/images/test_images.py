"""Decoding, resizing, hashing and encoding of single images."""

from __future__ import annotations

import hashlib
import io

import imagehash
import numpy as np
import pytest
import skimage.data
from PIL import Image

from hostile_server import encoded, photo, special_images
from metacurate.images.process import (
    ImageConfig,
    ProcessedImage,
    Rejected,
    difference_hash,
    process_image,
)

PLAIN = ImageConfig(resize="none", quality=100)


def processed(body: bytes, config: ImageConfig = PLAIN) -> tuple[ProcessedImage, np.ndarray]:
    """The result and its pixels."""
    result = process_image(body, config)
    assert isinstance(result, ProcessedImage), result
    opened = Image.open(io.BytesIO(result.jpeg))
    assert (opened.format, opened.mode) == ("JPEG", "RGB")
    assert opened.size == (result.width, result.height)
    assert not opened.getexif()
    return result, np.asarray(opened).astype(int)


def difference(a: np.ndarray, b: Image.Image) -> float:
    """The mean absolute difference to a reference picture."""
    return float(np.abs(a - np.asarray(b.convert("RGB")).astype(int)).mean())


def test_hashes_and_sizes_are_of_the_original() -> None:
    body = encoded(photo(1, (300, 200)))
    result, _ = processed(body, ImageConfig(size=100))
    assert (result.original_width, result.original_height) == (300, 200)
    assert (result.width, result.height) == (150, 100)
    assert result.sha256 == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(
    ("mode", "upscale", "size", "expected"),
    [
        ("none", False, (300, 200), (300, 200)),
        ("keep_ratio", False, (300, 200), (150, 100)),
        ("keep_ratio_largest", False, (300, 200), (100, 67)),
        ("center_crop", False, (300, 200), (100, 100)),
        ("border", False, (300, 200), (100, 100)),
        ("keep_ratio", False, (60, 40), (60, 40)),
        ("keep_ratio", True, (60, 40), (150, 100)),
        ("keep_ratio_largest", True, (60, 40), (100, 67)),
        ("center_crop", False, (300, 40), (100, 40)),
        ("center_crop", True, (60, 40), (100, 100)),
        ("border", False, (60, 40), (100, 100)),
        ("border", True, (60, 40), (100, 100)),
    ],
)
def test_resize_modes(
    mode: str, upscale: bool, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    config = ImageConfig(resize=mode, size=100, upscale=upscale)
    result, _ = processed(encoded(photo(2, size), "PNG"), config)
    assert (result.width, result.height) == expected


def test_crop_takes_the_middle_and_border_is_white() -> None:
    stripes = Image.new("RGB", (300, 100), (255, 0, 0))
    stripes.paste((0, 0, 255), (100, 0, 200, 100))
    body = encoded(stripes, "PNG")
    _, middle = processed(body, ImageConfig(resize="center_crop", size=100, quality=100))
    assert np.abs(middle[:, 5:95] - [0, 0, 255]).max() < 8
    _, bordered = processed(body, ImageConfig(resize="border", size=100, quality=100))
    assert np.abs(bordered[:25] - 255).max() < 8
    assert np.abs(bordered[-25:] - 255).max() < 8
    assert np.abs(bordered[45:55, 45:55] - [0, 0, 255]).max() < 8


def test_a_photograph_decoded_at_a_fraction_looks_as_decoded_whole() -> None:
    image = Image.fromarray(skimage.data.astronaut()).resize((2000, 2000))
    _, pixels = processed(encoded(image, quality=95), ImageConfig(size=224, quality=100))
    assert difference(pixels, image.resize((224, 224), Image.Resampling.BICUBIC)) < 2.0


def test_animations_give_their_first_frame() -> None:
    _, pixels = processed(special_images()["animated.gif"])
    assert difference(pixels, photo(0)) < 10, "GIF has but 256 colours"
    assert difference(pixels, photo(1)) > 30


def test_cmyk_becomes_rgb() -> None:
    _, pixels = processed(special_images()["cmyk.jpg"])
    assert difference(pixels, photo(5)) < 6


def test_exif_orientation_is_applied_and_removed() -> None:
    result, pixels = processed(special_images()["exif.jpg"])
    assert (result.width, result.height) == (64, 96)
    assert (result.original_width, result.original_height) == (64, 96)
    assert difference(pixels, photo(6).transpose(Image.Transpose.ROTATE_270)) < 6


@pytest.mark.parametrize("value", range(9))
def test_all_orientations_agree_with_pillow(value: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = value
    body = encoded(photo(6), "PNG", exif=exif)
    _, pixels = processed(body)
    assert difference(pixels, ImageOps.exif_transpose(Image.open(io.BytesIO(body)))) < 3


def test_damaged_exif_loses_no_image() -> None:
    body = encoded(photo(6), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage")
    _, pixels = processed(body)
    assert difference(pixels, photo(6)) < 6


def test_transparency_is_laid_over_white() -> None:
    specials = special_images()
    _, pixels = processed(specials["alpha.png"])
    assert np.abs(pixels[0] - 255).max() < 8, "the top row is wholly transparent"
    assert difference(pixels[-1:], photo(7).crop((0, 63, 96, 64))) < 8
    _, pixels = processed(specials["palette.png"])
    assert np.abs(pixels[:, :15] - 255).max() < 8, "palette entry 0 is transparent"
    assert np.abs(pixels[:, 25:] - [0, 0, 255]).max() < 8


def test_sixteen_bit_greys_are_scaled_not_clipped() -> None:
    _, pixels = processed(special_images()["grey16.png"])
    expected = (np.linspace(0, 65535, 64 * 64) / 257).reshape(64, 64)
    assert np.abs(pixels[:, :, 0] - expected).max() < 4


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("truncated.jpg", PLAIN, "truncated"),
        ("huge.png", PLAIN, "too_many_pixels"),
        ("text.jpg", PLAIN, "not_an_image"),
        ("tiny.png", ImageConfig(min_size=4), "image_too_small"),
        ("long.png", ImageConfig(max_aspect=10), "aspect_ratio_too_large"),
        ("long.png", ImageConfig(upscale=True, size=60_000), "too_many_pixels"),
    ],
)
def test_rejections_have_their_reasons(name: str, config: ImageConfig, expected: str) -> None:
    assert process_image(special_images()[name], config) == Rejected(expected)


def test_other_formats_are_not_opened() -> None:
    assert process_image(encoded(photo(1), "TIFF"), PLAIN) == Rejected("not_an_image")
    assert process_image(b"<svg xmlns='http://www.w3.org/2000/svg'/>", PLAIN) == Rejected(
        "not_an_image"
    )


def test_damaged_files_never_raise() -> None:
    rng = np.random.default_rng(0)
    reasons = set()
    for name, body in sorted(special_images().items()):
        for _ in range(40):
            data = bytearray(body)
            for place in rng.integers(0, len(data), 1 + len(data) // 200):
                data[place] = rng.integers(256)
            result = process_image(bytes(data[: rng.integers(1, len(data) + 1)]), PLAIN)
            assert isinstance(result, ProcessedImage | Rejected), name
            reasons.add(result.reason if isinstance(result, Rejected) else "image")
    assert {"image", "broken_image", "truncated", "not_an_image"} <= reasons


def test_the_perceptual_hash_is_imagehashs() -> None:
    for number in range(20):
        image = photo(number)
        assert difference_hash(image) == str(imagehash.dhash(image))


def test_the_perceptual_hash_survives_reencoding() -> None:
    image = Image.fromarray(skimage.data.astronaut())
    first = process_image(encoded(image, "PNG"), PLAIN)
    again = process_image(encoded(image, quality=90), PLAIN)
    other = process_image(encoded(photo(1)), PLAIN)
    assert isinstance(first, ProcessedImage)
    assert isinstance(again, ProcessedImage)
    assert isinstance(other, ProcessedImage)
    assert first.sha256 != again.sha256
    assert first.dhash == again.dhash != other.dhash
