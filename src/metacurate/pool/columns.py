"""Which of a file's columns hold the URL, the key, the texts and their languages."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.types as pat

from metacurate.errors import ArgumentError
from metacurate.formats.features import Features, features_of
from metacurate.formats.files import UnusableFile
from metacurate.formats.protocol import Look
from metacurate.formats.types import (
    carried_type,
    is_key,
    is_list,
    is_text,
    is_texts,
    storage,
)
from metacurate.pool.schema import UID_TYPE, PoolConfig

URL_NAMES = ("url", "image_url", "img_url", "imageurl", "image_link", "link", "src")
TEXT_NAMES = (
    *("text", "caption", "captions", "alt", "alt_text", "alttext"),
    *("title", "description"),
)
UID_NAME = "uid"
KEY_NAMES = ("key", "__key__", "id", "uuid")
TEXTS_NAME = "texts"
LANG_NAMES = ("lang", "language")
KNOWN_NAMES = frozenset([*URL_NAMES, *TEXT_NAMES, UID_NAME, *KEY_NAMES, TEXTS_NAME, *LANG_NAMES])
# Of img2dataset's tables, and those that this package's download writes.
STATUS_NAME, ERROR_NAME, SUCCESS = "status", "error_message", "success"
COLUMNS_KEY = b"metacurate.columns"
RESERVED = ("uid", "matched", "text_kept", "keep_prob")
"""The names of columns that curation adds."""


@dataclass(frozen=True)
class ResolvedColumns:
    """What is read from a file: the columns' names and types.

    ``file``: all columns as the format gives them. ``carried``: the columns of
    ``PoolBatch.columns``, the same for all files of a pool. ``settings``: what the format must know
    to read the file. ``lang``: the column with the texts' languages, None if these stand within the
    texts or were not asked for (``with_langs``). ``status``: the column that says whether there is
    an image (``SUCCESS``). ``own``: the file's names of columns that are carried under others;
    ``constants``: what the names of folders say of all rows; ``left_out``: columns whose name
    occurs several times; ``features``: what ``datasets`` says of carried columns.
    """

    url: str | None
    key: str | None
    texts: tuple[str, ...]
    file: pa.Schema
    carried: pa.Schema
    settings: dict[str, Any] = field(default_factory=dict)
    lang: str | None = None
    with_langs: bool = False
    status: str | None = None
    own: dict[str, str] = field(default_factory=dict)
    constants: dict[str, str | None] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    features: Features = field(default_factory=dict)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that matching needs, in the file's order."""
        wanted = {self.url, self.key, self.lang, self.status, *self.texts}
        return tuple(name for name in self.file.names if name in wanted)

    @property
    def strict(self) -> tuple[str, ...]:
        """The columns in which only strings are of use."""
        return self.texts if self.url is None else (self.url, *self.texts)

    def only(self, names: Collection[str]) -> ResolvedColumns:
        """Without the columns that are neither needed nor among these names."""
        wanted = {*self.needed, *names}
        return replace(
            self,
            file=pa.schema([f for f in self.file if f.name in wanted]),
            carried=pa.schema([f for f in self.carried if self.own.get(f.name, f.name) in wanted]),
        )

    def is_same(self, other: ResolvedColumns) -> bool:
        """Whether both are equal, with what Arrow's equality leaves out: metadata of fields."""
        return (
            self == other
            and self.file.equals(other.file, check_metadata=True)
            and self.carried.equals(other.carried, check_metadata=True)
        )

    def describe(self) -> str:
        """What is read as what, for people."""
        texts = " and ".join(repr(name) for name in self.texts)
        identity = [
            f"{what} from {name!r}" for what, name in (("key", self.key), ("URL", self.url)) if name
        ]
        found = [*identity, f"text from {texts}"] if texts else identity
        if self.with_langs:
            found.append(f"language from {self.lang!r}" if self.lang else "language with each text")
        found += [f"own {old!r} carried as {new!r}" for new, old in self.own.items()]
        found += [f"{name!r} from the folder's name" for name in self.constants]
        found += [f"columns {name!r} left out (several have this name)" for name in self.left_out]
        return ", ".join(found)

    def described_by(self, look: Look, address: str, reserved: Collection[str]) -> ResolvedColumns:
        """With what else is known of the file: the types that are carried, its folders' names.

        A column with a ``reserved`` name is carried under another, unless it is just what goes by
        that name: the URL, a text, or a key of 16 bytes.
        """
        names = self.file.names
        kept = {self.url, *self.texts}
        if self.key is not None and storage(self.file.field(self.key).type).equals(UID_TYPE):
            kept.add(self.key)
        own: dict[str, str] = {}
        fields = []
        for name in names:
            kind = (look.carried or self.carried).field(name).type
            shown = name
            while shown != name or (name in reserved and name not in kept):
                shown = f"input_{shown}"
                if shown not in names:
                    own[shown] = name
                    break
            fields.append((shown, kind))
        folders = {n: v for n, v in _folder_values(address).items() if n not in names}
        fields += [(name, pa.string()) for name in folders]
        features = {
            name: feature
            for name, _ in fields
            if (feature := self.features.get(own.get(name, name))) is not None
        }
        return replace(
            self, carried=pa.schema(fields), settings=look.settings, own=own, constants=folders,
            features=features,
        )  # fmt: skip


