"""Zero-shot classification and retrieval of one model on one data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import numpy.typing as npt

from metacurate.needs import needs

with needs("train"):
    import torch
    from torch.nn import functional

from metacurate.counts import counted, in_words
from metacurate.errors import UserError
from metacurate.evaluation import datasets, metrics
from metacurate.evaluation.datasets import ClassificationText, Example
from metacurate.evaluation.reasons import SkippedExample
from metacurate.images.decode import DATASET_FORMATS, UndecodableImage
from metacurate.images.decoders import decode_isolated
from metacurate.runtime.engines.local import available_cores
from metacurate.runtime.progress import Meter
from metacurate.training.checkpoints import load_checkpoint
from metacurate.training.openclip import OpenClipTokenizer

RECALL_AT = (1, 5, 10)
TOP = 5


@dataclass(frozen=True)
class LoadedModel:
    """A model to evaluate, with its own image preparation and tokenizer."""

    model: Any
    preprocess: Any
    tokenizer: Any
    device: torch.device
    batch_size: int = 256

    def prepared(self, image: bytes) -> torch.Tensor:
        """An encoded image as the model takes it, float32[3, h, w]; raises UndecodableImage."""
        prepared: torch.Tensor = self.preprocess(decode_isolated(image, formats=DATASET_FORMATS))
        return prepared

    def image_features(self, images: Sequence[torch.Tensor]) -> torch.Tensor:
        """Normalised features of prepared images, float32[n, d]."""
        batch = torch.stack(list(images)).to(self.device)
        return functional.normalize(self.model.encode_image(batch).float(), dim=-1)

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Normalised features of texts, float32[n, d]."""
        parts = []
        for start in range(0, len(texts), self.batch_size):
            tokens = self.tokenizer(list(texts[start : start + self.batch_size]))
            parts.append(self.model.encode_text(tokens.to(self.device)).float())
        return functional.normalize(torch.cat(parts), dim=-1)


def load_model(
    checkpoint: str, model: str | None = None, *, device: str | None = None, batch_size: int = 256
) -> LoadedModel:
    """Load a model to evaluate.

    ``checkpoint``: a folder of ``metacurate train``, in open_clip's layout or of a ``CLIPModel`` of
    transformers; a checkpoint file, with ``model`` open_clip's name of its architecture; or a tag
    of open_clip's pretrained weights (``openai``, ``metaclip_400m``), with ``model``. Raises
    UserError if that cannot be found.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    found = load_checkpoint(checkpoint, model, place)
    return LoadedModel(
        found.model, found.preprocess, OpenClipTokenizer(found.config), place, batch_size
    )


@dataclass(frozen=True)
class Encoded:
    """Examples of a batch that could be decoded, with their images' features."""

    examples: list[Example]
    features: torch.Tensor


def encode(
    loaded: LoadedModel,
    stream: Iterator[Example],
    skipped: Counter[str],
    progress: Meter | None,
) -> Iterator[Encoded]:
    """Features a batch at a time, in order; decoding runs in threads meanwhile (Pillow and torch
    release the interpreter's lock), one batch ahead of the model."""

    def prepare(example: Example) -> torch.Tensor | str:
        try:
            return loaded.prepared(example.image)
        except UndecodableImage as reason:
            return str(reason)

    with ThreadPoolExecutor(available_cores()) as threads:

        def submit() -> list[tuple[Example, Future[torch.Tensor | str]]]:
            return [(e, threads.submit(prepare, e)) for e in islice(stream, loaded.batch_size)]

        upcoming = submit()
        while upcoming:
            batch, upcoming = upcoming, submit()
            kept: list[Example] = []
            images: list[torch.Tensor] = []
            for example, future in batch:
                image = future.result()
                if isinstance(image, str):
                    skipped[image] += 1
                else:
                    kept.append(example)
                    images.append(image)
            if images:
                yield Encoded(kept, loaded.image_features(images))
            if progress is not None:
                progress.advance(len(batch), shards=0)


