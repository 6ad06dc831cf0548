"""Evaluation data: image folders, and WebDataset tars in clip-benchmark's layout.

An image folder has a folder a class (``CLASS/any/name.jpg``); the classes are numbered in the order
of their folders' names, as numbers if all of them are whole numbers (ImageNetV2's ``0`` to
``999``). Hidden folders and files (``.name``) and ``__MACOSX`` are ignored. A WebDataset folder has
tars, in itself or in ``test/``, with ``KEY.cls`` (the class's number) or, for retrieval,
``KEY.txt`` (a caption a line) beside each image. ``KEY.npy`` may hold whole numbers about an image
(its region, its camera), as in DataComp's sets.

Either may hold ``zeroshot_classification_templates.txt`` (a template a line; ``{c}`` or ``{}``
stands for the class's name) and the classes' names: ``classnames.txt`` (a class a line, in the
order of the numbers; a name may be empty, as one of clevr_closest_object_distance is) or
``classnames.json`` (an array with a name, or an array of several names, for each class). ImageNet's
names and templates come with open_clip. Folders may be local or on an object store.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from metacurate.errors import ArgumentError, UserError
from metacurate.evaluation.reasons import SkippedExample
from metacurate.images.decode import DATASET_EXTENSIONS, UndecodableImage
from metacurate.runtime.find import HIDDEN, files_below
from metacurate.runtime.inputs import lines_of, open_input, read_text
from metacurate.runtime.manifest import digest
from metacurate.runtime.storage import Folder, at_store, is_local, local_path
from metacurate.training.images import read_bounded
from metacurate.training.openclip import open_clip
from metacurate.training.shards import MAX_IMAGE_BYTES
from metacurate.webdataset.facts import decode_text, sample_texts
from metacurate.webdataset.files import SUFFIX, stem_of
from metacurate.webdataset.shards import read_samples

CLASS_NAMES_FILES = ("classnames.txt", "classnames.json")
TEMPLATES_FILE = "zeroshot_classification_templates.txt"
IMAGENET = "imagenet"
IMAGENET_SIMPLE = "imagenet-simple"
PLAIN_TEMPLATES = ("a photo of a {c}.",)
MAX_FIELDS_BYTES = 1 << 16


@dataclass(frozen=True)
class Example:
    """An image (encoded) with its class's number or its captions, and ``KEY.npy``'s numbers."""

    image: bytes
    label: int | None
    captions: tuple[str, ...]
    fields: tuple[int, ...] = ()


@dataclass(frozen=True)
class ClassificationText:
    """What zero-shot classifiers are made of: each class's names and the templates for them.

    ``numbers``: the data set's number of each class, where it is not its place (a language that has
    names of some classes only); images of other classes are left out.
    """

    classes: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]
    numbers: tuple[int, ...] | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Each class's first name."""
        return tuple(names[0] for names in self.classes)

    def prompts(self, number: int) -> tuple[str, ...]:
        """The texts of a class: every template with each of its names."""
        return tuple(fill(t, name) for name in self.classes[number] for t in self.templates)


def class_texts(
    data: str, class_names: str | None = None, templates: str | None = None
) -> ClassificationText:
    """Class names and templates: from the files given, "imagenet", or those beside the data.

    Without any, an image folder's own folder names and ``a photo of a {c}.`` are used. Raises
    UserError if there are no names, or not as many as the data set has class folders.
    """
    _require(data)
    folders = plain_class_folders(data)
    classes = read_class_names(data, class_names)
    if classes is None:
        classes = tuple((name_of(place).replace("_", " "),) for place in folders)
        if not classes:
            raise ArgumentError(
                "{data_set} has neither {file} nor a folder a class; give the names with "
                "{class_names} FILE or {class_names} imagenet",
                data_set=data,
                file=CLASS_NAMES_FILES[0],
            )
    if folders and len(folders) != len(classes):
        raise ArgumentError(
            "{data_set} has {folders:,} class folders, but there are {names:,} class names: each "
            "folder needs one, in order (check {class_names})",
            data_set=data,
            folders=len(folders),
            names=len(classes),
        )
    return ClassificationText(classes, read_templates(data, templates) or PLAIN_TEMPLATES)