def _folder_values(address: str) -> dict[str, str | None]:
    """What Hive's folders (``lang=en/``) say."""
    parts = [part.partition("=") for part in address.split("/")[:-1]]
    values = {unquote(name): unquote(value) for name, mark, value in parts if mark and name}
    return {
        name: None if value == "__HIVE_DEFAULT_PARTITION__" else value
        for name, value in values.items()
    }


Need = Literal["required", "optional", "unused"]


@dataclass(frozen=True)
class Needs:
    """Which columns a command needs.

    ``name``: a key or a URL; ``url``: the URL itself; ``texts``; ``langs``: the texts' languages;
    ``others``: columns by name; ``advice``: what to do where one of them is missing.
    """

    name: Need = "required"
    url: Need = "optional"
    texts: Need = "required"
    langs: Need = "unused"
    others: tuple[str, ...] = ()
    advice: str = ""


PAIRS = Needs()
PAIRS_WITH_LANGS = Needs(langs="required")
PAIRS_WITH_LANGS_IF_THERE = Needs(langs="optional")


def resolve(
    address: str, schema: pa.Schema, config: PoolConfig, needs: Needs = PAIRS
) -> ResolvedColumns:
    """Choose the columns of one file: those of the options, else by name.

    The one way in which all commands find columns. Raises UnusableFile if the file lacks what is
    needed or holds it in a wrong type, and UserError if several columns could be meant.
    """
    names = schema.names
    left_out: tuple[str, ...] = ()
    if len(set(names)) < len(names):
        twice = {name for name in names if names.count(name) > 1}
        known = {config.url_col, config.key_col, *config.text_cols, *needs.others}
        unclear = sorted(n for n in twice if n in known or n.lower() in KNOWN_NAMES)
        if unclear:
            raise UnusableFile(f"has several columns named {unclear[0]!r}")
        # Of others none can be told by its name: they are left out.
        left_out = tuple(sorted(twice))
        schema = pa.schema([field for field in schema if field.name not in twice])
        names = schema.names
    folders = _folder_values(address) if needs.langs != "unused" else {}
    lang_col = config.lang_col if needs.langs != "unused" else None
    lang_col = None if lang_col in folders else lang_col
    for name in (config.url_col, config.key_col, *config.text_cols, lang_col, *needs.others):
        if name is not None and name not in names:
            advice = needs.advice if name in needs.others else ""
            raise UnusableFile(f"has no column {name!r} (it has {_listed(names)})", advice)
    url, key = config.url_col, config.key_col
    written = _written(schema)
    if url is None and needs.url != "unused":
        url = written.url or _by_name(address, names, URL_NAMES, "URL", "url_col")
    if url is None and needs.url == "required":
        raise UnusableFile(
            f"has no URL column known by name (it has {_listed(names)})", "name it with {url_col}"
        )
    if key is None and config.url_col is None and needs.name != "unused":
        key = next((name for name in names if name.lower() == UID_NAME), None)
        if key is None and url is None:
            key = _by_name(address, names, KEY_NAMES, "key", "key_col")
    if url is None and key is None and needs.name == "required":
        raise UnusableFile(
            f"has no URL or key column known by name (it has {_listed(names)})",
            "name one with {url_col} or {key_col}",
        )
    texts = config.text_cols if needs.texts != "unused" else ()
    if not texts and needs.texts != "unused":
        texts = written.texts or _texts_by_name(address, names)
        if not texts and needs.texts == "required":
            raise UnusableFile(
                f"has no text column known by name (it has {_listed(names)})",
                "name one with {text_cols}",
            )
    lang = None
    if needs.langs != "unused":
        lang = _lang(address, schema, texts, config, folders)
    if lang is None and needs.langs == "required" and not _has_lang(schema, texts):
        raise UnusableFile(
            f"has no languages of its texts (it has {_listed(names)})",
            "name their column with {lang_col}, or let metacurate pool language find them",
        )
    for wanted, fits, what in (
        *((name, is_texts, "text") for name in texts),
        (None if lang in folders and lang not in names else lang, _is_lang, "text"),
        (url, is_text, "text"),
        (key, is_key, "text or integers"),
    ):
        if wanted is not None and not fits(schema.field(wanted).type):
            raise UnusableFile(f"column {wanted!r} holds {schema.field(wanted).type}, not {what}")
    carried = pa.schema([pa.field(f.name, carried_type(f.type)) for f in schema])
    status = STATUS_NAME if {STATUS_NAME, ERROR_NAME} <= set(names) else None
    if status is not None and not is_text(schema.field(status).type):
        status = None
    return ResolvedColumns(
        url, key, texts, schema.remove_metadata(), carried, lang=lang,
        with_langs=needs.langs != "unused", status=status, left_out=left_out,
        features=features_of(schema),
    )  # fmt: skip


