"""Tasks in many languages, as Meta CLIP 2 reports them: XM3600's retrieval, CVQA's questions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from metacurate.needs import needs
from metacurate.runtime.arrowfiles import open_parquet

with needs("train"):
    import torch

from metacurate.counts import counted, in_words
from metacurate.errors import UserError, first_line
from metacurate.evaluation import metrics
from metacurate.evaluation.datasets import Example
from metacurate.evaluation.reasons import SkippedExample
from metacurate.evaluation.zero_shot import LoadedModel, encode, retrieval_ranks
from metacurate.images.decode import UndecodableImage
from metacurate.runtime.find import files_below
from metacurate.runtime.inputs import lines_of, read_text
from metacurate.runtime.progress import Meter
from metacurate.runtime.storage import Folder, open_file
from metacurate.training.images import read_bounded
from metacurate.training.shards import MAX_IMAGE_BYTES

CAPTIONS_FILE = "captions.jsonl"
IMAGES = "images"
KEY = "image/key"
ASKED = {"local": "", "english": "Translated "}
"""CVQA's columns begin so, in the language of the place and translated."""


@torch.no_grad()
def xm3600(loaded: LoadedModel, data: str, *, progress: Meter | None = None) -> dict[str, Any]:
    """Recall at 1 by locale and way, and their means, on XM3600 as it is published.

    ``data`` has ``captions.jsonl`` and ``images/KEY.jpg``. An image's recall is a hit if its
    nearest caption of the locale is one of its own; images without a caption in a locale are left
    out of it. Ties count against the model.
    """
    skipped: Counter[str] = Counter()
    captions = _captions(data)
    keys = list(captions)
    folder = Folder(Folder(data).address(IMAGES))

    def stream() -> Iterator[Example]:
        for number, key in enumerate(keys):
            try:
                yield Example(read_bounded(folder.address(f"{key}.jpg")), number, ())
            except UndecodableImage as reason:
                skipped[str(reason)] += 1

    parts: list[torch.Tensor] = []
    there: list[str] = []
    for encoded in encode(loaded, stream(), skipped, progress):
        parts.append(encoded.features)
        there += [keys[example.label or 0] for example in encoded.examples]
    if not parts:
        raise UserError(f"{data} has no usable image of {CAPTIONS_FILE} ({in_words(skipped)})")
    pictures = torch.cat(parts)
    locales = sorted({locale for texts in captions.values() for locale in texts})
    found: dict[str, Any] = {}
    right: dict[str, list[np.ndarray]] = {"image_to_text": [], "text_to_image": []}
    of: dict[str, list[np.ndarray]] = {"image_to_text": [], "text_to_image": []}
    for locale in locales:
        held = [i for i, key in enumerate(there) if captions[key].get(locale)]
        if not held:
            continue
        texts = [text for i in held for text in captions[there[i]][locale]]
        sizes = np.array([len(captions[there[i]][locale]) for i in held])
        owners = np.repeat(np.arange(len(held)), sizes)
        rows = torch.tensor(held, device=loaded.device)
        images, own = retrieval_ranks(loaded, pictures[rows], texts, owners.tolist())
        hits = {
            "image_to_text": (images < 1, np.ones(len(held))),
            "text_to_image": (np.bincount(owners, own < 1), sizes),
        }
        found[locale] = {}
        for way, (counts, of_image) in hits.items():
            whole = np.zeros((2, len(there)))
            whole[:, held] = counts, of_image
            right[way].append(whole[0])
            of[way].append(whole[1])
            estimate = metrics.mean_of_shares_estimate(whole[:1], whole[1:])
            found[locale][way] = {"recall_at_1": estimate.as_json()}
    if not found:
        raise UserError(f"{data} has no caption of any image that is there")
    means = {
        way: {
            "recall_at_1": metrics.mean_of_shares_estimate(
                np.stack(right[way]), np.stack(of[way])
            ).as_json()
        }
        for way in right
    }
    return {
        "images": len(there), "locales": found, "mean": means, "skipped": counted(skipped),
    }  # fmt: skip


