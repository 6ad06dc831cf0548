"""Evaluation data: image folders, and WebDataset tars in clip-benchmark's layout.

An image folder has a folder a class (``CLASS/any/name.jpg``); the classes are numbered in the order
of their folders' names. A WebDataset folder has tars, in itself or in ``test/``, with ``KEY.cls``
(the class's number) or, for retrieval, ``KEY.txt`` (a caption a line) beside each image. Either may
hold ``classnames.txt`` and ``zeroshot_classification_templates.txt`` (lines; ``{c}`` or ``{}``
stands for the class's name). ImageNet's names and templates come with open_clip. Folders may be
local or on an object store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import fsspec

from metacurate.errors import UserError
from metacurate.images.decode import DATASET_EXTENSIONS, UndecodableImage
from metacurate.runtime.storage import Folder, is_local, local_path, resolve
from metacurate.training.images import read_bounded
from metacurate.training.openclip import open_clip
from metacurate.training.shards import MAX_IMAGE_BYTES
from metacurate.webdataset.facts import decode_text, sample_texts
from metacurate.webdataset.shards import read_samples

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
    _require(data)
    if class_names == IMAGENET:
        names = tuple(open_clip().IMAGENET_CLASSNAMES)
    elif (file := _given_or_beside(data, class_names, CLASS_NAMES_FILE)) is not None:
        names = _lines(file)
    else:
        names = tuple(_name(place).replace("_", " ") for place in class_folders(data))
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
    elif (file := _given_or_beside(data, templates, TEMPLATES_FILE)) is not None:
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


def _given_or_beside(data: str, given: str | None, name: str) -> str | None:
    if given is not None:
        return given
    beside = [Folder(data).address(name), Folder(_parent(data)).address(name)]
    return next((address for address in beside if is_file(address)), None)


def _lines(address: str) -> tuple[str, ...]:
    found = tuple(line.strip() for line in read_text(address).splitlines() if line.strip())
    if not found:
        raise UserError(f"{address} is empty")
    return found


def read_text(address: str) -> str:
    """A small text file; UserError if it cannot be read."""
    try:
        with fsspec.open(address, "rb") as file:
            return str(file.read(), "utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{address} cannot be read: {error}") from None


def is_file(address: str) -> bool:
    """Whether there is a file of that address."""
    if is_local(address):
        return local_path(address).is_file()
    filesystem, path = resolve(address)
    return bool(filesystem.isfile(path))


def class_folders(data: str) -> list[str]:
    """An image folder's classes in the order of their numbers."""
    folders, _ = _contents(data)
    return [folder for folder in folders if not _tars(folder)]


def _tars(data: str) -> list[str]:
    def order(address: str) -> tuple[int, str]:
        stem = _name(address).removesuffix(".tar")
        return (int(stem) if stem.isdigit() else 2**63, _name(address))

    return sorted((f for f in _contents(data)[1] if f.endswith(".tar")), key=order)


def _parent(folder: str) -> str:
    if is_local(folder):
        return str(local_path(folder).parent)
    return folder.rstrip("/").rpartition("/")[0]


def _name(address: str) -> str:
    return address.rstrip("/").rpartition("/")[2]


def _contents(data: str) -> tuple[list[str], list[str]]:
    """The folders and files directly in a folder, each by name; none if there is no folder."""
    if is_local(data):
        path = local_path(data)
        paths = sorted(path.iterdir()) if path.is_dir() else []
        return [str(p) for p in paths if p.is_dir()], [str(p) for p in paths if p.is_file()]
    filesystem, inner = resolve(data)
    try:
        entries = filesystem.ls(inner, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    kinds: dict[str, list[str]] = {"directory": [], "file": []}
    for entry in entries:
        name = entry["name"].rstrip("/")
        if name != inner.rstrip("/") and entry["type"] in kinds:
            kinds[entry["type"]].append(filesystem.unstrip_protocol(name))
    return sorted(kinds["directory"]), sorted(kinds["file"])


def _files_below(folder: str) -> list[str]:
    """The files of a folder and those below it, in order."""
    if is_local(folder):
        return [str(path) for path in sorted(local_path(folder).rglob("*")) if path.is_file()]
    filesystem, inner = resolve(folder)
    found = sorted(filesystem.find(inner), key=lambda name: name.split("/"))
    return [filesystem.unstrip_protocol(name) for name in found]


def _require(data: str) -> None:
    if not any(_contents(data)):
        raise UserError(f"there is no folder {data} with evaluation data")


def examples(data: str, skipped: Counter[str]) -> Iterator[Example]:
    """The examples of a data set, one at a time; ``skipped`` counts what is not usable.

    Raises UserError if the folder has neither tars nor a folder a class.
    """
    _require(data)
    for place in (data, Folder(data).address("test")):
        if tars := _tars(place):
            for tar in tars:
                yield from _tar_examples(tar, skipped)
            return
    classes = class_folders(data)
    if not classes:
        raise UserError(f"{data} has neither tars (in it or in test/) nor a folder a class")
    for label, place in enumerate(classes):
        for address in _files_below(place):
            if _name(address).rpartition(".")[2].lower() in DATASET_EXTENSIONS:
                try:
                    yield Example(read_bounded(address), label, ())
                except UndecodableImage as reason:
                    skipped[str(reason)] += 1


def _tar_examples(address: str, skipped: Counter[str]) -> Iterator[Example]:
    with fsspec.open(address, "rb") as file:
        for sample in read_samples(file, address, skipped):
            if not sample.image or len(sample.image) > MAX_IMAGE_BYTES:
                skipped["missing_image"] += 1
                continue
            try:
                label = int(sample.files["cls"]) if "cls" in sample.files else None
            except ValueError:
                skipped["broken_label"] += 1
                continue
            text = decode_text(sample.files.get("txt"), skipped)
            texts = sample_texts(sample.record(skipped), text)
            # A line a caption, in the retrieval sets of CLIP_benchmark.
            lines = [line.strip() for found in texts for line in (found.text or "").splitlines()]
            yield Example(sample.image, label, tuple(line for line in lines if line))
