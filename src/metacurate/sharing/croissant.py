"""Croissant: a description of the files and their columns as JSON-LD (mlcommons.org/croissant)."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa

from metacurate.runtime.storage import PIECE_BYTES, Folder
from metacurate.sharing.columns import croissant_fields
from metacurate.version import __version__

FORMAT = "application/x-parquet"
CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
_OWN = (
    "arrayShape citeAs column conformsTo containedIn equivalentProperty extract field fileProperty "
    "fileObject fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path "
    "recordSet references regex repeated replace samplingRate separator source subField transform"
)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    **{name: f"cr:{name}" for name in _OWN.split()},
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
}
"""The context of version 1.1."""


def description(
    name: str,
    about: str,
    *,
    license_: str | None,
    repo: str | None,
    languages: list[str],
    distribution: list[dict[str, Any]],
    records: list[dict[str, Any]],
) -> dict[str, Any]:
    """The whole document, as plain values; there is no date in it: the same run has the same."""
    found: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": name,
        "description": about,
        "version": "1.0.0",
        "creator": {"@type": "Organization", "name": f"metacurate {__version__}"},
        "keywords": ["image-text pairs", "metadata curation", "CLIP"],
        "citeAs": "Xu et al., Demystifying CLIP Data, ICLR 2024, arXiv:2309.16671",
    }
    if license_ is not None:
        found["license"] = license_
    if repo is not None:
        found["url"] = f"https://huggingface.co/datasets/{repo}"
    if languages:
        found["inLanguage"] = languages
    return {**found, "distribution": distribution, "recordSet": records}


def file_object(folder: Folder, name: str, format_: str, about: str) -> dict[str, Any]:
    """A file with its checksum; it is read once, so only small files are described so."""
    digest, size = hashlib.sha256(), 0
    with folder.open(name) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": about,
        "contentUrl": name,
        "contentSize": f"{size} B",
        "encodingFormat": format_,
        "sha256": digest.hexdigest(),
    }


def file_set(identity: str, includes: str, about: str) -> dict[str, Any]:
    """Files of one kind; their checksums are in the run's own manifest."""
    return {
        "@type": "cr:FileSet",
        "@id": identity,
        "name": identity,
        "description": about,
        "encodingFormat": FORMAT,
        "includes": includes,
    }


def record_set(name: str, about: str, schema: pa.Schema, source: dict[str, Any]) -> dict[str, Any]:
    """The rows of some files, with a field for each column."""
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": about,
        "field": croissant_fields(schema, name, source),
    }