def read_class_names(data: str, given: str | None = None) -> tuple[tuple[str, ...], ...] | None:
    """Each class's names: of the file given, of "imagenet", or of the file beside the data.

    None if nothing is given and there is no such file.
    """
    if given == IMAGENET:
        return tuple((name,) for name in open_clip().IMAGENET_CLASSNAMES)
    file = _given_or_beside(data, given, *CLASS_NAMES_FILES)
    return None if file is None else _read_classes(file)


def read_templates(data: str, given: str | None = None) -> tuple[str, ...] | None:
    """The templates: as ``read_class_names``, with "imagenet-simple" too."""
    if given in (IMAGENET, IMAGENET_SIMPLE):
        clip = open_clip()
        chosen = (
            clip.OPENAI_IMAGENET_TEMPLATES if given == IMAGENET else clip.SIMPLE_IMAGENET_TEMPLATES
        )
        return tuple(make("{c}") for make in chosen)
    file = _given_or_beside(data, given, TEMPLATES_FILE)
    if file is None:
        return None
    found = tuple(line for line in _lines(file) if line)
    for template in found:
        if "{c}" not in template and "{}" not in template:
            raise UserError(f"the template {template!r} has no {{c}} for the class's name")
    return found


def fill(template: str, name: str) -> str:
    """A template with a class's name."""
    return template.replace("{c}", name).replace("{}", name)


def _given_or_beside(data: str, given: str | None, *names: str) -> str | None:
    if given is not None:
        return given
    places = Folder(data), Folder(_parent(data))
    beside = [place.address(name) for place in places for name in names]
    return next((address for address in beside if Folder(address).is_file()), None)


def _lines(address: str) -> tuple[str, ...]:
    found = tuple(line.strip() for line in lines_of(read_text(address)))
    if not any(found):
        raise UserError(f"{address} is empty")
    return found


def _read_classes(address: str) -> tuple[tuple[str, ...], ...]:
    """The classes' names of a file: a class a line, or a JSON array (``.json``)."""
    if not address.lower().endswith(".json"):
        return tuple((name,) for name in _lines(address))
    try:
        values = json.loads(read_text(address))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{address} is no usable JSON file: {error}") from None
    classes = [[v] if isinstance(v, str) else v for v in values] if type(values) is list else []
    if not classes or not all(
        type(c) is list and c and set(map(type, c)) == {str} for c in classes
    ):
        raise UserError(
            f"{address} must hold a JSON array with a name, or an array of names, for each class"
        )
    return tuple(tuple(names) for names in classes)


def class_folders(data: str) -> list[str]:
    """An image folder's classes in the order of their numbers."""
    folders = [folder for folder in contents(data)[0] if not _tars(folder)]
    if all(name_of(folder).isdecimal() for folder in folders):
        folders.sort(key=lambda folder: int(name_of(folder)))
    return folders


def plain_class_folders(data: str) -> list[str]:
    """The same, none if the data are in tars."""
    return [] if tars_of(data) else class_folders(data)


def tars_of(data: str) -> list[str]:
    """The tars of a WebDataset folder in order: those in it, else those in ``test/``."""
    return _tars(data) or _tars(Folder(data).address("test"))


def _tars(data: str) -> list[str]:
    def order(address: str) -> tuple[int, str]:
        stem = stem_of(name_of(address))
        return (int(stem) if stem.isdecimal() else 2**63, name_of(address))

    return sorted((f for f in contents(data)[1] if SUFFIX.search(f)), key=order)


def _parent(folder: str) -> str:
    if is_local(folder):
        return str(local_path(folder).parent)
    return folder.rstrip("/").rpartition("/")[0]


def name_of(address: str) -> str:
    """The last part of an address."""
    return address.rstrip("/").rpartition("/")[2]


