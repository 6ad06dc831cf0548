"""The decoder against a browser: both draw the same bytes on white."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from chromium import Browser
from metacurate.images.decode import decode
from odd_images import ODD_IMAGES

DRAW = """
(async () => {
  const image = new Image();
  image.src = "data:%s;base64,%s";
  document.body.append(image);
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  image.remove();
  return [canvas.width, canvas.height, Array.from(pixels)];
})()
"""
TYPES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8": "image/jpeg",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
    b"RIFF": "image/webp",
}


def drawn(chromium: Browser, body: bytes) -> np.ndarray:
    kind = next((name for magic, name in TYPES.items() if body.startswith(magic)), "image/avif")
    answer = chromium.call(
        "Runtime.evaluate",
        expression=DRAW % (kind, base64.b64encode(body).decode()),
        awaitPromise=True, returnByValue=True,
    )  # fmt: skip
    assert "exceptionDetails" not in answer, answer
    width, height, pixels = answer["result"]["value"]
    return np.array(pixels, np.uint8).reshape(height, width, 4)[..., :3]


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_a_picture_is_what_a_browser_draws(chromium: Browser, name: str) -> None:
    body = ODD_IMAGES[name]()
    expected = drawn(chromium, body)
    picture = decode(body)
    found = np.asarray(picture.image)
    assert (picture.height, picture.width) == found.shape[:2] == expected.shape[:2]
    # Rounding; and decoders of lossy formats differ a little in how they turn YCbCr into RGB.
    lossy = body.startswith(b"\xff\xd8") or body[4:8] == b"ftyp"
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= (30 if lossy else 2)
    assert difference.mean() < (3 if lossy else 1)
