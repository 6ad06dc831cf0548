"""What an experiment's inputs hold: other files under the same names are noticed.

Pools and metadata decide every run: with others it is another experiment. The evaluation's files
decide the evaluations alone, which are then made again with the weights that there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from metacurate.experiments.config import EvaluationSection, ExperimentConfig
from metacurate.experiments.pools import open_section
from metacurate.metadata.store import load_metadata
from metacurate.runtime.manifest import digest

Paths = tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    """Fingerprints: of a pool's files, by the paths that name them; of metadata, by their path; of
    all files that the evaluation reads. ``with_languages``: the metadata that have several."""

    pools: dict[Paths, dict[str, str]]
    metadata: dict[str, str]
    with_languages: frozenset[str]
    evaluation: str


def read_inputs(config: ExperimentConfig) -> Inputs:
    """Look at all inputs; UserError if a pool, metadata or the evaluation's data cannot be used."""
    pool = config.pool
    paths = {pool.paths, *(arm.paths for arm in config.arms if arm.paths)}
    named = {pool.metadata, *(arm.metadata for arm in config.arms if arm.metadata)}
    pools = {given: open_section(pool, given).fingerprints for given in sorted(paths)}
    metadata, with_languages = {}, set()
    for given in sorted(named):
        loaded = load_metadata(given)
        metadata[given] = loaded.fingerprint
        if loaded.languages:
            with_languages.add(given)
    return Inputs(pools, metadata, frozenset(with_languages), _evaluation(config.evaluation))


def _evaluation(section: EvaluationSection) -> str:
    from metacurate.evaluation.datasets import class_texts, files_digest
    from metacurate.evaluation.evaluate import read_groups

    def of(data: str, names: str | None = None, templates: str | None = None) -> str:
        return files_digest(data, class_texts(data, names, templates))

    return digest(
        of(section.data, section.class_names, section.templates),
        read_groups(section.groups) if section.groups is not None else None,
        {
            language: of(section.data, names, section.templates)
            for language, names in section.languages.items()
        },
        {name: of(data) for name, data in section.more.items()},
    )
