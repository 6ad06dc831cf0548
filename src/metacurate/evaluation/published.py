"""Published zero-shot figures of the models that MetaCLIP is compared with, in percent."""

from __future__ import annotations

from dataclasses import asdict, dataclass

SOURCES = (
    "ImageNet: Demystifying CLIP Data, arXiv 2309.16671",
    "mean of DataComp's 38: open_clip, docs/openclip_results.csv",
)


@dataclass(frozen=True)
class Published:
    """A model's figures: ImageNet top-1, and the mean over DataComp's 38 if it is published."""

    model: str
    architecture: str
    imagenet: float
    datacomp38: float | None = None


PUBLISHED = (
    Published("OpenAI CLIP 400M", "ViT-B/32", 63.4, 52.5),
    Published("OpenCLIP LAION-400M", "ViT-B/32", 62.9, 52.7),
    Published("MetaCLIP 400M", "ViT-B/32", 65.5, 53.9),
    Published("MetaCLIP 2.5B", "ViT-B/32", 67.6, 55.8),
    Published("OpenAI CLIP 400M", "ViT-B/16", 68.3, 56.3),
    Published("OpenCLIP LAION-400M", "ViT-B/16", 67.0, 56.2),
    Published("MetaCLIP 400M", "ViT-B/16", 70.8, 57.9),
    Published("MetaCLIP 2.5B", "ViT-B/16", 72.1, 60.4),
    Published("OpenAI CLIP 400M", "ViT-L/14", 75.5, 61.7),
    Published("OpenCLIP LAION-400M", "ViT-L/14", 72.7, 59.7),
    Published("MetaCLIP 400M", "ViT-L/14", 76.2, 62.5),
    Published("MetaCLIP 2.5B", "ViT-L/14", 79.2, 65.9),
    Published("MetaCLIP 2.5B", "ViT-H/14", 80.5, 66.7),
)


def as_json() -> dict[str, object]:
    """The figures and their sources."""
    return {"sources": list(SOURCES), "models": [asdict(model) for model in PUBLISHED]}
