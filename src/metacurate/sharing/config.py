"""What the maker of a card says of the data, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from metacurate.arguments import listed, shown
from metacurate.errors import ArgumentError

MAX_TEXT = 200
DEFAULT_NAME = "Curated image-text pairs"
# The hub's names: of letters, digits and single marks between them.
_PART = r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*"
_REPO = re.compile(rf"{_PART}/{_PART}")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
MAX_PART = 96


@dataclass(frozen=True)
class CardConfig:
    """What a card says that the run does not know.

    Attributes:
        name: The data set's name in words.
        license: An identifier of the hub (``cc-by-4.0``, ``other``, ...), or a web address.
        languages: ISO 639 codes; those of the metadata if they have several and none is given.
        repo: Where it will be published on Hugging Face's hub, as ``USER/NAME``.
    """

    name: str = DEFAULT_NAME
    license: str | None = None
    languages: tuple[str, ...] = ()
    repo: str | None = None

    def __post_init__(self) -> None:
        _check_line("name", self.name)
        if self.license is not None:
            _check_line("license", self.license)
        languages = (self.languages,) if isinstance(self.languages, str) else self.languages
        object.__setattr__(self, "languages", tuple(listed("languages", languages)))
        for language in self.languages:
            if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
                raise ArgumentError(
                    "{languages} takes ISO 639 codes of two or three letters (en, zh, ceb), not "
                    "{value}",
                    value=shown(language),
                )
        if self.repo is not None and not _is_repo(self.repo):
            raise ArgumentError(
                "{repo} takes the name of a data set on the hub, as USER/NAME, not {value}",
                value=shown(self.repo),
            )

    @property
    def license_fields(self) -> dict[str, str]:
        """The license as the hub's cards have it."""
        if self.license is None:
            return {}
        if self.license.startswith(("https://", "http://")):
            return {"license": "other", "license_name": "other", "license_link": self.license}
        return {"license": self.license.lower()}

    def as_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "license": self.license, "languages": list(self.languages),
                "repo": self.repo}  # fmt: skip


def _check_line(name: str, value: Any) -> None:
    fits = isinstance(value, str) and value.strip() and value.isprintable()
    if not fits or len(value) > MAX_TEXT:
        raise ArgumentError(
            f"{{{name}}} must be one line of 1 to {MAX_TEXT} visible characters, not {{value}}",
            value=shown(value),
        )


def _is_repo(value: Any) -> bool:
    return (
        isinstance(value, str)
        and _REPO.fullmatch(value) is not None
        and not value.endswith(".git")
        and all(len(part) <= MAX_PART for part in value.split("/"))
    )