def contents(data: str) -> tuple[list[str], list[str]]:
    """The folders and files directly in a folder, each by name; none if there is no folder.

    Hidden ones are left out.
    """
    if is_local(data):
        path = local_path(data)
        paths = sorted(path.iterdir()) if path.is_dir() else []
        paths = [p for p in paths if not p.name.startswith(HIDDEN)]
        return [str(p) for p in paths if p.is_dir()], [str(p) for p in paths if p.is_file()]
    try:
        with at_store(data) as (filesystem, inner):
            entries = filesystem.ls(inner, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    kinds: dict[str, list[str]] = {"directory": [], "file": []}
    for entry in entries:
        name = entry["name"].rstrip("/")
        own = name == inner.rstrip("/")  # some stores list a folder in itself
        if not (own or name_of(name).startswith(HIDDEN)) and entry["type"] in kinds:
            kinds[entry["type"]].append(filesystem.unstrip_protocol(name))
    return sorted(kinds["directory"]), sorted(kinds["file"])


def files_digest(data: str, texts: ClassificationText | None) -> str:
    """A short name for a data set's files (names and sizes), class names and templates."""
    tars = tars_of(data)
    if tars:
        sizes = {tar: Folder(tar.rpartition("/")[0]).size(tar.rpartition("/")[2]) for tar in tars}
    else:
        sizes = {name: file.size for name, file in files_below(data).items()}
    return digest(sizes, None if texts is None else [texts.classes, texts.templates, texts.numbers])


def _require(data: str) -> None:
    if not any(contents(data)):
        raise UserError(f"there is no folder {data} with evaluation data")


def examples(data: str, skipped: Counter[str]) -> Iterator[Example]:
    """The examples of a data set, one at a time; ``skipped`` counts what is not usable.

    Raises UserError if the folder has neither tars nor a folder a class.
    """
    _require(data)
    if tars := tars_of(data):
        for tar in tars:
            yield from _tar_examples(tar, skipped)
        return
    classes = class_folders(data)
    if not classes:
        raise UserError(f"{data} has neither tars (in it or in test/) nor a folder a class")
    for label, place in enumerate(classes):
        for name, file in files_below(place).items():
            if file.fault or name.rpartition(".")[2].lower() not in DATASET_EXTENSIONS:
                skipped[SkippedExample.NOT_AN_IMAGE_FILE] += 1
                continue
            try:
                yield Example(read_bounded(file.address), label, ())
            except UndecodableImage as reason:
                skipped[str(reason)] += 1


def _tar_examples(address: str, skipped: Counter[str]) -> Iterator[Example]:
    with open_input(address) as file:
        for sample in read_samples(file, skipped):
            if not sample.image or len(sample.image) > MAX_IMAGE_BYTES:
                skipped[SkippedExample.MISSING_IMAGE] += 1
                continue
            try:
                label = int(sample.files["cls"]) if "cls" in sample.files else None
            except ValueError:
                skipped[SkippedExample.BROKEN_LABEL] += 1
                continue
            text = decode_text(sample.files.get("txt"), skipped)
            texts = sample_texts(sample.record(skipped), text, skipped)
            # A line a caption, in the retrieval sets of CLIP_benchmark.
            lines = [line.strip() for found in texts for line in lines_of(found.text or "")]
            fields = _fields(sample.files["npy"], skipped) if "npy" in sample.files else ()
            yield Example(sample.image, label, tuple(line for line in lines if line), fields)


def _fields(content: bytes, skipped: Counter[str]) -> tuple[int, ...]:
    """The whole numbers of a ``KEY.npy``; none, and counted, if it holds anything else."""
    try:
        if len(content) > MAX_FIELDS_BYTES:
            raise ValueError
        values = np.load(io.BytesIO(content), allow_pickle=False)
        if values.ndim > 1 or values.dtype.kind not in "biuf" or (values != np.floor(values)).any():
            raise ValueError
        return tuple(int(value) for value in np.atleast_1d(values))
    except Exception:  # NumPy raises many kinds for a file that is none of its own
        skipped[SkippedExample.BROKEN_FIELDS] += 1
        return ()
