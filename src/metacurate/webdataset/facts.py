"""What a sample's ``KEY.txt`` and ``KEY.json`` say of it: one rule for all commands.

The texts of a sample are those of the first of these that holds any:

1. ``texts`` in the JSON: a list of strings, of ``{source, text, lang}``, of MetaCLIP's
   ``[source, text]`` (v1) or of its ``[text, lang, ids]`` (v2);
2. ``KEY.txt``;
3. ``text``, ``caption``, ``captions``, ... in the JSON (the names that a pool's columns may have),
   each a string or a list.

So what curation has seen and rejected is not read by training from another place. Other texts in
the other places are counted (``other_text_in_txt``, ``other_text_in_json``).

Their languages stand with them, or in the JSON as ``lang`` or ``language``: a string for all texts,
or a list with one for each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metacurate.pool.columns import LANG_NAMES, TEXT_NAMES, TEXTS_NAME
from metacurate.texts.languages import MAX_LABEL
from metacurate.webdataset.reasons import Problem

MAX_TEXT_BYTES = 1 << 20
MAX_JSON_BYTES = 16 << 20
MAX_JSON_DEPTH = 100
KEPT_NAME = "text_kept"


@dataclass(frozen=True)
class Text:
    """A text with where it comes from and its language; ``text`` is None if it is not usable."""

    text: str | None
    source: str | None = None
    lang: str | None = None


def read_record(content: bytes | None, problems: Counter[str]) -> dict[str, Any]:
    """The object in a ``KEY.json``; empty if there is none, ``problems`` counts why."""
    if content is None:
        return {}
    if len(content) > MAX_JSON_BYTES:
        problems[Problem.JSON_TOO_LARGE] += 1
        return {}
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or _is_deep(content, value):
        problems[Problem.JSON_INVALID] += 1
        return {}
    return value


def _is_deep(content: bytes, value: Any) -> bool:
    """Whether a value is nested deeper than any record, so that who walks it need not mind."""
    if content.count(b"[") + content.count(b"{") <= MAX_JSON_DEPTH:
        return False
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        inner = [item.values() if isinstance(item, dict) else item for item in level]
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def decode_text(content: bytes | None, problems: Counter[str]) -> str | None:
    """The text in a ``KEY.txt``; None if there is none, ``problems`` counts why."""
    if content is None:
        return None
    if len(content) > MAX_TEXT_BYTES:
        problems[Problem.TEXT_TOO_LARGE] += 1
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        problems[Problem.TEXT_NOT_UTF8] += 1
        return None


def sample_texts(
    record: dict[str, Any], text: str | None, problems: Counter[str], names: Sequence[str] = ()
) -> list[Text]:
    """The texts of a sample, in order, those that are not usable as None.

    ``problems`` counts the texts that are not taken since others come first; texts that differ in
    their white space alone are the same. ``names``: of the JSON's fields to take instead of what
    the rule above says.
    """
    if names:
        return [found for name in names for found in _texts_in(record.get(name), name)]
    listed = _texts_in(record.get(TEXTS_NAME), None)
    filled = _filled(text)
    in_txt = [] if filled is None else [Text(filled, "txt")]
    fields = {name.lower(): (name, value) for name, value in reversed(record.items())}
    named = [fields[known] for known in TEXT_NAMES if known in fields]
    in_fields = [_texts_in(value, name) for name, value in named]
    places = [listed, in_txt, *in_fields]
    taken = next((place for place in places if any(found.text for found in place)), None)
    if taken is None:
        return listed  # no usable text: the list still says how many there are
    # Where curation has chosen already, the others are known.
    if KEPT_NAME not in record:
        seen = _words(taken)
        problems[Problem.OTHER_TEXT_IN_TXT] += len(_words(in_txt) - seen)
        told = _words(found for place in in_fields for found in place)
        problems[Problem.OTHER_TEXT_IN_JSON] += len(told - seen)
    return taken


def with_languages(texts: Sequence[Text], *records: dict[str, Any]) -> list[Text]:
    """A sample's texts with the language that is stated for them, if none of them has its own.

    ``records``: what is said of the sample; the first that states one counts.
    """
    said = [{name.lower(): value for name, value in reversed(r.items())} for r in records]
    stated = next((r[name] for r in said for name in LANG_NAMES if r.get(name)), None)
    if stated is None or any(text.lang for text in texts):
        return list(texts)
    if not isinstance(stated, list):
        stated = [stated] * len(texts)
    if len(stated) != len(texts):
        return list(texts)  # nothing says which language is whose
    return [replace(text, lang=_label(value)) for text, value in zip(texts, stated, strict=True)]


def _label(value: Any) -> str | None:
    """A label that may mean a language; a longer string means none, and would be there per text."""
    return usable_string(value) if isinstance(value, str) and len(value) <= MAX_LABEL else None


def usable_string(value: Any) -> str | None:
    """A string that UTF-8 can hold (JSON allows lone surrogates) and is not too long, else None."""
    if not isinstance(value, str) or len(value) > MAX_TEXT_BYTES:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def _words(texts: Iterable[Text]) -> set[str]:
    return {" ".join(found.text.split()) for found in texts if found.text}


def _texts_in(value: Any, source: str | None) -> list[Text]:
    if value is None:
        return []
    return [_text(item, source) for item in (value if isinstance(value, list) else [value])]


def _text(item: Any, source: str | None) -> Text:
    match item:
        case {"text": text}:
            said = usable_string(item.get("source")) or source
            return Text(_filled(text), said, usable_string(item.get("lang")))
        case [str(key), str(text)]:
            return Text(_filled(text), usable_string(key))
        case [str(text), str() | None as lang, *_]:
            return Text(_filled(text), source, usable_string(lang))
        case _:
            return Text(_filled(item), source)


def _filled(value: Any) -> str | None:
    text = usable_string(value)
    return None if text is None or not text or text.isspace() else text