class Accuracies(TypedDict):
    """``top5`` and the mean of both only with five classes or more."""

    top1: metrics.PlainEstimate
    mean_per_class: metrics.PlainEstimate
    top5: NotRequired[metrics.PlainEstimate]
    mean_of_top1_and_top5: NotRequired[metrics.PlainEstimate]


class GroupResult(Accuracies):
    """The images of one group's classes."""

    images: int


class ClassificationResult(GroupResult):
    """``chance``: one in ``classes``; ``repeated_class_names``: all but the first class of such a
    name are never right; ``roc_auc`` only with two classes; ``f1_macro`` and ``worst_group_*`` only
    if asked for; ``skipped``: by reason (``reasons``).
    """

    classes: int
    repeated_class_names: list[str]
    chance: float
    roc_auc: NotRequired[metrics.PlainEstimate]
    f1_macro: NotRequired[metrics.PlainEstimate]
    worst_group_top1: NotRequired[metrics.PlainEstimate]
    worst_group_top5: NotRequired[metrics.PlainEstimate]
    skipped: dict[str, int]
    groups: NotRequired[dict[str, GroupResult]]


class RetrievalResult(TypedDict):
    """Recalls (``recall_at_1``, ...) both ways; ``mean_recall_at_1``: the mean of both;
    ``skipped``: by reason (``reasons``)."""

    images: int
    captions: int
    image_to_text: dict[str, metrics.PlainEstimate]
    text_to_image: dict[str, metrics.PlainEstimate]
    mean_recall_at_1: metrics.PlainEstimate
    skipped: dict[str, int]


@torch.no_grad()
def classify(
    loaded: LoadedModel,
    data: str,
    texts: ClassificationText,
    *,
    groups: dict[str, str] | None = None,
    macro_f1: bool = False,
    group_field: int | None = None,
    progress: Meter | None = None,
) -> ClassificationResult:
    """Zero-shot classification: top-1, top-5 and mean per class, with intervals.

    A class's vector is the normalised mean of its prompts' normalised features (every template with
    each of its names). Of classes with equal scores the first one counts as nearer, as for
    clip-benchmark: of two classes with the same name (ImageNet's list has two) images of the first
    can be right. With two classes there is the area under the ROC curve too, of the second class's
    score less the first's. ``groups`` maps class names to groups that are reported apart too; in
    each, an image is still told from all classes. ``macro_f1``: the mean over classes of F1 too.
    ``group_field``: the place in an image's ``fields`` of the group that it belongs to; the share
    of the worst of them is reported too.
    """
    names = texts.class_names
    place_of = {number: i for i, number in enumerate(texts.numbers or range(len(names)))}
    stranger = (
        SkippedExample.LABEL_OUT_OF_RANGE
        if texts.numbers is None
        else SkippedExample.CLASS_WITHOUT_NAME
    )
    vectors, places = _class_vectors(loaded, texts)
    skipped: Counter[str] = Counter()
    labels: list[int] = []
    ranks: list[npt.NDArray[np.int64]] = []
    leads: list[npt.NDArray[np.float64]] = []
    taken: list[npt.NDArray[np.int64]] = []
    fields: list[tuple[int, ...]] = []
    for encoded in encode(loaded, datasets.examples(data, skipped), skipped, progress):
        own_places = [
            -1 if example.label is None else place_of.get(example.label, -1)
            for example in encoded.examples
        ]
        usable = [i for i, place in enumerate(own_places) if place >= 0]
        skipped[stranger] += len(encoded.examples) - len(usable)
        if not usable:
            continue
        own = torch.tensor([own_places[i] for i in usable], device=loaded.device)
        # Equal texts have one vector, so that their scores are equal to the last bit.
        features = encoded.features[torch.tensor(usable, device=loaded.device)]
        logits = (features @ vectors.T)[:, places]
        ranks.append(_ranks(logits, own).cpu().numpy())
        if len(names) == 2:
            leads.append((logits[:, 1] - logits[:, 0]).double().cpu().numpy())
        if macro_f1:
            taken.append(logits.argmax(dim=1).cpu().numpy())
        fields += [encoded.examples[i].fields for i in usable]
        labels += own.tolist()
    if not labels:
        raise UserError(f"{data} has no usable image with a label ({in_words(skipped)})")
    rank, label = np.concatenate(ranks), np.array(labels, dtype=np.int64)
    found = {
        "images": label.size,
        "classes": len(names),
        "repeated_class_names": sorted({n for n, c in Counter(names).items() if c > 1}),
        "chance": 1 / len(names),
        **_accuracies(rank, label, len(names)),
        **_areas(np.concatenate(leads or [np.empty(0)]), label),
    }
    if macro_f1:
        found["f1_macro"] = metrics.macro_f1_estimate(np.concatenate(taken), label).as_json()
    if group_field is not None:
        found |= _worst_groups(rank, fields, group_field, len(names), skipped)
    found["skipped"] = counted(skipped)
    result = cast(ClassificationResult, found)
    if groups:
        group = np.array([groups.get(name, "") for name in names])[label]
        result["groups"] = {
            name: GroupResult(
                images=int((group == name).sum()),
                **_accuracies(rank[group == name], label[group == name], len(names)),
            )
            for name in sorted(set(group.tolist()) - {""})
        }
    return result