def _lang(
    address: str,
    schema: pa.Schema,
    texts: tuple[str, ...],
    config: PoolConfig,
    folders: Collection[str],
) -> str | None:
    """The column of the texts' languages; None if they stand within the texts, or nowhere."""
    if config.lang_col is not None or _has_lang(schema, texts):
        return config.lang_col
    names = [name for name in schema.names if _is_lang(schema.field(name).type)]
    names += [name for name in folders if name not in schema.names]
    return _by_name(address, names, LANG_NAMES, "language", "lang_col")


def _has_lang(schema: pa.Schema, texts: tuple[str, ...]) -> bool:
    """Whether the texts of a column have their languages with them."""
    return any(has_lang(schema.field(name).type) for name in texts)


def _is_lang(kind: pa.DataType) -> bool:
    kind = storage(kind)
    return is_text(kind) or (is_list(kind) and is_text(kind.value_type))


def has_lang(kind: pa.DataType) -> bool:
    """Whether a column's type is that of texts with a language each (or room for one)."""
    kind = storage(kind)
    inner = storage(kind.value_type) if is_list(kind) else kind
    if is_list(inner):
        return is_text(inner.value_type)
    return (
        pat.is_struct(inner)
        and (place := inner.get_field_index("lang")) >= 0
        and is_text(inner.field(place).type)
    )


@dataclass(frozen=True)
class WrittenColumns:
    """Which columns of a curated shard its rows' URL and texts are in.

    The files of a pool may have them under different names, and a curated shard has the columns of
    all: its schema says which are this shard's own.
    """

    url: str | None = None
    texts: tuple[str, ...] = ()

    def metadata(self) -> dict[bytes, bytes]:
        """For a schema."""
        return {COLUMNS_KEY: json.dumps({"url": self.url, "texts": self.texts}).encode()}


def _written(schema: pa.Schema) -> WrittenColumns:
    """What a schema says of its columns; nothing if that does not fit them."""
    try:
        said = json.loads((schema.metadata or {})[COLUMNS_KEY])
        url, texts = said["url"], tuple(said["texts"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return WrittenColumns()
    known = set(schema.names)
    fits = (url is None or url in known) and all(name in known for name in texts)
    return WrittenColumns(url, texts) if fits else WrittenColumns()


def _texts_by_name(address: str, names: list[str]) -> tuple[str, ...]:
    if TEXTS_NAME in names:
        return (TEXTS_NAME,)
    text = _by_name(address, names, TEXT_NAMES, "text", "text_cols")
    return (text,) if text is not None else ()


def _by_name(
    address: str, names: list[str], known: tuple[str, ...], what: str, argument: str
) -> str | None:
    found = [name for name in names if name.lower() in known]
    if len(found) > 1:
        several = " (repeatable, for several texts a pair)" if what == "text" else ""
        raise ArgumentError(
            f"{{file}}: several columns could hold the {what}: {{columns}}; "
            f"choose with {{{argument}}}{several}",
            file=address,
            columns=_listed(found),
        )
    return found[0] if found else None


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown}, and {len(names) - 20} more"