def _captions(data: str) -> dict[str, dict[str, list[str]]]:
    """XM3600's captions by image and locale; UserError names the line that is none of its own."""
    address = Folder(data).address(CAPTIONS_FILE)
    found: dict[str, dict[str, list[str]]] = {}
    for number, line in enumerate(lines_of(read_text(address)), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            key = record[KEY]
            if not isinstance(key, str) or not (key.isascii() and key.isalnum()):
                raise ValueError("its key is no name of an image")
            texts = {
                locale: [text for text in value["caption"] if isinstance(text, str) and text]
                for locale, value in record.items()
                if isinstance(value, dict) and isinstance(value.get("caption"), list)
            }
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{address}, line {number}, is no record of XM3600: {first_line(error)}"
            ) from None
        found[key] = texts
    return found


@torch.no_grad()
def cvqa(loaded: LoadedModel, data: str, *, progress: Meter | None = None) -> dict[str, Any]:
    """CVQA's questions with a choice of answers: how often the right one is nearest to the image.

    ``data``: a folder with the Parquet files as published (``image``, ``Question``, ``Options``,
    ``Translated Question``, ``Translated Options``, ``Label``, ``Subset``). A text is a question
    and an option with a space between; of equal scores the first is taken. The result: ``local``
    (in the language of the place) and ``english``, and both by subset.
    """
    skipped: Counter[str] = Counter()
    records: list[Mapping[str, Any]] = []

    def stream() -> Iterator[Example]:
        for record in _questions(data):
            image = record["image"]
            content = image.get("bytes") if isinstance(image, Mapping) else image
            if not content or len(content) > MAX_IMAGE_BYTES:
                skipped[SkippedExample.MISSING_IMAGE] += 1
            elif not _is_whole(record):
                skipped[SkippedExample.BROKEN_QUESTION] += 1
            else:
                records.append({**record, "image": None})
                yield Example(content, len(records) - 1, ())

    right: dict[str, list[bool]] = {name: [] for name in ASKED}
    subsets: list[str] = []
    for encoded in encode(loaded, stream(), skipped, progress):
        asked = [records[example.label or 0] for example in encoded.examples]
        subsets += [str(record["Subset"]) for record in asked]
        for name, begin in ASKED.items():
            texts = [
                f"{record[begin + 'Question']} {option}"
                for record in asked
                for option in record[begin + "Options"]
            ]
            features = iter(loaded.text_features(texts))
            for image, record in zip(encoded.features, asked, strict=True):
                options = torch.stack([next(features) for _ in record[begin + "Options"]])
                scores = options @ image
                chosen = int(scores.argmax())
                right[name].append(chosen == record["Label"] and not bool(scores.isnan().any()))
    if not subsets:
        raise UserError(f"{data} has no usable question ({in_words(skipped)})")
    of = np.array(subsets)
    hits = {name: np.array(values) for name, values in right.items()}
    return {
        "images": of.size,
        **{name: metrics.mean_estimate(values).as_json() for name, values in hits.items()},
        "subsets": {
            subset: {
                name: metrics.mean_estimate(values[of == subset]).as_json()
                for name, values in hits.items()
            }
            for subset in sorted(set(subsets))
        },
        "skipped": counted(skipped),
    }


def _is_whole(record: Mapping[str, Any]) -> bool:
    label = record["Label"]
    return isinstance(label, int) and all(
        isinstance(record[begin + "Question"], str)
        and isinstance(options := record[begin + "Options"], list)
        and 0 <= label < len(options)
        and all(isinstance(option, str) for option in options)
        for begin in ASKED.values()
    )


def _questions(data: str) -> Iterator[Mapping[str, Any]]:
    """The rows of CVQA's Parquet files in order; UserError if there are none."""
    wanted = ["image", "Label", "Subset"]
    wanted += [begin + name for begin in ASKED.values() for name in ("Question", "Options")]
    files = [file for name, file in files_below(data).items() if name.endswith(".parquet")]
    if not files:
        raise UserError(f"{data} has no Parquet file with CVQA's questions")
    for file in files:
        with open_file(file.address) as opened:
            try:
                table = open_parquet(opened)
                lacking = [name for name in wanted if name not in table.schema_arrow.names]
                if lacking:
                    raise UserError(f"{file.shown} lacks CVQA's columns {', '.join(lacking)}")
                for batch in table.iter_batches(64, columns=wanted, use_threads=False):
                    yield from batch.to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"{file.shown} cannot be read: {first_line(error)}") from None