def _ranks(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """How many classes are nearer than an image's own, int64[n]: 0 if it is right.

    Of equal scores the first class's is nearer. A score that is not a number is behind none: a
    model whose features are no numbers is never right.
    """
    target = logits.gather(1, own[:, None])
    later = torch.arange(logits.shape[1], device=logits.device)[None, :] > own[:, None]
    behind = (logits < target) | ((logits == target) & later)
    return logits.shape[1] - 1 - behind.sum(dim=1)


def _accuracies(
    rank: npt.NDArray[np.int64], label: npt.NDArray[np.int64], classes: int
) -> Accuracies:
    found = {
        "top1": metrics.mean_estimate(rank < 1),
        "mean_per_class": metrics.class_mean_estimate(rank < 1, label),
    }
    if classes >= TOP:  # of fewer, every class is among the first five
        found["top5"] = metrics.mean_estimate(rank < TOP)
        halves = (rank < 1).astype(np.float64) + (rank < TOP)
        found["mean_of_top1_and_top5"] = metrics.mean_estimate(halves / 2)
    return cast(Accuracies, {name: estimate.as_json() for name, estimate in found.items()})


def _worst_groups(
    rank: npt.NDArray[np.int64],
    fields: Sequence[tuple[int, ...]],
    place: int,
    classes: int,
    skipped: Counter[str],
) -> dict[str, metrics.PlainEstimate]:
    """The worst group's top-1, and top-5 of five classes or more, over the images with a group."""
    known = np.array([len(of_image) > place for of_image in fields])
    skipped[SkippedExample.NO_GROUP] += int((~known).sum())
    if not known.any():
        return {}
    group = np.array([of_image[place] for of_image in fields if len(of_image) > place])
    of_rank = {1: "worst_group_top1", **({TOP: "worst_group_top5"} if classes >= TOP else {})}
    return {
        name: metrics.worst_group_estimate(rank[known] < k, group).as_json()
        for k, name in of_rank.items()
    }


class _Areas(TypedDict, total=False):
    roc_auc: metrics.PlainEstimate


def _areas(leads: npt.NDArray[np.float64], label: npt.NDArray[np.int64]) -> _Areas:
    """The area under the ROC curve where both of two classes have images."""
    if not leads.size or np.isnan(leads).any() or not 0 < label.sum() < label.size:
        return {}
    return {"roc_auc": metrics.roc_auc_estimate(leads, label == 1).as_json()}


def _class_vectors(
    loaded: LoadedModel, texts: ClassificationText
) -> tuple[torch.Tensor, torch.Tensor]:
    """The distinct vectors of the classes, float32[k, d], and each class's place among them."""
    distinct: dict[tuple[str, ...], int] = {}
    vectors: list[torch.Tensor] = []
    places: list[int] = []
    for number in range(len(texts.classes)):
        prompts = texts.prompts(number)
        if prompts not in distinct:
            distinct[prompts] = len(vectors)
            features = loaded.text_features(prompts)
            vectors.append(functional.normalize(features.mean(dim=0), dim=-1))
        places.append(distinct[prompts])
    return torch.stack(vectors), torch.tensor(places, device=loaded.device)


@torch.no_grad()
def retrieve(loaded: LoadedModel, data: str, *, progress: Meter | None = None) -> RetrievalResult:
    """Retrieval: recall at 1, 5 and 10 of captions for images and of images for captions.

    An image's recall is a hit if any of its captions is among the first k of all captions.
    """
    skipped: Counter[str] = Counter()
    parts: list[torch.Tensor] = []
    captions: list[str] = []
    owners: list[int] = []
    images = 0
    for encoded in encode(loaded, datasets.examples(data, skipped), skipped, progress):
        usable = [i for i, e in enumerate(encoded.examples) if e.captions]
        skipped[SkippedExample.NO_CAPTION] += len(encoded.examples) - len(usable)
        parts.append(encoded.features[torch.tensor(usable, dtype=torch.long, device=loaded.device)])
        for i in usable:
            captions += encoded.examples[i].captions
            owners += [images] * len(encoded.examples[i].captions)
            images += 1
    if not captions:
        raise UserError(f"{data} has no image with a caption ({in_words(skipped)})")
    image_ranks, text_ranks = retrieval_ranks(loaded, torch.cat(parts), captions, owners)
    groups = np.array(owners, dtype=np.int64)
    both = [(image_ranks < 1).astype(float), np.bincount(groups, text_ranks < 1)]
    sizes = [np.ones(images), np.bincount(groups).astype(float)]
    return {
        "images": images,
        "captions": len(captions),
        "image_to_text": {
            f"recall_at_{k}": metrics.mean_estimate(image_ranks < k).as_json() for k in RECALL_AT
        },
        "text_to_image": {
            f"recall_at_{k}": metrics.clustered_mean_estimate(text_ranks < k, groups).as_json()
            for k in RECALL_AT
        },
        "mean_recall_at_1": metrics.mean_of_shares_estimate(
            np.stack(both), np.stack(sizes)
        ).as_json(),
        "skipped": counted(skipped),
    }


def retrieval_ranks(
    loaded: LoadedModel, pictures: torch.Tensor, captions: Sequence[str], owners: Sequence[int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """For each image, how many captions of others are not behind its nearest own, and for each
    caption, how many other images are not behind its own: int64[images], int64[captions].

    ``pictures``: the images' features; ``owners``: each caption's image; every image has one.
    """
    texts = loaded.text_features(captions)
    owner = torch.tensor(owners, device=loaded.device)
    return (
        _best_ranks(pictures, texts, owner, loaded.batch_size),
        _own_ranks(texts, pictures, owner, loaded.batch_size),
    )


def _slices(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _own_ranks(
    texts: torch.Tensor, pictures: torch.Tensor, owner: torch.Tensor, size: int
) -> npt.NDArray[np.int64]:
    """For each caption, how many other images are not behind its own (ties, and no numbers)."""
    ranks = []
    for part in _slices(len(texts), size):
        scores = texts[part] @ pictures.T
        own = scores.gather(1, owner[part][:, None])
        ranks.append((~(scores < own)).sum(dim=1) - 1)
    return torch.cat(ranks).cpu().numpy()


def _best_ranks(
    pictures: torch.Tensor, texts: torch.Tensor, owner: torch.Tensor, size: int
) -> npt.NDArray[np.int64]:
    """For each image, how many captions of others are not behind its nearest (see above)."""
    ranks = []
    for part in _slices(len(pictures), size):
        scores = pictures[part] @ texts.T
        own = owner[None, :] == torch.arange(part.start, part.stop, device=owner.device)[:, None]
        best = scores.masked_fill(~own, -2.0).amax(dim=1, keepdim=True)
        ranks.append((~(scores < best) & ~own).sum(dim=1))
    return torch.cat(ranks).cpu().numpy()
