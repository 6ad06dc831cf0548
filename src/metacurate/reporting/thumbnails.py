"""Thumbnails of sample pairs from WebDataset shards, re-encoded as small JPEG files.

A sample of a shard is a pair's if its key is the pair's uid in hex, or if its ``.json`` member has
that ``uid`` or the pair's ``url``.
"""

from __future__ import annotations

import base64
from collections import Counter

from metacurate.curation.subset import Sample
from metacurate.images.decoders import Job, isolated, process_job
from metacurate.images.process import ImageConfig, ProcessedImage, Rejected
from metacurate.runtime.isolate import Isolated
from metacurate.runtime.storage import Folder
from metacurate.webdataset.shards import list_shards, read_samples

CONFIG = ImageConfig(resize="keep_ratio_largest", size=128, quality=80)


def find_thumbnails(tars: str, samples: dict[int, list[Sample]]) -> dict[str, str]:
    """``{uid hex: data URI}`` of those sample pairs whose image is in the folder's tar files.

    One streamed pass; nothing is unpacked to disk. Raises UserError if the folder has no tar file.
    """
    pairs = [sample for found in samples.values() for sample in found]
    by_key = {pair["uid"]: pair["uid"] for pair in pairs}
    by_url = {pair["url"]: pair["uid"] for pair in pairs if pair["url"]}
    folder = Folder(tars)
    thumbnails: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    with isolated(process_job) as decoder:
        for name in list_shards(folder).values():
            for found in read_samples(folder.open(name), skipped):
                row = found.record(skipped)
                uid = by_key.get(found.key) or by_key.get(str(row.get("uid")))
                uid = uid or by_url.get(str(row.get("url")))
                if uid is None or uid in thumbnails or (image := found.image) is None:
                    continue
                if (uri := thumbnail(image, decoder)) is not None:
                    thumbnails[uid] = uri
    return thumbnails


def thumbnail(image: bytes, decoder: Isolated[Job, ProcessedImage | Rejected]) -> str | None:
    """A small JPEG of an image as a data URI; None if it cannot be decoded within bounds."""
    small = decoder.map([(image, CONFIG)])[0]
    if not isinstance(small, ProcessedImage):
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(small.jpeg).decode()}"
