"""From the labels of language identifiers to the languages of metadata: a table, replaceable.

Metadata languages are those of Wikipedia, joined into groups: the code up to its first ``_`` or
``-`` (``zh_yue`` is ``zh``). ``examples/make_language_map.py`` derives the shipped table.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from metacurate.errors import UserError, first_line
from metacurate.runtime.storage import open_file

OTHER = "other"
"""The language of texts and of metadata that no label maps to."""

# Languages become names of files and columns; labels come from a pool and may be anything.
_LANGUAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
MAX_LABEL = 64


@dataclass(frozen=True)
class LanguageMap:
    """Which metadata language a label means.

    ``table``: labels and their languages, None for labels that mean none. What ``language`` is
    given need not be in it: ``zh_Hant_TW``, ``ZH-hant`` and ``zh`` are found by ``zh``.
    """

    table: Mapping[str, str | None]

    def language(self, label: str | None) -> str | None:
        """The metadata language of a label; None if it is empty, unknown or mapped to nothing.

        Looked up as it is, then in lower case with ``-`` for ``_``, then without its last part
        (``zh-hant-tw``, ``zh-hant``, ``zh``).
        """
        if not label or len(label) > MAX_LABEL:
            return None
        if label in self.table:
            return self.table[label]
        known = _normal(label)
        while known not in self._normal:
            known, dash, _ = known.rpartition("-")
            if not dash:
                return None
        return self._normal[known]

    @cached_property
    def languages(self) -> frozenset[str]:
        """All metadata languages that some label maps to."""
        return frozenset(language for language in self.table.values() if language is not None)

    @cached_property
    def fingerprint(self) -> str:
        """A hex digest of the table's content."""
        text = json.dumps(dict(self.table), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def _normal(self) -> dict[str, str | None]:
        return {_normal(label): language for label, language in self.table.items()}

    def __hash__(self) -> int:
        return hash(self.fingerprint)


def load_language_map(source: str | os.PathLike[str] | None = None) -> LanguageMap:
    """The shipped map; with ``source``, changed by that file.

    ``source``: a JSON file ``{label: language or null}``, a path or any fsspec address. Its labels
    take the place of the shipped ones of the same name (in whatever case, ``-`` and ``_`` alike);
    the others stay. UserError, in one line, if it cannot be read or says something else.
    """
    return _shipped() if source is None else _changed(_shipped(), _read(source))


def as_language_map(given: str | os.PathLike[str] | LanguageMap | None) -> LanguageMap | None:
    """A map as a caller gives it: a file's, loaded now, or a loaded one; None: the shipped one.

    That is looked at only where metadata have several languages.
    """
    return given if given is None or isinstance(given, LanguageMap) else load_language_map(given)


@cache
def _shipped() -> LanguageMap:
    text = files("metacurate").joinpath("data/languages.json").read_text("utf-8")
    return LanguageMap(json.loads(text))


def _changed(base: LanguageMap, given: Mapping[str, str | None]) -> LanguageMap:
    replaced = {_normal(label) for label in given}
    kept = {name: to for name, to in base.table.items() if _normal(name) not in replaced}
    return LanguageMap({**kept, **given})


def _normal(label: str) -> str:
    return label.strip().lower().replace("_", "-")


def _read(source: str | os.PathLike[str]) -> dict[str, str | None]:
    where = f"the language map {os.fspath(source)}"
    try:
        with open_file(source) as file:
            table = json.loads(file.read().decode("utf-8-sig"), object_pairs_hook=_distinct)
    except FileNotFoundError:
        raise UserError(f"{where} cannot be found; give a JSON file of labels") from None
    except OSError as error:
        said = error.strerror or first_line(error)
        raise UserError(f"{where} cannot be read: {said}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no valid JSON: {first_line(error)}") from None
    if not isinstance(table, dict):
        raise UserError(f"{where} must be a JSON object of labels and languages")
    for label, language in table.items():
        if not label.strip() or len(label) > MAX_LABEL:
            raise UserError(f"{where}: a label has 1 to {MAX_LABEL} characters, not {label!r}")
        named = isinstance(language, str) and _LANGUAGE.fullmatch(language)
        if language is not None and not named:
            raise UserError(
                f"{where}: the language of {label!r} is a code of letters, digits, - and _ "
                f"(at most 32), or null, not {json.dumps(language)}"
            )
    return table


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the label {name!r} is there twice")
        found[name] = value
    return found
