"""Which of a file's columns hold the URL, the key and the texts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.types as pat

from metacurate.errors import UserError
from metacurate.pool.files import UnusableFile
from metacurate.pool.schema import TEXTS_TYPE, PoolConfig

URL_NAMES = ("url", "image_url", "img_url", "imageurl", "image_link", "link", "src")
TEXT_NAMES = (
    *("text", "caption", "captions", "alt", "alt_text", "alttext"),
    *("title", "description"),
)
UID_NAME = "uid"
KEY_NAMES = ("key", "__key__", "id")
TEXTS_NAME = "texts"


@dataclass(frozen=True)
class ResolvedColumns:
    """What is read from a file: the columns' names and types.

    ``file``: all columns as the format gives them. ``carried``: the columns of
    ``PoolBatch.columns``, the same for all files of a pool. ``settings``: what the format must know
    to read the file.
    """

    url: str | None
    key: str | None
    texts: tuple[str, ...]
    file: pa.Schema
    carried: pa.Schema
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that matching needs, in the file's order."""
        wanted = {self.url, self.key, *self.texts}
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
            carried=pa.schema([f for f in self.carried if f.name in wanted]),
        )

    def describe(self) -> str:
        """What is read as what, for people."""
        texts = " and ".join(repr(name) for name in self.texts)
        identity = [
            f"{what} from {name!r}" for what, name in (("key", self.key), ("URL", self.url)) if name
        ]
        return ", ".join([*identity, f"text from {texts}"])


Need = Literal["required", "optional", "unused"]


@dataclass(frozen=True)
class Needs:
    """Which columns a command needs.

    ``name``: a key or a URL; ``url``: the URL itself; ``texts``; ``others``: columns by name.
    """

    name: Need = "required"
    url: Need = "optional"
    texts: Need = "required"
    others: tuple[str, ...] = ()


PAIRS = Needs()


def resolve(
    address: str, schema: pa.Schema, config: PoolConfig, needs: Needs = PAIRS
) -> ResolvedColumns:
    """Choose the columns of one file: those of the options, else by name.

    The one way in which all commands find columns. Raises UnusableFile if the file lacks what is
    needed or holds it in a wrong type, and UserError if several columns could be meant.
    """
    names = schema.names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UnusableFile(f"has several columns named {twice[0]!r}")
    for name in (config.url_col, config.key_col, *config.text_cols, *needs.others):
        if name is not None and name not in names:
            raise UnusableFile(f"has no column {name!r} (it has {_listed(names)})")
    url, key = config.url_col, config.key_col
    if url is None and needs.url != "unused":
        url = _by_name(address, names, URL_NAMES, "URL", "--url-col")
    if url is None and needs.url == "required":
        raise UnusableFile(
            f"has no URL column known by name (it has {_listed(names)}); name it with --url-col"
        )
    if key is None and config.url_col is None and needs.name != "unused":
        key = next((name for name in names if name.lower() == UID_NAME), None)
        if key is None and url is None:
            key = _by_name(address, names, KEY_NAMES, "key", "--key-col")
    if url is None and key is None and needs.name == "required":
        raise UnusableFile(
            f"has no URL or key column known by name (it has {_listed(names)}); "
            "name one with --url-col or --key-col"
        )
    texts = config.text_cols if needs.texts != "unused" else ()
    if not texts and needs.texts != "unused":
        text = TEXTS_NAME if TEXTS_NAME in names else None
        text = text or _by_name(address, names, TEXT_NAMES, "text", "--text-col")
        if text is None and needs.texts == "required":
            raise UnusableFile(
                f"has no text column known by name (it has {_listed(names)}); "
                "name one with --text-col"
            )
        texts = (text,) if text is not None else ()
    for wanted, fits, what in (
        *((name, is_texts, "text") for name in texts),
        (url, is_text, "text"),
        (key, is_key, "text or integers"),
    ):
        if wanted is not None and not fits(schema.field(wanted).type):
            raise UnusableFile(f"column {wanted!r} holds {schema.field(wanted).type}, not {what}")
    carried = pa.schema([pa.field(f.name, carried_type(f.type)) for f in schema])
    return ResolvedColumns(url, key, texts, schema.remove_metadata(), carried)


def _by_name(
    address: str, names: list[str], known: tuple[str, ...], what: str, option: str
) -> str | None:
    found = [name for name in names if name.lower() in known]
    if len(found) > 1:
        several = " (repeatable, for several texts a pair)" if what == "text" else ""
        raise UserError(
            f"{address}: several columns could hold the {what}: {_listed(found)}; "
            f"choose with {option}{several}"
        )
    return found[0] if found else None


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown}, and {len(names) - 20} more"


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds one text a row."""
    if pat.is_dictionary(kind):
        kind = kind.value_type
    return (
        pat.is_string(kind)
        or pat.is_large_string(kind)
        or pat.is_string_view(kind)
        or pat.is_binary(kind)
        or pat.is_large_binary(kind)
        or pat.is_binary_view(kind)
        or pat.is_null(kind)
    )


def _is_bytes(kind: pa.DataType) -> bool:
    return pat.is_binary(kind) or pat.is_large_binary(kind)


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's list types with offsets."""
    return pat.is_list(kind) or pat.is_large_list(kind)


def is_texts(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts: one a row, a list, or a list of structs."""
    if not is_list(kind):
        return is_text(kind)
    item = kind.value_type
    if pat.is_struct(item):
        text = item.get_field_index(TEXTS_TYPE.value_type.field(1).name)
        return text >= 0 and is_text(item.field(text).type)
    return is_text(item)


def is_key(kind: pa.DataType) -> bool:
    """Whether a column of this type can be a key."""
    return is_text(kind) or pat.is_integer(kind) or pat.is_fixed_size_binary(kind)


def carried_type(kind: pa.DataType) -> pa.DataType:
    """The type in which a column is carried: a plain one instead of a view or a dictionary."""
    if pat.is_dictionary(kind):
        return carried_type(kind.value_type)
    if pat.is_string_view(kind) or pat.is_null(kind):
        return pa.string()
    if pat.is_binary_view(kind):
        return pa.binary()
    return kind


def common_schema(schemas: list[pa.Schema]) -> pa.Schema:
    """The columns of all files in order of appearance, each in a type that holds all its values.

    Where no type does, plain values become text; otherwise the first file's type stays.
    """
    fields: dict[str, pa.DataType] = {}
    for schema in schemas:
        for name, kind in zip(schema.names, schema.types, strict=True):
            fields[name] = _wider(fields[name], kind) if name in fields else kind
    return pa.schema([pa.field(name, kind) for name, kind in fields.items()])


def _wider(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if first.equals(second):
        return first
    if is_text(first) and is_text(second) and _is_bytes(first) != _is_bytes(second):
        return pa.string()
    try:
        return pa.unify_schemas(
            [pa.schema([("x", first)]), pa.schema([("x", second)])], promote_options="permissive"
        )[0].type
    except (pa.ArrowTypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return first if pat.is_nested(first) or pat.is_nested(second) else pa.string()
