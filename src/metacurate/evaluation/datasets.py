"""Evaluation data: image folders, and WebDataset tars in clip-benchmark's layout.

An image folder has a folder a class (``CLASS/any/name.jpg``); the classes are numbered in the order
of their folders' names. A WebDataset folder has tars, in itself or in ``test/``, with ``KEY.cls``
(the class's number) or, for retrieval, ``KEY.txt`` (a caption a line) beside each image. Either may
hold ``classnames.txt`` and ``zeroshot_classification_templates.txt`` (lines; ``{c}`` or ``{}``
stands for the class's name). ImageNet's names and templates come with open_clip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metacurate.errors import UserError
from metacurate.pool.tars import read_samples
from metacurate.training.images import IMAGE_SUFFIXES, UnusableImage, read_bounded
from metacurate.training.openclip import open_clip
from metacurate.training.shards import MAX_IMAGE_BYTES

CLASS_NAMES_FILE = "classnames.txt"
TEMPLATES_FILE = "zeroshot_classification_templates.txt"
IMAGENET = "imagenet"
IMAGENET_SIMPLE = "imagenet-simple"
PLAIN_TEMPLATES = ("a photo of a {c}.",)


@dataclass(frozen=True)
class Example:
    """An image (encoded) with its class's number or its captions."""

    image: bytes
    label: int | None
    captions: tuple[str, ...]


@dataclass(frozen=True)
class ClassificationText:
    """What zero-shot classifiers are made of: the classes' names and the templates for them."""

    class_names: tuple[str, ...]
    templates: tuple[str, ...]


def class_texts(
    data: str, class_names: str | None = None, templates: str | None = None
) -> ClassificationText:
    """Class names and templates: from the files given, "imagenet", or those beside the data.

    Without any, an image folder's own folder names and ``a photo of a {c}.`` serve. Raises
    UserError if there are no names.
    """
    folder = Path(data)
    if class_names == IMAGENET:
        names = tuple(open_clip().IMAGENET_CLASSNAMES)
    elif (file := _given_or_beside(folder, class_names, CLASS_NAMES_FILE)) is not None:
        names = _lines(file)
    else:
        names = tuple(path.name.replace("_", " ") for path in class_folders(folder))
        if not names:
            raise UserError(
                f"{data} has neither {CLASS_NAMES_FILE} nor a folder a class; "
                "give the names with --classnames FILE or --classnames imagenet"
            )
    if templates in (IMAGENET, IMAGENET_SIMPLE):
        clip = open_clip()
        chosen = (
            clip.OPENAI_IMAGENET_TEMPLATES
            if templates == IMAGENET
            else clip.SIMPLE_IMAGENET_TEMPLATES
        )
        found = tuple(make("{c}") for make in chosen)
    elif (file := _given_or_beside(folder, templates, TEMPLATES_FILE)) is not None:
        found = _lines(file)
    else:
        found = PLAIN_TEMPLATES
    for template in found:
        if "{c}" not in template and "{}" not in template:
            raise UserError(f"the template {template!r} has no {{c}} for the class's name")
    return ClassificationText(names, found)


def fill(template: str, name: str) -> str:
    """A template with a class's name."""
    return template.replace("{c}", name).replace("{}", name)


def _given_or_beside(folder: Path, given: str | None, name: str) -> Path | None:
    if given is not None:
        return Path(given)
    beside = [folder / name, folder.parent / name]
    return next((path for path in beside if path.is_file()), None)


def _lines(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise UserError(f"{path} is empty")
    return found


def class_folders(folder: Path) -> list[Path]:
    """An image folder's classes in the order of their numbers."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} with evaluation data")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _tars(path))


def _tars(folder: Path) -> list[Path]:
    return sorted(
        folder.glob("*.tar"),
        key=lambda path: (int(path.stem) if path.stem.isdigit() else 2**63, path.name),
    )


def examples(data: str, skipped: Counter[str]) -> Iterator[Example]:
    """The examples of a data set, one at a time; ``skipped`` counts what is not usable.

    Raises UserError if the folder has neither tars nor a folder a class.
    """
    folder = Path(data)
    for place in (folder, folder / "test"):
        if tars := _tars(place):
            for tar in tars:
                yield from _tar_examples(tar, skipped)
            return
    classes = class_folders(folder)
    if not classes:
        raise UserError(f"{data} has neither tars (in it or in test/) nor a folder a class")
    for label, place in enumerate(classes):
        for path in sorted(place.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                try:
                    yield Example(read_bounded(str(path)), label, ())
                except UnusableImage as reason:
                    skipped[str(reason)] += 1


def _tar_examples(path: Path, skipped: Counter[str]) -> Iterator[Example]:
    with path.open("rb") as file:
        for sample in read_samples(file, str(path), skipped):
            if not sample.image or len(sample.image) > MAX_IMAGE_BYTES:
                skipped["missing_image"] += 1
                continue
            try:
                label = int(sample.files["cls"]) if "cls" in sample.files else None
                text = sample.files.get("txt", b"").decode()
            except (ValueError, UnicodeDecodeError):
                skipped["broken_label"] += 1
                continue
            captions = tuple(line.strip() for line in text.splitlines() if line.strip())
            yield Example(sample.image, label, captions)
