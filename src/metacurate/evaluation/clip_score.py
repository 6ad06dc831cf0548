"""``clip-score``: the cosine of an image and its texts by a CLIP model, as LAION and DFN filter by.

The rival of curation by metadata: "filtering with model parameters" (MetaCLIP, arXiv 2309.16671).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metacurate.needs import needs

with needs("train"):
    import torch
    from PIL import Image

from metacurate.errors import UserError
from metacurate.evaluation.zero_shot import LoadedModel, load_model
from metacurate.images.scorers import ImageArray, Scorer
from metacurate.webdataset.facts import sample_texts

MODEL = "ARCHITECTURE@CHECKPOINT (ViT-B-32-quickgelu@metaclip_400m) or a folder of metacurate train"


def clip_score(model: str, *unexpected: object) -> Scorer:
    """The scorer ``clip-score:MODEL``.

    ``model``: a folder of ``metacurate train``, or ``ARCHITECTURE@CHECKPOINT`` with open_clip's
    name of the architecture and a file or a tag of its published weights. The scorer's columns:
    ``clip_score``, the best of the image's texts, and ``clip_scores``, one for each text (None for
    one that is empty). UserError if there is no such model.
    """
    if unexpected or not isinstance(model, str) or not model:
        raise UserError(f"the scorer clip-score needs a model: clip-score:MODEL, with {MODEL}")
    loaded = _kept_scorer(model)

    def scorer(
        images: Sequence[ImageArray], rows: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[Any]]:
        texts = []
        for row in rows:
            found = sample_texts(dict(row), row.get("txt"), Counter())
            texts.append([text.text for text in found])
        scores = score(loaded, [Image.fromarray(image) for image in images], texts)
        return {"clip_score": [best(of_image) for of_image in scores], "clip_scores": scores}

    return scorer


def open_scorer(model: str) -> LoadedModel:
    """The model that ``clip-score:MODEL`` names; a folder may have ``@`` in its path."""
    if Path(model).is_dir():
        return load_model(model)
    architecture, at, checkpoint = model.partition("@")
    if at:
        return load_model(checkpoint, architecture)
    what = "is a file of no known architecture" if Path(model).is_file() else "is no folder"
    raise UserError(f"clip-score:{model}: {model} {what}; a model is {MODEL}")


# A filter asks for its scorers once a shard.
_kept_scorer = functools.lru_cache(maxsize=2)(open_scorer)


def best(scores: Sequence[float | None]) -> float | None:
    """The best of a pair's scores; None if no text has one."""
    return max((score for score in scores if score is not None), default=None)


@torch.no_grad()
def score(
    loaded: LoadedModel, images: Sequence[Image.Image], texts: Sequence[Sequence[str | None]]
) -> list[list[float | None]]:
    """Cosines of images with their texts, in [-1, 1]: a list for each image, as long as its texts.

    A text that is None or blank has None. Deterministic for the same images in the same order on
    the same device; the last digits differ with the batch.
    """
    scores: list[list[float | None]] = []
    size = loaded.batch_size
    for start in range(0, len(images), size):
        part = [loaded.preprocess(image.convert("RGB")) for image in images[start : start + size]]
        features = loaded.image_features(part)
        own = texts[start : start + size]
        found: list[list[float | None]] = [[None] * len(of_image) for of_image in own]
        places = [
            (i, j, text)
            for i, of_image in enumerate(own)
            for j, text in enumerate(of_image)
            if text and not text.isspace()
        ]
        if places:
            vectors = loaded.text_features([text for _, _, text in places])
            owners = features[[i for i, _, _ in places]]
            cosines = (owners * vectors).sum(dim=-1).cpu().tolist()
            for (i, j, _), cosine in zip(places, cosines, strict=True):
                found[i][j] = cosine
        scores += found
    return scores
